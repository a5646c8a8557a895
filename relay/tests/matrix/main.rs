//! The fault matrix: a group of real processes, one fault after the other, and after each of them nothing that was acknowledged
//! or delivered is lost, doubled, altered or out of order, and what an operator sees says what happened.
//!
//! Each test is one fault. It is done when the fault is over, everybody is in sync again, all that was sent is released, the
//! nodes are stopped, and every acknowledgement and delivery was compared with every journal ([`appliance::history`]), the
//! journals byte by byte with each other.
//!
//! `RELAY_ROUNDS` makes those tests longer that repeat themselves, `RELAY_SEED` repeats the choices of a run; `scripts/soak`
//! sets both. Tests that need root, FUSE or a program that is not there say so and pass, unless `RELAY_REQUIRE_ROOT_TESTS` is
//! set.

#[path = "../appliance/mod.rs"]
mod appliance;

mod kills;

use std::time::Duration;

use appliance::group::{Group, GroupShape};
use appliance::history::{Checked, Journal};
use appliance::hosts::Network;
use appliance::load::{Load, LoadShape};

/// A group under load.
struct Scene {
    group: Group,
    load: Load,
    network: Option<Network>,
}

impl Scene {
    /// A group on this machine.
    fn on_loopback(shape: &GroupShape, load: &LoadShape) -> Self {
        let group = Group::started(shape);
        let load = Load::started(&group.addresses(), load);
        load.await_more(100);
        Self {
            group,
            load,
            network: None,
        }
    }

    /// Waits until all running nodes are in sync and messages flow; who leads.
    fn await_recovery(&self) -> usize {
        let leader = self.group.await_in_sync();
        self.await_flow(50);
        leader
    }

    /// Waits until so many more messages were delivered; says what the nodes said if they are not.
    fn await_flow(&self, count: u64) {
        let is_flowing = self.load.has_more(count, appliance::LIMIT);
        assert!(is_flowing, "messages do not flow\n{}", self.group.logs());
    }

    fn node(&self, place: usize) -> Journal {
        let node = &self.group.nodes[place];
        Journal::read(&format!("node {}", place + 1), &node.directory())
    }

    /// Ends the load, stops every node and checks everything.
    fn finish(mut self) -> Checked {
        let (sent, history) = self.load.finish();
        let running: Vec<usize> = (0..self.group.nodes.len())
            .filter(|&place| self.group.nodes[place].process.is_some())
            .collect();
        self.group.stop_and_compare();
        let read = |place: usize| {
            let node = &self.group.nodes[place];
            Journal::read(&format!("node {}", place + 1), &node.directory())
        };
        let (complete, partial): (Vec<usize>, Vec<usize>) =
            (0..self.group.nodes.len()).partition(|place| running.contains(place));
        let complete: Vec<Journal> = complete.into_iter().map(read).collect();
        let partial: Vec<Journal> = partial.into_iter().map(read).collect();
        let checked = history
            .check(&complete, &partial)
            .unwrap_or_else(|broken| panic!("{broken}\n{}", self.group.logs()));
        assert_eq!(
            checked.records as u64, sent,
            "all that was sent, and no more"
        );
        println!("{checked:?}");
        checked
    }
}

/// How often a test repeats what it does.
fn rounds(short: u64) -> u64 {
    std::env::var("RELAY_ROUNDS").map_or(short, |text| text.parse().expect("a number"))
}

/// The default time after which a node that says nothing is suspected, several times over.
const SUSPECTED: Duration = Duration::from_millis(1_000);
