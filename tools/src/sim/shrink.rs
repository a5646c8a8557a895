//! From a run that fails to the shortest one that still does: faults are left out, in halves and then one by one.

use crate::run::{self, Failure, Outcome, Recipe};

/// Runs spent on shrinking at most.
const RUNS_MAX: usize = 400;

/// Leaves out as many faults of `recipe` as the failure does without. It counts as the same failure when the same place in
/// the program complains.
pub(crate) fn shrink(recipe: &Recipe, failure: &Failure) -> (Recipe, Outcome) {
    let place = place_of(failure);
    let mut best = recipe.clone();
    let mut outcome = run::run(&best, false);
    let mut runs = 1;
    let mut left: Vec<usize> = (0..outcome.scheduled)
        .filter(|index| !best.without.contains(index))
        .collect();
    let mut chunk = left.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut has_shrunk = false;
        while at < left.len() && runs < RUNS_MAX {
            let end = (at + chunk).min(left.len());
            let mut attempt = best.clone();
            attempt.without.extend_from_slice(&left[at..end]);
            attempt.without.sort_unstable();
            let tried = run::run(&attempt, false);
            runs += 1;
            let is_same = tried
                .result
                .as_ref()
                .err()
                .is_some_and(|f| place_of(f) == place);
            if is_same {
                best = attempt;
                outcome = tried;
                left.drain(at..end);
                has_shrunk = true;
            } else {
                at = end;
            }
        }
        if chunk == 1 && !has_shrunk || runs >= RUNS_MAX {
            return (best, outcome);
        }
        chunk = chunk.div_ceil(2).max(1);
    }
}

/// File and line that complained.
fn place_of(failure: &Failure) -> &str {
    failure.what.rsplit(" (").next().unwrap_or_default()
}
