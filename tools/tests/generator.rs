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

/// Options of a short run.
const SHORT: [&str; 6] = ["--warmup", "0.1", "--idle", "park", "--unpinned", "--json"];

/// Every object that a run prints.
fn bench(arguments: &[&str]) -> Vec<Value> {
    relayd();
    let mut command = Command::new(relay());
    command.arg("bench").args(arguments).args(SHORT);
    if arguments[0] != "floor" {
        command.args(["--prepared", "64MiB"]);
    }
    let output = command.output();
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
    for (bench, count) in [
        ("latency", "received"),
        ("throughput", "received"),
        ("fan-out", "deliveries"),
    ] {
        stall_during(bench, count);
    }
}

/// Goal: what was due and never sent is told apart from what was lost, and the run fails by it. Method: the relay stands still until the
/// generator has given up on what its window has no room for, and then goes on.
#[test]
fn more_than_goes_through_is_not_lost() {
    let benches = [("latency", "received"), ("fan-out", "deliveries")];
    let each = benches.map(|(bench, count)| thread::spawn(move || starve(bench, count)));
    for bench in each {
        bench.join().expect("as it is to be");
    }
}

/// Starves `bench`, whose deliveries are `count`.
fn starve(bench: &str, count: &str) {
    let relayd = open_relayd();
    let mut watch = relayd.command("sub", &["--topic", ">", "--json"]);
    let mut watcher = watch.stdout(Stdio::piped()).spawn().expect("relay runs");
    // 66 MB, and a window of 8.
    let mut measure = relayd.command("bench", &[bench, "--connect", "--rate", "2000"]);
    measure.args(["--publishers", "1", "--subscribers", "1", "--unpinned"]);
    measure.args(["--seconds", "2", "--warmup", "0", "--size", "16384"]);
    measure.args(["--idle", "park", "--json"]);
    let measure = measure.stdout(Stdio::piped()).stderr(Stdio::piped());
    let measure = measure.spawn().expect("relay runs");
    wait_for_messages(&mut watcher, 100);
    watcher.kill().expect("it runs");
    watcher.wait().expect("it ends");
    signal(relayd.pid(), "STOP");
    // The standstill itself: two seconds until the last message is due, five until it is given up, and one more.
    thread::sleep(Duration::from_secs(8));
    signal(relayd.pid(), "CONT");
    let output = measure.wait_with_output().expect("relay ends");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{bench}: {said}");
    assert!(said.contains("could not be sent"), "{said}");
    let text = String::from_utf8(output.stdout).expect("text");
    let report: Value = serde_json::from_str(text.trim()).expect("an object");
    let of = |key: &str| report[key].as_u64().expect("a count");
    assert_eq!((of("lost"), of("offered")), (0, 4_000), "{report}");
    assert!(of(count) > 100 && of("unsent") > 100, "{report}");
    assert_eq!(of(count) + of("unsent"), 4_000, "{report}");
}

/// Stalls a relay while `bench` measures it, and looks for what that did to the messages, of which `count` are those that came.
fn stall_during(bench: &str, count: &str) {
    const RATE: f64 = 500.0;
    let relayd = open_relayd();
    let hlog = relayd.directory.path().join("bench.hlog");
    let mut watch = relayd.command("sub", &["--topic", ">", "--json"]);
    let mut watcher = watch.stdout(Stdio::piped()).spawn().expect("relay runs");
    let mut measure = relayd.command("bench", &[bench, "--connect", "--rate", "500"]);
    measure.args(["--publishers", "1", "--subscribers", "1", "--unpinned"]);
    measure.args(["--seconds", "3", "--warmup", "0", "--idle", "park"]);
    measure.args(["--json", "--hlog"]).arg(&hlog);
    let measure = measure.stdout(Stdio::piped()).spawn();
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
        (&report["lost"], &report[count]),
        (&0.into(), &1500.into()),
        "{report}"
    );
    let (whole, intervals) = merged(&fs::read(&hlog).expect("a log"));
    assert_eq!((whole.len(), intervals), (1_500, 3), "{bench}");
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
    // One acknowledgement covers many of them then, and each waited for it.
    if let Some(ack_p99_us) = report["ack_p99_us"].as_f64() {
        assert!(ack_p99_us >= 50_000.0, "{report}");
    }
    assert_eq!(
        report["ack_p99_us"].is_null(),
        bench == "throughput",
        "{report}"
    );
}

