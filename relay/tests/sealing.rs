//! Goal: full segments are sealed while the flow goes on, across crashes, changes of the primary and changes of the key, and
//! anyone with the first public key can check it; and the journal says what its clock was worth. Method: real processes on the
//! least segments, and the check that auditors use.

mod appliance;

use std::path::Path;

use appliance::flow::Flow;
use appliance::group::{Group, GroupShape};
use appliance::{Appliance, LIMIT, Shape, eventually, send, text};
use relay_client::Publisher;
use relay_journal::clock::ClockFold;
use relay_journal::reader::seals::{SealFile, SealOutcome, SealStep, SegmentReport};
use relay_journal::reader::{JournalDir, ReadFrom};
use relay_journal::seal::{ENTRY_LENGTH, PublicKey};
use relay_wire::code::RecordKind;
use relay_wire::id::Position;
use relay_wire::record::{clock_body, seal_key_body};

const SEGMENT: u64 = 4 << 20;

/// Sends about `count` MB.
fn fill(publisher: &mut Publisher, count: u64) {
    let topic = publisher.topic("orders.a").unwrap();
    for number in 0..count * 17 {
        send(publisher, topic, &vec![number as u8; 60_000]);
    }
    assert!(publisher.wait_released(LIMIT).unwrap());
}

/// The public key that a command said at its end or in its middle: the last 64 digits behind "key".
fn key_in(said: &str) -> PublicKey {
    let mut words = said.split_whitespace();
    while let Some(word) = words.next() {
        if word == "key"
            && let Some(Ok(key)) = words.next().map(str::parse)
        {
            return key;
        }
    }
    panic!("no key in {said:?}");
}

/// Waits until every full segment of what is released is sealed; how many these are.
fn await_sealed(appliance: &Appliance) -> u64 {
    let released = appliance.counters()["position.released"];
    eventually("every full segment is sealed", || {
        let counters = appliance.counters();
        counters["seals.position"] >= released / SEGMENT * SEGMENT
            && counters["seals.lag_bytes"] == 0
    });
    appliance.counters()["seals.segments"]
}

fn check(directory: &Path, trusted: &[PublicKey]) -> (SealFile, Vec<SegmentReport>) {
    let journal = JournalDir::open(directory).unwrap();
    let mut check = journal.check_seals(trusted, Position(0)).unwrap();
    let file = check.file().clone();
    let mut reports = Vec::new();
    loop {
        match check.step(&mut |_, _| {}).unwrap() {
            SealStep::Read(_) => {}
            SealStep::Segment(report) => reports.push(report),
            SealStep::Over => return (file, reports),
        }
    }
}

/// That the seals are right, and of how many segments.
fn assert_intact(directory: &Path, trusted: &[PublicKey], sealed: u64) -> SealFile {
    let (file, reports) = check(directory, trusted);
    assert_eq!(file.findings, []);
    assert_eq!(reports.len() as u64, sealed);
    for report in &reports {
        assert_eq!(report.outcome(), SealOutcome::Intact, "{report:?}");
    }
    file
}

/// The keys that the log says seals are signed with.
fn journalled_keys(directory: &Path) -> Vec<PublicKey> {
    let journal = JournalDir::open(directory).unwrap();
    let mut records = journal.records(ReadFrom::Start).unwrap();
    let mut keys = Vec::new();
    while let Some(found) = records.next_record() {
        let record = found.unwrap().record;
        if record.kind() == Some(RecordKind::SealKey) {
            let body = seal_key_body(record.payload()).expect("it is whole");
            keys.push(PublicKey(body.key));
        }
    }
    keys
}

#[test]
fn segments_are_sealed_across_crashes() {
    // A quarter of the ring is more than what is written before the crash.
    let mut shape = Shape::default();
    shape.limits = shape.limits.replace("8MiB", "64MiB");
    let mut appliance = Appliance::configured(shape, appliance::scratch());
    let said = appliance.relayd("format");
    assert!(said.status.success(), "{}", text(&said));
    let key = key_in(&text(&said));
    appliance.start();
    let mut publisher = appliance.publisher(1);
    fill(&mut publisher, 10);
    let sealed = await_sealed(&appliance);
    assert!(sealed >= 2, "{sealed}");
    let read_back = appliance.counters()["journal.read_back_bytes"];
    assert_eq!(read_back, 0, "all of it was in memory when it was sealed");
    assert_intact(&appliance.directory(), &[key], sealed);
    assert_eq!(journalled_keys(&appliance.directory()), [key]);
    // A crash leaves a half summed segment, and here an entry that was not whole either.
    appliance.kill();
    let seals = appliance.directory().join("seals");
    let mut bytes = std::fs::read(&seals).unwrap();
    assert_eq!(bytes.len() as u64, (1 + sealed) * ENTRY_LENGTH as u64);
    bytes.extend([0x5a; 100]);
    std::fs::write(&seals, bytes).unwrap();
    appliance.start();
    fill(&mut publisher, 10);
    let more = await_sealed(&appliance);
    assert!(more > sealed, "{more}");
    assert!(appliance.stop().success(), "{}", appliance.log());
    let file = assert_intact(&appliance.directory(), &[key], more);
    assert_eq!(file.torn_bytes, 0);
    // What is not full is not sealed.
    let extent = JournalDir::open(&appliance.directory()).unwrap();
    let extent = extent.extent().unwrap();
    assert!(file.sealed_end < extent.released);
    assert!(extent.released.since(file.sealed_end) < SEGMENT);
    assert!(
        !appliance.log().contains("not sealed"),
        "{}",
        appliance.log()
    );
}

