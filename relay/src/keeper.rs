//! The thread that keeps a node's vote in its superblock, and writes the log of the process.
//!
//! ```text
//! hot thread --vote, notes--> keeper --superblock--> disk
//!      ^-------stored + wake----'
//! ```
//!
//! A vote is waited for in the middle of a failover, so this thread has nothing else to do that takes long, and keeps its
//! priority. It owns the superblock while the node runs and gives it back when the hot thread has gone.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay_core::group::Vote;
use relay_core::links::LinkFault;
use relay_core::node::Note;
use relay_wire::membership::Membership;

use crate::arbiter::OwnRegister;
use crate::counters::Counter;
use crate::link::{Answered, Parking};
use crate::storage::Storage;

/// Words that may wait; one of them a vote.
const WORDS_MAX: usize = 256;

#[derive(Debug, Clone, Copy)]
enum Word {
    Store(Vote, Option<Membership>),
    Note(Note),
}

/// The hot thread's end; the keeper stops when it is dropped.
pub(crate) struct KeeperLink {
    words: SyncSender<Word>,
    stored: Receiver<Result<(), String>>,
    answered: Answered,
    /// A vote that found the queue full of notes.
    waiting: Option<(Vote, Option<Membership>)>,
    unsaid: Counter,
}

/// What the keeper's thread leaves: the superblock's owner, and how storing a vote failed, where it did.
pub(crate) type Kept = (Storage, Option<String>);

/// Starts the keeper of `storage`, and of the node's own register where an operator is the arbiter, for the hot thread that sleeps in `hot`.
///
/// The thread hands the storage back, and how it failed if it did.
pub(crate) fn start(
    mut storage: Storage,
    own: Option<Arc<OwnRegister>>,
    name: String,
    hot: Parking,
    unsaid: Counter,
) -> std::io::Result<(KeeperLink, JoinHandle<Kept>)> {
    let (words, said) = mpsc::sync_channel(WORDS_MAX);
    let (stored, told) = mpsc::sync_channel(1);
    let answered = Answered::new(hot);
    let answer = answered.clone();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let mut refusals = Refusals::default();
        let mut fault = None;
        while let Ok(word) = said.recv() {
            match word {
                Word::Note(Note::PeerRefused(fault)) => refusals.tell(&fault),
                Word::Note(note) => tell(&note),
                Word::Store(vote, record) => {
                    // First the record: a vote that knows of it is not to be without it.
                    let kept = keep_record(own.as_deref(), record.as_ref());
                    let outcome = kept.and_then(|()| keep(&mut storage, &vote));
                    fault = fault.or_else(|| outcome.clone().err());
                    if stored.send(outcome).is_err() {
                        break;
                    }
                    answer.raise();
                }
            }
        }
        (storage, fault)
    })?;
    let link = KeeperLink {
        words,
        stored: told,
        answered,
        waiting: None,
        unsaid,
    };
    Ok((link, thread))
}

fn keep_record(own: Option<&OwnRegister>, record: Option<&Membership>) -> Result<(), String> {
    match (own, record) {
        (Some(own), Some(record)) => own.keep(record),
        _ => Ok(()),
    }
}

fn keep(storage: &mut Storage, vote: &Vote) -> Result<(), String> {
    let stored = storage.update(|next| {
        next.promised = vote.promised;
        next.committed = vote.committed;
        next.committed_nonce = vote.nonce;
        next.unknown_tail = vote.unknown_tail;
        next.learning_from = vote.learning_from;
    });
    stored.map_err(|error| error.to_string())
}

impl KeeperLink {
    /// Makes `vote` durable; [`KeeperLink::poll`] tells when it is.
    pub(crate) fn store(&mut self, vote: Vote, record: Option<Membership>) {
        assert!(self.waiting.is_none(), "one vote is stored at a time");
        self.waiting = Some((vote, record));
        self.pass_vote_on();
    }

    fn pass_vote_on(&mut self) {
        if let Some((vote, record)) = self.waiting.take() {
            match self.words.try_send(Word::Store(vote, record)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => self.waiting = Some((vote, record)),
                Err(TrySendError::Disconnected(_)) => panic!("the keeper's thread is gone"),
            }
        }
    }

    /// Has `note` written to the log of the process, or counts it where too many wait.
    pub(crate) fn note(&mut self, note: Note) {
        if self.words.try_send(Word::Note(note)).is_err() {
            self.unsaid.add(1);
        }
    }

    /// Whether the vote given last is durable by now; an error when the disk failed.
    pub(crate) fn poll(&mut self) -> Option<Result<(), String>> {
        self.pass_vote_on();
        if !self.answered.take() {
            return None;
        }
        self.stored.try_recv().ok()
    }