/// What the machine does to the generator, the generator tells apart from what the relay does.
#[test]
fn a_generator_that_stood_still_says_so() {
    let relayd = open_relayd();
    let mut watch = relayd.command("sub", &["--topic", ">", "--json"]);
    let mut watcher = watch.stdout(Stdio::piped()).spawn().expect("relay runs");
    let mut measure = relayd.command("bench", &["latency", "--connect", "--rate", "500"]);
    measure.args(["--seconds", "3", "--warmup", "0", "--idle", "park"]);
    measure.args(["--unpinned", "--json"]);
    let measure = measure.stdout(Stdio::piped()).spawn();
    let measure = measure.expect("relay runs");
    wait_for_messages(&mut watcher, 300);
    signal(measure.id(), "STOP");
    let begin = Instant::now();
    // The stall itself: nothing is waited for.
    thread::sleep(Duration::from_millis(100));
    let stalled_ms = begin.elapsed().as_secs_f64() * 1e3;
    signal(measure.id(), "CONT");
    let text = text_of(measure.wait_with_output().expect("relay ends"));
    watcher.kill().expect("it runs");
    watcher.wait().expect("it ends");

    let report: Value = serde_json::from_str(text.trim()).expect("an object");
    let number = |key: &str| report[key].as_f64().expect("a number");
    assert_eq!(report["lost"], 0, "{report}");
    assert!(number("hiccups") >= 1.0, "{report}");
    assert!(number("hiccup_longest_ms") >= 0.9 * stalled_ms, "{report}");
    assert!(number("hiccups_ms") >= number("hiccup_longest_ms"));
    assert!(number("lateness_p99_us") >= 50_000.0, "{report}");
}

/// Asserts that the summary is that of these two runs.
fn assert_spread(summary: &Value, runs: &[Value]) {
    assert_eq!((runs.len(), &summary["runs"]), (2, &2.into()), "{summary}");
    for key in ["p50_us", "p99_us", "p999_us"] {
        let of = |run: usize| runs[run][key].as_f64().expect("a number");
        let value = |name: &str| summary[key][name].as_f64().expect("a number");
        let is_between = value("least") <= value("median") && value("median") <= value("most");
        assert!(is_between && value("least") > 0.0, "{key} in {summary}");
        assert_eq!(value("least"), of(0).min(of(1)));
        assert_eq!(value("most"), of(0).max(of(1)));
    }
}

/// Two rates, twice each, in bursts, with every file that can be written: what fan-out and the floor share with latency.
#[test]
fn many_clients_and_the_floor_take_lists_repeats_pacings_and_logs() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    for (what, clients) in [("fan-out", &["--subscribers", "3"][..]), ("floor", &[])] {
        let paths = ["hlog", "hgrm", "html"].map(|end| at(&format!("{what}.{end}")));
        let [hlog, hgrm, page] = paths.each_ref().map(|path| path.to_str().expect("text"));
        let series = [
            "--rate",
            "300,600",
            "--size",
            "64",
            "--seconds",
            "1",
            "--repeat",
            "2",
            "--pacing",
            "bursts:20",
        ];
        let files = ["--hlog", hlog, "--hgrm", hgrm, "--report", page];
        let objects = bench(&[&[what], clients, &series, &files].concat());
        let [first, second, slow, third, fourth, fast] = objects.as_slice() else {
            panic!("two runs and what they have in common, twice: {objects:?}")
        };
        assert_spread(slow, &[first.clone(), second.clone()]);
        assert_spread(fast, &[third.clone(), fourth.clone()]);
        assert_eq!(
            (&slow["rate"], &fast["rate"]),
            (&300.0.into(), &600.0.into())
        );
        for (number, run) in (1..).zip([first, second, third, fourth]) {
            let name = run["name"].as_str().expect("text");
            assert!(name.ends_with("64 bytes, bursts:20"), "{name}");
            assert_eq!((&run["what"], &run["lost"]), (&what.into(), &0.into()));
            let offered = run["offered"].as_u64().expect("a count");
            assert_eq!(Some(offered as f64), run["rate"].as_f64());
            let each = if what == "floor" { 1 } else { 3 };
            let text = fs::read(at(&format!("{what}.hlog.{number}"))).expect("a log");
            let (whole, intervals) = merged(&text);
            assert_eq!((whole.len(), intervals), (each * offered, 1), "{run}");
            let text = fs::read_to_string(at(&format!("{what}.hgrm.{number}")));
            assert!(text.expect("written").contains("Percentile"));
        }
        let text = fs::read_to_string(page).expect("a page");
        assert_eq!(text.matches(&format!("\"what\":\"{what}\"")).count(), 4);
    }
}

