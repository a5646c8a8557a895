//! Goal: whatever a crash leaves of the writes in flight, recovery keeps everything that was
//! released and alters nothing; what rots later is found, at the right place. Method: a log of
//! separate writes (`log`) is cut off at a submission; the disk then holds all that was durable and
//! every chosen subset of writes, or of their sectors, that were in flight. The expected end is
//! computed from the writes alone: the first one that is not whole.

mod log;

use log::{
    LogBuilder, MemorySource, Random, SECTOR, SEGMENT, Write, put, recover_image, superblock,
};
use relay_journal::block::{BlockHeader, BlockKind, HEADER_LENGTH, seal};
use relay_journal::recovery::{
    Beyond, Clean, Decision, Front, LogSource, Recovered, RecoveryError, SourceError, recover,
};
use relay_journal::superblock::{CleanStop, Superblock};
use relay_journal::tables::Tables;
use relay_wire::code::Policy;
use relay_wire::id::{Epoch, Position, StreamId};

const WINDOW: u64 = 64 * 1024;

fn built(seed: u64, alignment: u32, blocks: usize, payload_max: u64) -> LogBuilder {
    let mut log = LogBuilder::new(superblock(SEGMENT, alignment, WINDOW));
    log.begin(2, 2);
    log.grow(blocks, payload_max, &mut Random(seed));
    log
}

fn prepared(log: &LogBuilder) -> usize {
    (log.tail() + 4 * WINDOW as usize).next_multiple_of(SEGMENT as usize)
}

/// A moment of the log's life: `submitted` writes were submitted, the first `durable` of them are
/// durable.
struct Moment<'a> {
    log: &'a LogBuilder,
    submitted: usize,
    durable: usize,
    image: Vec<u8>,
    start: Tables,
}

impl<'a> Moment<'a> {
    fn new(log: &'a LogBuilder, submitted: usize) -> Self {
        let durable = log.writes[submitted - 1].durable_before;
        let mut image = vec![0; prepared(log)];
        for write in &log.writes[..durable] {
            put(&mut image, write);
        }
        // Some starts have a checkpoint, which never lies past what was released.
        let checkpoint = if submitted.is_multiple_of(3) {
            0
        } else {
            durable
        };
        Self {
            log,
            submitted,
            durable,
            image,
            start: log.tables_after(checkpoint),
        }
    }

    fn in_flight(&self) -> &'a [Write] {
        &self.log.writes[self.durable..self.submitted]
    }

    /// Recovers with the first `whole` of the writes in flight whole, the one after them not.
    fn expect_tail_after(&self, image: &[u8], whole: usize, what: &str) -> Recovered {
        let superblock = &self.log.superblock;
        let recovered = recover_image(image, superblock, self.start.clone());
        let recovered = recovered.unwrap_or_else(|error| panic!("{what}: {error}"));
        let count = self.durable + whole;
        let tail = self
            .log
            .writes
            .get(count)
            .map_or(self.log.tail(), Write::position);
        assert_eq!(recovered.tail.0 as usize, tail, "{what}");
        // Equal tables: the same seqs, publishers, topics, checksums, and the chain proves every
        // byte before.
        assert_eq!(recovered.tables, self.log.tables_after(count), "{what}");
        let cut = recovered.cut.map_or(0, |cut| cut.leftovers as usize);
        assert!(
            image[tail + cut..].iter().all(|&byte| byte == 0),
            "{what}: leftovers"
        );
        recovered
    }
}

/// How many writes are whole on the disk before the first that is not.
fn whole(image: &[u8], writes: &[Write]) -> usize {
    let is_whole =
        |write: &&Write| image[write.position()..][..write.bytes.len()] == write.bytes[..];
    writes.iter().take_while(is_whole).count()
}

/// A disk that gives one image until it is asked to forget what it gave, and then another.
struct Unsteady<'a> {
    before: &'a [u8],
    after: &'a [u8],
}

