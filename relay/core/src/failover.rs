//! Who leads, and which copies count: the decisions of design rules R1, R2, R8-R13, R17-R22 and R26.
//!
//! The machine looks at what is known (the arbiter's record, the durable vote, how the peers are doing, the own log) and
//! decides the next step from that alone, again at every turn: nothing is remembered as "waiting for" but one request to
//! the arbiter and one vote on its way to the disk. So a lost answer, a late one or a restart changes when a step is taken,
//! never which.
//!
//! ```text
//!            OPEN of a primary                    own swap succeeded
//!   Seeking ------------------> Following    Seeking -----------------> Leading
//!      ^   <-- primary suspected --'            ^                          |
//!      '------------------- begins again from its disk <-- superseded -----'
//! ```
//!
//! Invariants:
//! * a promise is durable before a swap rests on it or an epoch is joined;
//! * a swap is asked with the revisions of a read made after the suspicion began;
//! * a swap whose outcome is not known is repeated unchanged until it is; meanwhile its members count too (R11);
//! * nothing is decided from an answer to a request that is not the one under way.

mod arbiter;
mod lead;
mod peers;
mod seek;
mod word;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use relay_wire::id::{Epoch, Position};
use relay_wire::membership::{Floor, Members, Membership};
use relay_wire::peer::Standing;
use relay_wire::record::UncleanBody;

use crate::arbiter::{ArbiterRequest, Registers, Revision};
use crate::command::LogEnd;
use crate::group::{Carry, GroupSettings, HaltReason, Obstacle, Vote};
use crate::node::Note;

pub(crate) use self::peers::{MirrorFacts, PeerView};

/// A word that this node is to lead is given up after so long, ns: whoever said it has given up by then, too.
const WORD_NS: u64 = 3_000_000_000;

/// A decision, for the node to carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    /// Ask the arbiter.
    Ask(ArbiterRequest),
    /// Make the vote durable, and before it the record where an operator is the arbiter and a primary told it.
    Store(Vote, Option<Membership>),
    /// The epoch is joined: tell its primary this node's log.
    Join(Membership),
    /// This node leads.
    Lead(Membership),
    /// It leads with another set.
    Reopen(Membership),
    /// Another node leads.
    StepDown(Epoch),
    /// Ask this peer how far its log reaches, and for a promise.
    AskEnd { peer: u32, epoch: Epoch },
    /// Tell the peers at once where this node stands.
    Tell,
    /// This primary led still after the doubts of until then.
    Assure {
        /// When the arbiter was asked, monotonic ns.
        asked_ns: u64,
    },
    /// Tell whoever reads the log.
    Say(Note),
    /// No way on without an operator.
    Halt(HaltReason),
}

/// What the machine has to know of the log in this very turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// What is on this node's disk.
    pub(crate) durable: LogEnd,
    /// What is released, as far as this node knows.
    pub(crate) released: LogEnd,
    /// Nothing becomes durable for far too long, though something is under way.
    pub(crate) is_disk_stalled: bool,
    /// The opening record of the joined epoch is durable here.
    pub(crate) holds_opening: bool,
    /// Epoch of the last block in this node's log, 0 for none; a primary's own.
    pub(crate) log_epoch: Epoch,
    /// The peer that was told to take over, as long as it may do so.
    pub(crate) successor: Option<u32>,
}

/// A swap that was asked for and is not known to be settled.
#[derive(Debug, Clone, Copy, Hash)]
struct Proposal {
    next: Membership,
    base: Revision,
    floor_base: Option<Revision>,
    /// An answer to an earlier asking left it open.
    is_open: bool,
}

/// An operator's word that this node is to lead.
#[derive(Debug, Clone, Copy, Hash)]
struct Promotion {
    asked_ns: u64,
    accepts_loss: bool,
}

/// Names a request and decides nothing, so it is no part of what a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RequestNumber(u64);

impl Hash for RequestNumber {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// What is told to people and decides nothing, so it is no part of what a state is.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// When the arbiter last gave a certain answer.
    arbiter_heard_ns: Option<u64>,
    /// Why this node does not lead although no primary is heard; said when it changes.
    obstacle: Option<Obstacle>,
}

