//! Goal: what is encoded decodes to the same value, and no bytes whatever make a decoder panic or
//! believe damage. Method: generated values for the round trips; arbitrary bytes and single changes
//! of good ones for the decoders.

mod log;

use log::{LogBuilder, Random, SEGMENT, superblock};
use proptest::prelude::*;
use relay_journal::block::{
    self, BlockError, BlockHeader, BlockKind, HEADER_LENGTH, decode_header, records, seal,
    span_for, verify_body,
};
use relay_journal::checkpoint::{self, CheckpointError};
use relay_journal::superblock::{
    CleanStop, FILE_LENGTH, GENERATION_LENGTH, Superblock, SuperblockError, WriteMethod, newest,
};
use relay_journal::tables::Tables;
use relay_wire::checksum::crc32c;
use relay_wire::id::{Epoch, NodeId, Position, Seq, StreamId};

fn any_header() -> impl Strategy<Value = BlockHeader> {
    let ids = (
        any::<u32>(),
        any::<u64>(),
        1..u64::MAX,
        0..1_u64 << 40,
        1..1_u64 << 60,
    );
    let rest = (
        0..20_u32,
        0..20_u32,
        0..8_000_u32,
        any::<u64>(),
        any::<u64>(),
        any::<u32>(),
    );
    (0..3_usize, 9..17_u32, ids, rest).prop_map(|(kind, alignment, ids, rest)| {
        let kind = BlockKind::ALL[kind];
        let alignment = 1 << alignment;
        let (stream, epoch, number, unit, first_seq) = ids;
        let (count, data, slack, sealed_time_ns, released, previous_checksum) = rest;
        let is_records = kind == BlockKind::Records;
        let record_count = if is_records { count + 1 } else { 0 };
        let body_length = if is_records {
            record_count * 72 + slack / 8 * 8
        } else {
            0
        };
        let position = unit % (1 << 38) * u64::from(alignment);
        BlockHeader {
            kind,
            stream: StreamId(stream),
            epoch: Epoch(epoch),
            number,
            position: Position(position),
            first_seq: Seq(first_seq),
            record_count,
            data_count: data.min(record_count),
            body_length,
            span: span_for(body_length, alignment),
            sealed_time_ns,
            released: Position(released % (position + 1)),
            previous_checksum,
            body_checksum: 0,
            checksum: 0,
        }
    })
}

fn sealed(header: &BlockHeader, fill: u8) -> (BlockHeader, Vec<u8>) {
    let mut block = vec![fill; header.span as usize];
    let header = seal(&mut block, header);
    (header, block)
}

