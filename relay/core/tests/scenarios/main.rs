//! Scenarios against the machines, without I/O: each reads like a small script.

mod behind_the_ring;
mod subscriptions;
mod world;

use relay_core::command::ToIngress;
use relay_core::sequence::SequenceEffect;
use relay_wire::code::{From, Held, Role};
use relay_wire::id::{Epoch, PublisherSeq, Seq, TopicId};
use relay_wire::message::Message;
use relay_wire::record::Record;

use world::{Got, RING, World, key, message};

const ONE: (u64, u64) = (1, 10);

/// Goal: nothing is acknowledged or forwarded before it is durable. Method: hold the writes, look, let them go.
#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    let live = world.subscribe(From::Live, 0, None, &[">"]);
    world.holds_writes = true;
    world.publish(conn, ONE, topic, 1..=3);
    assert!(world.acked.is_empty());
    assert!(world.subscriber_client(live).seqs().is_empty());
    world.holds_writes = false;
    world.run();
    assert_eq!(world.acked, [(conn, PublisherSeq(3), Seq(3))]);
    assert_eq!(world.subscriber_client(live).seqs(), [1, 2, 3]);
}

/// Goal: durable is a prefix. Method: complete the second write first.
#[test]
fn writes_that_complete_out_of_order_release_in_order() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.holds_writes = true;
    world.publish(conn, ONE, topic, 1..=1);
    world.publish(conn, ONE, topic, 2..=40);
    assert_eq!(world.writes.len(), 2);
    world.complete_write(1);
    world.run();
    assert!(world.acked.is_empty());
    world.complete_write(0);
    world.run();
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(40));
}

/// Goal: a resent record is not journalled twice and is acknowledged when its original is released. Method: resend while
/// the original is in flight, after its release, and over a new connection.
#[test]
fn a_duplicate_is_acknowledged_with_its_original_and_delivered_once() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    let live = world.subscribe(From::Live, 0, None, &[">"]);
    world.holds_writes = true;
    world.publish(conn, ONE, topic, 1..=2);
    world.publish(conn, ONE, topic, 1..=2);
    assert!(world.acked.is_empty(), "the originals are in flight");
    world.holds_writes = false;
    world.run();
    world.acked.clear();
    world.publish(conn, ONE, topic, 2..=2);
    assert_eq!(world.acked, [(conn, PublisherSeq(2), Seq(2))]);
    let again = world.logon("one", Role::Publisher, 1, 10);
    assert!(world.client(again).has("next_expected: PublisherSeq(3)"));
    assert!(world.client(conn).has("Superseded"));
    let topic = world.topic(again, "a.x").unwrap();
    world.publish(again, ONE, topic, 1..=3);
    assert_eq!(world.subscriber_client(live).seqs(), [1, 2, 3]);
}

/// Goal: a restart knows what was sent. Method: crash with writes lost, resend everything, compare what a subscriber
/// from the start gets.
#[test]
fn a_restart_recognises_what_is_in_the_journal() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=5);
    let (two, topic_two) = world.publisher("two", 2, 1);
    world.publish(two, (2, 1), topic_two, 1..=4);
    world.holds_writes = true;
    world.publish(conn, ONE, topic, 6..=9);
    let (mut world, recovered) = world.crash();
    assert_eq!(recovered.tables.next_seq, Seq(10));
    let conn = world.logon("one", Role::Publisher, 1, 10);
    assert!(world.client(conn).has("next_expected: PublisherSeq(6)"));
    assert!(world.client(conn).has("released_through: PublisherSeq(5)"));
    let topic = world.topic(conn, "a.x").unwrap();
    world.publish(conn, ONE, topic, 1..=9);
    let two = world.logon("two", Role::Publisher, 2, 1);
    assert!(world.client(two).has("next_expected: PublisherSeq(5)"));
    let reader = world.subscribe(From::Earliest, 0, None, &[">"]);
    assert_eq!(
        world.subscriber_client(reader).seqs(),
        (1..=13).collect::<Vec<_>>()
    );
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(9));
}

