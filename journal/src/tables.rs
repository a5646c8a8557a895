//! What a log adds up to: the fold of its blocks.
//!
//! Topics, publishers, epochs, the trading session and a sparse index, exactly as they stand at one
//! position. A start rebuilds them from a checkpoint and the log behind it; housekeeping keeps them
//! up to write the next checkpoint; the fold itself checks every rule that one block must keep
//! towards all those before it, so that a log which was folded is a log whose seqs, publisher
//! sequences, incarnations, epochs, topic ids and times are in order.
//!
//! Not here: whether bytes are intact ([`crate::block`]) and what to do where they are not
//! ([`crate::recovery`]).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use relay_wire::code::{Policy, RecordKind};
use relay_wire::id::{
    Epoch, Incarnation, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::record::{Record, RecordError, epoch_body, trading_session_body};
use relay_wire::topic::TopicError;

use crate::block::{self, BlockHeader, BlockKind};
use crate::position_index::{IndexEntry, PositionIndex};
use crate::topics::{DefineError, Topics};

/// Most bytes of a trading session's name.
pub const TRADING_SESSION_NAME_LENGTH_MAX: usize = 255;

/// Where a publisher stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publisher {
    /// The life it is in.
    pub incarnation: Incarnation,
    /// Publisher sequence of its last record in this life; 0 for none yet.
    pub last: PublisherSeq,
    /// Seq of that record; 0 for none yet.
    pub last_seq: Seq,
    /// Checksum of that record; 0 for none yet.
    pub last_checksum: u32,
}

/// Mixes one number into a hash by multiplication: enough for ids that configuration hands out.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// Publishers by id.
pub type Publishers = HashMap<PublisherId, Publisher, BuildHasherDefault<IdHasher>>;

/// One epoch of the log's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: Epoch,
    /// Position of the block that opens it.
    pub start: Position,
    /// Checksum of the block before that one; 0 for none.
    pub previous_checksum: u32,
    /// The seq its first DATA record has.
    pub first_seq: Seq,
    /// Copies each release counts on.
    pub copies: u8,
    /// When a message may be acknowledged.
    pub policy: Policy,
    /// Whether the process before was stopped in order.
    pub clean: bool,
    /// Whether it began with an accepted loss: an UNCLEAN record stands in the block that opens it.
    pub unclean: bool,
}

/// The trading session that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradingSession {
    /// Its number.
    pub number: u64,
    /// Its name.
    pub name: Arc<str>,
    /// The seq its first DATA record has.
    pub first_seq: Seq,
}

/// The fold of a log up to [`Tables::position`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// The stream.
    pub stream: StreamId,
    /// Where the fold stands: the position of the next block.
    pub position: Position,
    /// The number the next block has.
    pub next_block_number: u64,
    /// Checksum of the last block; 0 when there is none.
    pub previous_checksum: u32,
    /// Epoch of the last block; 0 when there is none.
    pub epoch: Epoch,
    /// The seq the next DATA record has.
    pub next_seq: Seq,
    /// Checksum of the DATA record before `next_seq`; 0 when there is none.
    pub last_checksum: u32,
    /// The first seq in the journal.
    pub earliest_seq: Seq,
    /// Receive time of the last record, ns UTC; 0 when there is none.
    pub last_time_ns: u64,
    /// The highest released position any block carries.
    pub released: Position,
    /// Every topic defined.
    pub topics: Topics,
    /// Every publisher that ever began an incarnation.
    pub publishers: Publishers,
    /// The epochs, oldest first.
    pub epochs: Vec<EpochEntry>,
    /// The trading session last opened.
    pub trading_session: Option<TradingSession>,
    /// Where to start reading for a seq or a time.
    pub index: PositionIndex,
}

