//! What the nodes of a group say to each other: the mirror link (`FORMAT.md` section 7).
//!
//! One connection joins two nodes, whichever of them leads. It opens with HELLO and PROOF in both directions; after that the
//! primary sends OPEN, FROM and BLOCKs, a follower HISTORY, and both PROGRESS, which is heartbeat and acknowledgement in
//! one. Every message carries the stream, the epoch its sender stands in and its sender's disk incarnation:
//!
//! ```text
//!       0               4       5       6       8               12              16
//!       +---------------+-------+-------+-------+---------------+---------------+
//!     0 | length        | kind  | vers  | zero  | checksum      | stream        |
//!       +---------------+-------+-------+-------+---------------+---------------+
//!    16 | epoch                                 | incarnation                   |
//!       +---------------------------------------+-------------------------------+
//!    32 | body ...
//! ```
//!
//! The length counts the whole message and is a multiple of 8, so nothing is padded. The checksum is CRC-32C over bytes 0-7 and
//! 12 to the end; in a BLOCK only to byte 31, because a block carries checksums of its own.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{crc32c, crc32c_append};
use crate::id::{Epoch, NodeId, Position, StreamId};
use crate::membership::{MEMBERSHIP_LENGTH_MAX, Membership};
use crate::proof::{self, Nonce, PROOF_LENGTH, Proof};

/// Bytes before the body.
pub const HEADER_LENGTH: usize = 32;
/// Most bytes of a message before the other side has proven itself: a HELLO.
pub const LENGTH_MAX_BEFORE_PROOF: usize = HELLO_LENGTH;
/// Most epochs a HISTORY tells, newest ones.
pub const HISTORY_ENTRIES_MAX: usize = 4_096;
/// Most bytes of any message but a BLOCK.
pub const CONTROL_LENGTH_MAX: usize =
    HEADER_LENGTH + size_of::<RawHistory>() + HISTORY_ENTRIES_MAX * size_of::<RawHistoryEntry>();
/// Bytes of a BLOCK or FETCHED besides the block.
pub const BLOCK_OVERHEAD: usize = HEADER_LENGTH + size_of::<RawPlace>();
/// Bytes of a HELLO.
pub const HELLO_LENGTH: usize = HEADER_LENGTH + size_of::<RawHello>();
/// Version of this protocol.
pub const VERSION: u8 = 1;

const HELLO: u8 = 1;
const PROOF: u8 = 2;
const PROGRESS: u8 = 3;
const OPEN: u8 = 4;
const HISTORY: u8 = 5;
const FROM: u8 = 6;
const BLOCK: u8 = 7;
const ASK_END: u8 = 8;
const HAND_OVER: u8 = 9;
const FETCH: u8 = 10;
const FETCHED: u8 = 11;

/// What every message carries about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Envelope {
    /// The stream.
    pub stream: StreamId,
    /// The epoch the sender leads or has joined; 0 for none.
    pub epoch: Epoch,
    /// The sender's disk.
    pub incarnation: u64,
}

/// The first message in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hello {
    /// 32 bytes nobody can foretell.
    pub nonce: Nonce,
    /// The sender.
    pub node: NodeId,
    /// Random number of the sender's process.
    pub process: u64,
}

/// What a node does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Standing {
    /// It has no epoch: it has started, suspects its primary, or waits for one.
    #[default]
    Seeking = 0,
    /// It follows the epoch's primary.
    Following = 1,
    /// It leads.
    Leading = 2,
}

/// A sign of life, and an acknowledgement: the sender holds everything up to these positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Progress {
    /// The highest epoch the sender promised durably.
    pub promised: Epoch,
    /// The lowest epoch it will join; 0 while it is in one.
    pub lowest_join: Epoch,
    /// Epoch of the newest membership record it knows of.
    pub committed: Epoch,
    /// End of what is on its stable storage.
    pub durable: Position,
    /// End of what it holds in memory, checked against the block before.
    pub received: Position,
    /// How far it knows the log to be released.
    pub released: Position,
    /// Checksum of the block that ends at `durable`; 0 at position 0.
    pub durable_checksum: u32,
    /// Checksum of the block that ends at `received`.
    pub received_checksum: u32,
    /// What the sender does.
    pub standing: Standing,
    /// A write of its disk takes far too long: it should not be counted on.
    pub is_disk_stalled: bool,
    /// It cut damage when it started, and what it lost is unknown.
    pub is_tail_unknown: bool,
}

