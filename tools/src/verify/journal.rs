//! One journal read from end to end: every checksum, and every rule one block must keep towards those before it.
//!
//! Three judgements are put together: each block continues the one before (the reader), the fold of all blocks keeps the
//! rules of seqs, publishers, topics, epochs and times (the tables), and each record's own checksum fits, which is the
//! publisher's. Then recovery is asked what it would make of the end. Where something is damaged the audit goes on behind
//! it; the rules, which need everything before, are checked up to there.

use std::path::Path;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use indicatif::ProgressBar;
use relay_client::wire::code::RecordKind;
use relay_client::wire::id::{Epoch, Position};
use relay_client::wire::record::trading_session_body;
use relay_journal::block::{BlockHeader, records};
use relay_journal::clock::{ClockFold, SessionClock};
use relay_journal::reader::{Damage, Extent, JournalDir, ReaderError};
use relay_journal::scan::{Front, Link, Window};
use relay_journal::seal::PublicKey;
use relay_journal::tables::Tables;
use serde::{Deserialize, Serialize};

use super::ahead::{Blocks, WAITING, check_blocks};
use super::failed;
use super::finding::{Finding, Findings, Kind};
use super::seals::Seals;
use crate::counters::Counters;
use crate::exit::{Failure, Interrupt};
use crate::output::{progress, thousands};
use crate::status::is_running;

/// What was read, and whether it is right.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Verification {
    pub(crate) directory: String,
    pub(crate) node: u64,
    pub(crate) stream: u32,
    /// Given to the disk when the journal was made.
    pub(crate) disk_incarnation: u64,
    /// Whether nothing was found wrong.
    pub(crate) verified: bool,
    pub(crate) blocks: u64,
    /// Records of every kind.
    pub(crate) records: u64,
    /// Records that are messages.
    pub(crate) messages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seq: Option<u64>,
    pub(crate) bytes: u64,
    pub(crate) start: u64,
    pub(crate) tail: u64,
    pub(crate) released: u64,
    /// Whether a relay runs on it: then it is read as far as it was released when the audit began.
    pub(crate) is_live: bool,
    /// How far seqs, publisher sequences, topics, epochs and times were checked too: not behind damage, and not where the
    /// journal's beginning is gone.
    pub(crate) rules_checked_to: u64,
    /// Checkpoints that can't be used: they cost time at a start, no data.
    pub(crate) checkpoints_unusable: u64,
    /// Whether something that was never durable lies behind the end.
    pub(crate) torn_tail: bool,
    /// How far the time at which blocks were sealed ever went back, ns.
    pub(crate) clock_back_ns_max: u64,
    /// What was sealed; nothing where there are no seals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seals: Option<Seals>,
    /// What the clock was worth before the first trading session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<ClockLine>,
    pub(crate) epochs: Vec<EpochLine>,
    pub(crate) sessions: Vec<SessionLine>,
}

/// An epoch of the history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EpochLine {
    pub(crate) epoch: u64,
    pub(crate) start: u64,
    pub(crate) first_seq: u64,
    pub(crate) copies: u8,
    pub(crate) policy: String,
    /// Whether the process before was stopped in order.
    pub(crate) follows_clean_stop: bool,
}

/// A trading session, or what lies before the first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SessionLine {
    pub(crate) number: u64,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seq: Option<u64>,
    pub(crate) messages: u64,
    /// How far the time at which blocks were sealed went back in it, ns.
    pub(crate) clock_back_ns_max: u64,
    /// What the clock was worth in it, as the nodes that led journalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<ClockLine>,
}

/// What the clock was worth.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ClockLine {
    /// How often the nodes that led said something about it.
    pub(crate) statements: u64,
    /// How many of these bound nothing.
    pub(crate) unbounded: u64,
    /// The largest of the bounds to UTC, ns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_bound_ns_max: Option<u64>,
    /// Whose clock that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<u64>,
    /// When it was measured, ns UTC by that clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) measured_ns: Option<u64>,
    /// The furthest a clock was estimated to be from its source, ns.
    pub(crate) offset_ns_max: u64,
    /// How old the statement in force was at most when a message was received, ns.
    pub(crate) age_ns_max: u64,
    /// Messages before which nothing had been said.
    pub(crate) messages_unstated: u64,
}

