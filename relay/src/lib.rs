//! `relayd`: the appliance. `format` makes journals, `init-group` a group, `run` serves, `check` looks at a configuration,
//! `rotate-key` changes the key that signs seals; `witness` is another program in the same binary, which keeps the membership records of groups.
//!
//! The program is [`main`]; the rest of the crate is its own. The way of a message through it: `stage/ingress` receives,
//! `stage/sequence` orders and writes, `stage/replicate` carries it to the group's other nodes, `stage/egress` forwards, each driving
//! a machine of `relay-core`; `pipeline` runs them on threads, `startup` builds them from a `config`.
//!
//! Exit status: 0 all went well (for `run`: a clean stop), 1 it did not (the reason is the last line on standard error),
//! 2 the command line is wrong.

mod admin;
mod allocations;
#[doc(hidden)] // the program's own; open so that its tests can drive it against real arbiters
pub mod arbiter;
mod arena;
mod clock;
mod clock_watch;
mod config;
mod counters;
mod evidence;
mod fixed_files;
mod format;
mod hang_up;
mod housekeeping;
mod idle;
mod indexer;
mod init_group;
mod keeper;
mod link;
mod pace;
mod parking_flag;
mod pipeline;
mod preparation;
mod ptp;
mod released_log;
mod repair;
mod ring;
mod rotate_key;
mod schedule;
mod scrubber;
mod seal_file;
mod seal_key;
mod sealing;
mod space;
mod stage;
mod startup;
mod storage;
mod witness;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::hang_up::HangUp;
use crate::init_group::InitGroupArguments;
use crate::rotate_key::RotateKeyArguments;
use crate::startup::StartError;
use crate::witness::config::WitnessConfig;
use crate::witness::store::{self, Store};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

#[derive(Parser)]
#[command(
    name = "relayd",
    version,
    about = "A relay for trading messages that is durable before it forwards",
    after_help = "Exit status: 0 all went well, 1 it did not (the reason is on standard error), \
                  2 the command line is wrong.\n\nExample:\n  relayd format --config relayd.toml && \
                  relayd run --config relayd.toml"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the journal of each stream (prepare space, find the fastest durable write), or a witness's store
    #[command(after_help = "Example:\n  relayd format --config /etc/relay/relayd.toml")]
    Format(ConfigArgument),
    /// Serve until SIGTERM or SIGINT
    #[command(
        after_help = "Example:\n  relayd run --config /etc/relay/relayd.toml\n\n\
                  Prints `ready stream=ID listen=ADDRESS` for each stream once it accepts."
    )]
    Run(ConfigArgument),
    /// Keep the membership records of groups until SIGTERM or SIGINT
    #[command(
        after_help = "Example:\n  relayd witness --config /etc/relay/witness.toml\n\n\
                  Prints `ready witness listen=ADDRESS` once it accepts."
    )]
    Witness(ConfigArgument),
    /// Make the membership record of a group, once, before its nodes run
    #[command(
        name = "init-group",
        after_help = "Examples:\n  relayd init-group --config relayd.toml --primary 1 \\\n    \
                  --member 1=0f3c... --member 2=77aa...\n  relayd init-group --config node1.toml \
                  --journal node1/orders --journal node2/orders\n\n`relayd format` and `relayd \
                  check` print a disk as NODE=INCARNATION."
    )]
    InitGroup(InitGroupArguments),
    /// Sign seals with another key from here on, vouched for by the one before
    #[command(
        name = "rotate-key",
        after_help = "Examples:\n  relayd rotate-key --config /etc/relay/relayd.toml\n  relayd rotate-key \
                  --config /etc/relay/relayd.toml --stream 2\n\nA stream that runs goes on running. To give a key \
                  instead of having one made, put it\nbeside the old one first, under the same name with `.next` behind it."
    )]
    RotateKey(RotateKeyArguments),
    /// Check a configuration and, where they exist, the journals' superblocks
    #[command(after_help = "Example:\n  relayd check --config /etc/relay/relayd.toml")]
    Check(ConfigArgument),
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Lines of the log that wait for standard error at most; what is said beyond them is left out, and counted.
const LOG_LINES_MAX: usize = 4_096;

