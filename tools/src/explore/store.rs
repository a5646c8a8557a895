//! Everything a search has met, each once: states of machines, messages, what the arbiter held, what was released.
//!
//! A state of the group is then a few numbers, and what a machine does with an input is worked out once and looked up
//! ever after.

use std::hash::Hash;
use std::sync::{Arc, Mutex, RwLock};

use relay_core::arbiter::{ArbiterAnswer, Ask, Registers};

use crate::bounds::Bounds;
use crate::digest::{DigestMap, digest_of};
use crate::history::History;
use crate::machine::{Input, Machine, Message, Output, react};

/// Values by number and by digest; numbers begin at 1.
#[derive(Debug)]
pub(crate) struct Table<T> {
    numbers: Mutex<DigestMap<u32>>,
    values: RwLock<Vec<Arc<T>>>,
}

impl<T> Table<T> {
    fn new() -> Self {
        Self {
            numbers: Mutex::default(),
            values: RwLock::default(),
        }
    }

    /// The number of the value with this digest; `make` makes it where it is new, and is told its number.
    fn number(&self, digest: u64, make: impl FnOnce(u32) -> T) -> u32 {
        let mut numbers = self.numbers.lock().expect("nobody panics here");
        if let Some(number) = numbers.get(&digest) {
            return *number;
        }
        let mut values = self.values.write().expect("nobody panics here");
        let number = values.len() as u32 + 1;
        values.push(Arc::new(make(number)));
        numbers.insert(digest, number);
        number
    }

    pub(crate) fn get(&self, number: u32) -> Arc<T> {
        let values = self.values.read().expect("nobody panics here");
        Arc::clone(&values[number as usize - 1])
    }

    pub(crate) fn len(&self) -> usize {
        self.values.read().expect("nobody panics here").len()
    }
}

impl<T: Hash + Clone> Table<T> {
    pub(crate) fn intern(&self, value: &T) -> u32 {
        self.number(digest_of(value), |_| value.clone())
    }
}

/// What a machine does with an input.
#[derive(Debug)]
pub(crate) struct Step {
    /// The machine it becomes.
    pub(crate) machine: u32,
    pub(crate) outputs: Vec<Output>,
}

const SHARDS: usize = 64;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) bounds: Bounds,
    pub(crate) machines: Table<Machine>,
    pub(crate) messages: Table<Message>,
    pub(crate) answers: Table<ArbiterAnswer>,
    pub(crate) registers: Table<Registers>,
    pub(crate) asks: Table<Ask>,
    pub(crate) histories: Table<History>,
    steps: Vec<Mutex<DigestMap<Arc<Step>>>>,
}

impl Store {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            machines: Table::new(),
            messages: Table::new(),
            answers: Table::new(),
            registers: Table::new(),
            asks: Table::new(),
            histories: Table::new(),
            steps: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// What the machine with this number does with an input.
    pub(crate) fn step(&self, machine: u32, input: &Input) -> Arc<Step> {
        let key = digest_of(&(machine, input));
        let shard = &self.steps[key as usize % SHARDS];
        if let Some(step) = shard.lock().expect("nobody panics here").get(&key) {
            return Arc::clone(step);
        }
        let (after, mut outputs) = react(&self.bounds, &self.machines.get(machine), input);
        for output in &mut outputs {
            if let Output::Said(_, message) = output {
                message.id = self.message(message);
            }
        }
        let step = Arc::new(Step {
            // A copy has no room to spare: a node reserves at its start what it may ever need.
            machine: self.machines.number(digest_of(&after), |_| after.clone()),
            outputs,
        });
        let mut steps = shard.lock().expect("nobody panics here");
        steps.insert(key, Arc::clone(&step));
        step
    }

    /// The number of a message.
    pub(crate) fn message(&self, message: &Message) -> u32 {
        self.messages.number(message.digest, |id| Message {
            id,
            ..message.clone()
        })
    }

    /// Steps worked out.
    pub(crate) fn steps(&self) -> usize {
        let shards = self.steps.iter();
        shards
            .map(|shard| shard.lock().expect("nobody panics here").len())
            .sum()
    }
}
