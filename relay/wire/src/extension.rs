//! The extension area of a record: typed entries between header and payload (`FORMAT.md` section 2).
//!
//! ```text
//!       0       2       4               8
//!       +-------+-------+---------------+----------------- ... --------+
//!       | type  | length| zero          | value, zeroes up to 8 bytes  |   the next entry
//!       +-------+-------+---------------+----------------- ... --------+
//! ```
//!
//! Whoever lays a record out may add entries; the relay carries them unread, and a reader passes over types it does not
//! know. [`crate::record::Record::parse`] checks that an area is a chain of entries, so walking one that came out of a record
//! never fails.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::id::{Incarnation, PublisherId, PublisherSeq, Seq};
use crate::record::{EXTENSION_LENGTH_MAX, Record};
use crate::stride;

/// Bytes in front of an entry's value.
pub const ENTRY_HEADER_LENGTH: usize = 8;
/// Entry type ORIGINAL: who sent the message first and where it stood, on a stream it was replayed from.
pub const ORIGINAL: u16 = 2;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the value is.
    pub entry_type: u16,
    /// The value, without its padding.
    pub value: &'a [u8],
}

/// The entries of an area, in order. It ends at the first bytes that are no entry.
#[must_use]
pub const fn entries(area: &[u8]) -> Entries<'_> {
    Entries { rest: area }
}

/// Iterator over the entries of an area; see [`entries`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.rest.split_first_chunk::<ENTRY_HEADER_LENGTH>()?;
        let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        self.rest = rest.get(stride(length)..)?;
        Some(Entry {
            entry_type: u16::from_le_bytes([head[0], head[1]]),
            value,
        })
    }
}

/// Appends an entry to an area; false, and nothing is changed, where it has no room for it.
#[must_use]
pub fn push(area: &mut Vec<u8>, entry_type: u16, value: &[u8]) -> bool {
    let whole = area.len() + ENTRY_HEADER_LENGTH + stride(value.len());
    let Ok(length) = u16::try_from(value.len()) else {
        return false;
    };
    if whole > EXTENSION_LENGTH_MAX as usize {
        return false;
    }
    area.extend_from_slice(&entry_type.to_le_bytes());
    area.extend_from_slice(&length.to_le_bytes());
    area.extend_from_slice(&[0; 4]);
    area.extend_from_slice(value);
    area.resize(whole, 0);
    true
}

/// A message's identity on the stream it was first recorded on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Original {
    /// Who sent it.
    pub publisher: PublisherId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The publisher's own number.
    pub publisher_seq: PublisherSeq,
    /// Its number in that stream.
    pub seq: Seq,
    /// When that relay received it, ns UTC.
    pub receive_time_ns: u64,
}

/// The value of an ORIGINAL entry.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawOriginal {
    publisher: U64,
    incarnation: U64,
    publisher_seq: U64,
    seq: U64,
    receive_time_ns: U64,
}

const _: () = assert!(size_of::<RawOriginal>() == 40);

impl Original {
    /// The identity a record has where it lies now.
    #[must_use]
    pub fn here(record: &Record<'_>) -> Self {
        Self {
            publisher: record.publisher(),
            incarnation: record.incarnation(),
            publisher_seq: record.publisher_seq(),
            seq: record.seq(),
            receive_time_ns: record.receive_time_ns(),
        }
    }

    /// What an area's ORIGINAL entry says, if it has one.
    #[must_use]
    pub fn find(area: &[u8]) -> Option<Self> {
        let entry = entries(area).find(|entry| entry.entry_type == ORIGINAL)?;
        let (raw, _) = RawOriginal::ref_from_prefix(entry.value).ok()?;
        Some(Self {
            publisher: PublisherId(raw.publisher.get()),
            incarnation: Incarnation(raw.incarnation.get()),
            publisher_seq: PublisherSeq(raw.publisher_seq.get()),
            seq: Seq(raw.seq.get()),
            receive_time_ns: raw.receive_time_ns.get(),
        })
    }

    /// Appends this identity to an area; false, and nothing is changed, where it has no room for it.
    #[must_use]
    pub fn push(&self, area: &mut Vec<u8>) -> bool {
        let raw = RawOriginal {
            publisher: self.publisher.get().into(),
            incarnation: self.incarnation.get().into(),
            publisher_seq: self.publisher_seq.get().into(),
            seq: self.seq.get().into(),
            receive_time_ns: self.receive_time_ns.into(),
        };
        push(area, ORIGINAL, raw.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::RecordKind;
    use crate::record::{Fields, encode};

    const FIRST: Original = Original {
        publisher: PublisherId(17),
        incarnation: Incarnation(1_767_605_400_000_000_000),
        publisher_seq: PublisherSeq(9),
        seq: Seq(42),
        receive_time_ns: 1_767_605_400_000_000_001,
    };

    #[test]
    fn an_entry_is_laid_out_as_the_format_says() {
        let mut area = Vec::new();
        assert!(FIRST.push(&mut area));
        let mut expected = vec![2, 0, 40, 0, 0, 0, 0, 0];
        for field in [
            17,
            1_767_605_400_000_000_000,
            9,
            42,
            1_767_605_400_000_000_001_u64,
        ] {
            expected.extend_from_slice(&field.to_le_bytes());
        }
        assert_eq!(area, expected);
    }

    #[test]
    fn an_identity_stands_behind_entries_of_other_types() {
        let mut area = Vec::new();
        assert!(push(&mut area, 900, b"odd"));
        assert!(FIRST.push(&mut area));
        assert_eq!(area.len(), 8 + 8 + 8 + 40);
        assert_eq!(Original::find(&area), Some(FIRST));
        let mut record = vec![0; 256];
        let fields = Fields::default();
        let length = encode(&mut record, RecordKind::Data, &fields, &area, b"x").expect("room");
        let record = Record::parse(&record[..length]).expect("a chain of entries");
        assert_eq!(Original::find(record.extension()), Some(FIRST));
        let values: Vec<_> = entries(record.extension())
            .map(|entry| entry.value)
            .collect();
        assert_eq!(values[0], b"odd");
        assert_eq!(record.payload(), b"x");
    }

    #[test]
    fn what_is_no_identity_is_none() {
        assert_eq!(Original::find(&[]), None);
        let mut area = Vec::new();
        assert!(push(&mut area, ORIGINAL, &[1; 39]));
        assert_eq!(Original::find(&area), None, "too short");
        for cut in 0..area.len() {
            assert_eq!(entries(&area[..cut]).count(), 0, "{cut}");
        }
    }

    #[test]
    fn a_full_area_takes_nothing_more() {
        let mut area = Vec::new();
        assert!(push(&mut area, 900, &[7; 65_480]));
        assert!(!FIRST.push(&mut area));
        assert_eq!(area.len(), 65_488);
        assert!(!push(&mut Vec::new(), 900, &vec![0; 65_536]));
    }
}
