//! Several measurements with one command: lists of rates and sizes, repeats, and the search for the knee.
//!
//! ```text
//! run(): each size, each rate, so many times --\
//!                                               >-- measure one ([`Load`] -> [`Run`]), which prints its own result
//! sweep(): double, then bisect ----------------/
//! ```
//!
//! Every measurement starts from a fresh relay (unless it is one that runs already), so none inherits another's backlog
//! or journal. A single measurement prints its result and nothing else; what is said of several stands in the last
//! object.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::interval_log::{self, Intervals, check_log};
use super::pacing::{Pacing, Shape};
use super::{check_seconds, check_size, report};
use crate::exit::Failure;
use crate::output::{json_line, line, thousands};
use crate::percentiles::{Percentiles, write_hgrm};

/// A rate holds when so much of it arrives.
const HELD_SHARE: f64 = 0.99;
/// The knee lies between two rates that differ by less than this.
const PRECISION: f64 = 1.05;
/// A start that doesn't hold is halved so many times at most.
const HALVINGS_MAX: u32 = 10;
/// Messages a second that a sweep goes to.
const SWEEP_RATE_MAX: f64 = 1e7;
/// Bytes of a message unless said otherwise; runs of another size are named after it.
pub(super) const SIZE_USUAL: usize = 256;

/// `what` of the lines that sum results up, which no page takes: the results themselves stand before them.
pub(super) const SUMMARY: &str = "summary";
pub(super) const KNEE: &str = "knee";

/// Options of everything that sends at a rate.
#[derive(Debug, Clone, Args)]
pub(super) struct SeriesOptions {
    /// Bytes of a message; several, as in 64,256,1024, are measured in turn
    #[arg(
        long,
        value_name = "BYTES,...",
        value_delimiter = ',',
        default_values_t = [SIZE_USUAL]
    )]
    size: Vec<usize>,
    /// Measure each so many times; the last object has medians with the least and the most
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: u32,
    /// Find the highest rate that holds: by doubling --rate, then bisecting to 5 %. It holds when 99 % of it arrives,
    /// nothing is lost, and p99 is under --p99-under
    #[arg(long, requires = "p99_under")]
    sweep: bool,
    /// With --sweep: what p99 must be under, microseconds
    #[arg(long, value_name = "US", requires = "sweep")]
    p99_under: Option<f64>,
    /// How messages are spread over time at the same mean rate: steady, poisson, bursts:N (N at once, then a pause), or
    /// recorded:FILE.pcap (the gaps of a capture)
    #[arg(long, value_name = "PACING", default_value = "steady")]
    pub(super) pacing: Pacing,
    /// Seed of what is random: payloads, and the gaps of poisson
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(super) seed: u64,
    /// Write the whole distribution in HdrHistogram's percentile format; of several measurements, FILE.1, FILE.2, ...
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write an HdrHistogram interval log, an interval a second, numbered likewise
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write all results as one page for a browser
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What a series is held against before it begins.
pub(super) struct Limits<'a> {
    /// Messages a second; none for as many as go through.
    pub(super) rates: &'a [f64],
    pub(super) seconds: f64,
    pub(super) warmup: f64,
    /// Bytes that a message may have.
    pub(super) sizes: RangeInclusive<usize>,
    /// How many keep a histogram for each second with `--hlog`.
    pub(super) logs: u64,
}

/// One measurement to be made.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Messages a second; without it, as many as go through.
    pub(super) rate: Option<f64>,
    /// Bytes of a message.
    pub(super) size: usize,
    /// When what is due.
    pub(super) shape: Shape,
    /// What tells it from usual ones beside its rate, with a comma before each: the end of a run's name.
    pub(super) label: String,
    /// What a report says of it.
    pub(super) terms: Terms,
    /// Where the percentile text and the interval log go.
    hgrm: Option<PathBuf>,
    hlog: Option<PathBuf>,
}

/// What is told of a load beside its rate and size.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Terms {
    pacing: String,
    seed: u64,
}

