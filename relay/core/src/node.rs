//! A node of a stream: follower or primary, and what the others are to it.
//!
//! It routes and nothing else: what arrives from a peer, the arbiter, the disk or ingress goes to the machine that decides, and
//! what these decide becomes effects. A node without a group is a primary for ever.
//!
//! ```text
//!                      links (bytes of peers)          arbiter, vote
//!                             |                             |
//!   commands --> sequence  mirrors / standby  <------- failover
//!                   |         |                             |
//!                   '--- writes, sends, replies, releases --'
//! ```
//!
//! A node becomes a primary in place: its tables are the fold of its log at every moment. It never becomes a follower again in
//! place: a primary that is superseded, and a follower whose log has to be cut, begin again from their disk
//! ([`NodeEffect::Restart`]), the way every start goes.

mod disk_watch;
mod fetch;
mod peers;
mod primary;
mod status;
mod testimony;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use relay_journal::superblock::{CleanStop, WriteMethod};
use relay_journal::tables::Tables;
use relay_wire::id::{Epoch, NodeId, Position, Seq};
use relay_wire::membership::Membership;
use relay_wire::peer::{Envelope, Place};

use crate::arbiter::{ArbiterReply, ArbiterRequest};
use crate::command::{LogEnd, Now, ReleasePoint, SessionName, ToIngress, ToSequence};
use crate::credential::CredentialBook;
use crate::failover::{Facts, Failover, Order};
use crate::group::{Carry, GroupSettings, HaltReason, RestartReason, Vote, WordRefused};
use crate::links::{LinkEffect, Links};
use crate::log::{LogView, LogWindow};
use crate::mirror::Mirror;
use crate::sequence::{Progress, Sequence, SequenceEffect};
use crate::settings::Settings;
use crate::standby::Standby;

use self::disk_watch::DiskWatch;
pub use self::fetch::Fetched;
pub use self::peers::Heard;
use self::primary::Primary;
pub use self::status::{NodeStatus, Note, PeerStatus};
use self::testimony::Testimonies;

/// Where the arbiter does not answer, a publisher is told of its gap after so long, ns: it sends again what it has.
const GAP_NS: u64 = 1_000_000_000;

/// What the caller is to do.
#[derive(Debug, Clone, Hash)]
pub enum NodeEffect {
    /// Write `length` bytes of the log at `position` and report with [`Node::on_written`].
    Write {
        /// For the report.
        number: u64,
        /// First byte.
        position: Position,
        /// Bytes, a multiple of the block alignment.
        length: u32,
    },
    /// Data-sync every segment that was written and report with [`Node::on_synced`].
    Sync,
    /// Tell ingress.
    Reply(ToIngress),
    /// Readers may go up to here.
    Released(ReleasePoint),
    /// Nothing more will come. With a clean stop to be recorded, where everything accepted is released.
    Stopped(Option<CleanStop>),
    /// Do something about a connection to a peer.
    Link(LinkEffect),
    /// Ask the arbiter and report with [`Node::on_arbiter`].
    Ask(ArbiterRequest),
    /// Put the vote into the superblock, durably, and report with [`Node::on_vote_stored`]. A record that comes with it is put
    /// into this node's own register first: where an operator is the arbiter, that is where it is read again.
    StoreVote(Vote, Option<Membership>),
    /// Send every subscriber to another node, and those that come.
    Withdraw,
    /// Take subscribers again.
    ServeAgain,
    /// This node led still when the arbiter was asked after [`Node::on_doubt`].
    Assured {
        /// When that was, monotonic ns.
        asked_ns: u64,
    },
    /// Read this piece of the log from disk for a peer and report with [`Node::on_log_read`].
    ReadLog {
        /// The peer's place.
        peer: u32,
        /// What for, for the report.
        purpose: ReadPurpose,
        /// First byte.
        position: Position,
        /// Bytes; not beyond the segment's end.
        length: u32,
    },
    /// The answer to what [`Node::fetch`] asked.
    Fetched(Box<Fetched>),
    /// This node leads: subscribers will be served from a log with these tables.
    Lead(Box<Tables>, Epoch),
    /// Give everything up and begin again from the disk, with what is carried.
    Restart(RestartReason, Carry),
    /// There is no way on without an operator.
    Halt(HaltReason),
    /// For the log of the process: something an operator may want to know.
    Note(Note),
}

