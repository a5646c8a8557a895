//! `relay verify`: whether journals hold what was written, all of it, and the same on every node.
//!
//! ```text
//! journal.rs   one journal: checksums, chain, rules, clock     compare.rs   two journals: the first difference
//! ahead.rs     its blocks, checked on a second thread          report.rs    a page an auditor can keep
//! seals.rs     its seals against its segments                  finding.rs   what is wrong, and what that makes of it all
//! ```
//!
//! Journals are only ever read. One on which a relay runs is read as far as it was durable and released when the audit
//! began. Memory does not depend on their size: the tables of the log, a few buffers, and at most 1,000 findings.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use relay_client::wire::id::Position;
use relay_journal::reader::{JournalDir, ReaderError};
use relay_journal::seal::PublicKey;
use relay_journal::superblock::SuperblockError;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, thousands};

mod ahead;
mod compare;
mod finding;
mod journal;
mod report;
mod seals;

use self::compare::{Difference, compare};
use self::finding::{Finding, Findings, Kind, Status};
use self::journal::ClockLine;
pub(crate) use self::journal::{Rules, Verification};

const EXAMPLES: &str = "\
Examples:
  relay verify /var/lib/relay/orders
  relay verify node1/orders node2/orders
  relay verify /var/lib/relay/orders --public-key orders.pub --report audit.html

The last line of --json ends with `status records first_seq last_seq findings`: clean, incomplete, damaged or tampered;
messages; the first and last of them; and what is wrong, each with its place. Exit statuses: 0 clean, 3 damaged,
5 tampered, 6 incomplete; 1 where something could not be looked at.";

/// Options of `relay verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyOptions {
    /// The stream's directory, which holds `superblock` and `segments`; several to compare them with each other
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    /// The public key to rely on, in hexadecimal or as a file that holds it: every finished segment must be sealed with it,
    /// or with one it vouched for. Several for several nodes
    #[arg(long, value_name = "KEY")]
    public_key: Vec<String>,
    /// How far the clock by which blocks are sealed may go back, as it may when another node takes over
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    clock_bound: f64,
    /// Write a page of HTML that can be kept: what was checked, the result, and everything found
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the result as a line of JSON
    #[arg(long)]
    json: bool,
}

/// What was found about one journal or several of one stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Judgement {
    /// What judged.
    pub(crate) tool: String,
    /// How far blocks' times were allowed to go back, ns.
    pub(crate) clock_bound_ns: u64,
    /// Each journal by itself, in the order given.
    pub(crate) journals: Vec<Verification>,
    /// Where the range to be compared begins and ends: what was released, or as much of it as the shortest one has.
    pub(crate) compared: (u64, u64),
    /// Bytes of log that all of them hold alike; 0 for one journal.
    pub(crate) identical_bytes: u64,
    /// Where they first part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<Difference>,
    /// How long it took.
    pub(crate) seconds: f64,
    /// How many findings there are; the first thousand are listed.
    pub(crate) finding_count: u64,
    /// The verdict.
    status: Status,
    /// Messages, in the journal that holds most.
    records: u64,
    /// The first of them.
    first_seq: Option<u64>,
    /// The last.
    last_seq: Option<u64>,
    /// What is wrong.
    findings: Vec<Finding>,
}

impl Judgement {
    /// Whether everything is as it must be.
    pub(crate) fn is_right(&self) -> bool {
        self.status == Status::Clean
    }

    /// What is wrong, for people: the first of the gravest.
    pub(crate) fn fault(&self) -> Option<String> {
        let gravest = self
            .findings
            .iter()
            .find(|found| found.status == self.status);
        gravest.map(|found| format!("{}: {}", found.journal, found.line()))
    }

    /// The failure it is, if it is one.
    fn failure(&self) -> Option<Failure> {
        let advice = "keep the directories as they are and look for another copy";
        let text = format!("{}; {advice}", self.fault()?);
        Some(match self.status {
            Status::Clean => return None,
            Status::Incomplete => Failure::Incomplete(text),
            Status::Damaged => Failure::Damaged(text),
            Status::Tampered => Failure::Tampered(text),
        })
    }

