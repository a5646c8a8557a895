//! `relay bench report`, and `--report` of the others: results as one page for a browser.
//!
//! ```text
//! shown.rs   what a bench adds to its result for the page's sake
//! run.rs     a result as the page takes it, of our own benches or of other systems' drivers
//! page.html, page.css, format.js, page.js (curves), scale.js (curves against a number), tables.js (the rest)    the page
//! uPlot.*    draws the curves; uPlot.md says which version it is
//! ```
//!
//! The page is one file, loads nothing, and holds the results as JSON. A result is one object on one line:
//!
//! | key | what |
//! | --- | --- |
//! | `name`, or `variant` | what was measured; lines of one name are one curve, and repeats where their rates are equal too |
//! | `what` | `latency`, `throughput`, `floor`, `write`, `hop`, `fan-out`, `catch-up`, `failover`, `restart` |
//! | `curve`, `x` | the scale curve that the result is a point of, such as `subscribers`, and the number there; both or neither |
//! | `holds`, `copies`, `run` | what is held when it acknowledges, and where; of how many copies; which repeat |
//! | `rate` or `offered_rate` | messages per second offered; null or `max` for as many as go through |
//! | `achieved` or `msgs_per_s` | messages per second received |
//! | `held` | whether the rate was held; else told from 95% of it |
//! | `sent` or `offered`, `received`, `lost`, `duplicated`, `disordered` | messages |
//! | `p50_us` `p90_us` `p99_us` `p999_us` `p9999_us` `max_us` | from the intended send; the first, third and last are needed |
//! | `percentiles` | `[percentile, us]` each, ascending to `[100, max]` |
//! | `over_time` | `[second, p50_us, p99_us, max_us]` each |
//! | `hops`, or the floor's `received_to_written` and so on | by name: `p50_us`, `p99_us`, `max_us` |
//! | `settings`, `machine`, and any other text, number or truth | shown as they are; `command` and `machine.command` as what was run |
//! | `outages_ms`, `outage_ms`, or `outage_ms_p50` with `outage_ms_max` | a failover's or a restart's, in place of the latencies |
//! | `cpu_us_per_message`, `cpu_share`, `resident_peak`, `deliveries_per_s`; `seek_ms`, `append` | of a point of a scale curve, beside the latencies |
//!
//! Null counts as absent, and so do latencies whose `max_us` is 0. Of repeats the page shows the median with the least and the most. Points of scale curves stand on
//! their curves alone. Lines whose `what` is `summary` sum up the results before them, and are left out; what a `knee` says stands
//! beside the rates.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::series::{KNEE, Knee, SUMMARY};
use crate::exit::Failure;
use crate::output::line;
use crate::output_file::OutputFile;

mod run;
mod shown;

use run::Run;
pub(super) use shown::Shown;

/// Most bytes of one file of results.
const FILE_MAX: u64 = 64 << 20;
/// Most results on one page.
const RUNS_MAX: usize = 10_000;

const PAGE: &str = include_str!("report/page.html");
/// Where the results go.
const DATA: &str = "/*DATA*/";
/// What stands in the page for each part, in the order of the page.
const PARTS: [(&str, &str); 9] = [
    ("/*PLOT_CSS*/", include_str!("report/uPlot.min.css")),
    ("/*PAGE_CSS*/", include_str!("report/page.css")),
    ("<!--LICENCE-->", include_str!("report/uPlot.LICENSE")),
    (DATA, ""),
    ("/*PLOT_JS*/", include_str!("report/uPlot.iife.min.js")),
    ("/*FORMAT_JS*/", include_str!("report/format.js")),
    ("/*PAGE_JS*/", include_str!("report/page.js")),
    ("/*SCALE_JS*/", include_str!("report/scale.js")),
    ("/*TABLES_JS*/", include_str!("report/tables.js")),
];

const EXAMPLES: &str = "\
Examples:
  relay bench latency --rate 2000 --json > runs.jsonl
  relay bench floor --rate 2000 --json >> runs.jsonl
  relay bench report runs.jsonl --output page.html";

/// Options of `relay bench report`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReportOptions {
    /// Results of `relay bench ... --json`, one object a line (not of `replay`, which has no latency)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The page to write
    #[arg(long, short, value_name = "FILE.html")]
    output: PathBuf,
    /// Heading of the page
    #[arg(long, value_name = "TEXT", default_value = "Latency report")]
    title: String,
}

/// Runs the command.
pub(super) fn run(options: &ReportOptions) -> Result<(), Failure> {
    let mut results = Results::default();
    for path in &options.files {
        results.read(path)?;
        if results.runs.len() > RUNS_MAX {
            return Err(Failure::Failed(format!(
                "more than {RUNS_MAX} results; make several pages"
            )));
        }
    }
    write_page(&options.output, &options.title, &results)?;
    line(&format!(
        "{} results in {}",
        results.runs.len(),
        options.output.display()
    ))
}

/// Writes the page of results that were just measured.
pub(super) fn write(
    path: &Path,
    results: &[impl Serialize],
    knees: &[Knee],
) -> Result<(), Failure> {
    let run = |result| {
        let value = serde_json::to_value(result).expect("a report has string keys only");
        Run::of(&value).expect("a bench prints every key there must be")
    };
    let results = Results {
        runs: results.iter().map(run).collect(),
        knees: knees.iter().map(Knee::text).collect(),
    };
    write_page(path, "Latency report", &results)
}

/// What a page shows.
#[derive(Debug, Default, Serialize)]
struct Results {
    runs: Vec<Run>,
    /// What searches for the knee found, for people.
    knees: Vec<String>,
}