impl Load {
    /// Whether latency is to be kept second by second.
    pub(super) fn is_logged(&self) -> bool {
        self.hlog.is_some()
    }

    /// Writes the files that were asked for. `from` is when the measured time began.
    pub(super) fn write_logs<'a>(
        &self,
        latency: &Histogram<u64>,
        intervals: impl IntoIterator<Item = &'a Intervals>,
        from: SystemTime,
    ) -> Result<(), Failure> {
        if let Some(path) = &self.hgrm {
            write_hgrm(path, latency)?;
        }
        match &self.hlog {
            Some(path) => interval_log::write(path, intervals, from),
            None => Ok(()),
        }
    }
}

/// What one measurement found.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) latency: Percentiles,
    /// Messages a second at the slowest subscriber.
    pub(super) achieved: f64,
    /// How much of what was due that is: 1 is all of it, in time.
    pub(super) share: f64,
    /// Messages that were due and could not be sent.
    pub(super) unsent: u64,
    pub(super) order: Order,
    /// Why connections were lost.
    pub(super) connections_lost: Vec<String>,
    /// What else went wrong with messages or journals, for people.
    pub(super) damage: Option<String>,
}

/// What went wrong with messages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Order {
    /// Sent and not arrived.
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) disordered: u64,
}

/// How much of what was due came in time: what part of it came at all, less for what the last of it was late.
pub(super) fn share_in_time(received: f64, seconds: f64, late_ns: u64) -> f64 {
    received * seconds / (seconds + late_ns as f64 / 1e9)
}

impl Order {
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
    }
}

impl Run {
    /// The failure that messages or journals went wrong; where `may_be_too_much` not that some were not sent.
    fn check(&self, may_be_too_much: bool) -> Result<(), Failure> {
        if let Some(damage) = &self.damage {
            return Err(Failure::Damaged(damage.clone()));
        }
        let Order {
            lost,
            duplicated,
            disordered,
        } = self.order;
        if lost + duplicated + disordered > 0 {
            return Err(Failure::Damaged(format!(
                "{lost} messages lost, {duplicated} duplicated, {disordered} out of order; connections lost: {:?}",
                self.connections_lost
            )));
        }
        if self.unsent > 0 && !may_be_too_much {
            return Err(Failure::Failed(format!(
                "{} messages were due and could not be sent: more than goes through; lower --rate, or find the highest with --sweep",
                self.unsent
            )));
        }
        Ok(())
    }
}

/// A median and what it lies between.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of at least one value.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        Self {
            median: f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]),
            least: sorted[0],
            most: sorted[last],
        }
    }
}

/// What all runs of one rate and size found; the last line of `--repeat`, and each step of `--sweep`.
#[derive(Debug, Serialize)]
struct Summary {
    what: &'static str,
    rate: Option<f64>,
    size: usize,
    runs: usize,
    p50_us: Spread,
    p99_us: Spread,
    p999_us: Spread,
    achieved: Spread,
    lost: u64,
    unsent: u64,
    /// In a sweep, whether the rate holds, and why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Summary {
    fn of(load: &Load, runs: &[Run]) -> Self {
        let spread = |value: fn(&Run) -> f64| Spread::of(runs.iter().map(value));
        Self {
            what: SUMMARY,
            rate: load.rate,
            size: load.size,
            runs: runs.len(),
            p50_us: spread(|run| run.latency.p50_us),
            p99_us: spread(|run| run.latency.p99_us),
            p999_us: spread(|run| run.latency.p999_us),
            achieved: spread(|run| run.achieved),
            lost: runs.iter().map(|run| run.order.lost).sum(),
            unsent: runs.iter().map(|run| run.unsent).sum(),
            holds: None,
            why: None,
        }
    }

    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        let rate = self
            .rate
            .map_or("full speed".into(), |rate| format!("{rate:.0} msg/s"));
        let text = |name, spread: Spread| {
            format!(
                "{name} {:.1} ({:.1}..{:.1}) us",
                spread.median, spread.least, spread.most
            )
        };
        let verdict = match (self.holds, &self.why) {
            (Some(true), _) => ": holds".into(),
            (Some(false), Some(why)) => format!(": does not hold: {why}"),
            _ => String::new(),
        };
        line(&format!(
            "{rate} of {} bytes, median (least..most) of {}: {}, {}, {}, achieved {:.1} msg/s{verdict}",
            self.size,
            self.runs,
            text("p50", self.p50_us),
            text("p99", self.p99_us),
            text("p99.9", self.p999_us),
            self.achieved.median,
        ))
    }
}

