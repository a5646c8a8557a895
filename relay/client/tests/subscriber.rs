//! Goal: a subscriber hands over every matching record once, in order and undamaged, or ends with an error that says what is
//! wrong. Method: the relay's end is played step by step (`support`).

mod support;

use relay_client::wire::code::{RecordKind, Role};
use relay_client::wire::message::{Message as WireMessage, Topic};
use relay_client::{
    ClientError, DisconnectReason, Held, ResumePoint, Seq, Start, Subscriber, SubscriberConfig,
    SubscriberEvent, TerminateCode, TopicId,
};
use support::{Asked, PATIENCE, Relay, Session, Terms, checksum, data, defined, released, until};

/// Polls for the next record; its seq, topic and payload.
fn next(subscriber: &mut Subscriber) -> (u64, String, Vec<u8>) {
    let delivery = subscriber
        .next_within(PATIENCE)
        .unwrap()
        .expect("a record in time");
    (
        delivery.record.seq().get(),
        delivery.topic.to_owned(),
        delivery.record.payload().to_vec(),
    )
}

fn message(seq: u64) -> (u64, String, Vec<u8>) {
    (seq, "a.b".into(), format!("message {seq}").into_bytes())
}

fn final_error(subscriber: &mut Subscriber) -> ClientError {
    let mut error = None;
    until("an error", || {
        match subscriber.poll() {
            Ok(None) => {}
            Ok(Some(delivery)) => panic!("{delivery:?} was handed over"),
            Err(found) => error = Some(found),
        }
        error.is_some()
    });
    error.unwrap()
}

/// Polls without a record to come.
fn drive(subscriber: &mut Subscriber) {
    assert!(subscriber.poll().unwrap().is_none());
}

/// Logs the subscriber on again and answers its subscription; what it asked for.
fn again(
    relay: &Relay,
    subscriber: &mut Subscriber,
    start_seq: u64,
    next_seq: u64,
) -> (Session, Asked) {
    let mut step = || drive(subscriber);
    let mut session = relay.accept(&mut step);
    session.log_on(Role::Subscriber, &Terms::default(), &mut step);
    let asked = session.subscription(&mut step);
    session.subscribed(start_seq, next_seq);
    (session, asked)
}

/// A subscriber to `>` that waits for seq 1.
fn complete(relay: &Relay) -> (Subscriber, Session) {
    let config = relay.subscriber_config(">", Start::Earliest);
    let (subscriber, session, _) = relay.subscriber(config, 1, 1);
    (subscriber, session)
}

/// A subscriber to `a.*` that waits for seq 1.
fn filtered(relay: &Relay) -> (Subscriber, Session) {
    let config = relay.subscriber_config("a.*", Start::Earliest);
    let (subscriber, session, _) = relay.subscriber(config, 1, 1);
    (subscriber, session)
}

#[test]
fn every_start_is_asked_for_as_it_was_meant() {
    for (start, from, value, known) in [
        (Start::Live, 1, 0, None),
        (Start::Earliest, 2, 0, None),
        (
            Start::Seq {
                seq: 7,
                checksum: None,
            },
            3,
            7,
            None,
        ),
        (
            Start::Seq {
                seq: 7,
                checksum: Some(0),
            },
            3,
            7,
            Some(0),
        ),
        (Start::Time(99), 4, 99, None),
    ] {
        let relay = Relay::new();
        let config = relay.subscriber_config("a.>", start);
        let (mut subscriber, _session, asked) = relay.subscriber(config, 7, 9);
        let patterns = vec!["a.>".into()];
        assert_eq!(
            asked,
            Asked {
                from,
                value,
                checksum: known,
                patterns
            }
        );
        assert_eq!(
            (subscriber.next_seq(), subscriber.tail_seq()),
            (Seq(7), Seq(9))
        );
        assert!(matches!(
            subscriber.next_event(),
            Some(SubscriberEvent::Connected {
                start_seq: Seq(7),
                next_seq: Seq(9),
                ..
            })
        ));
    }
}

