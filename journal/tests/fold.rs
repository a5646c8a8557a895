//! Goal: the fold takes in what a relay may write and names the rule for everything else.
//! Method: one good log to start from; then single blocks, each breaking one rule.

mod log;

use log::{LogBuilder, Random, SEGMENT, superblock};
use relay_journal::block::{BlockHeader, BlockKind};
use relay_journal::tables::{FoldError, Publisher, Tables};
use relay_wire::code::{Policy, RecordKind};
use relay_wire::id::{
    Epoch, Incarnation, Position, PublisherId, PublisherSeq, Seq, StreamId, TopicId,
};
use relay_wire::record::{self, EpochBody, Fields};
use relay_wire::topic::TopicError;
use zerocopy::IntoBytes;

/// A log with topics 1 and 2, publishers 1 and 2, and one message of publisher 1: the next seq is
/// 2.
fn begun() -> LogBuilder {
    let mut log = LogBuilder::new(superblock(SEGMENT, 512, 65_536));
    log.begin(2, 2);
    log.data(1, 2, b"first");
    log.seal();
    log
}

/// Good fields for the next message of publisher 1.
const GOOD: Fields = Fields {
    topic: TopicId(1),
    publisher: PublisherId(1),
    incarnation: Incarnation(1),
    publisher_seq: PublisherSeq(2),
    key_hash: 0,
    origin_time_ns: 0,
};

/// One record, stamped.
fn record(kind: u8, fields: &Fields, payload: &[u8], seq: u64, time_ns: u64) -> Vec<u8> {
    let mut bytes = vec![0; record::encoded_stride(0, payload.len())];
    record::encode(&mut bytes, RecordKind::Data, fields, &[], payload).expect("it has room");
    bytes[4] = kind;
    record::stamp(&mut bytes, Seq(seq), time_ns);
    bytes
}

/// Header for these records as the next block, with a checksum that nobody looks at here.
fn header(tables: &Tables, records: &[Vec<u8>]) -> BlockHeader {
    let data = records.iter().filter(|record| record[4] == 1).count();
    BlockHeader {
        kind: BlockKind::Records,
        stream: tables.stream,
        epoch: tables.epoch,
        number: tables.next_block_number,
        position: tables.position,
        first_seq: tables.next_seq,
        record_count: records.len() as u32,
        data_count: data as u32,
        body_length: records.iter().map(Vec::len).sum::<usize>() as u32,
        span: 4096,
        sealed_time_ns: 0,
        released: Position(0),
        previous_checksum: tables.previous_checksum,
        body_checksum: 0,
        checksum: 77,
    }
}

fn apply(tables: &Tables, records: &[Vec<u8>]) -> Result<Tables, FoldError> {
    let mut tables = tables.clone();
    let header = header(&tables, records);
    tables.apply_block(&header, &records.concat())?;
    Ok(tables)
}

const LATER: u64 = 1 << 40;

#[test]
fn a_log_adds_up() {
    let log = begun();
    let tables = &log.tables;
    assert_eq!((tables.next_seq, tables.earliest_seq), (Seq(2), Seq(1)));
    assert_eq!((tables.epoch, tables.next_block_number), (Epoch(1), 4));
    assert_eq!(tables.topics.name(TopicId(2)), Some("orders.x2"));
    assert_eq!(tables.topics.id("orders.x1"), Some(TopicId(1)));
    assert_eq!(tables.topics.name(TopicId(0)), None);
    assert_eq!(tables.topics.name(TopicId(3)), None);
    let publisher = tables.publishers[&PublisherId(1)];
    assert_eq!(
        (publisher.last, publisher.last_seq),
        (PublisherSeq(1), Seq(1))
    );
    assert_eq!(publisher.last_checksum, tables.last_checksum);
    assert_ne!(tables.last_checksum, 0);
    let epoch = tables.epochs[0];
    assert_eq!(
        (epoch.start, epoch.copies, epoch.policy),
        (Position(0), 2, Policy::Durable)
    );
    let session = tables.trading_session.as_ref().expect("one was opened");
    assert_eq!((session.number, &*session.name), (20_260_105, "2026-01-05"));
    assert_eq!(tables.index.find_seq(Seq(1)), Position(0));
}