/// Why a rate does not hold; nothing if it does.
fn fault(runs: &[Run], p99_under_us: f64) -> Option<String> {
    let share = Spread::of(runs.iter().map(|run| run.share)).median;
    let lost: u64 = runs.iter().map(|run| run.order.lost + run.unsent).sum();
    let p99_us = Spread::of(runs.iter().map(|run| run.latency.p99_us)).median;
    if share < HELD_SHARE {
        let percent = share * 100.0;
        Some(format!(
            "{percent:.1} % of what was offered arrived in time"
        ))
    } else if lost > 0 {
        Some(format!("{lost} messages were lost or not sent"))
    } else if p99_us >= p99_under_us {
        Some(format!("p99 was {p99_us:.1} us"))
    } else {
        None
    }
}

/// The last line of `--sweep`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Knee {
    /// [`KNEE`].
    what: String,
    /// Highest rate that was seen to hold; none if none did.
    knee_rate: Option<f64>,
    /// Lowest one that was seen not to.
    failed_rate: Option<f64>,
    p99_under_us: f64,
    size: usize,
    steps: u32,
    stopped: String,
}

impl Knee {
    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        line(&self.text())
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let found = self.knee_rate.map_or("no rate holds".into(), |rate| {
            format!("{} msg/s hold", thousands(rate.round() as u64))
        });
        format!(
            "{found} with {} bytes and p99 under {} us, after {} steps: {}",
            self.size, self.p99_under_us, self.steps, self.stopped
        )
    }
}

/// Where the knee is known to lie: the search itself, which measures nothing.
#[derive(Debug, Default)]
struct Bracket {
    held: Option<f64>,
    failed: Option<f64>,
    halvings: u32,
}

impl Bracket {
    fn note(&mut self, rate: f64, holds: bool) {
        let side = if holds {
            &mut self.held
        } else {
            &mut self.failed
        };
        *side = Some(rate);
        self.halvings += u32::from(!holds && self.held.is_none());
    }

    /// The rate to try next, or why there is none.
    fn next(&self, start: f64) -> Result<f64, &'static str> {
        match (self.held, self.failed) {
            (None, None) => Ok(start),
            (Some(held), None) if held * 2.0 > SWEEP_RATE_MAX => {
                Err("the highest rate of a sweep holds")
            }
            (Some(held), None) => Ok(held * 2.0),
            (None, Some(_)) if self.halvings > HALVINGS_MAX => {
                Err("not even a thousandth of the start holds; begin lower, or allow a higher p99")
            }
            (None, Some(failed)) if failed / 2.0 < 1.0 => {
                Err("not even one message a second holds; allow a higher p99")
            }
            (None, Some(failed)) => Ok(failed / 2.0),
            (Some(held), Some(failed)) if failed <= held * PRECISION => Err("known to 5 %"),
            (Some(held), Some(failed)) => Ok(f64::midpoint(held, failed)),
        }
    }
}

