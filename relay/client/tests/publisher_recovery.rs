//! Goal: whatever happens to a connection, a publisher goes on with the next one where the relay stands, or says why it can't.
//! Method: the relay's end is played step by step (`support`).

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_client::wire::code::Role;
use relay_client::wire::message::{Message, Reject};
use relay_client::wire::record::HEADER_LENGTH;
use relay_client::{
    ClientError, DisconnectReason, Held, OutMessage, Publisher, PublisherConfig, PublisherEvent,
    PublisherSeq, RejectCode, Seq, TerminateCode, TrySendError,
};
use support::{
    PATIENCE, Relay, Session, Terms, accept, events, expected, final_error, payload, queue, until,
};

/// The connection is cut after every possible number of bytes the relay took in; afterwards it wants the first record that
/// it does not have as a whole.
#[test]
fn everything_unreleased_is_sent_again_after_a_cut_at_any_byte() {
    let relay = Relay::new();
    let stride = (HEADER_LENGTH + payload(1).len()).next_multiple_of(8);
    let total = 3 * stride;
    for cut in 0..=total {
        let (mut publisher, mut session, topic) =
            relay.publisher(relay.publisher_config(), Terms::default());
        for number in 1..=3 {
            queue(&mut publisher, topic, number);
        }
        publisher.flush().unwrap();
        session.bytes(total, || {});
        let taken = cut as u64 / stride as u64;
        drop(session);
        let mut drive = || {
            publisher.poll().unwrap();
        };
        let mut session = relay.accept(&mut drive);
        let terms = Terms {
            next_expected: taken + 1,
            released_through: taken.saturating_sub(1),
            ..Terms::default()
        };
        session.log_on_again(&terms, 1, &mut drive);
        let again = 3 - taken;
        let received = session.records(again as usize, &mut drive);
        assert_eq!(received, expected(taken + 1, 1, taken + 1..=3));
        session.ack(3, 3);
        assert!(publisher.wait_released(PATIENCE).unwrap());
    }
}

#[test]
fn topics_get_new_ids_and_messages_queued_meanwhile_follow() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    queue(&mut publisher, topic, 1);
    queue(&mut publisher, topic, 2);
    publisher.flush().unwrap();
    session.records(2, || {});
    drop(session);
    until("the loss", || {
        publisher.poll().unwrap();
        !publisher.is_connected()
    });
    queue(&mut publisher, topic, 3);
    let mut drive = || {
        publisher.poll().unwrap();
    };
    let mut session = relay.accept(&mut drive);
    let terms = Terms {
        next_expected: 2,
        ..Terms::default()
    };
    session.log_on_again(&terms, 9, &mut drive);
    assert_eq!(session.records(2, &mut drive), expected(2, 9, 2..=3));
    queue(&mut publisher, topic, 4);
    publisher.flush().unwrap();
    assert_eq!(session.records(1, || {}), expected(4, 9, 4..=4));
    let told = events(&mut publisher);
    assert!(
        matches!(
            told[..],
            [
                PublisherEvent::Connected { .. },
                PublisherEvent::Disconnected {
                    reason: DisconnectReason::Closed
                },
                PublisherEvent::Connected {
                    next_expected: PublisherSeq(2),
                    ..
                },
            ]
        ),
        "{told:?}"
    );
}

