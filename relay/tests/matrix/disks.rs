//! Disks that err, stall, lose what was not synced, lie, are replaced, or are an old copy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::appliance::faulty_disk::FaultyDisk;
use super::appliance::group::{GroupShape, LEADING};
use super::appliance::load::LoadShape;
use super::appliance::rights::has;
use super::appliance::{self, Appliance, Random, run, text};
use super::{DISKS, Scene, rounds};

/// Goal: a disk that errs ends its node, primary or standby, with an error that says so, and the flow goes on with the other; on a
/// disk that works again the node is taken in. Method: writes err, or only the syncs after them.
#[test]
fn a_disk_errs() {
    if !has(&DISKS) {
        return;
    }
    type Fail = fn(&FaultyDisk);
    let ways: [(&str, Fail); 2] = [
        ("dsync", FaultyDisk::fail_writes),
        ("covering", FaultyDisk::fail_syncs),
    ];
    for (method, fail) in ways {
        let mut shape = GroupShape::default();
        shape.shape.journal = shape.shape.journal.replace("dsync", method);
        let mut scene = Scene::on_faulty_disks(&shape, &LoadShape::default());
        for is_primary in [true, false] {
            let leader = scene.group.await_in_sync();
            let victim = if is_primary { leader } else { 1 - leader };
            scene.load.take_gap();
            fail(&scene.disks[victim]);
            let status = scene.group.nodes[victim].wait();
            assert_eq!(status.code(), Some(1), "{}", scene.group.logs());
            let log = scene.group.nodes[victim].log();
            let last = log.lines().last().unwrap();
            assert!(last.contains("Input/output error"), "{last}");
            assert!(last.contains("replace the disk"), "{last}");
            scene.await_flow(100);
            let who = if is_primary { "primary" } else { "standby" };
            println!(
                "{who}, {method}: {:?} without delivery",
                scene.load.take_gap()
            );
            scene.disks[victim].heal();
            scene.group.nodes[victim].start();
            scene.await_recovery();
        }
        scene.finish();
    }
}

/// Goal: a disk that stands still for 500 ms or for 10 s, under the primary or under the standby, holds the flow up for less than
/// that where another copy can go on, and nothing is lost when it moves again.
#[test]
fn a_disk_stalls() {
    if !has(&DISKS) {
        return;
    }
    // With the times a node has by default: they are what this is about.
    let shape = GroupShape {
        more: String::new(),
        ..GroupShape::default()
    };
    let mut scene = Scene::on_faulty_disks(&shape, &LoadShape::default());
    for (stall_ms, is_primary) in [(500, true), (500, false), (10_000, true), (10_000, false)] {
        let leader = scene.group.await_in_sync();
        let victim = if is_primary { leader } else { 1 - leader };
        scene.load.take_gap();
        scene.disks[victim].stall_for(Duration::from_millis(stall_ms));
        if stall_ms > 1_000 {
            let is_flowing = scene.load.has_more(100, Duration::from_secs(9));
            assert!(is_flowing, "the other goes on\n{}", scene.group.logs());
        }
        scene.disks[victim].await_moving();
        scene.await_recovery();
        let who = if is_primary { "primary" } else { "standby" };
        println!(
            "{who}, {stall_ms} ms: {:?} without delivery",
            scene.load.take_gap()
        );
    }
    scene.finish();
}

/// Goal: the power of both goes at once, with writes under way, and whatever of these is left on each disk, nothing that was
/// acknowledged or delivered is lost, whoever comes back first.
#[test]
fn both_lose_power() {
    if !has(&DISKS) {
        return;
    }
    let mut random = Random::new(appliance::seed());
    for method in ["dsync", "covering"] {
        let mut shape = GroupShape::default();
        shape.shape.journal = shape.shape.journal.replace("dsync", method);
        let mut scene = Scene::on_faulty_disks(&shape, &LoadShape::default());
        for round in 0..rounds(3) {
            scene.await_flow(20 + random.below(200));
            for node in &mut scene.group.nodes {
                node.kill();
            }
            for disk in &mut scene.disks {
                disk.cut_power(&mut random);
            }
            let first = (round % 2) as usize;
            scene.group.nodes[first].start();
            scene.group.nodes[1 - first].start();
            scene.await_recovery();
        }
        scene.finish();
    }
}