/// One epoch of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryEntry {
    /// The epoch.
    pub epoch: Epoch,
    /// Position of its first block.
    pub start: Position,
    /// Checksum of the block before.
    pub previous_checksum: u32,
}

/// A follower's log, by its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History<'a> {
    /// End of the log.
    pub tail: Position,
    /// Checksum of the block that ends there.
    pub checksum: u32,
    entries: &'a [RawHistoryEntry],
}

impl<'a> History<'a> {
    /// The newest epochs, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = HistoryEntry> + use<'a> {
        self.entries.iter().map(RawHistoryEntry::read)
    }

    /// Lays a history out in `out` and views it there; only the newest [`HISTORY_ENTRIES_MAX`] entries go in.
    pub fn lay_out(
        tail: Position,
        checksum: u32,
        entries: impl ExactSizeIterator<Item = HistoryEntry>,
        out: &'a mut Vec<RawHistoryEntry>,
    ) -> Self {
        let skipped = entries.len().saturating_sub(HISTORY_ENTRIES_MAX);
        out.clear();
        out.extend(entries.skip(skipped).map(|entry| RawHistoryEntry {
            epoch: entry.epoch.get().into(),
            start: entry.start.get().into(),
            previous_checksum: entry.previous_checksum.into(),
            zero: 0.into(),
        }));
        Self {
            tail,
            checksum,
            entries: out,
        }
    }
}

/// A message. Bytes it refers to lie in what it was decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerMessage<'a> {
    /// Who is there.
    Hello(Hello),
    /// Proof of the group's secret, see [`prove`].
    Proof(Proof),
    /// Heartbeat and acknowledgement.
    Progress(Progress),
    /// The primary of a new epoch asks to be followed; the record as it won it.
    Open(Membership),
    /// The follower has promised the epoch; this is its log.
    History(History<'a>),
    /// The follower's log and the primary's part at this position: everything behind it is to be cut, blocks follow from here.
    From(Position),
    /// A block as it lies in the log, header and body, without padding.
    Block(&'a [u8]),
    /// Promise at least this epoch and say how far your log reaches: the asker cut damage and has to know.
    AskEnd(Epoch),
    /// The primary, whose epoch this is, wants the receiver to take over at once.
    HandOver,
    /// The sender's copy of a block is damaged: what does yours say?
    Fetch(Place),
    /// The answer; with the block asked for, header and body, where there is one.
    Fetched(Place, FetchOutcome, &'a [u8]),
}

/// What a node has where a peer's copy is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FetchOutcome {
    /// An intact block that continues from the place named.
    Here = 0,
    /// An intact log that goes on otherwise, or ends before.
    Otherwise = 1,
    /// Its copy is damaged too.
    Damaged = 2,
}

/// A place in the log, with what stands before it: two logs that agree on it have the same block there, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Position of the block.
    pub position: Position,
    /// Checksum of the block before.
    pub previous_checksum: u32,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerError {
    /// A length that can't be, or longer than allowed now.
    Length(u32),
    /// A kind that is not defined.
    Kind(u8),
    /// Another version of the protocol.
    Version(u8),
    /// The checksum does not fit.
    Checksum,
    /// A field that can't be; which.
    Field(&'static str),
}

impl core::fmt::Display for PeerError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length(length) => write!(f, "a peer's message claims {length} bytes"),
            Self::Kind(kind) => write!(f, "no peer message has kind {kind}"),
            Self::Version(version) => write!(
                f,
                "the peer speaks version {version} of the mirror protocol, this node {VERSION}: \
                 run the same release on all nodes"
            ),
            Self::Checksum => write!(f, "a peer message's checksum does not fit"),
            Self::Field(field) => write!(f, "a peer message's {field} can't be"),
        }
    }
}

impl core::error::Error for PeerError {}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    length: U32,
    kind: u8,
    version: u8,
    zero: U16,
    checksum: U32,
    stream: U32,
    epoch: U64,
    incarnation: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHello {
    nonce: [u8; 32],
    node: U64,
    process: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawProgress {
    promised: U64,
    lowest_join: U64,
    committed: U64,
    durable: U64,
    received: U64,
    released: U64,
    durable_checksum: U32,
    received_checksum: U32,
    standing: u8,
    flags: u8,
    zero: [u8; 6],
}

const FLAG_STALLED: u8 = 1;
const FLAG_UNKNOWN: u8 = 2;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHistory {
    tail: U64,
    checksum: U32,
    count: U32,
}

/// A [`HistoryEntry`] as it lies on the wire.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawHistoryEntry {
    epoch: U64,
    start: U64,
    previous_checksum: U32,
    zero: U32,
}