    fn print(&self) -> Result<(), Failure> {
        for journal in &self.journals {
            line(&format!(
                "{} (node {}, stream {}): {}",
                journal.directory,
                journal.node,
                journal.stream,
                journal.text()
            ))?;
            if let Some(seals) = &journal.seals {
                line(&format!("  {}", seals.text()))?;
                for cut in &seals.cuts {
                    line(&format!("  {}", cut.text()))?;
                }
            }
            if let Some(clock) = &journal.clock {
                line(&format!(
                    "  clock before the first trading session: {}",
                    clock.text()
                ))?;
            }
            for session in &journal.sessions {
                line(&format!("  {}", session_text(session)))?;
            }
        }
        if self.journals.len() > 1 && self.difference.is_none() {
            let bytes = thousands(self.identical_bytes);
            line(&format!("identical over {bytes} bytes of log"))?;
        }
        for found in &self.findings {
            line(&format!(
                "{:<10} {}: {}",
                found.status.word(),
                found.journal,
                found.line()
            ))?;
        }
        if self.finding_count > self.findings.len() as u64 {
            let more = self.finding_count - self.findings.len() as u64;
            line(&format!("and {} more findings", thousands(more)))?;
        }
        let bytes: u64 = self.journals.iter().map(|journal| journal.bytes).sum();
        let rate = bytes as f64 / self.seconds.max(1e-9) / 1e6;
        line(&format!("{:.1} s, {rate:.0} MB/s", self.seconds))?;
        line(self.status.word())
    }
}

/// A trading session, on one line.
fn session_text(session: &journal::SessionLine) -> String {
    let seqs = match (session.first_seq, session.last_seq) {
        (Some(first), Some(last)) => format!("seq {first} to {last}"),
        _ => "no message".to_owned(),
    };
    format!(
        "trading session {} `{}`: {} messages, {seqs}; clock {}, never back by more than {:.6} s",
        session.number,
        session.name,
        thousands(session.messages),
        session
            .clock
            .as_ref()
            .map_or_else(|| "not stated".to_owned(), ClockLine::text),
        session.clock_back_ns_max as f64 / 1e9
    )
}

/// Runs the command.
pub(crate) fn run(options: &VerifyOptions) -> Result<(), Failure> {
    let bound = options.clock_bound;
    if !(bound.is_finite() && (0.0..=86_400.0).contains(&bound)) {
        let text = "--clock-bound takes 0 to 86,400 seconds";
        return Err(Failure::Usage(text.to_owned()));
    }
    let keys = options.public_key.iter().map(|text| public_key(text));
    let rules = Rules {
        trusted: keys.collect::<Result<_, _>>()?,
        clock_bound_ns: (bound * 1e9) as u64,
    };
    let judgement = judge(&options.directories, 0, &rules, &Interrupt::install()?)?;
    let printed = if options.json {
        json_line(&judgement)
    } else {
        judgement.print()
    };
    // A reader that went away does not make a bad journal good, nor leaves the page unwritten.
    if let Some(path) = &options.report {
        write_report(path, &report::page(&judgement))?;
    }
    match printed {
        Err(Failure::OutputClosed) if judgement.is_right() => return Err(Failure::OutputClosed),
        Ok(()) | Err(Failure::OutputClosed) => {}
        Err(other) => return Err(other),
    }
    judgement.failure().map_or(Ok(()), Err)
}

/// A public key as it was given: its digits, or a file that holds them.
fn public_key(text: &str) -> Result<PublicKey, Failure> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let path = Path::new(text);
    let digits = std::fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!(
            "--public-key {text}: neither 64 hexadecimal digits nor a file that can be read ({error})"
        ))
    })?;
    digits.trim().parse().map_err(|_| {
        Failure::Usage(format!(
            "--public-key {text}: the file does not hold 64 hexadecimal digits; `relayd format` prints the key"
        ))
    })
}