impl From<SequenceEffect> for NodeEffect {
    fn from(effect: SequenceEffect) -> Self {
        match effect {
            SequenceEffect::Write {
                number,
                position,
                length,
            } => Self::Write {
                number,
                position,
                length,
            },
            SequenceEffect::Sync => Self::Sync,
            SequenceEffect::Reply(reply) => Self::Reply(reply),
            SequenceEffect::Released(point) => Self::Released(point),
            SequenceEffect::Stopped(stop) => Self::Stopped(Some(stop)),
        }
    }
}

/// What a piece of the log is read for. At most one read of each kind is under way for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadPurpose {
    /// The peer catches up.
    CatchUp,
    /// The peer's copy of a block is damaged.
    Repair,
}

/// What a start needs besides settings.
#[derive(Debug, Clone)]
pub struct Start {
    /// The fold of the log on disk.
    pub tables: Tables,
    /// What the superblock remembers.
    pub vote: Vote,
    /// What an earlier node of this process left, where only the log was rebuilt.
    pub carry: Option<Carry>,
    /// How a write becomes durable.
    pub write_method: WriteMethod,
    /// End of the prepared space.
    pub prepared: Position,
    /// The trading session to open if it is a new one.
    pub session: Option<(u64, String)>,
    /// The clocks.
    pub now: Now,
}

#[derive(Debug, Clone, Hash)]
enum Role {
    Follower(Box<Standby>),
    Primary(Box<Primary>),
    /// It was said to give up; nothing is done any more.
    Over,
}

/// Everything a node of a group has besides its log.
#[derive(Debug, Clone, Hash)]
struct Group {
    settings: GroupSettings,
    failover: Failover,
    disk: DiskWatch,
    links: Links,
    mirrors: Vec<Mirror>,
    /// The block each peer asks for, because its own copy is damaged.
    fetches: Vec<Option<Place>>,
    /// The block this node asked a peer for.
    asked: Option<(u32, Place)>,
    /// The follower's blocks come over this peer's connection, from where the primary said.
    source: Option<u32>,
    /// Won, and not begun yet: what was received is still on its way to the disk.
    winning: Option<Membership>,
    said_ns: u64,
    is_telling: bool,
    stop_asked_ns: Option<u64>,
    session: Option<(u64, String)>,
    /// How far the log is known to be released, here or beyond what this node holds.
    carry_released: Position,
    /// Something was received since this node last said how far it is.
    has_received: bool,
    said_durable: Position,
    told_vacant: ToldVacant,
}

/// What ingress was told last of whether clients are to wait here for a primary; a hint to clients, and no part of what a state is.
#[derive(Debug, Clone, Copy, Default)]
struct ToldVacant(bool);

impl Hash for ToldVacant {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// See the module's description.
#[derive(Debug, Clone, Hash)]
pub struct Node {
    settings: Settings,
    credentials: Arc<CredentialBook>,
    method: WriteMethod,
    prepared: Position,
    role: Role,
    group: Option<Box<Group>>,
    /// Positions below are not in this process's memory ring.
    ring_start: Position,
    testimonies: Testimonies,
    is_stopped: bool,
    effects: VecDeque<NodeEffect>,
}

impl Node {
    /// A node without a group: a primary for ever, whose epoch is open already.
    #[must_use]
    pub fn alone(settings: Settings, credentials: Arc<CredentialBook>, sequence: Sequence) -> Self {
        let start = sequence.released().position;
        Self {
            settings,
            credentials,
            method: WriteMethod::Dsync,
            prepared: Position(0),
            role: Role::Primary(Box::new(Primary::alone(sequence))),
            group: None,
            ring_start: start,
            testimonies: Testimonies::default(),
            is_stopped: false,
            effects: VecDeque::with_capacity(64),
        }
    }

