//! Goal: `bench` and `demo` start what they need, measure it, and print the keys that scripts rely on.
//! Method: short runs of the built programs; values are only checked for being there and for nothing lost.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{last_object, refusal, relay, relayd, text_of};

const LATENCY_KEYS: [&str; 10] = [
    "p50_us",
    "p90_us",
    "p99_us",
    "p999_us",
    "max_us",
    "offered",
    "achieved",
    "received",
    "lost",
    "duplicated",
];

fn bench(arguments: &[&str]) -> Value {
    relayd();
    let output = Command::new(relay())
        .arg("bench")
        .args(arguments)
        .arg("--json")
        .output();
    last_object(&text_of(output.expect("relay runs")))
}

/// The lines of several results, in the order they were printed, and `--hgrm`, `--hlog` and `--report` into a directory.
fn bench_all(directory: &Path, arguments: &[&str], files: &[&str]) -> Vec<Value> {
    relayd();
    let mut command = Command::new(relay());
    command.arg("bench").args(arguments).arg("--json");
    for file in files {
        command.arg(format!("--{file}"));
        command.arg(directory.join(file));
    }
    let printed = text_of(command.output().expect("relay runs"));
    let object = |line: &str| serde_json::from_str(line).expect("JSON");
    printed.lines().map(object).collect()
}

/// Asserts that the page of `--report` shows the results, and that `relay bench report` makes one of their lines too.
fn assert_page(directory: &Path, results: &[Value]) {
    let lines: String = results.iter().map(|result| format!("{result}\n")).collect();
    fs::write(directory.join("runs.jsonl"), lines).expect("written");
    let mut again = Command::new(relay());
    again.args(["bench", "report", "--output"]);
    again.args([directory.join("again.html"), directory.join("runs.jsonl")]);
    let said = text_of(again.output().expect("relay runs"));
    assert!(said.starts_with(&format!("{} results", results.len())));
    for page in ["report", "again.html"] {
        let page = fs::read_to_string(directory.join(page)).expect("written");
        for result in results {
            let name = format!("\"name\":{}", result["name"]);
            assert!(page.contains(&name), "{name}");
        }
    }
}

/// How many values a distribution in HdrHistogram's percentile format holds.
fn counted(hgrm: &Path) -> u64 {
    let text = fs::read_to_string(hgrm).expect("written");
    let (_, count) = text.split_once("Total count    =").expect("the foot");
    let count = count.split(']').next().expect("a part").trim();
    count.parse().expect("a number")
}

fn number(value: &Value) -> f64 {
    let number = value.as_f64();
    number.unwrap_or_else(|| panic!("{value} is no number"))
}

fn assert_keys(report: &Value, keys: &[&str]) {
    for key in keys {
        assert!(report[key].is_number(), "{key} in {report}");
    }
}

#[test]
fn latency_is_measured_from_the_intended_send() {
    let directory = tempfile::tempdir().expect("a directory");
    let hgrm = directory.path().join("latency.hgrm");
    let report = bench(&[
        "latency",
        "--rate",
        "500",
        "--seconds",
        "1",
        "--warmup",
        "0.2",
        "--publishers",
        "2",
        "--subscribers",
        "2",
        "--idle",
        "park",
        "--unpinned",
        "--prepared",
        "64MiB",
        "--dir",
        directory.path().to_str().expect("text"),
        "--hgrm",
        hgrm.to_str().expect("text"),
    ]);
    assert_keys(&report, &LATENCY_KEYS);
    assert_eq!(
        (&report["offered"], &report["received"]),
        (&500.into(), &500.into())
    );
    assert_eq!(
        (&report["lost"], &report["duplicated"]),
        (&0.into(), &0.into())
    );
    assert_keys(&report, &["ack_p50_us", "ack_p99_us"]);
    assert!(!report["hops"].as_object().expect("an object").is_empty());
    assert!(
        fs::read_to_string(&hgrm)
            .expect("written")
            .contains("Percentile")
    );
    let left = fs::read_dir(directory.path()).expect("a directory").count();
    assert_eq!(left, 1, "only the histogram is left behind");
}

#[test]
fn throughput_is_counted_at_the_subscriber_and_the_journal_compared() {
    let report = bench(&[
        "throughput",
        "--seconds",
        "1",
        "--warmup",
        "0.2",
        "--rate",
        "20000",
        "--idle",
        "park",
        "--unpinned",
        "--prepared",
        "64MiB",
        "--verify",
    ]);
    assert_keys(
        &report,
        &["msgs_per_s", "mb_per_s", "lost", "duplicated", "p99_us"],
    );
    assert_eq!(report["verified"], true);
    assert_eq!(report["sent"], report["received"]);
}