impl Hash for Told {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The request under way.
#[derive(Debug, Clone, Copy, Hash)]
struct Asked {
    id: RequestNumber,
    what: What,
    sent_ns: u64,
    committed: Epoch,
    nonce: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Read,
    Swap,
    Floor,
}

/// See the module's description.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Failover {
    settings: GroupSettings,
    peers: Vec<PeerView>,
    /// On disk.
    stored: Vote,
    /// To be on disk.
    wanted: Vote,
    storing: Option<Vote>,
    /// A primary's record that is to be kept with the next vote, where an operator is the arbiter.
    unkept: Option<Membership>,
    start_promised: Epoch,
    started_ns: u64,
    /// The highest epoch of a record that somebody else is known to have: where an operator is the arbiter, this node's own may be
    /// an old one.
    superseded: Epoch,
    registers: Option<Registers>,
    /// When the read that gave the registers was sent.
    read_ns: u64,
    is_read_wanted: bool,
    /// When a client's word last made it doubtful that this node still leads (rule R25), until that is answered.
    doubt_ns: Option<u64>,
    asked: Option<Asked>,
    next_id: RequestNumber,
    ask_after_ns: u64,
    told: Told,
    /// The last request to the arbiter got no certain answer.
    is_arbiter_gone: bool,
    proposal: Option<Proposal>,
    /// The epoch this node promised for its own next proposal.
    own_promise: Epoch,
    joining: Option<Membership>,
    joined: Option<Membership>,
    has_joined: bool,
    reign: Option<Membership>,
    /// Where an operator is the arbiter: every copy of the set has followed in this process, or he said that this node leads. Before,
    /// the record here may be an old one.
    is_confirmed: bool,
    /// Since when no primary is heard.
    leaderless_ns: u64,
    /// When a primary asked this node to take over.
    handed_over_ns: Option<u64>,
    /// An operator's word that this node is to lead, with what may be lost by it.
    promotion: Option<Promotion>,
    /// The reign that begins was forced.
    unclean: Option<UncleanBody>,
    floor_written: Floor,
    floor_due_ns: u64,
    nonces: u64,
    is_halted: bool,
    orders: VecDeque<Order>,
}

impl Failover {
    pub(crate) fn new(
        settings: GroupSettings,
        stored: Vote,
        carry: Option<Carry>,
        now_ns: u64,
    ) -> Self {
        let peers = settings.peers.iter().map(PeerView::new).collect();
        let carry = carry.unwrap_or(Carry {
            start_promised: stored.promised,
            joined: None,
            started_ns: now_ns,
            superseded: Epoch(0),
        });
        Self {
            nonces: settings.seed,
            settings,
            peers,
            stored,
            wanted: stored,
            storing: None,
            unkept: None,
            start_promised: carry.start_promised,
            started_ns: carry.started_ns,
            superseded: carry.superseded,
            registers: None,
            read_ns: 0,
            is_read_wanted: false,
            doubt_ns: None,
            asked: None,
            next_id: RequestNumber(1),
            ask_after_ns: 0,
            told: Told::default(),
            is_arbiter_gone: false,
            promotion: None,
            unclean: None,
            proposal: None,
            own_promise: Epoch(0),
            joining: None,
            joined: carry.joined,
            has_joined: carry.joined.is_some(),
            reign: None,
            is_confirmed: false,
            leaderless_ns: now_ns,
            handed_over_ns: None,
            floor_written: Floor::default(),
            floor_due_ns: 0,
            is_halted: false,
            orders: VecDeque::with_capacity(64),
        }
    }

    /// What goes with the node when only its log is rebuilt.
    pub(crate) const fn carry(&self) -> Carry {
        Carry {
            start_promised: self.start_promised,
            joined: self.joined,
            started_ns: self.started_ns,
            superseded: self.superseded,
        }
    }

    pub(crate) fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    pub(crate) const fn standing(&self) -> Standing {
        if self.reign.is_some() {
            Standing::Leading
        } else if self.joined.is_some() {
            Standing::Following
        } else {
            Standing::Seeking
        }
    }

    /// The epoch this node acknowledges or leads in; 0 for none.
    pub(crate) fn epoch(&self) -> Epoch {
        let record = self.reign.as_ref().or(self.joined.as_ref());
        record.map_or(Epoch(0), |record| record.epoch)
    }

    /// The record it follows or leads by, or else the newest it knows of.
    pub(crate) fn membership(&self) -> Option<&Membership> {
        let known = self.registers.as_ref().map(|known| &known.membership);
        self.reign.as_ref().or(self.joined.as_ref()).or(known)
    }

    pub(crate) const fn joined(&self) -> Option<&Membership> {
        self.joined.as_ref()
    }

    pub(crate) const fn vote(&self) -> &Vote {
        &self.stored
    }

    pub(crate) const fn arbiter_heard_ns(&self) -> Option<u64> {
        self.told.arbiter_heard_ns
    }

