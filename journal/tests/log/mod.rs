//! A log built in memory for the tests: every block a separate write, so that a test can lose, tear
//! or reorder them.
//!
//! Fault model of the device the tests stand for: a write is durable once a later block says so
//! through its released position; those after it, at most [`DEPTH`] of them and at most W bytes,
//! may each be there, missing, or there in any subset of their 512-byte sectors. Bytes once durable
//! change only where a test says so.
#![allow(dead_code, reason = "each test file uses its own part")]

use relay_journal::block::{BlockHeader, BlockKind, HEADER_LENGTH, seal, span_for};
use relay_journal::recovery::{LogSource, Recovered, RecoveryError, SourceError, recover};
use relay_journal::segment::Geometry;
use relay_journal::superblock::{FORMAT_VERSION, Superblock, WriteMethod};
use relay_journal::tables::Tables;
use relay_wire::code::RecordKind;
use relay_wire::id::{
    Epoch, Incarnation, NodeId, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::record::{self, EpochBody, Fields};
use zerocopy::IntoBytes;

pub(crate) const STREAM: StreamId = StreamId(7);
pub(crate) const NODE: NodeId = NodeId(3);
pub(crate) const DEPTH: usize = 16;
pub(crate) const SECTOR: usize = 512;

/// A small generator with a seed (splitmix64): the same seed gives the same test.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

pub(crate) fn superblock(segment_size: u64, block_alignment: u32, in_flight: u64) -> Superblock {
    Superblock {
        format_version: FORMAT_VERSION,
        node: NODE,
        stream: STREAM,
        disk_incarnation: 0x1234_5678_9abc_def0,
        created_ns: 1,
        segment_size,
        block_alignment,
        write_method: WriteMethod::Dsync,
        in_flight_bytes_max: in_flight,
        generation: 1,
        clean: None,
        promised: Epoch(1),
        committed: Epoch(1),
        committed_nonce: 99,
        unknown_tail: None,
        ring_length: 0,
        learning_from: None,
    }
}

/// One submitted write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) header: BlockHeader,
    pub(crate) bytes: Vec<u8>,
    /// Index of the first write that was not durable when this one was submitted.
    pub(crate) durable_before: usize,
}

impl Write {
    pub(crate) fn position(&self) -> usize {
        self.header.position.0 as usize
    }
}

#[derive(Clone)]
pub(crate) struct LogBuilder {
    pub(crate) superblock: Superblock,
    pub(crate) geometry: Geometry,
    pub(crate) tables: Tables,
    pub(crate) writes: Vec<Write>,
    pub(crate) epoch: Epoch,
    pub(crate) time_ns: u64,
    /// What the next block says was released; never past the durable end.
    pub(crate) durable: usize,
    /// Whether blocks say nothing was released, as while a peer keeps silent.
    pub(crate) is_held: bool,
    body: Vec<u8>,
    records: u32,
    data: u32,
    next_publisher_seq: std::collections::HashMap<u64, u64>,
}

impl LogBuilder {
    pub(crate) fn new(superblock: Superblock) -> Self {
        Self {
            superblock,
            geometry: superblock.geometry(),
            tables: Tables::empty(STREAM),
            writes: Vec::new(),
            epoch: Epoch(0),
            time_ns: 1_000,
            durable: 0,
            is_held: false,
            body: Vec::new(),
            records: 0,
            data: 0,
            next_publisher_seq: std::collections::HashMap::new(),
        }
    }

    /// A builder that goes on after these tables in a new epoch, with no writes of its own yet.
    pub(crate) fn after(superblock: Superblock, tables: Tables, epoch: Epoch) -> Self {
        let mut log = Self::new(superblock);
        log.time_ns = tables.last_time_ns;
        let publishers = tables.publishers.iter();
        log.next_publisher_seq = publishers.map(|(id, row)| (id.0, row.last.0 + 1)).collect();
        log.tables = tables;
        log.epoch = Epoch(epoch.0 - 1);
        log.open_epoch();
        log
    }

    pub(crate) fn next_seq(&self) -> Seq {
        Seq(self.tables.next_seq.0 + u64::from(self.data))
    }

    fn push(&mut self, kind: RecordKind, fields: &Fields, payload: &[u8]) {
        let at = self.body.len();
        self.body
            .resize(at + record::encoded_stride(0, payload.len()), 0);
        record::encode(&mut self.body[at..], kind, fields, &[], payload).expect("it has room");
        self.time_ns += 10;
        let seq = self.next_seq();
        record::stamp(&mut self.body[at..], seq, self.time_ns);
        self.records += 1;
        self.data += u32::from(kind == RecordKind::Data);
    }