/// Goal: a gap is rejected once, nothing after it is taken until the expected record comes.
#[test]
fn a_gap_is_rejected_and_the_publisher_goes_back() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, [1, 3, 4, 5]);
    let rejects = |world: &World| {
        world
            .client(conn)
            .messages()
            .iter()
            .filter(|m| m.contains("code: Gap"))
            .count()
    };
    assert_eq!(rejects(&world), 1);
    assert!(world.client(conn).has("next_expected: PublisherSeq(2)"));
    world.publish(conn, ONE, topic, [2, 3, 4, 5, 7]);
    assert_eq!(rejects(&world), 2);
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(5));
}

/// Goal: incarnations only rise, each starts at 1. Method: log on with a lower and a higher one.
#[test]
fn incarnations_only_rise() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=3);
    let older = world.logon("one", Role::Publisher, 1, 9);
    assert!(world.client(older).has("OldIncarnation, detail: 10"));
    let (newer, topic) = world.publisher("one", 1, 11);
    world.publish(newer, (1, 11), topic, 1..=2);
    assert_eq!(
        world.acked.last().unwrap(),
        &(newer, PublisherSeq(2), Seq(5))
    );
    let (mut world, _) = world.crash();
    let back = world.logon("one", Role::Publisher, 1, 11);
    assert!(world.client(back).has("next_expected: PublisherSeq(3)"));
}

/// Goal: a topic id is told only once its definition is released, and only to who may write there.
#[test]
fn topic_ids_are_told_after_release_and_by_right() {
    let mut world = World::new();
    let conn = world.logon("one", Role::Publisher, 1, 10);
    world.holds_writes = true;
    assert_eq!(world.topic(conn, "a.y"), None);
    world.holds_writes = false;
    world.run();
    assert!(
        world
            .client(conn)
            .has("Topic { request: 5, topic: TopicId(1)")
    );
    for (name, code) in [("c", "NotEntitled"), ("a..b", "BadTopic"), ("", "BadTopic")] {
        world.request_topic(conn, name);
        assert!(world.client(conn).has(code), "{name}");
    }
    for n in 0..8 {
        world.request_topic(conn, &format!("a.{n}"));
    }
    assert!(world.client(conn).has("TooManyTopics"));
    let before = world.sequence.next_seq();
    world.publish(conn, ONE, TopicId(77), 1..=1);
    assert!(world.client(conn).has("UnknownTopic"));
    assert_eq!(world.sequence.next_seq(), before);
}

/// Goal: a payload over the limit is rejected, not cut off.
#[test]
fn a_payload_over_the_limit_is_rejected() {
    let mut settings = world::settings();
    settings.payload_limit = 100;
    let mut world = World::with(settings);
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=1);
    assert!(world.client(conn).has("TooLarge"));
    assert!(world.acked.is_empty());
}

/// Goal: as many requests as may be unanswered can all be refused. Method: none of the topics may be published to.
#[test]
fn all_topics_asked_for_may_be_refused() {
    let mut world = World::new();
    let conn = world.logon("one", Role::Publisher, 1, 10);
    let request = |number: u32| {
        let name = format!("c.{number}");
        let request = relay_wire::message::TopicRequest {
            request: number,
            name: name.as_bytes(),
        };
        Message::TopicRequest(request).to_vec().unwrap()
    };
    let all: Vec<u8> = (1..=256).flat_map(request).collect();
    world.send(conn, &all);
    let client = world.client(conn);
    assert!(!client.is_closed);
    let refused = client.messages();
    let refused = refused.iter().filter(|said| said.contains("NotEntitled"));
    assert_eq!(refused.count(), 256);
}

/// Goal: a publisher that is held for a heartbeat interval is told so, whatever it waits for; one held for a moment is not.
#[test]
fn a_publisher_held_for_long_is_told() {
    let mut world = World::new();
    world.publisher("one", 1, 10);
    let mut room = vec![0; RING as usize];
    let start = world.sequence.open_position();
    let log = relay_core::log::LogWindow::new(start, &mut room);
    let mut now = world.now;
    let mut held = Vec::new();
    for (passed_ns, is_stalled) in [
        (0, true),
        (world.settings.heartbeat_ns - 1, true),
        (1, true),
        (1, false),
        (world.settings.heartbeat_ns, true),
    ] {
        now.mono_ns += passed_ns;
        world.sequence.note_held(is_stalled, now, &log);
        while let Some(effect) = world.sequence.poll_effect() {
            if let SequenceEffect::Reply(ToIngress::Progress { held: told, .. }) = effect {
                held.push((now.mono_ns - world.now.mono_ns, told));
            }
        }
    }
    let interval_ns = world.settings.heartbeat_ns;
    assert_eq!(
        held,
        [(interval_ns, Held::Busy), (interval_ns + 1, Held::No)]
    );
}

