//! The search: every state that can be reached, level by level, each once.
//!
//! ```text
//!   level 0 --choices--> level 1 --choices--> ...      a state that was seen before is not gone on from
//! ```
//!
//! Of all states the digest and the way there (parent and action) are kept, of the newest level the states themselves. So
//! the first violation found is one with the fewest actions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::action::Action;
use crate::bounds::Bounds;
use crate::digest::{DigestSet, digest_of_words};
use crate::heal::heal;
use crate::store::Store;
use crate::world::{Violation, World};

const SHARDS: usize = 64;
/// States a thread takes at a time.
const CHUNK: usize = 256;
/// A store for probes is begun anew when it has so many machines.
const PROBE_MACHINES_MAX: usize = 20_000;

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) depth: u32,
    pub(crate) states: u64,
    pub(crate) time: Duration,
    pub(crate) threads: usize,
    /// From one state in so many it is tried whether the group comes together; 0 for none.
    pub(crate) probe_every: u64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) states: u64,
    /// Every state that is at most so many actions away was gone on from.
    pub(crate) depth: u32,
    pub(crate) transitions: u64,
    pub(crate) probes: u64,
    /// There is no state left to go on from.
    pub(crate) is_complete: bool,
    pub(crate) time: Duration,
    pub(crate) found: Option<Found>,
}

/// A violation and the way to it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) actions: Vec<Action>,
    pub(crate) violation: Violation,
}

/// States one behind the other.
#[derive(Debug, Default)]
struct Level {
    words: Vec<u32>,
    ends: Vec<usize>,
    /// For each the number of the state before and the action.
    ways: Vec<(u32, u32)>,
}

impl Level {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: usize) -> &[u32] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.words[start..self.ends[at]]
    }

    fn push(&mut self, words: &[u32], way: (u32, u32)) {
        self.words.extend_from_slice(words);
        self.ends.push(self.words.len());
        self.ways.push(way);
    }

    fn append(&mut self, other: &Self) {
        let base = self.words.len();
        self.words.extend_from_slice(&other.words);
        self.ends.extend(other.ends.iter().map(|end| base + end));
        self.ways.extend_from_slice(&other.ways);
    }
}

/// What the threads share.
struct Search<'a> {
    store: &'a Store,
    limits: Limits,
    begun: Instant,
    seen: Vec<Mutex<DigestSet>>,
    states: AtomicU64,
    transitions: AtomicU64,
    probes: AtomicU64,
    is_over: AtomicBool,
    /// The state gone on from, the action if it is not a probe, and what is wrong.
    found: Mutex<Option<(u32, Option<Action>, Violation)>>,
}

/// Explores from `first` on; `tell` hears of each level: its depth and how many states there are so far.
pub(crate) fn search(
    store: &Store,
    first: &World,
    limits: Limits,
    tell: &mut dyn FnMut(u32, u64, usize),
) -> Outcome {
    let search = Search {
        store,
        limits,
        begun: Instant::now(),
        seen: (0..SHARDS).map(|_| Mutex::default()).collect(),
        states: AtomicU64::new(0),
        transitions: AtomicU64::new(0),
        probes: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        found: Mutex::default(),
    };
    let mut words = Vec::new();
    first.encode(&store.bounds, &mut words);
    search.is_new(digest_of_words(&words));
    let mut level = Level::default();
    level.push(&words, (0, 0));
    let mut ways = Vec::new();
    let mut depth = 0;
    while level.len() > 0 && depth < limits.depth {
        let base = ways.len() as u32;
        ways.extend_from_slice(&level.ways);
        tell(depth, search.states.load(Ordering::Relaxed), level.len());
        let next = search.expand(&level, base);
        if search.is_over.load(Ordering::Relaxed) {
            break;
        }
        level = next;
        depth += 1;
    }
    let found = search.found.into_inner().expect("nobody panics here");
    Outcome {
        states: search.states.into_inner(),
        depth,
        transitions: search.transitions.into_inner(),
        probes: search.probes.into_inner(),
        is_complete: level.len() == 0,
        time: search.begun.elapsed(),
        found: found.map(|(state, action, violation)| Found {
            actions: way_to(&ways, state, action),
            violation,
        }),
    }
}

