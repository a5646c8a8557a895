//! The whole of a run: nodes, disks, network, clients, and one queue of what happens next.
//!
//! ```text
//!                +--------+    bytes     +---------------------------+
//!   clients <--> | network| <----------> | node: process (machines)  | <--> disk
//!                +--------+              +---------------------------+
//!                     ^                        ^            |
//!                 faults (from the seed)       +-- clocks   +--> ledger, history
//! ```
//!
//! Every event is handled to its end before the next. A run has two parts: one with faults, and one without, in which
//! everything must come to rest: all publishers acknowledged, all subscribers at the tail, the journal folding to exactly what
//! was released.
//!
//! A group needs no other structure: nodes beyond the first are further places in `nodes`, their links are connections with
//! [`Owner::Node`] at both ends, and the arbiter has a host of its own ([`crate::faults::Cast::arbiter_host`]).

use relay_core::group::HaltReason;
use relay_wire::id::Position;

use crate::arbiter::{Arbiter, ArbiterEvent};
use crate::canary::Canary;
use crate::client::publisher::Publisher;
use crate::client::stranger::{self, STRANGER};
use crate::client::subscriber::Subscriber;
use crate::client::{Client, Scene};
use crate::clock::{MILLISECOND, Queue, SECOND};
use crate::disk::{Disk, Image, OpId};
use crate::history::{History, Note};
use crate::ledger::Ledger;
use crate::network::{EndId, Network, NetworkEvent, Owner, Signal};
use crate::node::{Halt, Node};
use crate::operator::{LOOK_NS, Operator};
use crate::process::{Process, Surroundings};
use crate::random::Random;
use crate::swarm::{Parameters, STREAM};

mod inject;
mod operate;
mod takeover;

/// Events that may wait at once; a run that needs more has a leak.
const EVENTS_MAX: usize = 1 << 20;

/// Events at one time; more means that two parties answer each other without end.
const AT_ONCE_MAX: u64 = 100_000;

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Network(NetworkEvent),
    Arbiter(ArbiterEvent),
    /// A process has its turn.
    Turn {
        node: usize,
        process: u32,
    },
    /// A process looks at its clock.
    Tick {
        node: usize,
        process: u32,
    },
    Housekeeping {
        node: usize,
        process: u32,
    },
    /// An operation of a disk ends.
    Disk {
        node: usize,
        op: OpId,
    },
    /// A start that asks its peers for a block has waited long enough for this one.
    RepairTimeout {
        node: usize,
        process: u32,
        peer: usize,
    },
    /// Somebody starts a node, if no process came in between.
    Start {
        node: usize,
        process: u32,
    },
    Client {
        client: usize,
        token: u32,
    },
    Fault {
        index: usize,
    },
    FaultEnds {
        index: usize,
    },
    /// The operator looks at the group.
    Operator,
    /// The last fault is over.
    Heal,
    /// Time to see whether everything has come to rest.
    Look,
}

/// How a run ended that broke no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything was acknowledged and delivered.
    AtRest,
    /// Beyond the promise, where the arbiter went back or where a loss was accepted, a node halted and said why.
    Halted,
    /// Beyond the promise, or where a loss was accepted, a client raised the alarm.
    Alarmed,
    /// Beyond the promise, the relay reported damage and kept it from everyone.
    Reported,
}

/// What a run did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) ending: Ending,
    pub(crate) simulated_ns: u64,
    pub(crate) faults: u64,
    pub(crate) released: u64,
    pub(crate) events: u64,
    /// Something released was lost, beyond the promise or as an operator accepted.
    pub(crate) has_lost: bool,
}

/// See the module's description.
pub(crate) struct Cluster<'a> {
    parameters: &'a Parameters,
    canary: Option<Canary>,
    /// Faults of the schedule that are left out.
    without: &'a [usize],
    queue: Queue<Event>,
    network: Network,
    nodes: Vec<Node>,
    disks: Vec<Disk>,
    arbiter: Arbiter,
    clients: Vec<Client>,
    ledger: Ledger,
    history: &'a mut History,
    images: Vec<Option<Image>>,
    /// The node whose disk was damaged, within the promise.
    damaged: Option<usize>,
    /// A copy is lost and not made anew yet: nothing else may be lost.
    is_copy_lost: bool,
    /// The node whose copy may lack something without knowing, and whether it has lost its power since.
    forgetting: Option<(usize, bool)>,
    /// Faults that last.
    lasting: u32,
    /// Until when it is no wonder that another node takes the lead from each.
    excused_until_ns: Vec<u64>,
    operator: Operator,
    /// Only clients are struck any more.
    is_calm: bool,
    alarm: Option<String>,
    reported: u64,
    random: Random,
    is_healed: bool,
    is_at_rest: bool,
    faults: u64,
    events: u64,
}

