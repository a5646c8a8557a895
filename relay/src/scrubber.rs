//! Re-reads what lies on the disk, slowly and again and again, so that rot is found while another copy can still mend it.
//!
//! ```text
//!   segments released to their end --read past every cache--> [ each block as recovery judges it ] --> next pass
//!                                                                  | damaged
//!                       peer <--asked over the sequence agent-- [ mend ] --its block, written over the damaged one-->
//! ```
//!
//! One thread for each stream, at low priority and a bounded rate. What is found is counted (`scrub.*`) and told in the log once for
//! each place. A block that no peer can mend stays as it is: the flow does not need it, a reader that does is told, and every
//! later pass tries again. Nothing but a damaged block is ever written to, and only with bytes whose checksums say that they
//! belong there.
//!
//! Not here: what a start finds, which is repaired before it goes on ([`crate::repair`]), and the log's open end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_core::node::Fetched;
use relay_journal::block;
use relay_journal::scan::{Front, Link, LogSource, SourceError, Window};
use relay_journal::segment::{self, Geometry};
use relay_journal::tables::Tables;
use relay_wire::id::{NodeId, Position, StreamId};
use relay_wire::peer::{FetchOutcome, Place};

use crate::arena::Pages;
use crate::counters::{Counter, CounterFile};
use crate::housekeeping::lower_priority;
use crate::link::{Parking, PositionCell};
use crate::pace::STEP_MIN;
use crate::repair::padded;
use crate::storage::{Segments, mend_block};

/// A peer has this long to answer.
const PEER_PATIENCE: Duration = Duration::from_secs(2);
/// How often an answer, or the end of a pause, is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Damaged places told in the log.
const TOLD_MAX: usize = 1024;

/// How fast and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScrubPace {
    /// Bytes a second.
    pub(crate) rate: u64,
    /// From the start of one pass to the start of the next, at least.
    pub(crate) every: Duration,
}

/// What the thread works on.
pub(crate) struct ScrubParts {
    pub(crate) directory: PathBuf,
    pub(crate) stream: StreamId,
    pub(crate) geometry: Geometry,
    pub(crate) segments: Segments,
    /// How far the log on this disk is released.
    pub(crate) released: PositionCell,
    pub(crate) pace: ScrubPace,
    /// On a node of a group.
    pub(crate) peers: Option<PeersEnd>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// A question about a damaged block.
pub(crate) type Question = (NodeId, Place);
/// The answer; nothing from a peer that is not connected.
pub(crate) type Answer = Option<Box<Fetched>>;

/// The sequence agent's end of the way to the peers.
pub(crate) struct ScrubEnd {
    pub(crate) questions: rtrb::Consumer<Question>,
    pub(crate) answers: rtrb::Producer<Answer>,
}

/// The scrubber's end.
pub(crate) struct PeersEnd {
    peers: Vec<NodeId>,
    questions: rtrb::Producer<Question>,
    answers: rtrb::Consumer<Answer>,
    hot: Parking,
}

/// The way from the scrubber to `peers` and back, over the thread that sleeps in `hot`.
pub(crate) fn way_to(peers: Vec<NodeId>, hot: Parking) -> (PeersEnd, ScrubEnd) {
    let (questions, asked) = rtrb::RingBuffer::new(4);
    let (answered, answers) = rtrb::RingBuffer::new(4);
    let near = PeersEnd {
        peers,
        questions,
        answers,
        hot,
    };
    let far = ScrubEnd {
        questions: asked,
        answers: answered,
    };
    (near, far)
}

struct Exported {
    passes: Counter,
    position: Counter,
    damaged: Counter,
    repaired: Counter,
    unrepaired: Counter,
    unrepaired_position: Counter,
    read_errors: Counter,
}

/// See the module's description.
pub(crate) struct Scrubber {
    parts: ScrubParts,
    exported: Exported,
    told: BTreeSet<Position>,
}

impl Scrubber {
    pub(crate) fn new(parts: ScrubParts, counters: &mut CounterFile) -> Self {
        let mut counter = |what: &str| counters.counter(&format!("scrub.{what}"));
        Self {
            exported: Exported {
                passes: counter("passes"),
                position: counter("position"),
                damaged: counter("damaged"),
                repaired: counter("repaired"),
                unrepaired: counter("unrepaired"),
                unrepaired_position: counter("unrepaired_position"),
                read_errors: counter("read_errors"),
            },
            parts,
            told: BTreeSet::new(),
        }
    }

