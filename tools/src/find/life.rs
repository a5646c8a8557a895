//! A message's whole life, as far as a journal, its node's counters and other copies tell it.
//!
//! What a journal holds: when the publisher made the message, when it was received, when its block was sealed, and, in a
//! later block, a time by which it was released. What it does not hold is when exactly a disk or a peer had it; but a
//! release is only ever made when every copy that counted in its epoch had it, and the epoch's record names those.

use std::collections::HashMap;
use std::path::PathBuf;

use relay_client::wire::code::{Policy, RecordKind};
use relay_client::wire::extension::Original;
use relay_client::wire::id::{Epoch, Position, TopicId};
use relay_client::wire::record::{HEADER_LENGTH as RECORD_HEADER_LENGTH, epoch_membership};
use relay_journal::block::{BlockHeader, HEADER_LENGTH, records};
use relay_journal::reader::JournalDir;
use relay_journal::reader::point::PointReader;
use relay_journal::reader::side_index::SideIndex;
use relay_journal::segment;
use relay_journal::tables::EpochEntry;
use serde::Serialize;

use super::query::Query;
use super::search::{Ends, Flow, Hit, Search};
use crate::counters::Counters;
use crate::exit::{Failure, Interrupt};
use crate::output::hex;
use crate::rendering::JsonOriginal;
use crate::status::is_running;
use crate::verify::open;

/// Most blocks behind a message that are looked at for its release.
const RELEASE_BLOCKS_MAX: usize = 4096;
/// Most names and epochs remembered.
const REMEMBERED_MAX: usize = 4096;

/// A message, with everything that is known of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Life {
    pub(super) seq: u64,
    pub(super) topic: u32,
    pub(super) topic_name: Option<String>,
    pub(super) publisher: u64,
    pub(super) incarnation: u64,
    pub(super) publisher_seq: u64,
    pub(super) key_hash: u64,
    /// By the publisher's clock; 0 where it gave none.
    pub(super) origin_time_ns: u64,
    pub(super) receive_time_ns: u64,
    pub(super) sealed_time_ns: u64,
    /// Whether it may have been acknowledged and forwarded.
    pub(super) released: bool,
    /// The time and place at which the log says so first; it was released earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) release_known: Option<ReleaseKnown>,
    pub(super) epoch: u64,
    /// Under which rule and with which copies it was released, or would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<Rule>,
    /// What the running node says of it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) now: Option<Now>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trading_session: Option<Session>,
    pub(super) place: Place,
    /// On other nodes.
    pub(super) copies: Vec<OtherCopy>,
    /// Where it was recorded first, if it was replayed from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) original: Option<JsonOriginal>,
    pub(super) checksum: u32,
    pub(super) is_intact: bool,
    pub(super) bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload_hex: Option<String>,
}

/// Where the log first says that a message was released.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ReleaseKnown {
    /// When the block that says so was sealed.
    pub(super) time_ns: u64,
    pub(super) block: u64,
    pub(super) position: u64,
    pub(super) epoch: u64,
}

/// What a release counted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Rule {
    pub(super) epoch: u64,
    pub(super) policy: String,
    pub(super) copies: u8,
    /// Nodes of the in-sync set; none for a node without a group.
    pub(super) nodes: Vec<u64>,
}

/// A running node's word.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Now {
    pub(super) durable_here: bool,
    pub(super) released: bool,
    pub(super) peers: Vec<PeerNow>,
}

/// Whether a peer has it on its disk.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PeerNow {
    pub(super) node: u64,
    pub(super) durable: bool,
}

/// The trading session it belongs to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) name: String,
}

/// Where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    pub(super) directory: String,
    pub(super) node: u64,
    /// Of its block.
    pub(super) position: u64,
    pub(super) block: u64,
    /// Of the record, in the block's body.
    pub(super) record_offset: usize,
    pub(super) segment: String,
    /// Of the record, in the segment's file.
    pub(super) offset: u64,
}