/// Which rule a block breaks towards those before it. The block may be intact: then who wrote it
/// was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FoldError {
    /// A header field is not what the blocks before demand; the field, what it is and what it has
    /// to be.
    Header {
        /// The field.
        field: &'static str,
        /// What it is.
        found: u64,
        /// What it has to be, or the least it may be.
        expected: u64,
    },
    /// A record is malformed.
    Record(RecordError),
    /// A record's kind is not one of 1 to 127.
    RecordKind(u8),
    /// A record's seq is not the next.
    Seq {
        /// What it is.
        found: Seq,
        /// What it has to be.
        expected: Seq,
    },
    /// A record was received before the one in front of it.
    Time {
        /// Its receive time, ns UTC.
        found: u64,
        /// The one before.
        before: u64,
    },
    /// The counts in the header are not those of the records.
    Counts {
        /// Records found.
        records: u32,
        /// DATA records found.
        data: u32,
    },
    /// A DATA record of a topic that is not defined.
    UnknownTopic(TopicId),
    /// A topic's id is not the next.
    TopicId {
        /// What it is.
        found: TopicId,
        /// What it has to be.
        expected: TopicId,
    },
    /// A topic's name breaks the rules.
    TopicName(TopicError),
    /// A name that already has this id.
    TopicDefinedTwice(TopicId),
    /// A DATA record of a publisher that never began an incarnation.
    UnknownPublisher(PublisherId),
    /// A DATA record of another incarnation than its publisher's, or a session that does not raise
    /// it.
    Incarnation {
        /// The publisher.
        publisher: PublisherId,
        /// What it is.
        found: Incarnation,
        /// The publisher's.
        current: Incarnation,
    },
    /// A publisher sequence is not the next.
    PublisherSeq {
        /// The publisher.
        publisher: PublisherId,
        /// What it is.
        found: PublisherSeq,
        /// What it has to be.
        expected: PublisherSeq,
    },
    /// An epoch does not open with its record, or the record stands elsewhere or says otherwise;
    /// the field.
    Epoch(&'static str),
    /// A TRADING_SESSION record without number and name.
    TradingSession,
}

impl core::fmt::Display for FoldError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Header {
                field,
                found,
                expected,
            } => write!(
                f,
                "the block's {field} is {found}, the log demands {expected}"
            ),
            Self::Record(error) => write!(f, "{error}"),
            Self::RecordKind(kind) => write!(f, "a record of kind {kind} can't be in a journal"),
            Self::Seq { found, expected } => {
                write!(f, "a record has seq {found}, the log demands {expected}")
            }
            Self::Time { found, before } => {
                write!(
                    f,
                    "a record was received at {found} ns, the one before at {before} ns"
                )
            }
            Self::Counts { records, data } => write!(
                f,
                "the block has {records} records, {data} of them DATA; its header says otherwise"
            ),
            Self::UnknownTopic(topic) => write!(f, "a message of topic {topic}, never defined"),
            Self::TopicId { found, expected } => {
                write!(f, "topic {found} is defined where {expected} is next")
            }
            Self::TopicName(error) => write!(f, "a topic's name is refused: {error}"),
            Self::TopicDefinedTwice(before) => {
                write!(f, "a topic is defined that has id {before} already")
            }
            Self::UnknownPublisher(publisher) => {
                write!(f, "a message of publisher {publisher}, which never began")
            }
            Self::Incarnation {
                publisher,
                found,
                current,
            } => write!(
                f,
                "publisher {publisher} is in incarnation {current}, a record says {found}"
            ),
            Self::PublisherSeq {
                publisher,
                found,
                expected,
            } => write!(
                f,
                "publisher {publisher} sends sequence {found} where {expected} is next"
            ),
            Self::Epoch(field) => write!(f, "an epoch does not open as it must: {field}"),
            Self::TradingSession => write!(f, "a trading session without number and name"),
        }
    }
}

impl core::error::Error for FoldError {}

/// Tables are the fold of a log, and the last checksum of the chain stands for all of it.
impl Hash for Tables {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let end = (
            self.position,
            self.next_block_number,
            self.previous_checksum,
        );
        (self.stream, end, self.next_seq, self.released).hash(state);
    }
}

impl Tables {
    /// The tables of a log without a block.
    #[must_use]
    pub fn empty(stream: StreamId) -> Self {
        Self {
            stream,
            position: Position(0),
            next_block_number: 1,
            previous_checksum: 0,
            epoch: Epoch(0),
            next_seq: Seq(1),
            last_checksum: 0,
            earliest_seq: Seq(1),
            last_time_ns: 0,
            released: Position(0),
            topics: Topics::default(),
            publishers: Publishers::default(),
            epochs: Vec::new(),
            trading_session: None,
            index: PositionIndex::default(),
        }
    }

