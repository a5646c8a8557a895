//! The checker that the fault tests rest on is itself under test.

mod appliance;

use appliance::history::{Acknowledged, History, Journal, Seen};

fn seen(seq: u64, publisher_seq: u64) -> Seen {
    Seen::sent(seq, 1, publisher_seq)
}

fn journal(messages: &[(u64, u64)], released: usize) -> Journal {
    let records = messages.iter().map(|m| seen(m.0, m.1)).collect();
    Journal::of("a journal", records, released)
}

fn history(acknowledged: &[(u64, u64)], delivered: &[Seen]) -> History {
    let history = History::default();
    for &(publisher_seq, seq) in acknowledged {
        history.note_acknowledged(Acknowledged {
            publisher: 1,
            incarnation: 1,
            publisher_seq,
            seq,
        });
    }
    let subscriber = history.subscriber();
    for seen in delivered {
        history.note_delivered(subscriber, *seen);
    }
    history
}

/// Goal: what the clients saw and what the journals hold is never said to agree when it does not. Method: an execution that is
/// right, then each way to break it.
#[test]
fn every_broken_rule_is_found() {
    let whole = || journal(&[(1, 1), (2, 2), (3, 3)], 3);
    let right = history(&[(1, 1), (3, 3)], &[seen(1, 1), seen(2, 2)]);
    let checked = right.check(&[whole(), whole()], &[journal(&[(1, 1)], 1)]);
    assert_eq!(checked.unwrap().records, 3);
    let altered = Seen {
        payload_hash: 1,
        ..seen(1, 1)
    };
    let other = Seen {
        checksum: 1,
        ..seen(1, 1)
    };
    let earlier = Seen {
        received_ns: 0,
        ..seen(2, 2)
    };
    let broken = [
        (
            "received before",
            history(&[], &[seen(1, 1), earlier]),
            whole(),
        ),
        ("lost", history(&[], &[seen(1, 2)]), whole()),
        ("lost", history(&[], &[seen(1, 1), seen(2, 1)]), whole()),
        ("place", history(&[], &[seen(2, 2)]), whole()),
        ("altered", history(&[], &[altered]), whole()),
        ("instead", history(&[], &[other]), whole()),
        ("ends before", history(&[], &[seen(1, 1)]), journal(&[], 0)),
        ("does not hold", history(&[(4, 0)], &[]), whole()),
        ("has seq", history(&[(2, 3)], &[]), whole()),
        ("after", history(&[(2, 2), (1, 1)], &[]), whole()),
        ("lost", history(&[], &[]), journal(&[(1, 1), (2, 1)], 0)),
    ];
    for (what, history, journal) in broken {
        let found = history.check(&[journal], &[]).unwrap_err();
        assert!(found.contains(what), "{found:?} lacks {what:?}");
    }
    let shorter = journal(&[(1, 1), (2, 2)], 2);
    let found = right.check(&[whole(), shorter], &[]).unwrap_err();
    assert!(found.contains("at seq 3"), "{found}");
    let longer = journal(&[(1, 1), (2, 2), (3, 3), (4, 4)], 4);
    let found = right.check(&[whole()], &[longer]).unwrap_err();
    assert!(found.contains("at seq 4"), "{found}");
    let unreleased = journal(&[(1, 1), (2, 2), (3, 3), (4, 4)], 3);
    right.check(&[whole()], &[unreleased]).unwrap();
}