#[test]
fn records_come_in_order_with_their_topics() {
    let relay = Relay::new();
    let (mut subscriber, mut session) = complete(&relay);
    session.send_bytes(&defined(1, 1, "a.b"));
    session.send_bytes(&data(1, 1));
    session.send_bytes(&released(RecordKind::PublisherSession, 0, 2, b""));
    session.send(&WireMessage::Topic(Topic {
        request: 0,
        topic: TopicId(2),
        name: "c",
    }));
    session.send_bytes(&data(2, 2));
    session.send_bytes(&data(1, 3));
    assert_eq!(next(&mut subscriber), message(1));
    assert_eq!(
        next(&mut subscriber),
        (2, "c".into(), b"message 2".to_vec())
    );
    assert_eq!(next(&mut subscriber), message(3));
    drive(&mut subscriber);
    assert_eq!(
        (subscriber.next_seq(), subscriber.tail_seq()),
        (Seq(4), Seq(4))
    );
    session.send_bytes(&data(1, 4));
    let owned = subscriber.messages().next().unwrap().unwrap();
    assert_eq!((owned.seq, owned.topic.as_str()), (Seq(4), "a.b"));
    assert_eq!(
        (owned.key_hash, owned.origin_time_ns, owned.receive_time_ns),
        (5, 6, 99)
    );
    subscriber.close();
    assert_eq!(session.last_words(|| {}).unwrap().0, TerminateCode::Logout);
}

/// Control kinds of a later version say nothing to this one.
#[test]
fn unknown_control_records_are_passed_over() {
    let relay = Relay::new();
    let (mut subscriber, mut session) = complete(&relay);
    session.send_bytes(&defined(1, 1, "a.b"));
    session.send_bytes(&of_kind_100(1));
    session.send_bytes(&data(1, 1));
    assert_eq!(next(&mut subscriber), message(1));
}