impl<'a> Cluster<'a> {
    /// A cluster at time 0, with everybody about to start.
    pub(crate) fn new(
        parameters: &'a Parameters,
        without: &'a [usize],
        canary: Option<Canary>,
        history: &'a mut History,
    ) -> Self {
        let seed = parameters.seed;
        let cast = parameters.cast;
        let mut nodes: Vec<Node> = (0..cast.nodes).map(|n| Node::new(n, parameters)).collect();
        let disk = |node: &mut Node, index: usize| {
            let random = Random::of(seed, 200 + index as u64);
            let mut disk = Disk::new(parameters.latencies, random);
            node.format(&mut disk, parameters);
            if parameters.is_beyond {
                disk.keep_recent();
            }
            disk
        };
        let disks = nodes
            .iter_mut()
            .enumerate()
            .map(|(i, n)| disk(n, i))
            .collect();
        let publishers = (0..cast.publishers).map(|p| Client::Publisher(Publisher::new(p, seed)));
        let subscribers =
            (cast.publishers..cast.clients()).map(|s| Client::Subscriber(Subscriber::new(s, seed)));
        Self {
            parameters,
            canary,
            without,
            queue: Queue::new(),
            network: Network::new(parameters.conduct, cast.hosts(), Random::of(seed, 2)),
            nodes,
            disks,
            arbiter: Arbiter::new(parameters, canary),
            clients: publishers.chain(subscribers).collect(),
            ledger: Ledger::new(STREAM, parameters.contents),
            history,
            images: (0..cast.nodes).map(|_| None).collect(),
            damaged: None,
            is_copy_lost: false,
            forgetting: None,
            lasting: 0,
            excused_until_ns: vec![0; cast.nodes],
            operator: Operator::default(),
            is_calm: false,
            alarm: None,
            reported: 0,
            random: Random::of(seed, 3),
            is_healed: false,
            is_at_rest: false,
            faults: 0,
            events: 0,
        }
    }

    /// Runs to the end; panics where a rule is broken.
    pub(crate) fn run(mut self) -> Summary {
        self.begin();
        let deadline_ns = self.parameters.duration_ns + self.parameters.patience_ns;
        let (mut time_ns, mut at_once) = (0, 0);
        while let Some(event) = self.queue.next() {
            self.events += 1;
            at_once = if self.queue.now_ns() == time_ns {
                at_once + 1
            } else {
                0
            };
            time_ns = self.queue.now_ns();
            assert!(at_once < AT_ONCE_MAX, "time stands still: {event:?}");
            assert!(self.queue.len() < EVENTS_MAX, "events pile up");
            if self.queue.now_ns() > deadline_ns {
                if self.parameters.is_beyond && self.reported > 0 {
                    return self.summary(Ending::Reported);
                }
                self.complain();
            }
            self.handle(event);
            if let Some(ending) = self.ending() {
                return self.summary(ending);
            }
        }
        unreachable!("somebody always waits for something")
    }

    fn begin(&mut self) {
        if self.nodes.len() > 1 {
            let incarnations: Vec<u64> = self.disks.iter().map(Disk::incarnation).collect();
            self.arbiter
                .create(&self.parameters.first_record(&incarnations));
        }
        for node in 0..self.nodes.len() {
            self.queue.at(0, Event::Start { node, process: 0 });
        }
        for client in 0..self.clients.len() {
            self.with_client(client, |client, scene| match client {
                Client::Publisher(publisher) => publisher.sleep(scene),
                Client::Subscriber(subscriber) => subscriber.sleep(scene),
            });
        }
        for (index, scheduled) in self.parameters.schedule.iter().enumerate() {
            if !self.without.contains(&index) {
                self.queue.at(scheduled.at_ns, Event::Fault { index });
            }
        }
        self.queue.at(self.parameters.duration_ns, Event::Heal);
        if self.parameters.theme.has_operator() {
            self.queue.at(LOOK_NS, Event::Operator);
        }
    }

    fn summary(&self, ending: Ending) -> Summary {
        Summary {
            ending,
            simulated_ns: self.queue.now_ns(),
            faults: self.faults,
            released: self.ledger.count(),
            events: self.events,
            has_lost: self.ledger.has_lost(),
        }
    }