impl ClockLine {
    fn of(clock: &SessionClock) -> Self {
        Self {
            statements: clock.statements,
            unbounded: clock.unbounded,
            error_bound_ns_max: clock.worst.map(|worst| worst.error_bound_ns),
            node: clock.worst.map(|worst| worst.node.get()),
            measured_ns: clock.worst.map(|worst| worst.measured_ns),
            offset_ns_max: clock.offset_ns_max,
            age_ns_max: clock.age_ns_max,
            messages_unstated: clock.messages_unstated,
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let bound = match (self.error_bound_ns_max, self.node) {
            (Some(bound), Some(node)) => {
                format!(
                    "at worst within {:.9} s of UTC (node {node})",
                    bound as f64 / 1e9
                )
            }
            _ => "never bounded".to_owned(),
        };
        let mut text = format!("{bound}, {} statements", thousands(self.statements));
        if self.unbounded > 0 {
            text.push_str(&format!(
                ", {} of them bound nothing",
                thousands(self.unbounded)
            ));
        }
        if self.messages_unstated > 0 {
            let count = thousands(self.messages_unstated);
            text.push_str(&format!(", {count} messages before any"));
        }
        text
    }
}

impl Verification {
    /// One line for people.
    pub(super) fn text(&self) -> String {
        let seqs = match (self.first_seq, self.last_seq) {
            (Some(first), Some(last)) => format!(" (seq {first} to {last})"),
            _ => String::new(),
        };
        let mut text = format!(
            "{}: {} messages{seqs}, {} records, {} blocks, {} bytes up to position {}",
            if self.verified {
                "verified"
            } else {
                "NOT RIGHT"
            },
            thousands(self.messages),
            thousands(self.records),
            thousands(self.blocks),
            thousands(self.bytes),
            self.tail,
        );
        if self.is_live {
            text.push_str("; a relay runs on it: read as far as was released");
        }
        if self.torn_tail {
            text.push_str("; behind it something never durable, to be cut");
        }
        if self.checkpoints_unusable > 0 {
            let count = self.checkpoints_unusable;
            text.push_str(&format!(
                "; {count} checkpoints can't be used (a start takes longer)"
            ));
        }
        text
    }
}

/// What an audit goes by.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Public keys that are relied on; with none the first that the seals name is believed.
    pub(crate) trusted: Vec<PublicKey>,
    /// How far the time at which blocks are sealed may go back, ns.
    pub(crate) clock_bound_ns: u64,
}

impl Default for Rules {
    /// A takeover by a node whose clock is a second behind is told, one by a node that is a little behind is not.
    fn default() -> Self {
        Self {
            trusted: Vec::new(),
            clock_bound_ns: 1_000_000_000,
        }
    }
}

/// How far a journal is to be read, as it was when the audit began.
#[derive(Debug)]
pub(super) struct Bounds {
    /// What recovery says; nothing where the log can't be read through.
    extent: Option<Extent>,
    /// The end of what a running relay has made durable and released.
    live: Option<Position>,
}

impl Bounds {
    /// Looks.
    pub(super) fn of(path: &Path, journal: &JournalDir) -> Result<Self, Failure> {
        if let Some(released) = live_released(path) {
            return Ok(Self {
                extent: None,
                live: Some(released),
            });
        }
        match journal.extent() {
            Ok(extent) => Ok(Self {
                extent: Some(extent),
                live: None,
            }),
            // What can't be read is met again, and named, by the one who reads all of it.
            Err(ReaderError::Source(_)) => Ok(Self {
                extent: None,
                live: None,
            }),
            Err(error) => Err(failed(path, error)),
        }
    }

    /// How far it is known to be released.
    pub(super) fn released(&self) -> Option<Position> {
        self.live
            .or_else(|| self.extent.as_ref().map(|extent| extent.released))
    }

    /// Whether a relay runs on it.
    pub(super) const fn is_live(&self) -> bool {
        self.live.is_some()
    }
}

/// How far a running relay says that its log is durable here and released.
fn live_released(path: &Path) -> Option<Position> {
    let counters = Counters::read(path).ok().filter(is_running)?;
    let durable = counters.value("position.durable")?;
    let released = counters.value("position.released")?;
    Some(Position(durable.min(released)))
}