    pub(crate) fn open_epoch(&mut self) {
        self.epoch = self.epoch.next();
        // A filler goes first where the block would not fit, so that the record knows where it will
        // lie.
        self.fill_segment(span_for(112, self.superblock.block_alignment));
        let body = EpochBody {
            epoch: self.epoch.0.into(),
            start_position: self.tables.position.0.into(),
            previous_checksum: self.tables.previous_checksum.into(),
            copies: 2,
            policy: 3,
            reserved: [0; 2],
            clean: 0,
            reserved_tail: [0; 15],
        };
        self.push(RecordKind::Epoch, &Fields::default(), body.as_bytes());
        self.seal();
    }

    pub(crate) fn topic(&mut self, name: &str) {
        let fields = Fields {
            topic: self.tables.topics.next_id(),
            ..Fields::default()
        };
        self.push(RecordKind::Topic, &fields, name.as_bytes());
    }

    pub(crate) fn session(&mut self, publisher: u64, incarnation: u64) {
        let fields = Fields {
            publisher: PublisherId(publisher),
            incarnation: Incarnation(incarnation),
            ..Fields::default()
        };
        self.push(RecordKind::PublisherSession, &fields, &[]);
        self.next_publisher_seq.insert(publisher, 1);
    }

    pub(crate) fn trading_session(&mut self, number: u64, name: &str) {
        let payload = [&number.to_le_bytes(), name.as_bytes()].concat();
        self.push(RecordKind::TradingSession, &Fields::default(), &payload);
    }

    /// A message of a publisher in incarnation 1.
    pub(crate) fn data(&mut self, publisher: u64, topic: u32, payload: &[u8]) {
        self.keyed(publisher, topic, 0, payload);
    }

    /// The same, with the hash of a key.
    pub(crate) fn keyed(&mut self, publisher: u64, topic: u32, key_hash: u64, payload: &[u8]) {
        let next = self
            .next_publisher_seq
            .get_mut(&publisher)
            .expect("it has a session");
        let fields = Fields {
            topic: TopicId(topic),
            publisher: PublisherId(publisher),
            incarnation: Incarnation(1),
            publisher_seq: PublisherSeq(*next),
            key_hash,
            origin_time_ns: 5,
        };
        *next += 1;
        self.push(RecordKind::Data, &fields, payload);
    }

    /// Seals what was pushed as one block.
    pub(crate) fn seal(&mut self) -> BlockHeader {
        assert_ne!(self.records, 0, "a records block has records");
        let span = span_for(self.body.len() as u32, self.superblock.block_alignment);
        self.fill_segment(span);
        let body = std::mem::take(&mut self.body);
        let header = self.write(BlockKind::Records, &body, span);
        (self.records, self.data) = (0, 0);
        header
    }

    pub(crate) fn mark(&mut self) -> BlockHeader {
        let span = span_for(0, self.superblock.block_alignment);
        self.fill_segment(span);
        self.write(BlockKind::Mark, &[], span)
    }

    fn fill_segment(&mut self, span: u32) {
        let left = self.geometry.left_in_segment(self.tables.position);
        if left < u64::from(span) {
            let (records, data) = (self.records, self.data);
            (self.records, self.data) = (0, 0);
            self.write(BlockKind::Filler, &[], left as u32);
            (self.records, self.data) = (records, data);
        }
    }

    fn released(&self) -> Position {
        if self.is_held {
            return Position(0);
        }
        let next = self
            .writes
            .get(self.durable)
            .map(|write| write.header.position);
        next.unwrap_or(self.tables.position)
            .min(self.tables.position)
    }

    /// Makes writes durable until one that ends at `end` may be submitted.
    fn make_room(&mut self, end: Position) {
        let limit = self.superblock.in_flight_bytes_max;
        while self.durable < self.writes.len()
            && (self.writes.len() - self.durable >= DEPTH
                || end.since(self.writes[self.durable].header.position) > limit)
        {
            self.durable += 1;
        }
    }