#[test]
fn parts_of_the_floor_are_repeated() {
    for (part, size) in [("--hop-only", 256), ("--write-only", 4096)] {
        let objects = bench(&["floor", part, "--repeat", "2", "--seconds", "0.2"]);
        let [runs @ .., summary] = objects.as_slice() else {
            panic!("nothing was printed")
        };
        assert_spread(summary, runs);
        assert_eq!(summary["size"], size);
    }
}

/// What the page takes one by one, it takes of fan-out too.
#[test]
fn results_of_many_clients_have_a_place_on_the_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let load = ["fan-out", "--subscribers", "2", "--seconds", "0.5"];
    let [run] = &bench(&load)[..] else {
        panic!("one run prints one object")
    };
    let achieved = run["achieved"].as_f64().expect("a number");
    assert!((50.0..650.0).contains(&achieved), "{run}");
    assert!(run["over_time"].as_array().is_some_and(|it| it.len() > 3));
    let results = directory.path().join("runs.jsonl");
    fs::write(&results, format!("{run}\n")).expect("written");
    let mut report = Command::new(relay());
    report.args(["bench", "report", "--output"]);
    report.arg(directory.path().join("page.html")).arg(&results);
    let said = text_of(report.output().expect("relay runs"));
    assert!(said.contains("1 results"), "{said}");
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
        let objects = bench(&[&["latency", "--pacing", pacing][..], &more].concat());
        let [runs @ .., summary] = objects.as_slice() else {
            panic!("nothing was printed")
        };
        assert_spread(summary, runs);
        all.extend_from_slice(runs);
    }
    for report in all {
        // How long what is due in a second takes from its first to its last message: bursts leave out a pause, and these gaps
        // at random are the same every time.
        let (least, most) = match report["pacing"].as_str() {
            Some("steady") => (0.99, 1.01),
            Some("bursts:20") => (0.94, 1.01),
            pacing => {
                assert_eq!(pacing, Some("poisson"), "{report}");
                (0.85, 1.15)
            }
        };
        assert_eq!(
            (&report["lost"], &report["offered"]),
            (&0.into(), &report["received"])
        );
        let number = |key: &str| report[key].as_f64().expect("a number");
        let seconds = number("rate") / number("achieved");
        // A disk that stalls delays the last message by what it stalled, which is no fault of the pacing.
        let longest = most + number("max_us") / 1e6;
        assert!((least..longest).contains(&seconds), "{report}");
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
        (&["latency", "--size", "65537"], "16 to"),
        (&["latency", "--connect", "--mode", "split"], "--mode"),
        (&["throughput", "--window", "2GiB"], "--window takes"),
        (&["throughput", "--window", "16"], "--window takes"),
        (&["failover", "--after", "61"], "--after takes"),
        (&["floor", "--hop-only", "--nodes", "2"], "--hop-only"),
        (&["floor", "--size", "7"], "8 to"),
        (&["floor", "--write-only", "--size", "64"], "--write-only"),
        (
            &["floor", "--hop-only", "--pacing", "poisson"],
            "--hop-only",
        ),
        (&["fan-out", "--rate", "500,0"], "0.1 to 1e8"),
        (&["fan-out", "--topics", "0"], "--topics takes"),
        (&["fan-out", "--pacing", "often"], "none of"),
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
