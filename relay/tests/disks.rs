//! A node alone on a disk that errs, stalls, loses what was not synced, or lies: a filesystem of this process's own, through
//! FUSE. The first tests are about that disk itself.

mod appliance;

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::time::Duration;

use appliance::faulty_disk::FaultyDisk;
use appliance::rights::{Need, has};
use appliance::{Appliance, LIMIT, Random, Shape, eventually, payload, send, take, text};
use relay_client::{Start, Subscriber};

const NEEDS: [Need; 2] = [Need::Root, Need::Fuse];

/// Goal: of what was written after the last sync a power cut keeps some, of what was written before it everything. Method:
/// many cuts with different seeds; both outcomes must occur.
#[test]
fn a_power_cut_keeps_what_was_synced_and_some_of_the_rest() {
    if !has(&NEEDS) {
        return;
    }
    let mut disk = FaultyDisk::mounted();
    let path = disk.path().join("file");
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..16 {
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&[1; 1024]).unwrap();
        file.sync_all().unwrap();
        std::fs::File::open(disk.path())
            .unwrap()
            .sync_all()
            .unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&[2; 1024]).unwrap();
        drop(file);
        disk.cut_power(&mut Random::new(seed));
        let mut left = Vec::new();
        let mut file = std::fs::File::open(&path).unwrap();
        file.read_to_end(&mut left).unwrap();
        assert_eq!(left.len(), 1024);
        for sector in left.chunks(512) {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "a sector is whole"
            );
        }
        seen.insert((left[0], left[512]));
    }
    assert!(seen.contains(&(1, 1)) && seen.contains(&(2, 2)), "{seen:?}");
    assert!(seen.contains(&(1, 2)) || seen.contains(&(2, 1)), "{seen:?}");
}

/// Goal: a durable direct write survives, a name that was not synced may go.
#[test]
fn durable_writes_survive_and_names_need_a_sync() {
    if !has(&NEEDS) {
        return;
    }
    let mut disk = FaultyDisk::mounted();
    let named = disk.path().join("named");
    std::fs::File::create(&named)
        .unwrap()
        .set_len(4096)
        .unwrap();
    std::fs::File::open(disk.path())
        .unwrap()
        .sync_all()
        .unwrap();
    let page = [7; 4096];
    let file = std::fs::File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(&named)
        .unwrap();
    file.write_all_at(&page, 0).unwrap();
    drop(file);
    let mut has_gone = false;
    for seed in 0..8 {
        let unsynced = disk.path().join(format!("unsynced.{seed}"));
        let file = std::fs::File::create(&unsynced).unwrap();
        file.sync_all().unwrap();
        drop(file);
        disk.cut_power(&mut Random::new(seed));
        has_gone |= !unsynced.exists();
        assert_eq!(std::fs::read(&named).unwrap(), page);
    }
    assert!(has_gone, "no name ever went");
}

/// A node whose journal lies on a faulty disk; its configuration and log do not.
struct Node {
    appliance: Appliance,
    disk: FaultyDisk,
}

impl Node {
    fn formatted(method: &str) -> Self {
        let disk = FaultyDisk::mounted();
        let mut shape = Shape::default();
        shape.journal = shape.journal.replace("dsync", method);
        let appliance = Appliance::configured(shape, appliance::scratch());
        let directory = disk.path().join("stream");
        std::fs::create_dir(&directory).unwrap();
        std::fs::File::open(disk.path())
            .unwrap()
            .sync_all()
            .unwrap();
        symlink(directory, appliance.directory()).unwrap();
        let output = appliance.relayd("format");
        assert!(output.status.success(), "{}", text(&output));
        Self { appliance, disk }
    }

    fn started(method: &str) -> Self {
        let mut node = Self::formatted(method);
        node.appliance.start();
        node
    }
}

fn taken(subscriber: &mut Subscriber, from: u64, to: u64) {
    let expected: Vec<_> = (from..=to).map(|number| payload(1, number)).collect();
    let found = take(subscriber, expected.len());
    assert!(found == expected, "lost, doubled, altered or out of order");
}