/// Segments written while there were no seals are sealed when there are to be some.
#[test]
fn what_was_written_before_is_sealed_when_met() {
    let mut shape = Shape::default();
    let limits = shape.limits.clone();
    shape.limits = format!("{limits}\n[stream.evidence]\nseals = false");
    let mut appliance = Appliance::started(shape);
    let mut publisher = appliance.publisher(1);
    fill(&mut publisher, 10);
    assert!(!appliance.counters().contains_key("seals.position"));
    drop(publisher);
    assert!(appliance.stop().success(), "{}", appliance.log());
    assert!(!appliance.directory().join("seals").exists());
    assert!(!appliance.directory().join("seal-key").exists());
    appliance.shape.limits = limits;
    appliance.write_config();
    appliance.start();
    let sealed = await_sealed(&appliance);
    assert!(sealed >= 2, "{sealed}");
    let key = key_of(&appliance.directory());
    assert_intact(&appliance.directory(), &[key], sealed);
}

/// The first key that the seals name.
fn key_of(directory: &Path) -> PublicKey {
    check(directory, &[]).0.keys[0].key
}

/// Goal: the seals of both nodes differ in key and time alone, whoever leads. Method: fill segments, kill the primary, fill more.
#[test]
fn both_nodes_seal_the_same() {
    let mut group = Group::started(&GroupShape::default());
    let publish = |group: &Group, number: u64| {
        let mut config = group.nodes[0].publisher_config(number);
        config.addresses = group.addresses();
        let mut publisher = Publisher::connect(config).unwrap();
        fill(&mut publisher, 10);
    };
    publish(&group, 1);
    let leader = group.await_in_sync();
    group.nodes[leader].kill();
    group.await_leader(Some(leader));
    publish(&group, 2);
    group.nodes[leader].start();
    group.await_in_sync();
    let leader_now = group.await_in_sync();
    let full = group.counter(leader_now, "position.released") / SEGMENT;
    assert!(full >= 4, "{full} segments are full");
    group.eventually("both have sealed the same segments", || {
        (0..2).all(|place| group.counter(place, "seals.segments") == full)
    });
    let directories = [0, 1].map(|place| group.nodes[place].directory());
    let keys = [0, 1].map(|place| key_of(&directories[place]));
    assert_ne!(keys[0], keys[1]);
    let files = [0, 1].map(|place| assert_intact(&directories[place], &[keys[place]], full));
    assert_eq!(files[0].last, files[1].last);
    // Each reign says whose key it has, in both journals.
    group.stop_and_compare();
    let named = journalled_keys(&directories[leader]);
    assert_eq!(named, journalled_keys(&directories[1 - leader]));
    assert_eq!(named[..2], [keys[leader], keys[1 - leader]]);
}

#[test]
fn a_key_is_replaced_while_it_runs_and_while_it_does_not() {
    let mut appliance = Appliance::started(Shape::default());
    let directory = appliance.directory();
    let first = key_of(&directory);
    let mut publisher = appliance.publisher(1);
    fill(&mut publisher, 5);
    await_sealed(&appliance);
    let said = appliance.relayd("rotate-key");
    assert!(said.status.success(), "{} {}", text(&said), appliance.log());
    let second = key_in(&text(&said));
    fill(&mut publisher, 5);
    await_sealed(&appliance);
    eventually("the change is journalled", || {
        journalled_keys(&directory).contains(&second)
    });
    assert!(appliance.stop().success(), "{}", appliance.log());
    let said = appliance.relayd("rotate-key");
    assert!(said.status.success(), "{}", text(&said));
    let third = key_in(&text(&said));
    appliance.start();
    fill(&mut publisher, 5);
    let sealed = await_sealed(&appliance);
    let file = assert_intact(&directory, &[first], sealed);
    let keys: Vec<_> = file.keys.iter().map(|named| named.key).collect();
    assert_eq!(keys, [first, second, third]);
    assert_eq!(journalled_keys(&directory), [first, second, third]);
    assert!(!directory.join("seal-key.next").exists());
}