#[test]
fn many_clients_are_counted_one_by_one_and_slow_ones_apart() {
    let report = bench(&[
        "fan-out",
        "--subscribers",
        "20",
        "--slow",
        "2",
        "--publishers",
        "70",
        "--topics",
        "40",
        "--patterns",
        "3",
        "--matching",
        "2",
        "--rate",
        "500",
        "--seconds",
        "1",
        "--warmup",
        "0.2",
        "--idle",
        "park",
        "--unpinned",
        "--prepared",
        "64MiB",
    ]);
    assert_keys(&report, &LATENCY_KEYS[..5]);
    assert_keys(&report, &["ack_p99_us", "cpu_share", "resident_peak"]);
    assert_eq!(
        (&report["lost"], &report["repeated"]),
        (&0.into(), &0.into())
    );
    // 18 fast subscribers of two topics of 40 each.
    let deliveries = report["deliveries"].as_u64().expect("a count");
    assert!((300..600).contains(&deliveries), "{report}");
    let wanted = report["slow_wanted"].as_u64().expect("a count");
    let received = report["slow_received"].as_u64().expect("a count");
    assert!(wanted > 0 && received < wanted, "{report}");
}

#[test]
fn streams_share_the_rate_and_each_serves_its_own_clients() {
    let report = bench(&[
        "fan-out",
        "--streams",
        "2",
        "--subscribers",
        "3",
        "--publishers",
        "2",
        "--rate",
        "400",
        "--seconds",
        "1",
        "--warmup",
        "0.2",
        "--idle",
        "park",
        "--unpinned",
        "--prepared",
        "32MiB",
    ]);
    assert_keys(&report, &["p99_us", "ack_p99_us", "resident_peak"]);
    assert_eq!(
        (&report["lost"], &report["repeated"]),
        (&0.into(), &0.into())
    );
    // 200 messages of each stream to three subscribers.
    assert_eq!(report["stream_deliveries"], json!([600, 600]), "{report}");
    assert_eq!(
        (&report["streams"], &report["deliveries"]),
        (&2.into(), &1200.into())
    );
    // The worst stream is as bad as all together, or worse.
    let p99 = |key: &str| report[key].as_f64().expect("a number");
    assert!(p99("stream_p99_us_max") >= p99("p99_us"), "{report}");
}

/// The rate is shared, so each stream has half of the messages, and its own subscribers have all of them once.
#[test]
fn streams_are_counted_and_judged_each_by_itself() {
    let common = [
        "--streams",
        "2",
        "--publishers",
        "2",
        "--subscribers",
        "2",
        "--seconds",
        "1",
        "--warmup",
        "0.2",
        "--idle",
        "park",
        "--unpinned",
        "--prepared",
        "32MiB",
        "--verify",
    ];
    let latency = bench(&[&["latency", "--rate", "400"], &common[..]].concat());
    let most = bench(&[&["throughput", "--rate", "4000"], &common[..]].concat());
    for report in [&latency, &most] {
        assert_eq!(report["verified"], true, "{report}");
        let streams = report["by_stream"].as_array().expect("a list");
        assert_eq!((streams.len(), &report["streams"]), (2, &2.into()));
        for stream in streams {
            for key in ["lost", "duplicated", "disordered"] {
                assert_eq!(stream[key], 0, "{key} in {report}");
            }
            assert_keys(stream, &["p50_us", "p99_us"]);
        }
    }
    let received = |report: &Value, stream: usize| {
        let found = report["by_stream"][stream]["received"].as_u64();
        found.expect("a count")
    };
    assert_eq!((received(&latency, 0), received(&latency, 1)), (200, 200));
    assert_eq!(latency["received"], 400);
    assert!(!latency["hops"].as_object().expect("an object").is_empty());
    assert_eq!(most["sent"], most["received"]);
    let (one, other) = (received(&most, 0), received(&most, 1));
    assert!(
        3 * one.min(other) > one.max(other),
        "both take turns: {most}"
    );
}

