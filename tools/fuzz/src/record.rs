//! The record codec: parsing anything, and writing what is parsed again.

use relay_wire::code::RecordKind;
use relay_wire::id::{Incarnation, PublisherId, PublisherSeq, Seq, TopicId};
use relay_wire::record::{
    self, Fields, HEADER_LENGTH, Record, check_published, encode, encoded_stride, epoch_body,
    readdress, stamp, trading_session_body,
};
use relay_wire::stride;

use crate::input::Input;

/// Parses `data` as it is, then with a checksum that fits, then builds a record of it.
pub fn run(data: &[u8]) {
    parse(data);
    let mut addressed = data.to_vec();
    if readdress(&mut addressed, TopicId(7), PublisherSeq(9)).is_ok() {
        let parsed = Record::parse(&addressed).expect("its structure is what it was");
        parsed.verify().expect("it was given a checksum that fits");
        assert_eq!(
            (parsed.topic(), parsed.publisher_seq()),
            (TopicId(7), PublisherSeq(9))
        );
        parse(&addressed);
        restamp(&mut addressed);
    }
    build(&mut Input::new(data));
}

fn parse(bytes: &[u8]) {
    let Ok(parsed) = Record::parse(bytes) else {
        assert!(
            check_published(bytes).is_err(),
            "what is no record was not published"
        );
        return;
    };
    let length = parsed.bytes().len();
    assert!((HEADER_LENGTH..=bytes.len()).contains(&length));
    assert_eq!(length, parsed.header().length.get() as usize);
    assert_eq!(
        HEADER_LENGTH + parsed.extension().len() + parsed.payload().len(),
        length
    );
    assert!(parsed.extension().len().is_multiple_of(8));
    assert_eq!(parsed.stride(), stride(length));
    let _ = (
        epoch_body(parsed.payload()),
        trading_session_body(parsed.payload()),
    );
    if let Ok(published) = check_published(bytes) {
        assert!(published.is_data() && published.verify().is_ok());
        assert_eq!((published.seq(), published.receive_time_ns()), (Seq(0), 0));
        written_again(&published);
    }
}

/// A published record, taken apart and encoded, is byte for byte what it was.
fn written_again(published: &Record<'_>) {
    let header = published.header();
    let fields = Fields {
        topic: published.topic(),
        publisher: published.publisher(),
        incarnation: published.incarnation(),
        publisher_seq: published.publisher_seq(),
        key_hash: header.key_hash.get(),
        origin_time_ns: header.origin_time_ns.get(),
    };
    let mut out = vec![0xEE; published.stride()];
    let taken = encode(
        &mut out,
        RecordKind::Data,
        &fields,
        published.extension(),
        published.payload(),
    )
    .expect("it has room");
    assert_eq!(taken, published.stride());
    assert_eq!(&out[..published.bytes().len()], published.bytes());
    assert!(out[published.bytes().len()..].iter().all(|&byte| byte == 0));
}

/// Stamping changes the two stamped fields and nothing the checksum covers.
fn restamp(bytes: &mut [u8]) {
    stamp(bytes, Seq(u64::MAX), 5);
    let parsed = Record::parse(bytes).expect("a stamp changes no structure");
    parsed.verify().expect("a stamp lies outside the checksum");
    assert_eq!((parsed.seq(), parsed.receive_time_ns()), (Seq(u64::MAX), 5));
}

fn build(input: &mut Input<'_>) {
    let kind = RecordKind::ALL[input.below(RecordKind::ALL.len())];
    let fields = Fields {
        topic: TopicId(input.quad()),
        publisher: PublisherId(input.quad().into()),
        incarnation: Incarnation(input.quad().into()),
        publisher_seq: PublisherSeq(input.quad().into()),
        key_hash: input.quad().into(),
        origin_time_ns: input.quad().into(),
    };
    let extension_length = input.below(8) * 8;
    let room = input.below(2) * 65_536;
    let extension = input.take(extension_length);
    let payload = input.all();
    let needed = encoded_stride(extension.len(), payload.len());
    let mut out = vec![0xEE; needed.min(room.max(256))];
    match encode(&mut out, kind, &fields, extension, payload) {
        Ok(taken) => {
            assert_eq!(taken, needed);
            // An extension area of arbitrary bytes is for the reader to refuse.
            if let Ok(parsed) = Record::parse(&out) {
                parsed.verify().expect("it was just encoded");
                assert_eq!(parsed.payload(), payload);
                assert_eq!(parsed.extension(), extension);
                assert_eq!(parsed.kind(), Some(kind));
            } else {
                assert!(
                    !extension.is_empty(),
                    "only an extension area can be malformed"
                );
            }
        }
        Err(record::EncodeError::NoRoom(said)) => assert_eq!(said, needed),
        Err(record::EncodeError::Extension) => assert!(!extension.len().is_multiple_of(8)),
        Err(record::EncodeError::TooLong) => unreachable!("no input is that long"),
    }
}
