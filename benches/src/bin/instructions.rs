//! Steps of the way of a message, each to be counted in instructions: `scripts/instructions` runs this under callgrind, case by
//! case, and compares the counts with those kept in `benches/instructions.json`.
//!
//! `instructions` prints the names of the cases, `instructions NAME` runs one. Only what happens inside [`measured`] counts; inputs are
//! made before and are the same in every run. Time says little on a machine that others use too; instructions hardly change from
//! run to run, so a few per cent more of them are a finding.

use std::hint::black_box;
use std::process::ExitCode;

use relay_benches::{STREAM, Stream, block_of, data_record};
use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::seal::{Digest, Entry, Said, SegmentSum, SigningKey};
use relay_journal::segment::Geometry;
use relay_wire::code::RecordKind;
use relay_wire::id::{Epoch, Incarnation, Position, PublisherId, PublisherSeq, Seq, TopicId};
use relay_wire::record::{self, Fields, Record};

/// How often each case is done.
const ROUNDS: u64 = 1_000;
const RECORD: usize = 256;
/// Records of one command, and of one block.
const BATCH: u64 = 128;
/// Room that the log in memory has beyond what is written.
const ROOM: usize = 2 << 20;

const CASES: [(&str, fn()); 10] = [
    ("record_encode_256", encode),
    ("record_check_256", check),
    ("record_parse_256", parse),
    ("record_stamp", stamp),
    ("sequence_lone", sequence_lone),
    ("sequence_batch_128", sequence_batch),
    ("block_seal_4k", || seal(4_096)),
    ("block_seal_64k", || seal(65_536)),
    ("segment_sum_1m", segment_sum),
    ("segment_seal_sign", segment_sign),
];

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        for (name, _) in CASES {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    match CASES.iter().find(|(case, _)| *case == name) {
        Some((_, run)) => run(),
        None => {
            eprintln!(
                "instructions: there is no case \"{name}\"; without an argument they are listed"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Where counting begins and ends.
#[inline(never)]
fn measured<T>(case: impl FnOnce() -> T) -> T {
    black_box(case())
}

fn fields() -> Fields {
    Fields {
        topic: TopicId(3),
        publisher: PublisherId(7),
        incarnation: Incarnation(1),
        publisher_seq: PublisherSeq(9),
        key_hash: 1,
        origin_time_ns: 2,
    }
}

fn encode() {
    let payload = vec![0x5A; RECORD];
    let mut out = vec![0; record::encoded_stride(0, RECORD)];
    let fields = fields();
    measured(|| {
        for _ in 0..ROUNDS {
            let done = record::encode(
                &mut out,
                RecordKind::Data,
                black_box(&fields),
                &[],
                &payload,
            );
            assert!(done.is_ok());
        }
    });
}

fn check() {
    let encoded = data_record(9, 3, record::encoded_stride(0, RECORD));
    measured(|| {
        for _ in 0..ROUNDS {
            assert!(record::check_published(black_box(&encoded)).is_ok());
        }
    });
}

fn parse() {
    let encoded = data_record(9, 3, record::encoded_stride(0, RECORD));
    measured(|| {
        for _ in 0..ROUNDS {
            let record = Record::parse(black_box(&encoded)).expect("it is a record");
            black_box((
                record.topic(),
                record.publisher_seq(),
                record.payload().len(),
            ));
        }
    });
}

fn stamp() {
    let mut encoded = data_record(9, 3, record::encoded_stride(0, RECORD));
    measured(|| {
        for round in 0..ROUNDS {
            record::stamp(black_box(&mut encoded), Seq(round), round);
        }
    });
}

/// Each record is a command and a block of its own.
fn sequence_lone() {
    let records: Vec<_> = (1..=ROUNDS)
        .map(|number| data_record(number, 1, RECORD))
        .collect();
    let mut stream = Stream::new(ROUNDS as usize * 4_096 + ROOM, 1);
    measured(|| {
        for record in &records {
            stream.publish(record);
        }
    });
    assert_eq!(
        stream.released.next_seq,
        Seq(ROUNDS + 1),
        "all of it is released"
    );
}

/// Commands of [`BATCH`] records each.
fn batches(rounds: u64) -> Vec<Vec<u8>> {
    let batch = |round| {
        let numbers = round * BATCH + 1..=(round + 1) * BATCH;
        numbers
            .flat_map(|number| data_record(number, 1, RECORD))
            .collect()
    };
    (0..rounds).map(batch).collect()
}

fn sequence_batch() {
    let rounds = ROUNDS / 10;
    let batches = batches(rounds);
    let mut stream = Stream::new(rounds as usize * 65_536 + ROOM, 1);
    measured(|| {
        for batch in &batches {
            stream.publish(batch);
        }
    });
    assert_eq!(
        stream.released.next_seq,
        Seq(rounds * BATCH + 1),
        "all of it is released"
    );
}

/// With both checksums.
fn seal(body_length: usize) {
    let (header, mut bytes) = block_of(body_length - HEADER_LENGTH);
    measured(|| {
        for _ in 0..ROUNDS {
            black_box(block::seal(&mut bytes, black_box(&header)).checksum);
        }
    });
}

/// What a segment's seal is made from, of the first MiB: the chain of its blocks, and the hash of all.
fn segment_sum() {
    const LENGTH: usize = 1 << 20;
    let mut stream = Stream::new(LENGTH + ROOM, 1);
    for batch in batches(LENGTH as u64 / (BATCH * RECORD as u64)) {
        stream.publish(&batch);
    }
    let settings = &stream.settings;
    let geometry = Geometry::new(settings.segment_size, settings.block_alignment);
    let geometry = geometry.expect("the stream has it");
    let mut sum = SegmentSum::new(geometry, STREAM, 0, None, Digest([0; 32]));
    let log = &stream.log[..LENGTH];
    let taken = measured(|| sum.take(black_box(log), &mut |_, _| {}));
    let taken = taken.expect("the blocks are right");
    assert!(taken > LENGTH - 65_536, "all but a last block are taken in");
}

fn segment_sign() {
    let key = SigningKey::from_secret(&[7; 32]);
    let said = Said::Cut {
        segment: 9,
        position: Position(1 << 40),
        epoch: Epoch(3),
        previous: Digest([5; 32]),
    };
    let public = key.public();
    measured(|| {
        for round in 0..ROUNDS / 100 {
            let entry = Entry::sign(said, STREAM, black_box(round), &key);
            assert!(entry.is_signed_by(&public));
        }
    });
}
