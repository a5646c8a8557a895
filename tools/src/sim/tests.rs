//! The simulator is itself under test: it says the same twice, it finds nothing where nothing is wrong, and it finds every
//! rule that is broken on purpose.

use crate::canary::Canary;
use crate::cluster::Ending;
use crate::faults::Damage;
use crate::run::{self, Recipe};
use crate::shrink;
use crate::swarm::{Parameters, Wish};

/// Seeds every test run goes through, for a node standing alone, a pair and a group of three; the long searches take others.
const SEEDS: [(usize, u64); 3] = [(1, 60), (2, 40), (3, 25)];

fn short(seed: u64) -> Recipe {
    Recipe {
        seed,
        wish: Wish {
            seconds: Some(2),
            ..Wish::default()
        },
        ..Recipe::default()
    }
}

/// Goal: one seed is one run. Method: the fingerprints of two runs of each of some seeds, one of which keeps everything.
#[test]
fn a_seed_says_the_same_twice() {
    let mut hashes = Vec::new();
    for seed in 0..10 {
        let mut recipe = short(seed);
        recipe.wish.nodes = Some(1 + seed as usize % 3);
        let first = run::run(&recipe, false);
        let second = run::run(&recipe, true);
        assert_eq!(first.history.hash(), second.history.hash(), "seed {seed}");
        assert_eq!(first.history.count(), second.history.count(), "seed {seed}");
        assert!(first.history.count() > 0);
        hashes.push(first.history.hash());
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 10, "other seeds are other runs");
}

/// Goal: the relay keeps its promise in all these runs, and keeps quiet about damage in none.
#[test]
fn nothing_is_lost_in_any_of_these_runs() {
    let mut endings = [0; 2];
    let runs = SEEDS
        .iter()
        .flat_map(|&(nodes, seeds)| (1..=seeds).map(move |seed| (nodes, seed)));
    for (nodes, seed) in runs {
        let mut recipe = short(seed);
        recipe.wish.nodes = Some(nodes);
        match run::run(&recipe, false).result {
            Ok(summary) => endings[usize::from(summary.ending != Ending::AtRest)] += 1,
            Err(failure) => {
                let what = failure.what;
                panic!("cargo sim --nodes {nodes} --seconds 2 --seed {seed}: {what}");
            }
        }
    }
    let [at_rest, beyond] = endings;
    assert!(at_rest > 50, "most runs come to rest");
    assert!(
        beyond > 0,
        "some runs go beyond the promise, and it is told"
    );
}

/// Runs that found something: nodes, seed, whether a copy is damaged, and what it was.
const FOUND: [(usize, u64, bool, &str); 4] = [
    (
        3,
        7,
        false,
        "a node that gave up wanted to send to a stranger without a socket, for ever",
    ),
    (
        2,
        1103,
        false,
        "a client heard a greeting on a connection that it did not know was made",
    ),
    (3, 1539, false, "the same, in a group of three"),
    (
        3,
        227,
        true,
        "a follower refused an earlier primary, and lost the present one by it",
    ),
];

/// Goal: what was found once is not found again.
#[test]
fn what_was_found_stays_mended() {
    for (nodes, seed, damages_copy, what) in FOUND {
        let mut recipe = short(seed);
        recipe.wish.nodes = Some(nodes);
        recipe.wish.is_beyond = Some(false);
        recipe.wish.damages_copy = Some(damages_copy);
        if let Err(failure) = run::run(&recipe, false).result {
            panic!("seed {seed} of {nodes} nodes ({what}): {}", failure.what);
        }
    }
}

/// Goal: what rots in one copy is mended from a peer, and a disk taken away is filled again; nothing is lost by either.
#[test]
fn one_damaged_copy_of_a_group_loses_nothing() {
    let mut damaged = 0;
    for (nodes, seed) in [2, 3]
        .into_iter()
        .flat_map(|nodes| (1..=20).map(move |seed| (nodes, seed)))
    {
        let mut recipe = short(seed);
        recipe.wish.nodes = Some(nodes);
        recipe.wish.is_beyond = Some(false);
        recipe.wish.damages_copy = Some(true);
        let parameters = Parameters::draw(seed, &recipe.wish);
        damaged += usize::from(parameters.damage == Damage::OneCopy);
        match run::run(&recipe, false).result {
            Ok(summary) => assert_eq!(summary.ending, Ending::AtRest),
            Err(failure) => {
                let what = failure.what;
                panic!("cargo sim --nodes {nodes} --seconds 2 --damage true --seed {seed}: {what}");
            }
        }
    }
    assert!(damaged > 10, "many of these runs damage a copy");
}

