//! Each fault of the disk does what the table at the head of `disk.rs` says.

use super::*;
use crate::clock::MILLISECOND;

const BLOCK: usize = 4 * SECTOR;

fn disk() -> Disk {
    let latencies = Latencies {
        least_ns: 1_000,
        write_ns: 100_000,
        sync_ns: 100_000,
        read_ns: 100_000,
    };
    let mut disk = Disk::new(latencies, Random::of(1, 0));
    disk.keep_recent();
    disk
}

fn block(byte: u8) -> [u8; BLOCK] {
    [byte; BLOCK]
}

/// Begins a write of `byte`s and ends it.
fn write(disk: &mut Disk, at: u64, byte: u8, is_durable: bool) -> bool {
    let ticket = disk.begin_write(Zone::Log, at, &block(byte), is_durable, 0, 0);
    disk.complete(ticket.op, ticket.at_ns)
        .expect("it was begun")
        .is_ok
}

fn sync(disk: &mut Disk, now_ns: u64) -> bool {
    let ticket = disk.begin_sync(Zone::Log, 0, now_ns);
    disk.complete(ticket.op, now_ns)
        .expect("it was begun")
        .is_ok
}

fn seen(disk: &mut Disk, at: u64) -> [u8; BLOCK] {
    let mut bytes = block(0xAA);
    disk.read(Zone::Log, at, &mut bytes);
    bytes
}

fn pristine(disk: &Disk, at: u64) -> [u8; BLOCK] {
    let mut bytes = block(0xAA);
    disk.read_pristine(at, &mut bytes);
    bytes
}

/// Whether each sector is one or the other, and how many are the first.
fn sectors_of(bytes: &[u8; BLOCK], one: u8, other: u8) -> usize {
    bytes
        .chunks(SECTOR)
        .filter(|sector| {
            assert!(
                sector.iter().all(|&b| b == sector[0]),
                "a sector is written wholly or not at all"
            );
            assert!(sector[0] == one || sector[0] == other);
            sector[0] == one
        })
        .count()
}

/// Goal: writes under way end in any order. Method: many, and look at when they would end.
#[test]
fn writes_are_reordered() {
    let mut disk = disk();
    let ends: Vec<u64> = (0..20)
        .map(|n| {
            disk.begin_write(Zone::Log, n * BLOCK as u64, &block(1), true, n, 0)
                .at_ns
        })
        .collect();
    assert!(!ends.is_sorted());
    assert_eq!(disk.durable_end(), 0);
}

/// Goal: power takes any sectors of what is not durable and none of what is.
#[test]
fn a_power_cut_tears_what_is_not_durable() {
    let mut kinds = [0; 5];
    for seed in 0..200 {
        let mut disk = disk();
        write(&mut disk, 0, 1, true);
        write(&mut disk, BLOCK as u64, 2, false);
        disk.begin_write(Zone::Log, 2 * BLOCK as u64, &block(3), true, 0, 0);
        assert_eq!(disk.durable_end(), BLOCK as u64);
        disk.cut_power(&mut Random::of(seed, 0), 0);
        assert_eq!(
            disk.durable_end(),
            u64::MAX,
            "what is left is on the disk for good"
        );
        assert_eq!(seen(&mut disk, 0), block(1));
        sectors_of(&seen(&mut disk, BLOCK as u64), 2, 0);
        kinds[sectors_of(&seen(&mut disk, 2 * BLOCK as u64), 3, 0)] += 1;
    }
    assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
}

/// Goal: a sync makes durable what ended before it began, and only that.
#[test]
fn a_sync_covers_what_ended_before_it_began() {
    let mut disk = disk();
    write(&mut disk, 0, 1, false);
    let ticket = disk.begin_sync(Zone::Log, 0, 0);
    write(&mut disk, BLOCK as u64, 2, false);
    disk.complete(ticket.op, ticket.at_ns);
    assert_eq!(disk.durable_end(), BLOCK as u64);
    assert!(sync(&mut disk, 0));
    assert_eq!(disk.durable_end(), u64::MAX);
}