/// Reads everything.
pub(super) fn verify(
    journal: &JournalDir,
    bounds: &Bounds,
    rules: &Rules,
    findings: &mut Findings,
    interrupt: &Interrupt,
) -> Result<Verification, Failure> {
    let path = journal.path();
    let superblock = journal.superblock();
    let before = findings.count;
    let start = journal.start();
    let mut scan = Scan {
        journal,
        rules,
        findings,
        interrupt,
        found: Verification {
            directory: path.display().to_string(),
            node: superblock.node.get(),
            stream: superblock.stream.get(),
            disk_incarnation: superblock.disk_incarnation,
            is_live: bounds.is_live(),
            start: start.get(),
            tail: start.get(),
            rules_checked_to: start.get(),
            checkpoints_unusable: checkpoints_unusable(path, journal)?,
            ..Verification::default()
        },
        tables: (start == Position(0)).then(|| Tables::empty(superblock.stream)),
        link: (start == Position(0)).then(|| Link::after_tables(&Tables::empty(superblock.stream))),
        released: Position(0),
        sealed_ns_max: 0,
        clock: ClockFold::default(),
        bar: progress(scan_length(journal, bounds), "verifying"),
    };
    scan.run(bounds)?;
    scan.bar.finish_and_clear();
    if let Some(last) = std::mem::take(&mut scan.clock).finish() {
        scan.take_clock(&last);
    }
    let mut found = scan.found;
    let released = bounds.released().unwrap_or(scan.released);
    found.released = released.get();
    if let Some(tables) = &scan.tables {
        found.epochs = epochs(tables);
    }
    found.verified = findings.count == before;
    Ok(found)
}

fn scan_length(journal: &JournalDir, bounds: &Bounds) -> u64 {
    let tail = bounds.extent.as_ref().map(|extent| extent.tail);
    let end = tail.or(bounds.live).unwrap_or_else(|| {
        let last = journal.segments().last().map_or(0, |last| last + 1);
        journal.superblock().geometry().start_of(last)
    });
    end.get().saturating_sub(journal.start().get())
}

fn epochs(tables: &Tables) -> Vec<EpochLine> {
    let line = |entry: &relay_journal::tables::EpochEntry| EpochLine {
        epoch: entry.epoch.get(),
        start: entry.start.get(),
        first_seq: entry.first_seq.get(),
        copies: entry.copies,
        policy: format!("{:?}", entry.policy).to_lowercase(),
        follows_clean_stop: entry.clean,
    };
    tables.epochs.iter().map(line).collect()
}

fn checkpoints_unusable(path: &Path, journal: &JournalDir) -> Result<u64, Failure> {
    let positions = journal.checkpoints().map_err(|error| failed(path, error))?;
    let unusable = positions
        .into_iter()
        .filter(|&at| journal.checkpoint(at).is_err());
    Ok(unusable.count() as u64)
}

/// Why reading stopped.
enum Stop {
    /// The log, or what is to be read of it, ends.
    End,
    /// Something else than the block that is due.
    Damage(Damage),
    /// The system could not read it; where to go on.
    Unreadable(Position),
}

/// A journal being read.
pub(super) struct Scan<'a> {
    pub(super) journal: &'a JournalDir,
    rules: &'a Rules,
    findings: &'a mut Findings,
    pub(super) interrupt: &'a Interrupt,
    pub(super) found: Verification,
    /// The fold, as long as everything before is there.
    tables: Option<Tables>,
    /// What the next block must be, where that is known.
    pub(super) link: Option<Link>,
    /// The highest released position any block carries.
    released: Position,
    sealed_ns_max: u64,
    clock: ClockFold,
    bar: ProgressBar,
}

