//! Goal: a loss comes about only by an operator's word that names it, and whatever was released before keeps its seqs for ever. Method:
//! real groups whose copies can't prove to be whole, a subscriber that goes on over the loss, and one that asks for what was skipped.

mod appliance;

use appliance::group::{Group, GroupShape, LEADING, admin};
use appliance::{LIMIT, credential, payload, send, signal};
use relay_client::{ClientError, Publisher, PublisherConfig, Start, Subscriber, SubscriberConfig};
use relay_core::sequence::SEQS_SKIPPED;
use relay_journal::reader::JournalDir;
use relay_wire::code::TerminateCode;

const DONE: &str = "{\"ok\":true}";
/// What `group.obstacle` counts.
const WAITS_FOR_OPERATOR: u64 = 1;
const IS_NOT_IN_SET: u64 = 3;

/// Publishes so many messages as one publisher and waits until they are released.
fn publish(group: &Group, id: u64, count: u64) {
    let config = PublisherConfig::new(group.addresses(), credential(&format!("p{id}")), id);
    let mut publisher = Publisher::connect(config).unwrap();
    let topic = publisher.topic("orders.new").unwrap();
    for number in 1..=count {
        send(&mut publisher, topic, &payload(id, number));
    }
    assert!(publisher.wait_released(LIMIT).unwrap(), "{}", group.logs());
}

fn subscriber(group: &Group, start: Start) -> Result<Subscriber, ClientError> {
    let patterns = vec![">".to_owned()];
    let config = SubscriberConfig::new(group.addresses(), credential("p1"), patterns, start);
    Subscriber::connect(config)
}

/// Reads so many messages of one publisher, in order; the seqs of the first and the last.
fn read(subscriber: &mut Subscriber, id: u64, count: u64) -> (u64, u64) {
    let mut seqs = Vec::new();
    for number in 1..=count {
        let delivery = subscriber.next_within(LIMIT).unwrap().expect("it comes");
        assert_eq!(delivery.record.payload(), payload(id, number));
        seqs.push(delivery.record.seq().get());
    }
    (seqs[0], *seqs.last().unwrap())
}

fn await_on_every_disk(group: &Group, leader: usize) {
    let tail = group.counter(leader, "position.released");
    group.eventually("everything is on every disk", || {
        (0..group.nodes.len()).all(|place| group.counter(place, "position.durable") >= tail)
    });
}

/// Where a node's log ends on its disk.
fn log_end(group: &Group, place: usize) -> u64 {
    let journal = JournalDir::open(&group.nodes[place].directory()).unwrap();
    journal.extent().unwrap().tail.get()
}

/// Goes on after the loss: new messages have seqs beyond all that could have been given out, a subscriber goes on over them, and what was
/// skipped can't be had.
fn goes_on_with_later_seqs(group: &Group, reader: &mut Subscriber, last_seq: u64) {
    publish(group, 2, 20);
    let (first, _) = read(reader, 2, 20);
    assert_eq!(first, last_seq + 1 + SEQS_SKIPPED);
    let start = Start::Seq {
        seq: last_seq + 1_000,
        checksum: None,
    };
    let refused = subscriber(group, start).and_then(|mut lost| lost.next_within(LIMIT).map(drop));
    assert!(
        matches!(
            refused,
            Err(ClientError::Terminated {
                code: TerminateCode::WrongHistory,
                ..
            })
        ),
        "{refused:?}"
    );
}

/// Goal: where copies in memory counted and every process was restarted, nobody leads by itself, and what is said then names the loss.
#[test]
fn a_mirrored_pair_that_restarted_whole_is_promoted_with_a_skip() {
    let mut wanted = GroupShape::default();
    wanted.shape.policy = Some("mirrored");
    let mut group = Group::started(&wanted);
    publish(&group, 1, 200);
    let mut reader = subscriber(&group, Start::Earliest).unwrap();
    let (_, last_seq) = read(&mut reader, 1, 200);
    let leader = group.await_in_sync();
    await_on_every_disk(&group, leader);
    for place in [0, 1] {
        group.nodes[place].kill();
    }
    // A record of the node's own may have come after the messages, and not to both disks.
    let longest = usize::from(log_end(&group, 1) > log_end(&group, 0));
    for place in [0, 1] {
        group.nodes[place].start();
    }
    for place in [0, 1] {
        group.eventually("it says what it waits for", || {
            group.counter(place, "group.obstacle") == IS_NOT_IN_SET
        });
        assert_ne!(group.counter(place, "group.standing"), LEADING);
    }
    let refused = admin(&group.nodes[longest], "promote");
    assert!(refused.contains("not in the in-sync set"), "{refused}");
    let word = format!("promote accept-loss {}", longest + 1);
    assert_eq!(admin(&group.nodes[longest], &word), DONE);
    assert_eq!(group.await_leader(None), longest);
    goes_on_with_later_seqs(&group, &mut reader, last_seq);
    group.await_in_sync();
    assert!(group.stop_and_compare() > 0);
}

/// Goal: an observer is never counted on and shows how far behind it is; with both nodes gone an operator may make it lead, with the loss
/// named, and the nodes follow it when they come back, until it hands over and is an observer again.
#[test]
fn an_observer_is_promoted_with_the_loss_named() {
    let mut group = Group::started(&GroupShape {
        nodes: 3,
        observers: 1,
        ..GroupShape::default()
    });
    let mut leader = group.await_in_sync();
    signal(group.nodes[2].pid(), libc::SIGSTOP);
    publish(&group, 1, 200);
    group.eventually("its lag is shown", || {
        group.counter(leader, "peer.3.lag_bytes") > 0
    });
    assert_eq!(group.counter(leader, "peer.3.is_member"), 0);
    assert_eq!(group.counter(leader, "group.members"), 2);
    signal(group.nodes[2].pid(), libc::SIGCONT);
    let mut reader = subscriber(&group, Start::Earliest).unwrap();
    let (_, last_seq) = read(&mut reader, 1, 200);
    loop {
        await_on_every_disk(&group, leader);
        for place in [1 - leader, leader] {
            group.nodes[place].kill();
        }
        group.eventually("it waits for the operator", || {
            group.counter(2, "group.obstacle") == WAITS_FOR_OPERATOR
        });
        let end = log_end(&group, 0).max(log_end(&group, 1));
        if group.counter(2, "position.durable") == end {
            break;
        }
        // The set changed between the two kills, and the observer was not told any more.
        for place in [0, 1] {
            group.nodes[place].start();
        }
        leader = group.await_in_sync();
    }
    group.nodes[2].await_log(&["relay promote"]);
    let refused = admin(&group.nodes[2], "promote");
    assert!(refused.contains("not in the in-sync set"), "{refused}");
    assert_eq!(admin(&group.nodes[2], "promote accept-loss 3"), DONE);
    assert_eq!(group.await_leader(None), 2);
    goes_on_with_later_seqs(&group, &mut reader, last_seq);
    for place in [0, 1] {
        group.nodes[place].start();
    }
    group.eventually("both follow it and are counted", || {
        group.counter(2, "group.members") == 3 && group.copies(2) == 3
    });
    assert_eq!(admin(&group.nodes[2], "hand-over 1"), DONE);
    assert_eq!(group.await_leader(Some(2)), 0);
    group.eventually("it is an observer again", || {
        group.counter(0, "peer.3.is_member") == 0 && group.counter(0, "group.members") == 2
    });
    assert_eq!(group.await_in_sync(), 0);
    publish(&group, 3, 20);
    read(&mut reader, 3, 20);
    assert!(group.stop_and_compare() > 0);
}