/// A copy on another node.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OtherCopy {
    pub(super) directory: String,
    pub(super) node: u64,
    /// Where it lies there; nothing where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<Place>,
    /// Whether the message and its stamps are the same, byte for byte.
    pub(super) is_equal: bool,
    /// Whether the whole log up to its block's end is.
    pub(super) is_log_equal: bool,
    /// What is there instead, where it is not equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// Whether it can't be told what is there.
    pub(super) is_damaged: bool,
}

/// Puts lives together.
pub(super) struct Biographer<'a> {
    journal: &'a JournalDir,
    ends: &'a Ends<'a>,
    points: PointReader,
    others: Vec<(JournalDir, PointReader)>,
    names: HashMap<u32, Option<String>>,
    rules: HashMap<u64, Option<Rule>>,
    /// The block looked at last, and where its release is known from: many messages share one.
    release: Option<(u64, Option<ReleaseKnown>)>,
    /// The index of the segment looked at last, if it has one.
    index: Option<(u64, Option<SideIndex>)>,
    counters: Option<Counters>,
    interrupt: &'a Interrupt,
}

impl<'a> Biographer<'a> {
    pub(super) fn new(
        ends: &'a Ends<'a>,
        also: &[PathBuf],
        interrupt: &'a Interrupt,
    ) -> Result<Self, Failure> {
        let journal = ends.journal;
        let path = journal.path();
        let mut others = Vec::new();
        for directory in also {
            let other = open(directory)?;
            let (ours, theirs) = (journal.superblock(), other.superblock());
            if ours.stream != theirs.stream || ours.geometry() != theirs.geometry() {
                return Err(Failure::Usage(format!(
                    "{} does not hold a copy of the stream in {}",
                    directory.display(),
                    path.display()
                )));
            }
            let reader = PointReader::new(&other);
            others.push((other, reader));
        }
        Ok(Self {
            journal,
            ends,
            points: PointReader::new(journal),
            others,
            names: HashMap::new(),
            rules: HashMap::new(),
            release: None,
            index: None,
            counters: Counters::read(path).ok().filter(is_running),
            interrupt,
        })
    }

    /// Everything about a message that `search` found.
    pub(super) fn life(&mut self, hit: &Hit<'_>) -> Result<Life, Failure> {
        let (record, header) = (&hit.record, hit.record.header());
        let end = hit.block.next_position();
        let release_known = self.release_known(&hit.block);
        let now = self.now(end);
        let payload = std::str::from_utf8(record.payload()).ok();
        let is_counted_released = now.as_ref().is_some_and(|now| now.released);
        let released =
            release_known.is_some() || is_counted_released || self.is_before_clean_stop(end);
        let place = place(self.journal, &hit.block, hit.offset);
        let mut copies = Vec::new();
        for (other, points) in &mut self.others {
            copies.push(copy(other, points, hit, self.interrupt)?);
        }
        Ok(Life {
            seq: record.seq().get(),
            topic: record.topic().get(),
            topic_name: self.topic_name(record.topic())?,
            publisher: record.publisher().get(),
            incarnation: record.incarnation().get(),
            publisher_seq: record.publisher_seq().get(),
            key_hash: header.key_hash.get(),
            origin_time_ns: header.origin_time_ns.get(),
            receive_time_ns: record.receive_time_ns(),
            sealed_time_ns: hit.block.sealed_time_ns,
            released,
            // The release counted on the set of the epoch that made it, which may be a later one than sealed the block.
            rule: self.rule(
                release_known
                    .as_ref()
                    .map_or(hit.block.epoch, |known| Epoch(known.epoch)),
            )?,
            release_known,
            epoch: hit.block.epoch.get(),
            now,
            trading_session: self.session(hit)?,
            place,
            copies,
            original: Original::find(record.extension()).map(Into::into),
            checksum: record.checksum(),
            is_intact: record.verify().is_ok(),
            bytes: record.payload().len(),
            payload: payload.map(str::to_owned),
            payload_hex: payload.is_none().then(|| hex(record.payload())),
        })
    }