#[test]
fn a_new_incarnation_starts_at_one() {
    let tables = begun().tables;
    let session = Fields {
        incarnation: Incarnation(5),
        ..Fields {
            publisher: PublisherId(1),
            ..Fields::default()
        }
    };
    let first = Fields {
        incarnation: Incarnation(5),
        publisher_seq: PublisherSeq(1),
        ..GOOD
    };
    let session = record(3, &session, &[], 2, LATER);
    let after = apply(&tables, std::slice::from_ref(&session)).expect("it rises");
    let row = Publisher {
        incarnation: Incarnation(5),
        last: PublisherSeq(0),
        last_seq: Seq(0),
        last_checksum: 0,
    };
    assert_eq!(after.publishers[&PublisherId(1)], row);
    let first = record(1, &first, b"x", 2, LATER);
    let after = apply(&tables, &[session.clone(), first]).expect("it begins again at 1");
    assert_eq!(after.next_seq, Seq(3));
    // The life before is over, and none begins twice.
    let error = apply(
        &tables,
        &[session.clone(), record(1, &GOOD, b"x", 2, LATER)],
    );
    assert!(
        matches!(error, Err(FoldError::Incarnation { .. })),
        "{error:?}"
    );
    let error = apply(&tables, &[session.clone(), session]);
    assert!(
        matches!(error, Err(FoldError::Incarnation { .. })),
        "{error:?}"
    );
}

#[test]
fn unknown_control_records_are_passed_over() {
    let tables = begun().tables;
    let records = [
        record(99, &Fields::default(), b"later", 2, LATER),
        record(1, &GOOD, b"", 2, LATER),
    ];
    assert_eq!(
        apply(&tables, &records)
            .expect("kind 99 is for later")
            .next_seq,
        Seq(3)
    );
    for kind in [0, 128, 255] {
        let error = apply(&tables, &[record(kind, &Fields::default(), b"", 2, LATER)]);
        assert_eq!(error, Err(FoldError::RecordKind(kind)));
    }
}