impl Results {
    /// Adds those in a file.
    fn read(&mut self, path: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::file("reading", path, &error);
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(FILE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let advice = "give what `relay bench latency --json` prints, one object a line";
        let shown = path.display();
        if bytes.len() as u64 > FILE_MAX {
            let mib = FILE_MAX >> 20;
            return Err(Failure::Failed(format!(
                "{shown} has more than {mib} MiB; {advice}"
            )));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::Failed(format!("{shown} is no text; {advice}")))?;
        let before = self.runs.len();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |reason: String| {
                Failure::Failed(format!("{shown}, line {number}: {reason}; {advice}"))
            };
            let value: Value =
                serde_json::from_str(line).map_err(|error| wrong(format!("no JSON ({error})")))?;
            let what = value.get("what").and_then(Value::as_str);
            match what {
                Some(SUMMARY) => {}
                Some(KNEE) => {
                    let knee: Knee = serde_json::from_value(value)
                        .map_err(|error| wrong(format!("no whole knee ({error})")))?;
                    self.knees.push(knee.text());
                }
                _ => self.runs.push(Run::of(&value).map_err(wrong)?),
            }
        }
        if self.runs.len() == before {
            return Err(Failure::Failed(format!(
                "{shown} holds no result; {advice}"
            )));
        }
        Ok(())
    }
}

fn write_page(path: &Path, title: &str, results: &Results) -> Result<(), Failure> {
    let mut out = OutputFile::create(path)?;
    match out.write_all(page(title, results).as_bytes()) {
        Ok(()) => out.finish(),
        Err(error) => Err(out.failed(&error)),
    }
}

/// The page as text.
fn page(title: &str, results: &Results) -> String {
    let data = serde_json::json!({
        "title": title,
        "version": env!("CARGO_PKG_VERSION"),
        "runs": results.runs,
        "knees": results.knees,
    });
    let data = in_script(&data.to_string());
    let mut page = String::with_capacity(PAGE.len() + data.len() + (128 << 10));
    let mut rest = PAGE;
    for (mark, part) in PARTS {
        let part = if mark == DATA { &data } else { part };
        let (before, after) = rest.split_once(mark).expect("the page has each mark once");
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    page
}

/// JSON that no text in it can end the element it stands in.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_cannot_leave_the_data() {
        let hostile = "</script><script>alert(1)</script><!--";
        let value =
            json!({"name": hostile, "p50_us": 1, "p99_us": 2, "max_us": 3, "note": "/*PAGE_JS*/"});
        let results = Results {
            runs: vec![Run::of(&value).expect("complete")],
            knees: Vec::new(),
        };
        let found = page(hostile, &results);
        assert!(!found.contains("alert(1)</script>"));
        assert!(found.contains(r"\u003c/script>\u003cscript>alert(1)"));
        assert!(
            found.contains(r#""note":"/*PAGE_JS*/""#),
            "data is no part of the page"
        );
        assert_eq!(
            found.matches("</script>").count(),
            PAGE.matches("</script>").count()
        );
        let start = found
            .find(r#"{"knees""#)
            .or_else(|| found.find(r#"{"title""#));
        let data = &found[start.expect("the data")..];
        let data = &data[..data.find("</script>").expect("its end")];
        let data: Value = serde_json::from_str(data).expect("it is JSON");
        assert_eq!(data["runs"][0]["name"], hostile);
    }

    #[test]
    fn the_page_loads_nothing() {
        for (mark, part) in PARTS {
            assert_eq!(PAGE.matches(mark).count(), 1, "{mark}");
            assert!(
                !part.contains("</script") && !part.contains("</style"),
                "{mark}"
            );
            assert!(
                !part.contains("@import") && !part.contains("fetch("),
                "{mark}"
            );
        }
        assert!(!PAGE.contains("src=") && !PAGE.contains("href="));
    }

    #[test]
    fn files_that_hold_no_results_are_refused_with_their_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("runs.jsonl");
        let whole = r#"{"name":"a","p50_us":1,"p99_us":2,"max_us":3}"#;
        for (content, reason) in [
            ("", "holds no result"),
            ("\n\n", "holds no result"),
            ("p50 is 3\n", "line 1: no JSON"),
            (&format!("{whole}\n{{\"name\":"), "line 2: no JSON"),
            ("[1]", "line 1: it is no object"),
            (
                r#"{"p50_us":1,"p99_us":2,"max_us":3}"#,
                "neither `name` nor `variant`",
            ),
            (r#"{"name":"a","p50_us":1,"max_us":3}"#, "no `p99_us`"),
            (
                r#"{"name":"a","p50_us":"x","p99_us":2,"max_us":3}"#,
                "`p50_us` is no number",
            ),
        ] {
            fs::write(&path, content).expect("written");
            let read = Results::default().read(&path);
            let failure = read.expect_err(content).to_string();
            assert!(failure.contains(reason), "{content}: {failure}");
            assert!(failure.contains("--json"), "{content}: {failure}");
        }
        fs::write(&path, [0xff, 0xfe]).expect("written");
        let failure = Results::default().read(&path).expect_err("bytes");
        assert!(failure.to_string().contains("no text"));
        let summary = r#"{"what":"summary","rate":500,"runs":2}"#;
        let knee = r#"{"what":"knee","knee_rate":2000,"failed_rate":null,"p99_under_us":900,"size":64,"steps":3,"stopped":"enough"}"#;
        fs::write(&path, format!("{whole}\n\n{whole}\n{summary}\n{knee}\n")).expect("written");
        let mut results = Results::default();
        results.read(&path).expect("two results");
        assert_eq!(results.runs.len(), 2);
        let expected = "2,000 msg/s hold with 64 bytes and p99 under 900 us, after 3 steps: enough";
        assert_eq!(results.knees, [expected]);
        let shown = page("a", &results);
        assert!(shown.contains(expected));
    }
}