    /// The first block behind it that says it was released.
    fn release_known(&mut self, block: &BlockHeader) -> Option<ReleaseKnown> {
        if let Some((number, known)) = &self.release
            && *number == block.number
        {
            return known.clone();
        }
        let known = self.look_for_release(block);
        self.release = Some((block.number, known.clone()));
        known
    }

    fn look_for_release(&mut self, block: &BlockHeader) -> Option<ReleaseKnown> {
        let end = block.next_position();
        let mut position = end;
        for _ in 0..RELEASE_BLOCKS_MAX {
            let found = match self.points.header(position) {
                Ok(Ok(found)) => found,
                // The log ends, or is damaged: nothing behind tells anything.
                Ok(Err(_)) | Err(_) => return None,
            };
            if found.number <= block.number {
                return None;
            }
            if found.released >= end {
                return Some(ReleaseKnown {
                    time_ns: found.sealed_time_ns,
                    block: found.number,
                    position: found.position.get(),
                    epoch: found.epoch.get(),
                });
            }
            position = found.next_position();
        }
        None
    }

    fn is_before_clean_stop(&self, end: Position) -> bool {
        let clean = self.journal.superblock().clean;
        clean.is_some_and(|clean| end <= clean.tail)
    }

    fn now(&self, end: Position) -> Option<Now> {
        let counters = self.counters.as_ref()?;
        let has = |label: &str| {
            counters
                .value(label)
                .is_some_and(|value| value >= end.get())
        };
        let peers = counters.plain().filter_map(|(label, value)| {
            let node = label.strip_prefix("peer.")?.strip_suffix(".durable")?;
            Some(PeerNow {
                node: node.parse().ok()?,
                durable: value >= end.get(),
            })
        });
        Some(Now {
            durable_here: has("position.durable"),
            released: has("position.released"),
            peers: peers.collect(),
        })
    }

    fn topic_name(&mut self, topic: TopicId) -> Result<Option<String>, Failure> {
        if let Some(name) = self.names.get(&topic.get()) {
            return Ok(name.clone());
        }
        let glanced = self.ends.glance()?;
        let name = match glanced.and_then(|glance| glance.topic_name(topic)) {
            Some(name) => Some(name),
            None => self.ends.extent()?.tables.topics.name(topic),
        };
        let name = name.map(str::to_owned);
        if self.names.len() < REMEMBERED_MAX {
            self.names.insert(topic.get(), name.clone());
        }
        Ok(name)
    }

    /// What releases counted on in an epoch: its record says so.
    fn rule(&mut self, epoch: Epoch) -> Result<Option<Rule>, Failure> {
        if let Some(rule) = self.rules.get(&epoch.get()) {
            return Ok(rule.clone());
        }
        let listed =
            |epochs: &[EpochEntry]| epochs.iter().find(|entry| entry.epoch == epoch).copied();
        let glanced = self.ends.glance()?;
        let entry = match glanced.and_then(|glance| listed(&glance.epochs)) {
            Some(entry) => Some(entry),
            None => listed(&self.ends.extent()?.tables.epochs),
        };
        let rule = entry.map(|entry| self.read_rule(&entry));
        if self.rules.len() < REMEMBERED_MAX {
            self.rules.insert(epoch.get(), rule.clone());
        }
        Ok(rule)
    }

    fn read_rule(&mut self, entry: &EpochEntry) -> Rule {
        let mut nodes = Vec::new();
        if let Ok(Ok(block)) = self.points.block(entry.start) {
            let opening = records(block.body)
                .map_while(Result::ok)
                .find(|(_, record)| record.kind() == Some(RecordKind::Epoch));
            if let Some((_, record)) = opening
                && let Some(membership) = epoch_membership(record.payload())
            {
                let members = membership.members.as_slice().iter();
                nodes.extend(members.map(|member| member.node.get()));
            }
        }
        Rule {
            epoch: entry.epoch.get(),
            policy: policy_name(entry.policy).to_owned(),
            copies: entry.copies,
            nodes,
        }
    }

