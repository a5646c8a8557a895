//! The membership record of a group, and the released floor beside it: what the arbiter keeps for a stream.
//!
//! The record changes only by compare-and-swap on its revision; whoever is in it, and under which epoch, decides what may be
//! released. Both layouts are opaque bytes to the arbiter. The same bytes travel in OPEN from a primary to its peers.
//!
//! ```text
//!       0               4               8               12      14  15  16
//!       +-------------------------------+---------------+-------+---+---+
//!     0 | magic `RELAYMEM`              | stream        |version|pol|cop|
//!       +-------------------------------+---------------+-------+---+---+
//!    16 | epoch                         | nonce                         |
//!       +-------------------------------+---+-----------+---------------+
//!    32 | primary                       |cnt| zero      | checksum      |
//!       +-------------------------------+---+-----------+---------------+
//!    48 | members: node, disk incarnation, process; 24 bytes each ...   |
//!       +---------------------------------------------------------------+
//! ```
//!
//! The checksum is CRC-32C over bytes 0-43 and 48 to the end. The floor is 32 bytes: magic (8), epoch (8), position (8), checksum
//! of the block that ends there (4), CRC-32C over bytes 0-27 (4).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{crc32c, crc32c_append};
use crate::code::Policy;
use crate::id::{Epoch, NodeId, Position, StreamId};

/// Most members of a group's in-sync set.
pub const MEMBERS_MAX: usize = 3;
/// Bytes of a record with the most members.
pub const MEMBERSHIP_LENGTH_MAX: usize = HEADER_LENGTH + MEMBERS_MAX * MEMBER_LENGTH;
/// Bytes of a floor.
pub const FLOOR_LENGTH: usize = 32;

const MAGIC: u64 = u64::from_le_bytes(*b"RELAYMEM");
const FLOOR_MAGIC: u64 = u64::from_le_bytes(*b"RELAYFLR");
const VERSION: u16 = 1;
const HEADER_LENGTH: usize = 48;
const MEMBER_LENGTH: usize = 24;
const CHECKSUM_AT: usize = 44;

/// One copy of the log that a release counts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Which disk of the node's: a replaced one is another.
    pub incarnation: u64,
    /// Which process, where the policy counts on memory; else 0.
    pub process: u64,
}

/// Up to [`MEMBERS_MAX`] members, each node at most once, in the order of their nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Members {
    count: u8,
    members: [Member; MEMBERS_MAX],
}

impl Members {
    /// The set of `members`; of two incarnations of a node the later in the order given stays.
    ///
    /// # Panics
    /// With more than [`MEMBERS_MAX`] nodes: whoever proposes a set counts first.
    #[must_use]
    pub fn of(members: &[Member]) -> Self {
        let mut set = Self::default();
        for member in members {
            set = set.with(*member);
        }
        set
    }

    /// The members in the order of their nodes.
    #[must_use]
    pub fn as_slice(&self) -> &[Member] {
        &self.members[..self.count.into()]
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this very copy is in the set.
    #[must_use]
    pub fn contains(&self, member: &Member) -> bool {
        self.as_slice().contains(member)
    }

    /// The copy of `node` that is in the set.
    #[must_use]
    pub fn of_node(&self, node: NodeId) -> Option<Member> {
        self.as_slice().iter().copied().find(|m| m.node == node)
    }

    /// This set with `member`, which takes the place of an older incarnation of its node.
    ///
    /// # Panics
    /// When the set is full.
    #[must_use]
    pub fn with(&self, member: Member) -> Self {
        let mut set = self.without(member.node);
        assert!(
            set.len() < MEMBERS_MAX,
            "a group has at most {MEMBERS_MAX} members"
        );
        set.members[set.len()] = member;
        set.count += 1;
        let count = set.len();
        set.members[..count].sort_unstable_by_key(|m| m.node);
        set
    }

    /// Whether a copy of `node` can be in it too, in the place of another copy of that node where there is one.
    #[must_use]
    pub fn has_place_for(&self, node: NodeId) -> bool {
        self.len() < MEMBERS_MAX || self.of_node(node).is_some()
    }

    /// This set without any copy of `node`.
    #[must_use]
    pub fn without(&self, node: NodeId) -> Self {
        let mut set = Self::default();
        for member in self.as_slice().iter().filter(|m| m.node != node) {
            set.members[set.len()] = *member;
            set.count += 1;
        }
        set
    }
}

/// Who leads a stream, and which copies hold what is released: rule R1's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The stream.
    pub stream: StreamId,
    /// Rises with every change.
    pub epoch: Epoch,
    /// Random, new with each epoch: tells two records of one epoch apart.
    pub nonce: u64,
    /// The node that leads.
    pub primary: NodeId,
    /// The in-sync set; the primary is in it.
    pub members: Members,
    /// Fewer members than this and nothing is released.
    pub min_copies: u8,
    /// What a release waits for.
    pub policy: Policy,
}