/// What is wrong with the seals is said and counted, and is no reason to hold the flow.
#[test]
fn seals_that_can_not_go_on_do_not_stop_the_flow() {
    let mut appliance = Appliance::started(Shape::default());
    let mut publisher = appliance.publisher(1);
    fill(&mut publisher, 10);
    let sealed = await_sealed(&appliance);
    appliance.kill();
    // Another key than the seals name.
    let key = appliance.directory().join("seal-key");
    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, "ab".repeat(32)).unwrap();
    appliance.start();
    fill(&mut publisher, 5);
    assert_eq!(appliance.counters()["seals.failures"], 1);
    appliance.await_log(&["rotate-key"]);
    appliance.kill();
    // Damage in the middle of the file.
    std::fs::write(&key, good).unwrap();
    let seals = appliance.directory().join("seals");
    let bytes = std::fs::read(&seals).unwrap();
    let mut damaged = bytes.clone();
    damaged[ENTRY_LENGTH + 20] ^= 1;
    std::fs::write(&seals, damaged).unwrap();
    appliance.start();
    fill(&mut publisher, 5);
    assert_eq!(appliance.counters()["seals.failures"], 1);
    appliance.await_log(&["at byte 256"]);
    appliance.kill();
    // Mended: everything that was missed is sealed.
    std::fs::write(&seals, bytes).unwrap();
    appliance.start();
    let more = await_sealed(&appliance);
    assert!(more > sealed, "{more}");
    let key = key_of(&appliance.directory());
    assert_intact(&appliance.directory(), &[key], more);
}

#[test]
fn the_journal_says_what_its_clock_was_worth() {
    let mut shape = Shape::default();
    shape.limits += "\n[stream.evidence]\nclock_every_ms = 1000";
    let mut appliance = Appliance::started(shape);
    let directory = appliance.directory();
    let statements = || {
        let journal = JournalDir::open(&directory).unwrap();
        let mut records = journal.records(ReadFrom::Start).unwrap();
        let mut count = 0;
        while let Some(found) = records.next_record() {
            let record = found.unwrap().record;
            if record.kind() == Some(RecordKind::Clock) {
                let (body, sources) = clock_body(record.payload()).expect("it is whole");
                assert_eq!(body.node.get(), 1);
                assert!(!sources.is_empty());
                assert!(record.receive_time_ns() + 1 >= body.measured_ns.get());
                count += 1;
            }
        }
        count
    };
    eventually("the clock is spoken of again and again", || {
        statements() >= 2
    });
    let mut publisher = appliance.publisher(1);
    fill(&mut publisher, 1);
    drop(publisher);
    assert!(appliance.stop().success(), "{}", appliance.log());
    let journal = JournalDir::open(&directory).unwrap();
    let mut records = journal.records(ReadFrom::Start).unwrap();
    let mut fold = ClockFold::default();
    while let Some(found) = records.next_record() {
        assert_eq!(fold.apply(&found.unwrap().record), None);
    }
    let all = fold.finish().expect("there are messages");
    assert_eq!((all.messages, all.messages_unstated), (17, 0));
    assert!(all.statements >= 2);
}

/// A standby says nothing about its clock or its key; it does once it leads.
#[test]
fn only_the_primary_testifies() {
    let mut wanted = GroupShape::default();
    wanted.shape.limits += "\n[stream.evidence]\nclock_every_ms = 1000";
    let mut group = Group::started(&wanted);
    let flow = Flow::on(&group, 200);
    let leader = group.await_in_sync();
    let speakers = |place: usize| {
        let journal = JournalDir::open(&group.nodes[place].directory()).unwrap();
        let mut records = journal.records(ReadFrom::Start).unwrap();
        let mut nodes = Vec::new();
        while let Some(Ok(found)) = records.next_record() {
            if found.record.kind() == Some(RecordKind::Clock) {
                let (body, _) = clock_body(found.record.payload()).expect("it is whole");
                nodes.push(body.node.get());
            }
        }
        nodes
    };
    group.eventually("the primary spoke", || speakers(1 - leader).len() >= 2);
    let only = leader as u64 + 1;
    assert!(speakers(1 - leader).iter().all(|node| *node == only));
    flow.finish();
    group.stop_and_compare();
}