proptest! {
    #[test]
    fn a_sealed_block_reads_back(header in any_header(), fill: u8) {
        let (sealed_header, block) = sealed(&header, fill);
        prop_assert_eq!(decode_header(&block), Ok(sealed_header));
        let body = &block[HEADER_LENGTH..header.body_end()];
        prop_assert_eq!(verify_body(&sealed_header, body), Ok(()));
        prop_assert!(body.iter().all(|&byte| byte == fill));
        prop_assert!(block::is_zero(&block[header.body_end()..]));
        let unfilled = BlockHeader { body_checksum: 0, checksum: 0, ..sealed_header };
        prop_assert_eq!(unfilled, header);
    }

    #[test]
    fn a_changed_header_is_not_read(
        header in any_header(), at in 0..HEADER_LENGTH, flip in 1_u8..,
    ) {
        let (_, mut block) = sealed(&header, 3);
        block[at] ^= flip;
        let expected = if at < 8 {
            matches!(decode_header(&block), Err(BlockError::Magic))
        } else {
            matches!(decode_header(&block), Err(BlockError::HeaderChecksum { .. }))
        };
        prop_assert!(expected, "{:?}", decode_header(&block));
    }

    /// Even with a checksum that fits, so that every check behind it is reached.
    #[test]
    fn no_header_makes_the_decoder_panic(mut bytes: [u8; HEADER_LENGTH], is_like_one: bool) {
        if is_like_one {
            bytes[..12].copy_from_slice(&[&block::MAGIC.to_le_bytes()[..], &[1, 0, 1, 0]].concat());
            bytes[88..124].fill(0);
        }
        let checksum = crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(header) = decode_header(&bytes) {
            let _ = (header.next_position(), header.next_seq(), header.body_end());
        }
    }

    #[test]
    fn no_body_makes_the_records_panic(body in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut end = 0;
        for record in records(&body) {
            let Ok((offset, record)) = record else { break };
            prop_assert_eq!(offset, end);
            end = offset + record.stride();
        }
        prop_assert!(end <= body.len());
    }

    #[test]
    fn no_block_makes_the_fold_panic(
        at in 0..4_000_usize, byte: u8, blocks in 3..12_usize, cut in 0..400_usize,
    ) {
        let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
        log.begin(2, 2);
        log.grow(blocks, 300, &mut Random(at as u64));
        let mut tables = log.tables_after(log.writes.len() - 1);
        let last = log.writes.last().expect("it has blocks");
        let mut body = last.bytes[HEADER_LENGTH..last.header.body_end()].to_vec();
        if !body.is_empty() {
            let at = at % body.len();
            body[at] = byte;
        }
        body.truncate(body.len().saturating_sub(cut / 8 * 8));
        let header = BlockHeader { body_length: body.len() as u32, ..last.header };
        let _ = tables.apply_block(&header, &body);
    }

    #[test]
    fn a_superblock_reads_back(superblock in any_superblock()) {
        prop_assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
    }

    #[test]
    fn a_changed_superblock_is_not_read(
        superblock in any_superblock(), at in 0..GENERATION_LENGTH, flip in 1_u8..,
    ) {
        let mut bytes = superblock.encode();
        bytes[at] ^= flip;
        let error = Superblock::decode(&bytes).expect_err("a byte was changed");
        let is_magic = at < 8;
        prop_assert_eq!(is_magic, error == SuperblockError::NotAJournal);
        prop_assert_eq!(!is_magic, error == SuperblockError::Damaged);
    }

    #[test]
    fn no_superblock_makes_the_decoder_panic(fields: [u8; 120], version in 0_u16..3) {
        let mut bytes = [0; GENERATION_LENGTH];
        bytes[8..128].copy_from_slice(&fields);
        bytes[..8].copy_from_slice(&relay_journal::superblock::MAGIC.to_le_bytes());
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        bytes[11] &= 3;
        let checksum = crc32c(&bytes[..GENERATION_LENGTH - 4]);
        bytes[GENERATION_LENGTH - 4..].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(superblock) = Superblock::decode(&bytes) {
            prop_assert_eq!(superblock.encode(), bytes);
            let _ = superblock.geometry();
        }
    }

    #[test]
    fn a_checkpoint_reads_back(seed: u64, topics in 2..60_u32, blocks in 0..20_usize) {
        let tables = some_tables(seed, topics, blocks);
        let bytes = checkpoint::encode(&tables);
        prop_assert_eq!(checkpoint::decode(&bytes), Ok(tables));
    }

    #[test]
    fn a_changed_checkpoint_is_not_read(seed: u64, at: prop::sample::Index, flip in 1_u8..) {
        let mut bytes = checkpoint::encode(&some_tables(seed, 5, 5));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(checkpoint::decode(&bytes).is_err());
        prop_assert!(checkpoint::decode(&bytes[..at]).is_err());
    }

    /// With length and checksum mended, so that the rows themselves are reached.
    #[test]
    fn no_checkpoint_makes_the_decoder_panic(
        seed: u64,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length: prop::sample::Index,
    ) {
        let mut bytes = checkpoint::encode(&some_tables(seed, 5, 5));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(160 + length.index(bytes.len() - 159));
        mend(&mut bytes);
        if let Ok(tables) = checkpoint::decode(&bytes) {
            prop_assert_eq!(checkpoint::encode(&tables), bytes);
        }
    }
}