    pub(crate) fn peers(&self) -> &[PeerView] {
        &self.peers
    }

    /// The lowest epoch this node would join; 0 while it is in one (rules R9, R26).
    pub(crate) fn lowest_join(&self) -> Epoch {
        if self.reign.is_some() || self.joined.is_some() || self.is_about_to_lead() {
            return Epoch(0);
        }
        let is_all_told = self.registers.is_some() && self.stored == self.wanted;
        if self.settings.is_manual && !is_all_told {
            // No arbiter keeps a primary of the past from opening the very epoch another one was made to lead: what this node demands
            // is told together with what it knows of, durably, or not yet.
            return Epoch(0);
        }
        let known = self.registers.as_ref();
        let known = known.map_or(Epoch(0), |known| known.membership.epoch);
        self.start_promised
            .next()
            .max(self.wanted.promised)
            .max(known)
    }

    /// Whether this node is to lead by a word, where no arbiter keeps another from opening the very epoch it promised for that: so
    /// it demands none meanwhile.
    const fn is_about_to_lead(&self) -> bool {
        let has_word = self.promotion.is_some() || self.handed_over_ns.is_some();
        self.settings.is_manual && (has_word || self.proposal.is_some())
    }

    /// The copies a release waits for: the current set and, while a change is not settled, those it names (rule R7).
    pub(crate) fn counted(&self) -> Option<Members> {
        let reign = self.reign.as_ref()?;
        let mut set = reign.members;
        if let Some(proposal) = &self.proposal {
            for member in proposal.next.members.as_slice() {
                // Two incarnations of a node can't both be held: the newcomer's is the one that still has to be waited for.
                if !set.contains(member) {
                    set = set.with(*member);
                }
            }
        }
        Some(set)
    }

    /// Copies of the smaller of the two sets of which one is the present one, while a change is not settled.
    pub(crate) fn copies_least(&self) -> usize {
        let reign = self.reign.as_ref();
        let proposed = self.proposal.as_ref().map(|proposal| &proposal.next);
        let sets = reign.into_iter().chain(proposed);
        sets.map(|record| record.members.len()).min().unwrap_or(0)
    }

    /// Whether the peer is about to be taken in: a release waits for it already, so that under load, too, there comes a moment
    /// at which it holds everything that is released (rule R23).
    pub(crate) fn is_joining(&self, peer: u32, now_ns: u64) -> bool {
        let view = &self.peers[peer as usize];
        let is_in = |reign: &Membership| reign.members.contains(&view.member);
        let has_place = |union: Members| union.has_place_for(view.member.node);
        self.reign.as_ref().is_some_and(|reign| !is_in(reign))
            && self.counted().is_some_and(has_place)
            && self.has_kept_up(view, now_ns)
    }

    /// Whether a change of the set, or another node's word that it has been changed, makes the union hold two incarnations
    /// of a node: then nothing is released until it is settled.
    pub(crate) fn is_union_split(&self) -> bool {
        let (Some(reign), Some(proposal)) = (&self.reign, &self.proposal) else {
            return false;
        };
        let next = proposal.next.members;
        reign.members.as_slice().iter().any(|member| {
            next.of_node(member.node)
                .is_some_and(|other| other != *member)
        })
    }

    /// A primary asks to be followed, with the record it won. Whether this node does is answered by [`Order::Join`], or by the
    /// lowest epoch it tells.
    pub(crate) fn on_open(
        &mut self,
        peer: u32,
        membership: &Membership,
        durable: Position,
        now_ns: u64,
    ) {
        let view = &self.peers[peer as usize];
        if membership.primary != view.member.node || self.is_halted {
            return;
        }
        if self.proposal.is_some() && self.reign.is_none() {
            // An own swap may have landed after this record, or have been beaten by it: the arbiter says which.
            return;
        }
        let committed = (self.wanted.committed, self.wanted.nonce);
        if membership.epoch == committed.0 && membership.nonce != committed.1 {
            self.halt(HaltReason::TwoRecords(membership.epoch));
            return;
        }
        if let Some(reign) = &self.reign {
            if membership.epoch > reign.epoch {
                self.step_down(membership.epoch);
            }
            return;
        }
        let is_again = self
            .joined
            .is_some_and(|joined| joined.epoch == membership.epoch);
        let lowest = self
            .start_promised
            .next()
            .max(self.wanted.promised)
            .max(committed.0);
        if !is_again && membership.epoch < lowest {
            self.orders.push_back(Order::Tell);
            return;
        }
        if !is_again {
            self.joined = None;
        }
        // Who asks to be followed leads, also before it says so.
        let view = &mut self.peers[peer as usize];
        view.epoch = membership.epoch;
        view.progress.standing = Standing::Leading;
        self.joining = Some(*membership);
        self.wanted.promised = self.wanted.promised.max(membership.epoch);
        // A later record may be known already: of a change that the one who asks has not heard of itself.
        self.note_committed(membership);
        // Durable before the epoch is joined, so before anything it does not count for is written, and gone before it counts.
        self.wanted.learning_from = if membership.members.contains(&self.settings.identity) {
            None
        } else {
            let before = self.wanted.learning_from.unwrap_or(durable);
            Some(before.min(durable))
        };
        if self.settings.is_manual {
            self.unkept = Some(*membership);
        }
        self.handed_over_ns = None;
        self.promotion = None;
        self.leaderless_ns = now_ns;
        self.finish_join();
    }