/// Goal: a rate limit rejects what is over it, and takes it later, over however many connections. Ten a second, a burst of one.
#[test]
fn a_rate_limit_throttles() {
    let mut world = World::new();
    world.pass(1_000_000_000);
    let (conn, topic) = world.publisher("slow", 3, 1);
    world.publish(conn, (3, 1), topic, 1..=2);
    assert!(world.client(conn).has("Throttled"));
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(1));
    let (conn, topic) = world.publisher("slow", 3, 1);
    world.publish(conn, (3, 1), topic, 2..=2);
    assert!(
        world.client(conn).has("Throttled"),
        "a new connection gives nothing"
    );
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(1));
    world.pass(150_000_000);
    world.publish(conn, (3, 1), topic, 2..=2);
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(2));
}

/// Goal: after a write error nothing is acknowledged any more, whatever completes later.
#[test]
fn after_a_write_error_nothing_is_acknowledged() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.holds_writes = true;
    world.publish(conn, ONE, topic, 1..=1);
    world.sequence.on_storage_fault();
    world.complete_write(0);
    world.publish(conn, ONE, topic, 2..=2);
    assert!(world.acked.is_empty());
}

/// Goal: without prepared space publishers are held, told why, and go on by themselves.
#[test]
fn without_prepared_space_publishers_are_held() {
    let mut settings = world::settings();
    settings.payload_limit = 256;
    let mut world = World::with(settings);
    world.prepared = 40 * 4096;
    let (mut world, _) = world.crash();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=400);
    assert!(
        world.client(conn).has("held: NoSpace"),
        "{:?}",
        world.client(conn).messages().last()
    );
    assert!(
        world
            .acked
            .last()
            .is_none_or(|ack| ack.1 < PublisherSeq(400))
    );
    world.prepared += 1 << 20;
    world.run();
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(400));
    world.pass(world::settings().heartbeat_ns);
    assert!(
        world.client(conn).has("held: No }"),
        "it is told that it may go on"
    );
}

/// Goal: the log goes on across a segment's end, and a restart reads across it.
#[test]
fn the_log_goes_on_across_segments() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    let mut next = 1;
    while world.sequence.open_position().get() < world::SEGMENT + 100_000 {
        world.publish(conn, ONE, topic, next..next + 50);
        next += 50;
    }
    let (mut world, recovered) = world.crash();
    assert_eq!(recovered.tables.next_seq, Seq(next));
    let reader = world.subscribe(From::Earliest, 0, None, &[">"]);
    assert_eq!(
        world.subscriber_client(reader).seqs(),
        (1..next).collect::<Vec<_>>()
    );
}

/// Goal: an offline reader can prove the last release. Method: idle, then look for a mark.
#[test]
fn an_idle_stream_marks_its_last_release() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=1);
    let end = world.sequence.open_position();
    world.pass(20_000_000);
    assert_eq!(world.sequence.open_position(), end.plus(4096));
    world.pass(20_000_000);
    assert_eq!(
        world.sequence.open_position(),
        end.plus(4096),
        "one mark is enough"
    );
    let at = end.get() as usize;
    let header = relay_journal::block::decode_header(&world.disk.bytes[at..]).unwrap();
    assert_eq!(header.released, end);
}

/// Goal: a clean stop releases all, marks it and names the tail; the next start knows.
#[test]
fn a_clean_stop_is_known_at_the_next_start() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=3);
    world.stop();
    let stop = world.stopped.expect("everything is released");
    assert_eq!(stop.next_seq, Seq(4));
    world.superblock.clean = Some(stop);
    let superblock = world.superblock;
    let (_, recovered) = world.crash();
    assert!(relay_core::startup::was_clean(
        &recovered.tables,
        &superblock
    ));
}