/// The actions that lead to a state, and one more.
fn way_to(ways: &[(u32, u32)], state: u32, last: Option<Action>) -> Vec<Action> {
    let mut actions = Vec::from_iter(last);
    let mut at = state;
    while at != 0 {
        let (before, code) = ways[at as usize];
        actions.push(Action::from_code(code));
        at = before;
    }
    actions.reverse();
    actions
}

impl Search<'_> {
    fn is_new(&self, digest: u64) -> bool {
        let shard = &self.seen[digest as usize % SHARDS];
        // The lower bits choose the shard, so they say nothing within it.
        let is_new = shard
            .lock()
            .expect("nobody panics here")
            .insert(digest.rotate_right(8));
        if is_new {
            self.states.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    fn is_spent(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
            || self.states.load(Ordering::Relaxed) >= self.limits.states
            || self.begun.elapsed() >= self.limits.time
    }

    /// The level behind `level`, whose first state has number `base`.
    fn expand(&self, level: &Level, base: u32) -> Level {
        let next_chunk = AtomicUsize::new(0);
        let run = || {
            let mut worker = Worker::new(self);
            loop {
                let from = next_chunk.fetch_add(CHUNK, Ordering::Relaxed);
                if from >= level.len() {
                    break worker.next;
                }
                if self.is_spent() {
                    self.is_over.store(true, Ordering::Relaxed);
                    break worker.next;
                }
                for at in from..level.len().min(from + CHUNK) {
                    worker.go_on(level.get(at), base + at as u32);
                }
            }
        };
        if self.limits.threads == 1 {
            return run();
        }
        let parts: Vec<Level> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.limits.threads).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a violation is no panic"))
                .collect()
        });
        let mut next = Level::default();
        for part in &parts {
            next.append(part);
        }
        next
    }

    fn report(&self, state: u32, action: Option<Action>, violation: Violation) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut found = self.found.lock().expect("nobody panics here");
        found.get_or_insert((state, action, violation));
    }
}

/// One thread's part of a level.
struct Worker<'a> {
    search: &'a Search<'a>,
    next: Level,
    actions: Vec<Action>,
    words: Vec<u32>,
    probes: Store,
}

impl<'a> Worker<'a> {
    fn new(search: &'a Search<'a>) -> Self {
        Self {
            search,
            next: Level::default(),
            actions: Vec::new(),
            words: Vec::new(),
            probes: Store::new(search.store.bounds.clone()),
        }
    }

    /// Goes on from a state in every way.
    fn go_on(&mut self, state: &[u32], number: u32) {
        let search = self.search;
        let bounds: &Bounds = &search.store.bounds;
        let world = World::decode(bounds, state);
        let every = search.limits.probe_every;
        if every != 0 && digest_of_words(state).is_multiple_of(every) {
            self.probe(&world, number);
        }
        let mut actions = std::mem::take(&mut self.actions);
        world.choices(search.store, &mut actions);
        for &action in &actions {
            match world.apply(search.store, action) {
                Ok(after) => {
                    self.words.clear();
                    after.encode(bounds, &mut self.words);
                    if search.is_new(digest_of_words(&self.words)) {
                        self.next.push(&self.words, (number, action.code()));
                    }
                }
                Err(violation) => {
                    search.report(number, Some(action), violation);
                    break;
                }
            }
        }
        search
            .transitions
            .fetch_add(actions.len() as u64, Ordering::Relaxed);
        self.actions = actions;
    }

    /// Whether the group comes together from here.
    fn probe(&mut self, world: &World, number: u32) {
        if self.probes.machines.len() > PROBE_MACHINES_MAX {
            self.probes = Store::new(self.search.store.bounds.clone());
        }
        let mut world = world.moved(self.search.store, &self.probes);
        self.search.probes.fetch_add(1, Ordering::Relaxed);
        if let Err(violation) = heal(&self.probes, &mut world, true) {
            self.search.report(number, None, violation);
        }
    }
}
