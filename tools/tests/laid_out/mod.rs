//! Journals laid out from logs built in memory, and the audit of them by the built program.
#![allow(dead_code)] // each test binary uses a part of it

#[path = "../../../journal/tests/log/mod.rs"]
pub(crate) mod log;

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use log::{LogBuilder, Random, SEGMENT, superblock};
use relay_journal::block::{HEADER_LENGTH, seal};
use relay_journal::checkpoint;
use relay_journal::segment;
use relay_journal::superblock::{CleanStop, FILE_NAME, Superblock};
use relay_wire::id::NodeId;
use serde_json::Value;

use crate::support::{last_object, relay};

/// A log of several segments.
pub(crate) fn built(blocks: usize) -> LogBuilder {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
    log.begin(3, 3);
    log.grow(blocks, 3_000, &mut Random(5));
    log.keyed(3, 3, 0xabc, b"the needle in the hay");
    log.seal();
    log.durable = log.writes.len();
    log.mark();
    log
}

/// The log as the journal of a node that stopped in order.
pub(crate) fn lay_out(log: &LogBuilder, directory: &Path, node: u64) {
    let clean = CleanStop {
        tail: log.tables.position,
        next_seq: log.tables.next_seq,
        checksum: log.tables.previous_checksum,
    };
    let superblock = Superblock {
        node: NodeId(node),
        clean: Some(clean),
        generation: 2,
        ..log.superblock
    };
    let older = Superblock {
        generation: 1,
        ..superblock
    };
    fs::create_dir_all(directory.join(segment::DIRECTORY)).expect("made");
    let generations = [older.encode(), superblock.encode()].concat();
    fs::write(directory.join(FILE_NAME), generations).expect("written");
    let prepared = (log.tail() + SEGMENT as usize).next_multiple_of(SEGMENT as usize);
    for (index, bytes) in log.image(prepared).chunks(SEGMENT as usize).enumerate() {
        fs::write(segment_path(directory, index as u64), bytes).expect("written");
    }
    let tables = log.tables_after(log.writes.len());
    let file = directory.join(checkpoint::name(tables.position));
    fs::write(file, checkpoint::encode(&tables)).expect("written");
}

pub(crate) fn segment_path(directory: &Path, index: u64) -> PathBuf {
    directory
        .join(segment::DIRECTORY)
        .join(segment::name(index))
}

pub(crate) fn flip(directory: &Path, position: u64, mask: u8) {
    let path = segment_path(directory, position / SEGMENT);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("it is there");
    let mut byte = [0];
    file.seek(SeekFrom::Start(position % SEGMENT))
        .expect("within");
    file.read_exact(&mut byte).expect("there");
    file.seek(SeekFrom::Start(position % SEGMENT))
        .expect("within");
    file.write_all(&[byte[0] ^ mask]).expect("written");
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(relay())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("relay runs");
    (
        output.status.code().expect("it ended by itself"),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

/// `relay verify --json DIRECTORIES`: exit status and result.
pub(crate) fn verify(directories: &[&Path]) -> (i32, Value) {
    let mut arguments = vec!["verify", "--json"];
    arguments.extend(directories.iter().map(|path| text(path)));
    let (status, out, said) = run(&arguments);
    assert!(!out.is_empty(), "{status}: {said}");
    (status, last_object(&out))
}

/// A copy in which one payload was changed and every checksum behind it made to fit.
pub(crate) fn forged(log: &LogBuilder) -> (LogBuilder, u64, u64) {
    let mut forged = log.clone();
    let from = 30;
    let mut seq = 0;
    let mut previous = forged.writes[from - 1].header.checksum;
    for write in &mut forged.writes[from..] {
        let mut header = write.header;
        if seq == 0 && header.data_count > 0 && header.body_length > 200 {
            seq = header.first_seq.0;
            // Another payload of the same length under the same header, the record's own checksum mended.
            let body = &mut write.bytes[HEADER_LENGTH..];
            let record = relay_wire::record::Record::parse(body).expect("a record");
            let (old, mut payload) = (*record.header(), record.payload().to_vec());
            payload[3] ^= 0x55;
            let fields = relay_wire::record::Fields {
                topic: record.topic(),
                publisher: record.publisher(),
                incarnation: record.incarnation(),
                publisher_seq: record.publisher_seq(),
                key_hash: old.key_hash.get(),
                origin_time_ns: old.origin_time_ns.get(),
            };
            let (number, time_ns) = (record.seq(), record.receive_time_ns());
            let kind = record.kind().expect("a known one");
            relay_wire::record::encode(body, kind, &fields, &[], &payload).expect("it fits");
            relay_wire::record::stamp(body, number, time_ns);
        }
        header.previous_checksum = previous;
        write.header = seal(&mut write.bytes, &header);
        previous = write.header.checksum;
    }
    forged.tables = forged.tables_after(forged.writes.len());
    let position = forged.writes[from..]
        .iter()
        .find(|write| write.header.first_seq.0 == seq && write.header.data_count > 0)
        .expect("it was forged");
    let position = position.header.position.0;
    (forged, seq, position)
}