/// Goal: power cuts under load lose, double, alter and reorder nothing, with either way of writing. Method: the process is
/// killed with writes under way, the disk drops an arbitrary part of what was not synced, and the node starts again.
#[test]
fn power_cuts_under_load_lose_nothing() {
    if !has(&NEEDS) {
        return;
    }
    let mut random = Random::new(appliance::seed());
    for method in ["dsync", "covering"] {
        let mut node = Node::started(method);
        let mut publisher = node.appliance.publisher(1);
        let topic = publisher.topic("orders").unwrap();
        let mut subscriber = node.appliance.subscriber(&[">"], Start::Earliest);
        let (mut sent, mut seen) = (0, 0);
        for _ in 0..6 {
            for _ in 0..50 + random.below(300) {
                sent += 1;
                send(&mut publisher, topic, &payload(1, sent));
            }
            // Not all of it: some is still on its way when the power goes.
            let released = publisher.acked_through().get();
            taken(&mut subscriber, seen + 1, released);
            seen = released;
            node.appliance.kill();
            node.disk.cut_power(&mut random);
            node.appliance.start();
        }
        assert!(
            publisher.wait_released(LIMIT).unwrap(),
            "{}",
            node.appliance.log()
        );
        taken(&mut subscriber, seen + 1, sent);
        let mut all = node.appliance.subscriber(&[">"], Start::Earliest);
        taken(&mut all, 1, sent);
    }
}

/// Goal: an error of a sync is as final as one of a write: the node ends, says why, and acknowledges nothing it does not hold.
/// Method: the disk errs from some moment on, in every way that stops a write from being durable.
#[test]
fn an_error_on_write_or_sync_is_final() {
    if !has(&NEEDS) {
        return;
    }
    type Fail = fn(&FaultyDisk);
    let ways: [(&str, Fail); 3] = [
        ("dsync", FaultyDisk::fail_writes),
        ("covering", FaultyDisk::fail_writes),
        ("covering", FaultyDisk::fail_syncs),
    ];
    for (method, fail) in ways {
        let mut node = Node::started(method);
        let mut publisher = node.appliance.publisher(1);
        let topic = publisher.topic("orders").unwrap();
        let mut subscriber = node.appliance.subscriber(&[">"], Start::Earliest);
        for number in 1..=50 {
            send(&mut publisher, topic, &payload(1, number));
        }
        assert!(publisher.wait_released(LIMIT).unwrap());
        taken(&mut subscriber, 1, 50);
        fail(&node.disk);
        let message = payload(1, 51);
        publisher
            .try_send(&relay_client::OutMessage::new(topic, &message))
            .unwrap();
        let _ = publisher.flush();
        let status = node.appliance.wait();
        assert_eq!(status.code(), Some(1));
        let log = node.appliance.log();
        let last = log.lines().last().unwrap();
        assert!(last.contains("failed: Input/output error"), "{last}");
        assert!(
            last.contains("Nothing was acknowledged that is not on disk"),
            "{last}"
        );
        let _ = publisher.poll();
        assert_eq!(publisher.acked_through().get(), 50);
        assert!(
            subscriber.poll().ok().flatten().is_none(),
            "51 was never durable"
        );
        node.disk.heal();
        node.appliance.start();
        assert!(
            publisher.wait_released(LIMIT).unwrap(),
            "{}",
            node.appliance.log()
        );
        taken(&mut subscriber, 51, 51);
    }
}

/// Goal: while the disk stands still nothing is released, however long; when it moves again all of it is, once and in order.
/// Method: a stall of 500 ms and one of 10 s, under load.
#[test]
fn a_stalled_disk_holds_release_and_loses_nothing() {
    if !has(&NEEDS) {
        return;
    }
    let mut node = Node::started("dsync");
    let mut publisher = node.appliance.publisher(1);
    let topic = publisher.topic("orders").unwrap();
    let mut subscriber = node.appliance.subscriber(&[">"], Start::Earliest);
    let mut sent = 0;
    for stall_ms in [500, 10_000] {
        node.disk.stall();
        let before = sent;
        while sent < before + 100 {
            sent += 1;
            send(&mut publisher, topic, &payload(1, sent));
        }
        eventually("a write waits for the disk", || {
            publisher.poll().unwrap();
            node.disk.is_waited_for()
        });
        node.disk.stall_for(Duration::from_millis(stall_ms));
        assert_eq!(
            publisher.acked_through().get(),
            before,
            "it is not durable yet"
        );
        assert!(
            publisher.wait_released(LIMIT).unwrap(),
            "{}",
            node.appliance.log()
        );
        taken(&mut subscriber, before + 1, sent);
    }
    assert!(node.appliance.stop().success(), "{}", node.appliance.log());
}

