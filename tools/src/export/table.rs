//! Messages as a table: one line each, every field a column.
//!
//! Payloads that are text without control characters (but tab and line ends) stand in `payload`, all others in `payload_hex`,
//! so that nothing is lost and what people can read is readable. The columns `original_*` are filled for messages that were
//! replayed from another stream.

use csv::Writer;
use relay_client::Delivery;
use relay_client::wire::extension::Original;

use super::Place;
use crate::exit::Failure;
use crate::output::hex;

const HEAD: [&str; 15] = [
    "seq",
    "topic",
    "publisher",
    "incarnation",
    "publisher_seq",
    "key_hash",
    "origin_time_ns",
    "receive_time_ns",
    "payload",
    "payload_hex",
    "original_publisher",
    "original_incarnation",
    "original_publisher_seq",
    "original_seq",
    "original_receive_time_ns",
];

/// A table being written.
pub(super) struct Table(Writer<Place>);

impl Table {
    pub(super) fn new(place: Place) -> Result<Self, Failure> {
        let mut table = Self(Writer::from_writer(place));
        table.row(HEAD.iter().copied())?;
        Ok(table)
    }

    pub(super) fn add(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        let header = delivery.record.header();
        let payload = delivery.record.payload();
        let text = readable(payload);
        let digits = if text.is_none() {
            hex(payload)
        } else {
            String::new()
        };
        let numbers = [
            header.seq.get(),
            header.publisher.get(),
            header.incarnation.get(),
            header.publisher_seq.get(),
            header.key_hash.get(),
            header.origin_time_ns.get(),
            header.receive_time_ns.get(),
        ];
        let [seq, rest @ ..] = numbers.map(|number| number.to_string());
        let original = Original::find(delivery.record.extension()).map(|original| {
            [
                original.publisher.get(),
                original.incarnation.get(),
                original.publisher_seq.get(),
                original.seq.get(),
                original.receive_time_ns,
            ]
            .map(|number| number.to_string())
        });
        let original = original.unwrap_or_default();
        let fields = [seq.as_str(), delivery.topic]
            .into_iter()
            .chain(rest.iter().map(String::as_str))
            .chain([text.unwrap_or_default(), &digits])
            .chain(original.iter().map(String::as_str));
        self.row(fields)
    }

    fn row<'a>(&mut self, fields: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        let written = self.0.write_record(fields);
        written.map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => self.0.get_ref().failed(&error),
            other => Failure::Failed(format!("laying out a line of the table: {other:?}")),
        })
    }

    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let flushed = self.0.flush();
        flushed.map_err(|error| self.0.get_ref().failed(&error))?;
        let place = self.0.into_inner();
        let place = place
            .map_err(|error| Failure::Failed(format!("completing the table: {}", error.error())))?;
        place.finish()
    }
}

/// The payload where people and programs can read it as text.
fn readable(payload: &[u8]) -> Option<&str> {
    let is_strange = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    let text = std::str::from_utf8(payload).ok()?;
    (!text.contains(is_strange)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_a_table_can_hold() {
        for text in ["", "buy 100", "a\tb\r\nc", "价 \"x\", y"] {
            assert_eq!(readable(text.as_bytes()), Some(text));
        }
        for bytes in [&b"8=FIX\x01"[..], &[0], &[0xff], "\u{85}".as_bytes()] {
            assert_eq!(readable(bytes), None, "{bytes:?}");
        }
    }
}