/// A control record of kind 100, its checksum computed as `FORMAT.md` says.
fn of_kind_100(seq: u64) -> Vec<u8> {
    use relay_client::wire::checksum::{crc32c, crc32c_append};
    let mut bytes = released(RecordKind::Epoch, 0, seq, b"12345678");
    bytes[4] = 100;
    let sum = crc32c_append(
        crc32c_append(crc32c(&bytes[..12]), &bytes[16..56]),
        &bytes[72..],
    );
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn a_resumed_subscription_says_seq_and_checksum() {
    let relay = Relay::new();
    let (mut subscriber, mut session) = complete(&relay);
    session.send_bytes(&defined(1, 1, "a.b"));
    session.send_bytes(&data(1, 1));
    session.send_bytes(&data(1, 2));
    next(&mut subscriber);
    next(&mut subscriber);
    let last = checksum(&data(1, 2));
    let resume = ResumePoint {
        seq: Seq(3),
        checksum: Some(last),
    };
    assert_eq!(subscriber.resume_point(), resume);
    drop(session);
    let (mut session, asked) = again(&relay, &mut subscriber, 3, 4);
    assert_eq!(
        asked,
        Asked {
            from: 3,
            value: 3,
            checksum: Some(last),
            patterns: vec![">".into()]
        }
    );
    session.send_bytes(&defined(8, 3, "a.b")); // ids hold for one connection
    session.send_bytes(&data(8, 3));
    assert_eq!(next(&mut subscriber), message(3));
    let told: Vec<_> = std::iter::from_fn(|| subscriber.next_event()).collect();
    assert!(
        matches!(
            told[..],
            [
                SubscriberEvent::Connected { .. },
                SubscriberEvent::Disconnected {
                    reason: DisconnectReason::Closed
                },
                SubscriberEvent::Connected {
                    start_seq: Seq(3),
                    next_seq: Seq(4),
                    ..
                },
            ]
        ),
        "{told:?}"
    );
}

/// Where a time lies is known only once something came: until then the relay is asked for the time again.
#[test]
fn a_subscription_from_a_time_is_placed_by_what_comes_first() {
    for pattern in [">", "a.*"] {
        let relay = Relay::new();
        let config = relay.subscriber_config(pattern, Start::Time(99));
        let (mut subscriber, session, _) = relay.subscriber(config, 1, 800);
        drop(session);
        let (mut session, asked) = again(&relay, &mut subscriber, 1, 800);
        assert_eq!((asked.from, asked.value), (4, 99));
        session.send(&WireMessage::Topic(Topic {
            request: 0,
            topic: TopicId(1),
            name: "a.b",
        }));
        session.send_bytes(&data(1, 500));
        assert_eq!(next(&mut subscriber), message(500));
        drop(session);
        let (_session, asked) = again(&relay, &mut subscriber, 501, 800);
        assert_eq!((asked.from, asked.value), (3, 501));
    }
}

/// What is released before the time is passed over, on this connection and on the next one; the first record makes the place exact.
#[test]
fn a_time_that_is_not_reached_yet_is_awaited() {
    let relay = Relay::new();
    let config = relay.subscriber_config(">", Start::Time(u64::MAX));
    let (mut subscriber, mut session, _) = relay.subscriber(config, 1, 800);
    for seq in [800, 805] {
        session.heartbeat(seq, 5, Held::No);
        until("the heartbeat", || {
            drive(&mut subscriber);
            subscriber.next_seq() == Seq(seq)
        });
    }
    assert_eq!(subscriber.tail_seq(), Seq(805));
    drop(session);
    let (mut session, asked) = again(&relay, &mut subscriber, 1, 805);
    assert_eq!((asked.from, asked.value), (4, u64::MAX));
    assert_eq!(subscriber.next_seq(), Seq(805), "it never goes back");
    session.heartbeat(805, 5, Held::No);
    session.send_bytes(&defined(1, 700, "a.b"));
    session.send_bytes(&defined(2, 810, "a.c"));
    session.send_bytes(&data(1, 810));
    assert_eq!(next(&mut subscriber), message(810));
    session.send_bytes(&data(1, 812));
    let error = final_error(&mut subscriber);
    assert!(matches!(error, ClientError::WrongHistory { .. }), "{error}");
}

/// A heartbeat that tells nothing new is a sign of life.
#[test]
fn a_heartbeat_with_seq_0_tells_nothing() {
    let relay = Relay::new();
    let (mut subscriber, mut session) = complete(&relay);
    session.send_bytes(&defined(1, 1, "a.b"));
    session.send_bytes(&data(1, 1));
    assert_eq!(next(&mut subscriber), message(1));
    let point = subscriber.resume_point();
    session.heartbeat(0, 0, Held::No);
    session.send_bytes(&data(1, 2));
    assert_eq!(next(&mut subscriber), message(2));
    assert_eq!(point.seq, Seq(2));
}

/// Nothing was received yet, but where the subscription stood is known.
#[test]
fn a_live_subscription_resumes_where_it_began() {
    let relay = Relay::new();
    let config = relay.subscriber_config(">", Start::Live);
    let (mut subscriber, session, _) = relay.subscriber(config, 50, 50);
    drop(session);
    let (_session, asked) = again(&relay, &mut subscriber, 50, 60);
    assert_eq!((asked.from, asked.value, asked.checksum), (3, 50, None));
}

#[test]
fn a_heartbeat_moves_a_filtered_subscription_on() {
    let relay = Relay::new();
    let (mut subscriber, mut session) = filtered(&relay);
    session.send(&WireMessage::Topic(Topic {
        request: 0,
        topic: TopicId(4),
        name: "a.b",
    }));
    session.send_bytes(&data(4, 5));
    assert_eq!(next(&mut subscriber), message(5));
    session.heartbeat(900, 77, Held::No);
    until("the heartbeat", || {
        drive(&mut subscriber);
        subscriber.next_seq() == Seq(900)
    });
    assert_eq!(subscriber.tail_seq(), Seq(900));
    session.heartbeat(800, 66, Held::No); // late, and no reason to go back
    drop(session);
    let (_session, asked) = again(&relay, &mut subscriber, 900, 1_000);
    assert_eq!(
        (asked.from, asked.value, asked.checksum),
        (3, 900, Some(77))
    );
    let patterns: Vec<String> = vec!["a.*".into()];
    assert_eq!(asked.patterns, patterns);
}

/// Sends `items` after SUBSCRIBED from seq 1 and expects the subscriber to end, with a word to the relay.
fn ends_with(pattern: &str, items: &[Vec<u8>], words: TerminateCode) -> ClientError {
    let relay = Relay::new();
    let config = relay.subscriber_config(pattern, Start::Earliest);
    let (mut subscriber, mut session, _) = relay.subscriber(config, 1, 10);
    session.send_bytes(&defined(1, 1, "a.b"));
    session.send_bytes(&data(1, 1));
    assert_eq!(next(&mut subscriber), message(1));
    for item in items {
        session.send_bytes(item);
    }
    let error = final_error(&mut subscriber);
    assert!(error.is_final());
    assert_eq!(subscriber.poll().unwrap_err(), error, "and stays so");
    assert_eq!(session.last_words(|| {}).unwrap().0, words);
    error
}

fn history(expected: u64, found: u64) -> impl Fn(&ClientError) -> bool {
    move |error| {
        matches!(error, ClientError::WrongHistory { expected: e, found: f, .. }
            if (e.get(), f.get()) == (expected, found))
    }
}

#[test]
fn a_missing_record_is_an_alarm() {
    let error = ends_with(">", &[data(1, 3)], TerminateCode::WrongHistory);
    assert!(history(2, 3)(&error), "{error}");
    let control = released(RecordKind::PublisherSession, 0, 3, b"");
    let error = ends_with(">", &[control], TerminateCode::WrongHistory);
    assert!(history(2, 3)(&error), "{error}");
}

/// Goal: seqs may be skipped where an epoch opens with an accepted loss, and nowhere else. Method: an EPOCH record with a later seq, with and
/// without the UNCLEAN record behind it; the message after both tells how far it went.
#[test]
fn seqs_are_skipped_with_an_accepted_loss_only() {
    let epoch = || released(RecordKind::Epoch, 0, 900, &[0; 40]);
    let unclean = released(RecordKind::Unclean, 0, 900, &[0; 40]);
    let words = TerminateCode::WrongHistory;
    let error = ends_with(">", &[epoch(), data(1, 900)], words);
    assert!(history(2, 900)(&error), "{error}");
    let error = ends_with(">", &[epoch(), unclean, data(1, 902)], words);
    assert!(history(900, 902)(&error), "{error}");
}

#[test]
fn a_record_seen_before_is_an_alarm() {
    for pattern in [">", "a.*"] {
        let error = ends_with(pattern, &[data(1, 1)], TerminateCode::WrongHistory);
        assert!(history(2, 1)(&error), "{error}");
    }
}

#[test]
fn heartbeats_that_tell_another_history_are_an_alarm() {
    let heartbeat = |next_seq, checksum| {
        let heartbeat = relay_client::wire::message::Heartbeat {
            next_seq: Seq(next_seq),
            epoch: relay_client::Epoch(1),
            checksum,
            held: Held::No,
        };
        WireMessage::Heartbeat(heartbeat).to_vec().unwrap()
    };
    let right = checksum(&data(1, 1));
    let words = TerminateCode::WrongHistory;
    let error = ends_with(">", &[heartbeat(2, right), heartbeat(2, right ^ 1)], words);
    assert!(history(2, 2)(&error), "{error}");
    let error = ends_with("a.*", &[heartbeat(2, right ^ 1)], words);
    assert!(history(2, 2)(&error), "{error}");
    // With `>` a heartbeat beyond what came means that something did not come.
    let error = ends_with(">", &[heartbeat(3, 9)], words);
    assert!(history(2, 3)(&error), "{error}");
}

/// One bit is turned in every byte of a record that the checksum covers.
#[test]
fn a_damaged_record_is_never_handed_over() {
    let good = data(1, 2);
    let length = 72 + "message 2".len();
    let mut corrupt = 0;
    for at in (4..56).chain(72..length) {
        let relay = Relay::new();
        let (mut subscriber, mut session) = complete(&relay);
        session.send_bytes(&defined(1, 1, "a.b"));
        session.send_bytes(&data(1, 1));
        assert_eq!(next(&mut subscriber), message(1));
        let mut bad = good.clone();
        bad[at] ^= 1;
        session.send_bytes(&bad);
        session.send_bytes(&data(1, 3));
        let mut end = None;
        until("an end", || {
            match subscriber.poll() {
                Ok(Some(delivery)) => panic!("byte {at}: {delivery:?} was handed over"),
                Ok(None) => {}
                Err(error) => end = Some(Some(error)),
            }
            if end.is_none() && !subscriber.is_connected() {
                end = Some(None);
            }
            end.is_some()
        });
        match end.unwrap() {
            Some(error) => {
                assert!(
                    matches!(error, ClientError::Corrupt { seq: Seq(2), .. }),
                    "{error}"
                );
                assert_eq!(
                    session.last_words(|| {}).unwrap().0,
                    TerminateCode::Checksum
                );
                corrupt += 1;
            }
            // Kind 0, flags and extension length don't get as far as the checksum.
            None => assert!((4..8).contains(&at), "byte {at}"),
        }
        assert_eq!(subscriber.next_seq(), Seq(2));
    }
    assert!(corrupt > 50);
}

/// What was cut off comes as a whole on the next connection, and only once.
#[test]
fn a_record_cut_off_at_any_byte_comes_once() {
    let flow = [defined(1, 1, "a.b"), data(1, 1), data(1, 2)].concat();
    let first_end = flow.len() - data(1, 2).len();
    for cut in 0..=flow.len() {
        let relay = Relay::new();
        let (mut subscriber, mut session) = complete(&relay);
        session.send_bytes(&flow[..cut]);
        drop(session);
        let mut seen = Vec::new();
        until("the loss", || {
            if let Some(delivery) = subscriber.poll().unwrap() {
                seen.push(delivery.record.seq().get());
            }
            !subscriber.is_connected()
        });
        let whole = usize::from(cut >= first_end) + usize::from(cut == flow.len());
        assert_eq!(seen, [1, 2][..whole], "cut at {cut}");
        let from = whole as u64 + 1;
        let (mut session, asked) = again(&relay, &mut subscriber, from, 3);
        assert_eq!(asked.value, if cut == 0 { 1 } else { from });
        session.send_bytes(&defined(1, from, "a.b"));
        for seq in from..=3 {
            session.send_bytes(&data(1, seq));
        }
        for seq in from..=3 {
            assert_eq!(next(&mut subscriber), message(seq));
        }
    }
}

/// The flow comes in two parts, split at every byte; the subscriber sees the first part alone.
#[test]
fn the_flow_may_be_split_anywhere() {
    let relay = Relay::new();
    let (mut subscriber, mut session) = complete(&relay);
    session.send_bytes(&defined(1, 1, "a.b"));
    let length = data(1, 1).len();
    let mut seq = 1;
    for split in 0..=2 * length {
        let flow = [data(1, seq), data(1, seq + 1)].concat();
        let (first, second) = flow.split_at(split.min(flow.len()));
        let mut seen = Vec::new();
        let mut take = |subscriber: &mut Subscriber| {
            if let Some(delivery) = subscriber.poll().unwrap() {
                seen.push(delivery.record.seq().get());
            }
        };
        session.send_bytes(first);
        for _ in 0..4 {
            take(&mut subscriber);
        }
        session.send_bytes(second);
        until("both records", || {
            take(&mut subscriber);
            subscriber.next_seq() == Seq(seq + 2)
        });
        assert_eq!(seen, [seq, seq + 1]);
        seq += 2;
    }
}

/// More than the receive buffer holds, and records that lie across its end.
#[test]
fn a_long_flow_of_records_of_every_size() {
    let relay = Relay::new();
    let (mut subscriber, mut session) = complete(&relay);
    let body = |seq: u64| vec![seq as u8; (seq * 7_919 % 65_000) as usize];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            session.send_bytes(&defined(1, 1, "a.b"));
            for seq in 1..=300 {
                session.send_bytes(&released(RecordKind::Data, 1, seq, &body(seq)));
            }
        });
        for seq in 1..=300 {
            assert_eq!(next(&mut subscriber), (seq, "a.b".into(), body(seq)));
        }
    });
}

