//! One run of one seed, with whatever it ends in caught and kept.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::canary::Canary;
use crate::cluster::{Cluster, Summary};
use crate::history::History;
use crate::swarm::{Parameters, Wish};

/// What makes a run what it is, besides the program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recipe {
    pub(crate) seed: u64,
    pub(crate) wish: Wish,
    /// Faults of the schedule that are left out.
    pub(crate) without: Vec<usize>,
    pub(crate) canary: Option<Canary>,
}

/// A rule that was broken.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What was said when it was.
    pub(crate) what: String,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Summary, Failure>,
    pub(crate) history: History,
    /// Faults in the schedule, those left out among them.
    pub(crate) scheduled: usize,
}

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Keeps what a panic says instead of printing it: runs that fail are reported in their own words.
fn listen() {
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let said = info
                .payload()
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| info.payload().downcast_ref::<&str>().map(|&s| s.to_owned()))
                .unwrap_or_default();
            let place = info.location().map_or(String::new(), ToString::to_string);
            SAID.with(|kept| *kept.borrow_mut() = format!("{said} ({place})"));
        }));
    });
}

/// Runs `recipe` to its end, whatever that is; with `keeps_all` the whole history is kept.
pub(crate) fn run(recipe: &Recipe, keeps_all: bool) -> Outcome {
    listen();
    let mut history = History::new(keeps_all);
    let mut scheduled = 0;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let parameters = Parameters::draw(recipe.seed, &recipe.wish);
        scheduled = parameters.schedule.len();
        Cluster::new(&parameters, &recipe.without, recipe.canary, &mut history).run()
    }));
    Outcome {
        result: result.map_err(|_| Failure {
            what: SAID.with(|kept| kept.borrow().clone()),
        }),
        history,
        scheduled,
    }
}