impl SeriesOptions {
    /// Refuses what can't be measured.
    pub(super) fn check(&self, limits: &Limits<'_>) -> Result<(), Failure> {
        let Limits { rates, seconds, .. } = *limits;
        let usage = |text: String| Err(Failure::Usage(text));
        check_seconds("--seconds", seconds, 0.01)?;
        check_seconds("--warmup", limits.warmup, 0.0)?;
        for rate in rates {
            if !(rate.is_finite() && (0.1..=1e8).contains(rate)) {
                return usage(format!("--rate takes 0.1 to 1e8, not {rate}"));
            }
        }
        for &size in &self.size {
            check_size(size, &limits.sizes)?;
        }
        if !(1..=1_000).contains(&self.repeat) {
            return usage(format!("--repeat takes 1 to 1,000, not {}", self.repeat));
        }
        if rates.is_empty() && self.pacing != Pacing::Steady {
            return usage("--pacing spreads a rate; give --rate".into());
        }
        if self.sweep && rates.len() != 1 {
            return usage("--sweep begins at a rate; give one with --rate".into());
        }
        if let Some(us) = self.p99_under {
            check_bound(us, seconds)?;
        }
        for (option, path) in [
            ("--hgrm", &self.hgrm),
            ("--hlog", &self.hlog),
            (REPORT, &self.report),
        ] {
            path.as_deref()
                .map_or(Ok(()), |path| check_output(option, path))?;
        }
        match self.hlog {
            Some(_) => check_log(seconds, limits.logs),
            None => Ok(()),
        }
    }

    /// The same for messages of one size only.
    pub(super) fn with_size(&self, size: usize) -> Self {
        Self {
            size: vec![size],
            ..self.clone()
        }
    }

    /// Measures all that is asked for, what was checked, and makes the page of it, also of what came before a failure.
    pub(super) fn run<R: Serialize>(
        &self,
        rates: &[f64],
        mut measure: impl FnMut(&Load) -> Result<(Run, R), Failure>,
    ) -> Result<(), Failure> {
        let mut results = Vec::new();
        let mut knees = Vec::new();
        let outcome = self.measure(rates, &mut knees, |load| {
            let (run, result) = measure(load)?;
            results.push(result);
            Ok(run)
        });
        if let Some(path) = &self.report
            && !results.is_empty()
        {
            report::write(path, &results, &knees)?;
        }
        outcome
    }

    fn measure(
        &self,
        rates: &[f64],
        knees: &mut Vec<Knee>,
        mut measure: impl FnMut(&Load) -> Result<Run, Failure>,
    ) -> Result<(), Failure> {
        let shape = Shape::of(&self.pacing, self.seed)?;
        let rates: Vec<_> = if rates.is_empty() {
            vec![None]
        } else {
            rates.iter().copied().map(Some).collect()
        };
        let is_one = rates.len() * self.size.len() == 1 && self.repeat == 1 && !self.sweep;
        let mut made = 0;
        let mut repeat = |rate, size| {
            let mut load = Load {
                rate,
                size,
                shape: shape.clone(),
                label: label(size, &self.pacing),
                terms: Terms {
                    pacing: self.pacing.to_string(),
                    seed: self.seed,
                },
                hgrm: None,
                hlog: None,
            };
            let mut runs = Vec::new();
            for _ in 0..self.repeat {
                made += 1;
                let file = |path: &PathBuf| {
                    if is_one {
                        path.clone()
                    } else {
                        numbered(path, made)
                    }
                };
                load.hgrm = self.hgrm.as_ref().map(file);
                load.hlog = self.hlog.as_ref().map(file);
                let run = measure(&load)?;
                run.check(self.sweep)?;
                runs.push(run);
            }
            Ok((Summary::of(&load, &runs), runs))
        };
        for &size in &self.size {
            if let (Some(p99_under_us), Some(start)) = (self.p99_under, rates[0]) {
                let knee = sweep(start, size, p99_under_us, self.json, &mut repeat)?;
                knee.print(self.json)?;
                knees.push(knee);
                continue;
            }
            for &rate in &rates {
                let (summary, _) = repeat(rate, size)?;
                if self.repeat > 1 {
                    summary.print(self.json)?;
                }
            }
        }
        Ok(())
    }
}

/// Those counts that are not the usual ones, with a comma before each: a part of a result's name.
pub(super) fn unusual(counts: &[(u64, u64, &str)]) -> String {
    let differ = counts.iter().filter(|(count, usual, _)| count != usual);
    differ
        .map(|(count, _, what)| format!(", {count} {what}"))
        .collect()
}

