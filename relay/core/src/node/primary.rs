//! A node that leads: from the won swap to the first release, the join of all copies, the planned switch, the stop.

use relay_journal::tables::Tables;
use relay_wire::id::{NodeId, Position};
use relay_wire::membership::Membership;
use relay_wire::peer::{HistoryEntry, PeerMessage};
use relay_wire::record::UncleanBody;

use super::{Group, Node, NodeEffect, Note, ReadPurpose, Role};
use crate::command::{Now, ToIngress};
use crate::failover::MirrorFacts;
use crate::group::WordRefused;
use crate::log::{LogView, LogWindow};
use crate::sequence::{Beginning, Sequence};

/// A planned switch that has not come about after so long is given up, ns.
const HAND_OVER_NS: u64 = 2_000_000_000;
/// At a stop, what can't be released for want of copies is given up after so long, ns; a planned switch comes before it.
const STOP_NS: u64 = HAND_OVER_NS + 1_000_000_000;

/// What a primary has.
#[derive(Debug, Clone, Hash)]
pub(super) struct Primary {
    pub(super) sequence: Sequence,
    /// The epochs of its log.
    pub(super) epochs: Vec<HistoryEntry>,
    /// A record that is to open an epoch and had no room yet.
    opening: Option<Membership>,
    /// End of the present epoch's opening block.
    pub(super) opened: Position,
    /// Clients may log on, and know the epoch, once its opening is released.
    serving: Option<Membership>,
    /// Clients were sent away.
    is_withdrawn: bool,
    /// What an operator accepted with this reign, until it is journalled.
    unclean: Option<UncleanBody>,
    hand_over: Option<HandOver>,
}

#[derive(Debug, Clone, Copy, Hash)]
struct HandOver {
    peer: u32,
    asked_ns: u64,
    is_said: bool,
}

impl Primary {
    pub(super) fn alone(sequence: Sequence) -> Self {
        Self {
            opened: sequence.released().position,
            sequence,
            epochs: Vec::new(),
            opening: None,
            serving: None,
            is_withdrawn: false,
            unclean: None,
            hand_over: None,
        }
    }

    /// Whether commands are taken; not while the switch to another node is under way.
    pub(super) const fn is_taking(&self) -> bool {
        self.hand_over.is_none()
    }

    /// The peer that was told to take over, until that is given up.
    pub(super) fn successor(&self) -> Option<u32> {
        let hand_over = self.hand_over.filter(|hand_over| hand_over.is_said);
        hand_over.map(|hand_over| hand_over.peer)
    }

    /// Whether clients are let in as soon as what the epoch begins with is released.
    pub(super) const fn is_yet_to_serve(&self) -> bool {
        !self.is_withdrawn && (self.opening.is_some() || self.serving.is_some())
    }

    /// Whether control records may be stamped: the epoch is open and goes on.
    pub(super) const fn is_stamping(&self) -> bool {
        self.opening.is_none() && self.hand_over.is_none()
    }
}

impl Node {
    /// Turns the follower into a primary once everything it received is on its disk.
    pub(super) fn begin_reign(
        &mut self,
        group: &mut Group,
        membership: &Membership,
        now: Now,
    ) -> bool {
        let Role::Follower(standby) = &mut self.role else {
            return true;
        };
        if !standby.is_settled() {
            return false;
        }
        let Role::Follower(standby) = std::mem::replace(&mut self.role, Role::Over) else {
            unreachable!("looked at just now");
        };
        let tables = standby.into_tables();
        let beginning = Beginning {
            tables: &tables,
            epoch: membership.epoch,
            was_clean: false,
            write_method: self.method,
            prepared: self.prepared,
            now,
        };
        let mut sequence = Sequence::new(
            self.settings.clone(),
            std::sync::Arc::clone(&self.credentials),
            &beginning,
        );
        sequence.hold_back_to(group.carry_released.min(tables.position));
        sequence.set_group_limit(Position(0), false);
        sequence.ask_before_gaps();
        let entries = tables.epochs.iter().map(|entry| HistoryEntry {
            epoch: entry.epoch,
            start: entry.start,
            previous_checksum: entry.previous_checksum,
        });
        let mut epochs = Vec::with_capacity(tables.epochs.len() + 1024);
        epochs.extend(entries);
        forget_old_session(&tables, group);
        self.role = Role::Primary(Box::new(Primary {
            opened: Position(u64::MAX),
            sequence,
            epochs,
            opening: Some(*membership),
            serving: None,
            is_withdrawn: false,
            unclean: group.failover.take_unclean(),
            hand_over: None,
        }));
        self.testimonies.on_reign();
        for mirror in &mut group.mirrors {
            mirror.reset();
        }
        group.is_telling = true;
        self.effects
            .push_back(NodeEffect::Note(Note::Leads(*membership)));
        self.effects
            .push_back(NodeEffect::Lead(Box::new(tables), membership.epoch));
        true
    }