/// How far the primary knew the log to be released, about a second ago at most: a candidate below it lacks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Floor {
    /// The epoch it was written in.
    pub epoch: Epoch,
    /// End of a released block.
    pub position: Position,
    /// Checksum of that block, 0 at position 0.
    pub checksum: u32,
}

/// Why bytes are not a membership record or floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipError {
    /// Too short, or not as long as the fields say.
    Length,
    /// Not such a record at all.
    Magic,
    /// Of a version this software does not know.
    Version(u16),
    /// The checksum does not fit.
    Checksum,
    /// A field that can't be; which.
    Inconsistent(&'static str),
}

impl core::fmt::Display for MembershipError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length => write!(f, "a membership record of the wrong length"),
            Self::Magic => write!(f, "what the arbiter holds is not a membership record"),
            Self::Version(version) => write!(
                f,
                "a membership record of version {version}; this software reads {VERSION}"
            ),
            Self::Checksum => write!(f, "a membership record's checksum does not fit"),
            Self::Inconsistent(field) => write!(f, "a membership record's {field} can't be"),
        }
    }
}

impl core::error::Error for MembershipError {}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMembership {
    magic: U64,
    stream: U32,
    version: U16,
    policy_and_copies: [u8; 2],
    epoch: U64,
    nonce: U64,
    primary: U64,
    count: u8,
    zero: [u8; 3],
    checksum: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMember {
    node: U64,
    incarnation: U64,
    process: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFloor {
    magic: U64,
    epoch: U64,
    position: U64,
    block_checksum: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<RawMembership>() == HEADER_LENGTH);
const _: () = assert!(size_of::<RawMember>() == MEMBER_LENGTH);
const _: () = assert!(size_of::<RawFloor>() == FLOOR_LENGTH);

impl Membership {
    /// Lays the record out in `out` and returns its length.
    ///
    /// # Panics
    /// When `out` is shorter than [`MEMBERSHIP_LENGTH_MAX`], or a field can't be: that must not reach an arbiter.
    pub fn encode(&self, out: &mut [u8]) -> usize {
        assert_eq!(
            self.check(),
            Ok(()),
            "a record is written as it can be read"
        );
        let raw = RawMembership {
            magic: MAGIC.into(),
            stream: self.stream.get().into(),
            version: VERSION.into(),
            policy_and_copies: [self.policy.number(), self.min_copies],
            epoch: self.epoch.get().into(),
            nonce: self.nonce.into(),
            primary: self.primary.get().into(),
            count: self.members.count,
            zero: [0; 3],
            checksum: 0.into(),
        };
        out[..HEADER_LENGTH].copy_from_slice(raw.as_bytes());
        let mut end = HEADER_LENGTH;
        for member in self.members.as_slice() {
            let raw = RawMember {
                node: member.node.get().into(),
                incarnation: member.incarnation.into(),
                process: member.process.into(),
            };
            out[end..end + MEMBER_LENGTH].copy_from_slice(raw.as_bytes());
            end += MEMBER_LENGTH;
        }
        let checksum = crc32c_append(crc32c(&out[..CHECKSUM_AT]), &out[HEADER_LENGTH..end]);
        out[CHECKSUM_AT..HEADER_LENGTH].copy_from_slice(&checksum.to_le_bytes());
        end
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`MembershipError`] names the rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let (raw, rest) =
            RawMembership::ref_from_prefix(bytes).map_err(|_| MembershipError::Length)?;
        if raw.magic.get() != MAGIC {
            return Err(MembershipError::Magic);
        }
        if crc32c_append(crc32c(&bytes[..CHECKSUM_AT]), rest) != raw.checksum.get() {
            return Err(MembershipError::Checksum);
        }
        if raw.version.get() != VERSION {
            return Err(MembershipError::Version(raw.version.get()));
        }
        let count = usize::from(raw.count);
        if count > MEMBERS_MAX || rest.len() != count * MEMBER_LENGTH {
            return Err(MembershipError::Length);
        }
        if raw.zero != [0; 3] {
            return Err(MembershipError::Inconsistent("reserved bytes"));
        }
        let mut members = Members {
            count: raw.count,
            ..Members::default()
        };
        for (at, bytes) in rest.chunks_exact(MEMBER_LENGTH).enumerate() {
            let raw = RawMember::ref_from_bytes(bytes).map_err(|_| MembershipError::Length)?;
            members.members[at] = Member {
                node: NodeId(raw.node.get()),
                incarnation: raw.incarnation.get(),
                process: raw.process.get(),
            };
        }
        let [policy, min_copies] = raw.policy_and_copies;
        let membership = Self {
            stream: StreamId(raw.stream.get()),
            epoch: Epoch(raw.epoch.get()),
            nonce: raw.nonce.get(),
            primary: NodeId(raw.primary.get()),
            members,
            min_copies,
            policy: Policy::from_number(policy).ok_or(MembershipError::Inconsistent("policy"))?,
        };
        membership.check()?;
        Ok(membership)
    }

    fn check(&self) -> Result<(), MembershipError> {
        let members = self.members.as_slice();
        let field = if self.epoch.get() == 0 || self.epoch > Epoch::LAST {
            "epoch"
        } else if members.is_empty() || !members.is_sorted_by(|a, b| a.node < b.node) {
            "members"
        } else if self.members.of_node(self.primary).is_none() {
            "primary"
        } else if self.min_copies == 0 || usize::from(self.min_copies) > MEMBERS_MAX {
            "min_copies"
        } else if self.policy == Policy::Local {
            "policy"
        } else {
            return Ok(());
        };
        Err(MembershipError::Inconsistent(field))
    }
}

impl Floor {
    /// The floor's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FLOOR_LENGTH] {
        let raw = RawFloor {
            magic: FLOOR_MAGIC.into(),
            epoch: self.epoch.get().into(),
            position: self.position.get().into(),
            block_checksum: self.checksum.into(),
            checksum: 0.into(),
        };
        let mut bytes = [0; FLOOR_LENGTH];
        bytes.copy_from_slice(raw.as_bytes());
        let checksum = crc32c(&bytes[..FLOOR_LENGTH - 4]);
        bytes[FLOOR_LENGTH - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a floor.
    ///
    /// # Errors
    /// [`MembershipError`] names the rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let raw = RawFloor::ref_from_bytes(bytes).map_err(|_| MembershipError::Length)?;
        if raw.magic.get() != FLOOR_MAGIC {
            return Err(MembershipError::Magic);
        }
        if crc32c(&bytes[..FLOOR_LENGTH - 4]) != raw.checksum.get() {
            return Err(MembershipError::Checksum);
        }
        Ok(Self {
            epoch: Epoch(raw.epoch.get()),
            position: Position(raw.position.get()),
            checksum: raw.block_checksum.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Membership {
        Membership {
            stream: StreamId(7),
            epoch: Epoch(3),
            nonce: 0x1234_5678_9abc_def0,
            primary: NodeId(2),
            members: Members::of(&[
                Member {
                    node: NodeId(2),
                    incarnation: 20,
                    process: 0,
                },
                Member {
                    node: NodeId(1),
                    incarnation: 10,
                    process: 0,
                },
            ]),
            min_copies: 1,
            policy: Policy::Durable,
        }
    }

    #[test]
    fn a_record_comes_back_and_every_flipped_bit_is_found() {
        let mut bytes = [0; MEMBERSHIP_LENGTH_MAX];
        let length = record().encode(&mut bytes);
        let bytes = &mut bytes[..length];
        assert_eq!(Membership::decode(bytes), Ok(record()));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Membership::decode(bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert!(Membership::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_record_is_of_an_epoch_there_is() {
        for (epoch, is_one) in [
            (Epoch(0), false),
            (Epoch(1), true),
            (Epoch::LAST, true),
            (Epoch::LAST.next(), false),
        ] {
            let record = Membership { epoch, ..record() };
            assert_eq!(record.check().is_ok(), is_one, "{epoch}");
        }
    }

    #[test]
    fn a_floor_comes_back() {
        let floor = Floor {
            epoch: Epoch(2),
            position: Position(8192),
            checksum: 9,
        };
        let mut bytes = floor.encode();
        assert_eq!(Floor::decode(&bytes), Ok(floor));
        bytes[9] ^= 1;
        assert_eq!(Floor::decode(&bytes), Err(MembershipError::Checksum));
    }

    /// Goal: two incarnations of one node never count as two copies.
    #[test]
    fn a_set_holds_a_node_once() {
        let set = record().members.with(Member {
            node: NodeId(1),
            incarnation: 11,
            process: 0,
        });
        assert_eq!(set.len(), 2);
        assert_eq!(set.of_node(NodeId(1)).unwrap().incarnation, 11);
        assert_eq!(set.without(NodeId(1)).len(), 1);
    }

    #[test]
    fn a_full_set_has_a_place_for_its_own_nodes_only() {
        let set = record().members;
        assert!(set.has_place_for(NodeId(3)));
        let full = set.with(Member {
            node: NodeId(3),
            ..Member::default()
        });
        assert!(full.has_place_for(NodeId(1)));
        assert!(!full.has_place_for(NodeId(4)));
    }
}
