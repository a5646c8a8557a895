//! `relay find`: messages by seq, publisher, topic, key, time or content, each with its whole life.
//!
//! ```text
//! query.rs    what is looked for            life.rs   what is known of a message that was found
//! search.rs   one journal, by its index     live.rs   a running group, through the client library
//! ```
//!
//! A journal is only read. Nothing that is not released is shown unless that is asked for. The exit status is 0 whether or
//! not something was found; what was found is counted.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use relay_journal::segment;
use serde::Serialize;

use crate::connect::ConnectOptions;
use crate::exit::{Failure, Interrupt};
use crate::output::{Lines, escape, thousands};
use crate::verify::open;
use crate::when::utc_text;

mod life;
mod live;
mod query;
mod search;

use self::life::{Biographer, Life, Now, OtherCopy};
use self::query::{Query, QueryOptions};
use self::search::{Ends, Flow, Search};

const EXAMPLES: &str = "\
Examples:
  relay find /var/lib/relay/orders --seq 12345
  relay find node1/orders --seq 12345 --also node2/orders
  relay find node1/orders --publisher 7 --publisher-seq 991 --json
  relay find node1/orders --topic 'orders.*' --from 2026-01-05T09:30:00Z --to 2026-01-05T09:30:01Z
  relay find node1/orders --contains 'ORDER-4711' --limit 1
  relay find --seq 12345 --address 127.0.0.1:7400 --credential surveillance --secret-file surveillance.key

Without DIR a running relay is asked, which then has to be given as for `relay sub`.";

/// Most bytes of a payload that text shows.
const PAYLOAD_SHOWN: usize = 256;

/// Options of `relay find`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FindOptions {
    /// The stream's directory on one node; without it a running relay is asked
    #[arg(value_name = "DIR")]
    path: Option<PathBuf>,
    #[command(flatten)]
    query: QueryOptions,
    /// Show where the copy in this directory lies, which is another node's, and whether it is equal
    #[arg(long, value_name = "DIR", requires = "path")]
    also: Vec<PathBuf>,
    /// Show what is in the journal and not released, too
    #[arg(long, requires = "path")]
    unreleased: bool,
    /// Stop after so many messages
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// Print each message as a line of JSON, and a line about the search at the end
    #[arg(long)]
    json: bool,
    /// Say how long the search took, from opening the journal to the last message
    #[arg(long)]
    timing: bool,
    #[command(flatten)]
    connect: ConnectOptions,
}

/// The last line of `--json`.
#[derive(Debug, Default, Serialize)]
struct Summary {
    found: u64,
    /// Whether more might be there: the search ended at `--limit`.
    is_limited: bool,
    /// Segments that were looked into by their index.
    segments_indexed: u64,
    /// Finished segments that had to be scanned, for want of an index.
    segments_scanned: Vec<String>,
    blocks_read: u64,
    /// What was damaged on the way.
    damage: Vec<String>,
    seconds: f64,
}

/// Runs the command.
pub(crate) fn run(options: &FindOptions) -> Result<(), Failure> {
    let query = options.query.resolve()?;
    if options.limit == 0 {
        let text = "--limit takes 1 or more".to_owned();
        return Err(Failure::Usage(text));
    }
    let interrupt = Interrupt::install()?;
    match &options.path {
        Some(_) => options.in_journal(&query, &interrupt),
        None => live::run(options, &query, &interrupt),
    }
}