#[test]
fn who_catches_up_is_measured_and_the_flow_beside_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = ["hgrm", "hlog", "report"];
    let at = |name: &str| directory.path().join(name);
    let common = ["catch-up", "--seconds", "0.5"];
    let of_subscriber = [
        &common[..],
        &["--behind", "16MiB,32MiB", "--repeat", "2"],
        &["--pacing", "poisson", "--seed", "3"],
    ];
    let lines = bench_all(directory.path(), &of_subscriber.concat(), &files);
    // Twice each, and what both were.
    assert_eq!(lines.len(), 6);
    for (three, behind) in lines.chunks(3).zip([16 << 20, 32 << 20]) {
        let (runs, summary) = (&three[..2], &three[2]);
        for run in runs {
            assert_caught_up(run, "subscriber", behind);
            assert_eq!(run["pacing"], "poisson");
        }
        assert_eq!(
            (&summary["runs"], &summary["behind"]),
            (&2.into(), &behind.into())
        );
        for key in ["seconds", "bytes_per_s", "p99_ratio"] {
            let both = [&runs[0], &runs[1]].map(|run| number(&run[key]));
            let spread = &summary[key];
            assert_eq!(number(&spread["least"]), both[0].min(both[1]));
            assert_eq!(number(&spread["most"]), both[0].max(both[1]));
            let middle = number(&spread["median"]);
            assert!(both[0].min(both[1]) <= middle && middle <= both[0].max(both[1]));
        }
    }
    let results: Vec<_> = [0, 1, 3, 4].map(|at| lines[at].clone()).into();
    assert_eq!(results[0]["name"], results[1]["name"]);
    assert_ne!(results[0]["name"], results[2]["name"]);
    assert_page(directory.path(), &results);
    for result in 1..=4 {
        assert!(counted(&at(&format!("hgrm.{result}"))) > 0);
        let log = fs::read_to_string(at(&format!("hlog.{result}"))).expect("written");
        // More than a second before, and the time of catching up.
        assert!(log.lines().filter(|line| line.contains("HISTF")).count() >= 2);
    }
    assert!(!at("hgrm.5").exists() && !at("hlog").exists());

    let of_node = [&common[..], &["--node", "--behind", "8MiB"]].concat();
    let flow = ["--rate", "600", "--size", "64"];
    let lines = bench_all(directory.path(), &[&of_node[..], &flow].concat(), &[]);
    let line = &lines[0];
    assert_eq!((lines.len(), number(&line["rate"])), (1, 600.0));
    assert_caught_up(line, "node", 8 << 20);
    assert_keys(&line["alone"], &["p50_us", "p99_us"]);
    let name = line["name"].as_str().expect("a name");
    assert!(name.ends_with("a node 8 MiB behind, 64 bytes"), "{name}");
}

fn assert_caught_up(report: &Value, who: &str, behind: u64) {
    assert_eq!(
        (&report["what"], &report["who"]),
        (&"catch-up".into(), &who.into())
    );
    assert_keys(report, &["seconds", "bytes_per_s", "p99_ratio"]);
    assert!(report["meanwhile_count"].as_u64() > Some(0), "{report}");
    assert!(report["behind_bytes"].as_u64() >= Some(behind), "{report}");
    for key in ["p50_us", "p99_us", "max_us"] {
        assert_eq!(report[key], report["meanwhile"][key], "{report}");
    }
    // A page would take these for what the flow achieved.
    assert!(
        report
            .get("msgs_per_s")
            .or(report.get("achieved"))
            .is_none()
    );
    let curve = report["percentiles"].as_array().expect("a curve");
    assert_eq!(
        curve.last(),
        Some(&json!([100.0, report["max_us"]])),
        "{report}"
    );
    for key in ["lost", "duplicated", "disordered"] {
        assert_eq!(report[key], 0, "{key} in {report}");
    }
    assert_eq!(report["verified"], true);
}

#[test]
fn a_restart_is_measured_on_a_journal_that_was_laid_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = ["restart", "--length", "96MiB,128MiB", "--runs", "3"];
    let lines = bench_all(directory.path(), &arguments, &["hgrm", "report"]);
    assert_eq!(lines.len(), 2);
    for ((place, line), mib) in (1..).zip(&lines).zip([96, 128]) {
        assert_eq!(
            (&line["name"], &line["what"]),
            (&format!("restart {mib} MiB").into(), &"restart".into())
        );
        assert!(line["length_bytes"].as_u64() >= Some(mib << 20), "{line}");
        assert_keys(line, &["seek_ms", "blocks"]);
        assert_keys(&line["append"], &["p50_us", "p99_us"]);
        assert_eq!(line["topics"], 100_000);
        let outages = line["outages_ms"].as_array().expect("a list");
        let mut seconds: Vec<_> = outages.iter().map(|ms| number(ms) / 1e3).collect();
        seconds.sort_by(f64::total_cmp);
        assert_eq!(seconds.len(), 3);
        for (second, key) in seconds.iter().zip(["min", "median", "max"]) {
            let found = number(&line[format!("ready_seconds_{key}")]);
            assert!((found - second).abs() < 1e-6, "{key} in {line}");
        }
        let hgrm = directory.path().join(format!("hgrm.{place}"));
        assert_eq!(counted(&hgrm), 3);
    }
    assert_page(directory.path(), &lines);
}

