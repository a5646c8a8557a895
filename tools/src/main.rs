//! The `relay` command: publishes, subscribes, measures, looks into journals, and shows the whole at work.
//!
//! ```text
//! cli.rs (arguments) -> one module per command -> exit.rs (status and message)
//! ```
//!
//! The command never links the appliance: where it needs a running one, it starts the `relayd` program that lies beside
//! it (`servers.rs`). It speaks to it through `relay-client`, and reads its files through `relay-journal` and
//! `relay-wire`.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod compare;
mod connect;
mod counters;
mod demo;
mod exit;
mod export;
mod find;
mod flow;
mod format;
mod hash_file;
mod import;
mod index;
mod inspect;
mod operate;
mod output;
mod output_file;
mod pace;
mod pcap;
mod percentiles;
mod publish;
mod recorded;
mod rendering;
mod replay;
mod servers;
mod status;
mod subscribe;
mod verify;
mod when;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Arguments, Command};

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Pub(options) => publish::run(options),
        Command::Sub(options) => subscribe::run(options),
        Command::Bench(options) => bench::run(options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Export(options) => export::run(&options),
        Command::Import(options) => import::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Find(options) => find::run(&options),
        Command::Index(options) => index::run(&options),
        Command::Status(options) => status::run(&options),
        Command::HandOver(options) => operate::hand_over(&options),
        Command::Detach(options) => operate::detach(&options),
        Command::Attach(options) => operate::attach(&options),
        Command::Promote(options) => operate::promote(&options),
        Command::RollSession(options) => operate::roll_session(&options),
        Command::Demo(options) => demo::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.status()
        }
    }
}