/// The largest record there can be is larger than the usual receive buffer.
#[test]
fn the_receive_buffer_fits_the_payload_limit() {
    let relay = Relay::new();
    let terms = Terms {
        payload_limit: 1 << 20,
        ..Terms::default()
    };
    let config = relay.subscriber_config(">", Start::Earliest);
    let body = vec![9; 1 << 20];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = relay.accept(|| {});
            session.log_on(Role::Subscriber, &terms, || {});
            session.subscription(|| {});
            session.subscribed(1, 1);
            session.send_bytes(&defined(1, 1, "a.b"));
            session.send_bytes(&released(RecordKind::Data, 1, 1, &body));
            session.closed(|| {});
        });
        let mut subscriber = Subscriber::connect(config).unwrap();
        assert_eq!(next(&mut subscriber), (1, "a.b".into(), body.clone()));
        subscriber.close();
    });
}

#[test]
fn terminate_ends_the_subscriber_or_leads_to_the_next_connection() {
    for &code in TerminateCode::ALL {
        let relay = Relay::new();
        let (mut subscriber, session) = complete(&relay);
        session.terminate(code);
        if code.is_worth_a_reconnect() {
            again(&relay, &mut subscriber, 1, 1);
        } else {
            let error = final_error(&mut subscriber);
            assert!(
                matches!(&error, ClientError::Terminated { code: told, .. } if *told == code),
                "{error}"
            );
        }
    }
}

