//! `relay bench replay`: how fast a journal's directory is read, beside what the disk itself gives.
//!
//! The floor is one thread that reads the same segment files from front to back with direct reads of 4 MiB into aligned
//! memory, and looks at nothing. The replay is what `relay replay --pace max` does up to the point where messages are handed
//! over: read ahead, every checksum, every rule of the chain, every record taken apart, selected and copied. Both go past the
//! page cache, take turns, and read the same bytes; the ratio of each pair and its median are printed. Where the ratio is
//! below 1, `cpu_share` tells whether the disk or a core was what limited it: near 1 a core was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use relay_journal::read_ahead::{CHUNK_LENGTH, DirectBuffer, DirectFile};
use relay_journal::reader::JournalDir;
use relay_journal::segment;
use serde::Serialize;

use super::MachineReport;
use super::series::Spread;
use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, thousands};
use crate::recorded::{Next, SelectionOptions, SourceOptions};
use crate::verify::{failed, open};

/// Signals are looked at that often.
const LOOK: Duration = Duration::from_millis(50);
/// The reading thread's CPU time is looked at once in so many batches.
const SAMPLE_EVERY: u64 = 16;

const EXAMPLES: &str = "\
Examples:
  relay bench replay /var/lib/relay/orders
  relay import big --size 256 --count 30000000 && relay bench replay big --runs 5 --json";

/// Options of `relay bench replay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayOptions {
    /// The stream's directory, which holds `superblock`
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Pairs of floor and replay
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: u32,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    selection: SelectionOptions,
}

/// One pair; rates in bytes of log per second.
#[derive(Debug, Clone, Copy, Serialize)]
struct Pair {
    floor_bytes_per_s: f64,
    replay_bytes_per_s: f64,
    ratio: f64,
    msgs_per_s: f64,
    /// CPU time of the busiest thread of the replay, as a share of the time it took.
    cpu_share: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    log_bytes: u64,
    messages: u64,
    is_direct: bool,
    ratio_median: f64,
    pairs: Vec<Pair>,
    machine: MachineReport,
}

/// Runs the command.
pub(super) fn run(options: &ReplayOptions) -> Result<(), Failure> {
    let interrupt = Interrupt::install()?;
    if options.runs == 0 {
        return Err(Failure::Usage("--runs is 1 or more".into()));
    }
    if options.selection.is_part() {
        let text = "the floor reads all of the log, so the replay has to: no --from or --to";
        return Err(Failure::Usage(text.into()));
    }
    let path = &options.directory;
    let journal = open(path)?;
    let extent = journal.extent().map_err(|error| failed(path, error))?;
    let log_bytes = extent.released.get() - journal.start().get();
    let mut pairs = Vec::new();
    let (mut messages, mut is_direct) = (0, true);
    for _ in 0..options.runs {
        let floor = read_plainly(path, &journal, extent.released.get(), &interrupt)?;
        is_direct &= floor.is_direct;
        let replay = options.replay(&interrupt)?;
        messages = replay.messages;
        let floor_rate = log_bytes as f64 / floor.took.as_secs_f64();
        let replay_rate = log_bytes as f64 / replay.took.as_secs_f64();
        pairs.push(Pair {
            floor_bytes_per_s: floor_rate,
            replay_bytes_per_s: replay_rate,
            ratio: replay_rate / floor_rate,
            msgs_per_s: messages as f64 / replay.took.as_secs_f64(),
            cpu_share: replay.cpu.as_secs_f64() / replay.took.as_secs_f64(),
        });
    }
    let report = Report {
        what: "replay",
        log_bytes,
        messages,
        is_direct,
        ratio_median: Spread::of(pairs.iter().map(|pair| pair.ratio)).median,
        pairs,
        machine: MachineReport::new(),
    };
    if options.json {
        return json_line(&report);
    }
    report.print()
}