    /// The set changed within this reign: a new epoch opens, and everybody is asked to follow it.
    pub(super) fn reopen(&mut self, group: &mut Group, membership: &Membership) {
        if let Role::Primary(primary) = &mut self.role {
            primary.opening = Some(*membership);
            primary.opened = Position(u64::MAX);
            primary.unclean = group.failover.take_unclean().or(primary.unclean);
        }
        for mirror in &mut group.mirrors {
            mirror.reset();
        }
        group.is_telling = true;
        self.effects
            .push_back(NodeEffect::Note(Note::Leads(*membership)));
    }

    /// Writes the record that opens the epoch, as soon as there is room for it.
    pub(super) fn open_epoch(&mut self, group: &mut Group, now: Now, log: &mut LogWindow<'_>) {
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        let Some(membership) = primary.opening else {
            return;
        };
        let session = group.session.as_ref();
        let session = session.map(|(number, name)| (*number, name.as_str()));
        let before = primary.sequence.sealed_end();
        let unclean = primary.unclean.as_ref();
        if !primary
            .sequence
            .open_group_epoch(&membership, session, unclean, now, log)
        {
            return;
        }
        primary.unclean = None;
        // What was sealed before it, in the old epoch, is not the epoch's start.
        let (position, checksum) = primary.sequence.newest_block();
        debug_assert!(position >= before.point.position);
        primary.epochs.push(HistoryEntry {
            epoch: membership.epoch,
            start: position,
            previous_checksum: checksum,
        });
        group.session = None;
        primary.opening = None;
        primary.opened = primary.sequence.sealed_end().point.position;
        primary.serving = Some(membership);
    }

    /// Asks the peers to follow, and looks how they do.
    pub(super) fn look_at_mirrors(&mut self, group: &mut Group, now: Now) {
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        let Some(membership) = group.failover.membership().copied() else {
            return;
        };
        let envelope = group.envelope(&self.settings);
        let sealed = primary.sequence.sealed_end().point.position;
        let released = primary.sequence.released().position;
        for peer in 0..group.mirrors.len() {
            let mirror = &mut group.mirrors[peer];
            let is_connected = group.links.is_connected(peer as u32);
            let may_open = primary.opening.is_none() && is_connected;
            if may_open && mirror.wants_open(now.mono_ns) {
                let open = PeerMessage::Open(membership);
                if group.links.say(peer as u32, &envelope, &open).is_ok() {
                    mirror.on_open_said(now.mono_ns);
                }
            }
            let acknowledged = mirror.acknowledged();
            let deadline_ns = group.settings.ack_deadline_ns;
            let is_near = mirror.is_near(released, now.mono_ns) && acknowledged >= primary.opened;
            let facts = MirrorFacts {
                is_near,
                is_caught_up: is_near && acknowledged >= released,
                is_overdue: mirror.is_overdue(sealed, deadline_ns, now.mono_ns),
            };
            group
                .failover
                .on_mirror_facts(peer as u32, facts, now.mono_ns);
        }
    }

