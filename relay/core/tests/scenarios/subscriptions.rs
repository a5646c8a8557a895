//! Where a subscription begins, what its subscriber is told, and how it ends.

use relay_wire::code::{From, RecordKind, Role};
use relay_wire::item;
use relay_wire::record::Record;

use crate::ONE;
use crate::world::{Got, World};

/// Goal: what was received before the time is not sent, wherever a full socket cuts the flow. Method: a topic is defined, a message
/// comes, the time, another message, all of it met in one walk; sockets of every size.
#[test]
fn what_lies_before_the_time_stays_so_where_a_send_is_cut_short() {
    for pattern in [">", "a.*"] {
        for room in (0..600).step_by(7) {
            let mut world = World::new();
            let later = world.now.utc_ns + 1_000_000_000;
            let (conn, topic) = world.publisher("one", 1, 10);
            world.publish(conn, ONE, topic, 1..=1);
            world.topic(conn, "a.other").unwrap();
            world.publish(conn, ONE, topic, 2..=2);
            world.pass(1_000_000_000);
            world.publish(conn, ONE, topic, 3..=3);
            let patterns = &[pattern][..];
            let reader = world.subscribe_with_room(From::Time, later, None, patterns, Some(room));
            world.give_room(reader, None);
            assert_eq!(world.subscriber_client(reader).seqs(), [3], "{room}");
        }
    }
}

/// Goal: once the time is met everything comes, wherever a send was cut short. Method: a publisher's next process logs on behind the cut.
#[test]
fn behind_the_time_control_records_come_too() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    let reader = world.subscribe(From::Time, 1, None, &[">"]);
    world.publish(conn, ONE, topic, 1..=1);
    world.give_room(reader, Some(100));
    world.publish(conn, ONE, topic, 2..=2);
    world.logon("one", Role::Publisher, 1, 11);
    world.give_room(reader, None);
    let client = world.subscriber_client(reader);
    assert_eq!(client.seqs(), [1, 2]);
    let items = client.items();
    let sessions = items.iter().filter(|item| match item {
        Got::Record(bytes) => {
            Record::parse(bytes).unwrap().kind() == Some(RecordKind::PublisherSession)
        }
        Got::Message(_) => false,
    });
    assert_eq!(
        sessions.count(),
        1,
        "of the second process; the first one's lies before"
    );
}

/// Goal: a subscriber is told how long records of the past may be, whatever is taken now.
#[test]
fn a_subscriber_is_told_how_long_a_record_may_be_at_all() {
    let mut world = World::new();
    let publisher = world.logon("one", Role::Publisher, 1, 10);
    assert_eq!(world.client(publisher).payload_limit(), Some(1_024));
    let mut world = World::new();
    let subscriber = world.subscribe(From::Live, 0, None, &[">"]);
    let told = world.subscriber_client(subscriber).payload_limit();
    assert_eq!(told, Some(item::PAYLOAD_LIMIT_MAX));
}

/// Goal: while subscribers are sent to another node nobody stays who logged on just before ingress heard of it (rule R13).
#[test]
fn who_comes_to_a_withdrawn_fanout_is_sent_on() {
    let mut world = World::new();
    let before = world.subscribe(From::Live, 0, None, &[">"]);
    world.fanout.withdraw(world.now.mono_ns);
    world.run();
    assert!(world.subscriber_client(before).has("NotPrimary"));
    let meanwhile = world.subscribe(From::Live, 0, None, &[">"]);
    let client = world.subscriber_client(meanwhile);
    assert!(client.has("NotPrimary") && client.is_closed);
    world.fanout.serve_again();
    let after = world.subscribe(From::Live, 0, None, &[">"]);
    assert!(!world.subscriber_client(after).has("Terminate"));
}

/// Goal: a topic defined while a subscriber waits for its time to come is told before its first record.
#[test]
fn a_topic_defined_while_a_time_is_awaited_is_told() {
    for pattern in [">", "a.*"] {
        let mut world = World::new();
        let later = world.now.utc_ns + 1_000_000_000;
        let waiting = world.subscribe(From::Time, later, None, &[pattern]);
        let (conn, topic) = world.publisher("one", 1, 10);
        world.publish(conn, ONE, topic, 1..=1);
        world.pass(1_000_000_000);
        world.publish(conn, ONE, topic, 2..=2);
        let client = world.subscriber_client(waiting);
        assert_eq!(client.seqs(), [2], "{pattern}");
        let is_told = client.items().iter().any(|item| match item {
            Got::Record(bytes) => Record::parse(bytes).unwrap().payload() == b"a.x",
            Got::Message(_) => false,
        });
        assert!(is_told, "{pattern}");
    }
}

/// Goal: on a node of a group a subscriber that saw what this log does not hold is told so only once it is sure that this node still leads,
/// and is sent to another node where nobody answers (rule R25). Method: a log that differs, and one that ends before.
#[test]
fn an_alarm_is_raised_only_when_it_is_sure() {
    for (value, checksum, code) in [(3, Some(7), "WrongHistory"), (9, None, "BeyondTail")] {
        let mut world = World::new();
        world.fanout.ask_before_alarm();
        let (publisher, topic) = world.publisher("one", 1, 10);
        world.publish(publisher, ONE, topic, 1..=5);
        let conn = world.subscribe(From::Seq, value, checksum, &[">"]);
        world.pass(500_000_000);
        assert_eq!(world.doubts, 1);
        let client = world.subscriber_client(conn);
        assert!(!client.has("Terminate") && client.seqs().is_empty());
        // Of what came after it was asked the answer says nothing.
        let asked_ns = world.now.mono_ns - 500_000_001;
        world.fanout.on_assured(asked_ns, world.now.mono_ns);
        world.run();
        assert!(!world.subscriber_client(conn).has("Terminate"));
        world.fanout.on_assured(asked_ns + 1, world.now.mono_ns);
        world.run();
        assert!(world.subscriber_client(conn).has(code), "{code}");
        let other = world.subscribe(From::Seq, value, checksum, &[">"]);
        world.pass(2_000_000_000);
        let client = world.subscriber_client(other);
        assert!(client.has("NotPrimary") && !client.has(code));
    }
}
