//! The faults of the schedule, as they strike and as they pass.

use super::{Cluster, Event};
use crate::canary::Canary;
use crate::client::stranger;
use crate::clock::MILLISECOND;
use crate::faults::{Damage, Fault};
use crate::history::Note;
use crate::network::{Owner, Port};
use crate::process::Fuse;
use crate::random::Random;

impl Cluster<'_> {
    /// The fault `index` of the schedule strikes.
    pub(super) fn strike(&mut self, index: usize) {
        let scheduled = self.parameters.schedule[index];
        let fault = scheduled.fault;
        let mut random = Random::of(scheduled.seed, 0);
        if !self.may_strike(fault) {
            return;
        }
        self.faults += 1;
        self.history
            .note(self.queue.now_ns(), Note::Fault { index, fault });
        match fault {
            Fault::Kill { node } => self.kill(node, false, &mut random),
            Fault::CutPower { node } => self.kill(node, true, &mut random),
            Fault::KillAtEffect {
                node,
                effects,
                cuts_power,
            } => {
                if let Some(process) = self.nodes[node].process() {
                    process.light(Fuse {
                        effects: effects + 1,
                        cuts_power,
                        seed: scheduled.seed,
                    });
                }
            }
            Fault::CrashStarting {
                node,
                steps,
                cuts_power,
            } => {
                self.kill(node, false, &mut random);
                self.nodes[node].light_start(Fuse {
                    effects: steps,
                    cuts_power,
                    seed: scheduled.seed,
                });
            }
            Fault::Stop { node } => {
                let now = self.nodes[node].clock.read(self.queue.now_ns());
                if let Some(process) = self.nodes[node].process() {
                    process.ask_to_stop(now);
                    self.ask_for_turn(node);
                }
            }
            Fault::Freeze { node, for_ns } => {
                let until = self.queue.now_ns() + for_ns;
                self.nodes[node].freeze(until);
            }
            Fault::StepClock { node, by_ms } => {
                self.nodes[node].clock.step(by_ms * MILLISECOND as i64);
            }
            Fault::ArbiterDown { for_ns } => {
                self.arbiter.go_down(self.queue.now_ns() + for_ns);
            }
            Fault::ArbiterSlow { for_ns } => {
                self.arbiter.slow_down(self.queue.now_ns() + for_ns);
            }
            Fault::SwapInDoubt => self.arbiter.doubt(),
            Fault::HandOver { node } => {
                let now = self.nodes[node].clock.read(self.queue.now_ns());
                if let Some(process) = self.nodes[node].process() {
                    process.ask_to_hand_over(now);
                    self.ask_for_turn(node);
                }
            }
            Fault::Detach { node, .. } => {
                self.detach(node, true);
                self.end_later(index, fault);
            }
            Fault::LoseConnection => {
                self.network.lose_a_connection(&mut random, &mut self.queue);
            }
            Fault::Partition { .. } | Fault::Isolate { .. } | Fault::Clog { .. } => {
                self.change_links(fault, false);
                self.end_later(index, fault);
            }
            Fault::Silence { client, .. }
            | Fault::NewIncarnation { client }
            | Fault::SecondConnection { client }
            | Fault::GoBack { client, .. }
            | Fault::Pause { client, .. }
            | Fault::Leave { client, .. }
            | Fault::StartAnew { client }
            | Fault::AskWrongly { client } => {
                self.with_client(client, |client, scene| client.on_fault(fault, scene));
            }
            Fault::Stranger { node } => {
                let host = self.parameters.cast.stranger_host();
                let port = random.pick(&[Port::Clients, Port::Mirror]);
                stranger::visit(host, node, port, &mut self.network, &mut self.queue);
            }
            _ => self.strike_disk(index, fault, &mut random),
        }
    }

    /// Within the promise one copy may be lost at a time: a disk is taken away only from a group that is whole, and until it is
    /// whole again nobody else is hit.
    fn may_strike(&mut self, fault: Fault) -> bool {
        if self.parameters.damage != Damage::OneCopy {
            return true;
        }
        self.is_copy_lost &= !self.is_group_whole();
        match fault {
            Fault::Blank { node } => {
                if self.is_copy_lost || !self.is_group_whole() || self.is_a_tail_unknown() {
                    return false;
                }
                self.is_copy_lost = true;
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    self.disks[other].disarm();
                    if let Some(process) = self.nodes[other].process() {
                        process.put_out();
                    }
                }
                true
            }
            _ => !self.is_copy_lost || fault.crashes().is_none(),
        }
    }

    /// Whether a node cut damage at its start and nobody has answered for it yet.
    fn is_a_tail_unknown(&mut self) -> bool {
        self.nodes.iter_mut().any(|node| {
            let status = node.process().map(|process| process.machine().status());
            status.is_some_and(|status| status.vote.unknown_tail.is_some())
        })
    }

    fn strike_disk(&mut self, index: usize, fault: Fault, random: &mut Random) {
        let now_ns = self.queue.now_ns();
        match fault {
            Fault::Stall { node, for_ns } => self.disks[node].stall(now_ns + for_ns),
            Fault::FailWrite { node } => self.disks[node].fail_write(),
            Fault::FailSync { node } => self.disks[node].fail_sync(),
            Fault::FailRead { node } => self.disks[node].fail_read(),
            Fault::DamageCheckpoint { node } => {
                self.disks[node].damage_checkpoint(random);
                if self.canary == Some(Canary::LostWriteCounted) {
                    self.disks[node].lose_write();
                }
            }
            Fault::NoSpace { node, .. } => {
                self.nodes[node].set_space_left(false);
                self.end_later(index, fault);
            }
            Fault::Rot { node } => {
                if self.parameters.damage == Damage::OneCopy {
                    self.damaged = Some(node);
                }
                // Anywhere, or where it may look like a torn end.
                let end = self.ledger.position().get().max(1);
                let unsure = self.parameters.settings.in_flight_bytes_max().min(end);
                let reach = random.pick(&[end, unsure]);
                self.disks[node].rot(end - 1 - random.below(reach), random);
            }
            Fault::RotEverywhere => {
                // Not at the end: there it may look torn on every node, and nobody would know of the loss.
                let unsure = 2 * self.parameters.settings.in_flight_bytes_max();
                let end = self.ledger.position().get().saturating_sub(unsure);
                let place = random.below(end.max(1));
                for disk in self.disks.iter_mut().filter(|_| end > 0) {
                    disk.rot(place, &mut random.clone());
                }
            }
            Fault::LoseWrite { node } => self.disks[node].lose_write(),
            Fault::MisdirectWrite { node } => self.disks[node].misdirect_write(),
            Fault::AgeRead { node } => self.disks[node].age_read(),
            Fault::Lie { node, for_ns } => self.disks[node].lie(now_ns + for_ns),
            Fault::Snapshot { node } => self.images[node] = Some(self.disks[node].image()),
            Fault::OldCopy { node } => {
                if let Some(image) = self.images[node].clone() {
                    self.kill(node, true, random);
                    self.disks[node].restore(image);
                }
            }
            Fault::Blank { node } => {
                self.kill(node, true, random);
                self.nodes[node].format(&mut self.disks[node], self.parameters);
            }
            other => unreachable!("no fault of a disk: {other}"),
        }
    }

    fn end_later(&mut self, index: usize, fault: Fault) {
        if let Some(for_ns) = duration(fault) {
            let end = (self.queue.now_ns() + for_ns).min(self.parameters.duration_ns);
            self.queue.at(end, Event::FaultEnds { index });
        }
    }

    /// A fault that lasts is over.
    pub(super) fn relent(&mut self, index: usize) {
        let fault = self.parameters.schedule[index].fault;
        self.history
            .note(self.queue.now_ns(), Note::FaultEnds { index });
        match fault {
            Fault::NoSpace { node, .. } => self.nodes[node].set_space_left(true),
            Fault::Detach { node, .. } => self.detach(node, false),
            _ => self.change_links(fault, true),
        }
    }

    /// An operator tells whoever leads to take a node out, or to let it in again.
    fn detach(&mut self, node: usize, is_detached: bool) {
        for other in 0..self.nodes.len() {
            if let Some(process) = self.nodes[other].process() {
                process.detach(node, is_detached);
                self.ask_for_turn(other);
            }
        }
    }

    fn change_links(&mut self, fault: Fault, is_over: bool) {
        let hosts = self.parameters.cast.hosts();
        match fault {
            Fault::Partition {
                from, to, is_both, ..
            } => {
                self.block(from, to, is_over);
                if is_both {
                    self.block(to, from, is_over);
                }
            }
            Fault::Isolate { host, .. } => {
                for other in (0..hosts).filter(|&other| other != host) {
                    self.block(host, other, is_over);
                    self.block(other, host, is_over);
                }
            }
            Fault::Clog {
                from, to, extra_ns, ..
            } => {
                self.network.clog(from, to, extra_ns, is_over);
            }
            other => unreachable!("no fault of the network: {other}"),
        }
    }

    fn block(&mut self, from: usize, to: usize, is_over: bool) {
        if is_over {
            self.network.unblock(from, to, &mut self.queue);
        } else {
            self.network.block(from, to);
        }
    }

    /// A node's process ends without a word, with its machine or without.
    pub(super) fn kill(&mut self, node: usize, cuts_power: bool, random: &mut Random) {
        let process = self.nodes[node].process_number();
        let note = if cuts_power {
            Note::PowerCut { node }
        } else {
            Note::Killed { node }
        };
        self.history.note(self.queue.now_ns(), note);
        self.with_node(node, |node, around| node.die(cuts_power, random, around));
        if cuts_power {
            self.bend_disk(node);
            self.network.on_power_cut(node);
        } else {
            let owner = Owner::Node { node, process };
            self.network.on_killed(owner, &mut self.queue);
        }
        self.with_node(node, |node, around| {
            if node.is_down() {
                node.restart_later(around);
            }
        });
    }

    /// Rules broken on purpose in what a node finds after a cut of power.
    fn bend_disk(&mut self, node: usize) {
        match self.canary {
            Some(Canary::OldCopyCounts) => {
                let older = self.images[node].replace(self.disks[node].image());
                if let Some(image) = older {
                    self.disks[node].restore(image);
                    self.disks[node].count_on();
                }
            }
            Some(Canary::BlankDiskKeepsItsName) => {
                let name = self.disks[node].incarnation();
                let parameters = self.parameters;
                self.nodes[node].format_as(name, &mut self.disks[node], parameters);
            }
            _ => {}
        }
    }

    /// No more faults: what lasts ends now, what was announced does not come, who is down is started.
    pub(super) fn heal(&mut self) {
        self.history.note(self.queue.now_ns(), Note::Healed);
        self.is_healed = true;
        self.arbiter.heal();
        for disk in &mut self.disks {
            disk.disarm();
        }
        for node in 0..self.nodes.len() {
            self.detach(node, false);
        }
        for node in &mut self.nodes {
            node.thaw();
        }
        for client in 0..self.clients.len() {
            self.with_client(client, |client, scene| client.heal(scene));
        }
        self.queue.after(0, Event::Look);
    }
}

/// How long a fault lasts that must be ended.
fn duration(fault: Fault) -> Option<u64> {
    match fault {
        Fault::NoSpace { for_ns, .. }
        | Fault::Partition { for_ns, .. }
        | Fault::Isolate { for_ns, .. }
        | Fault::Clog { for_ns, .. }
        | Fault::Detach { for_ns, .. } => Some(for_ns),
        _ => None,
    }
}