    /// A node of a group, which begins as a follower whatever it was before (rule R26).
    #[must_use]
    pub fn of_group(
        settings: Settings,
        group: GroupSettings,
        credentials: Arc<CredentialBook>,
        start: Start,
    ) -> Self {
        assert!(
            settings.block_alignment >= 1024,
            "an epoch's opening records fit one unit"
        );
        let now = start.now;
        let ring_start = start.tables.position;
        let released = start.tables.released;
        let standby = Standby::new(&settings, start.tables, start.write_method, start.prepared);
        let nodes: Vec<NodeId> = group.peers.iter().map(|peer| peer.node).collect();
        let span_max = settings.block_span_max();
        let logged_max = span_max.max(group.logged_span_max);
        let mirrors = (0..nodes.len())
            .map(|peer| {
                let segment = settings.segment_size;
                let spans = (span_max, logged_max);
                Mirror::new(peer as u32, spans, segment, group.catch_up_rate)
            })
            .collect();
        let links = Links::new(
            settings.node,
            group.process,
            group.secret.clone(),
            &nodes,
            logged_max,
            group.dial_patience_ns(),
        );
        let failover = Failover::new(group.clone(), start.vote, start.carry, now.mono_ns);
        Self {
            settings,
            credentials,
            method: start.write_method,
            prepared: start.prepared,
            role: Role::Follower(Box::new(standby)),
            group: Some(Box::new(Group {
                settings: group,
                failover,
                disk: DiskWatch::new(now.mono_ns),
                links,
                fetches: vec![None; nodes.len()],
                asked: None,
                mirrors,
                source: None,
                winning: None,
                said_ns: 0,
                is_telling: true,
                stop_asked_ns: None,
                session: start.session,
                carry_released: released,
                has_received: false,
                said_durable: Position(0),
                told_vacant: ToldVacant::default(),
            })),
            ring_start,
            testimonies: Testimonies::default(),
            is_stopped: false,
            effects: VecDeque::with_capacity(4_096),
        }
    }

    /// Whether the next record surely has a place; otherwise leave commands where they are.
    #[must_use]
    pub fn has_room(&self, log: &LogWindow<'_>) -> bool {
        match &self.role {
            Role::Primary(primary) => primary.sequence.has_room(log),
            Role::Follower(_) | Role::Over => true,
        }
    }