impl RawHistoryEntry {
    fn read(&self) -> HistoryEntry {
        HistoryEntry {
            epoch: Epoch(self.epoch.get()),
            start: Position(self.start.get()),
            previous_checksum: self.previous_checksum.get(),
        }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPlace {
    position: U64,
    previous_checksum: U32,
    outcome: U32,
}

impl Place {
    fn lay_out(&self, outcome: u32) -> RawPlace {
        RawPlace {
            position: self.position.get().into(),
            previous_checksum: self.previous_checksum.into(),
            outcome: outcome.into(),
        }
    }
}

impl RawPlace {
    fn read(&self) -> Place {
        Place {
            position: Position(self.position.get()),
            previous_checksum: self.previous_checksum.get(),
        }
    }
}

const _: () = {
    assert!(size_of::<RawPlace>() == 16);
    assert!(size_of::<RawHeader>() == HEADER_LENGTH);
    assert!(size_of::<RawHello>() == 48);
    assert!(size_of::<RawProgress>() == 64);
    assert!(size_of::<RawHistory>() == 16);
    assert!(size_of::<RawHistoryEntry>() == 24);
};

/// What the front of a buffer is, as far as its length field tells.
///
/// # Errors
/// [`PeerError::Length`] when no message of at most `length_max` bytes starts so.
pub fn front(buffer: &[u8], length_max: usize) -> Result<Option<usize>, PeerError> {
    let Some(length) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length);
    let bytes = length as usize;
    if bytes < HEADER_LENGTH || bytes > length_max || !bytes.is_multiple_of(8) {
        return Err(PeerError::Length(length));
    }
    Ok((buffer.len() >= bytes).then_some(bytes))
}

/// A proof over both sides' HELLO messages, whole. `is_dialer` says whose it is, so that none can be played back as the
/// other's.
#[must_use]
pub fn prove(secret: &[u8], is_dialer: bool, dialer_hello: &[u8], acceptor_hello: &[u8]) -> Proof {
    proof::peer(secret, is_dialer, dialer_hello, acceptor_hello)
}

impl<'a> PeerMessage<'a> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Proof(_) => PROOF,
            Self::Progress(_) => PROGRESS,
            Self::Open(_) => OPEN,
            Self::History(_) => HISTORY,
            Self::From(_) => FROM,
            Self::Block(_) => BLOCK,
            Self::AskEnd(_) => ASK_END,
            Self::HandOver => HAND_OVER,
            Self::Fetch(_) => FETCH,
            Self::Fetched(..) => FETCHED,
        }
    }

    /// Bytes of the whole message.
    #[must_use]
    pub fn length(&self) -> usize {
        HEADER_LENGTH
            + match self {
                Self::Hello(_) => size_of::<RawHello>(),
                Self::Proof(_) => PROOF_LENGTH,
                Self::Progress(_) => size_of::<RawProgress>(),
                Self::Open(membership) => {
                    let mut bytes = [0; MEMBERSHIP_LENGTH_MAX];
                    membership.encode(&mut bytes)
                }
                Self::History(history) => {
                    size_of::<RawHistory>() + history.entries.as_bytes().len()
                }
                Self::From(_) | Self::AskEnd(_) => 8,
                Self::Block(block) => block.len(),
                Self::HandOver => 0,
                Self::Fetch(_) => size_of::<RawPlace>(),
                Self::Fetched(_, _, block) => size_of::<RawPlace>() + block.len(),
            }
    }

    /// Lays the message out at the start of `out`; returns its length, or as an error the length it would have.
    ///
    /// # Errors
    /// The bytes needed, when `out` has fewer.
    pub fn encode(&self, envelope: &Envelope, out: &mut [u8]) -> Result<usize, usize> {
        let length = self.length();
        let Some(out) = out.get_mut(..length) else {
            return Err(length);
        };
        let (header, body) = out.split_at_mut(HEADER_LENGTH);
        match self {
            Self::Hello(hello) => body.copy_from_slice(
                RawHello {
                    nonce: hello.nonce,
                    node: hello.node.get().into(),
                    process: hello.process.into(),
                }
                .as_bytes(),
            ),
            Self::Proof(proof) => body.copy_from_slice(proof),
            Self::Progress(progress) => body.copy_from_slice(lay_out_progress(progress).as_bytes()),
            Self::Open(membership) => {
                let mut bytes = [0; MEMBERSHIP_LENGTH_MAX];
                let length = membership.encode(&mut bytes);
                body.copy_from_slice(&bytes[..length]);
            }
            Self::History(history) => {
                let raw = RawHistory {
                    tail: history.tail.get().into(),
                    checksum: history.checksum.into(),
                    count: (history.entries.len() as u32).into(),
                };
                let (front, rest) = body.split_at_mut(size_of::<RawHistory>());
                front.copy_from_slice(raw.as_bytes());
                rest.copy_from_slice(history.entries.as_bytes());
            }
            Self::From(position) => body.copy_from_slice(&position.get().to_le_bytes()),
            Self::AskEnd(epoch) => body.copy_from_slice(&epoch.get().to_le_bytes()),
            Self::Block(block) => body.copy_from_slice(block),
            Self::HandOver => {}
            Self::Fetch(place) => body.copy_from_slice(place.lay_out(0).as_bytes()),
            Self::Fetched(place, outcome, block) => {
                let (front, rest) = body.split_at_mut(size_of::<RawPlace>());
                front.copy_from_slice(place.lay_out(*outcome as u32).as_bytes());
                rest.copy_from_slice(block);
            }
        }
        let raw = RawHeader {
            length: (length as u32).into(),
            kind: self.kind(),
            version: VERSION,
            zero: 0.into(),
            checksum: 0.into(),
            stream: envelope.stream.get().into(),
            epoch: envelope.epoch.get().into(),
            incarnation: envelope.incarnation.into(),
        };
        header.copy_from_slice(raw.as_bytes());
        let checksum = checksum_of(out);
        out[8..12].copy_from_slice(&checksum.to_le_bytes());
        Ok(length)
    }

    /// Reads one whole message, as long as [`front`] said.
    ///
    /// # Errors
    /// [`PeerError`] names the rule that is broken.
    pub fn decode(bytes: &'a [u8]) -> Result<(Envelope, Self), PeerError> {
        let claimed = bytes.len() as u32;
        let (raw, body) =
            RawHeader::ref_from_prefix(bytes).map_err(|_| PeerError::Length(claimed))?;
        if raw.length.get() != claimed {
            return Err(PeerError::Length(raw.length.get()));
        }
        if raw.version != VERSION {
            return Err(PeerError::Version(raw.version));
        }
        if raw.checksum.get() != checksum_of(bytes) {
            return Err(PeerError::Checksum);
        }
        if raw.zero.get() != 0 {
            return Err(PeerError::Field("reserved field"));
        }
        let envelope = Envelope {
            stream: StreamId(raw.stream.get()),
            epoch: Epoch(raw.epoch.get()),
            incarnation: raw.incarnation.get(),
        };
        let word = || {
            let bytes = <[u8; 8]>::try_from(body).map_err(|_| PeerError::Length(claimed))?;
            Ok(u64::from_le_bytes(bytes))
        };
        let message = match raw.kind {
            HELLO => {
                let raw = RawHello::ref_from_bytes(body).map_err(|_| PeerError::Length(claimed))?;
                Self::Hello(Hello {
                    nonce: raw.nonce,
                    node: NodeId(raw.node.get()),
                    process: raw.process.get(),
                })
            }
            PROOF => Self::Proof(body.try_into().map_err(|_| PeerError::Length(claimed))?),
            PROGRESS => Self::Progress(read_progress(body)?),
            OPEN => {
                let membership =
                    Membership::decode(body).map_err(|_| PeerError::Field("membership record"))?;
                Self::Open(membership)
            }
            HISTORY => Self::History(read_history(body)?),
            FROM => Self::From(Position(word()?)),
            BLOCK => Self::Block(body),
            ASK_END => Self::AskEnd(read_epoch(word()?)?),
            FETCH => {
                let raw = RawPlace::ref_from_bytes(body).map_err(|_| PeerError::Length(claimed))?;
                if raw.outcome.get() != 0 {
                    return Err(PeerError::Field("reserved field"));
                }
                Self::Fetch(raw.read())
            }
            FETCHED => {
                let (raw, block) =
                    RawPlace::ref_from_prefix(body).map_err(|_| PeerError::Length(claimed))?;
                let outcome = match raw.outcome.get() {
                    0 => FetchOutcome::Here,
                    1 => FetchOutcome::Otherwise,
                    2 => FetchOutcome::Damaged,
                    _ => return Err(PeerError::Field("outcome")),
                };
                if block.is_empty() == (outcome == FetchOutcome::Here) {
                    return Err(PeerError::Field("outcome"));
                }
                Self::Fetched(raw.read(), outcome, block)
            }
            HAND_OVER if body.is_empty() => Self::HandOver,
            HAND_OVER => return Err(PeerError::Length(claimed)),
            kind => return Err(PeerError::Kind(kind)),
        };
        Ok((envelope, message))
    }
}