#[test]
fn every_rule_of_a_record() {
    let tables = begun().tables;
    assert!(apply(&tables, &[record(1, &GOOD, b"x", 2, LATER)]).is_ok());
    let publisher = PublisherId(1);
    let data = |fields: Fields| record(1, &fields, b"x", 2, LATER);
    let topic = |id: u32, name: &str| {
        let topic = TopicId(id);
        record(
            2,
            &Fields {
                topic,
                ..Fields::default()
            },
            name.as_bytes(),
            2,
            LATER,
        )
    };
    let before = tables.last_time_ns;
    let seq = |found, expected| FoldError::Seq {
        found: Seq(found),
        expected: Seq(expected),
    };
    let cases = [
        (record(1, &GOOD, b"x", 3, LATER), seq(3, 2)),
        (record(1, &GOOD, b"x", 1, LATER), seq(1, 2)),
        (
            record(1, &GOOD, b"x", 2, before - 1),
            FoldError::Time {
                found: before - 1,
                before,
            },
        ),
        (
            data(Fields {
                topic: TopicId(3),
                ..GOOD
            }),
            FoldError::UnknownTopic(TopicId(3)),
        ),
        (
            data(Fields {
                topic: TopicId(0),
                ..GOOD
            }),
            FoldError::UnknownTopic(TopicId(0)),
        ),
        (
            data(Fields {
                publisher: PublisherId(9),
                ..GOOD
            }),
            FoldError::UnknownPublisher(PublisherId(9)),
        ),
        (
            data(Fields {
                incarnation: Incarnation(2),
                ..GOOD
            }),
            FoldError::Incarnation {
                publisher,
                found: Incarnation(2),
                current: Incarnation(1),
            },
        ),
        (
            data(Fields {
                publisher_seq: PublisherSeq(3),
                ..GOOD
            }),
            FoldError::PublisherSeq {
                publisher,
                found: PublisherSeq(3),
                expected: PublisherSeq(2),
            },
        ),
        (
            topic(4, "new"),
            FoldError::TopicId {
                found: TopicId(4),
                expected: TopicId(3),
            },
        ),
        (topic(3, "a..b"), FoldError::TopicName(TopicError::Empty)),
        (
            topic(3, "orders.x1"),
            FoldError::TopicDefinedTwice(TopicId(1)),
        ),
        (
            record(3, &Fields::default(), &[], 2, LATER),
            FoldError::UnknownPublisher(PublisherId(0)),
        ),
        (
            record(5, &Fields::default(), b"short", 2, LATER),
            FoldError::TradingSession,
        ),
        (
            record(4, &Fields::default(), b"short", 2, LATER),
            FoldError::Epoch("its record is short"),
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(apply(&tables, &[bytes]), Err(error));
    }
}

#[test]
fn every_rule_of_a_header() {
    let tables = begun().tables;
    let body = [record(1, &GOOD, b"x", 2, LATER)];
    let good = header(&tables, &body);
    let cases: [(&str, BlockHeader); 8] = [
        (
            "stream",
            BlockHeader {
                stream: StreamId(8),
                ..good
            },
        ),
        (
            "position",
            BlockHeader {
                position: Position(512),
                ..good
            },
        ),
        ("number", BlockHeader { number: 9, ..good }),
        (
            "previous checksum",
            BlockHeader {
                previous_checksum: 1,
                ..good
            },
        ),
        (
            "first seq",
            BlockHeader {
                first_seq: Seq(3),
                ..good
            },
        ),
        (
            "body length",
            BlockHeader {
                body_length: 72,
                ..good
            },
        ),
        (
            "epoch",
            BlockHeader {
                epoch: Epoch(0),
                ..good
            },
        ),
        (
            "counts",
            BlockHeader {
                data_count: 0,
                ..good
            },
        ),
    ];
    for (name, header) in cases {
        let error = tables.clone().apply_block(&header, &body.concat());
        match error {
            Err(FoldError::Header { field, .. }) => assert_eq!(field, name),
            Err(FoldError::Counts {
                records: 1,
                data: 1,
            }) => assert_eq!(name, "counts"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn an_epoch_opens_with_its_record() {
    let tables = begun().tables;
    let body = EpochBody {
        epoch: 2.into(),
        start_position: tables.position.0.into(),
        previous_checksum: tables.previous_checksum.into(),
        copies: 1,
        policy: 1,
        reserved: [0; 2],
        clean: 1,
        reserved_tail: [0; 15],
    };
    let message = record(1, &GOOD, b"x", 2, LATER);
    let open = |body: EpochBody, epoch: u64, is_first: bool| {
        let opening = record(4, &Fields::default(), body.as_bytes(), 2, LATER);
        let mut records = vec![opening, message.clone()];
        if !is_first {
            records.insert(0, record(99, &Fields::default(), b"", 2, LATER));
        }
        let mut tables = tables.clone();
        let header = BlockHeader {
            epoch: Epoch(epoch),
            ..header(&tables, &records)
        };
        tables.apply_block(&header, &records.concat())?;
        Ok(tables)
    };
    let after = open(body, 2, true).expect("it opens epoch 2");
    assert_eq!((after.epoch, after.epochs.len()), (Epoch(2), 2));
    assert!(after.epochs[1].clean);
    for (body, epoch, is_first, wrong) in [
        (body, 2, false, "its record is not the block's first"),
        (body, 3, true, "epoch"),
        (
            EpochBody {
                epoch: 1.into(),
                ..body
            },
            1,
            true,
            "epoch",
        ),
        (
            EpochBody {
                start_position: 0.into(),
                ..body
            },
            2,
            true,
            "start position",
        ),
        (
            EpochBody {
                previous_checksum: 1.into(),
                ..body
            },
            2,
            true,
            "checksum of the block before",
        ),
        (EpochBody { copies: 0, ..body }, 2, true, "copies"),
        (EpochBody { policy: 9, ..body }, 2, true, "policy"),
        (
            EpochBody {
                reserved: [1, 0],
                ..body
            },
            2,
            true,
            "reserved bytes",
        ),
    ] {
        assert_eq!(open(body, epoch, is_first), Err(FoldError::Epoch(wrong)));
    }
    let mut silent = tables.clone();
    let raised = BlockHeader {
        epoch: Epoch(2),
        ..header(&tables, std::slice::from_ref(&message))
    };
    let error = silent.apply_block(&raised, &message);
    assert_eq!(error, Err(FoldError::Epoch("no record opens it")));
    // A filler may stand in front of the opening record, in the new epoch already.
    let mut filled = tables.clone();
    let filler = BlockHeader {
        kind: BlockKind::Filler,
        epoch: Epoch(2),
        ..header(&tables, &[])
    };
    filled
        .apply_block(&filler, &[])
        .expect("a filler carries nothing");
    let mark = BlockHeader {
        kind: BlockKind::Mark,
        ..header(&filled, &[])
    };
    let error = filled.clone().apply_block(&mark, &[]);
    assert_eq!(error, Err(FoldError::Epoch("no record opens it")));
}

/// The index leads to a place at or before every seq and time, never behind it.
#[test]
fn the_index_never_leads_too_far() {
    let mut log = LogBuilder::new(superblock(1 << 20, 4096, 1 << 20));
    log.begin(2, 2);
    let mut random = Random(3);
    while log.tail() < 12 << 20 {
        log.grow(1, 40_000, &mut random);
    }
    let index = &log.tables.index;
    assert!(index.entries().len() >= 9);
    for write in log
        .writes
        .iter()
        .filter(|write| write.header.data_count != 0)
    {
        for seq in write.header.first_seq.0..write.header.next_seq().0 {
            let position = index.find_seq(Seq(seq));
            assert!(position <= write.header.position, "seq {seq}");
            let gap = write.header.position.since(position);
            assert!(gap < 3 << 20, "seq {seq} lies {gap} bytes behind");
        }
    }
    for write in &log.writes {
        let body = &write.bytes[128..write.header.body_end()];
        for record in relay_journal::block::records(body) {
            let (_, record) = record.expect("it is intact");
            let position = index.find_time(record.receive_time_ns());
            assert!(position <= write.header.position);
        }
    }
}

/// Goal: seqs are skipped only where an epoch opens with an accepted loss. Method: one opening block after the other, with and without the
/// UNCLEAN record, in the old epoch and in a new one.
#[test]
fn only_an_accepted_loss_skips_seqs() {
    let tables = begun().tables;
    let next = tables.next_seq.0;
    let open = |epoch: u64, first_seq: u64, is_unclean: bool| {
        let body = EpochBody {
            epoch: epoch.into(),
            start_position: tables.position.0.into(),
            previous_checksum: tables.previous_checksum.into(),
            copies: 1,
            policy: 1,
            reserved: [0; 2],
            clean: 0,
            reserved_tail: [0; 15],
        };
        let none = Fields::default();
        let mut records = vec![record(4, &none, body.as_bytes(), first_seq, LATER)];
        if is_unclean {
            records.push(record(6, &none, &[0; 40], first_seq, LATER));
        }
        records.push(record(1, &GOOD, b"x", first_seq, LATER));
        let mut tables = tables.clone();
        let header = BlockHeader {
            epoch: Epoch(epoch),
            first_seq: Seq(first_seq),
            ..header(&tables, &records)
        };
        tables.apply_block(&header, &records.concat())?;
        Ok(tables)
    };
    let refused = |first_seq| FoldError::Header {
        field: "first seq",
        found: first_seq,
        expected: next,
    };
    let after = open(2, next + 1_000, true).expect("a loss was accepted");
    assert_eq!(after.next_seq, Seq(next + 1_001));
    assert_eq!(after.epochs[1].first_seq, Seq(next + 1_000));
    assert_eq!(
        open(2, next, true).map(|after| after.next_seq),
        Ok(Seq(next + 1))
    );
    assert_eq!(open(2, next + 1_000, false), Err(refused(next + 1_000)));
    assert_eq!(open(2, next - 1, true), Err(refused(next - 1)));
    assert_eq!(open(1, next + 1_000, true), Err(refused(next + 1_000)));
}
