//! What a person is told, and the one line for programs.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::faults::Damage;
use crate::run::{self, Outcome, Recipe};
use crate::search::Found;
use crate::shrink;
use crate::swarm::Parameters;
use crate::theme::Theme;

/// The result for programs.
#[derive(Debug, serde::Serialize)]
struct Line {
    runs: u64,
    simulated_seconds: f64,
    faults_injected: u64,
    failures: usize,
    first_failing_seed: Option<u64>,
}

/// The command that replays a recipe.
fn command(recipe: &Recipe) -> String {
    let mut line = format!("cargo sim --seed {}", recipe.seed);
    let wish = &recipe.wish;
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.push_str(&format!(" --{name} {value}"));
        }
    };
    add("nodes", wish.nodes.map(|n| n.to_string()));
    add("seconds", wish.seconds.map(|n| n.to_string()));
    add("rate", wish.rate.map(|n| n.to_string()));
    add("pause-ms", wish.pause_ms.map(|n| n.to_string()));
    add("beyond", wish.is_beyond.map(|b| b.to_string()));
    add("damage", wish.damages_copy.map(|b| b.to_string()));
    let name = |value: clap::builder::PossibleValue| value.get_name().to_owned();
    let theme = wish.theme.and_then(|theme| theme.to_possible_value());
    add("theme", theme.map(name));
    add("doubt", wish.doubt.map(|n| n.to_string()));
    let canary = recipe.canary.and_then(|canary| canary.to_possible_value());
    add("canary", canary.map(name));
    let without: Vec<String> = recipe.without.iter().map(ToString::to_string).collect();
    add("without", (!without.is_empty()).then(|| without.join(",")));
    line
}

/// The world of a seed, in a few lines.
fn describe(recipe: &Recipe) -> String {
    let p = Parameters::draw(recipe.seed, &recipe.wish);
    let s = &p.settings;
    format!(
        "{} node(s), {} of them observers, {} publishers of {} messages each, {} subscribers, {} topics, payloads up to {}; \
         {:?}, blocks of {} up to {}, {} writes in flight, segments of {}, ring {}; heartbeat {} ms; \
         {:.1} s with {} faults{}",
        p.cast.nodes,
        p.cast.observers,
        p.cast.publishers,
        p.quota,
        p.cast.subscribers,
        p.topics,
        s.payload_limit,
        p.write_method,
        s.block_alignment,
        s.block_length_max,
        s.write_depth,
        s.segment_size,
        s.ring_size,
        s.heartbeat_ns / 1_000_000,
        p.duration_ns as f64 / 1e9,
        p.schedule.len().saturating_sub(recipe.without.len()),
        match p.damage {
            Damage::OneCopy if p.theme == Theme::Forgetful => ", one copy forgets",
            Damage::None => match p.theme {
                Theme::Mirrored => ", copies in memory count",
                Theme::Manual => ", an operator is the arbiter",
                Theme::Restored => ", the arbiter comes back from a backup",
                Theme::Plain | Theme::Forgetful => "",
            },
            Damage::OneCopy => ", one copy is damaged",
            Damage::EveryCopy => ", beyond the promise",
        }
    )
}

/// Replays one seed and says what came of it.
pub(crate) fn replay(recipe: &Recipe, is_verbose: bool, is_json: bool) -> ExitCode {
    println!("seed {}: {}", recipe.seed, describe(recipe));
    let outcome = run::run(recipe, is_verbose);
    if is_verbose {
        outcome.history.lines().for_each(|line| println!("{line}"));
    }
    let mut found = Found {
        runs: 1,
        ..Found::default()
    };
    let (hash, notes) = (outcome.history.hash(), outcome.history.count());
    match &outcome.result {
        Ok(summary) => {
            found.add(summary);
            println!(
                "{:?} after {:.3} simulated seconds: {} messages released, {} faults, {} events",
                summary.ending,
                summary.simulated_ns as f64 / 1e9,
                summary.released,
                summary.faults,
                summary.events,
            );
        }
        Err(failure) => {
            found.failures.push(recipe.seed);
            println!("FAILED: {}", failure.what);
            if !is_verbose {
                show_end(&outcome);
            }
        }
    }
    println!("history {hash:016x} of {notes} notes");
    finish(&found, is_json)
}

fn show_end(outcome: &Outcome) {
    println!("the last that happened:");
    outcome
        .history
        .lines()
        .for_each(|line| println!("  {line}"));
}

/// Says what a search found; the first failure is shrunk and told, unless the search went on and told all.
pub(crate) fn searched(recipe: &Recipe, found: &Found, goes_on: bool, is_json: bool) -> ExitCode {
    let simulated = found.simulated_ns as f64 / 1e9;
    println!(
        "{} runs from seed {}: {:.0} simulated seconds in {:.1} s, {} faults, {} messages released, \
         {} events; beyond the promise, or as accepted, {} lost something, {} halted, {} reported damage and \
         {} raised the alarm",
        found.runs,
        recipe.seed,
        simulated,
        found.took.as_secs_f64(),
        found.faults,
        found.released,
        found.events,
        found.lost,
        found.halted,
        found.reported,
        found.alarmed,
    );
    if let Some(&seed) = found.failures.first().filter(|_| !goes_on) {
        tell_failure(&Recipe {
            seed,
            ..recipe.clone()
        });
    }
    finish(found, is_json)
}

fn tell_failure(recipe: &Recipe) {
    println!("FAILED. Again with: {}", command(recipe));
    let first = run::run(recipe, false);
    let Err(failure) = &first.result else {
        println!("...but it does not fail again: something outside the seed has a say");
        return;
    };
    println!("  {}", failure.what);
    println!("looking for the shortest history that ends so ...");
    let (shortest, outcome) = shrink::shrink(recipe, failure);
    println!("The shortest found: {}", command(&shortest));
    println!("  {}", describe(&shortest));
    if let Err(failure) = &outcome.result {
        println!("  {}", failure.what);
    }
    let parameters = Parameters::draw(shortest.seed, &shortest.wish);
    for (index, scheduled) in parameters.schedule.iter().enumerate() {
        if !shortest.without.contains(&index) {
            let at = scheduled.at_ns as f64 / 1e9;
            println!("  fault {index} at {at:.6} s: {}", scheduled.fault);
        }
    }
    show_end(&outcome);
}

fn finish(found: &Found, is_json: bool) -> ExitCode {
    if is_json {
        let line = Line {
            runs: found.runs,
            simulated_seconds: found.simulated_ns as f64 / 1e9,
            faults_injected: found.faults,
            failures: found.failures.len(),
            first_failing_seed: found.failures.first().copied(),
        };
        let line = serde_json::to_string(&line).expect("numbers can be written");
        println!("{line}");
    }
    if found.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