    /// The newest epoch that began with an accepted loss; 0 for none.
    #[must_use]
    pub fn last_unclean(&self) -> Epoch {
        let mut newest_first = self.epochs.iter().rev();
        newest_first
            .find(|entry| entry.unclean)
            .map_or(Epoch(0), |entry| entry.epoch)
    }

    /// Takes the next block in. The caller compared its checksums before; every other rule is
    /// checked here.
    ///
    /// # Errors
    /// [`FoldError`] names the rule. The tables then hold a part of the block and are no longer the
    /// fold of anything: drop them.
    pub fn apply_block(&mut self, header: &BlockHeader, body: &[u8]) -> Result<(), FoldError> {
        self.check_header(header, body)?;
        self.index.offer(IndexEntry {
            position: header.position,
            first_seq: header.first_seq,
            time_before_ns: self.last_time_ns,
            sealed_time_ns: header.sealed_time_ns,
        });
        let skipped = self.next_seq;
        self.next_seq = header.first_seq;
        let mut records = 0;
        let mut is_unclean = false;
        for record in block::records(body) {
            let (_, record) = record.map_err(FoldError::Record)?;
            self.apply_record(header, &record, records == 0)?;
            is_unclean |= record.kind() == Some(RecordKind::Unclean);
            records += 1;
        }
        if header.first_seq != skipped && !is_unclean {
            // Only an accepted loss skips seqs.
            return Err(FoldError::Header {
                field: "first seq",
                found: header.first_seq.0,
                expected: skipped.0,
            });
        }
        let data = (self.next_seq.0 - header.first_seq.0) as u32;
        if records != header.record_count || data != header.data_count {
            return Err(FoldError::Counts { records, data });
        }
        // An epoch opens with its record; only a filler may stand in front of that.
        let is_open = self
            .epochs
            .last()
            .is_some_and(|last| last.epoch == header.epoch);
        if !is_open && header.kind != BlockKind::Filler {
            return Err(FoldError::Epoch("no record opens it"));
        }
        if let (true, Some(opened)) = (is_unclean, self.epochs.last_mut()) {
            opened.unclean = true;
        }
        self.position = header.next_position();
        self.next_block_number = header.number + 1;
        self.previous_checksum = header.checksum;
        self.epoch = header.epoch;
        self.released = self.released.max(header.released);
        Ok(())
    }

    fn check_header(&self, header: &BlockHeader, body: &[u8]) -> Result<(), FoldError> {
        let previous = u64::from(header.previous_checksum);
        let exact = [
            (
                "stream",
                header.stream.get().into(),
                self.stream.get().into(),
            ),
            ("position", header.position.0, self.position.0),
            ("number", header.number, self.next_block_number),
            ("previous checksum", previous, self.previous_checksum.into()),
            ("body length", header.body_length.into(), body.len() as u64),
        ];
        for (field, found, expected) in exact {
            if found != expected {
                return Err(FoldError::Header {
                    field,
                    found,
                    expected,
                });
            }
        }
        if !header.is_seq_due(self.epoch, self.next_seq) {
            return Err(FoldError::Header {
                field: "first seq",
                found: header.first_seq.0,
                expected: self.next_seq.0,
            });
        }
        if header.epoch < self.epoch {
            return Err(FoldError::Header {
                field: "epoch",
                found: header.epoch.0,
                expected: self.epoch.0,
            });
        }
        Ok(())
    }

    fn apply_record(
        &mut self,
        header: &BlockHeader,
        record: &Record<'_>,
        is_first: bool,
    ) -> Result<(), FoldError> {
        let (found, expected) = (record.seq(), self.next_seq);
        if found != expected {
            return Err(FoldError::Seq { found, expected });
        }
        let (found, before) = (record.receive_time_ns(), self.last_time_ns);
        if found < before {
            return Err(FoldError::Time { found, before });
        }
        self.last_time_ns = found;
        match record.kind() {
            Some(RecordKind::Data) => self.apply_data(record),
            Some(RecordKind::Topic) => self.apply_topic(record),
            Some(RecordKind::PublisherSession) => self.apply_publisher_session(record),
            Some(RecordKind::Epoch) => self.apply_epoch(header, record, is_first),
            Some(RecordKind::TradingSession) => self.apply_trading_session(record),
            // They say something about the node that leads, and nothing about the log.
            Some(RecordKind::Unclean | RecordKind::SealKey | RecordKind::Clock) => Ok(()),
            None => match record.header().kind {
                1..=127 => Ok(()),
                kind => Err(FoldError::RecordKind(kind)),
            },
        }
    }

