//! The faults of the schedule, as they strike and as they pass.

use relay_journal::superblock;

use super::{Cluster, Event};
use crate::canary::Canary;
use crate::client::stranger;
use crate::clock::{MILLISECOND, SECOND};
use crate::faults::{Damage, Fault};
use crate::history::Note;
use crate::network::{Owner, Port};
use crate::operator::SWITCH_NS;
use crate::process::Fuse;
use crate::random::Random;
use crate::theme::Theme;

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
        self.excuse_by(fault);
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
                if self.leads(node) {
                    // It hands over first.
                    self.operator.on_word(self.queue.now_ns(), SWITCH_NS);
                }
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
            Fault::HandOver { node } => self.hand_over(node),
            Fault::BackUp => self.arbiter.back_up(),
            Fault::Restore => self.arbiter.restore(&mut random, &mut self.queue),
            Fault::PowerOut { node, for_ns } => {
                self.nodes[node].stay_off(self.queue.now_ns() + for_ns);
                self.kill(node, true, &mut random);
                if let Some((forgetting, has_lost_power)) = &mut self.forgetting
                    && *forgetting == node
                {
                    *has_lost_power = true;
                    self.disks[node].disarm();
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

    /// Whether the world of this run lets the fault strike now.
    fn may_strike(&mut self, fault: Fault) -> bool {
        if self.is_calm {
            return fault.is_of_clients();
        }
        match self.parameters.theme {
            Theme::Manual => self.may_say(fault),
            Theme::Restored => fault != Fault::Restore || self.may_restore(),
            Theme::Forgetful if self.parameters.damage == Damage::OneCopy => self.may_forget(fault),
            _ if self.parameters.damage == Damage::OneCopy => self.may_lose_copy(fault),
            _ => true,
        }
    }

    /// Within the promise one copy may be lost at a time: a disk is taken away only from a group that is whole, and until it is
    /// whole again nobody else is hit.
    fn may_lose_copy(&mut self, fault: Fault) -> bool {
        self.is_copy_lost &= !self.is_group_whole();
        match fault {
            Fault::Blank { node } => {
                if self.is_copy_lost || !self.is_group_whole() || self.is_a_tail_unknown() {
                    return false;
                }
                self.is_copy_lost = true;
                self.spare_others(node);
                true
            }
            _ => !self.is_copy_lost || fault.crashes().is_none(),
        }
    }

    /// What was announced to the other nodes does not come.
    fn spare_others(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.disks[other].disarm();
            if let Some(process) = self.nodes[other].process() {
                process.put_out();
            }
        }
    }

    /// A disk that forgets is the one thing that goes wrong: before, the group is whole and nothing else is on; then the node
    /// loses its power, and until the group is whole again only clients are struck.
    fn may_forget(&mut self, fault: Fault) -> bool {
        if let Some((node, true)) = self.forgetting
            && self.is_group_whole()
        {
            self.disks[node].count_on();
            self.forgetting = None;
        }
        let forgets = match fault {
            Fault::Lie { node, .. }
            | Fault::OldCopy { node }
            | Fault::LoseWrite { node }
            | Fault::MisdirectWrite { node } => Some(node),
            _ => None,
        };
        match (self.forgetting, forgets) {
            (Some((node, _)), _) => {
                let is_its_end = matches!(fault, Fault::PowerOut { node: out, .. } if out == node);
                is_its_end || fault.is_of_clients()
            }
            (None, None) => true,
            (None, Some(node)) => {
                if !self.is_undisturbed() || self.is_a_tail_unknown() {
                    return false;
                }
                self.forgetting = Some((node, false));
                self.spare_others(node);
                true
            }
        }
    }

    /// Whether the group is whole, and nothing lasts that could part it.
    fn is_undisturbed(&mut self) -> bool {
        let now_ns = self.queue.now_ns();
        let is_frozen = self.nodes.iter().any(|n| n.frozen_until_ns() > now_ns);
        let is_stalled = self.disks.iter().any(|disk| disk.is_stalled(now_ns));
        let is_disturbed = self.lasting > 0 || is_frozen || is_stalled;
        !is_disturbed && !self.arbiter.is_disturbed(now_ns) && self.is_group_whole()
    }

    /// Whether the arbiter may come back from its backup: every copy that the old record names has seen a later one, for sure,
    /// or it is no old one.
    fn may_restore(&self) -> bool {
        let (Some(old), Some(now)) = (self.arbiter.backup(), self.arbiter.record()) else {
            return false;
        };
        old.epoch == now.epoch
            || old.members.as_slice().iter().all(|member| {
                let disk = &self.disks[member.node.get() as usize - 1];
                let [a, b] = disk.superblocks_for_sure();
                let committed = superblock::newest(&a, &b).map(|(newest, _)| newest.committed);
                disk.incarnation() != member.incarnation
                    || committed.is_ok_and(|committed| committed > old.epoch)
            })
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
                self.note_damage(node);
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
            Fault::LoseWrite { node } => {
                self.disks[node].lose_write();
                self.note_damage(node);
            }
            Fault::MisdirectWrite { node } => {
                self.disks[node].misdirect_write();
                self.note_damage(node);
            }
            Fault::AgeRead { node } => self.disks[node].age_read(),
            Fault::Lie { node, for_ns } => {
                self.disks[node].lie(now_ns + for_ns);
                self.note_damage(node);
            }
            Fault::Snapshot { node } => self.images[node] = Some(self.disks[node].image()),
            Fault::OldCopy { node } => {
                if let Some(image) = self.images[node].clone() {
                    if self.nodes.len() > 1 {
                        let now_ns = self.queue.now_ns();
                        self.nodes[node].stay_off(now_ns + random.within(SECOND, 2 * SECOND));
                        self.forgetting = self.forgetting.map(|(node, _)| (node, true));
                    }
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

    /// Within the promise: this node's copy may differ from what was released, for as long as nobody reads it.
    fn note_damage(&mut self, node: usize) {
        if self.parameters.damage == Damage::OneCopy {
            self.damaged = Some(node);
        }
    }

    fn end_later(&mut self, index: usize, fault: Fault) {
        self.lasting += 1;
        if let Some(for_ns) = duration(fault) {
            let end = (self.queue.now_ns() + for_ns).min(self.parameters.duration_ns);
            self.queue.at(end, Event::FaultEnds { index });
        }
    }

    /// A fault that lasts is over.
    pub(super) fn relent(&mut self, index: usize) {
        let fault = self.parameters.schedule[index].fault;
        self.lasting -= 1;
        self.history
            .note(self.queue.now_ns(), Note::FaultEnds { index });
        match fault {
            Fault::NoSpace { node, .. } => self.nodes[node].set_space_left(true),
            Fault::Detach { node, .. } => self.detach(node, false),
            _ => self.change_links(fault, true),
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
        self.excuse(node, self.queue.now_ns());
        self.arbiter.on_killed(node, random);
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