impl FindOptions {
    fn in_journal(&self, query: &Query, interrupt: &Interrupt) -> Result<(), Failure> {
        let begun = Instant::now();
        let path = self.path.as_deref().expect("a directory was given");
        let journal = open(path)?;
        let ends = Ends::new(&journal);
        let mut biographer = Biographer::new(&ends, &self.also, interrupt)?;
        let mut search = Search::new(&ends, query, self.unreleased, interrupt)?;
        let mut lines = Lines::new();
        let mut summary = Summary::default();
        let mut copies_differ = None;
        search.run(&mut |hit| {
            let life = biographer.life(hit)?;
            if copies_differ.is_none() {
                // A copy that lacks the message is only behind.
                let differs =
                    |copy: &&OtherCopy| !copy.is_equal && (copy.place.is_some() || copy.is_damaged);
                copies_differ = life.copies.iter().find(differs).cloned();
            }
            if self.json {
                lines.json(&life)?;
            } else {
                print_life(&mut lines, &life)?;
            }
            summary.found += 1;
            summary.is_limited = summary.found >= self.limit;
            Ok(if summary.is_limited {
                Flow::Enough
            } else {
                Flow::On
            })
        })?;
        summary.seconds = begun.elapsed().as_secs_f64();
        summary.segments_indexed = search.indexed;
        summary.segments_scanned = search
            .scanned
            .iter()
            .map(|(segment, _)| segment::name(*segment))
            .collect();
        summary.blocks_read = search.blocks;
        summary.damage.clone_from(&search.damage);
        let note = search.note();
        self.finish(&mut lines, &summary, note.as_deref())?;
        if let Some(damage) = summary.damage.first() {
            return Err(Failure::Damaged(format!(
                "{}: {damage}; what lies there was not looked into. `relay verify` names all of it",
                path.display()
            )));
        }
        match copies_differ {
            Some(copy) if copy.is_damaged => Err(Failure::Damaged(format!(
                "{}: {}; what lies there was not compared. `relay verify` names all of it",
                copy.directory,
                copy.problem.unwrap_or_default()
            ))),
            Some(copy) => Err(Failure::Damaged(format!(
                "the copy in {} {}; `relay verify {} {}` says which one is right",
                copy.directory,
                copy.problem.unwrap_or_default(),
                path.display(),
                copy.directory
            ))),
            None => Ok(()),
        }
    }

    /// What is said about the search itself: the last line of JSON, else on standard error.
    fn finish(
        &self,
        lines: &mut Lines,
        summary: &Summary,
        note: Option<&str>,
    ) -> Result<(), Failure> {
        if self.json {
            lines.json(summary)?;
            return lines.finish();
        }
        lines.finish()?;
        if let Some(note) = note {
            eprintln!("relay: {note}");
        }
        if summary.is_limited {
            eprintln!(
                "relay: stopped after {} messages; see --limit",
                summary.found
            );
        } else if summary.found == 0 {
            eprintln!("relay: nothing was found");
        }
        if self.timing {
            eprintln!("relay: {:.3} ms", summary.seconds * 1e3);
        }
        Ok(())
    }
}

fn time_text(time_ns: u64) -> String {
    match time_ns {
        0 => "not given".to_owned(),
        time_ns => utc_text(time_ns),
    }
}

/// A message for people.
fn print_life(lines: &mut Lines, life: &Life) -> Result<(), Failure> {
    lines.text(&format!(
        "seq {} on {}: {} bytes of publisher {}, its number {} in life {}{}{}",
        life.seq,
        life.topic_name
            .as_deref()
            .unwrap_or("a topic without a name"),
        thousands(life.bytes as u64),
        life.publisher,
        life.publisher_seq,
        life.incarnation,
        match life.key_hash {
            0 => String::new(),
            hash => format!(", key {hash:#018x}"),
        },
        if life.is_intact {
            ""
        } else {
            "; ITS CHECKSUM DOES NOT FIT"
        }
    ))?;
    let mut line = |name: &str, text: &str| lines.text(&format!("  {name:<10} {text}"));
    line(
        "origin",
        &format!(
            "{} by the publisher's clock",
            time_text(life.origin_time_ns)
        ),
    )?;
    line("received", &time_text(life.receive_time_ns))?;
    line(
        "sealed",
        &format!(
            "{} in block {}, epoch {}",
            time_text(life.sealed_time_ns),
            life.place.block,
            life.epoch
        ),
    )?;
    line("durable", &durable_text(life))?;
    line("released", &released_text(life))?;
    if let Some(now) = &life.now {
        line("now", &now_text(now))?;
    }
    if let Some(original) = &life.original {
        let text = format!(
            "replayed: it was seq {} there, received {}, of publisher {}, number {} in life {}",
            original.seq,
            time_text(original.receive_time_ns),
            original.publisher,
            original.publisher_seq,
            original.incarnation
        );
        line("original", &text)?;
    }
    if let Some(session) = &life.trading_session {
        line("session", &format!("{} `{}`", session.number, session.name))?;
    }
    let place = &life.place;
    line(
        "lies",
        &format!(
            "node {}: position {}, byte {} of its body; segment {}, offset {}",
            place.node, place.position, place.record_offset, place.segment, place.offset
        ),
    )?;
    for copy in &life.copies {
        line("copy", &copy_text(copy))?;
    }
    line("payload", &payload_text(life))
}