    /// The join (rule R7): the least of what every copy that counts has acknowledged in this epoch.
    pub(super) fn release(&mut self, group: &mut Group, now: Now) {
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        let Some(counted) = group.failover.counted() else {
            return;
        };
        let is_mirrored = self.settings.policy == relay_wire::code::Policy::Mirrored;
        let mut limit = Position(u64::MAX);
        // A copy that a change only proposes is not in the set yet: were this node lost now, that one might not lead.
        let copies = group.failover.copies_least();
        if copies < group.failover.min_copies().into() || group.failover.is_union_split() {
            limit = Position(0);
        }
        for member in counted.as_slice() {
            if *member == group.settings.identity {
                continue;
            }
            let views = group.failover.peers();
            let place = views.iter().position(|view| view.member == *member);
            let held = place.map_or(Position(0), |place| {
                let mirror = &group.mirrors[place];
                if is_mirrored {
                    mirror.received()
                } else {
                    mirror.acknowledged()
                }
            });
            limit = limit.min(held);
        }
        for (peer, mirror) in group.mirrors.iter().enumerate() {
            if group.failover.is_joining(peer as u32, now.mono_ns) {
                limit = limit.min(mirror.acknowledged());
            }
        }
        // Nothing of an epoch is released before its opening record is on its way.
        if primary.opening.is_some() {
            limit = Position(0);
        }
        // A copy in memory survives the loss of one machine only where the set has another: one that a change only proposes is
        // not in it yet, and one that it drops may be out of it already.
        let memory_counts = is_mirrored && group.failover.copies_least() > 1;
        primary.sequence.set_group_limit(limit, memory_counts);
        self.serve_or_withdraw(group, now);
    }

    /// Clients are served once what the reign began with is released, and sent away while neither a standby nor the arbiter
    /// can be reached: then somebody else may lead (rule R13).
    fn serve_or_withdraw(&mut self, group: &Group, now: Now) {
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        let is_cut_off = group.failover.is_cut_off(now.mono_ns);
        if is_cut_off && !primary.is_withdrawn {
            primary.is_withdrawn = true;
            self.effects
                .push_back(NodeEffect::Reply(ToIngress::Withdraw));
            self.effects.push_back(NodeEffect::Withdraw);
            self.effects.push_back(NodeEffect::Note(Note::Withdrawn));
        }
        let is_open =
            primary.opening.is_none() && primary.sequence.released().position >= primary.opened;
        if is_cut_off || !is_open {
            return;
        }
        if let (Some(membership), true) = (primary.serving, !is_cut_off) {
            primary.serving = None;
            if std::mem::take(&mut primary.is_withdrawn) {
                // The fan-out first: whom ingress lets in is to find it open.
                self.effects.push_back(NodeEffect::ServeAgain);
                self.effects.push_back(NodeEffect::Note(Note::ServesAgain));
            }
            self.effects.push_back(NodeEffect::Reply(ToIngress::Serve {
                epoch: membership.epoch,
                trading_session: primary.sequence.trading_session(),
                next_seq: primary.sequence.released().next_seq,
            }));
        } else if primary.is_withdrawn {
            primary.serving = group.failover.membership().copied();
        }
    }

    /// Sends what is sealed to every peer that follows.
    pub(super) fn send_blocks(&mut self, group: &mut Group, now: Now, ring: &LogView<'_>) {
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        if primary.opening.is_some() {
            return;
        }
        let envelope = group.envelope(&self.settings);
        let sealed = primary.sequence.sealed_end();
        let durable = primary.sequence.durable().position;
        for mirror in &mut group.mirrors {
            let links = &mut group.links;
            let piece = mirror.pump(sealed, durable, ring, links, &envelope, now.mono_ns);
            if let Some(piece) = piece {
                self.effects.push_back(NodeEffect::ReadLog {
                    purpose: ReadPurpose::CatchUp,
                    peer: mirror.peer(),
                    position: piece.position,
                    length: piece.length,
                });
            }
        }
    }