/// The short form of what is measured with groups: what starts, finds itself together, and holds the same log afterwards.
#[test]
fn groups_are_measured_and_their_journals_compared() {
    for (nodes, policy) in [("2", "durable"), ("2", "mirrored"), ("3", "durable")] {
        let report = bench(&[
            "latency",
            "--nodes",
            nodes,
            "--policy",
            policy,
            "--rate",
            "500",
            "--seconds",
            "1",
            "--warmup",
            "0.2",
            "--idle",
            "park",
            "--unpinned",
            "--prepared",
            "64MiB",
            "--verify",
        ]);
        assert_keys(&report, &LATENCY_KEYS);
        assert_eq!(report["received"], 500, "{report}");
        assert_eq!(
            (&report["lost"], &report["verified"]),
            (&0.into(), &true.into())
        );
        assert!(report["identical_bytes"].as_u64() > Some(0), "{report}");
        assert_eq!(report["settings"]["policy"], policy);
    }
    let report = bench(&[
        "throughput",
        "--nodes",
        "2",
        "--seconds",
        "1",
        "--warmup",
        "0.2",
        "--rate",
        "5000",
        "--idle",
        "park",
        "--unpinned",
        "--prepared",
        "64MiB",
        "--verify",
    ]);
    assert_eq!(report["verified"], true, "{report}");
    assert_eq!(report["sent"], report["received"]);
}

/// Every way of losing a primary, twice each, so that either node was struck; what the times are the machine decides.
#[test]
fn lost_primaries_cost_time_and_no_message() {
    for how in ["kill", "freeze", "cut"] {
        let report = bench(&["failover", "--runs", "2", "--how", how, "--rate", "500"]);
        assert_keys(
            &report,
            &[
                "runs",
                "outage_ms_p50",
                "outage_ms_p99",
                "outage_ms_max",
                "lost",
                "duplicated",
            ],
        );
        assert_eq!((&report["how"], &report["runs"]), (&how.into(), &2.into()));
        assert_eq!(
            (&report["lost"], &report["duplicated"]),
            (&0.into(), &0.into())
        );
        assert_eq!(report["sent"], report["received"]);
        assert_eq!(report["verified"], true, "{report}");
        assert!(report["outage_ms_p50"].as_f64() > Some(0.0), "{report}");
    }
}

#[test]
fn outages_beside_several_rates_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let lists = ["failover", "--runs", "2", "--rate", "1000,500"];
    let pacing = ["--pacing", "bursts:8", "--seed", "2"];
    let files = ["hgrm", "hlog", "report"];
    let lines = bench_all(directory.path(), &[&lists[..], &pacing].concat(), &files);
    let names: Vec<_> = lines.iter().map(|line| &line["name"]).collect();
    assert_eq!(
        names,
        [
            "relay durable, bursts:8",
            "relay durable, 500 msg/s, bursts:8"
        ]
    );
    for (place, line) in (1..).zip(&lines) {
        assert_eq!(
            (&line["what"], &line["lost"]),
            (&"failover".into(), &0.into())
        );
        let [least, median, most] =
            ["min", "p50", "max"].map(|key| number(&line[format!("outage_ms_{key}")]));
        assert!(least <= median && median <= most, "{line}");
        // No outage is shorter than the pauses between bursts, which were there before it.
        let pause = number(&line["flow_gap_ms_max"]);
        assert_eq!(pause, 8e3 / number(&line["rate"]));
        assert!(least >= 0.9 * pause, "{line}");
        let hgrm = directory.path().join(format!("hgrm.{place}"));
        assert_eq!(counted(&hgrm), 2);
        let hlog = directory.path().join(format!("hlog.{place}"));
        let log = fs::read_to_string(hlog).expect("written");
        assert!(log.contains("HISTF"), "{log}");
    }
    assert_page(directory.path(), &lines);
}