/// Goal: a stop comes to an end although publishers are held: what is not appended is refused, its publishers still have it.
#[test]
fn a_stop_while_held_comes_to_an_end() {
    let mut settings = world::settings();
    settings.payload_limit = 256;
    let mut world = World::with(settings);
    world.prepared = 40 * 4096;
    let (mut world, _) = world.crash();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=400);
    assert!(world.client(conn).has("held: NoSpace"));
    world.stop();
    let stop = world.stopped.expect("it ends");
    assert_eq!(stop.next_seq.get(), world.acked.last().unwrap().2.get() + 1);
}

/// Goal: a wrong secret, an unknown name, a role or publisher that is not allowed are answered alike.
#[test]
fn a_wrong_secret_is_refused() {
    let mut world = World::new();
    let conn = world.connect();
    world.logon_on(conn, "one", Role::Publisher, 1, 1, b"wrong secret 1234");
    assert!(world.client(conn).has("code: Authentication"));
    assert!(world.client(conn).is_closed);
    for (name, publisher) in [("nobody", 1), ("one", 2)] {
        let conn = world.logon(name, Role::Publisher, publisher, 1);
        assert!(
            world.client(conn).has("code: Authentication"),
            "{name} {publisher}"
        );
    }
}

/// Goal: those who say nothing cost a bounded number of places. Method: more of them than places, then a real client.
#[test]
fn silent_connections_give_way() {
    let mut world = World::new();
    let first = world.connect();
    for _ in 0..50 {
        world.connect();
    }
    assert!(world.client(first).has("code: Full"));
    assert!(world.ingress.connections() <= 4);
    world.publisher("one", 1, 10);
    world.pass(6_000_000_000);
    assert!(world.ingress.connections() <= 1);
}

/// Goal: while this node may be about to lead, whoever proved who it is waits: let in when it leads, sent on when another does or
/// after the time for a logon. A publisher that comes again, or its next life, has left the connection before; an earlier life has
/// too. The sequencer hears of nobody who only waited. Before and after, clients are sent on at once.
#[test]
fn logons_wait_for_a_primary_that_is_about_to_be() {
    let mut world = World::new();
    world.ingress.stand_by();
    let sent_on = |world: &World, conn| {
        assert!(world.client(conn).has("code: NotPrimary"));
        assert!(world.client(conn).is_closed);
    };
    let waits = |world: &World, conn| {
        assert_eq!(world.client(conn).messages().len(), 1, "the challenge");
        assert!(!world.client(conn).is_closed);
    };
    let early = world.logon("one", Role::Publisher, 1, 10);
    sent_on(&world, early);

    world.reply(ToIngress::Vacant(true));
    let stranger = world.connect();
    world.logon_on(
        stranger,
        "one",
        Role::Publisher,
        1,
        10,
        b"wrong secret 1234",
    );
    assert!(world.client(stranger).has("code: Authentication"));
    let left = world.logon("one", Role::Publisher, 1, 10);
    let publisher = world.logon("one", Role::Publisher, 1, 10);
    assert!(world.client(left).has("code: Superseded"));
    let reader = world.logon("two", Role::Subscriber, 0, 0);
    waits(&world, publisher);
    waits(&world, reader);
    world.reply(ToIngress::Vacant(false));
    sent_on(&world, publisher);
    sent_on(&world, reader);

    world.reply(ToIngress::Vacant(true));
    let patient = world.logon("one", Role::Publisher, 1, 10);
    world.pass(6_000_000_000);
    sent_on(&world, patient);
    let gone = world.logon("one", Role::Publisher, 1, 10);
    world.ingress.on_closed(gone);
    assert_eq!(world.commands_made, 0);

    let publisher = world.logon("one", Role::Publisher, 1, 10);
    let earlier_life = world.logon("one", Role::Publisher, 1, 9);
    let reader = world.logon("two", Role::Subscriber, 0, 0);
    waits(&world, publisher);
    assert!(world.client(earlier_life).has("code: Superseded"));
    world.reply(ToIngress::Serve {
        epoch: Epoch(7),
        trading_session: 0,
        next_seq: Seq(1),
    });
    assert!(world.client(publisher).has("LogonAck"));
    assert!(world.client(publisher).has("epoch: Epoch(7)"));
    assert!(!world.clients.contains_key(&(false, key(reader))));
    let topic = world.topic(publisher, "a.x").expect("the topic is told");
    world.publish(publisher, (1, 10), topic, 1..=3);
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(3));
    world.reply(ToIngress::Vacant(false));
    assert!(!world.client(publisher).is_closed);
}

