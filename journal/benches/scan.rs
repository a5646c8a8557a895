//! What a start costs per byte: fold, recovery, checkpoint, and the seal of a block. `cargo bench -p relay-journal`.
//!
//! Logs of hundreds of megabytes are read once a run, so this takes medians by itself.

#[path = "../tests/log/mod.rs"]
mod log;

use std::time::Instant;

use log::{LogBuilder, MemorySource, superblock};
use relay_journal::block::{BlockHeader, HEADER_LENGTH, seal};
use relay_journal::checkpoint;
use relay_journal::position_index::{IndexEntry, PositionIndex, SPACING_MIN};
use relay_journal::recovery::recover;
use relay_journal::tables::Tables;
use relay_wire::id::{Position, Seq};

fn main() {
    fold_and_scan();
    checkpoint_and_seal();
}

/// The middle one of several runs, seconds.
fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut seconds: Vec<f64> = (0..9).map(|_| run()).collect();
    seconds.sort_by(f64::total_cmp);
    seconds[4]
}

/// A log of about 200 MB with so many messages of 256 bytes in each block.
fn filled(messages: u32) -> LogBuilder {
    let mut log = LogBuilder::new(superblock(1 << 28, 4096, 1 << 22));
    log.begin(100, 100);
    let mut publisher = 0;
    while log.tail() < 200 << 20 {
        for _ in 0..messages {
            publisher = publisher % 100 + 1;
            log.data(publisher, publisher as u32, &[7; 184]);
        }
        log.seal();
    }
    log
}

fn fold_and_scan() {
    for messages in [1, 16, 64, 900] {
        let log = filled(messages);
        let records = log.tables.next_seq.0 - 1;
        let fold = median(|| {
            let mut tables = Tables::empty(log::STREAM);
            let start = Instant::now();
            for write in &log.writes {
                let body = &write.bytes[HEADER_LENGTH..write.header.body_end()];
                tables
                    .apply_block(&write.header, body)
                    .expect("it was folded before");
            }
            start.elapsed().as_secs_f64()
        });
        let image = log.image(log.tail() + (16 << 20));
        let scan = median(|| {
            let start = Instant::now();
            let empty = Tables::empty(log::STREAM);
            let mut source = MemorySource(&image);
            let recovered = recover(&mut source, &log.superblock, empty, &mut |_| {});
            assert_eq!(
                recovered.expect("it is whole").tables.next_seq,
                log.tables.next_seq
            );
            start.elapsed().as_secs_f64()
        });
        println!(
            "{messages:4} messages a block: fold {:.1} M records/s, recovery {:.2} GB/s, {:.1} M \
             blocks/s",
            records as f64 / fold / 1e6,
            image.len() as f64 / scan / 1e9,
            log.writes.len() as f64 / scan / 1e6,
        );
    }
}

fn checkpoint_and_seal() {
    let mut log = LogBuilder::new(superblock(1 << 28, 4096, 1 << 22));
    log.open_epoch();
    for first in (0..100_000).step_by(1_000) {
        for topic in first..first + 1_000 {
            log.numbered_topic(topic + 1);
        }
        log.seal();
    }
    for publisher in 1..=1_000 {
        log.session(publisher, 1);
    }
    log.seal();
    let mut tables = log.tables.clone();
    tables.position = Position(20_000 * SPACING_MIN);
    tables.next_seq = Seq(1_000_000);
    let entries = (0..20_000).map(|number| IndexEntry {
        position: Position(number * SPACING_MIN),
        first_seq: Seq(1 + number * 10),
        time_before_ns: number,
        sealed_time_ns: number,
    });
    let index = PositionIndex::from_entries(entries.collect(), SPACING_MIN);
    tables.index = index.expect("they are in order");
    let bytes = checkpoint::encode(&tables);
    let encode = median(|| {
        let start = Instant::now();
        assert_eq!(checkpoint::encode(&tables).len(), bytes.len());
        start.elapsed().as_secs_f64()
    });
    let decode = median(|| {
        let start = Instant::now();
        let decoded = checkpoint::decode(&bytes).expect("it is good");
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(decoded.topics.len(), 100_000);
        seconds
    });
    println!(
        "checkpoint of {} bytes: encode {:.1} ms, decode {:.1} ms",
        bytes.len(),
        encode * 1e3,
        decode * 1e3
    );
    let write = &log.writes[0];
    for body_length in [256, 3_968, 262_016] {
        let header = BlockHeader {
            body_length,
            span: relay_journal::block::span_for(body_length, 4096),
            ..write.header
        };
        let mut block = vec![7; header.span as usize];
        let seconds = median(|| {
            let start = Instant::now();
            for _ in 0..1_000 {
                seal(std::hint::black_box(&mut block), &header);
            }
            start.elapsed().as_secs_f64() / 1_000.0
        });
        println!(
            "seal of a body of {body_length} bytes: {:.0} ns",
            seconds * 1e9
        );
    }
}