fn mend(bytes: &mut [u8]) {
    bytes[..8].copy_from_slice(&checkpoint::MAGIC.to_le_bytes());
    let length = bytes.len() as u64;
    bytes[24..32].copy_from_slice(&length.to_le_bytes());
    let covered = [&bytes[..156], &bytes[160..]].concat();
    bytes[156..160].copy_from_slice(&crc32c(&covered).to_le_bytes());
}

fn some_tables(seed: u64, topics: u32, blocks: usize) -> Tables {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
    log.begin(topics, 2);
    log.grow(blocks, 900, &mut Random(seed));
    log.tables
}

fn any_superblock() -> impl Strategy<Value = Superblock> {
    let clean = prop::option::of((0..1_u64 << 40, any::<u32>(), 1_u64..));
    let mark = || prop::option::of(0..1_u64 << 40);
    let marks = (clean, mark(), mark(), any::<bool>());
    let ids = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>());
    let group = (
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    );
    (9..17_u32, 1..60_000_u64, marks, ids, group).prop_map(
        |(alignment, units, marks, ids, group)| {
            let block_alignment = 1_u32 << alignment;
            let (clean, unknown, learning, is_dsync) = marks;
            let aligned = |unit: u64| Position(unit * u64::from(block_alignment));
            Superblock {
                format_version: 1,
                node: NodeId(ids.0),
                stream: StreamId(ids.1),
                disk_incarnation: ids.2,
                created_ns: ids.3,
                segment_size: units * 65_536,
                block_alignment,
                write_method: if is_dsync {
                    WriteMethod::Dsync
                } else {
                    WriteMethod::Covering
                },
                in_flight_bytes_max: units * 16_384 + 65_536,
                generation: group.0,
                clean: clean.map(|(tail, checksum, next_seq)| CleanStop {
                    tail: aligned(tail),
                    checksum,
                    next_seq: Seq(next_seq),
                }),
                promised: Epoch(group.1),
                committed: Epoch(group.2),
                committed_nonce: group.3,
                unknown_tail: unknown.map(aligned),
                ring_length: group.4,
                learning_from: learning.map(aligned),
            }
        },
    )
}