    fn write(&mut self, kind: BlockKind, body: &[u8], span: u32) -> BlockHeader {
        self.make_room(self.tables.position.plus(u64::from(span)));
        let header = BlockHeader {
            kind,
            stream: STREAM,
            epoch: self.epoch,
            number: self.tables.next_block_number,
            position: self.tables.position,
            first_seq: self.tables.next_seq,
            record_count: self.records,
            data_count: self.data,
            body_length: body.len() as u32,
            span,
            sealed_time_ns: self.time_ns + 1,
            released: self.released(),
            previous_checksum: self.tables.previous_checksum,
            body_checksum: 0,
            checksum: 0,
        };
        let length = header.written_length(self.superblock.block_alignment) as usize;
        let mut bytes = vec![0xEE; length];
        bytes[HEADER_LENGTH..header.body_end()].copy_from_slice(body);
        let header = seal(&mut bytes, &header);
        self.tables
            .apply_block(&header, body)
            .expect("the builder keeps the rules");
        self.writes.push(Write {
            header,
            bytes,
            durable_before: self.durable,
        });
        header
    }

    /// The first block of a log with these topics and publishers 1, 2, 3 ... in incarnation 1.
    pub(crate) fn begin(&mut self, topics: u32, publishers: u64) {
        self.open_epoch();
        for topic in 1..=topics {
            self.numbered_topic(topic);
        }
        for publisher in 1..=publishers {
            self.session(publisher, 1);
        }
        self.trading_session(20_260_105, "2026-01-05");
        self.seal();
    }

    pub(crate) fn numbered_topic(&mut self, topic: u32) {
        let fields = Fields {
            topic: TopicId(topic),
            ..Fields::default()
        };
        self.push(
            RecordKind::Topic,
            &fields,
            format!("orders.x{topic}").as_bytes(),
        );
    }

    /// Adds blocks of random size, marks among them; durability lags randomly.
    pub(crate) fn grow(&mut self, blocks: usize, payload_max: u64, random: &mut Random) {
        for _ in 0..blocks {
            if random.below(10) == 0 {
                self.mark();
            } else {
                for _ in 0..=random.below(4) {
                    let payload = vec![random.below(256) as u8; random.below(payload_max) as usize];
                    self.data(1 + random.below(2), 1 + random.below(2) as u32, &payload);
                }
                self.seal();
            }
            // On average as many become durable as are submitted, so that all depths occur.
            self.durable = (self.durable + random.below(3) as usize).min(self.writes.len());
        }
    }

    pub(crate) fn tail(&self) -> usize {
        self.tables.position.0 as usize
    }

    /// The whole log as it lies on a disk prepared to `length` bytes.
    pub(crate) fn image(&self, length: usize) -> Vec<u8> {
        let mut image = vec![0; length];
        for write in &self.writes {
            put(&mut image, write);
        }
        image
    }

    /// The log's tables after its first `count` writes, from nothing.
    pub(crate) fn tables_after(&self, count: usize) -> Tables {
        let mut tables = Tables::empty(STREAM);
        for write in &self.writes[..count] {
            let body = &write.bytes[HEADER_LENGTH..write.header.body_end()];
            tables
                .apply_block(&write.header, body)
                .expect("it was folded before");
        }
        tables
    }
}

pub(crate) fn put(image: &mut [u8], write: &Write) {
    let at = write.position();
    image[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
}

/// A disk in memory: what is prepared is what the vector holds.
pub(crate) struct MemorySource<'a>(pub(crate) &'a [u8]);

impl LogSource for MemorySource<'_> {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let start = usize::try_from(position.0)
            .expect("it is small")
            .min(self.0.len());
        let end = self.0.len().min(start + buffer.len());
        buffer[..end - start].copy_from_slice(&self.0[start..end]);
        Ok(end - start)
    }
}

pub(crate) fn recover_image(
    image: &[u8],
    superblock: &Superblock,
    start: Tables,
) -> Result<Recovered, RecoveryError> {
    recover(&mut MemorySource(image), superblock, start, &mut |_| {})
}

/// Room for the longest block, so that fillers appear.
pub(crate) const SEGMENT: u64 = 65_536;

#[test]
fn the_builder_stays_within_the_window() {
    let superblock = superblock(SEGMENT, 512, 32_768);
    let mut log = LogBuilder::new(superblock);
    log.begin(2, 2);
    log.grow(300, 3_000, &mut Random(1));
    assert!(
        log.writes
            .iter()
            .any(|write| write.header.kind == BlockKind::Filler)
    );
    for (index, write) in log.writes.iter().enumerate() {
        let first = log.writes[write.durable_before.min(index)].header.position;
        assert!(index - write.durable_before < DEPTH);
        assert!(write.header.next_position().since(first) <= 32_768);
        assert!(write.header.span <= relay_journal::block::SPAN_MAX);
        assert!(write.header.released <= write.header.position);
    }
}
