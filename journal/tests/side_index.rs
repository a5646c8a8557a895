//! Goal: an index names every block that holds what is asked for, follows from the log alone, and tells whatever byte of it
//! is changed. Method: logs built in memory are laid out as a journal's directory; each answer is compared with one from
//! reading everything.

mod log;

use std::fs;
use std::path::Path;

use log::{LogBuilder, Random, SEGMENT, superblock};
use relay_journal::block::{HEADER_LENGTH, records};
use relay_journal::reader::JournalDir;
use relay_journal::reader::point::PointReader;
use relay_journal::reader::side_index::{IndexFault, SideIndex, Wanted};
use relay_journal::segment;
use relay_journal::side_index::{
    self, BlockRow, BuildError, Builder, Head, IndexError, PAGE_LENGTH, PairRow, Part, RunRow,
    SessionRow,
};
use relay_journal::superblock::FILE_NAME;
use relay_wire::id::{Incarnation, Position, PublisherId, PublisherSeq, Seq, TopicId};

const FORMAT: &str = include_str!("../FORMAT.md");

/// A log of several segments, with keys and a second trading session.
fn built() -> LogBuilder {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
    log.begin(3, 3);
    let mut random = Random(11);
    log.grow(120, 3_000, &mut random);
    log.session(1, 2);
    log.trading_session(20_260_106, "2026-01-06");
    log.seal();
    for number in 0..60 {
        log.keyed(2 + number % 2, 3, 0x1_0000_0000 + number % 7, &[7; 900]);
        log.seal();
    }
    log
}

fn lay_out(log: &LogBuilder) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bytes = [log.superblock.encode(), log.superblock.encode()].concat();
    fs::write(directory.path().join(FILE_NAME), bytes).expect("written");
    let segments = directory.path().join(segment::DIRECTORY);
    fs::create_dir(&segments).expect("made");
    let prepared = (log.tail() + SEGMENT as usize).next_multiple_of(SEGMENT as usize);
    for (index, bytes) in log.image(prepared).chunks(SEGMENT as usize).enumerate() {
        fs::write(segments.join(segment::name(index as u64)), bytes).expect("written");
    }
    directory
}

/// Segments that are full.
fn finished(log: &LogBuilder) -> u64 {
    log.geometry.segment_of(log.tables.position)
}

/// The bytes of a segment's index, made from the log's own writes.
fn index_of(log: &LogBuilder, segment: u64) -> Vec<u8> {
    let before = log
        .writes
        .iter()
        .take_while(|write| log.geometry.segment_of(write.header.position) < segment);
    let tables = log.tables_after(before.count());
    let session = tables.trading_session.as_ref();
    let mut builder = Builder::new(log::STREAM, log.geometry, segment, session);
    let mut bytes = vec![0; PAGE_LENGTH];
    for write in &log.writes {
        if log.geometry.segment_of(write.header.position) != segment {
            continue;
        }
        assert!(builder.head().is_none(), "not before the last block");
        let body = &write.bytes[HEADER_LENGTH..write.header.body_end()];
        builder.add_block(&write.header, body).expect("it is due");
        if let Some((offset, pages)) = builder.take_pages() {
            assert_eq!(offset as usize, bytes.len());
            bytes.extend(pages);
        }
    }
    let head = builder.head().expect("the segment is full");
    bytes[..PAGE_LENGTH].copy_from_slice(&head);
    bytes
}

fn put_index(directory: &Path, segment: u64, bytes: &[u8]) {
    let home = directory.join(side_index::DIRECTORY);
    fs::create_dir_all(&home).expect("made");
    fs::write(home.join(side_index::name(segment)), bytes).expect("written");
}

