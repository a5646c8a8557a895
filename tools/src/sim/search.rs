//! Many seeds, on every processor: seeds are striped over the threads, so that a search of N runs is the same N runs however
//! many threads there are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::{Ending, Summary};
use crate::run::{self, Recipe};

/// How far a search goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    Runs(u64),
    Minutes(f64),
}

/// What a search found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) runs: u64,
    pub(crate) simulated_ns: u64,
    pub(crate) faults: u64,
    pub(crate) released: u64,
    pub(crate) events: u64,
    /// Runs in which something released was lost, beyond the promise or as an operator accepted.
    pub(crate) lost: u64,
    pub(crate) halted: u64,
    pub(crate) alarmed: u64,
    pub(crate) reported: u64,
    /// Seeds that broke a rule, in order.
    pub(crate) failures: Vec<u64>,
    pub(crate) took: Duration,
}

impl Found {
    /// Counts a run that broke no rule.
    pub(crate) fn add(&mut self, summary: &Summary) {
        self.simulated_ns += summary.simulated_ns;
        self.faults += summary.faults;
        self.released += summary.released;
        self.events += summary.events;
        self.lost += u64::from(summary.has_lost);
        self.halted += u64::from(summary.ending == Ending::Halted);
        self.alarmed += u64::from(summary.ending == Ending::Alarmed);
        self.reported += u64::from(summary.ending == Ending::Reported);
    }

    fn join(&mut self, other: &Self) {
        self.runs += other.runs;
        self.simulated_ns += other.simulated_ns;
        self.faults += other.faults;
        self.released += other.released;
        self.events += other.events;
        self.lost += other.lost;
        self.halted += other.halted;
        self.alarmed += other.alarmed;
        self.reported += other.reported;
        self.failures.extend_from_slice(&other.failures);
    }
}

/// Threads a search uses if nobody says: one for each processor.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs seeds from `recipe.seed` on; the first failure ends the search, unless it `goes_on` and tells
/// each as it comes.
pub(crate) fn search(recipe: &Recipe, extent: Extent, threads: usize, goes_on: bool) -> Found {
    let begun = Instant::now();
    let is_over = AtomicBool::new(false);
    let mut found = Found::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|thread| {
                let (recipe, is_over) = (recipe.clone(), &is_over);
                scope.spawn(move || {
                    stripe(
                        &recipe,
                        thread,
                        threads as u64,
                        extent,
                        begun,
                        is_over,
                        goes_on,
                    )
                })
            })
            .collect();
        for worker in workers {
            found.join(&worker.join().expect("a run's failure is caught"));
        }
    });
    found.failures.sort_unstable();
    found.took = begun.elapsed();
    found
}

fn stripe(
    recipe: &Recipe,
    thread: u64,
    threads: u64,
    extent: Extent,
    begun: Instant,
    is_over: &AtomicBool,
    goes_on: bool,
) -> Found {
    let mut found = Found::default();
    let mut number = thread;
    while !is_over.load(Ordering::Relaxed) {
        let is_done = match extent {
            Extent::Runs(runs) => number >= runs,
            Extent::Minutes(minutes) => begun.elapsed().as_secs_f64() >= minutes * 60.0,
        };
        if is_done {
            break;
        }
        let mut this = recipe.clone();
        this.seed = recipe.seed.wrapping_add(number);
        found.runs += 1;
        match run::run(&this, false).result {
            Ok(summary) => found.add(&summary),
            Err(failure) => {
                found.failures.push(this.seed);
                if goes_on {
                    println!("seed {}: {}", this.seed, failure.what);
                }
                is_over.store(!goes_on, Ordering::Relaxed);
            }
        }
        number += threads;
    }
    found
}