/// The same of settings: whether each is the usual one, what it is called, and what it is.
pub(super) fn unusual_ways(ways: &[(bool, &str, String)]) -> String {
    let differ = ways.iter().filter(|(is_usual, ..)| !is_usual);
    differ
        .map(|(_, what, how)| format!(", {what} {how}"))
        .collect()
}

/// The end of a result's name: what tells its load from a usual one of the same rate, with a comma before each.
pub(super) fn label(size: usize, pacing: &Pacing) -> String {
    let mut label = String::new();
    if size != SIZE_USUAL {
        label += &format!(", {size} bytes");
    }
    if *pacing != Pacing::Steady {
        label += &format!(", {pacing}");
    }
    label
}

/// Refuses a file that could not be written once everything has been measured.
pub(super) fn check_output(option: &str, path: &Path) -> Result<(), Failure> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let refused = |text: String| {
        Err(Failure::Usage(format!(
            "{option} {}: {text}",
            path.display()
        )))
    };
    if path.is_dir() {
        return refused("this is a directory; name a file".into());
    }
    // A page takes the place of the one before, a device or a pipe and the other files are written to as they are.
    let is_written_to = match path.metadata() {
        Ok(found) => !found.is_file() || option != REPORT,
        Err(_) => false,
    };
    let written = if is_written_to { path } else { directory };
    match rustix::fs::access(written, rustix::fs::Access::WRITE_OK) {
        Ok(()) if directory.is_dir() => Ok(()),
        Ok(()) => refused(format!("{} is no directory", directory.display())),
        Err(error) => refused(format!("writing {}: {error}", written.display())),
    }
}

/// Refuses a bound on p99 that is none, or that the last messages' latency alone could break.
fn check_bound(us: f64, seconds: f64) -> Result<(), Failure> {
    if !(us.is_finite() && us > 0.0) {
        return Err(Failure::Usage(format!(
            "--p99-under takes microseconds above 0, not {us}"
        )));
    }
    if us > seconds * 1e6 * (1.0 - HELD_SHARE) {
        return Err(Failure::Usage(format!(
            "the last messages' latency counts in what arrives a second; with --p99-under {us} give --seconds {} or more",
            (us / 1e6 / (1.0 - HELD_SHARE)).ceil()
        )));
    }
    Ok(())
}

/// Finds the knee of one size.
fn sweep(
    start: f64,
    size: usize,
    p99_under_us: f64,
    is_json: bool,
    repeat: &mut impl FnMut(Option<f64>, usize) -> Result<(Summary, Vec<Run>), Failure>,
) -> Result<Knee, Failure> {
    let mut bracket = Bracket::default();
    let mut steps = 0;
    let stopped = loop {
        let rate = match bracket.next(start) {
            Ok(rate) => rate,
            Err(stopped) => break stopped,
        };
        steps += 1;
        let (mut summary, runs) = repeat(Some(rate), size)?;
        summary.why = fault(&runs, p99_under_us);
        summary.holds = Some(summary.why.is_none());
        bracket.note(rate, summary.why.is_none());
        summary.print(is_json)?;
    };
    Ok(Knee {
        what: KNEE.into(),
        knee_rate: bracket.held,
        failed_rate: bracket.failed,
        p99_under_us,
        size,
        steps,
        stopped: stopped.into(),
    })
}

/// The option that names a page.
pub(super) const REPORT: &str = "--report";