impl Report {
    fn print(&self) -> Result<(), Failure> {
        line(&format!(
            "{} messages, {} bytes of log{}",
            thousands(self.messages),
            thousands(self.log_bytes),
            if self.is_direct {
                ""
            } else {
                "; this filesystem has no direct reads, so the page cache was measured"
            }
        ))?;
        line("   floor MB/s  replay MB/s   ratio      msgs/s  busiest thread")?;
        for pair in &self.pairs {
            line(&format!(
                "{:>13.0} {:>12.0} {:>7.2} {:>11} {:>14.0}%",
                pair.floor_bytes_per_s / 1e6,
                pair.replay_bytes_per_s / 1e6,
                pair.ratio,
                thousands(pair.msgs_per_s as u64),
                pair.cpu_share * 100.0
            ))?;
        }
        line(&format!("ratio, median: {:.2}", self.ratio_median))?;
        line(&self.machine.text())
    }
}

struct Floor {
    took: Duration,
    is_direct: bool,
}

/// Reads the segment files up to position `end`, and looks at nothing.
fn read_plainly(
    path: &Path,
    journal: &JournalDir,
    end: u64,
    interrupt: &Interrupt,
) -> Result<Floor, Failure> {
    let geometry = journal.superblock().geometry();
    let mut buffer = DirectBuffer::new(CHUNK_LENGTH);
    let mut is_direct = true;
    let begun = Instant::now();
    for &index in journal.segments() {
        let start = geometry.start_of(index).get();
        let length = geometry.segment_size().min(end.saturating_sub(start));
        if length == 0 {
            break;
        }
        let file_path = path.join(segment::DIRECTORY).join(segment::name(index));
        let reading = |error: std::io::Error| Failure::file("reading", &file_path, &error);
        let mut file = DirectFile::open(&file_path).map_err(reading)?;
        let mut offset = 0;
        while offset < length {
            let read = file.read_at(offset, buffer.bytes_mut()).map_err(reading)?;
            if read == 0 {
                break;
            }
            offset += read as u64;
            interrupt.check()?;
        }
        is_direct &= file.is_direct();
    }
    Ok(Floor {
        took: begun.elapsed(),
        is_direct,
    })
}

struct Replay {
    took: Duration,
    cpu: Duration,
    messages: u64,
}

impl ReplayOptions {
    fn replay(&self, interrupt: &Interrupt) -> Result<Replay, Failure> {
        let selection = self.selection.check()?;
        let begun = Instant::now();
        let recorded = SourceOptions::of(&self.directory).open(selection)?;
        let (mut messages, mut batches, mut busiest) = (0, 0_u64, 0.0_f64);
        loop {
            interrupt.check()?;
            match recorded.next_within(LOOK)? {
                Next::Batch(batch) => {
                    messages += batch.iter().count() as u64;
                    recorded.give_back(batch);
                    batches += 1;
                    if batches.is_multiple_of(SAMPLE_EVERY)
                        && let Some(seconds) = thread_seconds("relay-recorded")
                    {
                        busiest = busiest.max(seconds);
                    }
                }
                Next::NotYet => {}
                Next::End => break,
            }
        }
        Ok(Replay {
            took: begun.elapsed(),
            cpu: Duration::from_secs_f64(busiest),
            messages,
        })
    }
}

/// CPU time of this process's thread with that name, seconds; nothing where there is none.
fn thread_seconds(name: &str) -> Option<f64> {
    for entry in fs::read_dir("/proc/self/task").ok()? {
        let task = entry.ok()?.path();
        // A thread may be gone by now.
        let Ok(text) = fs::read_to_string(task.join("comm")) else {
            continue;
        };
        if text.trim() != name {
            continue;
        }
        let text = fs::read_to_string(task.join("schedstat")).ok()?;
        let nanoseconds: u64 = text.split(' ').next()?.parse().ok()?;
        return Some(nanoseconds as f64 / 1e9);
    }
    None
}