    /// The trading session of a message: from the index of its segment, else from the log.
    fn session(&mut self, hit: &Hit<'_>) -> Result<Option<Session>, Failure> {
        let geometry = self.journal.superblock().geometry();
        let segment = geometry.segment_of(hit.block.position);
        let seq = hit.record.seq();
        if self
            .index
            .as_ref()
            .is_none_or(|(found, _)| *found != segment)
        {
            let index = self.journal.side_index(segment).ok();
            // One that was made of what lay here before the log was cut says nothing of this.
            let index = index.filter(|index| {
                let checked = index.check_log(&mut self.points);
                checked.is_ok_and(|checked| checked.is_ok())
            });
            self.index = Some((segment, index));
        }
        let index = self.index.as_mut().and_then(|(_, index)| index.as_mut());
        let indexed = index.and_then(|index| index.session_of(seq).ok());
        let session = match indexed {
            Some(session) => session,
            // Without an index only the session last opened is known.
            None => {
                let last = self.ends.extent()?.tables.trading_session.clone();
                last.filter(|session| session.first_seq <= seq)
            }
        };
        Ok(session.map(|session| Session {
            number: session.number,
            name: session.name.to_string(),
        }))
    }
}

const fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Local => "local",
        Policy::Mirrored => "mirrored",
        Policy::Durable => "durable",
    }
}

fn place(journal: &JournalDir, block: &BlockHeader, offset: usize) -> Place {
    let geometry = journal.superblock().geometry();
    Place {
        directory: journal.path().display().to_string(),
        node: journal.superblock().node.get(),
        position: block.position.get(),
        block: block.number,
        record_offset: offset,
        segment: segment::name(geometry.segment_of(block.position)),
        offset: geometry.offset_of(block.position) + (HEADER_LENGTH + offset) as u64,
    }
}

/// The copy of a message in another journal: at the same place, else wherever its seq is.
fn copy(
    other: &JournalDir,
    points: &mut PointReader,
    hit: &Hit<'_>,
    interrupt: &Interrupt,
) -> Result<OtherCopy, Failure> {
    let mut copy = OtherCopy {
        directory: other.path().display().to_string(),
        node: other.superblock().node.get(),
        place: None,
        is_equal: false,
        is_log_equal: false,
        problem: None,
        is_damaged: false,
    };
    let seq = hit.record.seq();
    if let Ok(Ok(block)) = points.block(hit.block.position) {
        let there = records(block.body)
            .map_while(Result::ok)
            .find(|(_, record)| record.is_data() && record.seq() == seq);
        if let Some((offset, record)) = there {
            copy.place = Some(place(other, &block.header, offset));
            copy.is_log_equal = block.header.checksum == hit.block.checksum;
            copy.judge(hit.record.bytes(), record.bytes());
            return Ok(copy);
        }
    }
    copy.look_elsewhere(other, hit, interrupt)?;
    Ok(copy)
}

impl OtherCopy {
    fn judge(&mut self, ours: &[u8], theirs: &[u8]) {
        self.is_equal = ours == theirs;
        if self.is_equal {
            return;
        }
        let at = ours
            .iter()
            .zip(theirs)
            .position(|(one, other)| one != other);
        let at = at.unwrap_or(ours.len().min(theirs.len()));
        let what = if at < RECORD_HEADER_LENGTH {
            "its header"
        } else {
            "its payload"
        };
        self.problem = Some(format!("differs at byte {at} of the record, in {what}"));
    }

    /// Looks for the seq in a journal that does not have it where the first one has.
    fn look_elsewhere(
        &mut self,
        other: &JournalDir,
        hit: &Hit<'_>,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let seq = hit.record.seq();
        let query = Query::of_seq(seq);
        let ends = Ends::new(other);
        let mut search = Search::new(&ends, &query, true, interrupt)?;
        search.run(&mut |found| {
            self.place = Some(place(other, &found.block, found.offset));
            self.judge(hit.record.bytes(), found.record.bytes());
            Ok(Flow::Enough)
        })?;
        if self.place.is_none() {
            self.is_damaged = !search.damage.is_empty();
            self.problem = Some(match search.damage.first() {
                Some(damage) => damage.clone(),
                None => "it is not there".to_owned(),
            });
        }
        Ok(())
    }
}