    fn apply_data(&mut self, record: &Record<'_>) -> Result<(), FoldError> {
        let topic = record.topic();
        if topic.get() == 0 || topic.get() as usize > self.topics.len() {
            return Err(FoldError::UnknownTopic(topic));
        }
        let publisher = record.publisher();
        let Some(entry) = self.publishers.get_mut(&publisher) else {
            return Err(FoldError::UnknownPublisher(publisher));
        };
        if record.incarnation() != entry.incarnation {
            return Err(FoldError::Incarnation {
                publisher,
                found: record.incarnation(),
                current: entry.incarnation,
            });
        }
        let (found, expected) = (record.publisher_seq(), entry.last.next());
        if found != expected {
            return Err(FoldError::PublisherSeq {
                publisher,
                found,
                expected,
            });
        }
        entry.last = found;
        entry.last_seq = self.next_seq;
        entry.last_checksum = record.checksum();
        self.last_checksum = record.checksum();
        self.next_seq = self.next_seq.next();
        Ok(())
    }

    fn apply_topic(&mut self, record: &Record<'_>) -> Result<(), FoldError> {
        let (found, expected) = (record.topic(), self.topics.next_id());
        if found != expected {
            return Err(FoldError::TopicId { found, expected });
        }
        let defined = self.topics.define(record.payload());
        defined.map(drop).map_err(|error| match error {
            DefineError::Name(error) => FoldError::TopicName(error),
            DefineError::DefinedBefore(before) => FoldError::TopicDefinedTwice(before),
            DefineError::TooMany => FoldError::TopicId { found, expected },
        })
    }

    fn apply_publisher_session(&mut self, record: &Record<'_>) -> Result<(), FoldError> {
        let publisher = record.publisher();
        if publisher.get() == 0 {
            return Err(FoldError::UnknownPublisher(publisher));
        }
        let found = record.incarnation();
        let current = self
            .publishers
            .get(&publisher)
            .map(|entry| entry.incarnation);
        let current = current.unwrap_or_default();
        if found <= current {
            return Err(FoldError::Incarnation {
                publisher,
                found,
                current,
            });
        }
        self.publishers.insert(
            publisher,
            Publisher {
                incarnation: found,
                last: PublisherSeq(0),
                last_seq: Seq(0),
                last_checksum: 0,
            },
        );
        Ok(())
    }

    fn apply_epoch(
        &mut self,
        header: &BlockHeader,
        record: &Record<'_>,
        is_first: bool,
    ) -> Result<(), FoldError> {
        let body = epoch_body(record.payload()).ok_or(FoldError::Epoch("its record is short"))?;
        let opened = self.epochs.last().map_or(Epoch(0), |last| last.epoch);
        let entry = EpochEntry {
            epoch: Epoch(body.epoch.get()),
            start: Position(body.start_position.get()),
            previous_checksum: body.previous_checksum.get(),
            first_seq: self.next_seq,
            copies: body.copies,
            policy: Policy::from_number(body.policy).ok_or(FoldError::Epoch("policy"))?,
            clean: body.clean == 1,
            unclean: false,
        };
        let wrong = if !is_first {
            "its record is not the block's first"
        } else if entry.epoch != header.epoch || entry.epoch <= opened {
            "epoch"
        } else if entry.start != header.position {
            "start position"
        } else if entry.previous_checksum != header.previous_checksum {
            "checksum of the block before"
        } else if entry.copies == 0 {
            "copies"
        } else if body.clean > 1 || body.reserved != [0; 2] || body.reserved_tail != [0; 15] {
            "reserved bytes"
        } else {
            self.epochs.push(entry);
            return Ok(());
        };
        Err(FoldError::Epoch(wrong))
    }

    fn apply_trading_session(&mut self, record: &Record<'_>) -> Result<(), FoldError> {
        let session = trading_session_body(record.payload());
        let (number, name) = session.ok_or(FoldError::TradingSession)?;
        if name.len() > TRADING_SESSION_NAME_LENGTH_MAX {
            return Err(FoldError::TradingSession);
        }
        self.trading_session = Some(TradingSession {
            number,
            name: name.into(),
            first_seq: self.next_seq,
        });
        Ok(())
    }
}