impl LogSource for Unsteady<'_> {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        MemorySource(self.before).read_at(position, buffer)
    }

    fn forget(&mut self) {
        self.before = self.after;
    }
}

/// Goal: bytes of earlier, read once, neither shorten the log nor lengthen it. Method: the end is read from the disk as it was some
/// writes ago and then as it is, and the other way round; and from a disk that cut its end and wrote another one.
#[test]
fn an_end_that_is_another_when_read_again_is_an_error() {
    let log = built(53, 512, 60, 3_000);
    let image_of = |writes: &[Write]| {
        let mut image = vec![0; prepared(&log)];
        writes.iter().for_each(|write| put(&mut image, write));
        image
    };
    let all = &log.writes;
    let whole = image_of(all);
    let recovered = |before: &[u8], after: &[u8], start: usize| {
        let mut source = Unsteady { before, after };
        recover(
            &mut source,
            &log.superblock,
            log.tables_after(start),
            &mut |_| {},
        )
    };
    for missing in 1..=16 {
        let left = all.len() - missing;
        let earlier = image_of(&all[..left]);
        // From the first byte, and from a checkpoint at the earlier end: then no block is read before it.
        for start in [0, left] {
            let at = all[left].header.position;
            let shorter = recovered(&earlier, &whole, start);
            assert_eq!(shorter, Err(RecoveryError::Unsteady { position: at }));
            let last = all[all.len() - 1].header.position;
            let longer = recovered(&whole, &earlier, start);
            assert_eq!(longer, Err(RecoveryError::Unsteady { position: last }));
        }
    }
    let steady = recovered(&whole, &whole, 0).expect("it is whole");
    assert_eq!(steady.tables, log.tables_after(all.len()));
}

/// Goal: a copy that caught up when it was killed may lack a block in the middle of what was in flight, and the blocks behind tell of
/// releases far ahead: from its learning mark on that proves nothing, and the log is cut; before the mark, and more than W back, the
/// damage is rotten. Method: blocks that tell of releases behind the missing one, with the mark before, at and behind it.
#[test]
fn from_the_learning_mark_on_a_release_proves_nothing() {
    let log = built(31, 512, 300, 3_000);
    let end = log.tail() as u64;
    let (mut near, mut far) = (0, 0);
    for (number, write) in log.writes.iter().enumerate().skip(2) {
        let position = write.header.position;
        let later = &log.writes[number + 1..];
        if !later.iter().any(|later| later.header.released > position) {
            continue;
        }
        let mut image = vec![0; prepared(&log)];
        for other in log
            .writes
            .iter()
            .filter(|w| w.position() != write.position())
        {
            put(&mut image, other);
        }
        let decided = |learning_from: Option<Position>| {
            let superblock = Superblock {
                learning_from,
                ..log.superblock
            };
            let recovered = recover_image(&image, &superblock, log.tables_after(0));
            recovered.map(|recovered| (recovered.decision, recovered.tail))
        };
        let is_rotten = |decided| matches!(decided, Err(RecoveryError::Rotten(_)));
        assert!(is_rotten(decided(None)));
        assert!(is_rotten(decided(Some(position.plus(512)))));
        for mark in [Position(0), position] {
            if end - position.get() <= WINDOW {
                let cut = (Decision::CutTorn, position);
                assert_eq!(decided(Some(mark)), Ok(cut));
                near += 1;
            } else {
                assert!(is_rotten(decided(Some(mark))));
                far += 1;
            }
        }
    }
    assert!(near > 10 && far > 10, "{near} near, {far} far");
}

