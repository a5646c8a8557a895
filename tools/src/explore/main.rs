//! Every reachable state of a small group: the machines that ship, driven through everything that can happen next.
//!
//! ```text
//! bounds (sizes, budget of faults) -> search (levels of states) -> the first violation, or the number of states
//!                                       |  world: state of a group, choices, checks
//!                                       |  store: what each machine does with each input, worked out once
//!                                       |  machine: the real node, its disk and memory
//!                                       +- heal: whether the group comes together once faults stop
//! replay (one way in words) <- tell
//! ```
//!
//! What may happen is listed in `action.rs` and `world/choices.rs`, how often in the budget; what must hold is in
//! `world.rs`, `history.rs` and `machine/run.rs`.
#![forbid(unsafe_code)]

mod action;
mod arbiter;
mod bounds;
mod digest;
mod heal;
mod history;
mod log;
mod machine;
mod replay;
mod search;
mod store;
mod tell;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::bounds::{Bounds, Budget, Kind};
use crate::heal::settled;
use crate::search::{Limits, Outcome, search};
use crate::store::Store;

/// Explores every state that a small group of relay nodes can reach.
#[derive(Debug, Parser)]
#[command(name = "cargo explore", version)]
struct Arguments {
    /// Nodes of the group.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
    /// With fewer copies nothing is released.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    min_copies: u8,
    /// Messages the publisher has.
    #[arg(long, default_value_t = 1)]
    messages: u64,
    /// How often each fault may happen: crash, close, unknown, unavailable, beat, lapse, damage, blank, hand-over.
    #[arg(long, default_value = "crash=1,close=1", value_parser = parse_budget)]
    budget: Budget,
    /// Goes so many actions deep.
    #[arg(long, default_value_t = u32::MAX)]
    depth: u32,
    /// Stops after so many states.
    #[arg(long, default_value_t = u64::from(u32::MAX))]
    states: u64,
    /// Stops after so many seconds.
    #[arg(long, default_value_t = u64::from(u32::MAX))]
    seconds: u64,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Tries from one state in so many whether the group comes together once faults stop; 0 for none.
    #[arg(long, default_value_t = 1_000)]
    probe_every: u64,
    /// Goes through these actions, separated by semicolons, and tells what happens.
    #[arg(long)]
    replay: Option<String>,
    /// Ends with one line of JSON.
    #[arg(long)]
    json: bool,
}

fn parse_budget(text: &str) -> Result<Budget, String> {
    let mut budget = Budget::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, count) = part.split_once('=').unwrap_or((part, "1"));
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| format!("no kind of fault is called '{name}'"))?;
        let count = count.parse().ok().filter(|count| *count < 16);
        budget.set(kind, count.ok_or("a budget is a number below 16")?);
    }
    Ok(budget)
}

fn main() -> ExitCode {
    // A failed assertion of a machine is a violation, which is told with the way to it.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments = Arguments::parse();
    let spoils = [Kind::Damage, Kind::Blank];
    if arguments.min_copies < 2 && spoils.iter().any(|kind| arguments.budget.of(*kind) > 0) {
        eprintln!(
            "explore: what one copy held is lost with it; damage and blank need --min-copies 2"
        );
        return ExitCode::from(2);
    }
    let bounds = Bounds::new(
        arguments.nodes.into(),
        arguments.min_copies,
        arguments.messages,
        arguments.budget,
    );
    let store = Store::new(bounds);
    match &arguments.replay {
        Some(text) => run_replay(&store, text),
        None => run_search(&store, &arguments),
    }
}

fn run_replay(store: &Store, text: &str) -> ExitCode {
    let actions = match replay::parse(text) {
        Ok(actions) => actions,
        Err(error) => {
            eprintln!("explore: {error}");
            return ExitCode::from(2);
        }
    };
    let replayed = replay::replay(store, &actions);
    print!("{}", replayed.text);
    match replayed.violation {
        Some(violation) => {
            println!("VIOLATED: {}", violation.0);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn run_search(store: &Store, arguments: &Arguments) -> ExitCode {
    let first = match settled(store) {
        Ok(first) => first,
        Err(violation) => {
            println!("VIOLATED before any fault: {}", violation.0);
            return ExitCode::FAILURE;
        }
    };
    let limits = Limits {
        depth: arguments.depth,
        states: arguments.states,
        time: Duration::from_secs(arguments.seconds),
        threads: arguments.threads.max(1),
        probe_every: arguments.probe_every,
    };
    let outcome = search(store, &first, limits, &mut |depth, states, width| {
        eprintln!(
            "depth {depth}: {states} states, {width} at this depth, {} of machines, {} steps",
            store.machines.len(),
            store.steps()
        );
    });
    if let Some(found) = &outcome.found {
        let replayed = replay::replay(store, &found.actions);
        print!("{}", replayed.text);
        println!("VIOLATED: {}", found.violation.0);
        println!("again: {}", replay_line(arguments, found));
    }
    tell_outcome(&outcome, arguments.json);
    ExitCode::from(u8::from(outcome.found.is_some()))
}

fn replay_line(arguments: &Arguments, found: &search::Found) -> String {
    let actions: Vec<String> = found.actions.iter().map(ToString::to_string).collect();
    let kinds = Kind::ALL
        .into_iter()
        .filter(|kind| arguments.budget.of(*kind) > 0);
    let kinds: Vec<String> = kinds
        .map(|kind| format!("{}={}", kind.name(), arguments.budget.of(kind)))
        .collect();
    format!(
        "cargo explore --nodes {} --min-copies {} --messages {} --budget {} --replay '{}'",
        arguments.nodes,
        arguments.min_copies,
        arguments.messages,
        kinds.join(","),
        actions.join("; ")
    )
}

fn tell_outcome(outcome: &Outcome, is_json: bool) {
    let seconds = outcome.time.as_secs_f64();
    let violations = u8::from(outcome.found.is_some());
    if is_json {
        println!(
            "{{\"states\":{},\"depth\":{},\"transitions\":{},\"violations\":{violations},\
             \"liveness_probes\":{},\"complete\":{},\"seconds\":{seconds:.1}}}",
            outcome.states, outcome.depth, outcome.transitions, outcome.probes, outcome.is_complete,
        );
        return;
    }
    println!(
        "{} states, depth {}{}, {} transitions, {violations} violations, {} liveness probes, {seconds:.1} s",
        outcome.states,
        outcome.depth,
        if outcome.is_complete {
            " (all there are)"
        } else {
            ""
        },
        outcome.transitions,
        outcome.probes,
    );
}
