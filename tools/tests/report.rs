//! Goal: what is measured can be looked at: the page of real results draws every plot in a browser without an error.
//! Method: short runs of the built programs, their page opened in headless Chromium, and the document it made of it read.
//! Where there is no Chromium this is skipped, unless RELAY_REQUIRE_BROWSER is set, as CI does.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{last_object, refusal, relay, relayd, text_of};
use tempfile::TempDir;

/// As a driver of another system prints it: without a curve, without a course of time.
const FOREIGN: &str = r#"{"variant":"a-broker","holds":"page cache </script>","copies":"2 of 3","run":1,"what":"latency","rate":400,"held":true,"p50_us":194.0,"p90_us":1274.9,"p99_us":5873.7,"p999_us":13221.9,"max_us":15147.0,"offered":1000,"achieved":400.0,"sent":1500,"received":1500,"lost":0,"duplicated":0,"ack_p50_us":null}
{"variant":"a-broker","holds":"page cache </script>","copies":"2 of 3","run":2,"what":"latency","rate":400,"held":true,"p50_us":230.0,"p90_us":1300.2,"p99_us":6100.5,"p999_us":13300.0,"max_us":16020.0,"offered":1000,"achieved":400.0,"sent":1500,"received":1500,"lost":0,"duplicated":0,"ack_p50_us":null,"versions":"a-broker 1.2, client 3.4","server_settings":"sync=always\nreplicas=3"}
{"variant":"a-broker","run":1,"what":"failover","how":"kill","rate":1000,"recovered":true,"outage_ms":10554.6,"sent":19044,"received":19044,"lost":0}
{"variant":"a-broker","run":2,"what":"failover","how":"kill","rate":1000,"recovered":true,"outage_ms":9480.1,"sent":19044,"received":19044,"lost":0}
"#;

/// Points of a scale curve, one of them measured twice: p50 grows with the square root, CPU in proportion.
const SCALED: &str = r#"{"name":"relay local","what":"fan-out","curve":"subscribers","x":1,"p50_us":100,"p99_us":400,"max_us":900,"cpu_us_per_message":8}
{"name":"relay local","what":"fan-out","curve":"subscribers","x":100,"p50_us":1000,"p99_us":2000,"max_us":9000,"cpu_us_per_message":800}
{"name":"relay local","what":"fan-out","curve":"subscribers","x":100,"p50_us":980,"p99_us":2300,"max_us":9100,"cpu_us_per_message":800}
{"name":"relay local","what":"fan-out","curve":"subscribers","x":100,"p50_us":1020,"p99_us":1900,"max_us":8000,"cpu_us_per_message":800}
"#;

/// The browser; where there is none the reason is printed, and where one is required it is a failure.
fn browser() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            let tried = Command::new(name)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            tried.is_ok_and(|status| status.success())
        });
    if found.is_none() {
        let is_required = std::env::var_os("RELAY_REQUIRE_BROWSER").is_some();
        assert!(
            !is_required,
            "RELAY_REQUIRE_BROWSER is set and there is no Chromium"
        );
        println!("skipped: no Chromium to draw the page with; on Debian: apt-get install chromium");
    }
    found
}

/// What the browser made of a page, once its scripts ran.
fn opened(browser: &str, page: &Path) -> String {
    let profile = tempfile::tempdir().expect("a directory");
    let output = Command::new("timeout")
        .args([
            "120",
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output();
    text_of(output.expect("timeout is one of the coreutils"))
}

/// The element of a section.
fn section<'a>(document: &'a str, id: &str) -> &'a str {
    let begin = document.find(&format!("<section id=\"{id}\""));
    let section = &document[begin.unwrap_or_else(|| panic!("no section {id}"))..];
    &section[..section.find("</section>").expect("its end")]
}

fn is_hidden(section: &str) -> bool {
    section[..section.find('>').expect("a tag")].contains("hidden")
}

/// Asserts that all was drawn, in the sections that are to be there.
fn assert_drawn(document: &str, plots: &[&str], others: &[&str]) {
    let root = &document[..document.find("<head>").expect("a head")];
    assert!(root.contains("data-state=\"drawn\""), "{root}");
    assert!(
        root.contains(&format!("data-plots=\"{}\"", plots.len())),
        "{root}"
    );
    for id in plots {
        let section = section(document, id);
        assert!(!is_hidden(section), "{id}");
        assert_eq!(section.matches("<canvas").count(), 1, "{id}");
        assert!(section.contains("u-legend"), "{id}");
    }
    for id in others {
        let section = section(document, id);
        assert!(
            !is_hidden(section) && section.len() > 300,
            "{id}: {section}"
        );
    }
}

fn bench(directory: &TempDir, arguments: &[&str]) -> String {
    relayd();
    let output = Command::new(relay())
        .arg("bench")
        .args(arguments)
        .args(["--warmup", "0.1", "--idle", "park", "--unpinned", "--json"])
        .arg("--dir")
        .arg(directory.path())
        .output();
    text_of(output.expect("relay runs"))
}