/// Goal: strangers drive nobody away who waits for a primary. Method: more of both than there may be strangers.
#[test]
fn strangers_drive_nobody_away_who_waits() {
    let mut world = World::new();
    world.ingress.stand_by();
    world.reply(ToIngress::Vacant(true));
    let most = world.settings.unauthenticated_max as usize;
    let waiting: Vec<_> = (0..2 * most)
        .map(|_| world.logon("two", Role::Subscriber, 0, 0))
        .collect();
    let first = world.connect();
    for _ in 0..2 * most {
        world.connect();
    }
    assert!(world.client(first).has("code: Full"));
    assert!(waiting.iter().all(|&conn| !world.client(conn).is_closed));
    assert_eq!(world.ingress.connections(), 3 * most);
}

/// Goal: of two connections on which a publisher waits the one that was accepted last stays, also where the LOGON of the other one
/// is late.
#[test]
fn a_late_logon_is_not_taken_for_a_newer_one() {
    let mut world = World::new();
    world.ingress.stand_by();
    world.reply(ToIngress::Vacant(true));
    let left = world.connect();
    let newer = world.logon("one", Role::Publisher, 1, 10);
    world.logon_on(left, "one", Role::Publisher, 1, 10, world::SECRET);
    assert!(world.client(left).has("code: Superseded"));
    assert!(!world.client(newer).is_closed);
    world.reply(ToIngress::Serve {
        epoch: Epoch(7),
        trading_session: 0,
        next_seq: Seq(1),
    });
    assert!(world.client(newer).has("LogonAck"));
}

/// Goal: the same where nobody waits: a LOGON that comes late, on a connection that its client has left, does not end the one it uses.
#[test]
fn a_late_logon_does_not_end_the_connection_in_use() {
    let mut world = World::new();
    let left = world.connect();
    let (newer, topic) = world.publisher("one", 1, 10);
    world.logon_on(left, "one", Role::Publisher, 1, 10, world::SECRET);
    assert!(world.client(left).has("code: Superseded"));
    world.publish(newer, ONE, topic, 1..=3);
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(3));
    assert!(!world.client(newer).has("Terminate"));
    // A later process of the same publisher takes over, on whichever connection.
    let left = world.connect();
    let (newer, _) = world.publisher("one", 1, 11);
    world.logon_on(left, "one", Role::Publisher, 1, 12, world::SECRET);
    assert!(world.client(newer).has("code: Superseded"));
    assert!(world.client(left).has("LogonAck"));
}

/// Goal: bytes that are no items end the connection and nothing else. Method: one broken item each.
#[test]
fn broken_items_end_the_connection() {
    let good = message(ONE, TopicId(1), 1);
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (bytes, code) in [
        (vec![0, 0, 0, 0, 1, 0, 0, 0], "Protocol"),
        (vec![255, 255, 255, 255, 1, 0, 0, 0], "TooLong"),
        (vec![16, 0, 0, 0, 0, 0, 0, 0], "Protocol"),
        (flipped(80), "Checksum"),
        (flipped(5), "Protocol"),
        (flipped(56), "Protocol"),
        (message((2, 10), TopicId(1), 1), "Protocol"),
        (message(ONE, TopicId(1), 0), "Protocol"),
    ] {
        let mut world = World::new();
        let (conn, _) = world.publisher("one", 1, 10);
        world.send(conn, &bytes);
        assert!(
            world.client(conn).has(&format!("code: {code}")),
            "{code} {bytes:?}"
        );
        assert_eq!(world.sequence.next_seq(), Seq(1));
        world.publisher("one", 1, 10);
    }
}

