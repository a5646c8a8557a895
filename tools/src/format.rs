//! The `-f` format string of `relay sub`, in the manner of kcat.

use relay_client::Delivery;

use crate::output::hex;

/// What each letter stands for, for the help.
pub(crate) const HELP: &str = "\
Format (-f):
  %s payload            %S its length in bytes   %x payload in hexadecimal
  %t topic              %o seq                   %T receive time, ns UTC
  %p publisher          %q publisher sequence    %i incarnation
  %k key hash           %O origin time, ns UTC   %%  a percent sign
  \\n \\t \\r \\0 \\\\       newline, tab, carriage return, zero byte, backslash";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Payload,
    PayloadLength,
    PayloadHex,
    Topic,
    Seq,
    ReceiveTime,
    OriginTime,
    KeyHash,
    Publisher,
    PublisherSeq,
    Incarnation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Field(Field),
}

/// A format string, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Piece>);

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '%' => {
                    let letter = characters.next();
                    if letter == Some('%') {
                        plain.push(b'%');
                        continue;
                    }
                    let field = letter.and_then(field).ok_or_else(|| unknown('%', letter))?;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Field(field));
                }
                '\\' => plain.push(match characters.next() {
                    Some('n') => b'\n',
                    Some('t') => b'\t',
                    Some('r') => b'\r',
                    Some('0') => 0,
                    Some('\\') => b'\\',
                    other => return Err(unknown('\\', other)),
                }),
                other => plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

fn unknown(mark: char, letter: Option<char>) -> String {
    match letter {
        Some(letter) => format!("`{mark}{letter}` stands for nothing"),
        None => format!("`{mark}` at the end; a letter must follow it"),
    }
}

fn field(letter: char) -> Option<Field> {
    Some(match letter {
        's' => Field::Payload,
        'S' => Field::PayloadLength,
        'x' => Field::PayloadHex,
        't' => Field::Topic,
        'o' => Field::Seq,
        'T' => Field::ReceiveTime,
        'O' => Field::OriginTime,
        'k' => Field::KeyHash,
        'p' => Field::Publisher,
        'q' => Field::PublisherSeq,
        'i' => Field::Incarnation,
        _ => return None,
    })
}

impl Format {
    /// Appends one message.
    pub(crate) fn write(&self, out: &mut Vec<u8>, delivery: &Delivery<'_>) {
        let record = &delivery.record;
        let header = record.header();
        for piece in &self.0 {
            let number = match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Piece::Field(field) => match field {
                    Field::Payload => {
                        out.extend_from_slice(record.payload());
                        continue;
                    }
                    Field::PayloadHex => {
                        out.extend_from_slice(hex(record.payload()).as_bytes());
                        continue;
                    }
                    Field::Topic => {
                        out.extend_from_slice(delivery.topic.as_bytes());
                        continue;
                    }
                    Field::PayloadLength => record.payload().len() as u64,
                    Field::Seq => record.seq().get(),
                    Field::ReceiveTime => record.receive_time_ns(),
                    Field::OriginTime => header.origin_time_ns.get(),
                    Field::KeyHash => header.key_hash.get(),
                    Field::Publisher => record.publisher().get(),
                    Field::PublisherSeq => record.publisher_seq().get(),
                    Field::Incarnation => record.incarnation().get(),
                },
            };
            out.extend_from_slice(number.to_string().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_client::wire::code::RecordKind;
    use relay_client::wire::id::{Incarnation, PublisherId, PublisherSeq, Seq, TopicId};
    use relay_client::wire::record::{Fields, Record, encode, stamp};

    use super::*;

    #[test]
    fn every_field_and_escape() {
        let fields = Fields {
            topic: TopicId(1),
            publisher: PublisherId(17),
            incarnation: Incarnation(5),
            publisher_seq: PublisherSeq(9),
            key_hash: 3,
            origin_time_ns: 70,
        };
        let mut bytes = vec![0; 128];
        let stride = encode(&mut bytes, RecordKind::Data, &fields, &[], b"pay\n").expect("room");
        stamp(&mut bytes[..stride], Seq(42), 80);
        let record = Record::parse(&bytes).expect("a record");
        let delivery = Delivery {
            record,
            topic: "a.b",
        };
        let format: Format = r"%o\t%t %p/%q/%i %S %s%k %T %O %x 100%%\0\r\\é\n"
            .parse()
            .expect("good");
        let mut out = Vec::new();
        format.write(&mut out, &delivery);
        let expected = "42\ta.b 17/9/5 4 pay\n3 80 70 7061790a 100%\0\r\\é\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        for bad in ["%", "%z", "a\\", "\\q", "%%%"] {
            assert!(bad.parse::<Format>().is_err(), "{bad}");
        }
        assert_eq!("".parse(), Ok(Format(Vec::new())));
    }
}