/// Goal: where releases rest on copies in memory, the disk follows them: what may have been in flight may be torn, whatever later blocks
/// tell of releases; with one copy, or on disks, that proves that it was durable. Found by the simulator: after a blackout no
/// node of such a group started. Method: one block missing, in epochs of each kind.
#[test]
fn where_memory_counts_a_release_proves_nothing() {
    let log = built(33, 512, 300, 3_000);
    let end = log.tail() as u64;
    let (mut near, mut far) = (0, 0);
    for (number, write) in log.writes.iter().enumerate().skip(2) {
        let position = write.header.position;
        let later = &log.writes[number + 1..];
        if !later.iter().any(|later| later.header.released > position) {
            continue;
        }
        let mut image = vec![0; prepared(&log)];
        let others = log.writes.iter();
        others
            .filter(|other| other.position() != write.position())
            .for_each(|other| put(&mut image, other));
        let decided = |policy, copies| {
            let mut tables = log.tables_after(number);
            let epoch = tables.epochs.last_mut().unwrap();
            (epoch.policy, epoch.copies) = (policy, copies);
            let recovered = recover_image(&image, &log.superblock, tables);
            recovered.map(|recovered| (recovered.decision, recovered.tail))
        };
        let is_rotten = |decided| matches!(decided, Err(RecoveryError::Rotten(_)));
        assert!(is_rotten(decided(Policy::Durable, 2)));
        assert!(is_rotten(decided(Policy::Mirrored, 1)));
        if end - position.get() <= WINDOW {
            let cut = (Decision::CutTorn, position);
            assert_eq!(decided(Policy::Mirrored, 2), Ok(cut));
            near += 1;
        } else {
            assert!(is_rotten(decided(Policy::Mirrored, 2)));
            far += 1;
        }
    }
    assert!(near > 3 && far > 10, "{near} near, {far} far");
}

#[test]
fn any_subset_of_the_writes_in_flight() {
    let log = built(11, 512, 300, 3_000);
    let mut random = Random(12);
    let mut images = 0;
    for submitted in (1..=log.writes.len()).step_by(7) {
        let moment = Moment::new(&log, submitted);
        let writes = moment.in_flight();
        // All subsets of up to 6 writes, 64 random ones of more.
        let subsets = 1_u64 << writes.len().min(6);
        for number in 0..subsets {
            let subset = if writes.len() <= 6 {
                number
            } else {
                random.below(1 << writes.len())
            };
            let mut image = moment.image.clone();
            for (bit, write) in writes.iter().enumerate() {
                if subset & (1 << bit) != 0 {
                    put(&mut image, write);
                }
            }
            let count = whole(&image, writes);
            let what = format!("submitted {submitted}, subset {subset:b}");
            moment.expect_tail_after(&image, count, &what);
            images += 1;
        }
    }
    assert!(images > 500, "{images}");
}

#[test]
fn every_sector_cut_of_every_write_in_flight() {
    let log = built(21, 512, 200, 3_000);
    let mut images = 0;
    for submitted in (1..=log.writes.len()).step_by(13) {
        let moment = Moment::new(&log, submitted);
        let writes = moment.in_flight();
        for (torn, write) in writes.iter().enumerate() {
            for sectors in 0..=write.bytes.len() / SECTOR {
                // The writes before are whole; of this one the first sectors or the last ones
                // arrived; of those after it, the odd ones did.
                for is_head in [true, false] {
                    let mut image = moment.image.clone();
                    writes[..torn]
                        .iter()
                        .for_each(|write| put(&mut image, write));
                    let after = writes[torn + 1..].iter().skip(1).step_by(2);
                    after.for_each(|write| put(&mut image, write));
                    let split = sectors * SECTOR;
                    let range = if is_head {
                        0..split
                    } else {
                        split..write.bytes.len()
                    };
                    image[write.position()..][range.clone()].copy_from_slice(&write.bytes[range]);
                    let count = whole(&image, writes);
                    let what = format!("submitted {submitted}, torn {torn}, sectors {sectors}");
                    moment.expect_tail_after(&image, count, &what);
                    images += 1;
                }
            }
        }
    }
    assert!(images > 500, "{images}");
}