/// Goal: a read that errs while a subscriber is served from disk is not passed over in silence: nothing is skipped, and the
/// operator is told. Method: more than the memory holds is published, reads err, a subscriber begins from the start.
#[test]
fn a_read_error_skips_nothing() {
    if !has(&NEEDS) {
        return;
    }
    let mut node = Node::formatted("dsync");
    let limits = "ring = \"2MiB\"\ncredit = \"1MiB\"\npublishers = 16\nheartbeat_ms = 500";
    node.appliance.shape.limits = limits.to_owned();
    node.appliance.write_config();
    node.appliance.start();
    let mut publisher = node.appliance.publisher(1);
    let topic = publisher.topic("orders").unwrap();
    let sent = 12_000;
    for number in 1..=sent {
        send(&mut publisher, topic, &payload(1, number));
    }
    assert!(publisher.wait_released(LIMIT).unwrap());
    node.disk.fail_reads();
    let mut subscriber = node.appliance.subscriber(&[">"], Start::Earliest);
    eventually("the read was tried and refused", || {
        let found = subscriber.poll().unwrap();
        assert!(found.is_none(), "the beginning can't be read: {found:?}");
        node.appliance.counters()["egress.damaged_reads"] > 0
    });
    node.appliance
        .await_log(&["a replay's read of the journal failed"]);
    // Who is served from memory is not touched by it.
    send(&mut publisher, topic, &payload(1, sent + 1));
    assert!(publisher.wait_released(LIMIT).unwrap());
    node.disk.heal();
    taken(&mut subscriber, 1, sent + 1);
}

/// Goal: seals that could not be written are, once they can be, and the flow does not wait for them. Method: writes to their file err
/// while a segment fills.
#[test]
fn a_seal_that_could_not_be_written_is_written_later() {
    if !has(&NEEDS) {
        return;
    }
    let node = Node::started("dsync");
    let mut publisher = node.appliance.publisher(1);
    let topic = publisher.topic("orders").unwrap();
    let mut fill = || {
        for _ in 0..100 {
            send(&mut publisher, topic, &[7; 60_000]);
        }
        assert!(publisher.wait_released(LIMIT).unwrap());
    };
    let sealed = || node.appliance.counters()["seals.segments"];
    node.disk.fail_writes_of("seals");
    fill();
    eventually("it was tried and refused", || {
        node.appliance.counters()["seals.failures"] > 0
    });
    assert_eq!(sealed(), 0);
    fill();
    assert_eq!(sealed(), 0);
    node.disk.heal();
    eventually("both are sealed", || sealed() >= 2);
    node.appliance.await_log(&["segments are sealed again"]);
}

/// Goal: a disk that answered syncs and kept nothing can't be survived by one node, but it is not passed over in silence
/// either. Method: the disk lies, the power goes, everybody comes back.
#[test]
fn a_disk_that_lied_is_noticed() {
    if !has(&NEEDS) {
        return;
    }
    let mut node = Node::started("dsync");
    let mut publisher = node.appliance.publisher(1);
    let topic = publisher.topic("orders").unwrap();
    let mut subscriber = node.appliance.subscriber(&[">"], Start::Earliest);
    send(&mut publisher, topic, &payload(1, 1));
    assert!(publisher.wait_released(LIMIT).unwrap());
    taken(&mut subscriber, 1, 1);
    node.disk.lie();
    for number in 2..=400 {
        send(&mut publisher, topic, &payload(1, number));
        assert!(publisher.wait_released(LIMIT).unwrap());
    }
    taken(&mut subscriber, 2, 400);
    node.appliance.kill();
    node.disk.cut_power(&mut Random::new(appliance::seed()));
    match node.appliance.try_start() {
        // Something later survived: what is missing is known to have been durable.
        Err(said) => assert!(said.contains("It was durable"), "{said}"),
        // The end is missing, which a node alone can't know; a client that saw more does.
        Ok(()) => {
            let begun = std::time::Instant::now();
            let error = loop {
                assert!(
                    begun.elapsed() < LIMIT,
                    "nobody noticed: {}",
                    node.appliance.log()
                );
                if let Err(error) = subscriber.next_within(Duration::from_millis(100)) {
                    break error;
                }
            };
            assert!(error.to_string().contains("beyond"), "{error}");
        }
    }
}