/// Writes the page, whole or not at all where the place is an ordinary file.
fn write_report(path: &Path, page: &str) -> Result<(), Failure> {
    let is_special = path.metadata().is_ok_and(|found| !found.is_file());
    let written = |file: &mut std::fs::File| {
        file.write_all(page.as_bytes())?;
        file.flush()
    };
    if is_special {
        // A pipe or a device: there is nothing to put in its place.
        return std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| written(&mut file))
            .map_err(|error| Failure::file("writing the report", path, &error));
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let failed = |error: &std::io::Error| {
        Failure::Failed(format!(
            "writing the report {}: {error}; nothing of it was left there. Give another place with --report",
            path.display()
        ))
    };
    let mut fresh = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(|error| failed(&error))?;
    written(fresh.as_file_mut())
        .and_then(|()| fresh.as_file().sync_all())
        .map_err(|error| failed(&error))?;
    fresh.persist(path).map_err(|error| failed(&error.error))?;
    Ok(())
}

/// Opens a journal, or says what is there instead.
pub(crate) fn open(path: &Path) -> Result<JournalDir, Failure> {
    JournalDir::open(path).map_err(|error| failed(path, error))
}

/// What a reader's error means for a command that reads journals.
pub(crate) fn failed(path: &Path, error: ReaderError) -> Failure {
    match error {
        ReaderError::Io { path, source } => Failure::Failed(format!(
            "{}: {source}; give the stream's directory, which holds `superblock` and `segments`",
            path.display()
        )),
        ReaderError::Source(_) => Failure::Failed(error.to_string()),
        ReaderError::Superblock(
            SuperblockError::NotAJournal
            | SuperblockError::OlderVersion(_)
            | SuperblockError::NewerVersion(_),
        ) => Failure::Failed(format!("{}: {error}", path.display())),
        other => Failure::Damaged(format!(
            "{}: {other}; keep the directory as it is and look for another copy",
            path.display()
        )),
    }
}

/// How far a journal is known to be released: by the relay that runs on it, else by what it holds.
pub(crate) fn known_released(journal: &JournalDir) -> Result<Position, Failure> {
    let bounds = journal::Bounds::of(journal.path(), journal)?;
    Ok(bounds.released().unwrap_or_default())
}

/// Verifies the journals in these directories and compares them over what was released. Each must reach `least` at least.
pub(crate) fn judge(
    directories: &[PathBuf],
    least: u64,
    rules: &Rules,
    interrupt: &Interrupt,
) -> Result<Judgement, Failure> {
    let begun = Instant::now();
    let mut findings = Findings::default();
    let mut journals = Vec::new();
    for directory in directories {
        match JournalDir::open(directory) {
            Ok(journal) => journals.push(journal),
            Err(ReaderError::Superblock(
                error @ (SuperblockError::Short
                | SuperblockError::Damaged
                | SuperblockError::Inconsistent(_)),
            )) => {
                let path = directory.display().to_string();
                findings.add(Finding::new(Kind::Superblock, &path, error.to_string()));
            }
            Err(error) => return Err(failed(directory, error)),
        }
    }
    check_streams(&journals)?;
    let bounds = journals
        .iter()
        .map(|journal| journal::Bounds::of(journal.path(), journal))
        .collect::<Result<Vec<_>, _>>()?;
    let mut verified = Vec::new();
    for (journal, bounds) in journals.iter().zip(&bounds) {
        let found = journal::verify(journal, bounds, rules, &mut findings, interrupt)?;
        verified.push(found);
    }
    let start = journals.iter().map(|journal| journal.start().get()).max();
    let shortest = verified.iter().map(|journal| journal.tail).min();
    let released = verified.iter().map(|journal| journal.released).max();
    let released = released.unwrap_or_default().max(least);
    let end = shortest.unwrap_or_default().min(released);
    find_those_behind(&verified, released, least, &mut findings);
    let mut judgement = Judgement {
        tool: format!("relay {}", env!("CARGO_PKG_VERSION")),
        clock_bound_ns: rules.clock_bound_ns,
        journals: verified,
        compared: (start.unwrap_or_default(), end),
        identical_bytes: 0,
        difference: None,
        seconds: 0.0,
        finding_count: 0,
        status: Status::Clean,
        records: 0,
        first_seq: None,
        last_seq: None,
        findings: Vec::new(),
    };
    judgement.compare_all(&journals, &mut findings, interrupt)?;
    judgement.seconds = begun.elapsed().as_secs_f64();
    Ok(judgement.conclude(findings))
}