#[test]
fn any_subset_of_all_sectors_in_flight() {
    let log = built(31, 4096, 120, 6_000);
    let mut random = Random(32);
    for submitted in (1..=log.writes.len()).step_by(5) {
        let moment = Moment::new(&log, submitted);
        let writes = moment.in_flight();
        for round in 0..24 {
            let mut image = moment.image.clone();
            for write in writes {
                for (sector, bytes) in write.bytes.chunks(SECTOR).enumerate() {
                    if random.below(4) != 0 {
                        let at = write.position() + sector * SECTOR;
                        image[at..at + bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
            let count = whole(&image, writes);
            let what = format!("submitted {submitted}, round {round}");
            moment.expect_tail_after(&image, count, &what);
        }
    }
}

/// What recovery must say of a log whose write `index` is damaged, from the writes alone.
fn is_proven(log: &LogBuilder, index: usize) -> bool {
    let tail = log.writes[index].header.position;
    log.writes[index + 1..].iter().any(|later| {
        let end = later.header.position.plus(later.bytes.len() as u64);
        later.header.released > tail || end.since(tail) > log.superblock.in_flight_bytes_max
    })
}

fn expect_damage_at(log: &LogBuilder, image: &[u8], index: usize, start: Tables, what: &str) {
    let position = log.writes[index].header.position;
    match recover_image(image, &log.superblock, start) {
        Ok(recovered) => {
            assert!(
                !is_proven(log, index),
                "{what}: cut although it was durable"
            );
            assert_eq!(recovered.tail, position, "{what}");
            assert_eq!(recovered.decision, Decision::CutTorn, "{what}");
        }
        Err(RecoveryError::Rotten(finding)) => {
            assert!(is_proven(log, index), "{what}: rotten without proof");
            assert_eq!(finding.position, position, "{what}");
            assert_eq!(finding.segment, position.0 / SEGMENT, "{what}");
            assert_eq!(finding.offset, position.0 % SEGMENT, "{what}");
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn every_single_byte_flip_is_found_where_it_is() {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 4096));
    log.begin(2, 2);
    log.grow(14, 300, &mut Random(41));
    let clean = log.image(log.tail() + 8192);
    let mut image = clean.clone();
    let mut proven = 0;
    for (index, write) in log.writes.iter().enumerate() {
        proven += usize::from(is_proven(&log, index));
        for at in write.position()..write.position() + write.bytes.len() {
            for flip in [0x01, 0x80, 0xFF] {
                image[at] ^= flip;
                let what = format!("byte {at} of write {index} flipped by {flip:#x}");
                expect_damage_at(&log, &image, index, Tables::empty(log::STREAM), &what);
                image[at] = clean[at];
            }
        }
    }
    assert!(proven > 2 && proven < log.writes.len(), "{proven}");
    // Behind the tail: something was written there that is no block.
    for at in [
        log.tail(),
        log.tail() + 127,
        log.tail() + 128,
        log.tail() + 4000,
    ] {
        image[at] = 1;
        let recovered = recover_image(&image, &log.superblock, Tables::empty(log::STREAM));
        let recovered = recovered.expect("nothing shows it was durable");
        assert_eq!(recovered.decision, Decision::CutTorn);
        let cut = recovered.cut.expect("something was cut");
        assert_eq!(cut.position, log.tables.position);
        assert!(cut.leftovers as usize > at - log.tail());
        image[at] = 0;
    }
}

/// Durable and not released: only the distance of what was submitted later shows it.
#[test]
fn damage_more_than_a_window_back_is_rot_without_any_release() {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 16_384));
    log.is_held = true;
    log.begin(2, 2);
    log.grow(80, 2_000, &mut Random(45));
    let clean = log.image(prepared(&log));
    let mut proven = 0;
    for (index, write) in log.writes.iter().enumerate() {
        let mut image = clean.clone();
        image[write.position() + 125] ^= 1;
        let what = format!("write {index}");
        expect_damage_at(&log, &image, index, Tables::empty(log::STREAM), &what);
        proven += usize::from(is_proven(&log, index));
    }
    assert!(proven > 40 && proven < log.writes.len() - 2, "{proven}");
}

#[test]
fn a_zeroed_block_is_missed() {
    let log = built(51, 512, 100, 2_000);
    let clean = log.image(prepared(&log));
    for (index, write) in log.writes.iter().enumerate() {
        let mut image = clean.clone();
        image[write.position()..][..write.bytes.len()].fill(0);
        if index + 1 == log.writes.len() {
            // The one undecidable case: the very last block of a node standing alone.
            let recovered = recover_image(&image, &log.superblock, log.tables_after(index));
            assert_eq!(
                recovered.expect("it looks unwritten").decision,
                Decision::End
            );
        } else {
            let what = format!("write {index} zeroed");
            expect_damage_at(&log, &image, index, log.tables_after(index / 2), &what);
        }
    }
}

/// A hole longer than any window is found by the blocks at the starts of later segments.
#[test]
fn a_hole_of_many_segments_is_missed() {
    let mut log = LogBuilder::new(superblock(SEGMENT, 4096, 4096));
    log.begin(2, 2);
    let segments = 200;
    while log.tail() < segments * SEGMENT as usize {
        log.data(1, 1, &[7; 20_000]);
        log.seal();
        log.mark();
    }
    let mut image = log.image(log.tail() + SEGMENT as usize);
    let hole = 30 * SEGMENT as usize..170 * SEGMENT as usize;
    image[hole.clone()].fill(0);
    let error = recover_image(&image, &log.superblock, Tables::empty(log::STREAM));
    let Err(RecoveryError::Rotten(finding)) = error else {
        panic!("the hole was taken for the end: {error:?}");
    };
    assert_eq!(finding.position.0 as usize, hole.start);
    assert_eq!(finding.evidence.front, Front::Zeroed);
    assert_eq!(finding.evidence.beyond, Beyond::IntactReleasingBeyond);
}

/// A log cut in its middle and continued in a new epoch over what was left there, none of it
/// zeroed.
#[test]
fn leftovers_of_a_cut_never_come_back() {
    let old = built(61, 512, 80, 1_500);
    for cut in 2..old.writes.len() {
        let tables = old.tables_after(cut);
        let mut new = LogBuilder::after(old.superblock, tables, Epoch(2));
        new.grow(cut % 9, 1_000, &mut Random(62 + cut as u64));
        let mut image = old.image(prepared(&old));
        new.writes.iter().for_each(|write| put(&mut image, write));
        let recovered = recover_image(&image, &old.superblock, old.tables_after(cut / 2));
        let recovered = recovered.unwrap_or_else(|error| panic!("cut at write {cut}: {error}"));
        assert_eq!(recovered.tables, new.tables, "cut at write {cut}");
        // The rest is zeroed as told, then the log ends clean.
        if let Some(found) = recovered.cut {
            let tail = recovered.tail.0 as usize;
            image[tail..tail + found.leftovers as usize].fill(0);
        }
        let again = recover_image(&image, &old.superblock, old.tables_after(cut / 2));
        let again = again.unwrap_or_else(|error| panic!("after zeroing: {error}"));
        assert_eq!(
            (again.tail, again.decision),
            (recovered.tail, Decision::End)
        );
    }
}

/// A crash between a cut and the first block over it: later blocks of the new epoch are there, the
/// first is not.
#[test]
fn an_interrupted_cut_leaves_the_old_log_or_halts() {
    let old = built(71, 512, 80, 1_500);
    let mut seen_later_epoch = 0;
    for cut in 2..old.writes.len() - 1 {
        let mut new = LogBuilder::after(old.superblock, old.tables_after(cut), Epoch(2));
        new.grow(6, 1_000, &mut Random(72 + cut as u64));
        let mut image = old.image(prepared(&old));
        new.writes[1..]
            .iter()
            .for_each(|write| put(&mut image, write));
        match recover_image(&image, &old.superblock, Tables::empty(log::STREAM)) {
            Ok(recovered) => {
                assert!(recovered.tail >= old.writes[cut].header.position);
                assert_eq!(recovered.tables.epoch, Epoch(1));
                let front = recovered.cut.map(|cut| cut.front);
                seen_later_epoch += usize::from(front == Some(Front::LaterEpoch));
            }
            Err(RecoveryError::Rotten(finding)) => {
                assert!(finding.position >= old.writes[cut].header.position);
            }
            Err(error) => panic!("cut at write {cut}: {error}"),
        }
    }
    assert_ne!(seen_later_epoch, 0);
}

fn with_clean(log: &LogBuilder, tail: Position, checksum: u32) -> Superblock {
    Superblock {
        clean: Some(CleanStop {
            tail,
            checksum,
            next_seq: log.tables.next_seq,
        }),
        ..log.superblock
    }
}

#[test]
fn a_clean_stop_proves_the_last_block() {
    let log = built(81, 512, 60, 1_000);
    let last = log.writes.last().expect("it has blocks");
    let superblock = with_clean(&log, log.tables.position, log.tables.previous_checksum);
    let mut image = log.image(prepared(&log));
    let recovered = recover_image(&image, &superblock, Tables::empty(log::STREAM));
    assert_eq!(recovered.expect("it is whole").decision, Decision::End);
    // Without the clean stop this is the undecidable case.
    image[last.position() + 60] ^= 4;
    let error = recover_image(&image, &superblock, Tables::empty(log::STREAM));
    let Err(RecoveryError::Rotten(finding)) = error else {
        panic!("the last block was stopped behind in order: {error:?}");
    };
    assert_eq!(finding.evidence.clean, Clean::TailBeyond);
    assert_eq!(finding.position, last.header.position);
    // A clean stop after a block the log does not have is another history.
    let other = with_clean(&log, log.tables.position, log.tables.previous_checksum ^ 1);
    let image = log.image(prepared(&log));
    let error = recover_image(&image, &other, Tables::empty(log::STREAM));
    assert!(matches!(error, Err(RecoveryError::Rotten(_))), "{error:?}");
}

#[test]
fn another_stream_or_version_is_refused() {
    let log = built(91, 512, 20, 1_000);
    let image = log.image(prepared(&log));
    let mut foreign = log.superblock;
    foreign.stream = StreamId(8);
    let error = recover_image(&image, &foreign, Tables::empty(StreamId(8)));
    let Err(RecoveryError::Refused(finding)) = error else {
        panic!("the log of stream 7 was taken for stream 8: {error:?}");
    };
    assert_eq!(finding.evidence.front, Front::ForeignStream);
    let error = recover_image(&image, &foreign, Tables::empty(log::STREAM));
    assert!(matches!(error, Err(RecoveryError::Start(_))), "{error:?}");
    // Format version 2, with the checksum that belongs to it.
    let mut image = image;
    let at = log.writes[9].position();
    image[at + 8] = 2;
    let checksum = relay_wire::checksum::crc32c(&image[at..at + HEADER_LENGTH - 4]);
    image[at + HEADER_LENGTH - 4..at + HEADER_LENGTH].copy_from_slice(&checksum.to_le_bytes());
    let error = recover_image(&image, &log.superblock, Tables::empty(log::STREAM));
    let Err(RecoveryError::Refused(finding)) = error else {
        panic!("a block of version 2 was read: {error:?}");
    };
    assert_eq!(finding.evidence.front, Front::OtherVersion);
    assert_eq!(finding.position.0 as usize, at);
}

/// A payload that holds a copy of a block header at an aligned address inside a torn block is no
/// evidence.
#[test]
fn a_block_inside_a_payload_is_not_believed() {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, WINDOW));
    log.begin(2, 2);
    log.data(1, 1, &[9; 100]);
    log.seal();
    let torn = log.tables.clone();
    let mut forged = LogBuilder::after(log.superblock, torn.clone(), Epoch(9));
    forged.grow(6, 100, &mut Random(5));
    log.data(1, 1, &[9; 8_000]);
    log.seal();
    let last = log.writes.last().expect("it has blocks").clone();
    let mut image = log.image(prepared(&log));
    for write in &forged.writes[2..] {
        put(&mut image, write);
        // Past the body's own records it would be no payload.
        assert!(write.position() + write.bytes.len() < last.position() + last.header.body_end());
    }
    let recovered = recover_image(&image, &log.superblock, torn.clone());
    let recovered = recovered.expect("the block is torn, nothing is known behind it");
    assert_eq!(recovered.tables, torn);
    let cut = recovered.cut.expect("the torn block was cut");
    assert_eq!((cut.front, cut.beyond), (Front::BadBody, Beyond::Nothing));
    assert!(
        log.writes
            .iter()
            .all(|write| write.header.kind != BlockKind::Filler)
    );
}

/// Intact blocks that are not the one that is due, each put where the log goes on.
#[test]
fn an_intact_block_must_fit_its_place() {
    let log = built(95, 512, 30, 1_000);
    let tables = &log.tables;
    let due = BlockHeader {
        kind: BlockKind::Mark,
        stream: tables.stream,
        epoch: tables.epoch,
        number: tables.next_block_number,
        position: tables.position,
        first_seq: tables.next_seq,
        record_count: 0,
        data_count: 0,
        body_length: 0,
        span: 512,
        sealed_time_ns: 0,
        released: Position(0),
        previous_checksum: tables.previous_checksum,
        body_checksum: 0,
        checksum: 0,
    };
    let lay = |header: &BlockHeader| {
        let mut image = log.image(prepared(&log));
        seal(&mut image[log.tail()..log.tail() + 512], header);
        recover_image(&image, &log.superblock, Tables::empty(log::STREAM))
    };
    let recovered = lay(&due).expect("it is the one that is due");
    assert_eq!(recovered.tail, tables.position.plus(512));
    let number = due.number;
    let epoch = due.epoch.next();
    let shifted = due.position.plus(512);
    let broken = Err(Front::ChainBroken);
    for (header, expected) in [
        (
            BlockHeader {
                number: number - 1,
                ..due
            },
            Ok(Front::StaleEarlier),
        ),
        (
            BlockHeader {
                epoch: Epoch(0),
                ..due
            },
            Ok(Front::StaleEarlier),
        ),
        (
            BlockHeader {
                number: number + 1,
                epoch,
                ..due
            },
            Ok(Front::LaterEpoch),
        ),
        (
            BlockHeader {
                number: number + 1,
                ..due
            },
            broken,
        ),
        (
            BlockHeader {
                previous_checksum: 1,
                ..due
            },
            broken,
        ),
        (
            BlockHeader {
                first_seq: due.first_seq.next(),
                ..due
            },
            broken,
        ),
        (
            BlockHeader {
                position: shifted,
                ..due
            },
            broken,
        ),
        (
            BlockHeader {
                position: shifted,
                epoch,
                ..due
            },
            broken,
        ),
        (
            BlockHeader {
                kind: BlockKind::Filler,
                ..due
            },
            broken,
        ),
    ] {
        let front = match lay(&header) {
            Ok(recovered) => {
                assert_eq!(recovered.tail, tables.position);
                Ok(recovered.cut.expect("something lies there").front)
            }
            Err(RecoveryError::Rotten(finding)) => Err(finding.evidence.front),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(front, expected, "{header:?}");
    }
    // A block that continues the log and breaks a rule of its content is nobody's rot.
    let silent = lay(&BlockHeader { epoch, ..due });
    assert!(
        matches!(silent, Err(RecoveryError::Fold { .. })),
        "{silent:?}"
    );
}
