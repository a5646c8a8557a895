//! The one order of a stream: duplicate check, sequence numbers, blocks, durability, release, acknowledgement.
//!
//! Stands in the middle of the way of a message. A record that comes in sequence is stamped and copied once, into the open
//! block of the memory ring; the block is sealed when the device can use it; when everything up to a block's end is
//! durable where it must be, that end is released: subscribers may read it and publishers are told.
//!
//! Invariants:
//! * `released <= durable <= sealed <= appended`, and none of them ever goes back; where copies in memory count, release may
//!   be ahead of this node's own disk;
//! * a record is journalled at most once for each (publisher, incarnation, publisher sequence), without a gap;
//! * nothing is acknowledged, and no topic id told, before the block that holds it is released;
//! * after a write error nothing is released any more.

mod clients;
mod release;
mod seal;

use std::collections::VecDeque;
use std::sync::Arc;

use relay_journal::superblock::{CleanStop, WriteMethod};
use relay_journal::tables::Tables;
use relay_journal::topics::Topics;
use relay_wire::code::{Held, Policy, RecordKind};
use relay_wire::id::{Epoch, Incarnation, Position, PublisherSeq, Seq, TopicId};
use relay_wire::membership::{MEMBERSHIP_LENGTH_MAX, Membership};
use relay_wire::record::{
    self, CLOCK_SOURCE_LENGTH_MAX, ClockBody, EpochBody, Fields, Record, UncleanBody,
};
use relay_wire::topic;
use zerocopy::IntoBytes;

pub(crate) use self::clients::Bucket;
use self::clients::Session;
use crate::command::{
    ConnId, LogEnd, Now, ReleasePoint, SESSION_NAME_LENGTH_MAX, SessionName, Testimony, ToIngress,
    ToSequence,
};
use crate::credential::CredentialBook;
use crate::history::losses_between;
use crate::log::LogWindow;
use crate::packing::{Fit, Packing};
use crate::persist::Persist;
use crate::publishers::PublisherTable;
use crate::settings::Settings;

/// Most entries in the queue of acknowledgements: one for each publisher in each unreleased block.
const ACKS_MAX: usize = 1 << 16;
/// Most topic definitions not yet released.
const TOPIC_WAITS_MAX: usize = 4_096;
/// Where a loss is accepted, so many seqs are left out for each loss that was ever accepted and is not in this log: more than can have
/// been released behind its end, eleven days of a million messages a second. In decimals the numbers go on as they were, and in
/// front stands how often. So where an arbiter decides no seq is used twice, on whatever copy the reigns before it were.
pub const SEQS_SKIPPED: u64 = 1_000_000_000_000;
/// Longest control record: a topic definition.
const CONTROL_STRIDE_MAX: usize = record::encoded_stride(
    0,
    if topic::NAME_LENGTH_MAX > 40 {
        topic::NAME_LENGTH_MAX
    } else {
        40
    },
);

/// What the caller is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SequenceEffect {
    /// Write `length` bytes of the log at `position` and report with [`Sequence::on_written`].
    Write {
        /// For the report.
        number: u64,
        /// First byte.
        position: Position,
        /// Bytes, a multiple of the block alignment.
        length: u32,
    },
    /// Data-sync every segment that was written and report with [`Sequence::on_synced`].
    Sync,
    /// Tell ingress.
    Reply(ToIngress),
    /// Readers may go up to here.
    Released(ReleasePoint),
    /// Everything accepted is released and nothing more will come: record the clean stop.
    Stopped(CleanStop),
}

/// How a command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the start of the command's bytes.
    pub taken: usize,
    /// False when there was no room for the rest: give the command again, with what is left, later.
    pub is_done: bool,
}

impl Progress {
    const DONE: Self = Self {
        taken: 0,
        is_done: true,
    };
    const STALLED: Self = Self {
        taken: 0,
        is_done: false,
    };
}

/// The newest record of a publisher in a block that is not released.
#[derive(Debug, Clone, Copy, Hash)]
struct AckEntry {
    end: Position,
    place: u32,
    publisher_seq: PublisherSeq,
    seq: Seq,
    incarnation: Incarnation,
}

