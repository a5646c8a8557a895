//! Where the messages of `relay import` come from: a capture, JSON lines, or a generator.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use relay_client::wire::extension::Original;
use relay_client::wire::id::{Incarnation, PublisherId, PublisherSeq, Seq};
use relay_client::wire::item::PAYLOAD_LIMIT_MAX;
use serde::Deserialize;

use crate::connect::decode_hex;
use crate::exit::Failure;
use crate::flow::Flow;
use crate::pcap::{CaptureReader, is_fragment, transport};
use crate::rendering::JsonOriginal;
use crate::when::utc_text;

/// Longest line: the longest payload in hexadecimal, every field beside it, and room for escapes.
const LINE_LENGTH_MAX: u64 = 6 * PAYLOAD_LIMIT_MAX as u64 + 4096;

/// A message to be journalled.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// When it was received, ns UTC; 0 where the source does not know.
    pub(super) time_ns: u64,
    pub(super) topic: String,
    pub(super) publisher: u64,
    pub(super) incarnation: u64,
    pub(super) key_hash: u64,
    pub(super) origin_time_ns: u64,
    /// The identity it had where it comes from, if it says so.
    pub(super) original: Option<Original>,
    pub(super) payload: Vec<u8>,
}

/// How messages of a capture get their topics, and which are taken.
#[derive(Debug, Clone)]
pub(super) struct CaptureTerms {
    pub(super) topic: String,
    pub(super) is_per_port: bool,
    /// Empty for all.
    pub(super) ports: Vec<u16>,
    pub(super) publisher: u64,
}

/// A source; see the module.
pub(super) enum Source {
    Capture {
        reader: CaptureReader<BufReader<File>>,
        path: PathBuf,
        terms: CaptureTerms,
    },
    Lines {
        input: Box<dyn BufRead>,
        path: PathBuf,
        number: u64,
        line: Vec<u8>,
        publisher: u64,
    },
    Generated {
        flow: Flow,
        /// UTC of the flow's start, ns.
        begun_ns: u64,
        topic: String,
        publisher: u64,
    },
}

/// A line as `relay sub --json` and `relay export --format json` write it; only the topic must be there.
#[derive(Deserialize)]
struct JsonLine<'a> {
    topic: String,
    #[serde(default)]
    seq: u64,
    publisher: Option<u64>,
    incarnation: Option<u64>,
    #[serde(default)]
    publisher_seq: u64,
    #[serde(default)]
    key_hash: u64,
    #[serde(default)]
    origin_time_ns: u64,
    #[serde(default)]
    receive_time_ns: u64,
    original: Option<JsonOriginal>,
    payload: Option<String>,
    #[serde(borrow)]
    payload_hex: Option<&'a str>,
}

impl Source {
    /// The UDP and TCP payloads of a pcap or pcapng file.
    pub(super) fn capture(path: &Path, terms: CaptureTerms) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::file("opening", path, &error))?;
        let reader = CaptureReader::new(BufReader::with_capacity(1 << 20, file))
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        Ok(Self::Capture {
            reader,
            path: path.to_owned(),
            terms,
        })
    }

    /// JSON lines of a file, or of standard input for `-`.
    pub(super) fn lines(path: &Path, publisher: u64) -> Result<Self, Failure> {
        let input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path).map_err(|error| Failure::file("opening", path, &error))?;
            Box::new(BufReader::with_capacity(1 << 20, file))
        };
        Ok(Self::Lines {
            input,
            path: path.to_owned(),
            number: 0,
            line: Vec::new(),
            publisher,
        })
    }

    /// Puts the next message into `incoming`; false at the end.
    pub(super) fn next(&mut self, incoming: &mut Incoming) -> Result<bool, Failure> {
        match self {
            Self::Capture {
                reader,
                path,
                terms,
            } => next_captured(reader, path, terms, incoming),
            Self::Lines {
                input,
                path,
                number,
                line,
                publisher,
            } => {
                *number += 1;
                let at = |what: String| {
                    Failure::Failed(format!("{}, line {number}: {what}", path.display()))
                };
                if !read_line(input, line).map_err(|error| at(error.to_string()))? {
                    return Ok(false);
                }
                take_line(line, *publisher, incoming).map_err(at)?;
                Ok(true)
            }
            Self::Generated {
                flow,
                begun_ns,
                topic,
                publisher,
            } => {
                let Some(since_ns) = flow.next(&mut incoming.payload) else {
                    return Ok(false);
                };
                incoming.time_ns = *begun_ns + since_ns;
                incoming.origin_time_ns = incoming.time_ns;
                incoming.topic.clone_from(topic);
                incoming.publisher = *publisher;
                incoming.incarnation = 1;
                Ok(true)
            }
        }
    }
}

fn next_captured(
    reader: &mut CaptureReader<BufReader<File>>,
    path: &Path,
    terms: &CaptureTerms,
    incoming: &mut Incoming,
) -> Result<bool, Failure> {
    loop {
        let frame = match reader.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(false),
            Err(error) => return Err(Failure::Damaged(format!("{}: {error}", path.display()))),
        };
        let Some(found) = transport(frame.link_type, frame.bytes) else {
            if is_fragment(frame.link_type, frame.bytes) {
                return Err(Failure::Damaged(format!(
                    "{}: at {} it holds a part of an IP packet that was sent in several, and messages are not put together here; \
                     everything before it was read, leave such packets out if none of them matters (tcpdump -r, 'not (ip[6:2] & \
                     0x3fff != 0)')",
                    path.display(),
                    utc_text(frame.time_ns)
                )));
            }
            continue;
        };
        let is_wanted = |port| terms.ports.contains(&port);
        if !terms.ports.is_empty() && !is_wanted(found.port) && !is_wanted(found.source_port) {
            continue;
        }
        incoming.time_ns = frame.time_ns;
        incoming.origin_time_ns = frame.time_ns;
        incoming.topic.clear();
        incoming.topic.push_str(&terms.topic);
        if terms.is_per_port {
            incoming.topic.push('.');
            incoming.topic.push_str(&found.port.to_string());
        }
        incoming.publisher = terms.publisher;
        incoming.incarnation = 1;
        incoming.payload.clear();
        incoming.payload.extend_from_slice(found.payload);
        return Ok(true);
    }
}

