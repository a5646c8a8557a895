//! `relay export`: what was recorded, as a file that other programs read: CSV, JSON lines, pcap.
//!
//! ```text
//! recorded.rs (a thread reads and selects) -> table.rs | rendering.rs | capture.rs -> a file, or standard output
//! ```
//!
//! A file is there whole or not at all (`output_file.rs`).

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use relay_client::Delivery;

use crate::exit::{Failure, Interrupt};
use crate::hash_file::HashFile;
use crate::output::{progress, thousands};
use crate::output_file::OutputFile;
use crate::recorded::{Next, Recorded, SelectionOptions, SourceOptions};
use crate::rendering::Rendering;

mod capture;
mod table;

pub(crate) use capture::{Capture, CaptureOptions};

/// Signals are looked at that often while nothing comes.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that wait before they are written to standard output.
const OUTPUT_BYTES: usize = 256 << 10;

const EXAMPLES: &str = "\
Examples:
  relay export /var/lib/relay/orders --format csv --output day.csv
  relay export /var/lib/relay/orders --format json --topic 'orders.>' --from 2026-01-05T09:30:00Z | gzip > day.jsonl.gz
  relay export /var/lib/relay/feed --format pcap --output day.pcap && tshark -r day.pcap
  relay export --address 10.0.0.1:7400 --format csv --from 1000 --to 2000";

/// Options of `relay export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportOptions {
    /// What to write
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// Write to this file, which is there when it is whole; without it to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    capture: CaptureOptions,
    /// Write `seq sha256(payload) topic` of each message
    #[arg(long, value_name = "FILE")]
    hash_file: Option<PathBuf>,
    // Those with a heading of their own come last: what follows would stand under it.
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    source: SourceOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// A table with a head, as RFC 4180 has it
    Csv,
    /// An object on each line, which `relay import --jsonl` takes back
    Json,
    /// A capture, a UDP datagram for each message
    Pcap,
}

/// Runs the command.
pub(crate) fn run(options: &ExportOptions) -> Result<(), Failure> {
    let interrupt = Interrupt::install()?;
    let is_on_screen = options.output.is_none() && io::stdout().is_terminal();
    if is_on_screen && options.format == ExportFormat::Pcap {
        let text = "a capture is not for a terminal; give --output FILE";
        return Err(Failure::Usage(text.into()));
    }
    let selection = options.selection.check()?;
    let recorded = options.source.open(selection)?;
    let mut out = options.open()?;
    let mut hashes = options
        .hash_file
        .as_deref()
        .map(HashFile::create)
        .transpose()?;
    let count = export(&recorded, &mut out, &mut hashes, is_on_screen, &interrupt)?;
    if let Some(hashes) = &mut hashes {
        hashes.flush()?;
    }
    out.finish()?;
    if let Some(path) = &options.output {
        let count = thousands(count);
        eprintln!("relay: exported {count} messages to {}", path.display());
    }
    Ok(())
}

fn export(
    recorded: &Recorded,
    out: &mut Out,
    hashes: &mut Option<HashFile>,
    is_on_screen: bool,
    interrupt: &Interrupt,
) -> Result<u64, Failure> {
    let span = recorded.span();
    let bar = if is_on_screen {
        indicatif::ProgressBar::hidden()
    } else {
        progress(span.next.get() - span.first.get(), "exporting")
    };
    let mut count = 0;
    loop {
        interrupt.check()?;
        let batch = match recorded.next_within(LOOK)? {
            Next::Batch(batch) => batch,
            Next::NotYet => continue,
            Next::End => {
                bar.finish_and_clear();
                return Ok(count);
            }
        };
        for delivery in batch.iter() {
            if let Some(hashes) = hashes {
                let record = &delivery.record;
                hashes.received(record.seq(), record.payload(), delivery.topic)?;
            }
            out.add(&delivery)?;
            count += 1;
        }
        bar.set_position((batch.through().get() + 1).saturating_sub(span.first.get()));
        recorded.give_back(batch);
    }
}

impl ExportOptions {
    fn open(&self) -> Result<Out, Failure> {
        let place = Place::open(self.output.as_deref())?;
        Ok(match self.format {
            ExportFormat::Csv => Out::Csv(Box::new(table::Table::new(place)?)),
            ExportFormat::Json => Out::Lines(place, Vec::new()),
            ExportFormat::Pcap => Out::Capture(Box::new(Capture::to(place, &self.capture)?)),
        })
    }
}

/// What is written.
enum Out {
    Csv(Box<table::Table>),
    Lines(Place, Vec<u8>),
    Capture(Box<Capture>),
}

impl Out {
    fn add(&mut self, delivery: &Delivery<'_>) -> Result<(), Failure> {
        match self {
            Self::Csv(table) => table.add(delivery),
            Self::Lines(place, line) => {
                line.clear();
                Rendering::Json.write(line, delivery);
                place.write_all(line).map_err(|error| place.failed(&error))
            }
            Self::Capture(capture) => capture.add(delivery),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Csv(table) => table.finish(),
            Self::Lines(place, _) => place.finish(),
            Self::Capture(capture) => capture.finish(),
        }
    }
}

/// Where it is written.
pub(crate) enum Place {
    /// A file that is there whole or not at all.
    File(OutputFile),
    /// Standard output.
    Stdout(BufWriter<io::Stdout>),
}

impl Place {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        Ok(match path {
            Some(path) => Self::File(OutputFile::create(path)?),
            None => Self::Stdout(BufWriter::with_capacity(OUTPUT_BYTES, io::stdout())),
        })
    }

    /// What a failed write means.
    fn failed(&self, error: &io::Error) -> Failure {
        match self {
            Self::File(file) => file.failed(error),
            Self::Stdout(_) => Failure::output(error),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.finish(),
            Self::Stdout(mut out) => out.flush().map_err(|error| Failure::output(&error)),
        }
    }
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}
