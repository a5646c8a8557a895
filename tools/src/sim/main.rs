//! The deterministic simulator: the machines that ship, in a world in which everything goes wrong, from one seed.
//!
//! ```text
//! swarm (parameters) + faults (schedule) -> cluster (events) -> history (fingerprint)
//!                                             |  nodes: node, process, memory, disk, clock
//!                                             |  network, clients: publisher, subscriber, stranger
//!                                             +- ledger: what must hold
//! run (one seed) <- search (many seeds) <- shrink (a failure made short)
//! ```
//!
//! `cargo sim --seed S` replays a run exactly; `cargo sim --runs N` and `--minutes M` search. The code under test is
//! `relay-core` and `relay-journal` as they ship, with no branch for tests. What may go wrong is stated at the head of
//! `disk.rs`, `network.rs` and `faults.rs`, what must hold at the head of `ledger.rs` and of each client.
#![forbid(unsafe_code)]

mod arbiter;
mod canary;
mod client;
mod clock;
mod cluster;
mod content;
mod disk;
mod faults;
mod history;
mod holding;
mod ledger;
mod losses;
mod memory;
mod network;
mod node;
mod operator;
mod process;
mod random;
mod report;
mod run;
mod search;
mod shrink;
mod swarm;
mod theme;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Parser;

use crate::canary::Canary;
use crate::run::Recipe;
use crate::search::Extent;
use crate::swarm::Wish;
use crate::theme::Theme;

/// Runs the relay in a simulated world and tries to make it lose, double, reorder or alter a message.
#[derive(Debug, Parser)]
#[command(name = "cargo sim", version)]
struct Arguments {
    /// Replays this seed instead of searching.
    #[arg(long, conflicts_with_all = ["runs", "minutes"])]
    seed: Option<u64>,
    /// Searches so many seeds.
    #[arg(long)]
    runs: Option<u64>,
    /// Searches for so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// The first seed of a search.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Threads of a search; one for each processor if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Faults of the seed's schedule to leave out, by number.
    #[arg(long, value_delimiter = ',', requires = "seed")]
    without: Vec<usize>,
    /// Prints everything that happens in the replayed run.
    #[arg(long, requires = "seed")]
    verbose: bool,
    /// Prints the result as one line of JSON, the last of the output.
    #[arg(long)]
    json: bool,
    /// Goes on after a failure, and lists them all at the end.
    #[arg(long, conflicts_with = "seed")]
    keep_going: bool,
    /// Nodes of the group, instead of what the seed draws.
    #[arg(long, hide = true)]
    nodes: Option<usize>,
    /// Simulated seconds with faults, instead of what the seed draws.
    #[arg(long)]
    seconds: Option<u64>,
    /// Messages a second, instead of what the seed draws.
    #[arg(long)]
    rate: Option<u64>,
    /// Mean milliseconds between two faults, instead of what the seed draws.
    #[arg(long)]
    pause_ms: Option<u64>,
    /// Whether runs may damage every copy, instead of what the seed draws.
    #[arg(long)]
    beyond: Option<bool>,
    /// Whether a group's runs may damage one copy, instead of what the seed draws.
    #[arg(long)]
    damage: Option<bool>,
    /// What a group's runs are about, instead of what the seed draws.
    #[arg(long)]
    theme: Option<Theme>,
    /// How many of a million changes at the arbiter nobody hears the outcome of, instead of what the seed draws.
    #[arg(long)]
    doubt: Option<u32>,
    /// Breaks a rule on purpose: the run must fail.
    #[arg(long)]
    canary: Option<Canary>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let recipe = Recipe {
        seed: arguments.seed.unwrap_or(arguments.from),
        wish: Wish {
            nodes: arguments.nodes,
            seconds: arguments.seconds,
            rate: arguments.rate,
            pause_ms: arguments.pause_ms,
            is_beyond: arguments.beyond,
            damages_copy: arguments.damage,
            theme: arguments.theme,
            doubt: arguments.doubt,
        },
        without: arguments.without,
        canary: arguments.canary,
    };
    if arguments.seed.is_some() {
        return report::replay(&recipe, arguments.verbose, arguments.json);
    }
    let extent = match (arguments.minutes, arguments.runs) {
        (Some(minutes), _) => Extent::Minutes(minutes),
        (None, runs) => Extent::Runs(runs.unwrap_or(100)),
    };
    let threads = arguments.threads.unwrap_or_else(search::threads);
    let goes_on = arguments.keep_going;
    let found = search::search(&recipe, extent, threads, goes_on);
    report::searched(&recipe, &found, goes_on, arguments.json)
}
