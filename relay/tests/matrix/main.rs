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

mod clocks;
mod disks;
mod intruders;
mod kills;
mod links;
mod records;
mod three;

use std::time::Duration;

use appliance::faulty_disk::FaultyDisk;
use appliance::group::{Group, GroupShape};
use appliance::history::{Checked, Journal};
use appliance::hosts::Network;
use appliance::load::{Load, LoadShape};
use appliance::rights::Need;

/// A group under load.
struct Scene {
    group: Group,
    load: Load,
    network: Option<Network>,
    /// The nodes' disks; let go after their processes.
    disks: Vec<FaultyDisk>,
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
            disks: Vec::new(),
        }
    }

    /// Every node, the witness and the clients on a host of its own.
    fn on_hosts(shape: &GroupShape, load: &LoadShape) -> Self {
        let network = Network::of(shape.nodes + 2);
        let mut hosts = network.hosts.clone();
        let clients = hosts.pop().expect("the last host");
        let group = Group::started(&GroupShape {
            hosts,
            ..shape.clone()
        });
        let load = LoadShape {
            host: clients,
            ..load.clone()
        };
        let load = Load::started(&group.addresses(), &load);
        load.await_more(100);
        Self {
            group,
            load,
            network: Some(network),
            disks: Vec::new(),
        }
    }

    /// Every journal on a disk of its own that can fail.
    fn on_faulty_disks(shape: &GroupShape, load: &LoadShape) -> Self {
        let disks: Vec<FaultyDisk> = (0..shape.nodes).map(|_| FaultyDisk::mounted()).collect();
        let shape = GroupShape {
            disks: disks.iter().map(|disk| disk.path().to_owned()).collect(),
            ..shape.clone()
        };
        Self {
            disks,
            ..Self::on_loopback(&shape, load)
        }
    }

    fn network(&mut self) -> &mut Network {
        self.network.as_mut().expect("there are hosts")
    }

    /// The witness's host.
    fn witness(&self) -> usize {
        self.group.nodes.len()
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

/// What the tests on hosts need.
const HOSTS: [Need; 2] = [Need::Root, Need::Network];

/// What the tests on disks that fail need.
const DISKS: [Need; 2] = [Need::Root, Need::Fuse];