/// A journal that lacks messages which were released. One that only ends earlier was stopped earlier.
fn find_those_behind(
    journals: &[Verification],
    released: u64,
    least: u64,
    findings: &mut Findings,
) {
    let whole = journals.iter().filter(|journal| journal.tail <= released);
    let last = whole.filter_map(|journal| journal.last_seq).max();
    for journal in journals.iter().filter(|journal| !journal.is_live) {
        let text = if journal.tail < least {
            format!(
                "it ends at position {}; up to {least} was released",
                journal.tail
            )
        } else if let Some(last) = last
            && journal.last_seq < Some(last)
        {
            let own = journal.last_seq.unwrap_or_default();
            format!("its last message has seq {own}; up to seq {last} was released")
        } else {
            continue;
        };
        findings.add(Finding::new(Kind::Behind, &journal.directory, text));
    }
}

/// Journals of different streams or layouts have nothing to do with each other.
fn check_streams(journals: &[JournalDir]) -> Result<(), Failure> {
    let [first, others @ ..] = journals else {
        return Ok(());
    };
    for other in others {
        let (one, two) = (first.superblock(), other.superblock());
        let what = if one.stream != two.stream {
            format!("stream {} and stream {}", one.stream, two.stream)
        } else if one.geometry() != two.geometry() {
            "segments or blocks of different sizes".to_owned()
        } else {
            continue;
        };
        return Err(Failure::Usage(format!(
            "{} and {} hold {what}: they can't be compared; give the directories of one stream",
            first.path().display(),
            other.path().display()
        )));
    }
    Ok(())
}

impl Judgement {
    fn compare_all(
        &mut self,
        journals: &[JournalDir],
        findings: &mut Findings,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let [first, others @ ..] = journals else {
            return Ok(());
        };
        let (_, end) = self.compared;
        let mut identical_bytes = None;
        for other in others {
            let compared = compare(first, other, Position(end), interrupt)?;
            let fewest = identical_bytes.unwrap_or(u64::MAX);
            identical_bytes = Some(compared.identical_bytes.min(fewest));
            if let Some(difference) = compared.difference {
                let kind = if difference.both_intact {
                    Kind::Rewritten
                } else {
                    Kind::Difference
                };
                let journal = other.path().display().to_string();
                let finding = Finding::new(kind, &journal, difference.text());
                findings.add(Finding {
                    position: Some(difference.position),
                    seq: difference.seq,
                    field: Some(difference.field.clone()),
                    ..finding
                });
                self.difference.get_or_insert(difference);
            }
        }
        if self.difference.is_none() {
            self.identical_bytes = identical_bytes.unwrap_or(0);
        }
        Ok(())
    }

    fn conclude(mut self, findings: Findings) -> Self {
        let longest = self.journals.iter().max_by_key(|journal| journal.messages);
        if let Some(journal) = longest {
            self.records = journal.messages;
            self.first_seq = journal.first_seq;
            self.last_seq = journal.last_seq;
        }
        self.status = findings.status;
        self.finding_count = findings.count;
        self.findings = findings.list;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_left_whole_or_not_at_all() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("report.html");
        write_report(&path, "<p>first</p>").expect("there is room");
        write_report(&path, "<p>second</p>").expect("it takes the other's place");
        assert_eq!(
            std::fs::read_to_string(&path).expect("it is there"),
            "<p>second</p>"
        );
        assert_eq!(std::fs::read_dir(home.path()).expect("listed").count(), 1);
        let error = write_report(Path::new("/dev/full"), "page").expect_err("it is full");
        assert!(
            error.to_string().contains("writing the report /dev/full"),
            "{error}"
        );
        let nowhere = home.path().join("no/such/place.html");
        assert!(write_report(&nowhere, "page").is_err());
    }
}