/// Somebody waits for a topic definition's release.
#[derive(Debug, Clone, Copy, Hash)]
struct TopicWait {
    /// Number of the block that holds the definition.
    block: u64,
    conn: ConnId,
    request: u32,
    topic: TopicId,
}

/// Where the stream stands in its trading sessions.
#[derive(Debug, Clone, Copy, Hash)]
struct SessionState {
    /// Number of the one last opened in the log, 0 for none.
    appended: u64,
    /// Number of the block that holds its record.
    block: u64,
    /// The one last opened whose record is released.
    released: u64,
    /// To be opened once there is room.
    wanted: Option<(u64, SessionName)>,
}

/// The machine. See the module's description.
#[derive(Debug, Clone, Hash)]
pub struct Sequence {
    settings: Settings,
    credentials: Arc<CredentialBook>,
    sessions: Vec<Session>,
    publishers: PublisherTable,
    topics: Topics,
    /// Definitions in blocks not yet released: (block number, id).
    topics_pending: VecDeque<(u64, TopicId)>,
    topic_waits: VecDeque<TopicWait>,
    acks: VecDeque<AckEntry>,
    /// Entries ever taken from the front of `acks`.
    acks_popped: u64,
    acks_due: Vec<u32>,
    packing: Packing,
    persist: Persist,
    /// When the newest block was sealed, monotonic ns.
    sealed_ns: u64,
    /// Sealed and not released: each block's number and end.
    unreleased: VecDeque<(u64, LogEnd)>,
    /// How far the group lets go; the end of the address space for a node that is not in one.
    group_limit: Position,
    /// What is in this node's memory counts, without waiting for its disk.
    memory_counts: bool,
    released: LogEnd,
    released_block: u64,
    /// The release position the newest sealed block carries.
    released_on_disk: Position,
    /// Position of the newest sealed block and checksum of the one before it.
    newest_block: (Position, u32),
    /// End of the newest sealed block that holds records.
    records_end: Position,
    next_seq: Seq,
    /// The newest epoch in the log that began with an accepted loss, 0 for none.
    last_unclean: Epoch,
    last_checksum: u32,
    receive_time_ns: u64,
    last_work_ns: u64,
    session: SessionState,
    prepared: Position,
    held: Held,
    /// Since when a command has been waiting, monotonic ns.
    stalled_since_ns: Option<u64>,
    /// Whether this node still leads is asked before a gap is told.
    asks_first: bool,
    /// Gaps that wait for that: whose, the record, and since when.
    gaps: VecDeque<(ConnId, PublisherSeq, u64)>,
    is_failed: bool,
    stop_asked: bool,
    is_stopped: bool,
    effects: VecDeque<SequenceEffect>,
}

/// What a start needs besides the settings.
#[derive(Debug, Clone)]
pub struct Beginning<'a> {
    /// The fold of the log up to its tail.
    pub tables: &'a Tables,
    /// The epoch to open.
    pub epoch: Epoch,
    /// Whether the stop before was clean.
    pub was_clean: bool,
    /// How a write becomes durable.
    pub write_method: WriteMethod,
    /// End of the prepared space.
    pub prepared: Position,
    /// The clocks.
    pub now: Now,
}

