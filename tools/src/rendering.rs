//! How a message is written out: a line of text, a line of JSON, its bare payload, or a format of one's own.
//!
//! `relay sub`, `relay replay` and `relay export` write the same message the same way; `relay import` reads the JSON lines
//! back.

use clap::Args;
use relay_client::Delivery;
use relay_client::wire::extension::Original;
use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::output::{escape, hex};

/// Which of the ways, on the command line.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RenderingOptions {
    /// Print each message as a line of JSON
    #[arg(long, conflicts_with_all = ["raw", "format"])]
    json: bool,
    /// Print payloads only, nothing between them
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// Print each message in this format
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<Format>,
}

impl RenderingOptions {
    /// The way that was asked for, or else `usual`.
    pub(crate) fn rendering(&self, usual: Rendering) -> Rendering {
        match &self.format {
            Some(format) => Rendering::Format(format.clone()),
            None if self.json => Rendering::Json,
            None if self.raw => Rendering::Raw,
            None => usual,
        }
    }

    /// Whether JSON was asked for.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }
}

/// One of the ways.
#[derive(Debug, Clone)]
pub(crate) enum Rendering {
    /// Seq, topic and payload, the latter readable.
    Text,
    /// One object with every field.
    Json,
    /// The payload alone.
    Raw,
    /// What a format string says.
    Format(Format),
}

impl Rendering {
    /// Appends one message to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, delivery: &Delivery<'_>) {
        match self {
            Self::Text => text(out, delivery),
            Self::Json => json(out, delivery),
            Self::Raw => out.extend_from_slice(delivery.record.payload()),
            Self::Format(format) => format.write(out, delivery),
        }
    }
}

/// A message as a line of JSON. The payload stands in `payload` where it is text, else in `payload_hex`.
#[derive(Serialize)]
struct JsonMessage<'a> {
    seq: u64,
    topic: &'a str,
    publisher: u64,
    incarnation: u64,
    publisher_seq: u64,
    key_hash: u64,
    origin_time_ns: u64,
    receive_time_ns: u64,
    /// Where it was recorded first, if it was replayed from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<JsonOriginal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

/// A message's identity on the stream it was replayed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JsonOriginal {
    pub(crate) publisher: u64,
    pub(crate) incarnation: u64,
    pub(crate) publisher_seq: u64,
    pub(crate) seq: u64,
    pub(crate) receive_time_ns: u64,
}

impl From<Original> for JsonOriginal {
    fn from(original: Original) -> Self {
        Self {
            publisher: original.publisher.get(),
            incarnation: original.incarnation.get(),
            publisher_seq: original.publisher_seq.get(),
            seq: original.seq.get(),
            receive_time_ns: original.receive_time_ns,
        }
    }
}

fn text(line: &mut Vec<u8>, delivery: &Delivery<'_>) {
    line.extend_from_slice(delivery.record.seq().to_string().as_bytes());
    line.push(b' ');
    line.extend_from_slice(delivery.topic.as_bytes());
    line.push(b' ');
    escape(line, delivery.record.payload());
    line.push(b'\n');
}

fn json(line: &mut Vec<u8>, delivery: &Delivery<'_>) {
    let header = delivery.record.header();
    let payload = std::str::from_utf8(delivery.record.payload()).ok();
    let message = JsonMessage {
        seq: header.seq.get(),
        topic: delivery.topic,
        publisher: header.publisher.get(),
        incarnation: header.incarnation.get(),
        publisher_seq: header.publisher_seq.get(),
        key_hash: header.key_hash.get(),
        origin_time_ns: header.origin_time_ns.get(),
        receive_time_ns: header.receive_time_ns.get(),
        original: Original::find(delivery.record.extension()).map(Into::into),
        payload,
        payload_hex: payload.is_none().then(|| hex(delivery.record.payload())),
    };
    serde_json::to_writer(&mut *line, &message).expect("a vector takes all");
    line.push(b'\n');
}