/// Goal: a killed process's writes are carried out in any part, are not durable, and nobody hears of them.
#[test]
fn a_kill_leaves_any_part_of_what_was_under_way() {
    let mut kinds = [0; 5];
    for seed in 0..200 {
        let mut disk = disk();
        write(&mut disk, 0, 1, false);
        let ticket = disk.begin_write(Zone::Log, BLOCK as u64, &block(2), true, 0, 0);
        disk.kill(&mut Random::of(seed, 0));
        assert_eq!(disk.complete(ticket.op, ticket.at_ns), None);
        assert_eq!(seen(&mut disk, 0), block(1), "what has ended stays");
        assert_eq!(disk.durable_end(), 0, "and is as little durable as before");
        kinds[sectors_of(&seen(&mut disk, BLOCK as u64), 2, 0)] += 1;
    }
    assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
}

/// Goal: a failed write says so and leaves any part; a failed sync says so and makes nothing durable; a later sync does.
#[test]
fn failures_are_told() {
    let mut disk = disk();
    disk.fail_write();
    assert!(!write(&mut disk, 0, 1, true));
    sectors_of(&seen(&mut disk, 0), 1, 0);
    assert!(write(&mut disk, 0, 1, false), "only the next one fails");
    disk.fail_sync();
    assert!(!sync(&mut disk, 0));
    assert_eq!(disk.durable_end(), 0);
    assert!(sync(&mut disk, 0));
    assert_eq!(disk.durable_end(), u64::MAX);
    disk.fail_read();
    let ticket = disk.begin_read(7, 0);
    let completion = disk.complete(ticket.op, ticket.at_ns);
    assert_eq!(
        completion,
        Some(Completion {
            what: What::Read,
            tag: 7,
            is_ok: false
        })
    );
    disk.prepare(1 << 20);
    disk.fail_read();
    let end = disk.prepared();
    let mut reader = LogReader {
        disk: &mut disk,
        end,
    };
    assert!(reader.read_at(Position(0), &mut [0; SECTOR]).is_err());
    assert_eq!(reader.read_at(Position(0), &mut [0; SECTOR]), Ok(SECTOR));
}

#[test]
fn nothing_ends_while_the_disk_stalls() {
    let mut disk = disk();
    disk.stall(50 * MILLISECOND);
    let ticket = disk.begin_write(Zone::Log, 0, &block(1), true, 0, 0);
    assert!(ticket.at_ns > 50 * MILLISECOND);
    disk.disarm();
    let ticket = disk.begin_read(0, 0);
    assert!(ticket.at_ns < 50 * MILLISECOND);
}

/// Goal: a lost write is reported, and a reader sees what was there; the next write to the place mends it.
#[test]
fn a_lost_write_is_pristine_and_not_seen() {
    let mut disk = disk();
    write(&mut disk, 0, 1, true);
    disk.lose_write();
    assert!(write(&mut disk, 0, 2, true));
    assert_eq!(seen(&mut disk, 0), block(1));
    assert_eq!(pristine(&disk, 0), block(2));
    assert_eq!(disk.durable_end(), u64::MAX, "the disk promised it");
    write(&mut disk, 0, 3, true);
    assert_eq!(seen(&mut disk, 0), block(3));
}

/// Goal: a misdirected write is seen at another place and not at its own.
#[test]
fn a_misdirected_write_is_seen_elsewhere() {
    let mut disk = disk();
    let at = 8 * BLOCK as u64;
    disk.misdirect_write();
    assert!(write(&mut disk, at, 5, true));
    assert_eq!(pristine(&disk, at), block(5));
    assert_eq!(seen(&mut disk, at), block(0));
    let found = (0..8192).filter(|n| seen(&mut disk, n * BLOCK as u64) == block(5));
    assert_eq!(found.count(), 1);
}

