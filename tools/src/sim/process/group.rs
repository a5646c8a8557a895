//! What a process of a group's node has besides: the vote, the arbiter, its peers, the beginning and the end of a reign.

use std::sync::Arc;

use relay_core::arbiter::{ArbiterReply, Ask};
use relay_core::command::{Now, ReleasePoint};
use relay_core::fanout::Fanout;
use relay_core::group::{Vote, WordRefused};
use relay_core::ingress::Ingress;
use relay_core::node::{Node as Machine, NodeEffect, Note as NodeNote, ReadPurpose, Start};
use relay_core::settings::Settings;
use relay_journal::superblock::{self, GENERATION_LENGTH, Superblock};
use relay_journal::tables::Tables;
use relay_wire::code::Policy;
use relay_wire::id::{Epoch, Position};
use relay_wire::membership::Member;

use super::peers::Peers;
use super::{Exit, Inbound, Life, Machines, Process, Surroundings, disk_of};
use crate::canary::Canary;
use crate::disk::{Disk, What, Zone};
use crate::history::Note;
use crate::holding::{Held, Holding};
use crate::ledger::{Claim, Lack, Reign};

/// Numbers of reads for peers begin here; those below are the fan-out's.
pub(super) const READS: u64 = 1 << 16;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) peers: Peers,
    /// This very copy, as a set names it.
    identity: Member,
    superblock: Superblock,
    slot: usize,
    /// What its disk had promised when the process began.
    promised: Epoch,
    is_storing: bool,
    reads: Vec<Read>,
}

/// A piece of the log that is being read for a peer.
#[derive(Debug, Clone, Copy)]
struct Read {
    peer: u32,
    purpose: ReadPurpose,
    position: Position,
    length: u32,
}

impl Group {
    /// Whether the disk has none of its operations.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_storing && self.reads.is_empty()
    }
}

/// The machines of a group's node, which begins as a follower.
pub(super) fn of_group(
    settings: &Settings,
    tables: Tables,
    life: &Life,
    around: &Surroundings<'_>,
) -> Machines {
    let parameters = around.parameters;
    let book = parameters.credentials();
    let (superblock, slot) = life.superblock;
    let node = settings.node.get() as usize - 1;
    let mut group = parameters.group_settings(node, superblock.disk_incarnation, life.number);
    if around.canary == Some(Canary::RestartedMemberCounts) {
        group.process = settings.node.get();
        group.identity.process = group.process;
    }
    if around.canary == Some(Canary::SuspectedTooSoon) {
        group.suspect_ns = group.heartbeat_ns / 2;
    }
    let identity = group.identity;
    let mut ingress = Ingress::new(
        settings.clone(),
        Arc::clone(&book),
        Epoch(0),
        0,
        tables.next_seq,
    );
    ingress.stand_by();
    let start = Start {
        tables,
        vote: remembered(&superblock, around.canary),
        carry: life.carry,
        write_method: parameters.write_method,
        prepared: Position(around.disk.prepared()),
        session: Some((20_261_123, "2026-11-23".to_owned())),
        now: around.now,
    };
    Machines {
        machine: Machine::of_group(settings.clone(), group, book, start),
        ingress,
        fanout: None,
        group: Some(Group {
            peers: Peers::default(),
            identity,
            superblock,
            slot,
            promised: life.promised,
            is_storing: false,
            reads: Vec::new(),
        }),
    }
}

/// The vote that the disk remembers.
fn remembered(superblock: &Superblock, canary: Option<Canary>) -> Vote {
    if canary == Some(Canary::PromiseForgotten) {
        return Vote::default();
    }
    Vote {
        promised: superblock.promised,
        committed: superblock.committed,
        nonce: superblock.committed_nonce,
        unknown_tail: superblock.unknown_tail,
        learning_from: superblock.learning_from,
    }
}

impl Process {
    /// The newest superblock of a group's node and the slot it lies in.
    pub(crate) fn superblock(&self) -> Option<(Superblock, usize)> {
        self.group
            .as_ref()
            .map(|group| (group.superblock, group.slot))
    }

