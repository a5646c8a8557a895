//! Goal: a floor loses, repeats and reorders nothing, in every form it has, and says plainly what
//! stops it. Method: small real runs over loopback and the build's own disk; no thread is pinned
//! and no latency is judged, so a busy machine makes them slow but not wrong.

use std::path::Path;

use relay_floor::{
    Due, FloorError, HopOptions, Idle, Options, Policy, Report, WriteMode, WriteOptions, hop_only,
    plain_ping_pong, run, write_only,
};
use tempfile::TempDir;

/// A directory on the disk the build lives on: the system's own may be in memory.
fn disk_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the data files")
}

fn small(dir: &Path) -> Options {
    Options {
        dir: dir.to_path_buf(),
        rate: 2_000.0,
        seconds: 0.2,
        warmup: 0.05,
        write_mode: WriteMode::Dsync,
        file_mib: 8,
        server_cpu: None,
        client_cpu: None,
        standby_cpu: None,
        drain: 60.0,
        ..Options::default()
    }
}

fn run_whole(options: &Options) -> Report {
    let report = run(options, &mut |_| true).expect("a floor");
    assert_eq!(report.offered, 400);
    assert_eq!(report.received, report.offered);
    assert_eq!(report.lost, 0);
    assert_eq!(report.duplicated, 0);
    assert_eq!(report.out_of_order, 0);
    assert_eq!(report.latency.len(), report.offered);
    assert!(report.blocks > 0, "messages travel in blocks");
    report
}

#[test]
fn one_node_delivers_every_message_in_every_write_mode() {
    let dir = disk_dir();
    for write_mode in [WriteMode::Dsync, WriteMode::Covering, WriteMode::Auto] {
        let report = run_whole(&Options {
            write_mode,
            ..small(dir.path())
        });
        let used = report.write_mode;
        assert!(
            write_mode == WriteMode::Auto || used == write_mode,
            "{used:?}"
        );
        assert_ne!(used, WriteMode::Auto);
        assert_eq!(report.syncs > 0, used == WriteMode::Covering);
        assert!(!report.received_to_written.is_empty());
        assert!(!report.written_to_sent.is_empty());
    }
}

#[test]
fn two_nodes_deliver_every_message_with_every_idle_strategy() {
    let dir = disk_dir();
    for idle in [Idle::Yield, Idle::Park] {
        let options = Options {
            nodes: 2,
            server_idle: idle,
            client_idle: idle,
            ..small(dir.path())
        };
        let report = run_whole(&options);
        assert!(!report.received_to_held.is_empty());
        assert!(!report.written_to_sent.is_empty());
    }
}

/// The writes follow: they happen, and no message's way is timed by them.
#[test]
fn mirrored_releases_from_memory_and_writes_all_the_same() {
    let dir = disk_dir();
    for write_mode in [WriteMode::Dsync, WriteMode::Covering, WriteMode::Auto] {
        let report = run_whole(&Options {
            nodes: 2,
            policy: Policy::Mirrored,
            write_mode,
            ..small(dir.path())
        });
        assert!(!report.received_to_written.is_empty());
        assert!(!report.received_to_held.is_empty());
        assert!(report.written_to_sent.is_empty());
    }
}

/// One block in flight and messages that do not divide a page: everything is packed and waits.
#[test]
fn a_depth_of_one_packs_what_waits() {
    let dir = disk_dir();
    let options = Options {
        depth: 1,
        size: 1_000,
        rate: 20_000.0,
        seconds: 0.02,
        warmup: 0.0025,
        nodes: 2,
        ..small(dir.path())
    };
    run_whole(&options);
}

/// Bursts of 40 every 20 ms are the same rate; what is due together waits for what was due with it.
#[test]
fn messages_are_due_when_they_are_told_to_be() {
    let dir = disk_dir();
    let options = Options {
        due: Some(Due::new(|index| index / 40 * 20_000_000)),
        by_second: true,
        seconds: 1.1,
        warmup: 0.1,
        rate: 2_000.0,
        ..small(dir.path())
    };
    let report = run(&options, &mut |_| true).expect("a floor");
    assert_eq!((report.received, report.lost), (2_200, 0));
    let counts: Vec<_> = report.by_second.iter().map(|it| it.len()).collect();
    assert_eq!(counts, [2_000, 200]);
    // 55 bursts: the last one is done long before the end, and the time up to there is part of the run.
    let seconds = 1.1_f64.max(54.0 * 0.02 + report.late_ns as f64 / 1e9);
    assert!(
        (report.achieved_rate * seconds / 2_200.0 - 1.0).abs() < 0.001,
        "{}",
        report.achieved_rate
    );
    // All at once, as the beginning of a longer burst: what comes of the rate is no more than was asked for.
    let at_once = run_whole(&Options {
        due: Some(Due::new(|_| 0)),
        warmup: 0.0,
        ..small(dir.path())
    });
    assert!(
        at_once.achieved_rate <= 2_000.1,
        "{}",
        at_once.achieved_rate
    );
    let even = run_whole(&small(dir.path()));
    assert!(even.by_second.is_empty());
}

#[test]
fn progress_ends_at_one_and_the_files_are_removed() {
    let dir = disk_dir();
    let mut last = 0.0;
    let floor = run(&small(dir.path()), &mut |fraction| {
        last = fraction;
        true
    });
    floor.expect("a floor");
    assert_eq!(last, 1.0);
    assert_eq!(
        std::fs::read_dir(dir.path())
            .expect("the directory")
            .count(),
        0
    );
}

/// Goal: what was due and never sent is told apart from what was lost. Method: far more is due in a second than any machine moves in three.
#[test]
fn more_than_goes_through_is_not_lost() {
    let dir = disk_dir();
    let options = Options {
        rate: 1e9,
        seconds: 0.9,
        warmup: 0.0,
        drain: 2.0,
        ..small(dir.path())
    };
    let report = run(&options, &mut |_| true).expect("a floor");
    assert!(report.received > 0 && report.unsent > 0);
    assert_eq!(report.lost, 0);
    assert_eq!(report.received + report.unsent, report.offered);
    assert!(report.achieved_rate < report.offered_rate / 2.0);
}

#[test]
fn lone_writes_and_hops_are_measured() {
    let dir = disk_dir();
    let write = WriteOptions {
        dir: dir.path().to_path_buf(),
        write_mode: WriteMode::Auto,
        cpu: None,
        seconds: 0.1,
        warmup: 0.0,
        file_mib: 8,
        ..WriteOptions::default()
    };
    assert!(!write_only(&write).expect("writes").latency.is_empty());
    let hop = HopOptions {
        seconds: 0.1,
        warmup: 0.0,
        server_cpu: None,
        client_cpu: None,
        idle: Idle::Park,
        ..HopOptions::default()
    };
    for idle in [Idle::Park, Idle::Yield, Idle::Spin] {
        let hop = HopOptions {
            idle,
            ..hop.clone()
        };
        assert!(!hop_only(&hop).expect("hops through the ring").is_empty());
        assert!(!plain_ping_pong(&hop).expect("plain hops").is_empty());
    }
}

#[test]
fn a_missing_processor_is_named_and_nothing_hangs() {
    let dir = disk_dir();
    let options = Options {
        server_cpu: Some(100_000),
        ..small(dir.path())
    };
    match run(&options, &mut |_| true) {
        Err(FloorError::Pin { cpu, .. }) => assert_eq!(cpu, 100_000),
        other => panic!("{:?}", other.map(|report| report.received)),
    }
}