#[test]
fn the_floor_has_the_same_keys() {
    let floor = [
        "floor",
        "--seconds",
        "0.5",
        "--warmup",
        "0.1",
        "--idle",
        "park",
        "--unpinned",
    ];
    assert_keys(&bench(&floor), &LATENCY_KEYS);
    for part in ["--hop-only", "--write-only"] {
        assert_keys(&bench(&[&floor[..], &[part]].concat()), &LATENCY_KEYS);
    }
    for policy in ["durable", "mirrored"] {
        let pair = [&floor[..], &["--nodes", "2", "--policy", policy]].concat();
        let report = bench(&pair);
        assert_keys(&report, &LATENCY_KEYS);
        assert_eq!((&report["lost"], &report["nodes"]), (&0.into(), &2.into()));
        assert_keys(&report["received_to_held"], &["p50_us", "p99_us"]);
    }
}

#[test]
fn combinations_that_make_no_sense_are_refused() {
    for (arguments, reason) in [
        (&["floor", "--nodes", "3"][..], "1 to 2"),
        (&["floor", "--policy", "mirrored"], "several nodes"),
        (
            &["floor", "--nodes", "2", "--policy", "local"],
            "one node's",
        ),
        (&["latency", "--nodes", "4"], "1 to 3"),
        (&["latency", "--policy", "durable"], "several nodes"),
        (
            &["throughput", "--nodes", "2", "--policy", "local"],
            "one node's",
        ),
        (&["latency", "--server-cpus", "0,1"], "take 1 CPUs"),
        (&["fan-out", "--nodes", "2", "--streams", "2"], "not both"),
        (&["latency", "--nodes", "2", "--streams", "2"], "not both"),
        (&["fan-out", "--streams", "17"], "1 to 16"),
        (&["throughput", "--streams", "0"], "1 to 16"),
        (
            &[
                "latency",
                "--streams",
                "16",
                "--publishers",
                "64",
                "--topics",
                "1000",
            ],
            "1,000,000 at most",
        ),
        (&["failover", "--nodes", "1"], "nobody to take over"),
        (&["failover", "--rate", "1"], "10 to 100,000"),
        (&["failover", "--pacing", "bursts:200"], "200 ms without"),
        (&["catch-up", "--repeat", "0"], "1 to 1,000"),
    ] {
        let mut command = Command::new(relay());
        let (status, said) = refusal(command.arg("bench").args(arguments));
        assert_eq!(status, 2, "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

#[test]
fn journals_that_do_not_fit_on_the_disk_are_refused_before_they_are_made() {
    relayd();
    let mut command = Command::new(relay());
    let arguments = [
        "bench",
        "fan-out",
        "--streams",
        "2",
        "--prepared",
        "9000000GiB",
    ];
    let (status, said) = refusal(command.args(arguments));
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("--prepared less"), "{said}");
}

#[test]
fn the_demonstration_holds_its_promise() {
    relayd();
    for nodes in ["1", "2"] {
        let output = Command::new(relay())
            .args(["demo", "--json", "--messages", "3000", "--nodes", nodes])
            .output();
        let report = last_object(&text_of(output.expect("relay runs")));
        let text = report.to_string();
        for key in ["published", "acknowledged", "received"] {
            assert_eq!(report[key], 3000, "{key} in {text}");
        }
        for key in ["lost", "duplicated", "altered"] {
            assert_eq!(report[key], 0, "{key} in {text}");
        }
        assert_eq!(report["verified"], true);
        assert!(
            report["outage_ms"].as_f64().is_some_and(|ms| ms > 0.0),
            "{text}"
        );
        let outages = report["outages_ms"].as_array().map(Vec::len);
        assert_eq!(
            outages.map(|kills| kills.to_string()).as_deref(),
            Some(nodes)
        );
    }
}

/// The canary: a comparison that finds a loss must make the demonstration fail.
#[test]
fn the_demonstration_fails_when_the_script_finds_a_loss() {
    relayd();
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("compare.py");
    let same = "\"duplicated\": 0, \"reordered\": 0, \"altered\": 0, \"seq_breaks\": 0}";
    let text = format!(
        "print('{{\"published\": 500, \"subscribers\": [{{\"received\": 499, \"lost\": 1, {same}, \
         {{\"received\": 500, \"lost\": 0, {same}]}}')"
    );
    fs::write(&script, text).expect("written");
    let mut command = Command::new(relay());
    command
        .args([
            "demo",
            "--json",
            "--nodes",
            "1",
            "--messages",
            "500",
            "--compare",
        ])
        .arg(&script);
    let (status, said) = refusal(&mut command);
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("promise"), "{said}");
}