    /// Begins the planned switch to `node`, or to whichever member has kept up best.
    ///
    /// # Errors
    /// [`WordRefused`] says why not.
    pub fn hand_over(&mut self, node: Option<NodeId>, now: Now) -> Result<(), WordRefused> {
        let (Role::Primary(primary), Some(group)) = (&mut self.role, &self.group) else {
            return Err(WordRefused::NotPrimary);
        };
        if primary.hand_over.is_some() {
            return Err(WordRefused::UnderWay);
        }
        let Some(membership) = group.failover.membership() else {
            return Err(WordRefused::NotPrimary);
        };
        let mut best: Option<(Position, u32)> = None;
        for (peer, view) in group.failover.peers().iter().enumerate() {
            let mirror = &group.mirrors[peer];
            let is_wanted = node.is_none_or(|node| node == view.member.node);
            let is_in = membership.members.contains(&view.member) && mirror.is_streaming();
            let held = mirror.acknowledged();
            if is_wanted && is_in && best.is_none_or(|(most, _)| held > most) {
                best = Some((held, peer as u32));
            }
        }
        let (_, peer) = best.ok_or(WordRefused::NotInSync)?;
        primary.hand_over = Some(HandOver {
            peer,
            asked_ns: now.mono_ns,
            is_said: false,
        });
        Ok(())
    }

    /// Takes a node out of the set, where enough copies stay, or lets it in again: an operator's word to the primary.
    ///
    /// # Errors
    /// [`WordRefused`] says why not.
    pub fn detach(&mut self, node: NodeId, is_detached: bool) -> Result<(), WordRefused> {
        let group = self.group.as_mut().ok_or(WordRefused::NotAPeer)?;
        group.failover.detach(node, is_detached)
    }

    /// Makes this node lead: an operator's word. Where something released may be missing here it is refused unless the loss is
    /// accepted, and then journalled with the reign.
    ///
    /// # Errors
    /// [`WordRefused`] says why not, and what could be lost.
    pub fn promote(&mut self, accepts_loss: bool, now: Now) -> Result<(), WordRefused> {
        let Some(mut group) = self.group.take() else {
            return Err(WordRefused::IsPrimary);
        };
        let facts = self.facts(&group);
        let done = group.failover.promote(accepts_loss, &facts, now.mono_ns);
        self.group = Some(group);
        done
    }

    /// Says the word once everything taken is released, and takes it back when nothing comes of it.
    pub(super) fn hand_over_if_due(&mut self, group: &mut Group, now: Now) {
        let envelope = group.envelope(&self.settings);
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        let Some(mut hand_over) = primary.hand_over else {
            return;
        };
        if now.mono_ns >= hand_over.asked_ns + HAND_OVER_NS {
            primary.hand_over = None;
            self.effects
                .push_back(NodeEffect::Note(Note::HandOverFailed));
            return;
        }
        let is_all_released = primary.sequence.released().position
            == primary.sequence.open_position()
            && !primary.sequence.has_open_records();
        // Behind an OPEN the word would outlive the answer to it, by which a peer is known to have forgotten.
        let is_streaming = group.mirrors[hand_over.peer as usize].is_streaming();
        let is_ready = is_all_released && is_streaming && !group.failover.is_changing();
        if hand_over.is_said || !is_ready {
            return;
        }
        let word = PeerMessage::HandOver;
        if group.links.say(hand_over.peer, &envelope, &word).is_ok() {
            hand_over.is_said = true;
            primary.hand_over = Some(hand_over);
            group.failover.on_called(hand_over.peer);
        }
    }

    /// At a stop: over once everything is released, or as much as can be.
    pub(super) fn stop_if_due(&mut self, group: &mut Group, now: Now) {
        let Some(asked_ns) = group.stop_asked_ns else {
            return;
        };
        let is_over = match &mut self.role {
            Role::Primary(primary) => {
                // It may have come to lead since it was asked.
                if primary.hand_over.is_none() {
                    primary.sequence.stop();
                }
                now.mono_ns >= asked_ns + STOP_NS
            }
            Role::Follower(standby) => standby.is_settled(),
            Role::Over => true,
        };
        if is_over && !self.is_stopped {
            if let Role::Primary(primary) = &mut self.role {
                primary.sequence.write_what_waits(now);
            }
            self.is_stopped = true;
            self.effects.push_back(NodeEffect::Stopped(None));
        }
    }
}

/// The configured trading session is only to be opened if it comes after the one the log is in.
fn forget_old_session(tables: &Tables, group: &mut Group) {
    let known = tables
        .trading_session
        .as_ref()
        .map_or(0, |session| session.number);
    group.session.take_if(|(number, _)| *number <= known);
}