    /// Whether no answer waits here.
    pub(crate) fn is_idle(&self) -> bool {
        !self.answered.is_raised() && self.waiting.is_none()
    }
}

impl fmt::Debug for KeeperLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeeperLink").finish_non_exhaustive()
    }
}

/// Refused connections, which anybody on the network can bring about: told once a second at most.
#[derive(Default)]
struct Refusals {
    told: Option<Instant>,
    untold: u64,
}

impl Refusals {
    fn tell(&mut self, fault: &LinkFault) {
        let is_early = |told: Instant| told.elapsed() < Duration::from_secs(1);
        if self.told.is_some_and(is_early) {
            self.untold += 1;
            return;
        }
        let untold = std::mem::take(&mut self.untold);
        tracing::warn!(untold, "a mirror connection was refused: {fault}");
        self.told = Some(Instant::now());
    }
}

/// What happened, for whoever reads the log, and what there is to do.
fn tell(note: &Note) {
    match note {
        Note::PeerJoined(node) => tracing::info!(%node, "connected to a peer"),
        Note::PeerLost(node) => tracing::warn!(%node, "the connection to a peer ended"),
        Note::PeerRefused(fault) => Refusals::default().tell(fault),
        Note::Follows(record) => tracing::info!(
            epoch = %record.epoch,
            primary = %record.primary,
            members = record.members.len(),
            "this node follows"
        ),
        Note::Leads(record) if record.members.len() < 2 => tracing::warn!(
            epoch = %record.epoch,
            members = record.members.len(),
            min_copies = record.min_copies,
            "this node leads and is the only copy: bring the other nodes back"
        ),
        Note::Leads(record) => tracing::info!(
            epoch = %record.epoch,
            members = record.members.len(),
            min_copies = record.min_copies,
            "this node leads"
        ),
        Note::Mirrors(node, position) => {
            tracing::info!(%node, %position, "a peer's log is continued from here");
        }
        Note::Damaged(position) => tracing::error!(
            %position,
            "a block read for a peer is damaged: look at the journal with `relay verify`; the disk \
             may be failing"
        ),
        Note::Fetched(node, position) => tracing::warn!(
            %node,
            %position,
            "a peer's copy of the block here is damaged; it was given this node's: look at the peer's disk"
        ),
        Note::HandOverFailed => tracing::warn!(
            "the planned switch did not come about in time; this node goes on leading. See `relay \
             status` for how the other node does"
        ),
        Note::Withdrawn => tracing::warn!(
            "this node leads, but hears neither another copy nor the arbiter: another node may lead by now. Its clients were \
             sent away; look at the network"
        ),
        Note::ServesAgain => tracing::info!("this node serves clients again"),
        Note::AwaitsOperator(primary) => tracing::warn!(
            %primary,
            "no primary is heard, and nothing is taken over without an operator's word. Bring the node that led last \
             back; or see that it is off, and say `relay promote --dir DIR` on the node that is to lead"
        ),
        Note::NotInSet(primary) => tracing::warn!(
            %primary,
            "no primary is heard, and this copy may lack what was released since it was in sync: start the nodes that were \
             in sync last. Where none of them comes back, or under the policy \"mirrored\" all were restarted, give up \
             what is missing: `relay promote --accept-loss` with the number of the node whose log is of the newest epoch, and \
             of these the longest (`relay inspect`)"
        ),
        Note::EndsBelowFloor(end, floor) => tracing::error!(
            %end,
            %floor,
            "this node does not lead: its log ends before what is known to be released, so its disk is an old copy or was \
             cut. Bring a node back that holds everything; or, where there is none, give up what is missing: `relay promote \
             --accept-loss` with this node's number"
        ),
        Note::TailUnknown(position) => tracing::error!(
            %position,
            "this node does not lead: damage was cut from the end of its log when it started, and no other member of the set \
             has answered for what lay there. Bring one back with the disk it had; or, where there is none, give up what may be \
             missing: `relay promote --accept-loss` with this node's number"
        ),
        Note::TailUnanswered(position) => tracing::error!(
            %position,
            "this node is going to lead alone, without what was cut from the end of its log when it started: torn, as a loss of power \
             leaves it, or damaged. No other member is there to say whether it had been acknowledged; `min_copies = 1` lets \
             it go on. What was cut is kept beside the journal"
        ),
        Note::PromotionLapsed => tracing::error!(
            "the promotion was not carried out: the arbiter gave no certain answer in time. See `relay status`, and say it \
             again once the arbiter is reached"
        ),
        Note::PromotionRefused(loss) => tracing::error!(
            "the promotion was not carried out, since messages that were acknowledged could be lost: {loss}. Bring \
             another copy back, or accept the loss with `relay promote --accept-loss` and this node's number"
        ),
    }
}