/// After a failover the entitlement is gone: what the relay has stays, the rest is dropped and told.
#[test]
fn a_topic_refused_on_reconnect_takes_its_messages_along() {
    let relay = Relay::new();
    let (mut publisher, mut session, first) =
        relay.publisher(relay.publisher_config(), Terms::default());
    let second = std::thread::scope(|scope| {
        scope.spawn(|| session.answer_topic("c", 2, || {}));
        publisher.topic("c").unwrap()
    });
    for (number, topic) in [
        (1, first),
        (2, second),
        (3, first),
        (4, second),
        (5, second),
    ] {
        queue(&mut publisher, topic, number);
    }
    publisher.flush().unwrap();
    session.records(5, || {});
    drop(session);
    let mut drive = || {
        publisher.poll().unwrap();
    };
    let mut session = relay.accept(&mut drive);
    let terms = Terms {
        next_expected: 2,
        ..Terms::default()
    };
    session.log_on(Role::Publisher, &terms, &mut drive);
    let request = session.topic_request("a.b", &mut drive);
    session.send(&Message::Reject(Reject {
        publisher_seq: PublisherSeq(0),
        next_expected: PublisherSeq(0),
        request,
        code: RejectCode::NotEntitled,
        text: "no longer",
    }));
    session.answer_topic("c", 2, &mut drive);
    let received = session.records(3, &mut drive);
    let numbers: Vec<_> = received
        .iter()
        .map(|(seq, _, body)| (*seq, body.clone()))
        .collect();
    assert_eq!(numbers, [(2, payload(2)), (3, payload(4)), (4, payload(5))]);
    let rejected = events(&mut publisher)
        .into_iter()
        .find_map(|event| match event {
            PublisherEvent::Rejected {
                publisher_seq,
                code,
                ..
            } => Some((publisher_seq, code)),
            _ => None,
        });
    assert_eq!(rejected, Some((PublisherSeq(3), RejectCode::NotEntitled)));
    let refused = publisher.try_send(&OutMessage::new(first, b"x"));
    assert_eq!(refused, Err(TrySendError::UnknownTopic));
    session.ack(4, 4);
    assert!(publisher.wait_released(PATIENCE).unwrap());
}

#[test]
fn terminate_ends_the_publisher_or_leads_to_the_next_connection() {
    for &code in TerminateCode::ALL {
        let relay = Relay::new();
        let (mut publisher, session, topic) =
            relay.publisher(relay.publisher_config(), Terms::default());
        queue(&mut publisher, topic, 1);
        session.terminate(code);
        if code.is_worth_a_reconnect() {
            let mut drive = || {
                publisher.poll().unwrap();
            };
            let mut session = relay.accept(&mut drive);
            session.log_on_again(&Terms::default(), 1, &mut drive);
            assert_eq!(session.records(1, &mut drive), expected(1, 1, 1..=1));
            let told = events(&mut publisher);
            assert!(
                told.iter().any(|event| matches!(
                    event,
                    PublisherEvent::Disconnected {
                        reason: DisconnectReason::Terminated { code: told, .. }
                    } if *told == code
                )),
                "{told:?}"
            );
        } else {
            let error = final_error(&mut publisher);
            assert!(
                matches!(&error, ClientError::Terminated { code: told, detail: 3, text }
                    if *told == code && text == "the test ends it"),
                "{error}"
            );
            assert_eq!(publisher.poll(), Err(error.clone()), "and stays so");
            let refused = publisher.try_send(&OutMessage::new(topic, b"x"));
            assert_eq!(refused, Err(TrySendError::Closed(error)));
        }
    }
}

