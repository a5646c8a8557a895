//! What a witness keeps on its disk: the registers of each stream, in two generations.
//!
//! The file `registers` is a head in two copies, then two pages of 4 KiB for each stream there is
//! room for. A change is written over the stream's older page in one durable write; the newer intact
//! page is the stream's state, so a torn write leaves the state before it, which is the one that was
//! last answered for.
//!
//! ```text
//!       0               4               8       10      12              16
//!       +-------------------------------+-------+-------+---------------+
//!     0 | magic                         |version| zero  | stream        |
//!       +-------------------------------+-------+-------+---------------+
//!    16 | generation                    | revision last                 |
//!       +-------------------------------+-------------------------------+
//!    32 | record's revision             | floor's revision              |
//!       +-------+-------+---------------+-------------------------------+
//!    48 |rec len|flr len| zero                                          |
//!       +-------+-------+-----------------------------------------------+
//!    64 | record, 256 bytes ...                                         |
//!       +---------------------------------------------------------------+
//!   320 | floor, 256 bytes ...                                          |
//!       +---------------------------------------------------------------+
//!   576 | zero ...                                      | checksum      |
//!       +-----------------------------------------------+---------------+
//! ```

use relay_wire::checksum::crc32c;
use relay_wire::id::StreamId;
use relay_wire::witness::{Cell, Registers, VALUE_LENGTH_MAX, Value};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::is_zero;

/// Name of the file.
pub const FILE_NAME: &str = "registers";
/// Bytes of a page.
pub const PAGE_LENGTH: usize = 4096;
/// Streams a witness has room for.
pub const STREAMS_MAX: usize = 64;
/// Bytes of the file: two heads, and two pages for each stream.
pub const FILE_LENGTH: usize = (2 + 2 * STREAMS_MAX) * PAGE_LENGTH;
/// The first eight bytes of a head, `RELAYWST`.
pub const HEAD_MAGIC: u64 = u64::from_le_bytes(*b"RELAYWST");
/// The first eight bytes of a stream's page, `RELAYREG`.
pub const PAGE_MAGIC: u64 = u64::from_le_bytes(*b"RELAYREG");
/// The format this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;

const CHECKSUM_AT: usize = PAGE_LENGTH - 4;

/// Where page `which` (0 or 1) of the stream in `place` lies in the file; the heads lie in front.
///
/// # Panics
/// Beyond the last place or page.
#[must_use]
pub const fn offset_of(place: usize, which: usize) -> u64 {
    assert!(place < STREAMS_MAX && which < 2, "there is such a page");
    ((2 + 2 * place + which) * PAGE_LENGTH) as u64
}

/// A stream's registers in one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The stream.
    pub stream: StreamId,
    /// From 1, one more with each write.
    pub generation: u64,
    /// The highest revision ever used.
    pub revision_last: u64,
    /// What they hold.
    pub registers: Registers,
}

/// Why a page is not one to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistersError {
    /// Not such a file at all.
    NotAStore,
    /// All zeroes: never written.
    Blank,
    /// It was written, but its checksum does not fit.
    Damaged,
    /// An intact page of another version than this software reads.
    Version(u16),
    /// An intact page with a field that can't be; which.
    Inconsistent(&'static str),
}

impl core::fmt::Display for RegistersError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotAStore => write!(
                f,
                "this is not a witness's store; check the path, or make one with `relayd format`"
            ),
            Self::Blank => write!(f, "the page was never written"),
            Self::Damaged => write!(
                f,
                "both generations are damaged, so the membership record is lost here: keep the \
                 file, replace the disk, and see README.md, \"The arbiters\", before you make a \
                 new store with `relayd format`: no group goes on with an empty one"
            ),
            Self::Version(version) => write!(
                f,
                "the store has format version {version}, this software reads {FORMAT_VERSION}: use \
                 the release that wrote it"
            ),
            Self::Inconsistent(field) => write!(f, "a page's {field} can't be"),
        }
    }
}