    /// Carries out a command of ingress; a node that does not lead lets it pass, one that hands over leaves it. `bytes` are those it names.
    pub fn on_command(
        &mut self,
        command: ToSequence,
        bytes: &[u8],
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> Progress {
        match &mut self.role {
            Role::Primary(primary) if primary.is_taking() => {
                primary.sequence.on_command(command, bytes, now, log)
            }
            // Being handed over: what comes now waits. It is for the next primary, or, where nothing comes of the switch, for
            // this one; let pass, it would be missing here without its publisher knowing.
            Role::Primary(_) => Progress {
                taken: 0,
                is_done: false,
            },
            Role::Follower(_) | Role::Over => Progress {
                taken: bytes.len(),
                is_done: true,
            },
        }
    }

    /// A write completed in full.
    pub fn on_written(&mut self, number: u64) {
        match &mut self.role {
            Role::Primary(primary) => primary.sequence.on_written(number),
            Role::Follower(standby) => standby.on_written(number),
            Role::Over => {}
        }
    }

    /// The data-sync completed.
    pub fn on_synced(&mut self) {
        match &mut self.role {
            Role::Primary(primary) => primary.sequence.on_synced(),
            Role::Follower(standby) => standby.on_synced(),
            Role::Over => {}
        }
    }

    /// A write or sync failed: this node acknowledges and releases nothing any more (design section 4).
    pub fn on_storage_fault(&mut self) {
        match &mut self.role {
            Role::Primary(primary) => primary.sequence.on_storage_fault(),
            Role::Follower(standby) => standby.on_storage_fault(),
            Role::Over => {}
        }
        if let Some(group) = &mut self.group {
            group.failover.stand_back();
            for peer in 0..group.mirrors.len() {
                group.links.close_peer(peer as u32);
            }
        }
    }

    /// A subscriber saw what this node's log does not hold: whether it still leads is asked, and [`NodeEffect::Assured`] says so.
    /// `at_ns` is when that was, monotonic.
    pub fn on_doubt(&mut self, at_ns: u64) {
        if let Some(group) = &mut self.group {
            group.failover.doubt(at_ns);
        }
    }

    /// The arbiter's answer.
    pub fn on_arbiter(&mut self, reply: &ArbiterReply, now: Now) {
        if let Some(group) = &mut self.group {
            group.failover.on_arbiter(reply, now.mono_ns);
        }
    }

    /// The vote is in the superblock.
    pub fn on_vote_stored(&mut self) {
        if let Some(group) = &mut self.group {
            group.failover.on_vote_stored();
        }
    }

    /// The prepared space now ends at `end`.
    pub fn on_prepared(&mut self, end: Position) {
        self.prepared = end;
        match &mut self.role {
            Role::Primary(primary) => primary.sequence.on_prepared(end),
            Role::Follower(standby) => standby.on_prepared(end),
            Role::Over => {}
        }
    }

    /// Once a turn, after completions, peers' bytes and commands: time passes, and what is due is decided, sealed and written.
    /// [`Node::pump`] comes after it.
    pub fn turn(&mut self, now: Now, log: &mut LogWindow<'_>) {
        if matches!(self.role, Role::Over) {
            return;
        }
        if let Some(mut group) = self.group.take() {
            self.attend(&mut group, now, log);
            self.group = Some(group);
        }
        self.testify(now, log);
        if let Role::Primary(primary) = &mut self.role {
            primary.sequence.seal_if_due(now, log);
        }
    }

    /// Right after [`Node::turn`], so that a block goes to the peers beside its own write (rule R5): sends what is sealed, and
    /// says how far this node is. `ring` shows what of the log is in memory, from [`Node::ring_start`] or later to the
    /// open position.
    pub fn pump(&mut self, now: Now, ring: &LogView<'_>) {
        if matches!(self.role, Role::Over) {
            return;
        }
        if let Some(mut group) = self.group.take() {
            self.send_blocks(&mut group, now, ring);
            self.speak(&mut group, now);
            self.group = Some(group);
        }
    }

    fn writes_in_flight(&self) -> usize {
        match &self.role {
            Role::Primary(primary) => primary.sequence.writes_in_flight(),
            Role::Follower(standby) => standby.writes_in_flight(),
            Role::Over => 0,
        }
    }

    /// Lets the failover machine look at everything, and carries its orders out.
    fn attend(&mut self, group: &mut Group, now: Now, log: &mut LogWindow<'_>) {
        let (_, durable, _) = self.positions(group);
        let (durable, in_flight) = (durable.point.position, self.writes_in_flight());
        let stall_ns = group.settings.disk_stall_ns;
        group.disk.look(durable, in_flight, stall_ns, now.mono_ns);
        if let Some(membership) = group.winning
            && self.begin_reign(group, &membership, now)
        {
            group.winning = None;
        }
        if let Role::Follower(standby) = &mut self.role {
            let hurries = group.winning.is_some() || group.stop_asked_ns.is_some();
            write_follower(standby, hurries, now, &mut self.effects);
            if standby.start_sync() {
                self.effects.push_back(NodeEffect::Sync);
            }
        }
        self.open_epoch(group, now, log);
        if let Role::Primary(primary) = &mut self.role
            && let Some(noticed_ns) = primary.sequence.newest_gap_ns()
        {
            group.failover.doubt(noticed_ns);
            let impatient_ns = now.mono_ns.saturating_sub(GAP_NS);
            primary.sequence.tell_gaps(impatient_ns);
        }
        let facts = self.facts(group);
        self.look_at_mirrors(group, now);
        group.failover.step(&facts, now.mono_ns);
        while let Some(order) = group.failover.poll_order() {
            self.carry_out(group, order, now);
        }
        self.release(group, now);
        self.tell_vacancy(group, now);
        group.links.on_time(now.mono_ns);
        self.hand_over_if_due(group, now);
        self.stop_if_due(group, now);
    }

    /// Tells ingress whether clients are to wait here for a primary, where that has changed.
    fn tell_vacancy(&mut self, group: &mut Group, now: Now) {
        let is_yet_to_serve = match &self.role {
            Role::Follower(_) => true,
            Role::Primary(primary) => primary.is_yet_to_serve(),
            Role::Over => false,
        };
        let is_vacant = is_yet_to_serve && group.failover.is_vacant(now.mono_ns);
        if is_vacant != group.told_vacant.0 {
            group.told_vacant.0 = is_vacant;
            let word = ToIngress::Vacant(is_vacant);
            self.effects.push_back(NodeEffect::Reply(word));
        }
    }

    fn facts(&self, group: &Group) -> Facts {
        let holds_opening = match (&self.role, group.failover.joined()) {
            (Role::Follower(standby), Some(joined)) => {
                let last = standby.tables().epochs.last();
                let durable = standby.durable().point.position;
                last.is_some_and(|last| last.epoch == joined.epoch && durable > last.start)
            }
            _ => false,
        };
        let log_epoch = match &self.role {
            Role::Follower(standby) => standby.tables().epoch,
            Role::Primary(_) | Role::Over => group.failover.epoch(),
        };
        let status = self.positions(group);
        Facts {
            durable: status.1,
            released: status.2,
            is_disk_stalled: group.disk.is_stalled(group.settings.disk_stall_ns),
            holds_opening,
            log_epoch,
            successor: match &self.role {
                Role::Primary(primary) => primary.successor(),
                Role::Follower(_) | Role::Over => None,
            },
        }
    }

    /// Ends of what is appended, durable and released.
    fn positions(&self, group: &Group) -> (LogEnd, LogEnd, LogEnd) {
        match &self.role {
            Role::Primary(primary) => {
                let sequence = &primary.sequence;
                let sealed = sequence.sealed_end();
                (sealed, sequence.durable_end(), sequence.released_end())
            }
            Role::Follower(standby) => {
                let durable = standby.durable();
                let told = group.carry_released.min(durable.point.position);
                let mut released = durable;
                released.point.position = told;
                (standby.received(), durable, released)
            }
            Role::Over => Default::default(),
        }
    }

    fn carry_out(&mut self, group: &mut Group, order: Order, now: Now) {
        match order {
            Order::Ask(request) => self.effects.push_back(NodeEffect::Ask(request)),
            Order::Store(vote, record) => {
                self.effects.push_back(NodeEffect::StoreVote(vote, record));
            }
            Order::Assure { asked_ns } => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.sequence.tell_gaps(asked_ns);
                }
                self.effects.push_back(NodeEffect::Assured { asked_ns });
            }
            Order::Say(note) => self.effects.push_back(NodeEffect::Note(note)),
            Order::Tell => group.is_telling = true,
            Order::Join(membership) => self.join(group, &membership),
            Order::Lead(membership) => {
                group.source = None;
                if !self.begin_reign(group, &membership, now) {
                    group.winning = Some(membership);
                }
            }
            // The set may change before the reign has begun: what was received is still on its way to the disk.
            Order::Reopen(membership) if group.winning.is_some() => {
                group.winning = Some(membership);
            }
            Order::Reopen(membership) => self.reopen(group, &membership),
            Order::AskEnd { peer, epoch } => self.ask_end(group, peer, epoch),
            Order::StepDown(epoch) => {
                self.end(group, RestartReason::Superseded(epoch), now);
            }
            Order::Halt(reason) => {
                self.give_up(now);
                group.links.close_all();
                self.effects.push_back(NodeEffect::Halt(reason));
            }
        }
    }