/// How long the end of the process waits for somebody to take its last words.
const LAST_WORDS_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// Writes to standard error, which may lie on the very disk that failed, or be read by nobody.
fn say_within(wait: std::time::Duration, text: String) {
    if text.is_empty() {
        return;
    }
    let (done, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stderr().write_all(text.as_bytes());
        let _ = done.send(());
    });
    let _ = said.recv_timeout(wait);
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("RELAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Whoever reads the log may stop reading it: a thread that keeps a vote, or asks the arbiter, must not wait for that.
    let (log, written) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let left_out = log.error_counter();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let done = match arguments.command {
        Command::Format(argument) => format_all(&argument),
        Command::Run(argument) => run(&argument),
        Command::Witness(argument) => run_witness(&argument),
        Command::InitGroup(arguments) => init_group::init_group(&arguments).map(|told| {
            println!("{told}");
        }),
        Command::RotateKey(arguments) => rotate_key::rotate_key(&arguments).map(|told| {
            println!("{told}");
        }),
        Command::Check(argument) => check(&argument),
    };
    drop(written);
    let mut last_words = match left_out.dropped_lines() {
        0 => String::new(),
        lines => {
            format!("relayd: {lines} lines of the log were left out: it was not read in time\n")
        }
    };
    let status = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            last_words += &format!("relayd: {error}\n");
            ExitCode::FAILURE
        }
    };
    say_within(LAST_WORDS_WAIT, last_words);
    status
}

/// Parses a configuration's text and drops the answer: what a fuzzer calls.
///
/// # Errors
/// The message an operator would see.
pub fn check_config_text(text: &str) -> Result<(), String> {
    Config::parse(std::path::Path::new("relayd.toml"), text)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn format_all(argument: &ConfigArgument) -> Result<(), StartError> {
    let text = config::read(&argument.config)?;
    if witness::config::is_witness(&text) {
        let config = WitnessConfig::parse(&argument.config, &text)?;
        Store::create(&config.directory, clock::Clock::new().now().utc_ns)?;
        println!("{}: made a witness's store", config.directory.display());
        return Ok(());
    }
    let config = Config::parse(&argument.config, &text)?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    for stream in &config.streams {
        format::format(stream, &mut |told| match told {
            format::Told::Progress(line) if is_terminal => {
                let _ = write!(std::io::stderr(), "\r{line}");
            }
            format::Told::Progress(_) => {}
            format::Told::Done(line) => {
                if is_terminal {
                    // Over what the progress left.
                    let _ = write!(std::io::stderr(), "\r\x1b[K");
                }
                println!("{line}");
            }
        })?;
    }
    Ok(())
}

fn check(argument: &ConfigArgument) -> Result<(), StartError> {
    let text = config::read(&argument.config)?;
    if witness::config::is_witness(&text) {
        let config = WitnessConfig::parse(&argument.config, &text)?;
        println!("{}: fine", argument.config.display());
        println!("{}", store::describe(&config.directory)?);
        return Ok(());
    }
    let config = Config::parse(&argument.config, &text)?;
    println!("{}: fine", argument.config.display());
    for stream in &config.streams {
        if stream
            .directory
            .join(relay_journal::superblock::FILE_NAME)
            .exists()
        {
            println!("{}", format::describe(&stream.directory)?);
        } else {
            println!(
                "{}: no journal yet; `relayd format` makes it",
                stream.directory.display()
            );
        }
    }
    Ok(())
}

fn run(argument: &ConfigArgument) -> Result<(), StartError> {
    let config = Config::load(&argument.config)?;
    let stop = stop_flag()?;
    raise_descriptor_limit();
    let _hang_up = match HangUp::start() {
        Ok(hang_up) => Some(hang_up),
        Err(error) => {
            tracing::warn!(%error, "if this process is killed, its connections end only when its memory is gone");
            None
        }
    };
    let mut running = Vec::new();
    for stream in config.streams {
        running.push(startup::start(stream)?);
    }
    let mut out = std::io::stdout().lock();
    for stream in &running {
        writeln!(out, "ready stream={} listen={}", stream.id, stream.address)?;
        tracing::info!(
            stream = stream.id,
            address = %stream.address,
            directory = %stream.directory().display(),
            "accepting"
        );
    }
    out.flush()?;
    drop(out);
    while !stop.load(Ordering::Acquire) && running.iter().all(startup::RunningStream::is_running) {
        std::thread::sleep(Duration::from_millis(20));
    }
    for stream in &running {
        stream.ask_to_stop();
    }
    let mut first_error = None;
    for stream in running {
        if let Err(error) = stream.finish() {
            tracing::error!(%error, "a stream did not stop cleanly");
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

fn run_witness(argument: &ConfigArgument) -> Result<(), StartError> {
    let text = config::read(&argument.config)?;
    let config = WitnessConfig::parse(&argument.config, &text)?;
    let stop = stop_flag()?;
    witness::server::run(&config, &stop)
}

/// A flag that SIGTERM and SIGINT raise.
fn stop_flag() -> Result<Arc<AtomicBool>, StartError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Every segment of every stream stays open, so as many descriptors as the system allows are asked for.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: room for one structure is passed, and then a filled one.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