/// Headers whose checksum fits and that say what can't be.
#[test]
fn an_intact_header_is_still_judged() {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
    log.begin(1, 1);
    let good = &log.writes[1].bytes[..HEADER_LENGTH];
    assert!(decode_header(good).is_ok());
    for (at, bytes, error) in [
        (8, &[2, 0][..], BlockError::Version(2)),
        (10, &[0], BlockError::Kind(0)),
        (10, &[4], BlockError::Kind(4)),
        (11, &[1], BlockError::NotZero),
        (88, &[1], BlockError::NotZero),
        (123, &[1], BlockError::NotZero),
        (24, &[0; 8], BlockError::Inconsistent("block number")),
        (32, &[1], BlockError::Inconsistent("position")),
        (32, &[0xFF; 8], BlockError::Inconsistent("position")),
        (40, &[0; 8], BlockError::Inconsistent("first seq")),
        (48, &[0; 8], BlockError::Inconsistent("record count")),
        (48, &[0xFF; 4], BlockError::Inconsistent("record count")),
        (52, &[0xFF; 4], BlockError::Inconsistent("data count")),
        (56, &[4], BlockError::Inconsistent("body length")),
        (
            56,
            &[0xF8, 0xFF, 0xFF, 0xFF],
            BlockError::Inconsistent("span"),
        ),
        (60, &[0; 4], BlockError::Inconsistent("span")),
        (60, &[0, 2, 0x80, 0], BlockError::Inconsistent("span")),
        (
            72,
            &[0xFF; 8],
            BlockError::Inconsistent("released position"),
        ),
        (10, &[2], BlockError::Inconsistent("body length")),
        (10, &[3], BlockError::Inconsistent("body length")),
    ] {
        let mut header = good.to_vec();
        header[at..at + bytes.len()].copy_from_slice(bytes);
        let checksum = crc32c(&header[..124]);
        header[124..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(decode_header(&header), Err(error), "byte {at}");
    }
    assert_eq!(decode_header(&good[..127]), Err(BlockError::Short));
}

#[test]
fn the_newest_intact_generation_counts() {
    let old = superblock(SEGMENT, 4096, 65_536);
    let new = Superblock {
        generation: 2,
        ..old
    };
    let (a, b) = (old.encode(), new.encode());
    assert_eq!(newest(&a, &b), Ok((new, 1)));
    assert_eq!(newest(&b, &a), Ok((new, 0)));
    // Generation 2 is written over generation 0: torn at any sector it leaves generation 1.
    let before = Superblock {
        generation: 0,
        ..old
    };
    for written in (0..=GENERATION_LENGTH).step_by(512) {
        let mut torn = before.encode();
        torn[..written].copy_from_slice(&b[..written]);
        let (found, slot) = newest(&a, &torn).expect("one of them is whole");
        let is_whole = written == GENERATION_LENGTH;
        assert_eq!(
            (found.generation, slot),
            if is_whole { (2, 1) } else { (1, 0) }
        );
    }
}

#[test]
fn errors_of_the_superblock_tell_what_to_do() {
    let good = superblock(SEGMENT, 4096, 65_536).encode();
    let of_version = |version: u16| {
        let mut bytes = good;
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        let checksum = crc32c(&bytes[..GENERATION_LENGTH - 4]);
        bytes[GENERATION_LENGTH - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    };
    let empty = [0; GENERATION_LENGTH];
    let mut damaged = good;
    damaged[100] ^= 1;
    for (a, b, error) in [
        (&empty, &empty, SuperblockError::NotAJournal),
        (&damaged, &empty, SuperblockError::Damaged),
        (&damaged, &damaged, SuperblockError::Damaged),
        (&of_version(0), &damaged, SuperblockError::OlderVersion(0)),
        (&damaged, &of_version(2), SuperblockError::NewerVersion(2)),
        (&good, &of_version(2), SuperblockError::NewerVersion(2)),
    ] {
        assert_eq!(newest(a, b), Err(error));
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(newest(&[], &good).map(|(_, slot)| slot), Ok(1));
    assert_eq!(FILE_LENGTH, 8192);
    let superblock = superblock(SEGMENT, 4096, 65_536);
    assert_eq!(superblock.check_identity(NodeId(3), StreamId(7)), Ok(()));
    let (found, wanted) = (NodeId(3), NodeId(4));
    let error = superblock.check_identity(wanted, StreamId(7));
    assert_eq!(error, Err(SuperblockError::OtherNode { found, wanted }));
    let (found, wanted) = (StreamId(7), StreamId(8));
    let error = superblock.check_identity(NodeId(3), wanted);
    assert_eq!(error, Err(SuperblockError::OtherStream { found, wanted }));
}

#[test]
fn a_checkpoint_of_an_empty_log_and_a_wrong_count() {
    let empty = Tables::empty(log::STREAM);
    let mut bytes = checkpoint::encode(&empty);
    assert_eq!(checkpoint::decode(&bytes), Ok(empty));
    // Four thousand million topics in no bytes: refused before anything is reserved for them.
    for at in [96, 100, 104, 108] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].fill(0xFF);
        mend(&mut bytes);
        let error = checkpoint::decode(&bytes);
        assert!(
            matches!(error, Err(CheckpointError::Inconsistent(_))),
            "{error:?}"
        );
    }
    bytes[8] = 9;
    mend(&mut bytes);
    assert_eq!(checkpoint::decode(&bytes), Err(CheckpointError::Version(9)));
    assert_eq!(
        checkpoint::parse_name(&checkpoint::name(Position(4096))),
        Some(Position(4096))
    );
    assert_eq!(checkpoint::parse_name("checkpoint-1000.tmp"), None);
}

#[test]
#[should_panic(expected = "impossible released position")]
fn a_block_that_says_more_was_released_than_there_is_is_not_sealed() {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
    log.begin(1, 1);
    let header = log.writes[0].header;
    let wrong = BlockHeader {
        released: header.position.plus(512),
        ..header
    };
    seal(&mut log.writes[0].bytes.clone(), &wrong);
}
