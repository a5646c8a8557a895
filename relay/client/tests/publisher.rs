//! Goal: a publisher loses nothing, sends nothing twice that the relay would store twice, and says clearly what it can't
//! mend. Method: the relay's end is played step by step (`support`).

mod support;

use std::sync::{Arc, Mutex};

use relay_client::wire::code::Role;
use relay_client::wire::message::{Message, Reject};
use relay_client::wire::record::HEADER_LENGTH;
use relay_client::{
    ClientError, Held, OutMessage, Publisher, PublisherConfig, PublisherEvent, PublisherSeq,
    RejectCode, Seq, TerminateCode, TopicId, TrySendError,
};
use support::{PATIENCE, Relay, Terms, accept, events, expected, payload, queue, until};

#[test]
fn logon_topic_send_acknowledge_log_out() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    assert!(publisher.is_connected());
    assert_eq!(publisher.payload_limit(), 65_536);
    assert_eq!(
        publisher.topic("a.b").unwrap(),
        topic,
        "known without asking"
    );
    assert!(matches!(
        publisher.next_event(),
        Some(PublisherEvent::Connected { .. })
    ));
    for number in 1..=3 {
        assert_eq!(queue(&mut publisher, topic, number).get(), number);
    }
    assert_eq!(session.try_item(), None, "nothing goes out before flush");
    publisher.flush().unwrap();
    assert_eq!(session.records(3, || {}), expected(1, 1, 1..=3));
    session.ack(2, 12);
    until("the acknowledgement", || {
        publisher.poll().unwrap();
        publisher.acked_through() == PublisherSeq(2)
    });
    assert_eq!(publisher.unacknowledged(), 1);
    session.ack(3, 13);
    assert!(publisher.wait_released(PATIENCE).unwrap());
    assert_eq!(publisher.unacknowledged_bytes(), 0);
    let through = PublisherEvent::Acked {
        publisher_seq: PublisherSeq(3),
        seq: Seq(13),
    };
    assert_eq!(events(&mut publisher), [through]);
    publisher.close().unwrap();
    let farewell = session.last_words(|| {}).unwrap();
    assert_eq!(farewell.0, TerminateCode::Logout);
}

#[test]
fn acknowledgements_go_to_the_callback() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    publisher.on_ack(Box::new(move |through, seq| {
        sink.lock().unwrap().push((through.get(), seq.get()));
    }));
    for number in 1..=3 {
        queue(&mut publisher, topic, number);
    }
    publisher.flush().unwrap();
    session.records(3, || {});
    session.ack(1, 8);
    session.ack(3, 10);
    assert!(publisher.wait_released(PATIENCE).unwrap());
    assert_eq!(*told.lock().unwrap(), [(1, 8), (3, 10)]);
}

/// Nothing but the LOGON goes to a relay that can't prove the secret.
#[test]
fn a_relay_without_the_secret_is_refused() {
    let relay = Relay::new();
    std::thread::scope(|scope| {
        let peer = scope.spawn(|| {
            let mut session = relay.accept(|| {});
            session.challenge();
            let nonce = session.logon(Role::Publisher, || {});
            session.send(&accept(&Terms::default(), &nonce, b"another secret"));
            session.last_words(|| {})
        });
        let error = Publisher::connect(relay.publisher_config()).err().unwrap();
        assert!(
            matches!(error, ClientError::RelayUnproven { .. }),
            "{error}"
        );
        assert_eq!(peer.join().unwrap(), None);
    });
}

/// The client's own writes stop in the middle of records, since the relay's end reads little by little.
#[test]
fn partial_writes_are_continued_where_they_stopped() {
    let relay = Relay::new();
    let config = PublisherConfig {
        window_bytes: 16 << 20,
        ..relay.publisher_config()
    };
    let terms = Terms {
        credit: u64::MAX,
        ..Terms::default()
    };
    let (mut publisher, mut session, topic) = relay.publisher(config, terms);
    let large = vec![b'x'; 60_000];
    let count = 200;
    for _ in 0..count {
        publisher.try_send(&OutMessage::new(topic, &large)).unwrap();
    }
    publisher.flush().unwrap();
    let mut seq = 0;
    while seq < count {
        let item = session.item(|| {
            publisher.poll().unwrap();
        });
        seq += 1;
        assert_eq!(support::parts(&item), (seq, 1, large.clone()));
    }
}