/// The words before a reset are heard even where a write meets the reset first.
#[test]
fn a_terminate_is_read_although_writing_fails() {
    let relay = Relay::new();
    let (mut publisher, session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    queue(&mut publisher, topic, 1);
    publisher.flush().unwrap(); // stays unread there, so that the close resets the connection
    session.terminate(TerminateCode::Superseded);
    for number in 2..=4 {
        queue(&mut publisher, topic, number);
        publisher.flush().unwrap();
    }
    let error = final_error(&mut publisher);
    let superseded = TerminateCode::Superseded;
    assert!(
        matches!(error, ClientError::Terminated { code, .. } if code == superseded),
        "{error}"
    );
}

/// What the relay wants next after a reconnect, against what is kept: 3 and 4 are sent and unreleased, 5 is queued.
#[test]
fn a_sequence_that_can_not_be_continued_is_final() {
    for (next_expected, is_possible) in [
        (1, false),
        (2, false),
        (3, true),
        (4, true),
        (5, true),
        (6, false),
        (100, false),
    ] {
        let relay = Relay::new();
        let (mut publisher, mut session, topic) =
            relay.publisher(relay.publisher_config(), Terms::default());
        for number in 1..=4 {
            queue(&mut publisher, topic, number);
        }
        publisher.flush().unwrap();
        session.records(4, || {});
        session.ack(2, 2);
        until("the acknowledgement", || {
            publisher.poll().unwrap();
            publisher.unacknowledged() == 2
        });
        drop(session);
        until("the loss", || {
            publisher.poll().unwrap();
            !publisher.is_connected()
        });
        queue(&mut publisher, topic, 5);
        let mut error = None;
        let mut drive = || {
            if error.is_none() {
                error = publisher.poll().err();
            }
        };
        let mut session = relay.accept(&mut drive);
        let terms = Terms {
            next_expected,
            released_through: 2,
            ..Terms::default()
        };
        let terms = Terms {
            released_through: terms.released_through.min(next_expected - 1),
            ..terms
        };
        session.log_on(Role::Publisher, &terms, &mut drive);
        if is_possible {
            session.answer_topic("a.b", 1, &mut drive);
            let count = 6 - next_expected;
            let received = session.records(count as usize, &mut drive);
            assert_eq!(received, expected(next_expected, 1, next_expected..=5));
            continue;
        }
        let words = session.last_words(&mut drive).unwrap();
        assert_eq!(words.0, TerminateCode::SequenceLost);
        let error = error.unwrap();
        assert!(
            matches!(error, ClientError::SequenceLost { next_expected: told, kept_from, sent_to }
                if told.get() == next_expected && kept_from.get() == 3 && sent_to.get() == 5),
            "{error}"
        );
    }
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_breaks_the_connection_only() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    queue(&mut publisher, topic, 1);
    publisher.flush().unwrap();
    session.records(1, || {});
    session.ack(2, 2);
    until("the loss", || {
        publisher.poll().unwrap();
        !publisher.is_connected()
    });
    assert!(matches!(
        publisher.last_failure(),
        Some(DisconnectReason::Malformed(_))
    ));
    assert_eq!(publisher.unacknowledged(), 1);
}

/// Broken items of every sort are named, and the next connection goes on.
#[test]
fn malformed_items_lead_to_the_next_connection() {
    let mut wrong_checksum = support::challenge().to_vec().unwrap();
    wrong_checksum[20] ^= 1;
    let out_of_turn = support::challenge().to_vec().unwrap();
    let record = support::data(1, 1);
    let kind_zero = vec![16, 0, 0, 0, 0, 0, 0, 0];
    let too_long = vec![255, 255, 255, 255, 132, 0, 0, 0];
    for broken in [wrong_checksum, out_of_turn, record, kind_zero, too_long] {
        let relay = Relay::new();
        let (mut publisher, mut session, topic) =
            relay.publisher(relay.publisher_config(), Terms::default());
        queue(&mut publisher, topic, 1);
        publisher.flush().unwrap();
        session.records(1, || {});
        session.send_bytes(&broken);
        let mut drive = || {
            publisher.poll().unwrap();
        };
        let mut session = relay.accept(&mut drive);
        session.log_on_again(&Terms::default(), 1, &mut drive);
        assert_eq!(session.records(1, &mut drive), expected(1, 1, 1..=1));
        assert!(matches!(
            publisher.last_failure(),
            Some(DisconnectReason::Malformed(_))
        ));
    }
}

#[test]
fn not_primary_leads_to_the_other_address() {
    let first = Relay::new();
    let second = Relay::new();
    let config = PublisherConfig {
        addresses: vec![first.address(), second.address()],
        ..first.publisher_config()
    };
    let (mut publisher, mut session, topic) = first.publisher(config, Terms::default());
    queue(&mut publisher, topic, 1);
    publisher.flush().unwrap();
    session.records(1, || {});
    session.reject(1, 1, RejectCode::NotPrimary);
    let mut drive = || {
        publisher.poll().unwrap();
    };
    let mut session = second.accept(&mut drive);
    session.log_on_again(&Terms::default(), 1, &mut drive);
    assert_eq!(session.records(1, &mut drive), expected(1, 1, 1..=1));
    assert_eq!(
        publisher.last_failure(),
        Some(&DisconnectReason::NotPrimary)
    );
}

/// What is asked of a client does not get tighter with the relay's own interval.
#[test]
fn heartbeats_go_out_and_silence_breaks_the_connection() {
    let relay = Relay::new();
    let terms = Terms {
        heartbeat_ms: 1_000,
        ..Terms::default()
    };
    let begun = Instant::now();
    let (mut publisher, mut session, _topic) = relay.publisher(relay.publisher_config(), terms);
    let item = session.item(|| {
        publisher.poll().unwrap();
    });
    assert!(begun.elapsed() > Duration::from_millis(800));
    assert!(matches!(
        Message::decode(&item).unwrap(),
        Message::Heartbeat(_)
    ));
    until("giving up", || {
        publisher.poll().unwrap();
        !publisher.is_connected()
    });
    assert_eq!(publisher.last_failure(), Some(&DisconnectReason::Silent));
}

/// Blocking calls keep the connection alive as well, without spinning.
#[test]
fn a_blocking_wait_sends_heartbeats() {
    let relay = Relay::new();
    let terms = Terms {
        heartbeat_ms: 1_000,
        ..Terms::default()
    };
    let (mut publisher, mut session, topic) = relay.publisher(relay.publisher_config(), terms);
    queue(&mut publisher, topic, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            session.records(1, || {});
            for _ in 0..2 {
                let item = session.item(|| {});
                assert!(matches!(
                    Message::decode(&item).unwrap(),
                    Message::Heartbeat(_)
                ));
                session.heartbeat(1, 0, Held::No);
            }
            session.ack(1, 1);
        });
        assert!(publisher.wait_released(PATIENCE).unwrap());
    });
    assert!(publisher.is_connected());
}