impl Sequence {
    /// A machine that goes on where `beginning` ends. Call [`Sequence::open_epoch`] first.
    #[must_use]
    pub fn new(
        settings: Settings,
        credentials: Arc<CredentialBook>,
        beginning: &Beginning<'_>,
    ) -> Self {
        let tables = beginning.tables;
        let point = ReleasePoint {
            position: tables.position,
            next_seq: tables.next_seq,
            checksum: tables.last_checksum,
        };
        let end = LogEnd {
            point,
            block_checksum: tables.previous_checksum,
        };
        let blocks_unreleased_max = settings.ring_size / u64::from(settings.block_alignment);
        let sessions = (0..settings.connections_max)
            .map(|_| Session::default())
            .collect();
        let packing = Packing::new(
            &settings,
            beginning.epoch,
            tables.position,
            tables.next_block_number,
            tables.previous_checksum,
            tables.next_seq,
        );
        Self {
            sessions,
            publishers: PublisherTable::from_tables(tables, settings.publishers_max),
            topics: tables.topics.clone(),
            topics_pending: VecDeque::with_capacity(TOPIC_WAITS_MAX),
            topic_waits: VecDeque::with_capacity(TOPIC_WAITS_MAX),
            acks: VecDeque::with_capacity(ACKS_MAX),
            acks_popped: 0,
            acks_due: Vec::with_capacity(settings.publishers_max as usize),
            persist: Persist::new(&settings, beginning.write_method, end),
            sealed_ns: beginning.now.mono_ns,
            unreleased: VecDeque::with_capacity(blocks_unreleased_max as usize),
            group_limit: Position(u64::MAX),
            memory_counts: false,
            released: end,
            released_block: packing.number(),
            released_on_disk: point.position,
            newest_block: (point.position, tables.previous_checksum),
            records_end: point.position,
            next_seq: point.next_seq,
            last_unclean: tables.last_unclean(),
            last_checksum: point.checksum,
            receive_time_ns: tables.last_time_ns.max(beginning.now.utc_ns),
            last_work_ns: beginning.now.mono_ns,
            session: {
                let open = tables.trading_session.as_ref();
                let number = open.map_or(0, |session| session.number);
                SessionState {
                    appended: number,
                    block: 0,
                    released: number,
                    wanted: None,
                }
            },
            prepared: beginning.prepared,
            held: Held::No,
            stalled_since_ns: None,
            asks_first: false,
            gaps: VecDeque::with_capacity(settings.connections_max as usize),
            is_failed: false,
            stop_asked: false,
            is_stopped: false,
            effects: VecDeque::with_capacity(4_096),
            packing,
            settings,
            credentials,
        }
    }

    /// What the log held when this machine began counts as released only to `released`; the rest goes with the group's
    /// limit. Call before anything else on a node of a group.
    pub fn hold_back_to(&mut self, released: Position) {
        let end = self.released;
        assert!(self.unreleased.is_empty(), "nothing is sealed yet");
        if released < end.point.position {
            self.unreleased.push_back((0, end));
            self.released.point.position = released;
            self.released.block_checksum = 0;
        }
    }

    /// Writes the record that opens the epoch of a node standing alone, and the trading session's if `session` names a new one.
    pub fn open_epoch(
        &mut self,
        beginning: &Beginning<'_>,
        session: Option<(u64, &str)>,
        log: &mut LogWindow<'_>,
    ) {
        self.append_epoch(beginning.epoch, beginning.was_clean, None, log);
        if let Some((number, name)) = session {
            self.append_trading_session(number, name, log);
        }
        self.seal(log, beginning.now);
    }