    /// Does nothing any more, but for the writes that still wait, as many as may be under way: what is in this node's memory may have
    /// counted.
    fn give_up(&mut self, now: Now) {
        match &mut self.role {
            Role::Primary(primary) => {
                primary.sequence.write_what_waits(now);
                while let Some(effect) = primary.sequence.poll_effect() {
                    if let SequenceEffect::Write { .. } = effect {
                        self.effects.push_back(effect.into());
                    }
                }
            }
            Role::Follower(standby) => write_follower(standby, true, now, &mut self.effects),
            Role::Over => {}
        }
        self.role = Role::Over;
    }

    /// Gives everything up; the log is rebuilt from the disk.
    fn end(&mut self, group: &mut Group, reason: RestartReason, now: Now) {
        let carry = group.failover.carry();
        self.give_up(now);
        // Also those that have not proven themselves: nobody would hear of their sockets any more.
        group.links.close_all();
        if group.stop_asked_ns.is_some() {
            self.is_stopped = true;
            self.effects.push_back(NodeEffect::Stopped(None));
        } else {
            self.effects.push_back(NodeEffect::Restart(reason, carry));
        }
    }

    /// Takes nothing more in; what was appended is still released where that can be. A primary with a standby in sync hands over
    /// to it first, so that clients lose nothing but a connection.
    pub fn stop(&mut self, now: Now) {
        let is_handing_over = self.hand_over(None, now).is_ok();
        if let (Role::Primary(primary), false) = (&mut self.role, is_handing_over) {
            primary.sequence.stop();
        }
        if let Some(group) = &mut self.group {
            group.stop_asked_ns.get_or_insert(now.mono_ns);
        }
    }