    /// The arbiter's answer.
    pub(crate) fn on_arbiter(&mut self, reply: ArbiterReply) {
        self.inbound.push_back(Inbound::Arbiter(reply));
    }

    /// The machine, for checkers and an operator's word.
    pub(crate) const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// This very copy, as a set names it.
    pub(crate) fn copy(&self) -> Option<Member> {
        self.group.as_ref().map(|group| group.identity)
    }

    /// Whether it is the copy that a set names.
    pub(crate) fn is_copy(&self, member: &Member) -> bool {
        self.copy() == Some(*member)
    }

    /// What it holds, in memory too; nothing once its machine has come to its end.
    pub(crate) fn holding<'a>(&'a self, disk: &'a Disk) -> Option<Holding<'a>> {
        let (_, durable, received) = self.positions();
        let memory = &self.memory;
        (!self.is_over()).then(|| Holding::with_memory(disk, memory, durable, received))
    }

    /// Its number as a set names it, and the end of what it received.
    pub(crate) fn last_received(&self) -> Option<(u64, Position)> {
        let group = self.group.as_ref()?;
        let end = if self.is_over() {
            self.received
        } else {
            self.machine.open_position()
        };
        Some((group.identity.process, end))
    }

    /// An operator wants this node to lead.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn promote(&mut self, accepts_loss: bool, now: Now) -> Result<(), WordRefused> {
        self.machine.promote(accepts_loss, now)
    }

    /// An operator wants another node to lead; whether it comes to that.
    pub(crate) fn ask_to_hand_over(&mut self, now: Now) -> bool {
        self.machine.hand_over(None, now).is_ok()
    }

    /// An operator takes a node out of the set, or lets it in again; whether that is done, for only the primary does it.
    pub(crate) fn detach(&mut self, node: usize, is_detached: bool) -> bool {
        let node = relay_wire::id::NodeId(node as u64 + 1);
        self.machine.detach(node, is_detached).is_ok()
    }

    /// Somebody doubts that it leads still: it looks at the record.
    pub(crate) fn doubt(&mut self, now: Now) {
        self.machine.on_doubt(now.mono_ns);
    }

    fn group(&mut self) -> &mut Group {
        self.group.as_mut().expect("a group's node has one")
    }

    /// Carries out what only a group's machine wants.
    pub(super) fn carry_out(&mut self, effect: NodeEffect, around: &mut Surroundings<'_>) {
        match effect {
            NodeEffect::Link(link) => self.on_link(link, around),
            NodeEffect::Ask(request) => {
                if let Ask::Swap { next, .. } = &request.ask {
                    self.check_promise(next.epoch, around.disk);
                }
                let (node, number) = (self.node, self.number);
                let (network, queue) = (&mut *around.network, &mut *around.queue);
                around.arbiter.ask(node, number, request, network, queue);
            }
            NodeEffect::StoreVote(vote, record) => {
                if let Some(record) = record {
                    around.arbiter.keep(self.node, &record);
                }
                self.store_vote(vote, around);
            }
            NodeEffect::ReadLog {
                peer,
                purpose,
                position,
                length,
            } => self.read_for_peer(
                Read {
                    peer,
                    purpose,
                    position,
                    length,
                },
                around,
            ),
            NodeEffect::Lead(tables, epoch) => self.lead(&tables, epoch, around),
            NodeEffect::Withdraw => {
                if let Some(fanout) = &mut self.fanout {
                    fanout.withdraw(around.now.mono_ns);
                }
            }
            NodeEffect::ServeAgain => {
                if let Some(fanout) = &mut self.fanout {
                    fanout.serve_again();
                }
            }
            NodeEffect::Assured { asked_ns } => {
                if let Some(fanout) = &mut self.fanout {
                    fanout.on_assured(asked_ns, around.now.mono_ns);
                }
            }
            NodeEffect::Restart(reason, carry) => {
                around.note(Note::BeginsAgain {
                    node: self.node,
                    reason,
                });
                let log_end = self.written_end;
                self.end.get_or_insert(Exit::Restart {
                    reason,
                    carry,
                    log_end,
                });
                self.close_peers(around);
            }
            NodeEffect::Halt(reason) => {
                self.end.get_or_insert(Exit::Halt(reason));
                self.close_peers(around);
            }
            NodeEffect::Note(what) => {
                if let NodeNote::Follows(record) | NodeNote::Leads(record) = &what {
                    self.check_promise(record.epoch, around.disk);
                    self.check_new(record.epoch);
                }
                if let NodeNote::Leads(record) = &what {
                    around.operator.on_reign(record);
                }
                if let NodeNote::Damaged(_) | NodeNote::EndsBelowFloor(..) = &what {
                    *around.reported += 1;
                }
                let node = self.node;
                around.note(Note::Node { node, what });
            }
            NodeEffect::Fetched(_) => unreachable!("nobody asks while the node runs"),
            NodeEffect::Write { .. }
            | NodeEffect::Sync
            | NodeEffect::Reply(_)
            | NodeEffect::Released(_)
            | NodeEffect::Stopped(_) => unreachable!("every node has these"),
        }
    }

    /// A promise is on the disk, for sure, before anything rests on it (rule R9).
    fn check_promise(&self, epoch: Epoch, disk: &Disk) {
        if disk.is_doubtful() {
            return;
        }
        let [a, b] = disk.superblocks_for_sure();
        let promised = superblock::newest(&a, &b).map_or(Epoch(0), |(newest, _)| newest.promised);
        assert!(
            promised >= epoch,
            "node {} goes by its promise of epoch {epoch}; its disk holds {promised} for sure",
            self.node
        );
    }

    /// A process that starts never continues an epoch (rule R26).
    fn check_new(&self, epoch: Epoch) {
        let group = self.group.as_ref().expect("a group's node has one");
        assert!(
            epoch > group.promised,
            "node {} goes on in epoch {epoch}; before this process it had promised {}",
            self.node,
            group.promised
        );
    }

    fn lead(&mut self, tables: &Tables, epoch: Epoch, around: &mut Surroundings<'_>) {
        // Who hears late of a swap it won may lead when somebody else was elected since; it can't release any more.
        if !around.arbiter.has_superseded(self.node, epoch) {
            let lack = if around.parameters.is_beyond {
                Lack::Forgotten
            } else if around.operator.accepts_loss(self.node, self.number) {
                Lack::Accepted
            } else {
                Lack::Nothing
            };
            let (ledger, disk) = (&mut *around.ledger, &*around.disk);
            if ledger.on_lead(self.node, tables, disk, lack) {
                // What is still under way to clients is of the history that is lost; it would only blur what follows.
                around.network.break_everything(around.queue);
            }
        }
        let settings = self.settings.clone();
        let book = around.parameters.credentials();
        self.floor = tables.position;
        self.forwarded = tables.position;
        let mut fanout = Fanout::new(settings, book, tables, epoch);
        fanout.ask_before_alarm();
        self.fanout = Some(fanout);
    }

    fn store_vote(&mut self, vote: Vote, around: &mut Surroundings<'_>) {
        let group = self.group();
        assert!(!group.is_storing, "one vote at a time");
        let (known, stored) = (group.superblock.committed, vote.committed);
        assert!(
            stored >= known,
            "the newest record known goes back from epoch {known} to {stored} (rule R2)"
        );
        group.is_storing = true;
        group.slot = 1 - group.slot;
        group.superblock = Superblock {
            generation: group.superblock.generation + 1,
            promised: vote.promised,
            committed: vote.committed,
            committed_nonce: vote.nonce,
            unknown_tail: vote.unknown_tail,
            learning_from: vote.learning_from,
            ..group.superblock
        };
        let at = (group.slot * GENERATION_LENGTH) as u64;
        let bytes = group.superblock.encode();
        if around.canary == Some(Canary::PromiseNotKept) {
            group.is_storing = false;
            self.machine.on_vote_stored();
            return;
        }
        let now_ns = around.queue.now_ns();
        let ticket = around
            .disk
            .begin_write(Zone::Superblock, at, &bytes, false, 0, now_ns);
        self.await_disk(ticket, around);
    }

    /// A step of a vote's way to the disk ended.
    pub(super) fn on_vote_step(&mut self, what: What, is_ok: bool, around: &mut Surroundings<'_>) {
        if !is_ok {
            self.group().is_storing = false;
            self.fail(around);
        } else if matches!(what, What::Write(_)) {
            let now_ns = around.queue.now_ns();
            let ticket = around.disk.begin_sync(Zone::Superblock, 0, now_ns);
            self.await_disk(ticket, around);
        } else {
            self.group().is_storing = false;
            let vote = self.group().superblock;
            around.note(Note::Voted {
                node: self.node,
                promised: vote.promised.get(),
                committed: vote.committed.get(),
            });
            self.machine.on_vote_stored();
        }
    }

    fn read_for_peer(&mut self, read: Read, around: &mut Surroundings<'_>) {
        let left = self.settings.segment_size - read.position.get() % self.settings.segment_size;
        assert!(u64::from(read.length) <= left, "a read lies in one segment");
        self.group().reads.push(read);
        let now_ns = around.queue.now_ns();
        let tag = READS + u64::from(read.peer) * 2 + u64::from(read.purpose == ReadPurpose::Repair);
        let ticket = around.disk.begin_read(tag, now_ns);
        self.await_disk(ticket, around);
    }

    pub(super) fn on_peer_read(&mut self, tag: u64, is_ok: bool, around: &mut Surroundings<'_>) {
        let (peer, is_repair) = ((tag - READS) as u32 / 2, tag % 2 == 1);
        let is_it =
            |read: &Read| read.peer == peer && (read.purpose == ReadPurpose::Repair) == is_repair;
        let at = self.group().reads.iter().position(is_it);
        let read = at.map(|at| self.group().reads.remove(at));
        let read = read.expect("a read ends that was begun");
        let length = if is_ok { read.length as usize } else { 0 };
        let mut bytes = vec![0; length];
        around.disk.read(Zone::Log, read.position.get(), &mut bytes);
        let now = around.now;
        self.machine
            .on_log_read(peer, read.purpose, read.position, &bytes, now);
    }

    /// The ledger hears what the release rests on.
    pub(super) fn claim_release(
        &mut self,
        reign: Reign,
        point: &ReleasePoint,
        around: &mut Surroundings<'_>,
    ) {
        let status = self.machine.status();
        let membership = status.membership.expect("a primary has a record");
        let mut members = membership.members.as_slice().to_vec();
        for member in around.arbiter.members() {
            if !members.contains(&member) {
                members.push(member);
            }
        }
        // Memory counts at every member; this node's own only where there is another one.
        let counts_memory = membership.policy == Policy::Mirrored;
        let is_own_enough = counts_memory && membership.members.len() > 1;
        let (disk, others) = (&*around.disk, around.others);
        let mut held = Vec::new();
        for member in members.iter().filter(|member| !self.is_copy(member)) {
            let node = member.node.get() as usize - 1;
            let theirs = disk_of(disk, others, node);
            if theirs.incarnation() != member.incarnation || theirs.is_doubtful() {
                continue;
            }
            if !counts_memory {
                held.push((node, Held::Now(Holding::of_disk(theirs))));
                continue;
            }
            let [before, after] = around.peers;
            let peer = node
                .checked_sub(before.len())
                .map_or_else(|| &before[node], |behind| &after[behind - 1]);
            let theirs = peer.held(member, theirs);
            held.push((node, theirs.expect("who is counted on was there once")));
        }
        let own = match self.holding(disk).filter(|_| is_own_enough) {
            Some(holding) => holding,
            None => Holding::of_disk(disk),
        };
        let claim = Claim {
            reign,
            epoch: status.epoch.get(),
            point: *point,
            copies: membership.members.len(),
            min_copies: membership.min_copies.into(),
            own,
            others: held,
        };
        around.ledger.on_claim(&claim);
    }
}