impl core::error::Error for RegistersError {}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHead {
    magic: U64,
    version: U16,
    zero: [u8; 6],
    created_ns: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPage {
    magic: U64,
    version: U16,
    zero: U16,
    stream: U32,
    generation: U64,
    revision_last: U64,
    record_revision: U64,
    floor_revision: U64,
    record_length: U16,
    floor_length: U16,
    zero_tail: [u8; 12],
    record: [u8; VALUE_LENGTH_MAX],
    floor: [u8; VALUE_LENGTH_MAX],
}

const HEAD_RAW_LENGTH: usize = 24;
const PAGE_RAW_LENGTH: usize = 576;
const _: () = assert!(size_of::<RawHead>() == HEAD_RAW_LENGTH);
const _: () = assert!(size_of::<RawPage>() == PAGE_RAW_LENGTH);

fn seal(raw: &[u8]) -> [u8; PAGE_LENGTH] {
    let mut bytes = [0; PAGE_LENGTH];
    bytes[..raw.len()].copy_from_slice(raw);
    let checksum = crc32c(&bytes[..CHECKSUM_AT]);
    bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Checks what every page has: magic, checksum, version, and zeroes behind the first `length` bytes.
fn open(
    bytes: &[u8; PAGE_LENGTH],
    magic: u64,
    version: u16,
    length: usize,
) -> Result<(), RegistersError> {
    if is_zero(bytes) {
        return Err(RegistersError::Blank);
    }
    let is_intact = crc32c(&bytes[..CHECKSUM_AT]).to_le_bytes() == bytes[CHECKSUM_AT..];
    if bytes[..8] != magic.to_le_bytes() || !is_intact {
        return Err(RegistersError::Damaged);
    }
    if version != FORMAT_VERSION {
        return Err(RegistersError::Version(version));
    }
    if !is_zero(&bytes[length..CHECKSUM_AT]) {
        return Err(RegistersError::Inconsistent("reserved area"));
    }
    Ok(())
}

/// The head of a store made at that time, ns UTC.
#[must_use]
pub fn encode_head(created_ns: u64) -> [u8; PAGE_LENGTH] {
    let raw = RawHead {
        magic: HEAD_MAGIC.into(),
        version: FORMAT_VERSION.into(),
        zero: [0; 6],
        created_ns: created_ns.into(),
    };
    seal(raw.as_bytes())
}

/// When the store was made, ns UTC, from whichever of the two heads is intact.
///
/// # Errors
/// [`RegistersError::NotAStore`] when neither is; a version or a field that can't be.
pub fn decode_heads(a: &[u8; PAGE_LENGTH], b: &[u8; PAGE_LENGTH]) -> Result<u64, RegistersError> {
    let decode = |bytes: &[u8; PAGE_LENGTH]| {
        let (raw, _) = RawHead::ref_from_prefix(bytes).expect("a page is longer");
        open(bytes, HEAD_MAGIC, raw.version.get(), HEAD_RAW_LENGTH)?;
        if raw.zero != [0; 6] {
            return Err(RegistersError::Inconsistent("reserved area"));
        }
        Ok(raw.created_ns.get())
    };
    let is_unreadable = |error| matches!(error, RegistersError::Blank | RegistersError::Damaged);
    match (decode(a), decode(b)) {
        (Err(a), Err(b)) if is_unreadable(a) && is_unreadable(b) => Err(RegistersError::NotAStore),
        (Err(error), _) | (_, Err(error)) if !is_unreadable(error) => Err(error),
        (Ok(created), _) | (_, Ok(created)) => Ok(created),
        (Err(_), Err(_)) => Err(RegistersError::NotAStore),
    }
}

fn field(value: Option<&Value>) -> [u8; VALUE_LENGTH_MAX] {
    let mut bytes = [0; VALUE_LENGTH_MAX];
    if let Some(value) = value {
        bytes[..value.as_slice().len()].copy_from_slice(value.as_slice());
    }
    bytes
}

fn value(bytes: &[u8; VALUE_LENGTH_MAX], length: u16) -> Option<Value> {
    let (held, rest) = bytes.split_at_checked(length.into())?;
    if is_zero(rest) {
        Value::new(held)
    } else {
        None
    }
}

impl Page {
    /// The bytes of this page.
    ///
    /// # Panics
    /// When a field can't be: what can't be read back must not be written.
    #[must_use]
    pub fn encode(&self) -> [u8; PAGE_LENGTH] {
        assert_eq!(self.check(), Ok(()), "a page is written as it can be read");
        let Registers { record, floor } = &self.registers;
        let length = |value: &Value| value.as_slice().len() as u16;
        let raw = RawPage {
            magic: PAGE_MAGIC.into(),
            version: FORMAT_VERSION.into(),
            zero: 0.into(),
            stream: self.stream.get().into(),
            generation: self.generation.into(),
            revision_last: self.revision_last.into(),
            record_revision: record.revision.into(),
            floor_revision: floor.map_or(0, |cell| cell.revision).into(),
            record_length: length(&record.value).into(),
            floor_length: floor.map_or(0, |cell| length(&cell.value)).into(),
            zero_tail: [0; 12],
            record: field(Some(&record.value)),
            floor: field(floor.as_ref().map(|cell| &cell.value)),
        };
        seal(raw.as_bytes())
    }

    /// Reads one page.
    ///
    /// # Errors
    /// Every [`RegistersError`] but [`RegistersError::NotAStore`].
    pub fn decode(bytes: &[u8; PAGE_LENGTH]) -> Result<Self, RegistersError> {
        let (raw, _) = RawPage::ref_from_prefix(bytes).expect("a page is longer");
        open(bytes, PAGE_MAGIC, raw.version.get(), PAGE_RAW_LENGTH)?;
        if raw.zero.get() != 0 || raw.zero_tail != [0; 12] {
            return Err(RegistersError::Inconsistent("reserved area"));
        }
        let record = value(&raw.record, raw.record_length.get())
            .ok_or(RegistersError::Inconsistent("record"))?;
        let floor = match (raw.floor_revision.get(), raw.floor_length.get()) {
            (0, 0) if is_zero(&raw.floor) => None,
            (revision, length) => Some(Cell {
                revision,
                value: value(&raw.floor, length).ok_or(RegistersError::Inconsistent("floor"))?,
            }),
        };
        let page = Self {
            stream: StreamId(raw.stream.get()),
            generation: raw.generation.get(),
            revision_last: raw.revision_last.get(),
            registers: Registers {
                record: Cell {
                    revision: raw.record_revision.get(),
                    value: record,
                },
                floor,
            },
        };
        page.check()?;
        Ok(page)
    }

    fn check(&self) -> Result<(), RegistersError> {
        let is_used = |cell: &Cell| (1..=self.revision_last).contains(&cell.revision);
        let field = if self.generation == 0 {
            "generation"
        } else if !is_used(&self.registers.record) {
            "record's revision"
        } else if !self.registers.floor.as_ref().is_none_or(is_used) {
            "floor's revision"
        } else {
            return Ok(());
        };
        Err(RegistersError::Inconsistent(field))
    }
}

/// The state of the stream whose two pages these are, and which of them (0 or 1) holds it: the next
/// change goes to the other. `None`: the place is free.
///
/// # Errors
/// [`RegistersError::Damaged`] when neither can be read though both were written; what makes an
/// intact page unusable, whatever lies beside it.
pub fn newest(
    a: &[u8; PAGE_LENGTH],
    b: &[u8; PAGE_LENGTH],
) -> Result<Option<(Page, usize)>, RegistersError> {
    use RegistersError::{Blank, Damaged};
    match (Page::decode(a), Page::decode(b)) {
        (Ok(a), Ok(b)) if a.stream != b.stream => Err(RegistersError::Inconsistent("stream")),
        (Ok(a), Ok(b)) if b.generation > a.generation => Ok(Some((b, 1))),
        (Ok(a), Ok(_) | Err(Blank | Damaged)) => Ok(Some((a, 0))),
        (Err(Blank | Damaged), Ok(b)) => Ok(Some((b, 1))),
        // A creation writes both pages before it is answered: one alone was cut short.
        (Err(Blank), Err(Blank | Damaged)) | (Err(Damaged), Err(Blank)) => Ok(None),
        (Err(Damaged), Err(Damaged)) => Err(Damaged),
        (Err(error), Ok(_) | Err(Blank | Damaged)) | (Ok(_) | Err(Blank | Damaged), Err(error)) => {
            Err(error)
        }
        (Err(a), Err(_)) => Err(a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(generation: u64) -> Page {
        let cell = |revision, bytes| Cell {
            revision,
            value: Value::new(bytes).unwrap(),
        };
        Page {
            stream: StreamId(7),
            generation,
            revision_last: 9,
            registers: Registers {
                record: cell(8, b"record"),
                floor: Some(cell(9, &[3; VALUE_LENGTH_MAX])),
            },
        }
    }

    fn mended(mut bytes: [u8; PAGE_LENGTH]) -> [u8; PAGE_LENGTH] {
        let checksum = crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_page_comes_back_and_every_flipped_bit_is_found() {
        let without_floor = Page {
            registers: Registers {
                floor: None,
                ..page(1).registers
            },
            ..page(1)
        };
        for page in [page(1), without_floor] {
            let bytes = page.encode();
            assert_eq!(Page::decode(&bytes), Ok(page));
            for at in 0..PAGE_LENGTH {
                let mut changed = bytes;
                changed[at] ^= 1 << (at % 8);
                assert_eq!(Page::decode(&changed), Err(RegistersError::Damaged));
            }
        }
        assert_eq!(Page::decode(&[0; PAGE_LENGTH]), Err(RegistersError::Blank));
    }

    /// Goal: an intact page with a field that can't be is refused by name. Method: change a field, mend the checksum.
    #[test]
    fn fields_that_cannot_be_are_refused() {
        for (at, to, expected) in [
            (8, 2, RegistersError::Version(2)),
            (10, 1, RegistersError::Inconsistent("reserved area")),
            (16, 0, RegistersError::Inconsistent("generation")),
            (32, 0, RegistersError::Inconsistent("record's revision")),
            (32, 10, RegistersError::Inconsistent("record's revision")),
            (40, 0, RegistersError::Inconsistent("floor's revision")),
            (40, 10, RegistersError::Inconsistent("floor's revision")),
            (48, 0, RegistersError::Inconsistent("record")),
            (48, 2, RegistersError::Inconsistent("record")),
            (49, 2, RegistersError::Inconsistent("record")),
            (50, 1, RegistersError::Inconsistent("floor")),
            (53, 1, RegistersError::Inconsistent("reserved area")),
            (600, 1, RegistersError::Inconsistent("reserved area")),
        ] {
            let mut bytes = page(1).encode();
            bytes[at] = to;
            assert_eq!(Page::decode(&mended(bytes)), Err(expected), "byte {at}");
        }
    }

    /// Goal: every pair of pages has one meaning. Method: all combinations of what a page can be.
    #[test]
    fn the_table_of_two_pages() {
        let damaged = {
            let mut bytes = page(5).encode();
            bytes[700] = 1;
            bytes
        };
        let newer = {
            let mut bytes = page(5).encode();
            bytes[8] = 2;
            mended(bytes)
        };
        let odd = {
            let mut bytes = page(5).encode();
            bytes[16] = 0;
            mended(bytes)
        };
        let other = Page {
            stream: StreamId(8),
            ..page(3)
        };
        let kinds = [
            ("blank", [0; PAGE_LENGTH]),
            ("damaged", damaged),
            ("old", page(3).encode()),
            ("new", page(4).encode()),
            ("version", newer),
            ("odd", odd),
            ("other", other.encode()),
        ];
        for (a, a_bytes) in &kinds {
            for (b, b_bytes) in &kinds {
                let expected = match (*a, *b) {
                    ("version", _) => Err(RegistersError::Version(2)),
                    ("odd", _) => Err(RegistersError::Inconsistent("generation")),
                    (_, "version") => Err(RegistersError::Version(2)),
                    (_, "odd") => Err(RegistersError::Inconsistent("generation")),
                    ("other", "old" | "new") | ("old" | "new", "other") => {
                        Err(RegistersError::Inconsistent("stream"))
                    }
                    ("old" | "blank" | "damaged", "new") => Ok(Some((page(4), 1))),
                    ("new", _) => Ok(Some((page(4), 0))),
                    ("old", _) => Ok(Some((page(3), 0))),
                    (_, "old") => Ok(Some((page(3), 1))),
                    ("other", _) => Ok(Some((other, 0))),
                    (_, "other") => Ok(Some((other, 1))),
                    ("damaged", "damaged") => Err(RegistersError::Damaged),
                    _ => Ok(None),
                };
                assert_eq!(newest(a_bytes, b_bytes), expected, "{a}, {b}");
            }
        }
    }

    #[test]
    fn either_head_will_do() {
        let head = encode_head(77);
        let blank = [0; PAGE_LENGTH];
        let mut damaged = head;
        damaged[17] ^= 1;
        let mut newer = head;
        newer[8] = 9;
        let newer = mended(newer);
        let mut odd = head;
        odd[11] = 9;
        let odd = mended(odd);
        for other in [head, blank, damaged] {
            assert_eq!(decode_heads(&head, &other), Ok(77));
            assert_eq!(decode_heads(&other, &head), Ok(77));
        }
        for (a, b) in [(blank, blank), (blank, damaged), (damaged, damaged)] {
            assert_eq!(decode_heads(&a, &b), Err(RegistersError::NotAStore));
        }
        let page = page(1).encode();
        assert_eq!(decode_heads(&page, &page), Err(RegistersError::NotAStore));
        assert_eq!(decode_heads(&head, &newer), Err(RegistersError::Version(9)));
        assert_eq!(
            decode_heads(&odd, &head),
            Err(RegistersError::Inconsistent("reserved area"))
        );
    }

    #[test]
    fn pages_lie_one_after_the_other() {
        let mut expected = 2 * PAGE_LENGTH as u64;
        for place in 0..STREAMS_MAX {
            for which in 0..2 {
                assert_eq!(offset_of(place, which), expected);
                expected += PAGE_LENGTH as u64;
            }
        }
        assert_eq!(expected, FILE_LENGTH as u64);
    }
}