/// Goal: subscriptions start where they should.
#[test]
fn subscriptions_start_where_asked() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    for n in 1..=9 {
        world.publish(conn, ONE, topic, n..=n);
        world.pass(1_000_000);
    }
    let all = world.subscribe(From::Earliest, 0, None, &[">"]);
    let data = world.subscriber_client(all).data();
    let record = |n: usize| Record::parse(&data[n - 1]).unwrap();
    let time_of_five = record(5).receive_time_ns();
    let checksum_of_five = record(5).checksum();
    for (from, value, checksum, expected) in [
        (From::Seq, 1, None, 1..=9),
        (From::Seq, 6, None, 6..=9),
        (From::Seq, 6, Some(checksum_of_five), 6..=9),
        (From::Time, time_of_five, None, 5..=9),
        (From::Time, time_of_five + 1, None, 6..=9),
    ] {
        let conn = world.subscribe(from, value, checksum, &[">"]);
        let seqs = world.subscriber_client(conn).seqs();
        assert_eq!(seqs, expected.collect::<Vec<_>>(), "{from:?} {value}");
    }
    let tail = world.subscribe(From::Seq, 10, Some(record(9).checksum()), &[">"]);
    assert!(world.subscriber_client(tail).seqs().is_empty());
    for (value, checksum, code) in [
        (6, Some(checksum_of_five ^ 1), "WrongHistory, detail: 5"),
        (
            10,
            Some(record(9).checksum() ^ 1),
            "WrongHistory, detail: 9",
        ),
        (11, None, "BeyondTail, detail: 10"),
    ] {
        let conn = world.subscribe(From::Seq, value, checksum, &[">"]);
        assert!(world.subscriber_client(conn).has(code), "{code}");
        assert!(world.subscriber_client(conn).seqs().is_empty());
    }
}

/// Goal: a filter lets through what matches, tells the names first, and heartbeats say how far was looked.
#[test]
fn a_filter_is_never_mistaken_for_loss() {
    let mut world = World::new();
    let (conn, x) = world.publisher("one", 1, 10);
    let y = world.topic(conn, "a.y.z").unwrap();
    let filtered = world.subscribe(From::Earliest, 0, None, &["a.*"]);
    let other = world.subscribe(From::Earliest, 0, None, &["b"]);
    for n in 1..=20 {
        world.publish(conn, ONE, if n % 3 == 0 { x } else { y }, n..=n);
    }
    assert_eq!(
        world.subscriber_client(filtered).seqs(),
        [3, 6, 9, 12, 15, 18]
    );
    world.pass(1_100_000_000);
    assert!(world.subscriber_client(filtered).has("next_seq: Seq(21)"));
    assert!(world.subscriber_client(other).seqs().is_empty());
    assert!(world.subscriber_client(other).has("next_seq: Seq(21)"));
    let b = world.topic(conn, "b").unwrap();
    world.publish(conn, ONE, b, 21..=21);
    assert_eq!(world.subscriber_client(other).seqs(), [21]);
    let named = world
        .subscriber_client(other)
        .items()
        .iter()
        .any(|item| match item {
            Got::Record(bytes) => Record::parse(bytes).unwrap().payload() == b"b",
            Got::Message(_) => false,
        });
    assert!(named, "the name comes in the flow, before the first record");
}

/// Goal: who wants nothing of what is released stands at the tail without being looked at, however far the ring went round
/// meanwhile. Method: three rings of one topic, beside a subscriber of another.
#[test]
fn whoever_a_release_does_not_concern_stays_at_the_tail() {
    let mut world = World::new();
    let (conn, x) = world.publisher("one", 1, 10);
    let b = world.topic(conn, "b").unwrap();
    let reader = world.subscribe(From::Live, 0, None, &["b", "c.*"]);
    let mut next = 1;
    while world.sequence.released().position.get() < 3 * world::RING {
        world.publish(conn, ONE, x, next..next + 50);
        next += 50;
        assert_eq!(world.fanout.census(), (1, 0, 0), "one, not behind, no lag");
    }
    assert!(world.fanout.is_caught_up());
    world.publish(conn, ONE, b, next..=next);
    world.publish(conn, ONE, x, next + 1..=next + 1);
    assert_eq!(world.subscriber_client(reader).seqs(), [next]);
    assert_eq!(world.fanout.census(), (1, 0, 0));
}

