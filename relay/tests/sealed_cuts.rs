//! Goal: where a log ends below what was sealed of it, the seals and indexes of what is gone stand for nothing any more: they are
//! taken back in writing, and made anew of what lies there now. Method: real processes on the least segments; a disk that lost
//! what it had written from the middle of a sealed segment on, in a pair that has another copy, and on a node that has none.

mod appliance;

use std::fs::File;
use std::os::unix::fs::FileExt;

use appliance::group::{Group, GroupShape};
use appliance::{Appliance, LIMIT, Shape, eventually, send};
use relay_client::Publisher;
use relay_journal::reader::JournalDir;
use relay_journal::reader::point::PointReader;
use relay_journal::reader::seals::{SealFile, SealOutcome, SealStep};
use relay_journal::{checkpoint, segment};
use relay_wire::id::Position;

const SEGMENT: u64 = 4 << 20;

/// Sends about `count` MB.
fn fill(publisher: &mut Publisher, count: u64, byte: u8) {
    let topic = publisher.topic("orders.a").unwrap();
    for _ in 0..count * 17 {
        send(publisher, topic, &vec![byte; 60_000]);
    }
    assert!(publisher.wait_released(LIMIT).unwrap());
}

/// Waits until every full segment up to `released` is sealed and indexed; how many these are.
fn await_evidence(node: &Appliance, released: u64) -> u64 {
    let full = released / SEGMENT;
    eventually("every full segment is sealed and indexed", || {
        let counters = node.counters();
        counters["seals.segments"] >= full
            && counters["index.lag_bytes"] == 0
            && (0..full).all(|index| has_true_index(node, index))
    });
    full
}

/// How much the log of a node is released.
fn released(node: &Appliance) -> u64 {
    node.counters()["position.released"]
}

/// Whether a segment has an index that is of what it holds.
fn has_true_index(node: &Appliance, segment: u64) -> bool {
    let journal = JournalDir::open(&node.directory()).unwrap();
    let mut points = PointReader::new(&journal);
    journal.side_index(segment).is_ok_and(|index| {
        index.check_all().is_ok() && index.check_log(&mut points).unwrap().is_ok()
    })
}

/// The disk loses everything that was written to the log from a position on, and the checkpoints that knew of it.
fn lose_from(node: &Appliance, position: u64) {
    let segments = node.directory().join(segment::DIRECTORY);
    for index in position / SEGMENT.. {
        let path = segments.join(segment::name(index));
        let Ok(file) = File::options().write(true).open(path) else {
            break;
        };
        let from = position.saturating_sub(index * SEGMENT);
        file.write_all_at(&vec![0; (SEGMENT - from) as usize], from)
            .unwrap();
        file.sync_all().unwrap();
    }
    for entry in std::fs::read_dir(node.directory()).unwrap().flatten() {
        if checkpoint::parse_name(&entry.file_name().to_string_lossy()).is_some() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// What the seals say, each of which must be right; how many there are.
fn seals(node: &Appliance) -> (SealFile, u64) {
    let journal = JournalDir::open(&node.directory()).unwrap();
    let mut check = journal.check_seals(&[], Position(0)).unwrap();
    let file = check.file().clone();
    assert_eq!(file.findings, []);
    let mut sealed = 0;
    loop {
        match check.step(&mut |_, _| {}).unwrap() {
            SealStep::Read(_) => {}
            SealStep::Segment(report) => {
                assert_eq!(report.outcome(), SealOutcome::Intact, "{report:?}");
                sealed += 1;
            }
            SealStep::Over => return (file, sealed),
        }
    }
}

/// The one cut that the seals name must be of segment 1, in its middle.
fn assert_cut(file: &SealFile) {
    let [cut] = file.cuts[..] else {
        panic!("one cut is named: {:?}", file.cuts);
    };
    assert_eq!(cut.segment, 1);
    assert!(
        (SEGMENT..2 * SEGMENT).contains(&cut.position.get()),
        "{cut:?}"
    );
}

/// The peer still has it all: the same log comes back, and with it the same seal hashes.
#[test]
fn what_a_peer_has_is_sealed_again_the_same() {
    let mut group = Group::started(&GroupShape::default());
    let publish = |group: &Group, id: u64| {
        let mut config = group.nodes[0].publisher_config(id);
        config.addresses = group.addresses();
        fill(&mut Publisher::connect(config).unwrap(), 14, id as u8);
    };
    publish(&group, 1);
    let leader = group.await_in_sync();
    let standby = 1 - leader;
    let length = released(&group.nodes[leader]);
    assert!(await_evidence(&group.nodes[standby], length) >= 3);
    group.nodes[standby].kill();
    lose_from(&group.nodes[standby], SEGMENT + SEGMENT / 2);
    group.nodes[standby].start();
    let leader = group.await_in_sync();
    publish(&group, 2);
    let length = released(&group.nodes[leader]);
    for node in &group.nodes {
        assert!(await_evidence(node, length) >= 6);
    }
    group.stop_and_compare();
    let (file, count) = seals(&group.nodes[standby]);
    assert_cut(&file);
    let (other, others) = seals(&group.nodes[1 - standby]);
    assert_eq!((file.last, count), (other.last, others), "leader {leader}");
    assert_eq!(other.cuts, []);
}

/// Nobody has it: another log takes the place, and its seals and indexes that of the old ones.
#[test]
fn another_log_in_the_place_of_a_sealed_one_has_its_own_evidence() {
    let mut node = Appliance::started(Shape::default());
    let mut publisher = node.publisher(1);
    fill(&mut publisher, 14, 1);
    drop(publisher);
    assert!(await_evidence(&node, released(&node)) >= 3);
    node.kill();
    let (before, _) = seals(&node);
    lose_from(&node, SEGMENT + SEGMENT / 2);
    node.start();
    assert!(!has_true_index(&node, 1), "it is of what is gone");
    fill(&mut node.publisher(2), 14, 2);
    let sealed = await_evidence(&node, released(&node));
    assert!(node.stop().success(), "{}", node.log());
    let (file, count) = seals(&node);
    assert_cut(&file);
    assert_eq!(count, sealed);
    assert_ne!(file.last, before.last);
    assert_eq!(file.keys[0].key, before.keys[0].key);
}