#[test]
fn a_rejected_message_gives_its_number_to_the_next() {
    for code in [
        RejectCode::NotEntitled,
        RejectCode::TooLarge,
        RejectCode::UnknownTopic,
    ] {
        let relay = Relay::new();
        let (mut publisher, mut session, topic) =
            relay.publisher(relay.publisher_config(), Terms::default());
        for number in 1..=5 {
            queue(&mut publisher, topic, number);
        }
        publisher.flush().unwrap();
        session.records(5, || {});
        session.ack(1, 1);
        session.reject(3, 3, code);
        let received = session.records(2, || {
            publisher.poll().unwrap();
        });
        assert_eq!(received, expected(3, 1, 4..=5));
        assert_eq!(publisher.next_publisher_seq(), PublisherSeq(5));
        let rejected = events(&mut publisher).pop().unwrap();
        let text = String::from("the test says so");
        assert_eq!(
            rejected,
            PublisherEvent::Rejected {
                publisher_seq: PublisherSeq(3),
                code,
                text
            }
        );
        session.ack(4, 4);
        assert!(publisher.wait_released(PATIENCE).unwrap());
    }
}

/// What comes after a refused message may be refused as well, and takes the same number.
#[test]
fn messages_refused_one_after_the_other() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    for number in 1..=4 {
        queue(&mut publisher, topic, number);
    }
    publisher.flush().unwrap();
    session.records(4, || {});
    for left in [3, 2, 1] {
        session.reject(1, 1, RejectCode::UnknownTopic);
        let received = session.records(left as usize, || {
            publisher.poll().unwrap();
        });
        assert_eq!(received, expected(1, 1, 5 - left..=4));
    }
    session.ack(1, 1);
    assert!(publisher.wait_released(PATIENCE).unwrap());
    let told = events(&mut publisher);
    let count = told
        .iter()
        .filter(|e| matches!(e, PublisherEvent::Rejected { .. }))
        .count();
    assert_eq!(count, 3, "{told:?}");
}

/// The go-back comes while half of a record is on the wire: it has to be completed, and not with the new number.
#[test]
fn a_reject_in_the_middle_of_a_record() {
    let relay = Relay::new();
    let config = PublisherConfig {
        window_bytes: 32 << 20,
        ..relay.publisher_config()
    };
    let terms = Terms {
        credit: u64::MAX,
        ..Terms::default()
    };
    let (mut publisher, mut session, topic) = relay.publisher(config, terms);
    let large: Vec<Vec<u8>> = (0..300).map(|i| vec![i as u8; 60_000]).collect();
    for payload in &large {
        publisher
            .try_send(&OutMessage::new(topic, payload))
            .unwrap();
    }
    publisher.flush().unwrap(); // the socket takes a part only
    session.reject(1, 1, RejectCode::NotEntitled);
    until("the reject", || {
        publisher.poll().unwrap();
        publisher.next_publisher_seq() == PublisherSeq(300)
    });
    let mut wanted = 1;
    while wanted < 300 {
        let item = session.item(|| {
            publisher.poll().unwrap();
        });
        let (seq, _, body) = support::parts(&item);
        // What was on its way before the reject still bears its old number, and 1 is the message that was refused.
        if seq == wanted && body == large[wanted as usize] {
            wanted += 1;
        } else {
            assert_eq!(wanted, 1, "in order after the go-back");
            assert_eq!(body, large[seq as usize - 1]);
        }
    }
}

#[test]
fn a_gap_is_filled_from_where_the_relay_says() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    for number in 1..=4 {
        queue(&mut publisher, topic, number);
    }
    publisher.flush().unwrap();
    session.records(4, || {});
    session.reject(3, 2, RejectCode::Gap);
    let received = session.records(3, || {
        publisher.poll().unwrap();
    });
    assert_eq!(received, expected(2, 1, 2..=4));
}