/// Goal: who takes over a place gets nothing that its holder before wanted.
#[test]
fn a_place_forgets_what_its_holder_wanted() {
    let mut world = World::new();
    let (conn, x) = world.publisher("one", 1, 10);
    let b = world.topic(conn, "b").unwrap();
    let first = world.subscribe(From::Live, 0, None, &["a.*"]);
    world.fanout.on_closed(first);
    let second = world.subscribe(From::Live, 0, None, &["b"]);
    assert_eq!(second.index, first.index);
    world.publish(conn, ONE, x, 1..=3);
    world.publish(conn, ONE, b, 4..=4);
    assert_eq!(world.subscriber_client(second).seqs(), [4]);
}

/// Goal: a subscriber that takes nothing is let go with a reason it can still hear, and nobody else is slowed.
#[test]
fn a_stalled_subscriber_is_let_go() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    let stalled = world.subscribe(From::Live, 0, None, &[">"]);
    let quick = world.subscribe(From::Live, 0, None, &[">"]);
    world.give_room(stalled, Some(0));
    world.publish(conn, ONE, topic, 1..=100);
    assert_eq!(world.subscriber_client(quick).seqs().len(), 100);
    for _ in 0..5 {
        world.pass(700_000_000);
    }
    assert!(world.subscriber_client(stalled).is_closed);
    assert!(!world.subscriber_client(quick).is_closed);
}

/// Goal: what is not released is never seen by a reader, whatever lies in the ring or on disk.
#[test]
fn readers_never_pass_released() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=3);
    world.holds_writes = true;
    world.publish(conn, ONE, topic, 4..=4);
    world.publish(conn, ONE, topic, 5..=60);
    world.complete_write(1);
    let reader = world.subscribe(From::Earliest, 0, None, &[">"]);
    assert_eq!(world.subscriber_client(reader).seqs(), [1, 2, 3]);
    let beyond = world.subscribe(From::Seq, 5, None, &[">"]);
    assert!(world.subscriber_client(beyond).has("BeyondTail"));
}

/// Goal: the ring goes round although nobody subscribes. (It once did not: only serving a subscriber moved the floor.)
#[test]
fn without_subscribers_the_ring_goes_round() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    let mut next = 1;
    while world.sequence.open_position().get() < 3 * RING {
        world.publish(conn, ONE, topic, next..next + 40);
        next += 40;
        assert_eq!(world.acked.last().unwrap().1, PublisherSeq(next - 1));
    }
}

/// Goal: a publisher that is held is not taken for silent. Method: hold one for longer than five heartbeat intervals.
#[test]
fn a_held_publisher_is_not_taken_for_silent() {
    let mut settings = world::settings();
    settings.payload_limit = 256;
    let mut world = World::with(settings);
    world.prepared = 40 * 4096;
    let (mut world, _) = world.crash();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=400);
    for _ in 0..10 {
        world.pass(1_000_000_000);
    }
    assert!(!world.client(conn).has("Terminate"));
    world.prepared += 1 << 20;
    world.run();
    assert_eq!(world.acked.last().unwrap().1, PublisherSeq(400));
    for _ in 0..6 {
        world.pass(1_000_000_000);
    }
    assert!(
        world.client(conn).has("code: Silent"),
        "once let go it is to be heard again"
    );
}

/// Goal: nothing is said after the farewell. Method: a second SUBSCRIBE before the names of the first were told.
#[test]
fn nothing_follows_a_farewell() {
    let mut world = World::new();
    world.publisher("one", 1, 10);
    let conn = world.subscribe(From::Live, 0, None, &[">"]);
    let subscribe = relay_wire::message::Heartbeat {
        next_seq: Seq(0),
        epoch: relay_wire::id::Epoch(0),
        checksum: 0,
        held: relay_wire::code::Held::No,
    };
    let mut wrong = relay_wire::message::Message::Heartbeat(subscribe)
        .to_vec()
        .unwrap();
    wrong[20] ^= 1;
    world.fanout.on_bytes(conn, &wrong, world.now.mono_ns);
    world.run();
    let last = world.subscriber_client(conn).messages().pop().unwrap();
    assert!(last.contains("Terminate"), "{last}");
}