/// Goal: a disk that answered syncs and kept nothing costs one copy, not the messages: what its node lacks after a power cut
/// it gets from the other. Where something later is left, so that the node knows that it lacks what was durable, it says so, and a
/// new disk is put in.
#[test]
fn a_disk_lied() {
    if !has(&DISKS) {
        return;
    }
    let mut random = Random::new(appliance::seed());
    let mut scene = Scene::on_faulty_disks(&GroupShape::default(), &LoadShape::default());
    for is_primary in [false, true] {
        let leader = scene.group.await_in_sync();
        let victim = if is_primary { leader } else { 1 - leader };
        scene.disks[victim].lie();
        scene.await_flow(500);
        scene.group.nodes[victim].kill();
        scene.disks[victim].cut_power(&mut random);
        scene.await_flow(50);
        if let Err(said) = scene.group.nodes[victim].try_start() {
            assert!(said.contains("fetch it from a peer"), "{said}");
            replace_disk(&scene.group.nodes[victim]);
            scene.group.nodes[victim].start();
        }
        scene.await_recovery();
    }
    scene.finish();
}

/// Puts a blank journal in the place of a node's.
fn replace_disk(node: &Appliance) {
    // The directory may be a link to one on another disk.
    for entry in std::fs::read_dir(node.directory()).unwrap().flatten() {
        let path = entry.path();
        let is_directory = path.is_dir();
        let removed = if is_directory {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
        removed.unwrap();
    }
    let output = node.relayd("format");
    assert!(output.status.success(), "format: {}", text(&output));
}

/// Goal: a blank disk in the place of a node's is another copy, which is filled and then counts; with two copies asked for
/// release is held until then, not for ever.
#[test]
fn a_disk_is_replaced() {
    for min_copies in [1, 2] {
        let shape = GroupShape {
            min_copies,
            ..GroupShape::default()
        };
        let mut scene = Scene::on_loopback(&shape, &LoadShape::default());
        for is_primary in [false, true] {
            let leader = scene.group.await_in_sync();
            let victim = if is_primary { leader } else { 1 - leader };
            scene.group.nodes[victim].kill();
            replace_disk(&scene.group.nodes[victim]);
            scene.group.nodes[victim].start();
            scene.await_recovery();
        }
        scene.finish();
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let output = run(Command::new("cp").arg("-a").arg(from).arg(to));
    assert!(output.status.success(), "{}", text(&output));
}

/// Goal: an old copy of a node's disk, brought back, is not taken for the node's log: beside the other it catches up; alone it does
/// not lead, since the arbiter knows what was released. Method: a copy made while the node is down, put in the place of its
/// journal some seconds of flow later.
#[test]
fn an_old_copy_of_a_disk_is_brought_back() {
    let mut scene = Scene::on_loopback(&GroupShape::default(), &LoadShape::default());
    let leader = scene.group.await_in_sync();
    let victim = 1 - leader;
    let directory = scene.group.nodes[victim].directory();
    let backup = scene.group.nodes[victim].home.path().join("backup");
    scene.group.nodes[victim].kill();
    copy(&directory, &backup);
    scene.group.nodes[victim].start();
    let leader = scene.await_recovery();
    assert_ne!(leader, victim, "{}", scene.group.logs());
    // The floor is written about once a second.
    scene.await_flow(3_000);
    scene.group.nodes[victim].kill();
    copy(&backup, &directory);
    scene.group.nodes[victim].start();
    scene.await_recovery();
    // Both are in sync and both go down, the victim first, so that it was never alone; the old copy comes back alone.
    scene.await_flow(3_000);
    scene.group.nodes[victim].kill();
    scene.group.nodes[1 - victim].kill();
    copy(&backup, &directory);
    scene.group.nodes[victim].start();
    scene.stays_without_leader(victim);
    scene.group.nodes[1 - victim].start();
    scene.await_recovery();
    scene.finish();
}

/// Goal: who was not in the set when everything stopped waits, however often it is started, for the one that was alone last.
/// Method: one is killed, then the other after more flow; the first is started, the last after it, and the other way round.
#[test]
fn one_was_alone_last() {
    let mut scene = Scene::on_loopback(&GroupShape::default(), &LoadShape::default());
    for is_last_first in [false, true] {
        let first = scene.group.await_in_sync();
        let last = 1 - first;
        scene.group.nodes[first].kill();
        scene.await_flow(200);
        scene.group.nodes[last].kill();
        if is_last_first {
            scene.group.nodes[last].start();
            scene.await_flow(50);
            assert_eq!(scene.group.leader(), Some(last));
            scene.group.nodes[first].start();
        } else {
            scene.group.nodes[first].start();
            scene.stays_without_leader(first);
            scene.group.nodes[last].start();
        }
        scene.await_recovery();
    }
    scene.finish();
}

impl Scene {
    /// The node that runs alone knows the record and does not lead, for longer than every wait at a start.
    fn stays_without_leader(&self, place: usize) {
        self.group.eventually("it knows the record", || {
            self.group.counter(place, "group.arbiter_heard_ns") > 0
        });
        let begun = std::time::Instant::now();
        let delivered = self.load.delivered();
        while begun.elapsed() < Duration::from_secs(4) {
            assert_ne!(self.group.counter(place, "group.standing"), LEADING);
            assert_eq!(self.load.delivered(), delivered, "nothing is delivered");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