/// What is known of disks. The log has no times of these: it has what a release rests on.
fn durable_text(life: &Life) -> String {
    let here = "here, since it was read from this disk";
    let Some(rule) = &life.rule else {
        return format!(
            "{here}; which copies counted is not known: its epoch's record is not here"
        );
    };
    if !life.released {
        return format!("{here}; whether at others is not known offline");
    }
    let nodes = || {
        let nodes: Vec<_> = rule.nodes.iter().map(u64::to_string).collect();
        nodes.join(", ")
    };
    match (rule.policy.as_str(), rule.nodes.len()) {
        ("local", _) | (_, 0) => format!("{here}, before it was released"),
        ("durable", _) => format!(
            "before it was released, on the disk of every node that counted in epoch {}: {}; exact times are not kept",
            rule.epoch,
            nodes()
        ),
        (policy, _) => format!(
            "{here}; by policy `{policy}` it was in the memory of nodes {} when it was released, on their disks later",
            nodes()
        ),
    }
}

fn released_text(life: &Life) -> String {
    match &life.release_known {
        Some(known) => format!(
            "before {}, as block {} at position {} says",
            time_text(known.time_ns),
            known.block,
            known.position
        ),
        None if life.released => "yes; when is not in the log, which ended soon after".to_owned(),
        None => "NOT RELEASED, as far as this journal says".to_owned(),
    }
}

fn now_text(now: &Now) -> String {
    let yes = |is: bool| if is { "yes" } else { "NOT YET" };
    let mut text = format!(
        "durable here {}, released {}",
        yes(now.durable_here),
        yes(now.released)
    );
    for peer in &now.peers {
        text.push_str(&format!(
            ", durable at node {} {}",
            peer.node,
            yes(peer.durable)
        ));
    }
    text
}

fn copy_text(copy: &OtherCopy) -> String {
    let Some(place) = &copy.place else {
        let problem = copy.problem.as_deref().unwrap_or("it is not there");
        return format!("node {} in {}: {problem}", copy.node, copy.directory);
    };
    let verdict = match (copy.is_equal, copy.is_log_equal, &copy.problem) {
        (true, true, _) => "equal, and so is the whole log up to it".to_owned(),
        (true, false, _) => "equal, but the log before it is not".to_owned(),
        (false, _, problem) => problem.clone().unwrap_or_default(),
    };
    format!(
        "node {}: position {}; segment {}, offset {} in {}: {verdict}",
        copy.node, place.position, place.segment, place.offset, copy.directory
    )
}

fn payload_text(life: &Life) -> String {
    if let Some(digits) = &life.payload_hex {
        let end = digits.len().min(2 * PAYLOAD_SHOWN);
        let more = if end < digits.len() { "..." } else { "" };
        return format!("0x{}{more}", &digits[..end]);
    }
    let payload = life.payload.as_deref().unwrap_or_default().as_bytes();
    let mut shown = Vec::new();
    escape(&mut shown, &payload[..payload.len().min(PAYLOAD_SHOWN)]);
    let more = if payload.len() > PAYLOAD_SHOWN {
        "..."
    } else {
        ""
    };
    format!("{}{more}", String::from_utf8_lossy(&shown))
}
