//! Clocks that are set.

use std::path::Path;
use std::process::Command;

use super::Scene;
use super::appliance::group::{Group, GroupShape};
use super::appliance::load::{Load, LoadShape};
use super::appliance::relayd;
use super::appliance::rights::{Need, fake_time_library, has};

/// A `relayd` whose clock of the day stands as far off as a file says, read at every look; its monotonic clock is the machine's.
fn with_clock(file: &Path) -> Command {
    let mut command = relayd();
    command
        .env("LD_PRELOAD", fake_time_library().expect("it was asked for"))
        .env("FAKETIME_TIMESTAMP_FILE", file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

fn utc_ns() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

/// Goal: a clock that is set by an hour, forwards or back, under the primary or the standby, changes nothing but the times of
/// receipt, and these never go backwards, over a takeover neither. Method: the clock of one program, not the machine's.
#[test]
fn a_clock_is_set_by_an_hour() {
    if !has(&[Need::FakeTime]) {
        return;
    }
    let mut group = Group::formed(&GroupShape::default());
    let files: Vec<_> = (0..2)
        .map(|place| group.nodes[place].home.path().join("clock"))
        .collect();
    for (place, file) in files.iter().enumerate() {
        std::fs::write(file, "+0\n").unwrap();
        group.nodes[place].start_as(&mut with_clock(file)).unwrap();
    }
    group.await_in_sync();
    let load = Load::started(&group.addresses(), &LoadShape::default());
    load.await_more(100);
    let mut scene = Scene {
        group,
        load,
        network: None,
        disks: Vec::new(),
    };
    let takeovers = |scene: &Scene| -> u64 {
        (0..2)
            .map(|n| scene.group.counter(n, "group.takeovers"))
            .sum()
    };
    for offset in ["+3600\n", "-3600\n", "+0\n"] {
        let before = takeovers(&scene);
        let leader = scene.group.await_in_sync();
        for place in [leader, 1 - leader] {
            std::fs::write(&files[place], offset).unwrap();
            scene.await_flow(300);
        }
        if offset.starts_with("+3600") {
            let newest = scene.load.history.newest_delivered().unwrap();
            let ahead_s = (newest.received_ns - utc_ns()) / 1_000_000_000;
            assert!((3_500..3_700).contains(&ahead_s), "{ahead_s} s ahead");
        }
        assert_eq!(takeovers(&scene), before, "{}", scene.group.logs());
        // The other's clock is not this one's for a while.
        std::fs::write(&files[leader], "-7200\n").unwrap();
        scene.await_flow(100);
        scene.group.nodes[leader].kill();
        scene.await_flow(100);
        let mut command = with_clock(&files[leader]);
        scene.group.nodes[leader].start_as(&mut command).unwrap();
        scene.await_recovery();
    }
    scene.finish();
}