fn checksum_of(message: &[u8]) -> u32 {
    let end = if message[4] == BLOCK {
        HEADER_LENGTH
    } else {
        message.len()
    };
    crc32c_append(crc32c(&message[..8]), &message[12..end])
}

fn lay_out_progress(progress: &Progress) -> RawProgress {
    RawProgress {
        promised: progress.promised.get().into(),
        lowest_join: progress.lowest_join.get().into(),
        committed: progress.committed.get().into(),
        durable: progress.durable.get().into(),
        received: progress.received.get().into(),
        released: progress.released.get().into(),
        durable_checksum: progress.durable_checksum.into(),
        received_checksum: progress.received_checksum.into(),
        standing: progress.standing as u8,
        flags: u8::from(progress.is_disk_stalled) * FLAG_STALLED
            + u8::from(progress.is_tail_unknown) * FLAG_UNKNOWN,
        zero: [0; 6],
    }
}

fn read_progress(body: &[u8]) -> Result<Progress, PeerError> {
    let raw = RawProgress::ref_from_bytes(body).map_err(|_| PeerError::Field("length"))?;
    if raw.zero != [0; 6] || raw.flags & !(FLAG_STALLED | FLAG_UNKNOWN) != 0 {
        return Err(PeerError::Field("reserved field"));
    }
    let standing = match raw.standing {
        0 => Standing::Seeking,
        1 => Standing::Following,
        2 => Standing::Leading,
        _ => return Err(PeerError::Field("standing")),
    };
    Ok(Progress {
        promised: read_epoch(raw.promised.get())?,
        lowest_join: read_epoch(raw.lowest_join.get())?,
        committed: read_epoch(raw.committed.get())?,
        durable: Position(raw.durable.get()),
        received: Position(raw.received.get()),
        released: Position(raw.released.get()),
        durable_checksum: raw.durable_checksum.get(),
        received_checksum: raw.received_checksum.get(),
        standing,
        is_disk_stalled: raw.flags & FLAG_STALLED != 0,
        is_tail_unknown: raw.flags & FLAG_UNKNOWN != 0,
    })
}

