//! Power cuts with a real kernel, filesystem and relayd: `scripts/power-cut` runs this inside a virtual machine.
//!
//! ```text
//! load      publishes to a relayd whose journal lies on dm-log-writes, and marks in the write log what was acknowledged
//! replay    lays the write log over the disk as it was, entry by entry; after each one the disk is what a power cut could
//!           have left: it is mounted, recovered, and must hold everything that was acknowledged before
//! ```
//!
//! dm-log-writes puts a write into its log when a flush covers it, and a mark where it was set, so a prefix of the log is a
//! disk that lost all that was not flushed, and later marks than its own say nothing about it.
#![forbid(unsafe_code)]

mod load;
mod replay;
mod write_log;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a line of this program's says when it could not do its work.
type Outcome<T> = Result<T, String>;

#[derive(Debug, Parser)]
#[command(
    name = "power-cut",
    version,
    about = "Cuts the power of a relay at every write; see scripts/power-cut"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publishes, and marks in the write log what was acknowledged
    Load(load::LoadOptions),
    /// Recovers from every prefix of the write log
    Replay(replay::ReplayOptions),
}

/// Payload of the `number`th message: its number, then bytes that follow from it.
fn payload(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let mut state = number;
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.push((state >> 56) as u8);
    }
    bytes
}

/// How the marks begin, one word each; the count of acknowledged messages follows.
const MARK: &str = "acknowledged-";

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Load(options) => load::run(&options),
        Command::Replay(options) => replay::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("power-cut: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a program of the system to its good end.
fn run(program: &str, arguments: &[&str]) -> Outcome<()> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {}: {} {said}",
        arguments.join(" "),
        output.status
    ))
}