    /// Opens the epoch of `membership` with its record: at the start of a reign, and at each change of the set within it. False
    /// when there is no room for that now: try again next turn.
    pub fn open_group_epoch(
        &mut self,
        membership: &Membership,
        session: Option<(u64, &str)>,
        unclean: Option<&UncleanBody>,
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> bool {
        if self.is_failed {
            return false;
        }
        if self.packing.body_length() > 0 {
            if !self.can_seal() {
                return false;
            }
            self.seal(log, now);
        }
        // The records take one unit with their block, so they fit what is left of any segment and are always the epoch's first
        // block: where two logs part can then be told from their epochs alone (`history`).
        let end = self
            .packing
            .position()
            .plus(self.settings.block_alignment.into());
        if end > self.room_ends(log) || !self.can_seal() {
            return false;
        }
        self.packing.set_epoch(membership.epoch);
        if unclean.is_some() {
            let losses = losses_between(self.last_unclean, membership.epoch);
            self.next_seq = Seq(self.next_seq.get() + losses * SEQS_SKIPPED);
            self.last_unclean = membership.epoch;
            self.packing.skip_to(self.next_seq);
        }
        self.append_epoch(membership.epoch, false, Some(membership), log);
        if let Some(body) = unclean {
            let fields = Fields::default();
            self.append_control(RecordKind::Unclean, &fields, body.as_bytes(), log);
        }
        if let Some((number, name)) = session {
            self.append_trading_session(number, name, log);
        }
        self.seal(log, now);
        true
    }

    fn append_epoch(
        &mut self,
        epoch: Epoch,
        was_clean: bool,
        membership: Option<&Membership>,
        log: &mut LogWindow<'_>,
    ) {
        let policy = membership.map_or(self.settings.policy, |record| record.policy);
        let body = EpochBody {
            epoch: epoch.get().into(),
            start_position: self.packing.position().get().into(),
            previous_checksum: self.packing.previous_checksum().into(),
            copies: membership.map_or(1, |record| record.members.len() as u8),
            policy: Policy::number(policy),
            reserved: [0; 2],
            clean: u8::from(was_clean),
            reserved_tail: [0; 15],
        };
        let mut payload = [0_u8; size_of::<EpochBody>() + MEMBERSHIP_LENGTH_MAX];
        let (front, rest) = payload.split_at_mut(size_of::<EpochBody>());
        front.copy_from_slice(body.as_bytes());
        let length = front.len() + membership.map_or(0, |record| record.encode(rest));
        let payload = &payload[..length];
        self.append_control(RecordKind::Epoch, &Fields::default(), payload, log);
    }

    /// Closes the trading session and opens this one, as soon as there is room for its record; false where it does not come after the one
    /// that is open, or about to be. What goes on is the numbering of messages.
    pub fn roll_session(&mut self, number: u64, name: SessionName) -> bool {
        let newest = self
            .session
            .wanted
            .map_or(self.session.appended, |(n, _)| n);
        if number <= newest {
            return false;
        }
        self.session.wanted = Some((number, name));
        true
    }

    /// Number of the trading session that is open, its record released; 0 for none.
    #[must_use]
    pub const fn trading_session(&self) -> u64 {
        self.session.released
    }

    fn open_session_if_wanted(&mut self, now: Now, log: &mut LogWindow<'_>) {
        let Some((number, name)) = self.session.wanted else {
            return;
        };
        if self.stop_asked || !self.make_room(CONTROL_STRIDE_MAX, now, log) {
            return;
        }
        self.session.wanted = None;
        self.receive_time_ns = self.receive_time_ns.max(now.utc_ns);
        self.append_trading_session(number, name.as_str(), log);
    }

    fn append_trading_session(&mut self, number: u64, name: &str, log: &mut LogWindow<'_>) {
        self.session.appended = number;
        self.session.block = self.packing.number();
        let mut payload = [0_u8; 8 + SESSION_NAME_LENGTH_MAX];
        let name = &name.as_bytes()[..name.floor_char_boundary(SESSION_NAME_LENGTH_MAX)];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        payload[8..8 + name.len()].copy_from_slice(name);
        let payload = &payload[..8 + name.len()];
        self.append_control(RecordKind::TradingSession, &Fields::default(), payload, log);
    }

    /// Whether the next record surely has a place; otherwise leave commands where they are.
    #[must_use]
    pub fn has_room(&self, log: &LogWindow<'_>) -> bool {
        !self.is_failed && self.room_ends(log).get() >= self.room_wanted().get()
    }

    fn room_ends(&self, log: &LogWindow<'_>) -> Position {
        log.end().min(self.prepared)
    }

    fn room_wanted(&self) -> Position {
        self.packing.position().plus(self.packing.room_needed())
    }

    /// Carries out a command of ingress. `bytes` are those it names.
    pub fn on_command(
        &mut self,
        command: ToSequence,
        bytes: &[u8],
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> Progress {
        if self.is_failed || self.stop_asked {
            // Not acknowledged, so its publisher still has it.
            return Progress {
                taken: bytes.len(),
                is_done: true,
            };
        }
        match command {
            ToSequence::Records {
                conn,
                receive_time_ns,
                ..
            } => {
                self.receive_time_ns = self.receive_time_ns.max(receive_time_ns);
                self.on_records(conn, bytes, now, log)
            }
            ToSequence::TopicRequest { conn, .. } => self.on_topic_request(conn, bytes, now, log),
            ToSequence::Logon(logon) => self.on_logon(&logon, now, log),
            ToSequence::Closed { conn } => {
                self.on_closed(conn);
                Progress::DONE
            }
        }
    }

    fn on_records(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        now: Now,
        log: &mut LogWindow<'_>,
    ) -> Progress {
        let session = &self.sessions[conn.index as usize];
        if session.conn != Some(conn) {
            // Superseded: what it sent and was not taken is resent over the newer connection.
            return Progress {
                taken: bytes.len(),
                is_done: true,
            };
        }
        let place = session.place;
        let mut taken = 0;
        while taken < bytes.len() {
            let record = Record::parse(&bytes[taken..]).expect("ingress checked it");
            let stride = record.stride();
            let expected = self.publishers.get(place).appended.next();
            if record.publisher_seq() < expected {
                self.owe_ack(place);
                taken += stride;
                continue;
            }
            if record.publisher_seq() > expected {
                self.on_gap(conn, record.publisher_seq(), now);
                taken += stride;
                continue;
            }
            // The expected record has come: whatever becomes of it, the publisher is to hear of it.
            self.sessions[conn.index as usize].is_going_back = false;
            if !self.make_room(stride, now, log) {
                self.settle_acks();
                return Progress {
                    taken,
                    is_done: false,
                };
            }
            if let Err(code) = self.admit(conn, &record, now) {
                self.reject(conn, record.publisher_seq(), 0, code);
                taken += stride;
                continue;
            }
            self.append_data(place, &bytes[taken..taken + stride], &record, log);
            taken += stride;
        }
        self.settle_acks();
        Progress {
            taken,
            is_done: true,
        }
    }

    fn append_data(
        &mut self,
        place: u32,
        bytes: &[u8],
        record: &Record<'_>,
        log: &mut LogWindow<'_>,
    ) {
        let seq = self.next_seq;
        let stamped = self.packing.append(log, bytes, true);
        record::stamp(stamped, seq, self.receive_time_ns);
        self.next_seq = seq.next();
        self.last_checksum = record.checksum();
        self.note_ack(place, record.publisher_seq(), seq);
    }

    /// Makes sure that a record of `stride` bytes goes into the open block, sealing it or ending the segment if need be.
    fn make_room(&mut self, stride: usize, now: Now, log: &mut LogWindow<'_>) -> bool {
        if self.acks.len() >= ACKS_MAX {
            return false;
        }
        loop {
            if !self.has_room(log) {
                return false;
            }
            match self.packing.fit(stride) {
                Fit::Here => return true,
                Fit::AfterSeal | Fit::AfterFiller if !self.can_seal() => return false,
                Fit::AfterSeal => self.seal(log, now),
                Fit::AfterFiller => {
                    let header = self.packing.seal_filler(
                        log,
                        now.utc_ns.max(self.receive_time_ns),
                        self.released.point.position,
                    );
                    self.on_sealed(&header, self.settings.block_alignment, now);
                }
            }
        }
    }

    fn append_control(
        &mut self,
        kind: RecordKind,
        fields: &Fields,
        payload: &[u8],
        log: &mut LogWindow<'_>,
    ) {
        let mut bytes = [0_u8; CONTROL_STRIDE_MAX];
        let stride = record::encode(&mut bytes, kind, fields, &[], payload)
            .expect("control records are built to fit");
        let place = self.packing.append(log, &bytes[..stride], false);
        record::stamp(place, self.next_seq, self.receive_time_ns);
    }

    /// Journals what is to be said about this node. False when there is no room for that now: try again next turn. A machine that
    /// stops says nothing more.
    pub fn testify(&mut self, testimony: &Testimony, now: Now, log: &mut LogWindow<'_>) -> bool {
        if self.is_failed || self.stop_asked {
            return true;
        }
        if !self.make_room(CONTROL_STRIDE_MAX, now, log) {
            return false;
        }
        self.receive_time_ns = self.receive_time_ns.max(now.utc_ns);
        let fields = Fields::default();
        match testimony {
            Testimony::SealKey(body) => {
                self.append_control(RecordKind::SealKey, &fields, body.as_bytes(), log);
            }
            Testimony::Clock(body, sources) => {
                let mut payload = [0_u8; size_of::<ClockBody>() + CLOCK_SOURCE_LENGTH_MAX];
                let (front, rest) = payload.split_at_mut(size_of::<ClockBody>());
                front.copy_from_slice(body.as_bytes());
                let names = sources.as_bytes();
                rest[..names.len()].copy_from_slice(names);
                let payload = &payload[..size_of::<ClockBody>() + names.len()];
                self.append_control(RecordKind::Clock, &fields, payload, log);
            }
        }
        true
    }

    /// Takes nothing more; what was appended is still released, then [`SequenceEffect::Stopped`] comes.
    pub fn stop(&mut self) {
        self.stop_asked = true;
    }

    /// A write or sync failed: nothing is released any more, everyone is sent away.
    pub fn on_storage_fault(&mut self) {
        self.is_failed = true;
    }

    fn reply(&mut self, reply: ToIngress) {
        self.effects.push_back(SequenceEffect::Reply(reply));
    }

    /// The prepared space now ends at `end`.
    pub fn on_prepared(&mut self, end: Position) {
        assert!(end >= self.prepared, "prepared space only grows");
        self.prepared = end;
    }

    /// Tells publishers whether they are held; call when a turn ends, with whether a command had to wait.
    pub fn note_held(&mut self, is_stalled: bool, now: Now, log: &LogWindow<'_>) {
        let since_ns = match self.stalled_since_ns {
            Some(since_ns) if is_stalled => since_ns,
            _ => now.mono_ns,
        };
        self.stalled_since_ns = is_stalled.then_some(since_ns);
        let is_full = log.end() < self.room_wanted() || self.acks.len() >= ACKS_MAX;
        let held = match (is_stalled, self.prepared < self.room_wanted()) {
            (false, _) => Held::No,
            (true, true) => Held::NoSpace,
            (true, false) if is_full => Held::Busy,
            // Blocks wait for their writes: that is usual for a moment, and not worth a word to everybody.
            (true, false) if now.mono_ns >= since_ns + self.settings.heartbeat_ns => Held::Busy,
            (true, false) => self.held,
        };
        if held != self.held {
            self.held = held;
            let next_seq = self.released.point.next_seq;
            self.reply(ToIngress::Progress { next_seq, held });
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<SequenceEffect> {
        self.effects.pop_front()
    }

    /// Where the open block starts; the window given to the machine starts here.
    #[must_use]
    pub const fn open_position(&self) -> Position {
        self.packing.position()
    }

    /// How far is released.
    #[must_use]
    pub const fn released(&self) -> ReleasePoint {
        self.released.point
    }

    /// The end of the released log, with its checksum.
    #[must_use]
    pub const fn released_end(&self) -> LogEnd {
        self.released
    }

    /// The end of what is sealed.
    #[must_use]
    pub fn sealed_end(&self) -> LogEnd {
        self.unreleased
            .back()
            .map_or(self.released, |(_, end)| *end)
    }

    /// Where the newest sealed block starts, and the checksum of the block before it.
    #[must_use]
    pub const fn newest_block(&self) -> (Position, u32) {
        self.newest_block
    }

    /// Whether the open block holds records.
    #[must_use]
    pub const fn has_open_records(&self) -> bool {
        self.packing.body_length() > 0
    }

    /// The block that ends at `position`, if it is the last released one or a later one.
    #[must_use]
    pub fn end_at(&self, position: Position) -> Option<LogEnd> {
        if self.released.point.position == position {
            return Some(self.released);
        }
        let place = self
            .unreleased
            .binary_search_by_key(&position, |(_, end)| end.point.position);
        place.ok().map(|place| self.unreleased[place].1)
    }

    /// How far is durable here.
    #[must_use]
    pub const fn durable(&self) -> ReleasePoint {
        self.persist.durable().point
    }

    /// The end of what is durable here, with its checksum.
    #[must_use]
    pub const fn durable_end(&self) -> LogEnd {
        self.persist.durable()
    }

    /// The seq the next appended message gets.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Writes that are under way, or not durable yet.
    #[must_use]
    pub fn writes_in_flight(&self) -> usize {
        self.persist.in_flight()
    }

    /// Whether, and why, publishers are held.
    #[must_use]
    pub const fn held(&self) -> Held {
        self.held
    }

    /// Topics defined.
    #[must_use]
    pub fn topic_count(&self) -> u32 {
        self.topics.len() as u32
    }
}