impl Scan<'_> {
    fn run(&mut self, bounds: &Bounds) -> Result<(), Failure> {
        let geometry = self.journal.superblock().geometry();
        let stretches = self.stretches();
        let rules = self.rules;
        let released = bounds.released().unwrap_or_default();
        let checked = self.check_seals(&rules.trusted, released)?;
        let checked = checked.unwrap_or_default();
        for (number, &(first, last)) in stretches.iter().enumerate() {
            let (start, end) = (geometry.start_of(first), geometry.start_of(last + 1));
            let from = start.max(checked).min(end);
            if from.get() != self.found.tail {
                self.lose_track();
            }
            let is_last = number + 1 == stretches.len();
            if let Some(live) = bounds.live {
                self.read(from, end.min(live), None)?;
            } else if is_last {
                self.read(from, end, Some(bounds))?;
            } else {
                self.read(from, end, None)?;
            }
        }
        if stretches.is_empty() {
            self.add(Finding::new(
                Kind::MissingSegment,
                &self.found.directory,
                "there is no segment: nothing can be checked",
            ));
        }
        Ok(())
    }

    /// First and last segment of each stretch without a gap; the gaps are findings.
    fn stretches(&mut self) -> Vec<(u64, u64)> {
        let geometry = self.journal.superblock().geometry();
        for gap in self.journal.gaps() {
            let text = format!(
                "segments {:016x} to {:016x} are missing; fetch them from another copy",
                gap.first, gap.last
            );
            let finding = Finding::new(Kind::MissingSegment, &self.found.directory, text);
            self.add(finding.at(geometry, geometry.start_of(gap.first)));
        }
        if self.journal.start() > Position(0) {
            let text = "the log before this is not here: rules are not checked, only checksums";
            let finding = Finding::new(Kind::MissingSegment, &self.found.directory, text);
            self.add(finding.at(geometry, Position(0)));
        }
        let mut stretches: Vec<(u64, u64)> = Vec::new();
        for &segment in self.journal.segments() {
            match stretches.last_mut() {
                Some((_, last)) if *last + 1 == segment => *last = segment,
                _ => stretches.push((segment, segment)),
            }
        }
        stretches
    }

    /// Reads from a block's position up to `end`, over whatever is damaged. With `bounds` the log may end before.
    pub(super) fn read(
        &mut self,
        mut from: Position,
        end: Position,
        bounds: Option<&Bounds>,
    ) -> Result<(), Failure> {
        while from < end {
            from = match self.read_intact(from, end, bounds)? {
                Stop::End => match self.go_on_behind_blank(from, end, bounds)? {
                    Some(next) => next,
                    None => break,
                },
                Stop::Unreadable(next) => next,
                Stop::Damage(damage)
                    if bounds.is_some_and(|bounds| self.is_the_end(damage.position, bounds)) =>
                {
                    break;
                }
                Stop::Damage(damage) if self.is_short(damage.position) => {
                    self.unreadable(damage.position, "the file is shorter than a segment")
                }
                Stop::Damage(damage) => {
                    self.damaged(&damage, bounds);
                    // An intact block that only does not continue the one before is where to go on.
                    let is_whole = matches!(
                        damage.front,
                        Front::ChainBroken | Front::LaterEpoch | Front::StaleEarlier
                    );
                    if is_whole && damage.position != from {
                        damage.position
                    } else {
                        self.find_next(damage.position, end)?
                    }
                }
            };
            self.lose_track();
        }
        self.end_here(bounds);
        Ok(())
    }

    /// Where the log goes on behind the blank place at which reading ended, if that is not its end.
    fn go_on_behind_blank(
        &mut self,
        from: Position,
        end: Position,
        bounds: Option<&Bounds>,
    ) -> Result<Option<Position>, Failure> {
        let blank = from.max(Position(self.found.tail));
        let extent = bounds.and_then(|bounds| bounds.extent.as_ref());
        if extent.is_none_or(|extent| extent.verdict.is_ok() && blank >= extent.tail) {
            return Ok(None);
        }
        let next = self.find_next(blank, end)?;
        if next >= end {
            return Ok(None);
        }
        let geometry = self.journal.superblock().geometry();
        let damage = Damage {
            position: blank,
            segment: geometry.segment_of(blank),
            offset: geometry.offset_of(blank),
            front: Front::Absent,
        };
        self.damaged(&damage, bounds);
        Ok(Some(next))
    }

    /// Reads until something is not as it must be.
    fn read_intact(
        &mut self,
        from: Position,
        end: Position,
        bounds: Option<&Bounds>,
    ) -> Result<Stop, Failure> {
        let path = self.journal.path();
        // Where the log may end before, a blank place is its end.
        let until = if bounds.is_some() {
            Position(u64::MAX)
        } else {
            end
        };
        let blocks = self.journal.blocks_ahead(from, until);
        let blocks = blocks.map_err(|error| failed(path, error))?;
        thread::scope(|scope| {
            let (out, pieces) = sync_channel(WAITING);
            let (spent, empty) = channel();
            scope.spawn(move || check_blocks(blocks, &out, &empty));
            for piece in pieces {
                match piece {
                    Ok(blocks) => {
                        self.take_next(&blocks)?;
                        // The thread may be done and gone.
                        let _ = spent.send(blocks);
                    }
                    Err(ReaderError::Damage(damage)) => return Ok(Stop::Damage(damage)),
                    Err(ReaderError::Source(error)) => {
                        let next = self.unreadable(error.position, &error.cause);
                        return Ok(Stop::Unreadable(next));
                    }
                    Err(error) => return Err(failed(path, error)),
                }
            }
            Ok(Stop::End)
        })
    }

    /// Takes in blocks that follow each other.
    fn take_next(&mut self, blocks: &Blocks) -> Result<(), Failure> {
        for (header, body) in blocks.iter() {
            // Within a stretch the reader itself compares; this is about the first block behind a gap.
            if self.link.is_some_and(|link| !continues(header, &link)) {
                self.broken_chain(header);
            }
            self.take(header, body)?;
        }
        Ok(())
    }

    /// Whether recovery ends the log here too: what lies behind was never durable.
    fn is_the_end(&self, position: Position, bounds: &Bounds) -> bool {
        match &bounds.extent {
            Some(extent) => extent.verdict.is_ok() && position >= extent.tail,
            None => false,
        }
    }

    /// The log ends: compares with where it should.
    fn end_here(&mut self, bounds: Option<&Bounds>) {
        let Some(extent) = bounds.and_then(|bounds| bounds.extent.as_ref()) else {
            return;
        };
        let geometry = self.journal.superblock().geometry();
        match &extent.verdict {
            Ok(recovered) => {
                self.found.torn_tail = recovered.cut.is_some();
                if self.found.tail < extent.tail.get() {
                    let text = format!(
                        "the log read ends here, recovery ends it at {}",
                        extent.tail
                    );
                    let finding = Finding::new(Kind::Block, &self.found.directory, text);
                    self.add(finding.at(geometry, Position(self.found.tail)));
                }
            }
            Err(error) => {
                let is_told = self
                    .findings
                    .list
                    .iter()
                    .any(|found| found.position == Some(extent.tail.get()));
                if !is_told {
                    let finding =
                        Finding::new(Kind::Block, &self.found.directory, error.to_string());
                    self.add(finding.at(geometry, extent.tail));
                }
            }
        }
    }

    /// Takes in a block whose checksums fit.
    pub(super) fn take(&mut self, header: &BlockHeader, body: &[u8]) -> Result<(), Failure> {
        let geometry = self.journal.superblock().geometry();
        self.watch_clock(header);
        for record in records(body) {
            let (offset, record) = match record {
                Ok(found) => found,
                Err(error) => {
                    let text = format!("the intact block holds a bad record: {error}");
                    let finding = Finding::new(Kind::Record, &self.found.directory, text);
                    self.add(finding.at(geometry, header.position));
                    break;
                }
            };
            self.found.records += 1;
            if let Some(done) = self.clock.apply(&record) {
                self.take_clock(&done);
            }
            if record.kind() == Some(RecordKind::TradingSession)
                && let Some((number, name)) = trading_session_body(record.payload())
            {
                self.found.sessions.push(SessionLine {
                    number,
                    name: name.to_owned(),
                    ..SessionLine::default()
                });
            }
            let seq = record.seq().get();
            if record.is_data() {
                self.count_message(seq);
            }
            if let Err(error) = record.verify() {
                let text = format!("at byte {offset} of the block's body: {error}");
                let finding = Finding::new(Kind::Record, &self.found.directory, text);
                self.add(finding.at(geometry, header.position).of_seq(seq));
            }
        }
        if let Some(tables) = &mut self.tables {
            match tables.apply_block(header, body) {
                Ok(()) => self.found.rules_checked_to = header.next_position().get(),
                Err(error) => {
                    self.tables = None;
                    let finding =
                        Finding::new(Kind::Rule, &self.found.directory, error.to_string());
                    let finding = finding.at(geometry, header.position);
                    self.add(finding.of_seq(header.first_seq.get()));
                }
            }
        }
        self.released = self.released.max(header.released);
        self.link = Some(Link::after_block(header));
        self.found.blocks += 1;
        self.found.bytes += u64::from(header.span);
        self.found.tail = header.next_position().get();
        if self.found.blocks.is_multiple_of(1024) {
            self.bar
                .set_position(self.found.tail.saturating_sub(self.found.start));
            self.interrupt.check()?;
        }
        Ok(())
    }

    /// What the clock was worth in the session that ends, which is the last one listed.
    fn take_clock(&mut self, clock: &SessionClock) {
        let line = ClockLine::of(clock);
        match self.found.sessions.last_mut() {
            Some(session) => session.clock = Some(line),
            None => self.found.clock = Some(line),
        }
    }

    fn count_message(&mut self, seq: u64) {
        self.found.messages += 1;
        self.found.first_seq.get_or_insert(seq);
        self.found.last_seq = Some(seq);
        if let Some(session) = self.found.sessions.last_mut() {
            session.messages += 1;
            session.first_seq.get_or_insert(seq);
            session.last_seq = Some(seq);
        }
    }

    /// Blocks are sealed by the clock of whoever led: it may be behind the one before, within a bound.
    fn watch_clock(&mut self, header: &BlockHeader) {
        let back_ns = self.sealed_ns_max.saturating_sub(header.sealed_time_ns);
        self.sealed_ns_max = self.sealed_ns_max.max(header.sealed_time_ns);
        if back_ns == 0 {
            return;
        }
        if back_ns > self.rules.clock_bound_ns && self.found.clock_back_ns_max < back_ns {
            let text = format!(
                "the clock went back by {:.6} s in epoch {}; {:.6} s are allowed",
                back_ns as f64 / 1e9,
                header.epoch,
                self.rules.clock_bound_ns as f64 / 1e9
            );
            let finding = Finding::new(Kind::Clock, &self.found.directory, text);
            let geometry = self.journal.superblock().geometry();
            self.add(
                finding
                    .at(geometry, header.position)
                    .of_seq(header.first_seq.get()),
            );
        }
        self.found.clock_back_ns_max = self.found.clock_back_ns_max.max(back_ns);
        if let Some(session) = self.found.sessions.last_mut() {
            session.clock_back_ns_max = session.clock_back_ns_max.max(back_ns);
        }
    }

    fn damaged(&mut self, damage: &Damage, bounds: Option<&Bounds>) {
        let geometry = self.journal.superblock().geometry();
        let mut text = damage.front.to_string();
        if let Some(Extent {
            tail,
            verdict: Err(error),
            ..
        }) = bounds.and_then(|bounds| bounds.extent.as_ref())
            && *tail == damage.position
        {
            text = format!("{text}; {error}");
        }
        let finding = Finding::new(Kind::Block, &self.found.directory, text);
        let finding = finding.at(geometry, damage.position);
        let seq = self.link.map(|link| link.first_seq.get());
        self.add(Finding { seq, ..finding });
    }

    /// An intact block that does not continue what lies before a gap.
    fn broken_chain(&mut self, header: &BlockHeader) {
        let geometry = self.journal.superblock().geometry();
        let text = Front::ChainBroken.to_string();
        let finding = Finding::new(Kind::Block, &self.found.directory, text);
        self.add(
            finding
                .at(geometry, header.position)
                .of_seq(header.first_seq.get()),
        );
        self.lose_track();
    }

    /// Whether the file that a position lies in is shorter than a segment.
    fn is_short(&self, position: Position) -> bool {
        let geometry = self.journal.superblock().geometry();
        let length = self.journal.segment_length(geometry.segment_of(position));
        length.is_ok_and(|length| length < geometry.segment_size())
    }

    /// A place that can't be read; where to go on.
    fn unreadable(&mut self, position: Position, cause: &str) -> Position {
        let geometry = self.journal.superblock().geometry();
        let segment = geometry.segment_of(position);
        let kind = if self.is_short(position) {
            Kind::MissingSegment
        } else {
            Kind::Unreadable
        };
        let finding = Finding::new(kind, &self.found.directory, cause);
        self.add(finding.at(geometry, position));
        geometry.start_of(segment + 1)
    }

    /// The next intact block behind a damaged place, or `end`.
    pub(super) fn find_next(
        &mut self,
        damaged: Position,
        end: Position,
    ) -> Result<Position, Failure> {
        let path = self.journal.path();
        let superblock = self.journal.superblock();
        let geometry = superblock.geometry();
        let unit = u64::from(geometry.block_alignment());
        let source = self.journal.read_ahead(end);
        let source = source.map_err(|error| failed(path, error))?;
        let mut window = Window::new(Box::new(source), geometry);
        let mut position = damaged.plus(unit);
        let mut looked = 0_u64;
        while position < end {
            match window.examine(position, superblock.stream, None) {
                Ok(Ok(header)) if header.epoch >= Epoch(1) => return Ok(position),
                Ok(_) => position = position.plus(unit),
                // The next segment may be readable again.
                Err(_) => position = geometry.start_of(geometry.segment_of(position) + 1),
            }
            looked += 1;
            if looked.is_multiple_of(65_536) {
                self.interrupt.check()?;
            }
        }
        Ok(end)
    }

    /// From here on nothing is known of what came before.
    pub(super) fn lose_track(&mut self) {
        self.tables = None;
        self.link = None;
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.add(finding);
    }
}

/// Whether a block follows a link.
fn continues(header: &BlockHeader, link: &Link) -> bool {
    header.number == link.number
        && header.previous_checksum == link.previous_checksum
        && header.epoch >= link.epoch
        && header.is_seq_due(link.epoch, link.first_seq)
}