    fn finish_join(&mut self) {
        if let Some(membership) = self.joining
            && self.stored.promised >= membership.epoch
            && self.stored.committed >= membership.epoch
            && self.stored.learning_from == self.wanted.learning_from
        {
            if self.stored.promised > membership.epoch {
                // Promised more meanwhile: this epoch is not to be joined any more.
                self.joining = None;
                self.orders.push_back(Order::Tell);
                return;
            }
            self.joining = None;
            self.joined = Some(membership);
            self.has_joined = true;
            self.orders.push_back(Order::Join(membership));
        }
    }

    /// A member that cut damage asks for a promise and for how far this node's log reaches (rule R17): to `durable`.
    ///
    /// Where an operator is the arbiter nobody proposes itself but the primary of before. Where it is that one which asks, in
    /// the very record of the pair this node has, and this log reaches further, it will not lead: so this node is called. Of
    /// three nodes two could be, for one epoch.
    pub(crate) fn on_ask_end(&mut self, peer: u32, epoch: Epoch, durable: Position, now_ns: u64) {
        if self.reign.is_some() || self.proposal.is_some() || self.is_primary_heard(now_ns) {
            return;
        }
        let view = &self.peers[peer as usize];
        let record = self.registers.as_ref().map(|known| &known.membership);
        let is_by_primary = record.is_some_and(|record| {
            let is_pair = record.members.len() == 2;
            is_pair && record.primary == view.member.node && record.epoch.next() == epoch
        });
        let is_beyond = view.progress.is_tail_unknown && durable > view.durable();
        if self.settings.is_manual && is_by_primary && is_beyond {
            self.handed_over_ns = Some(now_ns);
        }
        self.joined = None;
        self.joining = None;
        self.wanted.promised = self.wanted.promised.max(epoch);
        self.orders.push_back(Order::Tell);
    }

    /// The primary this node follows wants it to take over.
    pub(crate) fn on_hand_over(&mut self, peer: u32, epoch: Epoch, now_ns: u64) {
        let node = self.peers[peer as usize].member.node;
        let is_ours = self
            .joined
            .is_some_and(|joined| joined.primary == node && joined.epoch == epoch);
        if is_ours {
            self.handed_over_ns = Some(now_ns);
        }
    }

    /// The vote given with [`Order::Store`] is on disk.
    pub(crate) fn on_vote_stored(&mut self) {
        let stored = self.storing.take().expect("a vote was on its way");
        assert!(
            stored.promised >= self.stored.promised,
            "a promise is never taken back"
        );
        self.stored = stored;
        self.finish_join();
        self.orders.push_back(Order::Tell);
    }

    fn step_down(&mut self, epoch: Epoch) {
        if self.settings.is_manual {
            self.superseded = self.superseded.max(epoch);
        }
        self.reign = None;
        self.proposal = None;
        self.is_halted = true;
        self.orders.push_back(Order::StepDown(epoch));
    }

    pub(crate) fn halt(&mut self, reason: HaltReason) {
        if !self.is_halted {
            self.is_halted = true;
            self.reign = None;
            self.joined = None;
            self.orders.push_back(Order::Halt(reason));
        }
    }

    /// The own disk failed: nobody is to be led or followed from here.
    pub(crate) fn stand_back(&mut self) {
        self.is_halted = true;
        self.reign = None;
        self.joined = None;
        self.joining = None;
    }