/// Goal: one read sees what was there before the newest writes.
#[test]
fn a_stale_read_sees_the_past_once() {
    let mut disk = disk();
    write(&mut disk, 0, 1, true);
    write(&mut disk, 0, 2, true);
    disk.age_read();
    assert_ne!(seen(&mut disk, 0), block(2));
    assert_eq!(seen(&mut disk, 0), block(2));
}

/// Goal: rot turns one bit, for every reader, until the sector is written again.
#[test]
fn rot_turns_one_bit() {
    let mut disk = disk();
    write(&mut disk, 0, 1, true);
    disk.rot(SECTOR as u64 + 5, &mut Random::of(3, 0));
    let turned = |bytes: &[u8; BLOCK]| -> u32 { bytes.iter().map(|b| (b ^ 1).count_ones()).sum() };
    assert_eq!(turned(&seen(&mut disk, 0)), 1);
    assert_eq!(turned(&seen(&mut disk, 0)), 1);
    assert_eq!(pristine(&disk, 0), block(1));
    write(&mut disk, 0, 1, true);
    assert_eq!(turned(&seen(&mut disk, 0)), 0);
}

/// Goal: a lying disk promises and forgets, for a while.
#[test]
fn a_lie_is_found_out_by_a_power_cut() {
    let (mut forgotten, mut kept) = (0, 0);
    for seed in 0..50 {
        let mut disk = disk();
        disk.lie(SECOND);
        write(&mut disk, 0, 1, true);
        write(&mut disk, BLOCK as u64, 2, false);
        assert!(sync(&mut disk, MILLISECOND));
        assert_eq!(disk.durable_end(), u64::MAX, "so it says");
        disk.cut_power(&mut Random::of(seed, 0), 2 * MILLISECOND);
        match seen(&mut disk, BLOCK as u64) == block(2) {
            true => kept += 1,
            false => forgotten += 1,
        }
    }
    assert!(forgotten > 0 && kept > 0);
    let mut disk = disk();
    disk.lie(SECOND);
    write(&mut disk, 0, 1, true);
    disk.cut_power(&mut Random::of(1, 0), 2 * CATCH_UP_NS);
    assert_eq!(seen(&mut disk, 0), block(1), "by then it has caught up");
}

/// Goal: an old copy is the whole disk of then; a blank one holds a superblock and nothing else.
#[test]
fn disks_are_replaced() {
    let mut disk = disk();
    write(&mut disk, 0, 1, true);
    disk.prepare(1 << 20);
    disk.store_checkpoint(Position(512), vec![1]);
    let image = disk.image();
    write(&mut disk, 0, 2, true);
    disk.store_checkpoint(Position(1024), vec![2]);
    disk.restore(image);
    assert_eq!(seen(&mut disk, 0), block(1));
    assert_eq!(disk.checkpoints().count(), 1);
    disk.format(1, [[7; GENERATION_LENGTH]; 2]);
    assert_eq!(seen(&mut disk, 0), block(0));
    assert_eq!(disk.superblocks(), [[7; GENERATION_LENGTH]; 2]);
    assert_eq!((disk.prepared(), disk.checkpoints().count()), (0, 0));
}

#[test]
fn two_checkpoints_are_kept_and_damage_hits_the_newest() {
    let mut disk = disk();
    for n in 1..=3 {
        disk.store_checkpoint(Position(n), vec![n as u8; 8]);
    }
    let newest: Vec<u8> = disk.checkpoints().map(|bytes| bytes[0]).collect();
    assert_eq!(newest, [3, 2]);
    disk.damage_checkpoint(&mut Random::of(1, 0));
    let left: Vec<Vec<u8>> = disk.checkpoints().map(<[u8]>::to_vec).collect();
    assert_ne!(left.first(), Some(&vec![3; 8]));
    assert_eq!(left.last(), Some(&vec![2; 8]));
    disk.drop_checkpoints_after(Position(1));
    assert_eq!(disk.checkpoints().count(), 0);
}