    /// Works until told to stop.
    pub(crate) fn run(mut self) {
        lower_priority();
        while !self.is_stopped() {
            let begun = Instant::now();
            let end = self.end();
            if end > Position(0) {
                self.pass(end);
            }
            let next = begun + self.parts.pace.every;
            while !self.is_stopped() && (Instant::now() < next || self.end() == Position(0)) {
                std::thread::sleep(LOOK_INTERVAL);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.parts.stop.load(Ordering::Acquire)
    }

    /// Where the last segment ends that is released to its end.
    fn end(&self) -> Position {
        let released = self.parts.released.read();
        self.parts
            .geometry
            .start_of(self.parts.geometry.segment_of(released))
    }

    fn window(&self, end: Position) -> Option<Window<'static>> {
        let source = PacedSource {
            segments: self.parts.segments.clone(),
            pages: Pages::new(STEP_MIN).ok()?,
            unit: self.parts.geometry.block_alignment() as usize,
            end,
            rate: self.parts.pace.rate,
            next_at: Instant::now(),
            stop: Arc::clone(&self.parts.stop),
            read_errors: self.exported.read_errors.clone(),
        };
        Some(Window::new(Box::new(source), self.parts.geometry))
    }

    /// Looks at every block before `end`. It ends early where it is told to stop.
    fn pass(&mut self, end: Position) {
        let Some(mut window) = self.window(end) else {
            return;
        };
        let mut at = Position(0);
        let mut link = Some(Link::after_tables(&Tables::empty(self.parts.stream)));
        let mut unrepaired = Vec::new();
        let mut mended = None;
        while at < end {
            let Ok(found) = window.examine(at, self.parts.stream, link.as_ref()) else {
                return;
            };
            let front = match found {
                Ok(header) => {
                    link = Some(Link::after_block(&header));
                    at = header.next_position();
                    self.exported.position.set(at.get());
                    continue;
                }
                Err(front) => front,
            };
            self.exported.damaged.add(u64::from(mended != Some(at)));
            if mended != Some(at) && self.mend(at, link.as_ref(), front) {
                mended = Some(at);
                // What was read before the mending is not to be judged.
                let Some(fresh) = self.window(end) else {
                    return;
                };
                window = fresh;
                continue;
            }
            unrepaired.push(at);
            let Some(next) = self.behind(&mut window, at, end, link.as_ref()) else {
                return;
            };
            (at, link) = next;
        }
        let first = unrepaired.first().map_or(0, |position| position.get());
        self.exported.unrepaired_position.set(first);
        self.exported.unrepaired.set(unrepaired.len() as u64);
        self.exported.passes.add(1);
    }

    /// Where the next block behind a damaged one lies, and what it must be; `None` when told to stop.
    fn behind(
        &self,
        window: &mut Window<'_>,
        at: Position,
        end: Position,
        link: Option<&Link>,
    ) -> Option<(Position, Option<Link>)> {
        let unit = self.parts.geometry.block_alignment();
        let stream = self.parts.stream;
        let bytes = window.bytes(at, unit as usize).ok()?;
        if let Ok(header) = block::decode_header(bytes)
            && header.stream == stream
            && header.position == at
            && link.is_none_or(|link| header.number == link.number)
        {
            return Some((header.next_position(), Some(Link::after_block(&header))));
        }
        let mut next = at;
        loop {
            next = next.plus(unit.into());
            if next >= end {
                return Some((end, None));
            }
            if let Ok(header) = window.examine(next, stream, None).ok()?
                && link.is_none_or(|link| header.number > link.number)
            {
                return Some((next, None));
            }
        }
    }

    /// Has the block at `at` from a peer and writes it in its place; whether that was done.
    fn mend(&mut self, at: Position, link: Option<&Link>, front: Front) -> bool {
        let segment = self.parts.geometry.segment_of(at);
        let offset = self.parts.geometry.offset_of(at);
        let fetched = match link {
            Some(link) => self.fetch(Place {
                position: at,
                previous_checksum: link.previous_checksum,
            }),
            None => Err("what stands before it is damaged too".to_owned()),
        };
        let outcome = fetched.and_then(|(from, bytes)| {
            mend_block(&self.parts.directory, &self.parts.geometry, at, &bytes)
                .map(|()| from)
                .map_err(|error| error.to_string())
        });
        match outcome {
            Ok(from) => {
                // Whoever reads the counter finds the line in the log.
                tracing::warn!(
                    stream = %self.parts.stream,
                    position = %at,
                    segment = segment::name(segment),
                    offset,
                    %front,
                    %from,
                    "a block was damaged on this node's disk; a peer's copy was written in its place. Look at the disk"
                );
                self.exported.repaired.add(1);
                true
            }
            Err(said) => {
                if self.told.len() < TOLD_MAX && self.told.insert(at) {
                    tracing::error!(
                        stream = %self.parts.stream,
                        position = %at,
                        segment = segment::name(segment),
                        offset,
                        %front,
                        said,
                        "a block is damaged on this node's disk and no other copy could mend it. The flow goes on; it is \
                         tried again in every pass. Look at the disk, and keep every copy of the journal there is"
                    );
                }
                false
            }
        }
    }

    /// An intact block as it lies on disk, and who had it; or what each peer said.
    fn fetch(&mut self, place: Place) -> Result<(NodeId, Vec<u8>), String> {
        let stop = Arc::clone(&self.parts.stop);
        let alignment = self.parts.geometry.block_alignment();
        let Some(end) = &mut self.parts.peers else {
            return Err("there is no other node".to_owned());
        };
        let mut said = Vec::new();
        for peer in end.peers.clone() {
            match end.ask(peer, place, &stop) {
                Ok(block) => match padded(&block, place.position, alignment) {
                    Some(bytes) => return Ok((peer, bytes)),
                    None => said.push(format!("node {peer}: what it sent is no intact block")),
                },
                Err(what) => said.push(format!("node {peer}: {what}")),
            }
        }
        Err(said.join("; "))
    }
}

impl PeersEnd {
    fn ask(
        &mut self,
        peer: NodeId,
        place: Place,
        stop: &AtomicBool,
    ) -> Result<Box<[u8]>, &'static str> {
        // Answers that came too late for an earlier question.
        while self.answers.pop().is_ok() {}
        if self.questions.push((peer, place)).is_err() {
            return Err("it was not asked: the node has other things to do");
        }
        self.hot.wake();
        let deadline = Instant::now() + PEER_PATIENCE;
        while Instant::now() < deadline && !stop.load(Ordering::Acquire) {
            match self.answers.pop() {
                Ok(None) => return Err("it is not connected"),
                Ok(Some(fetched)) if (fetched.peer, fetched.place) == (peer, place) => {
                    return match fetched.outcome {
                        FetchOutcome::Here => Ok(fetched.block),
                        FetchOutcome::Damaged => Err("its copy is damaged there too"),
                        FetchOutcome::Otherwise => Err("its log does not go on from there"),
                    };
                }
                Ok(Some(_)) => {}
                Err(_) => std::thread::sleep(LOOK_INTERVAL),
            }
        }
        Err("it did not answer")
    }
}

/// The log as it lies on the disk, read at a bounded rate.
struct PacedSource {
    segments: Segments,
    pages: Pages,
    unit: usize,
    end: Position,
    rate: u64,
    next_at: Instant,
    stop: Arc<AtomicBool>,
    read_errors: Counter,
}

impl LogSource for PacedSource {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let wanted = (buffer.len() as u64).min(self.end.since(position.min(self.end))) as usize;
        let mut filled = 0;
        while filled < wanted {
            if self.stop.load(Ordering::Acquire) {
                let cause = "told to stop".to_owned();
                return Err(SourceError { position, cause });
            }
            let length = (wanted - filled).min(STEP_MIN);
            self.await_turn(length);
            let at = position.plus(filled as u64);
            let part = &mut buffer[filled..filled + length];
            filled += match self.read(at, part) {
                Ok(0) => break,
                Ok(read) => read,
                Err(_) => {
                    self.read_in_units(at, part);
                    length
                }
            };
        }
        Ok(filled)
    }
}

impl PacedSource {
    fn await_turn(&mut self, length: usize) {
        std::thread::sleep(self.next_at.saturating_duration_since(Instant::now()));
        let took = Duration::from_secs_f64(length as f64 / self.rate as f64);
        // Time that others took away is not made up for.
        self.next_at = self.next_at.max(Instant::now()) + took;
    }

    fn read(&mut self, at: Position, part: &mut [u8]) -> std::io::Result<usize> {
        let read = self.segments.read(at, &mut self.pages, part.len())?;
        // SAFETY: the read has completed and nobody else has the pages.
        part[..read].copy_from_slice(unsafe { self.pages.slice(0, read) });
        Ok(read)
    }

    /// What can't be read counts as zeroes: damage, as far as it goes.
    fn read_in_units(&mut self, at: Position, part: &mut [u8]) {
        let mut offset = 0;
        for unit in part.chunks_mut(self.unit) {
            if self.read(at.plus(offset), unit).is_err() {
                unit.fill(0);
                self.read_errors.add(1);
            }
            offset += self.unit as u64;
        }
    }
}