    /// How the run ended, if it did: where a halt or an alarm is the right answer, it is the end.
    fn ending(&self) -> Option<Ending> {
        if self.alarm.is_some() {
            return Some(Ending::Alarmed);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if let Some(halt) = node.halt() {
                assert!(
                    self.may_halt(halt),
                    "node {index} halts, and should not: {halt}"
                );
                return Some(Ending::Halted);
            }
        }
        self.is_at_rest.then_some(Ending::AtRest)
    }

    /// Whether a halt is the right answer. Beyond the promise any is. An arbiter that went back is told of as such, and by
    /// nothing else; and where a loss was accepted, whoever has what was lost keeps it.
    fn may_halt(&self, halt: &Halt) -> bool {
        let Halt::Group(reason) = halt else {
            return self.parameters.is_beyond;
        };
        let is_right = match reason {
            HaltReason::ArbiterWentBack { committed, shown } => {
                self.arbiter.has_gone_back() && shown < committed
            }
            HaltReason::CutBelowReleased { .. } => self.ledger.has_lost(),
            _ => false,
        };
        is_right || self.parameters.is_beyond
    }

    fn complain(&mut self) -> ! {
        let clients = self.clients.iter();
        let mut waiting: Vec<String> = clients
            .filter_map(|client| client.waits_for(&self.ledger))
            .collect();
        if self.nodes.len() > 1 {
            let nodes = self.nodes.iter_mut().enumerate();
            waiting.extend(nodes.map(|(index, node)| format!("node {index} {}", node.describe())));
            let record = self.arbiter.record();
            waiting.push(format!("the arbiter's record is {record:?}"));
        }
        panic!(
            "{} s after the last fault not everything has come to rest: {}",
            self.parameters.patience_ns / SECOND,
            waiting.join("; ")
        )
    }
}