#[test]
fn a_page_of_real_results_draws_every_plot() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let single = at("single.html");
    let single_text = single.to_str().expect("text");
    let latency = ["latency", "--prepared", "64MiB", "--seconds", "0.5"];
    let slow = bench(
        &directory,
        &[&latency[..], &["--rate", "400", "--report", single_text]].concat(),
    );
    let fast = bench(&directory, &[&latency[..], &["--rate", "800"]].concat());
    let floor = ["floor", "--seconds", "0.5", "--rate", "400"];
    let floor = bench(&directory, &floor);
    let most = ["throughput", "--prepared", "256MiB", "--seconds", "0.3"];
    let most = bench(&directory, &most);

    let found = last_object(&slow);
    assert_eq!(
        (&found["name"], &found["copies"]),
        (&"relay local, idle park, unpinned".into(), &1.into())
    );
    for key in ["percentiles", "over_time"] {
        assert!(
            found[key].as_array().is_some_and(|rows| rows.len() > 3),
            "{found}"
        );
    }
    assert!(found["machine"]["filesystem"].is_string(), "{found}");

    let results = at("runs.jsonl");
    fs::write(
        &results,
        [&slow, &fast, &floor, &most, FOREIGN, SCALED].concat(),
    )
    .expect("written");
    let several = at("several.html");
    let made = Command::new(relay())
        .args(["bench", "report", "--title", "Some <runs>"])
        .arg(&results)
        .arg("--output")
        .arg(&several)
        .output();
    assert!(text_of(made.expect("relay runs")).contains("12 results"));
    assert!(fs::metadata(&several).expect("written").len() < 1 << 20);

    let Some(browser) = browser() else { return };
    let tables = ["headline", "hops", "runs", "machine", "settings"];
    assert_drawn(
        &opened(browser, &single),
        &["percentiles", "over-time"],
        &tables,
    );
    let document = opened(browser, &several);
    let plots = ["percentiles", "over-time", "rates", "scale"];
    assert_drawn(&document, &plots, &[&tables[..], &["repeats"]].concat());
    assert_spread(&document);
    assert_scaled(section(&document, "scale"));
    assert!(document.contains("Some &lt;runs&gt;</h1>"));
    assert!(section(&document, "runs").contains("page cache &lt;/script&gt;"));
}

/// Repeats show as a median with the least and the most, wherever there is one figure of them.
fn assert_spread(document: &str) {
    for id in ["headline", "repeats"] {
        let section = section(document, id);
        assert!(section.contains("194..230 µs"), "{id}: {section}");
        assert!(section.contains("5.87..6.10 ms"), "{id}: {section}");
    }
    let outages = section(document, "outages");
    assert!(!is_hidden(outages) && outages.contains("a-broker"));
    assert!(outages.contains("9.48..10.6 s of 2"), "{outages}");
    let settings = section(document, "settings");
    assert!(settings.contains("sync=always\nreplicas=3"), "{settings}");
    assert!(section(document, "machine").contains("a-broker 1.2, client 3.4"));
}

/// One curve, with its table, its spread and its growth, and without a place among what was measured at a rate.
fn assert_scaled(section: &str) {
    assert!(section.contains("data-curve=\"subscribers\""), "{section}");
    for found in [
        "980 µs..1.02 ms",
        "p50 (growth 0.50)",
        "CPU per message (growth 1.00)",
        "<td>0.50</td>",
    ] {
        assert!(section.contains(found), "{found}: {section}");
    }
}

/// The canary: a page that cannot be drawn must say so, or the test above would see nothing.
#[test]
fn a_page_that_cannot_be_drawn_says_so() {
    let Some(browser) = browser() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("runs.jsonl"), FOREIGN).expect("written");
    let page = at("page.html");
    let mut made = Command::new(relay());
    let made = made
        .args(["bench", "report"])
        .arg(at("runs.jsonl"))
        .arg("--output")
        .arg(&page);
    text_of(made.output().expect("relay runs"));
    let whole = fs::read_to_string(&page).expect("written");
    let broken = whole.replace("\"over_time\":[]", "\"over_time\":null");
    assert_ne!(whole, broken);
    fs::write(&page, broken).expect("written");
    let document = opened(browser, &page);
    assert!(document.contains("data-state=\"error\""));
    assert!(document.contains("could not be drawn in full"));
}

#[test]
fn a_file_without_results_leaves_no_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("runs.jsonl"), "latency: good\n").expect("written");
    for (file, reason) in [("runs.jsonl", "line 1"), ("missing.jsonl", "missing.jsonl")] {
        let mut command = Command::new(relay());
        command
            .args(["bench", "report"])
            .arg(at(file))
            .arg("--output")
            .arg(at("page.html"));
        let (status, said) = refusal(&mut command);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(!at("page.html").exists());
    }
}