/// `latency.hgrm` as `latency.hgrm.3`.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay that holds everything up to a rate.
    fn knee_of(limit: f64, start: f64) -> (Bracket, u32, &'static str) {
        let mut bracket = Bracket::default();
        let mut steps = 0;
        loop {
            match bracket.next(start) {
                Ok(rate) => bracket.note(rate, rate <= limit),
                Err(stopped) => return (bracket, steps, stopped),
            }
            steps += 1;
            assert!(steps < 40, "it ends: {bracket:?}");
        }
    }

    #[test]
    fn a_sweep_finds_the_knee_from_either_side() {
        for (limit, start) in [(73_000.0, 1_000.0), (73_000.0, 1e6), (2_000.0, 2_000.0)] {
            let (bracket, steps, stopped) = knee_of(limit, start);
            let held = bracket.held.expect("something holds");
            assert!(
                held <= limit && limit < held * PRECISION,
                "{held} of {limit}"
            );
            assert!(steps < 16 && stopped.contains("5 %"), "{steps}: {stopped}");
        }
    }

    #[test]
    fn a_sweep_without_a_knee_says_why() {
        let (bracket, _, stopped) = knee_of(f64::MAX, 1e6);
        assert_eq!(bracket.held, Some(8e6));
        assert!(stopped.contains("highest"), "{stopped}");
        let (bracket, _, stopped) = knee_of(0.0, 1e6);
        assert_eq!(bracket.held, None);
        assert!(stopped.contains("thousandth"), "{stopped}");
        let (_, _, stopped) = knee_of(0.0, 8.0);
        assert!(stopped.contains("one message"), "{stopped}");
    }

    fn run(p99_us: f64, share: f64, lost: u64) -> Run {
        Run {
            latency: Percentiles {
                p50_us: 1.0,
                p90_us: 1.0,
                p99_us,
                p999_us: p99_us,
                p9999_us: p99_us,
                max_us: p99_us,
            },
            achieved: share * 1_000.0,
            share,
            unsent: 0,
            order: Order {
                lost,
                ..Order::default()
            },
            connections_lost: Vec::new(),
            damage: None,
        }
    }

    #[test]
    fn a_file_that_could_not_be_written_is_refused_before_anything_is_measured() {
        let here = tempfile::tempdir().expect("a directory");
        let file = here.path().join("there");
        std::fs::write(&file, "").expect("a file");
        assert!(check_output("--hgrm", &file).is_ok());
        assert!(check_output("--hgrm", Path::new("in-this-directory")).is_ok());
        assert!(check_output("--hgrm", Path::new("/dev/null")).is_ok());
        for (path, reason) in [
            (here.path().to_owned(), "name a file"),
            (here.path().join("missing/file"), "No such file"),
            (file.join("below"), "is no directory"),
        ] {
            let said = check_output("--hgrm", &path).expect_err("it is refused");
            assert!(said.to_string().contains(reason), "{said}");
        }
    }

    #[test]
    fn a_rate_holds_when_it_arrives_whole_and_in_time() {
        assert_eq!(fault(&[run(99.0, 0.991, 0)], 100.0), None);
        for (run, reason) in [
            (run(100.0, 1.0, 0), "p99 was 100.0"),
            (run(1.0, 0.98, 0), "98.0 %"),
            (run(1.0, 1.0, 2), "2 messages"),
        ] {
            let said = fault(&[run], 100.0).expect("it does not hold");
            assert!(said.contains(reason), "{said}");
        }
        let two_of_three = [50.0, 70.0, 500.0].map(|p99_us| run(p99_us, 1.0, 0));
        assert_eq!(fault(&two_of_three, 100.0), None, "the median counts");
    }

    #[test]
    fn what_went_wrong_fails_a_run_but_not_what_a_sweep_looks_for() {
        let too_much = || Run {
            unsent: 1,
            ..run(1.0, 1.0, 0)
        };
        assert!(run(1.0, 1.0, 0).check(false).is_ok());
        let said = too_much().check(false).expect_err("not all was sent");
        assert!(matches!(said, Failure::Failed(_)), "nothing is lost");
        assert!(too_much().check(true).is_ok());
        for is_sweep in [false, true] {
            let said = run(1.0, 1.0, 1).check(is_sweep);
            assert!(matches!(said, Err(Failure::Damaged(_))));
        }
        let damaged = Run {
            damage: Some("a journal".into()),
            ..run(1.0, 1.0, 0)
        };
        let said = damaged.check(true).expect_err("it is damaged").to_string();
        assert_eq!(said, "a journal");
    }

    #[test]
    fn a_spread_has_the_middle_of_an_even_number() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter());
        let found = (spread.least, spread.median, spread.most);
        assert_eq!(found, (1.0, 2.5, 4.0));
    }
}