/// Between polls a thread waits for what there is to do next, through a loss too: it neither sleeps past it nor spins.
#[test]
fn waiting_ends_when_there_is_something_to_do() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    queue(&mut publisher, topic, 1);
    queue(&mut publisher, topic, 2);
    let begun = Instant::now();
    let mut polls = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            session.records(2, || {});
            session.ack(1, 1);
            drop(session);
            let mut session = relay.accept(|| {});
            let terms = Terms {
                next_expected: 2,
                released_through: 1,
                ..Terms::default()
            };
            session.log_on_again(&terms, 1, || {});
            session.records(1, || {});
            session.ack(2, 2);
        });
        while publisher.acked_through() < PublisherSeq(2) {
            publisher.poll().unwrap();
            publisher.wait(PATIENCE);
            polls += 1;
            assert!(begun.elapsed() < PATIENCE);
        }
    });
    assert!(polls < 1_000, "{polls} polls");
}

/// A frozen node: its kernel still takes connections, and nothing ever comes. Neither the old connection nor attempts at a new
/// one keep the publisher from the other address.
#[test]
fn a_node_that_hangs_is_left_for_the_other_address() {
    let first = Relay::new();
    let second = Relay::new();
    let config = PublisherConfig {
        addresses: vec![first.address(), second.address()],
        silent_intervals: 2,
        ..first.publisher_config()
    };
    let terms = Terms {
        heartbeat_ms: 1_000,
        ..Terms::default()
    };
    let (mut publisher, mut hanging, topic) = first.publisher(config, terms);
    queue(&mut publisher, topic, 1);
    publisher.flush().unwrap();
    hanging.records(1, || {});
    let mut drive = || {
        publisher.poll().unwrap();
    };
    let mut session = second.accept(&mut drive);
    let terms = Terms {
        epoch: 2,
        ..Terms::default()
    };
    session.log_on_again(&terms, 1, &mut drive);
    assert_eq!(session.records(1, &mut drive), expected(1, 1, 1..=1));
    session.ack(1, 1);
    assert!(publisher.wait_released(PATIENCE).unwrap());
}

/// Attempts that get no answer are short while there is another address, and that one may say no for a while.
#[test]
fn attempts_go_round_until_another_node_leads() {
    let hanging = Relay::new();
    let taking_over = Relay::new();
    let config = PublisherConfig {
        addresses: vec![hanging.address(), taking_over.address()],
        attempt_timeout: Duration::from_millis(5),
        ..hanging.publisher_config()
    };
    let is_connected = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                let session = taking_over.accept(|| {});
                session.terminate(TerminateCode::NotPrimary);
            }
            // An attempt that is given up half-way, on a slow machine, is followed by another.
            while !is_connected.load(Ordering::Relaxed) {
                if let Some(mut session) = taking_over.try_accept() {
                    let is_over = || is_connected.load(Ordering::Relaxed);
                    session.try_log_on(Role::Publisher, &Terms::default(), is_over);
                }
            }
        });
        let publisher = Publisher::connect(config);
        is_connected.store(true, Ordering::Relaxed);
        assert!(publisher.unwrap().is_connected());
    });
}

