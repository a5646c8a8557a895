//! Recovery over arbitrary and mutated logs, and the codecs of everything that lies in a journal.
//!
//! A mutation either damages bytes, which checksums must notice, or *lies*: it changes a header and gives it a checksum
//! that fits. After damage recovery may refuse, but what it accepts is a prefix of what was written and reaches as far as
//! anything that survived says was released. After a lie it must only not panic, and not change its mind once the leftovers
//! are zeroed.

#[path = "../../../journal/tests/log/mod.rs"]
#[allow(unused_imports, reason = "its own test uses one more")]
mod log;

use std::cell::OnceCell;

use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::checkpoint;
use relay_journal::recovery::Decision;
use relay_journal::superblock::{CleanStop, GENERATION_LENGTH, Superblock, newest};
use relay_journal::tables::Tables;
use relay_wire::checksum::{crc32c, crc32c_append};
use relay_wire::id::Position;

use crate::input::Input;
use log::{LogBuilder, Random, SECTOR, SEGMENT, STREAM, recover_image, superblock};

/// Reads the first byte as what to do with the rest.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => raw(input.all()),
        1 => mutated_log(&mut input),
        2 => mutated_checkpoint(&mut input),
        _ => mutated_superblock(&mut input),
    }
}

/// A log as it was written, with the tables after each write.
struct Written {
    superblock: Superblock,
    image: Vec<u8>,
    log: LogBuilder,
    tables: Vec<Tables>,
}

const LOGS: usize = 4;

/// One of a few logs, built once: small and large blocks, several segments, two epochs.
fn written(number: usize, look: impl FnOnce(&Written)) {
    thread_local! {
        static MADE: [OnceCell<Written>; LOGS] = const { [const { OnceCell::new() }; LOGS] };
    }
    MADE.with(|made| {
        look(made[number % LOGS].get_or_init(|| {
            let number = number % LOGS;
            let alignment = [512, 512, 4096, 512][number];
            let superblock = superblock(SEGMENT, alignment, 32_768);
            let mut random = Random(number as u64);
            let mut log = LogBuilder::new(superblock);
            log.begin(2, 2);
            log.grow(
                [3, 20, 20, 60][number],
                [100, 700, 3_000, 2_500][number],
                &mut random,
            );
            if number == 3 {
                log.open_epoch();
                log.grow(10, 700, &mut random);
            }
            let image = log.image(log.tail().next_multiple_of(SEGMENT as usize) + 8_192);
            let tables = (0..=log.writes.len())
                .map(|count| log.tables_after(count))
                .collect();
            Written {
                superblock,
                image,
                log,
                tables,
            }
        }));
    });
}

fn raw(data: &[u8]) {
    if let Ok(header) = block::decode_header(data) {
        let end = header.body_end().min(data.len());
        let _ = block::verify_body(&header, &data[HEADER_LENGTH..end]);
    }
    let found: usize = block::records(data)
        .flatten()
        .map(|(_, record)| record.stride())
        .sum();
    assert!(found <= data.len(), "records lie within the body");
    let _ = (checkpoint::decode(data), Superblock::decode(data));
    let (first, second) = data.split_at(data.len().min(GENERATION_LENGTH));
    let _ = newest(first, second);
    recover_twice(
        data,
        &superblock(SEGMENT, 512, 32_768),
        &Tables::empty(STREAM),
    );
}