/// Positions of the blocks of a segment that hold a message that `is_meant`.
fn blocks_with(
    log: &LogBuilder,
    segment: u64,
    is_meant: &dyn Fn(&relay_wire::record::Record<'_>) -> bool,
) -> Vec<Position> {
    let mut found = Vec::new();
    for write in &log.writes {
        if log.geometry.segment_of(write.header.position) != segment {
            continue;
        }
        let body = &write.bytes[HEADER_LENGTH..write.header.body_end()];
        let holds = records(body)
            .map(|record| record.expect("it is whole").1)
            .any(|record| record.is_data() && is_meant(&record));
        if holds {
            found.push(write.header.position);
        }
    }
    found
}

fn ask(index: &mut SideIndex, wanted: &Wanted<'_>) -> Vec<Position> {
    let head = index.head().clone();
    let mut found = Vec::new();
    for part in head.parts_of(wanted.seqs, wanted.times_ns) {
        let rows = index.blocks(part, wanted).expect("it is intact");
        found.extend(
            rows.iter()
                .map(|row| row.position(head.geometry, head.segment)),
        );
    }
    found
}

#[test]
fn every_block_that_is_meant_is_named() {
    let log = built();
    let directory = lay_out(&log);
    let journal = JournalDir::open(directory.path()).expect("a journal");
    let mut points = PointReader::new(&journal);
    assert!(finished(&log) >= 3);
    let mut keys_found = 0;
    for segment in 0..finished(&log) {
        put_index(directory.path(), segment, &index_of(&log, segment));
        let mut index = journal.side_index(segment).expect("it is intact");
        index.check_all().expect("every page is");
        let checked = index.check_log(&mut points).expect("it can be read");
        checked.expect("it is of this log");
        for seq in index.head().first_seq.0..index.head().next_seq.0 {
            let wanted = Wanted {
                seqs: (Seq(seq), Seq(seq)),
                ..Wanted::ALL
            };
            let truth = blocks_with(&log, segment, &|record| record.seq() == Seq(seq));
            assert_eq!(ask(&mut index, &wanted), truth, "seq {seq}");
        }
        for publisher in 1..=4 {
            for incarnation in [None, Some(Incarnation(1)), Some(Incarnation(2))] {
                for sequence in [None, Some(1), Some(7), Some(30), Some(100_000)] {
                    let wanted = Wanted {
                        publisher: Some(PublisherId(publisher)),
                        incarnation,
                        publisher_seq: sequence.map(PublisherSeq),
                        ..Wanted::ALL
                    };
                    let truth = blocks_with(&log, segment, &|record| {
                        record.publisher() == PublisherId(publisher)
                            && incarnation.is_none_or(|wanted| record.incarnation() == wanted)
                            && sequence.is_none_or(|wanted| record.publisher_seq().0 == wanted)
                    });
                    let found = ask(&mut index, &wanted);
                    // One block more may be named for a sequence: the last of a run that ends before it.
                    assert!(truth.iter().all(|block| found.contains(block)));
                    assert!(
                        sequence.is_some() || found == truth,
                        "publisher {publisher}"
                    );
                    assert!(found.len() <= truth.len() + 2);
                }
            }
        }
        for topics in [
            vec![TopicId(1)],
            vec![TopicId(2), TopicId(3)],
            vec![TopicId(9)],
        ] {
            let wanted = Wanted {
                topics: Some(&topics),
                ..Wanted::ALL
            };
            let truth = blocks_with(&log, segment, &|record| topics.contains(&record.topic()));
            assert_eq!(ask(&mut index, &wanted), truth, "{topics:?}");
        }
        for key_hash in 0x1_0000_0000..0x1_0000_0008_u64 {
            let wanted = Wanted {
                key_hash: Some(key_hash),
                ..Wanted::ALL
            };
            let truth = blocks_with(&log, segment, &|record| {
                record.header().key_hash.get() == key_hash
            });
            keys_found += truth.len();
            assert_eq!(ask(&mut index, &wanted), truth, "key {key_hash:#x}");
        }
        for (from, to) in [(0, 1), (1_500, 3_000), (2_010, 2_010), (3_000, u64::MAX)] {
            let wanted = Wanted {
                times_ns: (from, to),
                ..Wanted::ALL
            };
            let truth = blocks_with(&log, segment, &|record| {
                (from..=to).contains(&record.receive_time_ns())
            });
            let found = ask(&mut index, &wanted);
            assert!(truth.iter().all(|block| found.contains(block)));
            assert!(found.len() <= truth.len() + 1, "times {from} to {to}");
        }
        let wanted = Wanted {
            publisher: Some(PublisherId(1)),
            topics: Some(&[TopicId(1)]),
            ..Wanted::ALL
        };
        for block in ask(&mut index, &wanted) {
            let here = |meant: &dyn Fn(&relay_wire::record::Record<'_>) -> bool| {
                blocks_with(&log, segment, meant).contains(&block)
            };
            assert!(here(&|record| record.publisher() == PublisherId(1)));
            assert!(here(&|record| record.topic() == TopicId(1)));
        }
    }
    assert!(keys_found > 20, "{keys_found}");
}

#[test]
fn the_trading_session_of_a_message_is_known() {
    let log = built();
    let directory = lay_out(&log);
    let journal = JournalDir::open(directory.path()).expect("a journal");
    let second = log.tables.trading_session.clone().expect("one is open");
    let mut seen = [0; 2];
    for segment in 0..finished(&log) {
        put_index(directory.path(), segment, &index_of(&log, segment));
        let mut index = journal.side_index(segment).expect("it is intact");
        for seq in index.head().first_seq.0..index.head().next_seq.0 {
            let session = index
                .session_of(Seq(seq))
                .expect("intact")
                .expect("one is open");
            let is_second = Seq(seq) >= second.first_seq;
            seen[usize::from(is_second)] += 1;
            assert_eq!(
                session.number,
                20_260_105 + u64::from(is_second),
                "seq {seq}"
            );
            assert_eq!(
                &*session.name,
                ["2026-01-05", "2026-01-06"][usize::from(is_second)]
            );
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

/// Goal: a damaged index costs time and never an answer. Method: one bit of bytes all over it is changed, every field's among
/// them.
#[test]
fn every_changed_byte_is_told() {
    let log = built();
    let directory = lay_out(&log);
    let journal = JournalDir::open(directory.path()).expect("a journal");
    let bytes = index_of(&log, 1);
    let head = (0..256).chain((256..PAGE_LENGTH).step_by(61));
    let ends = (PAGE_LENGTH - 8..PAGE_LENGTH).chain(bytes.len() - 8..bytes.len());
    for at in head
        .chain((PAGE_LENGTH..bytes.len()).step_by(61))
        .chain(ends)
    {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        put_index(directory.path(), 1, &changed);
        let fault = match journal.side_index(1) {
            Err(fault) => fault,
            Ok(index) => index.check_all().expect_err("a byte was changed"),
        };
        let page = (at / PAGE_LENGTH) as u32;
        let is_named = match fault {
            IndexFault::Bad(IndexError::Page(found)) => found == page,
            IndexFault::Bad(IndexError::Magic) => at < 8,
            _ => false,
        };
        assert!(is_named, "byte {at}: {fault:?}");
    }
    put_index(directory.path(), 1, &bytes[..bytes.len() - 1]);
    let index = journal.side_index(1).expect("the head is there");
    assert!(index.check_all().is_err(), "a page is cut");
    put_index(directory.path(), 1, &bytes[..100]);
    assert!(matches!(journal.side_index(1), Err(IndexFault::Bad(_))));
    assert!(matches!(journal.side_index(2), Err(IndexFault::Missing)));
}

#[test]
fn the_index_of_something_else_is_refused() {
    let log = built();
    let directory = lay_out(&log);
    let journal = JournalDir::open(directory.path()).expect("a journal");
    put_index(directory.path(), 0, &index_of(&log, 1));
    assert!(matches!(
        journal.side_index(0),
        Err(IndexFault::Bad(IndexError::OtherLog("segment")))
    ));
    let mut other = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
    other.begin(3, 3);
    other.grow(120, 3_000, &mut Random(12));
    put_index(directory.path(), 0, &index_of(&other, 0));
    let index = journal.side_index(0).expect("it is intact");
    let mut points = PointReader::new(&journal);
    let checked = index.check_log(&mut points).expect("it can be read");
    assert!(matches!(
        checked,
        Err(IndexFault::Bad(IndexError::OtherLog(_)))
    ));
}

#[test]
fn blocks_out_of_order_are_refused() {
    let log = built();
    let mut builder = Builder::new(log::STREAM, log.geometry, 0, None);
    let second = &log.writes[1];
    let body = &second.bytes[HEADER_LENGTH..second.header.body_end()];
    assert_eq!(
        builder.add_block(&second.header, body),
        Err(BuildError::Place {
            found: second.header.position,
            expected: Position(0)
        })
    );
}

/// Goal: the text and the layout say the same. Method: sizes and counts as FORMAT.md has them.
#[test]
fn the_layout_is_the_documented_one() {
    let section = FORMAT
        .split("## 9. The side index")
        .nth(1)
        .expect("a section");
    assert_eq!(&side_index::MAGIC.to_le_bytes(), b"RELAYIDX");
    let room = side_index::PAGE_ROOM;
    for (row, size, name, per_page) in [
        (size_of::<BlockRow>(), 24, "blocks", "170 blocks"),
        (size_of::<RunRow>(), 32, "runs", "127 runs"),
        (size_of::<PairRow>(), 8, "entries", "511 entries"),
        (size_of::<SessionRow>(), 272, "sessions", "15 sessions"),
    ] {
        assert_eq!(row, size);
        assert!(
            section.contains(&format!("| {name}, {size} bytes |")),
            "{name}"
        );
        let count = per_page.split(' ').next().expect("a number");
        assert_eq!((room / size).to_string(), count);
        assert!(section.contains(per_page), "{per_page}");
    }
    assert_eq!(size_of::<Part>(), 56);
    let log = built();
    let bytes = index_of(&log, 1);
    let head = Head::decode(&bytes).expect("it is intact");
    let number = |offset: usize, length: usize| {
        let mut wide = [0; 8];
        wide[..length].copy_from_slice(&bytes[offset..offset + length]);
        u64::from_le_bytes(wide)
    };
    for (offset, length, name, value) in [
        (8, 2, "format version", 1),
        (10, 2, "parts", head.parts.len() as u64),
        (12, 4, "stream", 7),
        (16, 8, "segment", 1),
        (24, 8, "segment size", SEGMENT),
        (32, 4, "block alignment", 512),
        (36, 4, "pages", head.pages.into()),
        (40, 4, "first checksum", head.first_checksum.into()),
        (44, 4, "last checksum", head.last_checksum.into()),
        (48, 8, "last position", head.last_position.0),
        (56, 8, "first seq", head.first_seq.0),
        (64, 8, "next seq", head.next_seq.0),
        (72, 8, "first receive time", head.first_time_ns),
        (80, 8, "last receive time", head.last_time_ns),
        (88, 4, "sessions", head.sessions.page.get().into()),
    ] {
        assert_eq!(number(offset, length), value, "{name}");
        assert!(section.contains(&format!("| {offset} | ")), "{name}");
        assert!(section.contains(&format!(" | {name} | ")), "{name}");
    }
    assert_eq!(bytes.len(), head.pages as usize * PAGE_LENGTH);
}