/// A primary that was frozen does not know yet that it is none any more: its epoch tells.
#[test]
fn an_older_epoch_is_left_for_the_other_address() {
    let first = Relay::new();
    let second = Relay::new();
    let config = PublisherConfig {
        addresses: vec![first.address(), second.address()],
        ..first.publisher_config()
    };
    let terms = |epoch| Terms {
        epoch,
        ..Terms::default()
    };
    let (mut publisher, session, topic) = first.publisher(config, terms(2));
    drop_session(&mut publisher, session);
    let mut drive = || {
        publisher.poll().unwrap();
    };
    let mut stale = second.accept(&mut drive);
    stale.log_on(Role::Publisher, &terms(1), &mut drive);
    let mut session = first.accept(&mut drive);
    session.log_on_again(&terms(2), 1, &mut drive);
    queue(&mut publisher, topic, 1);
    session.records(1, || {
        publisher.poll().unwrap();
    });
    assert_eq!(
        publisher.last_failure(),
        Some(&DisconnectReason::NotPrimary)
    );
}

#[test]
fn giving_up_is_an_error_with_the_last_reason() {
    let address = Relay::new().address(); // nobody listens there any more
    let config = PublisherConfig {
        give_up_after: Some(Duration::from_millis(50)),
        ..PublisherConfig::new(vec![address], support::credential(), 1)
    };
    let error = Publisher::connect(config).err().unwrap();
    assert!(
        matches!(
            error,
            ClientError::GaveUp {
                reason: DisconnectReason::Io { .. },
                ..
            }
        ),
        "{error}"
    );
}

/// A relay that grants every logon and ends it at once is given up as one that can't be reached.
#[test]
fn connections_that_are_lost_at_once_do_not_put_giving_up_off() {
    let relay = Relay::new();
    let config = PublisherConfig {
        give_up_after: Some(Duration::from_millis(300)),
        ..relay.publisher_config()
    };
    let (mut publisher, session, _) = relay.publisher(config, Terms::default());
    drop(session);
    let mut error = None;
    until("it gives up", || {
        error = publisher.poll().err();
        if error.is_none()
            && let Some(mut session) = relay.try_accept()
        {
            session.log_on(Role::Publisher, &Terms::default(), || {
                error = publisher.poll().err();
            });
        }
        error.is_some()
    });
    let error = error.unwrap();
    assert!(matches!(error, ClientError::GaveUp { .. }), "{error}");
}

/// A peer that accepts and says nothing costs one time-out.
#[test]
fn an_attempt_ends_with_its_time() {
    let relay = Relay::new();
    let config = PublisherConfig {
        connect_timeout: Duration::from_millis(20),
        give_up_after: Some(Duration::from_millis(30)),
        ..relay.publisher_config()
    };
    let error = Publisher::connect(config).err().unwrap();
    let reason = DisconnectReason::ConnectTimeout;
    assert!(
        matches!(&error, ClientError::GaveUp { reason: told, .. } if *told == reason),
        "{error}"
    );
}

/// The relay's whole part of a session arrives byte by byte.
#[test]
fn what_the_relay_says_may_be_split_anywhere() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    drop_session(&mut publisher, session);
    let mut drive = || {
        publisher.poll().unwrap();
    };
    session = relay.accept(&mut drive);
    by_bytes(&mut session, &support::challenge(), &mut drive);
    let nonce = session.logon(Role::Publisher, &mut drive);
    by_bytes(
        &mut session,
        &accept(&Terms::default(), &nonce, support::SECRET),
        &mut drive,
    );
    session.answer_topic("a.b", 1, &mut drive);
    until("the connection", || {
        publisher.poll().unwrap();
        publisher.is_connected()
    });
    queue(&mut publisher, topic, 1);
    publisher.flush().unwrap();
    session.records(1, || {});
    let ack = relay_client::wire::message::Ack {
        publisher_seq: PublisherSeq(1),
        seq: Seq(4),
        epoch: relay_client::Epoch(1),
    };
    by_bytes(&mut session, &Message::Ack(ack), || {
        publisher.poll().unwrap();
    });
    assert!(publisher.wait_released(PATIENCE).unwrap());
}

fn drop_session(publisher: &mut Publisher, session: Session) {
    drop(session);
    until("the loss", || {
        publisher.poll().unwrap();
        !publisher.is_connected()
    });
}

fn by_bytes(session: &mut Session, message: &Message<'_>, mut drive: impl FnMut()) {
    for byte in message.to_vec().unwrap() {
        session.send_bytes(&[byte]);
        drive();
    }
}