/// Records that were received as a whole are handed over before the word that ends the connection counts.
#[test]
fn what_came_before_the_end_is_handed_over() {
    let relay = Relay::new();
    let (mut subscriber, mut session) = complete(&relay);
    session.send_bytes(&defined(1, 1, "a.b"));
    session.send_bytes(&data(1, 1));
    session.send_bytes(&data(1, 2));
    session.terminate(TerminateCode::WrongHistory);
    assert_eq!(next(&mut subscriber), message(1));
    assert_eq!(next(&mut subscriber), message(2));
    assert!(matches!(
        final_error(&mut subscriber),
        ClientError::Terminated { .. }
    ));
}

#[test]
fn a_journal_that_begins_too_late_is_an_error() {
    let relay = Relay::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = relay.accept(|| {});
            session.log_on(Role::Subscriber, &Terms::default(), || {});
            session.subscription(|| {});
            session.subscribed(100, 200);
            session.last_words(|| {})
        });
        let start = Start::Seq {
            seq: 7,
            checksum: None,
        };
        let error = Subscriber::connect(relay.subscriber_config(">", start))
            .err()
            .unwrap();
        assert_eq!(
            error,
            ClientError::NotKept {
                asked: Seq(7),
                start: Seq(100)
            }
        );
    });
}

