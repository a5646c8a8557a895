//! The same search at a running relay or group, as a subscriber: nothing but what was released is ever delivered.
//!
//! A node reads it from its own disk for us, from the seq or time asked for on. Of a message's life a subscriber sees what
//! the record carries; the rest is known to the nodes' directories.

use std::time::{Duration, Instant};

use relay_client::{Delivery, Start, Subscriber};
use serde::Serialize;

use super::query::Query;
use super::{FindOptions, PAYLOAD_SHOWN, Summary, time_text};
use crate::exit::{Failure, Interrupt};
use crate::output::{Lines, escape, hex, thousands};

/// How often signals are looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// A message as a subscriber sees it.
#[derive(Serialize)]
struct Seen<'a> {
    seq: u64,
    topic: u32,
    topic_name: &'a str,
    publisher: u64,
    incarnation: u64,
    publisher_seq: u64,
    key_hash: u64,
    origin_time_ns: u64,
    receive_time_ns: u64,
    /// It was delivered, so it is.
    released: bool,
    checksum: u32,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

/// Runs the command against a running relay.
pub(super) fn run(
    options: &FindOptions,
    query: &Query,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let connection = options.connect.resolve()?;
    let patterns = if query.topics.is_empty() {
        vec![">".to_owned()]
    } else {
        query.topics.clone()
    };
    let mut subscriber = Subscriber::connect(connection.subscriber(patterns, start(query)))?;
    let mut lines = Lines::new();
    let mut summary = Summary::default();
    let outcome = receive(
        options,
        query,
        &mut subscriber,
        &mut lines,
        &mut summary,
        interrupt,
    );
    subscriber.close();
    outcome?;
    summary.seconds = begun.elapsed().as_secs_f64();
    options.finish(&mut lines, &summary, None)
}

/// The latest place nothing that is meant lies before.
fn start(query: &Query) -> Start {
    let seq = query.seqs.0;
    if seq.get() > 1 {
        Start::Seq {
            seq: seq.get(),
            checksum: None,
        }
    } else if query.times_ns.0 > 0 {
        Start::Time(query.times_ns.0)
    } else {
        Start::Earliest
    }
}

fn receive(
    options: &FindOptions,
    query: &Query,
    subscriber: &mut Subscriber,
    lines: &mut Lines,
    summary: &mut Summary,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let mut received = 0_u64;
    loop {
        let is_at_end = subscriber.is_connected() && subscriber.next_seq() >= subscriber.tail_seq();
        if is_at_end {
            return Ok(());
        }
        if received.is_multiple_of(1024) {
            interrupt.check()?;
        }
        let Some(delivery) = subscriber.next_within(LOOK)? else {
            interrupt.check()?;
            continue;
        };
        received += 1;
        if query.is_past(&delivery.record) {
            return Ok(());
        }
        if !query.matches(&delivery.record) {
            continue;
        }
        print(options, lines, &delivery)?;
        summary.found += 1;
        if summary.found >= options.limit {
            summary.is_limited = true;
            return Ok(());
        }
    }
}

fn print(options: &FindOptions, lines: &mut Lines, delivery: &Delivery<'_>) -> Result<(), Failure> {
    let record = &delivery.record;
    let header = record.header();
    let payload = std::str::from_utf8(record.payload()).ok();
    let seen = Seen {
        seq: record.seq().get(),
        topic: record.topic().get(),
        topic_name: delivery.topic,
        publisher: record.publisher().get(),
        incarnation: record.incarnation().get(),
        publisher_seq: record.publisher_seq().get(),
        key_hash: header.key_hash.get(),
        origin_time_ns: header.origin_time_ns.get(),
        receive_time_ns: record.receive_time_ns(),
        released: true,
        checksum: record.checksum(),
        bytes: record.payload().len(),
        payload,
        payload_hex: payload.is_none().then(|| hex(record.payload())),
    };
    if options.json {
        return lines.json(&seen);
    }
    lines.text(&format!(
        "seq {} on {}: {} bytes of publisher {}, its number {} in life {}",
        seen.seq,
        seen.topic_name,
        thousands(seen.bytes as u64),
        seen.publisher,
        seen.publisher_seq,
        seen.incarnation
    ))?;
    let origin = time_text(seen.origin_time_ns);
    lines.text(&format!("  origin     {origin} by the publisher's clock"))?;
    lines.text(&format!("  received   {}", time_text(seen.receive_time_ns)))?;
    lines.text(
        "  released   yes, since it was delivered; give a node's DIR for where its copies lie",
    )?;
    let mut shown = Vec::new();
    let payload = record.payload();
    escape(&mut shown, &payload[..payload.len().min(PAYLOAD_SHOWN)]);
    let more = if payload.len() > PAYLOAD_SHOWN {
        "..."
    } else {
        ""
    };
    lines.text(&format!(
        "  payload    {}{more}",
        String::from_utf8_lossy(&shown)
    ))
}
