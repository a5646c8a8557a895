//! Two journals of one stream against each other: the same bytes at the same positions, or where they first differ.
//!
//! What lies behind a filler's first unit is not part of the log and not compared: nobody writes it.

use relay_client::wire::id::Position;
use relay_client::wire::record::{HEADER_LENGTH as RECORD_HEADER_LENGTH, Record};
use relay_journal::block::{BlockHeader, HEADER_LENGTH, records};
use relay_journal::reader::{JournalDir, ReaderError};
use relay_journal::scan::Window;
use relay_journal::segment;
use serde::{Deserialize, Serialize};

use super::failed;
use crate::exit::{Failure, Interrupt};
use crate::output::{hex, progress};

/// Where two journals first differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// The two directories.
    pub(crate) journals: [String; 2],
    /// Position of the block.
    pub(crate) position: u64,
    /// The segment file it is in, on both.
    pub(crate) segment: String,
    /// Where in that file.
    pub(crate) offset: u64,
    /// The message concerned, or the next one due there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<u64>,
    /// The field of the block or record.
    pub(crate) field: String,
    /// What the one holds there.
    pub(crate) one: String,
    /// What the other holds.
    pub(crate) other: String,
    /// Whether both blocks are intact: then one of them was rewritten.
    pub(crate) both_intact: bool,
}

impl Difference {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let seq = self
            .seq
            .map_or_else(String::new, |seq| format!(", seq {seq}"));
        let [one, other] = &self.journals;
        format!(
            "the block at position {} (segment {}, offset {}{seq}) in {one} is not the one in {other}: {} is {} and {}",
            self.position, self.segment, self.offset, self.field, self.one, self.other
        )
    }
}

/// What a comparison came to.
#[derive(Debug)]
pub(super) struct Compared {
    /// The first difference; nothing behind it is compared.
    pub(super) difference: Option<Difference>,
    /// How much of the log both have, and alike: not what one of them lacks or can't read.
    pub(super) identical_bytes: u64,
}

/// Compares two journals from where both begin up to `end`. What can't be read in one of them is passed over, to the next segment: it is
/// told when that journal is verified by itself.
pub(super) fn compare(
    one: &JournalDir,
    other: &JournalDir,
    end: Position,
    interrupt: &Interrupt,
) -> Result<Compared, Failure> {
    let geometry = one.superblock().geometry();
    let start = one.start().max(other.start());
    let open = |journal: &JournalDir| {
        let source = journal.read_ahead(end);
        let source = source.map_err(|error| failed(journal.path(), error))?;
        Ok::<_, Failure>(Window::new(Box::new(source), geometry))
    };
    let open_both = || Ok::<_, Failure>((open(one)?, open(other)?));
    let (mut ours, mut theirs) = open_both()?;
    let mut found = Compared {
        difference: None,
        identical_bytes: 0,
    };
    let bar = progress(end.get().saturating_sub(start.get()), "comparing");
    let mut position = start;
    let mut compared = 0_u64;
    while position < end {
        match compare_block((one, &mut ours), (other, &mut theirs), position) {
            Ok(Alike::Block(span)) => {
                found.identical_bytes += span;
                position = position.plus(span);
            }
            Ok(Alike::Neither(unit)) => position = position.plus(unit),
            Ok(Alike::No(difference)) => {
                found.difference = Some(*difference);
                break;
            }
            Err(ReaderError::Source(_)) => {
                position = geometry.start_of(geometry.segment_of(position) + 1);
                // What reads ahead has ended there.
                (ours, theirs) = open_both()?;
            }
            Err(error) => return Err(failed(other.path(), error)),
        }
        compared += 1;
        if compared.is_multiple_of(1024) {
            bar.set_position(position.get().saturating_sub(start.get()));
            interrupt.check()?;
        }
    }
    bar.finish_and_clear();
    Ok(found)
}

/// Whether two places are alike.
enum Alike {
    /// Both hold a block of so many bytes, the same.
    Block(u64),
    /// Neither holds an intact block: what is wrong with each is told elsewhere. Bytes to the next place.
    Neither(u64),
    /// They differ.
    No(Box<Difference>),
}