/// Rules broken one at a time: for a group of how many nodes, and within how many seeds a run must fail.
const BROKEN: [(Canary, usize, u64); 26] = [
    (Canary::ReleaseBeforeDurable, 1, 3),
    (Canary::WriteErrorRetried, 1, 60),
    (Canary::SyncErrorRetried, 1, 120),
    (Canary::UnsyncedTailTrusted, 1, 30),
    (Canary::UnsyncedSuperblockTrusted, 1, 600),
    (Canary::CutTooFar, 1, 10),
    (Canary::OldEpochGoesOn, 1, 10),
    (Canary::DuplicatesForgotten, 1, 10),
    (Canary::ReadersPassReleased, 1, 3),
    (Canary::AcknowledgedTooFar, 1, 3),
    (Canary::LostWriteCounted, 1, 60),
    (Canary::StandbyAcknowledgesEarly, 2, 10),
    (Canary::ReleaseBeforePeer, 2, 3),
    (Canary::ChecksumIgnored, 2, 100),
    (Canary::PromiseNotKept, 2, 3),
    (Canary::PromiseForgotten, 2, 10),
    (Canary::LostSwapGoesOn, 2, 60),
    (Canary::UnknownSwapCountsAsDone, 2, 30),
    // These two need a copy that is lost between its admission's unknown outcome and its late landing.
    (Canary::UnknownSwapCountsAsLost, 2, 600),
    (Canary::LateSwapHidden, 3, 600),
    (Canary::AdmittedEarly, 2, 10),
    (Canary::StaleRecordRead, 2, 10),
    (Canary::CutForgotten, 2, 20),
    (Canary::TornCountsAsAbsent, 3, 300),
    (Canary::OldCopyCounts, 2, 30),
    (Canary::BlankDiskKeepsItsName, 2, 20),
];

/// Goal: the checkers see each broken rule. Method: break one at a time, and count the seeds until a run fails.
#[test]
fn every_broken_rule_is_found() {
    for (canary, nodes, seeds_max) in BROKEN {
        let fails = |seed: &u64| {
            let mut recipe = short(*seed);
            recipe.wish.is_beyond = Some(false);
            // Only a copy that rots tells a torn end from one that was never written.
            recipe.wish.damages_copy = Some(canary == Canary::TornCountsAsAbsent);
            recipe.wish.nodes = Some(nodes);
            recipe.wish.pause_ms = Some(50);
            recipe.canary = Some(canary);
            run::run(&recipe, false).result.is_err()
        };
        let found = (1..=seeds_max).find(fails);
        assert!(
            found.is_some(),
            "{canary:?} is not found in {seeds_max} seeds"
        );
    }
}

/// Goal: a failure is shown in its shortest form. Method: one that needs a single fault, in a run of many.
#[test]
fn a_failure_is_shrunk_to_the_fault_it_needs() {
    let recipe = (1..100)
        .map(|seed| {
            let mut recipe = short(seed);
            recipe.wish.is_beyond = Some(false);
            recipe.wish.damages_copy = Some(false);
            recipe.wish.nodes = Some(1);
            recipe.wish.pause_ms = Some(50);
            recipe.canary = Some(Canary::CutTooFar);
            recipe
        })
        .find(|recipe| run::run(recipe, false).result.is_err())
        .expect("a seed fails soon");
    let failure = run::run(&recipe, false).result.expect_err("it fails");
    let (shortest, outcome) = shrink::shrink(&recipe, &failure);
    assert!(outcome.result.is_err());
    let scheduled = Parameters::draw(recipe.seed, &recipe.wish).schedule.len();
    let left = scheduled - shortest.without.len();
    assert!(
        scheduled > 10 && left <= 2,
        "{left} of {scheduled} are left"
    );
    let again = run::run(&shortest, false);
    assert_eq!(again.history.hash(), outcome.history.hash());
}