/// What happens.
impl Cluster<'_> {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Network(event) => self.on_network(event),
            Event::Arbiter(event) => self.on_arbiter(event),
            Event::Turn { node, process } => self.on_turn(node, process),
            Event::Tick { node, process } => {
                if self.nodes[node].process_number() == process {
                    let tick = self.parameters.tick_ns;
                    self.queue.after(tick, Event::Tick { node, process });
                    self.ask_for_turn(node);
                }
            }
            Event::Housekeeping { node, process } => self.on_housekeeping(node, process),
            Event::Disk { node, op } => self.on_disk(node, op),
            Event::RepairTimeout {
                node,
                process,
                peer,
            } => {
                if self.nodes[node].process_number() == process {
                    self.with_node(node, |node, around| node.on_repair_timeout(peer, around));
                }
            }
            Event::Start { node, process } => {
                let off_until_ns = self.nodes[node].off_until_ns();
                if self.nodes[node].process_number() != process {
                    return;
                }
                if off_until_ns > self.queue.now_ns() {
                    self.queue.at(off_until_ns, Event::Start { node, process });
                } else {
                    self.network.on_power_up(node, &mut self.queue);
                    self.with_node(node, |node, around| node.start(around));
                    self.end_start(node);
                }
            }
            Event::Client { client, token } => {
                self.with_client(client, |client, scene| client.on_time(token, scene));
            }
            Event::Fault { index } => self.strike(index),
            Event::FaultEnds { index } => self.relent(index),
            Event::Operator => self.operate(),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// Lets `work` have a node and all that lies around it.
    fn with_node<T>(
        &mut self,
        node: usize,
        work: impl FnOnce(&mut Node, &mut Surroundings<'_>) -> T,
    ) -> T {
        let (nodes_before, rest) = self.nodes.split_at_mut(node);
        let (place, nodes_after) = rest.split_first_mut().expect("there is such a node");
        let (before, rest) = self.disks.split_at_mut(node);
        let (disk, after) = rest.split_first_mut().expect("each node has a disk");
        let mut around = Surroundings {
            parameters: self.parameters,
            now: place.clock.read(self.queue.now_ns()),
            queue: &mut self.queue,
            network: &mut self.network,
            history: self.history,
            ledger: &mut self.ledger,
            disk,
            others: [before, after],
            peers: [nodes_before, nodes_after],
            arbiter: &mut self.arbiter,
            operator: &mut self.operator,
            canary: self.canary,
            reported: &mut self.reported,
        };
        work(place, &mut around)
    }

    /// Lets `work` have a client and all that lies around it.
    fn with_client<T>(
        &mut self,
        client: usize,
        work: impl FnOnce(&mut Client, &mut Scene<'_>) -> T,
    ) -> T {
        let mut scene = Scene {
            parameters: self.parameters,
            queue: &mut self.queue,
            network: &mut self.network,
            history: self.history,
            ledger: &self.ledger,
            may_alarm: self.parameters.is_beyond || self.ledger.has_lost(),
            alarm: &mut self.alarm,
        };
        work(&mut self.clients[client], &mut scene)
    }

    /// The process of `node` has something to do.
    fn ask_for_turn(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process() else {
            return;
        };
        if process.wants_turn() {
            let process = process.number();
            let delay = self.parameters.turn_ns;
            self.queue.after(delay, Event::Turn { node, process });
        }
    }

    fn on_turn(&mut self, node: usize, process: u32) {
        if self.nodes[node].process_number() != process {
            return;
        }
        let frozen_until_ns = self.nodes[node].frozen_until_ns();
        if frozen_until_ns > self.queue.now_ns() {
            let again = Event::Turn { node, process };
            self.queue.at(frozen_until_ns, again);
            return;
        }
        let (burnt, has_work_left) = self.with_node(node, |node, around| {
            let Some(process) = node.process() else {
                return (None, false);
            };
            let exit = process.turn(around);
            let left = (process.burnt(), process.has_work_left());
            if let Some(exit) = exit {
                node.on_exit(exit, around);
                return (None, false);
            }
            left
        });
        if let Some(fuse) = burnt {
            let mut random = Random::of(fuse.seed, 1);
            self.kill(node, fuse.cuts_power, &mut random);
        } else if self.nodes[node].process().is_none() {
            let owner = Owner::Node { node, process };
            self.network.on_killed(owner, &mut self.queue);
        } else if has_work_left {
            self.ask_for_turn(node);
        }
    }

    fn on_housekeeping(&mut self, node: usize, process: u32) {
        if self.nodes[node].process_number() != process {
            return;
        }
        let is_space_left = self.nodes[node].is_space_left();
        let is_frozen = self.nodes[node].frozen_until_ns() > self.queue.now_ns();
        self.with_node(node, |node, around| {
            if let Some(process) = node.process()
                && !is_frozen
            {
                process.keep_house(is_space_left, around);
            }
        });
        let again = Event::Housekeeping { node, process };
        self.queue.after(Process::HOUSEKEEPING_NS, again);
    }

    fn on_disk(&mut self, node: usize, op: OpId) {
        let now_ns = self.queue.now_ns();
        let Some(completion) = self.disks[node].complete(op, now_ns) else {
            return;
        };
        if self.with_node(node, |node, around| node.on_disk(completion, around)) {
            self.ask_for_turn(node);
        }
        self.end_start(node);
    }

    /// A start may end in the middle.
    fn end_start(&mut self, node: usize) {
        if let Some(fuse) = self.nodes[node].take_burnt_start() {
            let mut random = Random::of(fuse.seed, 1);
            self.kill(node, fuse.cuts_power, &mut random);
        }
    }

    fn on_network(&mut self, event: NetworkEvent) {
        let Some((end, owner, signal)) = self.network.on_event(event, &mut self.queue) else {
            return;
        };
        match owner {
            _ if signal == Signal::Incoming => self.on_incoming(end),
            Owner::Nobody => {}
            Owner::Node { node, process } => {
                if self.nodes[node].process_number() != process {
                    return;
                }
                if let Some(process) = self.nodes[node].process() {
                    process.on_signal(end, signal);
                    self.ask_for_turn(node);
                } else {
                    self.with_node(node, |node, around| node.on_signal(end, signal, around));
                }
            }
            Owner::Client {
                client: STRANGER, ..
            } => {
                let (network, queue) = (&mut self.network, &mut self.queue);
                stranger::on_signal(end, signal, &mut self.random, network, queue);
            }
            Owner::Client { client, session } => {
                self.with_client(client, |client, scene| {
                    client.on_signal(end, session, signal, scene);
                });
            }
        }
    }

    fn on_arbiter(&mut self, event: ArbiterEvent) {
        let before = self.arbiter.record().copied();
        let (network, queue) = (&mut self.network, &mut self.queue);
        let heard = self.arbiter.on_event(event, network, queue);
        let after = self.arbiter.record().copied();
        if let Some(record) = after.filter(|now| Some(*now) != before) {
            if let (ArbiterEvent::Arrive(_), Some(before)) = (event, before)
                && before.primary != record.primary
            {
                self.check_takeover(&before, &record);
            }
            let note = Note::Record {
                epoch: record.epoch.get(),
                primary: record.primary.get(),
                members: record.members,
            };
            self.history.note(self.queue.now_ns(), note);
        }
        if let Some((node, number, reply)) = heard
            && self.nodes[node].process_number() == number
            && let Some(process) = self.nodes[node].process()
        {
            process.on_arbiter(reply);
            self.ask_for_turn(node);
        }
    }

    /// Somebody connects to a host: only nodes listen.
    fn on_incoming(&mut self, end: EndId) {
        let Some(host) = self.network.host_of(end) else {
            return;
        };
        let number = self.nodes.get(host).map(Node::process_number);
        let process = self.nodes.get_mut(host).and_then(Node::process);
        match (process, number) {
            (Some(process), Some(number)) => {
                let owner = Owner::Node {
                    node: host,
                    process: number,
                };
                self.network.accept(end, owner, &mut self.queue);
                process.on_incoming(end);
                self.ask_for_turn(host);
            }
            _ => self.network.refuse(end, &mut self.queue),
        }
    }

    /// Sees whether everything has come to rest; then the journals must be what was released.
    fn look(&mut self) {
        let quota = self.parameters.quota;
        let is_busy = self.clients.iter().any(|client| match client {
            Client::Publisher(publisher) => publisher.is_making(quota),
            Client::Subscriber(_) => false,
        });
        let is_waiting = self
            .clients
            .iter()
            .any(|client| client.waits_for(&self.ledger).is_some());
        let is_served = self.nodes.iter_mut().all(|node| node.process().is_some());
        if is_busy || is_waiting || !is_served || !self.is_group_whole() {
            self.lead_elsewhere();
            self.doubt_old_record();
            self.queue.after(20 * MILLISECOND, Event::Look);
            return;
        }
        if !self.parameters.is_beyond {
            self.check_journals();
        }
        self.is_at_rest = true;
    }

    /// Whether everybody is in the set again, and holds and knows of all that is released.
    fn is_group_whole(&mut self) -> bool {
        let count = self.nodes.len();
        let Some(record) = self.arbiter.record().filter(|_| count > 1) else {
            return true;
        };
        let epoch = record.epoch;
        let members = record.members.as_slice();
        // A record may still name a disk that was taken away, or a process that is gone.
        let cast = self.parameters.cast;
        let is_full = members.len() == cast.data_nodes()
            && members.iter().all(|member| {
                let node = member.node.get() as usize - 1;
                if cast.is_observer(node) {
                    return false;
                }
                let is_there = member.process == 0 || self.nodes[node].runs_as(member);
                is_there && self.disks[node].incarnation() == member.incarnation
            });
        // Beyond the promise what was lost may be nothing that a client could miss.
        let end = match self.parameters.is_beyond {
            true => Position(0),
            false => self.ledger.position(),
        };
        is_full
            && self.nodes.iter_mut().all(|node| {
                let status = node.process().map(|process| process.machine().status());
                status.is_some_and(|status| {
                    status.epoch == epoch && status.durable.point.position >= end
                })
            })
    }

    /// An old record at the arbiter is found by whoever asks for it, and a primary may have nothing to ask for: its clients
    /// doubt that it leads.
    fn doubt_old_record(&mut self) {
        let nodes = if self.arbiter.has_gone_back() {
            self.nodes.len()
        } else {
            0
        };
        for node in 0..nodes {
            let now = self.nodes[node].clock.read(self.queue.now_ns());
            if let Some(process) = self.nodes[node].process() {
                process.doubt(now);
                self.ask_for_turn(node);
            }
        }
    }

    /// What rotted long ago is not read at a start, and so not mended: an operator has another node lead, whose copy is whole. And an
    /// observer leads for no longer than it has to.
    fn lead_elsewhere(&mut self) {
        if let Some(node) = self.damaged {
            self.hand_over(node);
        }
        for node in self.parameters.cast.data_nodes()..self.nodes.len() {
            if self.leads(node) && self.operator.is_free(self.queue.now_ns()) {
                self.hand_over(node);
            }
        }
    }

    /// Every journal, read from its first byte, is what was released and perhaps a little more.
    fn check_journals(&mut self) {
        for (node, disk) in self.disks.iter_mut().enumerate() {
            // Writes under way would look like a torn end, which is no matter here.
            let end = self.ledger.position();
            if self.damaged == Some(node) {
                self.ledger.compare(node, disk);
                continue;
            }
            let recovered = Node::fold_from_start(disk)
                .unwrap_or_else(|halt| panic!("node {node} would not start again: {halt}"));
            assert!(
                recovered.tail >= end,
                "node {node}'s journal ends before what is released"
            );
            self.ledger.compare(node, disk);
            if recovered.tail == end {
                assert_eq!(
                    recovered.tables,
                    *self.ledger.tables(),
                    "node {node}'s journal gives other tables than what was released"
                );
            }
        }
    }
}