#[test]
fn malformed_items_lead_to_the_next_connection() {
    let unknown_topic = data(9, 1);
    let mut broken_message = support::challenge().to_vec().unwrap();
    broken_message[9] ^= 1;
    let kind_zero = vec![80, 0, 0, 0, 0, 0, 0, 0];
    let too_long = vec![255, 255, 255, 255, 1, 0, 0, 0];
    for broken in [unknown_topic, broken_message, kind_zero, too_long] {
        let relay = Relay::new();
        let (mut subscriber, mut session) = complete(&relay);
        session.send_bytes(&broken);
        let (_session, asked) = again(&relay, &mut subscriber, 1, 1);
        assert_eq!((asked.from, asked.value), (3, 1));
        assert!(matches!(
            subscriber.last_failure(),
            Some(DisconnectReason::Malformed(_))
        ));
    }
}

#[test]
fn heartbeats_go_out_and_silence_breaks_the_connection() {
    let relay = Relay::new();
    let config = relay.subscriber_config(">", Start::Live);
    let terms = Terms {
        heartbeat_ms: 1_000,
        ..Terms::default()
    };
    std::thread::scope(|scope| {
        let peer = scope.spawn(|| {
            let mut session = relay.accept(|| {});
            session.log_on(Role::Subscriber, &terms, || {});
            session.subscription(|| {});
            session.subscribed(1, 1);
            session.item(|| {})
        });
        let mut subscriber = Subscriber::connect(config).unwrap();
        until("giving up", || {
            drive(&mut subscriber);
            !subscriber.is_connected()
        });
        let item = peer.join().unwrap();
        let heartbeat = WireMessage::decode(&item).unwrap();
        assert!(matches!(heartbeat, WireMessage::Heartbeat(_)));
    });
}

#[test]
fn settings_that_can_not_work_are_refused() {
    let relay = Relay::new();
    let good = relay.subscriber_config(">", Start::Live);
    for config in [
        SubscriberConfig {
            patterns: vec![],
            ..good.clone()
        },
        SubscriberConfig {
            patterns: vec!["a..b".into()],
            ..good.clone()
        },
        SubscriberConfig {
            patterns: vec!["a".into(); 1_001],
            ..good.clone()
        },
        SubscriberConfig {
            start: Start::Seq {
                seq: 0,
                checksum: None,
            },
            ..good.clone()
        },
        SubscriberConfig {
            addresses: vec![],
            ..good.clone()
        },
        SubscriberConfig {
            silent_intervals: 1,
            ..good.clone()
        },
    ] {
        let error = Subscriber::connect(config).err().unwrap();
        assert!(matches!(error, ClientError::Configuration(_)), "{error}");
    }
}