/// An epoch that something is decided by.
fn read_epoch(number: u64) -> Result<Epoch, PeerError> {
    let epoch = Epoch(number);
    (epoch <= Epoch::LAST)
        .then_some(epoch)
        .ok_or(PeerError::Field("epoch"))
}

fn read_history(body: &[u8]) -> Result<History<'_>, PeerError> {
    let (raw, rest) = RawHistory::ref_from_prefix(body).map_err(|_| PeerError::Field("length"))?;
    let entries =
        <[RawHistoryEntry]>::ref_from_bytes(rest).map_err(|_| PeerError::Field("length"))?;
    if entries.len() != raw.count.get() as usize || entries.len() > HISTORY_ENTRIES_MAX {
        return Err(PeerError::Field("count"));
    }
    let is_rising = entries.windows(2).all(|pair| {
        pair[0].epoch.get() < pair[1].epoch.get() && pair[0].start.get() < pair[1].start.get()
    });
    if !is_rising || entries.iter().any(|entry| entry.zero.get() != 0) {
        return Err(PeerError::Field("history"));
    }
    Ok(History {
        tail: Position(raw.tail.get()),
        checksum: raw.checksum.get(),
        entries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Policy;
    use crate::membership::{Member, Members};

    const ENVELOPE: Envelope = Envelope {
        stream: StreamId(3),
        epoch: Epoch(9),
        incarnation: 77,
    };

    fn all(entries: &mut Vec<RawHistoryEntry>) -> Vec<PeerMessage<'_>> {
        let member = Member {
            node: NodeId(1),
            incarnation: 5,
            process: 0,
        };
        let history = [1, 2].map(|n| HistoryEntry {
            epoch: Epoch(n),
            start: Position(n * 4096),
            previous_checksum: 8,
        });
        vec![
            PeerMessage::Hello(Hello {
                nonce: [7; 32],
                node: NodeId(1),
                process: 4,
            }),
            PeerMessage::Proof([9; 32]),
            PeerMessage::Progress(Progress {
                promised: Epoch(4),
                durable: Position(4096),
                durable_checksum: 5,
                standing: Standing::Following,
                is_tail_unknown: true,
                ..Progress::default()
            }),
            PeerMessage::Open(Membership {
                stream: StreamId(3),
                epoch: Epoch(9),
                nonce: 1,
                primary: NodeId(1),
                members: Members::of(&[member]),
                min_copies: 1,
                policy: Policy::Durable,
            }),
            PeerMessage::History(History::lay_out(
                Position(8192),
                6,
                history.into_iter(),
                entries,
            )),
            PeerMessage::From(Position(4096)),
            PeerMessage::AskEnd(Epoch(5)),
            PeerMessage::HandOver,
            PeerMessage::Fetch(Place {
                position: Position(4096),
                previous_checksum: 3,
            }),
            PeerMessage::Fetched(
                Place {
                    position: Position(4096),
                    previous_checksum: 3,
                },
                FetchOutcome::Here,
                &[5; 136],
            ),
            PeerMessage::Fetched(
                Place {
                    position: Position(4096),
                    previous_checksum: 3,
                },
                FetchOutcome::Damaged,
                &[],
            ),
        ]
    }

    /// Goal: what a node decides by is an epoch another can follow. Method: the last there is, and one more.
    #[test]
    fn an_epoch_behind_the_last_is_refused() {
        let decoded = |message: PeerMessage<'_>| {
            let mut bytes = vec![0; message.length()];
            message.encode(&ENVELOPE, &mut bytes).unwrap();
            PeerMessage::decode(&bytes).map(|_| ())
        };
        for (epoch, expected) in [
            (Epoch::LAST, Ok(())),
            (Epoch::LAST.next(), Err(PeerError::Field("epoch"))),
            (Epoch(u64::MAX), Err(PeerError::Field("epoch"))),
        ] {
            let nothing = Progress::default();
            for progress in [
                Progress {
                    promised: epoch,
                    ..nothing
                },
                Progress {
                    lowest_join: epoch,
                    ..nothing
                },
                Progress {
                    committed: epoch,
                    ..nothing
                },
            ] {
                assert_eq!(decoded(PeerMessage::Progress(progress)), expected);
            }
            assert_eq!(decoded(PeerMessage::AskEnd(epoch)), expected);
        }
    }

    /// Goal: every message comes back, and any flipped bit or missing byte is found.
    #[test]
    fn messages_come_back_or_are_refused() {
        let mut entries = Vec::new();
        for message in all(&mut entries) {
            let mut bytes = vec![0; 1024];
            let length = message.encode(&ENVELOPE, &mut bytes).unwrap();
            bytes.truncate(length);
            assert_eq!(front(&bytes, 1024), Ok(Some(length)));
            assert_eq!(PeerMessage::decode(&bytes), Ok((ENVELOPE, message)));
            for bit in 0..length * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    PeerMessage::decode(&bytes).is_err(),
                    "{message:?} bit {bit}"
                );
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            for cut in 0..length {
                assert!(PeerMessage::decode(&bytes[..cut]).is_err());
            }
        }
    }

    /// Goal: a block's frame is protected, its content is left to the block's own checksums.
    #[test]
    fn a_block_travels_as_it_lies() {
        let block = [3_u8; 136];
        let mut bytes = vec![0; 256];
        let length = PeerMessage::Block(&block)
            .encode(&ENVELOPE, &mut bytes)
            .unwrap();
        bytes.truncate(length);
        assert_eq!(
            PeerMessage::decode(&bytes),
            Ok((ENVELOPE, PeerMessage::Block(&block)))
        );
        for bit in 0..HEADER_LENGTH * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(PeerMessage::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn lengths_out_of_range_are_refused() {
        for length in [0, 31, 33, 4096, u32::MAX] {
            assert_eq!(
                front(&length.to_le_bytes(), 512),
                Err(PeerError::Length(length))
            );
        }
        assert_eq!(front(&[40, 0, 0], 512), Ok(None));
        assert_eq!(front(&[40, 0, 0, 0, 1], 512), Ok(None));
    }
}