    /// Tells publishers whether they are held; call when a turn ends, with whether a command had to wait.
    pub fn note_held(&mut self, is_stalled: bool, now: Now, log: &LogWindow<'_>) {
        if let Role::Primary(primary) = &mut self.role {
            primary.sequence.note_held(is_stalled, now, log);
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<NodeEffect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        if let Role::Primary(primary) = &mut self.role
            && let Some(effect) = primary.sequence.poll_effect()
        {
            self.is_stopped |= matches!(effect, SequenceEffect::Stopped(_));
            return Some(effect.into());
        }
        let group = self.group.as_mut()?;
        group.links.poll_effect().map(NodeEffect::Link)
    }

    /// Whether it has come to its end, by a restart, a halt or a stop: it takes nothing more, and needs no window.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.role, Role::Over)
    }

    /// Where the next byte of the log goes; the window given to the machine starts here.
    #[must_use]
    pub fn open_position(&self) -> Position {
        match &self.role {
            Role::Primary(primary) => primary.sequence.open_position(),
            Role::Follower(standby) => standby.received().point.position,
            Role::Over => self.ring_start,
        }
    }

    /// What of the log the ring may forget at most: on a follower everything durable, on a primary what its readers let go. They
    /// may be ahead of the disk where copies in memory count, and a write under way still points at the ring.
    #[must_use]
    pub fn forgettable(&self, readers_floor: Position) -> Position {
        match &self.role {
            Role::Follower(standby) => standby.durable().point.position,
            Role::Primary(primary) => readers_floor.min(primary.sequence.durable().position),
            Role::Over => readers_floor,
        }
    }

    /// Positions below are not in this process's memory ring.
    #[must_use]
    pub const fn ring_start(&self) -> Position {
        self.ring_start
    }

    /// The log's machine where this node leads: for counters.
    #[must_use]
    pub fn sequence(&self) -> Option<&Sequence> {
        match &self.role {
            Role::Primary(primary) => Some(&primary.sequence),
            Role::Follower(_) | Role::Over => None,
        }
    }

    /// When [`Node::turn`] has something to do though nothing happens until then, monotonic ns.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        match &self.role {
            Role::Primary(primary) => primary.sequence.due_ns(),
            Role::Follower(standby) => standby.write_due_ns(),
            Role::Over => None,
        }
    }

    /// An operator or the schedule wants the trading session closed and this one opened.
    ///
    /// # Errors
    /// [`WordRefused`]: this node does not lead, or the session does not come after the one that is open.
    pub fn roll_session(&mut self, number: u64, name: SessionName) -> Result<(), WordRefused> {
        let Role::Primary(primary) = &mut self.role else {
            return Err(WordRefused::NotPrimary);
        };
        if primary.sequence.roll_session(number, name) {
            Ok(())
        } else {
            let open = primary.sequence.trading_session();
            Err(WordRefused::SessionNotNewer(open))
        }
    }

    /// Number of the trading session this node's log is in, 0 for none.
    #[must_use]
    pub fn trading_session(&self) -> u64 {
        match &self.role {
            Role::Primary(primary) => primary.sequence.trading_session(),
            Role::Follower(standby) => {
                let session = standby.tables().trading_session.as_ref();
                session.map_or(0, |session| session.number)
            }
            Role::Over => 0,
        }
    }

    /// The seq the next appended message gets here.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        match &self.role {
            Role::Primary(primary) => primary.sequence.next_seq(),
            Role::Follower(standby) => standby.received().point.next_seq,
            Role::Over => Seq(0),
        }
    }
}

/// Has written what a follower has received, as far as it is due.
fn write_follower(
    standby: &mut Standby,
    hurries: bool,
    now: Now,
    effects: &mut VecDeque<NodeEffect>,
) {
    while let Some(write) = standby.next_write(hurries, now) {
        effects.push_back(NodeEffect::Write {
            number: write.number,
            position: write.position,
            length: write.length,
        });
    }
}

impl Group {
    fn envelope(&self, settings: &Settings) -> Envelope {
        Envelope {
            stream: settings.stream,
            epoch: self.failover.epoch(),
            incarnation: self.settings.identity.incarnation,
        }
    }
}
