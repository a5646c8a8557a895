//! Goal: trading sessions are closed and opened while the relay runs, by a word and by the schedule, once each, whoever leads, and the
//! numbering of messages goes on. Method: real processes; the journal is read afterwards.

mod appliance;

use appliance::flow::Flow;
use appliance::group::{Group, GroupShape, admin};
use appliance::{Appliance, LIMIT, Shape, eventually, payload, send};
use relay_journal::reader::{JournalDir, ReadFrom};
use relay_wire::code::RecordKind;
use relay_wire::record::trading_session_body;

const DONE: &str = "{\"ok\":true}";

fn session(node: &Appliance) -> u64 {
    let counters = node.counters();
    counters
        .get("sequence.trading_session")
        .copied()
        .unwrap_or(0)
}

/// Every trading session in a journal at rest, in order: number, name, and the seq of its first message.
fn sessions(node: &Appliance) -> Vec<(u64, String, u64)> {
    let journal = JournalDir::open(&node.directory()).unwrap();
    let mut records = journal.records(ReadFrom::Start).unwrap();
    let mut found = Vec::new();
    while let Some(entry) = records.next_record() {
        let record = entry.unwrap().record;
        if record.kind() == Some(RecordKind::TradingSession) {
            let (number, name) = trading_session_body(record.payload()).unwrap();
            found.push((number, name.to_owned(), record.seq().get()));
        }
    }
    found
}

#[test]
fn a_word_closes_one_session_and_opens_the_next() {
    let mut node = Appliance::started(Shape::default());
    let mut publisher = node.publisher(1);
    let topic = publisher.topic("orders").unwrap();
    for (number, name) in [(20_261_127, "27 November"), (20_261_130, "30 November")] {
        assert_eq!(admin(&node, &format!("roll-session {number} {name}")), DONE);
        eventually("it is open", || session(&node) == number);
        for at in 0..10 {
            send(&mut publisher, topic, &payload(1, at));
        }
        // In order before the next word comes.
        assert!(publisher.wait_released(LIMIT).unwrap());
    }
    for older in [20_261_130, 20_261_127] {
        let refused = admin(&node, &format!("roll-session {older} again"));
        assert!(refused.contains("20261130 is open"), "{refused}");
    }
    drop(publisher);
    assert!(node.stop().success());
    let expected = [
        (20_261_127, "27 November".to_owned(), 1),
        (20_261_130, "30 November".to_owned(), 11),
    ];
    assert_eq!(sessions(&node), expected);
    // The session of the configuration is older: a restart does not go back to it.
    node.shape
        .limits
        .push_str("\n[stream.trading_session]\nnumber = 20261101\nname = \"1 November\"\n");
    node.write_config();
    node.start();
    eventually("it says which one is open", || session(&node) == 20_261_130);
    assert!(node.stop().success());
    assert_eq!(sessions(&node), expected);
}

#[test]
fn the_schedule_opens_a_session_once_whoever_leads() {
    let mut wanted = GroupShape::default();
    wanted.shape.limits.push_str(
        "\n[stream.schedule]\ntime_zone = \"UTC\"\nopens = \"00:00\"\n\
         days = [\"Mon\", \"Tue\", \"Wed\", \"Thu\", \"Fri\", \"Sat\", \"Sun\"]\n",
    );
    let mut group = Group::started(&wanted);
    let flow = Flow::on(&group, 500);
    let first = group.await_in_sync();
    group.eventually("the schedule opened today's session on both", || {
        group.nodes.iter().all(|node| session(node) > 20_260_000)
    });
    let today = session(&group.nodes[first]);
    let refused = admin(&group.nodes[1 - first], "roll-session 99990101 x");
    assert!(refused.contains("does not lead"), "{refused}");
    flow.await_more(100);
    group.nodes[first].kill();
    let second = group.await_leader(Some(first));
    flow.await_more(100);
    assert_eq!(session(&group.nodes[second]), today, "it goes on");
    group.nodes[first].start();
    group.await_in_sync();
    flow.finish();
    assert!(group.stop_and_compare() > 0);
    for node in &group.nodes {
        let found = sessions(node);
        // At midnight there are two.
        assert!(
            found.iter().all(|(number, ..)| *number >= today) && found.len() <= 2,
            "{found:?}"
        );
        assert!(found.is_sorted() && !found.is_empty(), "{found:?}");
    }
}
