//! Goal: the load generator tells the truth: a stall shows in all it delayed, and rates are those asked for.
//! Method: short runs of the built programs; a real relayd is stopped for a moment while it is measured.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;
use support::{Relayd, refusal, relay, relayd, text_of};

/// Options of a short run with a relay of its own.
const SHORT: [&str; 8] = [
    "--warmup",
    "0.1",
    "--idle",
    "park",
    "--unpinned",
    "--prepared",
    "64MiB",
    "--json",
];

/// Every object that a run prints.
fn bench(arguments: &[&str]) -> Vec<Value> {
    relayd();
    let mut command = Command::new(relay());
    let output = command.arg("bench").args(arguments).args(SHORT).output();
    text_of(output.expect("relay runs"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect()
}

fn signal(child: u32, name: &str) {
    let mut kill = Command::new("kill");
    let status = kill.args([format!("-{name}"), child.to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill -{name}");
}

/// All intervals of a log in one, and how many there are.
fn merged(log: &[u8]) -> (Histogram<u64>, usize) {
    let mut whole = Histogram::new(3).expect("three digits are possible");
    let mut count = 0;
    for entry in IntervalLogIterator::new(log) {
        let LogEntry::Interval(interval) = entry.expect("it is a log") else {
            continue;
        };
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(interval.encoded_histogram())
            .expect("base64");
        let found: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &bytes[..])
            .expect("a histogram");
        whole.add(&found).expect("it grows");
        count += 1;
    }
    (whole, count)
}

/// A relayd in which the bench may publish.
fn open_relayd() -> Relayd {
    Relayd::start_on(|relayd| {
        let text = fs::read_to_string(relayd.config()).expect("written");
        let text = text.replace("publish = [\"a.>\"]", "publish = [\">\"]");
        fs::write(relayd.config(), text).expect("written");
        let mut format = Command::new(self::relayd());
        let status = format
            .args(["format", "--config"])
            .arg(relayd.config())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("relayd runs").success(), "format");
    })
}

/// Returns once so many messages of the bench came.
fn wait_for_messages(watcher: &mut Child, count: usize) {
    let lines = BufReader::new(watcher.stdout.take().expect("it was piped")).lines();
    assert_eq!(lines.take(count).count(), count, "messages come");
}

/// Coordinated omission is the error of waiting with a server that stalls: one sample then tells of it. Here all that
/// was due meanwhile must.
#[test]
fn a_stall_shows_in_every_message_that_was_due_during_it() {
    const RATE: f64 = 500.0;
    let relayd = open_relayd();
    let hlog = relayd.directory.path().join("latency.hlog");
    let mut watch = relayd.command("sub", &["--topic", "bench.>", "--json"]);
    let mut watcher = watch.stdout(Stdio::piped()).spawn().expect("relay runs");
    let mut measure = relayd.command(
        "bench",
        &[
            "latency",
            "--connect",
            "--rate",
            "500",
            "--seconds",
            "3",
            "--warmup",
            "0",
            "--idle",
            "park",
            "--unpinned",
            "--json",
            "--hlog",
        ],
    );
    let measure = measure.arg(&hlog).stdout(Stdio::piped()).spawn();
    let measure = measure.expect("relay runs");
    wait_for_messages(&mut watcher, 300);
    signal(relayd.pid(), "STOP");
    let begin = Instant::now();
    // The stall itself: nothing is waited for.
    thread::sleep(Duration::from_millis(100));
    let stalled = begin.elapsed();
    signal(relayd.pid(), "CONT");
    let text = text_of(measure.wait_with_output().expect("relay ends"));
    watcher.kill().expect("it runs");
    watcher.wait().expect("it ends");

    let report: Value = serde_json::from_str(text.trim()).expect("an object");
    assert_eq!(
        (&report["lost"], &report["received"]),
        (&0.into(), &1500.into())
    );
    let (whole, intervals) = merged(&fs::read(&hlog).expect("a log"));
    assert_eq!((whole.len(), intervals), (1_500, 3));
    let stall_ms = stalled.as_secs_f64() * 1e3;
    // What was due in the first half of the stall waited for the second at least.
    let slow = whole.count_between(50_000_000, u64::MAX) as f64;
    let meant = RATE * (stall_ms - 50.0) / 1e3;
    assert!(
        slow >= 0.8 * meant,
        "{slow} of {meant} over 50 ms: {report}"
    );
    let max_us = report["max_us"].as_f64().expect("a number");
    let p99_us = report["p99_us"].as_f64().expect("a number");
    assert!(max_us >= stall_ms * 900.0, "{report}");
    // 50 of 1,500 messages waited, so the hundredth part begins within them.
    assert!(p99_us >= 50_000.0, "{report}");
}

#[test]
fn every_rate_and_pacing_sends_what_was_asked_for() {
    let objects = bench(&[
        "latency",
        "--rate",
        "1000,500",
        "--size",
        "64",
        "--seconds",
        "1",
    ]);
    assert_eq!(objects.len(), 2);
    let mut all = objects;
    for pacing in ["poisson", "bursts:20"] {
        let more = [
            "--rate",
            "500",
            "--seconds",
            "1",
            "--topics",
            "3",
            "--repeat",
            "2",
        ];
        let mut objects = bench(&[&["latency", "--pacing", pacing][..], &more].concat());
        let summary = objects.pop().expect("an object");
        assert_eq!((objects.len(), &summary["runs"]), (2, &2.into()));
        for key in ["p50_us", "p99_us", "p999_us"] {
            let of = |run: usize| objects[run][key].as_f64().expect("a number");
            let value = |name: &str| summary[key][name].as_f64().expect("a number");
            let is_between = value("least") <= value("median") && value("median") <= value("most");
            assert!(is_between && value("least") > 0.0, "{key} in {summary}");
            assert_eq!(value("least"), of(0).min(of(1)));
        }
        all.append(&mut objects);
    }
    for report in all {
        assert_eq!(
            (&report["lost"], &report["offered"]),
            (&0.into(), &report["received"])
        );
        let (rate, achieved) = (report["rate"].as_f64(), report["achieved"].as_f64());
        let share = achieved.expect("a number") / rate.expect("a number");
        assert!((0.7..1.3).contains(&share), "{report}");
    }
}

#[test]
fn a_sweep_that_finds_nothing_ends_and_says_why() {
    let mut objects = bench(&[
        "throughput",
        "--sweep",
        "--p99-under",
        "0.001",
        "--rate",
        "4",
        "--seconds",
        "0.5",
    ]);
    let knee = objects.pop().expect("an object");
    assert!(knee["knee_rate"].is_null(), "{knee}");
    assert_eq!(
        (&knee["failed_rate"], &knee["steps"]),
        (&1.0.into(), &3.into())
    );
    let said = knee["stopped"].as_str().expect("text");
    assert!(said.contains("one message"), "{said}");
    let steps: Vec<_> = objects
        .iter()
        .filter(|step| step["holds"] == false)
        .collect();
    assert_eq!(steps.len(), 3);
    assert!(steps.iter().all(|step| step["why"].is_string()));
}

#[test]
fn loads_that_make_no_sense_are_refused() {
    for (arguments, reason) in [
        (&["latency", "--rate", "500,0"][..], "0.1 to 1e8"),
        (&["latency", "--size", "256,3"], "16 to"),
        (&["latency", "--sweep"], "--p99-under"),
        (&["latency", "--p99-under", "5"], "--sweep"),
        (&["latency", "--pacing", "bursts:0"], "a burst is"),
        (&["latency", "--pacing", "often"], "none of"),
        (
            &["latency", "--pacing", "recorded:/nowhere.pcap"],
            "/nowhere",
        ),
        (&["latency", "--topics", "0"], "--topics takes"),
        (&["latency", "--repeat", "0"], "--repeat takes"),
        (
            &["latency", "--hlog", "f", "--seconds", "5000"],
            "--hlog keeps",
        ),
        (&["throughput", "--pacing", "poisson"], "give --rate"),
        (&["throughput", "--sweep", "--p99-under", "5"], "--rate"),
        (
            &[
                "latency",
                "--sweep",
                "--p99-under",
                "500000",
                "--seconds",
                "4",
            ],
            "--seconds 50",
        ),
        (
            &["latency", "--sweep", "--p99-under", "5", "--rate", "5,6"],
            "begins at a rate",
        ),
    ] {
        let mut command = Command::new(relay());
        let (status, said) = refusal(command.arg("bench").args(arguments));
        assert!(status == 2 || status == 1, "{arguments:?}: {status} {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}