/// Recovers, zeroes what recovery calls leftovers, and recovers again: the log must end at the same place for good.
fn recover_twice(image: &[u8], superblock: &Superblock, start: &Tables) -> Option<Tables> {
    let first = match recover_image(image, superblock, start.clone()) {
        Ok(recovered) => recovered,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    assert_eq!(first.tail, first.tables.position);
    // A filler at the end of what is prepared carries the log on to where nothing is yet.
    let prepared = (image.len() as u64).next_multiple_of(superblock.segment_size);
    assert!(first.tail.get() <= prepared || first.tail == start.position);
    if let Some(cut) = first.cut {
        let mut zeroed = image.to_vec();
        let from = (cut.position.get() as usize).min(zeroed.len());
        let to = (cut.position.get().saturating_add(cut.leftovers) as usize).min(zeroed.len());
        zeroed[from..to].fill(0);
        let again = recover_image(&zeroed, superblock, start.clone()).expect("it was cut");
        assert_eq!(
            again.decision,
            Decision::End,
            "after the zeroing nothing is left to cut"
        );
        assert_eq!(again.tables, first.tables);
    }
    Some(first.tables)
}

/// What was done to an image.
#[derive(Default)]
struct Done {
    is_lying: bool,
    has_copied: bool,
}

fn mutated_log(input: &mut Input<'_>) {
    let number = input.below(LOGS);
    written(number, |written| {
        let mut image = written.image.clone();
        let mut superblock = written.superblock;
        let mut done = Done::default();
        for _ in 0..24 {
            if input.is_empty() {
                break;
            }
            mutate(input, written, &mut image, &mut superblock, &mut done);
        }
        let start = &written.tables[if input.byte() < 128 {
            0
        } else {
            written.tables.len() / 2
        }];
        let Some(tables) = recover_twice(&image, &superblock, start) else {
            return;
        };
        if done.is_lying {
            return;
        }
        let is_prefix = written.tables.contains(&tables);
        assert!(is_prefix, "what is recovered was written");
        if done.has_copied {
            return;
        }
        for write in &written.log.writes {
            let at = write.position();
            let is_intact = image.get(at..at + write.bytes.len()) == Some(&write.bytes[..]);
            let is_behind = write.header.position >= tables.position;
            assert!(
                !is_intact || !is_behind || write.header.released <= tables.position,
                "what was released is not cut: {} by block {}",
                tables.position,
                write.header.number
            );
        }
        if let Some(clean) = superblock.clean {
            assert!(clean.tail <= tables.position, "a clean stop is not cut");
        }
    });
}

fn mutate(
    input: &mut Input<'_>,
    written: &Written,
    image: &mut Vec<u8>,
    superblock: &mut Superblock,
    done: &mut Done,
) {
    let action = input.byte() % 9;
    if image.is_empty() {
        return;
    }
    match action {
        0 => {
            let at = input.below(image.len());
            image[at] ^= input.byte() | 1;
        }
        1 => {
            let at = input.below(image.len());
            let end = image.len().min(at + usize::from(input.word()));
            image[at..end].fill(0);
        }
        2 => {
            let sectors = image.len() / SECTOR;
            if sectors > 8 {
                let (from, to) = (input.below(sectors - 8), input.below(sectors - 8));
                let length = SECTOR * (1 + input.below(8));
                image.copy_within(from * SECTOR..from * SECTOR + length, to * SECTOR);
                done.has_copied = true;
            }
        }
        3 => image.truncate(input.below(image.len())),
        4 => {
            let write = &written.log.writes[input.below(written.log.writes.len())];
            let at = write.position().min(image.len());
            let end = (at + write.bytes.len()).min(image.len());
            image[at..end].fill(0);
        }
        5 | 6 => {
            let write = &written.log.writes[input.below(written.log.writes.len())];
            let at = write.position();
            let body = if action == 5 {
                0
            } else {
                write.header.body_length as usize
            };
            let offset = input.below(if body == 0 { 124 } else { body });
            let offset = if body == 0 {
                offset
            } else {
                HEADER_LENGTH + offset
            };
            let change = input.byte() | 1;
            if image.len() >= at + write.bytes.len() {
                image[at + offset] ^= change;
                reseal(
                    &mut image[at..at + write.bytes.len()],
                    write.header.body_end(),
                );
                done.is_lying = true;
            }
        }
        7 => {
            let count = 1 + input.below(written.log.writes.len());
            let last = &written.log.writes[count - 1].header;
            superblock.clean = Some(CleanStop {
                tail: last.next_position(),
                checksum: last.checksum,
                next_seq: last.next_seq(),
            });
        }
        _ => {
            // The tail of the log is lost, as when the last writes never happened.
            let lost = input.below(17).min(written.log.writes.len() - 1);
            let first = &written.log.writes[written.log.writes.len() - lost - 1];
            let at = (first.header.next_position().get() as usize).min(image.len());
            image[at..].fill(0);
        }
    }
}

/// Gives a changed block checksums that fit.
fn reseal(bytes: &mut [u8], body_end: usize) {
    let body = crc32c(&bytes[HEADER_LENGTH..body_end]);
    bytes[84..88].copy_from_slice(&body.to_le_bytes());
    let header = crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&header.to_le_bytes());
}

fn mutated_checkpoint(input: &mut Input<'_>) {
    let number = input.below(LOGS);
    written(number, |written| {
        let tables = &written.tables[input.below(written.tables.len())];
        let mut bytes = checkpoint::encode(tables);
        assert_eq!(checkpoint::decode(&bytes).as_ref(), Ok(tables));
        let intact = bytes.clone();
        while !input.is_empty() {
            let at = input.below(bytes.len());
            bytes[at] ^= input.byte();
        }
        if bytes != intact {
            assert_ne!(
                checkpoint::decode(&bytes).as_ref(),
                Ok(tables),
                "damage is noticed"
            );
        }
        let length = bytes.len() as u64;
        bytes[24..32].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c_append(crc32c(&bytes[..156]), &bytes[160..]);
        bytes[156..160].copy_from_slice(&checksum.to_le_bytes());
        let Ok(decoded) = checkpoint::decode(&bytes) else {
            return;
        };
        assert_eq!(
            checkpoint::encode(&decoded),
            bytes,
            "the same tables give the same bytes"
        );
        let _ = recover_twice(&written.image, &written.superblock, &decoded);
        // At its own position nothing lies, so its ends are tried too.
        let _ = decoded.index.find_time(u64::from(input.quad()));
        let _ = decoded.index.find_seq(decoded.next_seq);
    });
}

fn mutated_superblock(input: &mut Input<'_>) {
    let mut superblock = superblock(SEGMENT, 512, 32_768);
    superblock.unknown_tail = (input.byte() & 1 == 1).then_some(Position(4_096));
    let intact = superblock.encode();
    assert_eq!(Superblock::decode(&intact), Ok(superblock));
    let mut bytes = intact;
    while !input.is_empty() {
        // The fields lie in the first 128 bytes; now and then the zeroes behind them.
        let at = input.below(140);
        let at = if at < 128 {
            at
        } else {
            input.below(GENERATION_LENGTH)
        };
        bytes[at] ^= input.byte();
    }
    if bytes != intact {
        assert!(Superblock::decode(&bytes).is_err(), "damage is noticed");
        let (found, slot) = newest(&bytes, &intact).map_or((None, 0), |(s, slot)| (Some(s), slot));
        assert!(found.is_none_or(|found| found == superblock && slot == 1));
    }
    let end = GENERATION_LENGTH - 4;
    let checksum = crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    if let Ok(decoded) = Superblock::decode(&bytes) {
        assert_eq!(
            decoded.encode(),
            bytes,
            "the same superblock gives the same bytes"
        );
        let _ = decoded.geometry();
        let _ = recover_twice(&[0; 8_192], &decoded, &Tables::empty(decoded.stream));
    }
    let _ = newest(&bytes, &intact);
}