#[test]
fn what_is_throttled_comes_again() {
    let relay = Relay::new();
    let (mut publisher, mut session, topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    for number in 1..=3 {
        queue(&mut publisher, topic, number);
    }
    publisher.flush().unwrap();
    session.records(3, || {});
    session.reject(2, 2, RejectCode::Throttled);
    let received = session.records(2, || {
        publisher.poll().unwrap();
    });
    assert_eq!(received, expected(2, 1, 2..=3));
}

#[test]
fn no_more_than_the_credit_is_on_its_way() {
    let relay = Relay::new();
    let stride = (HEADER_LENGTH + payload(1).len()).next_multiple_of(8) as u64;
    let terms = Terms {
        credit: 2 * stride + 7,
        ..Terms::default()
    };
    let (mut publisher, mut session, topic) = relay.publisher(relay.publisher_config(), terms);
    for number in 1..=5 {
        queue(&mut publisher, topic, number);
    }
    publisher.flush().unwrap();
    assert_eq!(session.records(2, || {}), expected(1, 1, 1..=2));
    for _ in 0..50 {
        publisher.poll().unwrap();
        assert_eq!(session.try_item(), None, "beyond the credit");
    }
    session.ack(1, 1);
    let received = session.records(1, || {
        publisher.poll().unwrap();
    });
    assert_eq!(received, expected(3, 1, 3..=3));
    assert_eq!(session.try_item(), None);
    session.ack(3, 3);
    let received = session.records(2, || {
        publisher.poll().unwrap();
    });
    assert_eq!(received, expected(4, 1, 4..=5));
}

#[test]
fn a_full_window_holds_the_sender_back() {
    let relay = Relay::new();
    let config = PublisherConfig {
        window_bytes: 4096,
        ..relay.publisher_config()
    };
    let (mut publisher, mut session, topic) = relay.publisher(config, Terms::default());
    let body = vec![1; 1000];
    let message = OutMessage::new(topic, &body);
    let bad = OutMessage {
        extension: &[1],
        ..message
    };
    assert_eq!(publisher.try_send(&bad), Err(TrySendError::Extension));
    for _ in 0..3 {
        publisher.try_send(&message).unwrap();
    }
    assert_eq!(publisher.try_send(&message), Err(TrySendError::Full));
    publisher.flush().unwrap();
    session.records(3, || {});
    std::thread::scope(|scope| {
        scope.spawn(|| {
            session.ack(2, 2);
            session.records(1, || {});
        });
        assert_eq!(publisher.send(&message).unwrap(), PublisherSeq(4));
    });
    let too_large = vec![1; 65_537];
    let refused = publisher.try_send(&OutMessage::new(topic, &too_large));
    assert_eq!(refused, Err(TrySendError::TooLarge));
    let larger_than_window = publisher.send(&OutMessage::new(topic, &too_large[..5000]));
    assert!(matches!(
        larger_than_window,
        Err(ClientError::TooLarge { payload: 5000, .. })
    ));
    let unknown = publisher.try_send(&OutMessage::new(TopicId(77), b""));
    assert_eq!(unknown, Err(TrySendError::UnknownTopic));
}

#[test]
fn held_is_told_once() {
    let relay = Relay::new();
    let (mut publisher, mut session, _topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    events(&mut publisher);
    session.heartbeat(1, 0, Held::NoSpace);
    session.heartbeat(1, 0, Held::NoSpace);
    session.heartbeat(1, 0, Held::No);
    let mut told = Vec::new();
    until("the events", || {
        publisher.poll().unwrap();
        told.extend(publisher.next_event());
        told.len() == 2
    });
    assert_eq!(
        told,
        [
            PublisherEvent::Held(Held::NoSpace),
            PublisherEvent::Held(Held::No)
        ]
    );
}

#[test]
fn a_refused_topic_is_an_error_and_can_be_asked_again() {
    let relay = Relay::new();
    let (mut publisher, mut session, _topic) =
        relay.publisher(relay.publisher_config(), Terms::default());
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            let request = session.topic_request("secret.topic", || {});
            session.send(&Message::Reject(Reject {
                publisher_seq: PublisherSeq(0),
                next_expected: PublisherSeq(1),
                request,
                code: RejectCode::NotEntitled,
                text: "not yours",
            }));
        });
        publisher.topic("secret.topic").unwrap_err()
    });
    assert!(
        matches!(&refused, ClientError::TopicRefused { code: RejectCode::NotEntitled, text, .. }
            if text == "not yours"),
        "{refused}"
    );
    assert!(!refused.is_final());
    std::thread::scope(|scope| {
        scope.spawn(|| session.answer_topic("secret.topic", 5, || {}));
        publisher.topic("secret.topic").unwrap();
    });
    let bad = publisher.topic("a b").unwrap_err();
    assert!(matches!(
        bad,
        ClientError::TopicRefused {
            code: RejectCode::BadTopic,
            ..
        }
    ));
}

#[test]
fn settings_that_can_not_work_are_refused() {
    let relay = Relay::new();
    let good = relay.publisher_config();
    let nameless = relay_client::Credential {
        name: String::new(),
        secret: vec![1],
    };
    for config in [
        PublisherConfig {
            publisher: 0,
            ..good.clone()
        },
        PublisherConfig {
            incarnation: Some(0),
            ..good.clone()
        },
        PublisherConfig {
            addresses: vec![],
            ..good.clone()
        },
        PublisherConfig {
            addresses: vec!["no port".into()],
            ..good.clone()
        },
        PublisherConfig {
            credential: nameless,
            ..good.clone()
        },
    ] {
        let error = Publisher::connect(config).err().unwrap();
        assert!(matches!(error, ClientError::Configuration(_)), "{error}");
    }
}