/// Reads a line without its end; false at the end of the input.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        line.clear();
        let read = Read::take(&mut *input, LINE_LENGTH_MAX + 1).read_until(b'\n', line)?;
        if read as u64 > LINE_LENGTH_MAX {
            let text = "it is longer than any message can be; give JSON lines, a message each";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if read == 0 {
            return Ok(false);
        }
        if !line.trim_ascii().is_empty() {
            return Ok(true);
        }
    }
}

fn take_line(line: &[u8], publisher: u64, incoming: &mut Incoming) -> Result<(), String> {
    let found: JsonLine<'_> = serde_json::from_slice(line).map_err(|error| {
        format!("{error}; give lines as `relay export --format json` writes them")
    })?;
    incoming.payload.clear();
    match (&found.payload, found.payload_hex) {
        (Some(text), None) => incoming.payload.extend_from_slice(text.as_bytes()),
        (None, Some("")) => {}
        (None, Some(digits)) => {
            incoming.payload = decode_hex(digits)
                .ok_or("`payload_hex` is not an even number of hexadecimal digits")?
        }
        _ => return Err("it needs `payload` or `payload_hex`, one of the two".into()),
    }
    incoming.time_ns = match found.receive_time_ns {
        0 => found.origin_time_ns,
        time_ns => time_ns,
    };
    incoming.publisher = found.publisher.unwrap_or(publisher);
    incoming.incarnation = found.incarnation.unwrap_or(1);
    if incoming.publisher == 0 || incoming.incarnation == 0 {
        return Err("`publisher` and `incarnation` start at 1".into());
    }
    incoming.topic = found.topic;
    incoming.key_hash = found.key_hash;
    incoming.origin_time_ns = found.origin_time_ns;
    let own = JsonOriginal {
        publisher: incoming.publisher,
        incarnation: incoming.incarnation,
        publisher_seq: found.publisher_seq,
        seq: found.seq,
        receive_time_ns: found.receive_time_ns,
    };
    let original = found.original.or((found.seq != 0).then_some(own));
    incoming.original = original.map(|original| Original {
        publisher: PublisherId(original.publisher),
        incarnation: Incarnation(original.incarnation),
        publisher_seq: PublisherSeq(original.publisher_seq),
        seq: Seq(original.seq),
        receive_time_ns: original.receive_time_ns,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(line: &str) -> Result<Incoming, String> {
        let mut incoming = Incoming::default();
        take_line(line.as_bytes(), 7, &mut incoming).map(|()| incoming)
    }

    #[test]
    fn a_line_needs_a_topic_and_a_payload() {
        let found = take(r#"{"topic":"a.b","payload":"buy \"100\""}"#).expect("enough");
        assert_eq!((found.publisher, found.incarnation), (7, 1));
        assert_eq!(found.payload, b"buy \"100\"");
        assert_eq!(found.original, None);
        let found = take(r#"{"topic":"a","payload_hex":"00ff","origin_time_ns":5}"#).expect("hex");
        assert_eq!((&found.payload[..], found.time_ns), (&[0, 255][..], 5));
        for bad in [
            "{}",
            "[]",
            "x",
            r#"{"topic":"a"}"#,
            r#"{"payload":"a"}"#,
            r#"{"topic":"a","payload":"a","payload_hex":"00"}"#,
            r#"{"topic":"a","payload_hex":"0"}"#,
            r#"{"topic":"a","payload":"a","publisher":0}"#,
        ] {
            assert!(take(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_of_an_export_carries_its_identity() {
        let line = r#"{"seq":9,"topic":"a","publisher":3,"incarnation":4,"publisher_seq":2,
            "receive_time_ns":80,"payload":""}"#;
        let found = take(line).expect("whole");
        let own = found.original.expect("it has a seq");
        assert_eq!((own.seq, own.publisher), (Seq(9), PublisherId(3)));
        assert_eq!(own.receive_time_ns, 80);
        let line = r#"{"seq":9,"topic":"a","payload":"","original":{"publisher":1,"incarnation":2,
            "publisher_seq":3,"seq":4,"receive_time_ns":5}}"#;
        let first = take(line).expect("whole").original.expect("it is given");
        assert_eq!((first.seq, first.receive_time_ns), (Seq(4), 5));
    }

    #[test]
    fn blank_lines_are_passed_over_and_endless_ones_refused() {
        let mut line = Vec::new();
        let mut input = &b"\n  \nx\n"[..];
        assert!(read_line(&mut input, &mut line).expect("readable"));
        assert_eq!(line, b"x\n");
        assert!(!read_line(&mut input, &mut line).expect("readable"));
        let mut endless = io::repeat(b'x');
        let mut endless = BufReader::new(&mut endless);
        assert!(read_line(&mut endless, &mut line).is_err());
    }
}