    /// Looks at everything and takes the next step.
    pub(crate) fn step(&mut self, facts: &Facts, now_ns: u64) {
        if self.is_halted {
            return;
        }
        if self.is_primary_heard(now_ns) {
            self.leaderless_ns = now_ns;
            self.told.obstacle = None;
        }
        if facts.holds_opening && self.joined.is_some() {
            self.wanted.unknown_tail = None;
        }
        let is_old = |said_ns: u64| now_ns >= said_ns + WORD_NS;
        self.handed_over_ns = self.handed_over_ns.filter(|said_ns| !is_old(*said_ns));
        if self.promotion.is_some_and(|word| is_old(word.asked_ns)) {
            self.promotion = None;
            self.orders.push_back(Order::Say(Note::PromotionLapsed));
        }
        if self.reign.is_some() {
            self.lead(facts, now_ns);
        } else {
            self.seek(facts, now_ns);
        }
        self.store_vote();
    }

    fn store_vote(&mut self) {
        if self.storing.is_none() && self.wanted != self.stored {
            self.storing = Some(self.wanted);
            let record = self.unkept.take();
            self.orders.push_back(Order::Store(self.wanted, record));
        }
    }

    /// Makes sure of a durable promise above everything known; the epoch once it is there.
    fn promise(&mut self, above: Epoch) -> Option<Epoch> {
        if self.own_promise <= above || self.own_promise != self.wanted.promised {
            let highest = above.max(self.wanted.promised);
            if highest >= Epoch::LAST {
                self.halt(HaltReason::LastEpoch);
                return None;
            }
            self.own_promise = highest.next();
            self.wanted.promised = self.own_promise;
        }
        (self.stored.promised >= self.own_promise).then_some(self.own_promise)
    }

    fn nonce(&mut self) -> u64 {
        // SplitMix64: a fixed walk from a random start, so that no two records of a group have one nonce by chance.
        self.nonces = self.nonces.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.nonces;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether this node may be about to lead, because nobody is known to since a short time ago (twice the time after which a
    /// silent primary is suspected: a client that waits here is not to wait for ever) or because its primary asked for it.
    pub(crate) fn is_vacant(&self, now_ns: u64) -> bool {
        let is_recent = |since_ns: u64| now_ns < since_ns + 2 * self.settings.suspect_ns;
        if self.handed_over_ns.is_some_and(is_recent) {
            return true;
        }
        let Some(record) = self.membership() else {
            return false;
        };
        if self.reign.is_none() && self.wanted.committed > record.epoch {
            // Another one won since.
            return false;
        }
        let is_its_primary = |view: &PeerView| view.member.node == record.primary;
        // One that this process never heard may lead all the time: it is only not reached yet.
        let was_led = self
            .peers
            .iter()
            .any(|view| is_its_primary(view) && view.heard_ns > 0);
        let may_lead = self.is_in(record) && !self.settings.is_observer && !self.settings.is_manual;
        let is_heir = self.reign.is_some() || (self.has_joined && was_led && may_lead);
        is_heir && is_recent(self.leaderless_ns) && !self.is_primary_heard(now_ns)
    }

    /// Fewer copies than this and nothing is released: as the reign's record says.
    pub(crate) fn min_copies(&self) -> u8 {
        let reign = self.reign.as_ref();
        reign.map_or(self.settings.min_copies, |reign| reign.min_copies)
    }

    /// Whether this primary reaches neither another copy that counts nor the arbiter (rule R13).
    ///
    /// It is so from the moment on at which the others may suspect it, for then one of them may lead. An arbiter counts as gone
    /// where its last answer was no certain one, and where it has not answered for a quarter of that time; the member it is
    /// asked about was missed a head start before.
    pub(crate) fn is_cut_off(&self, now_ns: u64) -> bool {
        let Some(reign) = &self.reign else {
            return false;
        };
        let suspect_ns = self.settings.suspect_ns;
        let me = self.settings.identity;
        let others = reign.members.as_slice().iter().filter(|m| **m != me);
        // Who is back over a new connection and has not said yet whom it follows may follow another by now: what is acknowledged
        // there is not known here, and a publisher would be told less.
        let follows = |view: &PeerView| {
            view.progress.standing == Standing::Following && view.epoch <= reign.epoch
        };
        let is_anyone_heard = others.clone().any(|member| {
            self.view_of(member)
                .is_some_and(|view| follows(view) && self.is_well(view, suspect_ns, now_ns))
        });
        let is_unanswered = self
            .asked
            .is_some_and(|asked| now_ns >= asked.sent_ns + suspect_ns / 4);
        let is_arbiter_gone = self.is_arbiter_gone || is_unanswered;
        is_arbiter_gone && others.count() > 0 && !is_anyone_heard
    }

    /// The proposal that is not settled, if there is one.
    pub(crate) const fn is_changing(&self) -> bool {
        self.proposal.is_some()
    }
}