/// Compares the blocks at a position.
fn compare_block(
    (one, ours): (&JournalDir, &mut Window<'_>),
    (other, theirs): (&JournalDir, &mut Window<'_>),
    position: Position,
) -> Result<Alike, ReaderError> {
    let superblock = one.superblock();
    let alignment = superblock.block_alignment;
    let our_header = ours.examine(position, superblock.stream, None)?;
    let their_header = theirs.examine(position, superblock.stream, None)?;
    let Some(header) = our_header.ok().or(their_header.ok()) else {
        return Ok(Alike::Neither(alignment.into()));
    };
    let length = header.written_length(alignment) as usize;
    let our_bytes = ours.bytes(position, length)?;
    let their_bytes = theirs.bytes(position, length)?;
    if our_bytes == their_bytes {
        return Ok(Alike::Block(header.span.into()));
    }
    let geometry = superblock.geometry();
    let place = name_difference(our_bytes, their_bytes, &header, our_header.is_ok());
    Ok(Alike::No(Box::new(Difference {
        journals: [one, other].map(|journal| journal.path().display().to_string()),
        position: position.get(),
        segment: segment::name(geometry.segment_of(position)),
        offset: geometry.offset_of(position),
        seq: place.seq,
        field: place.field,
        one: place.one,
        other: place.other,
        both_intact: our_header.is_ok() && their_header.is_ok(),
    })))
}

/// A field and what two copies hold in it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    seq: Option<u64>,
    field: String,
    one: String,
    other: String,
}

/// Offset and name of each field of a block's header. Checksums follow from the rest, so they come last.
const BLOCK_FIELDS: [(usize, usize, &str); 18] = [
    (0, 8, "the block's magic"),
    (8, 2, "the block's format version"),
    (10, 1, "the block's kind"),
    (12, 4, "the block's stream"),
    (16, 8, "the block's epoch"),
    (24, 8, "the block's number"),
    (32, 8, "the block's position"),
    (40, 8, "the block's first seq"),
    (48, 4, "the block's record count"),
    (52, 4, "the block's data count"),
    (56, 4, "the block's body length"),
    (60, 4, "the block's span"),
    (64, 8, "the block's sealed time"),
    (72, 8, "the block's released position"),
    (11, 1, "a reserved byte of the block"),
    (80, 4, "the block's previous checksum"),
    (84, 4, "the block's body checksum"),
    (124, 4, "the block's header checksum"),
];

/// The same for a record's header.
const RECORD_FIELDS: [(usize, usize, &str); 12] = [
    (0, 4, "the record's length"),
    (4, 1, "the record's kind"),
    (5, 1, "the record's flags"),
    (6, 2, "the record's extension length"),
    (8, 4, "the record's topic"),
    (16, 8, "the record's publisher"),
    (24, 8, "the record's incarnation"),
    (32, 8, "the record's publisher sequence"),
    (40, 8, "the record's key hash"),
    (48, 8, "the record's origin time"),
    (56, 8, "the record's seq"),
    (64, 8, "the record's receive time"),
];

/// Checksum of a record, looked at after everything it covers.
const RECORD_CHECKSUM: (usize, usize, &str) = (12, 4, "the record's checksum");
/// From here on a block's header fields are checksums.
const CHECKSUMS_FROM: usize = 15;

/// Names the field in which two blocks differ; `header` is that of an intact one of them, the first or the second.
fn name_difference(one: &[u8], other: &[u8], header: &BlockHeader, is_first: bool) -> Place {
    let shorter = one.len().min(other.len());
    if one.len() != other.len() {
        return Place {
            seq: Some(header.first_seq.get()),
            field: "the block".to_owned(),
            one: format!("{} bytes", one.len()),
            other: format!("{} bytes", other.len()),
        };
    }
    let (fields, checksums) = BLOCK_FIELDS.split_at(CHECKSUMS_FROM);
    let seq = Some(header.first_seq.get());
    if let Some(place) = field_of(one, other, fields, seq) {
        return place;
    }
    let body = HEADER_LENGTH..header.body_end().min(shorter);
    let (ours, theirs) = (&one[body.clone()], &other[body.clone()]);
    if let Some(at) = first_difference(ours, theirs) {
        let whole = if is_first { ours } else { theirs };
        return in_record(ours, theirs, whole, at);
    }
    if let Some(at) = first_difference(&one[body.end..], &other[body.end..]) {
        return byte_at(
            one,
            other,
            body.end + at,
            "the padding behind the records",
            seq,
        );
    }
    field_of(one, other, checksums, seq).unwrap_or_else(|| {
        let at = first_difference(one, other).unwrap_or_default();
        byte_at(one, other, at, "a reserved byte of the block", seq)
    })
}

/// The record that byte `at` of the body lies in, and the field of it.
fn in_record(one: &[u8], other: &[u8], whole: &[u8], at: usize) -> Place {
    let mut last: Option<(usize, Record<'_>)> = None;
    for (offset, record) in records(whole).map_while(Result::ok) {
        if offset > at {
            break;
        }
        last = Some((offset, record));
    }
    let Some((offset, record)) = last else {
        return byte_at(one, other, at, "the block's body", None);
    };
    let seq = Some(record.seq().get());
    let end = (offset + record.stride()).min(one.len());
    let (ours, theirs) = (&one[offset..end], &other[offset..end]);
    if let Some(place) = field_of(ours, theirs, &RECORD_FIELDS, seq) {
        return place;
    }
    let extension = RECORD_HEADER_LENGTH + record.extension().len();
    let payload_end = record.bytes().len();
    for (from, to, name) in [
        (
            RECORD_HEADER_LENGTH,
            extension,
            "the record's extension area",
        ),
        (extension, payload_end, "the payload"),
        (payload_end, ours.len(), "the padding behind the record"),
    ] {
        if let Some(at) = first_difference(&ours[from..to], &theirs[from..to]) {
            let field = format!("{name}, byte {at}");
            return byte_at(ours, theirs, from + at, &field, seq);
        }
    }
    field_of(ours, theirs, &[RECORD_CHECKSUM], seq)
        .unwrap_or_else(|| byte_at(one, other, at, "the block's body", seq))
}

/// The first of these fields that differs.
fn field_of(
    one: &[u8],
    other: &[u8],
    fields: &[(usize, usize, &str)],
    seq: Option<u64>,
) -> Option<Place> {
    let number = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(wide).to_string()
    };
    fields.iter().find_map(|&(offset, length, name)| {
        let (ours, theirs) = (
            one.get(offset..offset + length)?,
            other.get(offset..offset + length)?,
        );
        (ours != theirs).then(|| Place {
            seq,
            field: name.to_owned(),
            one: number(ours),
            other: number(theirs),
        })
    })
}

fn byte_at(one: &[u8], other: &[u8], at: usize, field: &str, seq: Option<u64>) -> Place {
    let shown = |bytes: &[u8]| {
        let end = bytes.len().min(at + 1);
        format!("0x{}", hex(&bytes[at.min(end)..end]))
    };
    Place {
        seq,
        field: field.to_owned(),
        one: shown(one),
        other: shown(other),
    }
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    one.iter().zip(other).position(|(one, other)| one != other)
}

#[cfg(test)]
mod tests {
    use relay_client::wire::code::RecordKind;
    use relay_client::wire::id::{Epoch, PublisherId, Seq, StreamId, TopicId};
    use relay_client::wire::record::{Fields, encode, stamp};
    use relay_journal::block::{BlockKind, seal};

    use super::*;

    /// A block of two messages.
    fn block() -> (Vec<u8>, BlockHeader) {
        let mut bytes = vec![0; 512];
        let mut at = HEADER_LENGTH;
        for seq in [7, 8] {
            let fields = Fields {
                topic: TopicId(3),
                publisher: PublisherId(5),
                ..Fields::default()
            };
            let stride = encode(&mut bytes[at..], RecordKind::Data, &fields, &[], b"order");
            stamp(&mut bytes[at..], Seq(seq), 1_000 + seq);
            at += stride.expect("it has room");
        }
        let header = BlockHeader {
            kind: BlockKind::Records,
            stream: StreamId(1),
            epoch: Epoch(1),
            number: 1,
            position: Position(0),
            first_seq: Seq(7),
            record_count: 2,
            data_count: 2,
            body_length: (at - HEADER_LENGTH) as u32,
            span: 512,
            sealed_time_ns: 99,
            released: Position(0),
            previous_checksum: 0,
            body_checksum: 0,
            checksum: 0,
        };
        let header = seal(&mut bytes, &header);
        (bytes, header)
    }

    /// Goal: whatever byte differs is named by the field it lies in. Method: each byte of a block changed.
    #[test]
    fn every_byte_belongs_to_a_field() {
        let (bytes, header) = block();
        let stride = (header.body_length / 2) as usize;
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            let place = name_difference(&changed, &bytes, &header, false);
            let expected = match at {
                16..24 => "the block's epoch",
                64..72 => "the block's sealed time",
                88..124 => "a reserved byte of the block",
                124..128 => "the block's header checksum",
                _ if at >= header.body_end() => "the padding behind the records",
                _ if at >= HEADER_LENGTH => {
                    let second = usize::from(at >= HEADER_LENGTH + stride);
                    assert_eq!(place.seq, Some(7 + second as u64), "byte {at}");
                    match (at - HEADER_LENGTH) % stride {
                        8..12 => "the record's topic",
                        12..16 => "the record's checksum",
                        56..64 => "the record's seq",
                        72..77 => "the payload",
                        77.. => "the padding behind the record",
                        _ => "the record's",
                    }
                }
                _ => "",
            };
            assert!(place.field.starts_with(expected), "byte {at}: {place:?}");
            assert_ne!(place.one, place.other, "byte {at}: {place:?}");
        }
    }

    /// A forger mends the checksums; what is named is what was forged.
    #[test]
    fn a_forged_payload_is_named_before_its_checksums() {
        let (bytes, header) = block();
        let mut forged = bytes.clone();
        let payload = HEADER_LENGTH + RECORD_HEADER_LENGTH;
        forged[payload + 1] = b'X';
        seal(&mut forged, &header);
        let place = name_difference(&bytes, &forged, &header, true);
        assert_eq!(
            (place.seq, place.field.as_str()),
            (Some(7), "the payload, byte 1")
        );
        assert_eq!((place.one.as_str(), place.other.as_str()), ("0x72", "0x58"));
    }
}
