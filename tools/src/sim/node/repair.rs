//! A start that finds its journal damaged asks the peers for the block it lacks: the same steps and decisions as the
//! appliance's, over the simulated network.
//!
//! One peer after the other: handshake, question, answer. A block from anyone is written durably and the journal is read
//! again. Where nobody has it but somebody leads, the log is cut there, which is written down first. Otherwise the
//! process ends, and says where the damage is; somebody starts it again later.

use relay_journal::block::{self, HEADER_LENGTH};
use relay_journal::recovery::Finding;
use relay_journal::superblock::{self, Superblock};
use relay_wire::id::{Epoch, NodeId};
use relay_wire::peer::{self, Envelope, FetchOutcome, Hello, PeerMessage, Place, Standing, prove};
use relay_wire::proof::is_same;

use super::{Cutting, Node, Phase, write_superblock};
use crate::clock::{MILLISECOND, SECOND};
use crate::cluster::Event;
use crate::disk::{Completion, Zone};
use crate::history::Note;
use crate::network::{EndId, Owner, Port, Signal};
use crate::process::Surroundings;
use crate::random::mix;
use crate::swarm::{SECRET, STREAM};

/// A peer has this long to be reached and to answer.
const PEER_PATIENCE_NS: u64 = 2 * SECOND;

/// A start that nobody could help is tried again after so long.
const HELPLESS_NS: u64 = 200 * MILLISECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Asking,
    /// The block is being written in its place.
    Mending,
    /// What is cut is being written down.
    Marking,
    SyncingMark,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Repair {
    finding: Finding,
    superblock: Superblock,
    slot: usize,
    step: Step,
    /// The node that is being asked.
    peer: usize,
    end: Option<EndId>,
    inbox: Vec<u8>,
    ours: Vec<u8>,
    theirs: Vec<u8>,
    is_proven: bool,
    leads: Option<bool>,
    answer: Option<FetchOutcome>,
    /// Whether somebody leads and has no such block.
    is_led: bool,
}

impl Repair {
    const fn place(&self) -> Place {
        Place {
            position: self.finding.position,
            previous_checksum: self.finding.previous_checksum,
        }
    }

    fn envelope(&self) -> Envelope {
        Envelope {
            stream: STREAM,
            epoch: Epoch(0),
            incarnation: self.superblock.disk_incarnation,
        }
    }

    /// Where it stands, for a person.
    pub(super) fn describe(&self) -> String {
        format!(
            "repairs its log: {} ({:?}, asks {})",
            self.finding, self.step, self.peer
        )
    }
}

impl Node {
    /// Recovery found damage that a peer may mend.
    pub(super) fn begin_repair(&mut self, finding: Finding, around: &mut Surroundings<'_>) {
        let [a, b] = around.disk.superblocks();
        let (superblock, slot) = superblock::newest(&a, &b).expect("it was read just now");
        around.note(Note::Damaged {
            node: self.index,
            position: finding.position.get(),
        });
        *around.reported += 1;
        let first = usize::from(self.index == 0);
        self.phase = Phase::Repairing(Box::new(Repair {
            finding,
            superblock,
            slot,
            step: Step::Asking,
            peer: first,
            end: None,
            inbox: Vec::new(),
            ours: Vec::new(),
            theirs: Vec::new(),
            is_proven: false,
            leads: None,
            answer: None,
            is_led: false,
        }));
        self.ask_peer(around);
    }

    fn repair(&mut self) -> Option<&mut Repair> {
        match &mut self.phase {
            Phase::Repairing(repair) => Some(repair),
            _ => None,
        }
    }

    fn ask_peer(&mut self, around: &mut Surroundings<'_>) {
        let (node, process) = (self.index, self.processes);
        let Some(repair) = self.repair() else {
            return;
        };
        let owner = Owner::Node { node, process };
        let peer = repair.peer;
        let (network, queue) = (&mut *around.network, &mut *around.queue);
        repair.end = Some(network.connect(owner, node, peer, Port::Mirror, queue));
        repair.inbox.clear();
        repair.theirs.clear();
        repair.is_proven = false;
        repair.leads = None;
        repair.answer = None;
        let event = Event::RepairTimeout {
            node,
            process,
            peer,
        };
        around.queue.after(PEER_PATIENCE_NS, event);
    }

    /// The peer that is being asked has had its time.
    pub(crate) fn on_repair_timeout(&mut self, peer: usize, around: &mut Surroundings<'_>) {
        let is_it = |repair: &&mut Repair| repair.step == Step::Asking && repair.peer == peer;
        if self.repair().filter(is_it).is_some() {
            self.ask_next(around);
        }
    }

    /// The network has word about a connection of a start.
    pub(crate) fn on_signal(&mut self, end: EndId, signal: Signal, around: &mut Surroundings<'_>) {
        let Some(repair) = self.repair().filter(|repair| repair.end == Some(end)) else {
            return;
        };
        match signal {
            Signal::Connected => {
                let nonce =
                    core::array::from_fn(|at| mix(at as u64 ^ u64::from(end.number())) as u8);
                let hello = PeerMessage::Hello(Hello {
                    nonce,
                    node: repair.superblock.node,
                    process: mix(u64::from(end.number())).max(1),
                });
                repair.ours = encoded(&hello, &repair.envelope());
                around.network.write(end, &repair.ours, around.queue);
            }
            Signal::Readable => self.hear(end, around),
            Signal::Ended | Signal::Broken | Signal::Refused | Signal::Unanswered => {
                self.ask_next(around)
            }
            Signal::Writable | Signal::Incoming => {}
        }
    }

    fn hear(&mut self, end: EndId, around: &mut Surroundings<'_>) {
        let Some(repair) = self.repair() else {
            return;
        };
        let arrived = around.network.readable(end);
        let length = arrived.len();
        repair.inbox.extend_from_slice(arrived);
        around.network.consume(end, length, around.queue);
        let message_max = block::SPAN_MAX as usize + peer::BLOCK_OVERHEAD;
        while let Some(repair) = self.repair().filter(|repair| repair.step == Step::Asking)
            && let Ok(Some(length)) = peer::front(&repair.inbox, message_max)
        {
            let message: Vec<u8> = repair.inbox.drain(..length).collect();
            let Ok((theirs, decoded)) = PeerMessage::decode(&message) else {
                self.ask_next(around);
                return;
            };
            if !self.on_message(end, (&theirs, &message), &decoded, around) {
                return;
            }
        }
    }

    /// Handles a message of the peer; false where the conversation is over.
    fn on_message(
        &mut self,
        end: EndId,
        (theirs, bytes): (&Envelope, &[u8]),
        message: &PeerMessage<'_>,
        around: &mut Surroundings<'_>,
    ) -> bool {
        let Some(repair) = self.repair() else {
            return false;
        };
        let envelope = repair.envelope();
        let place = repair.place();
        match message {
            PeerMessage::Hello(hello) if hello.node == NodeId(repair.peer as u64 + 1) => {
                repair.theirs = bytes.to_vec();
                let proof = PeerMessage::Proof(prove(SECRET, true, &repair.ours, bytes));
                let proof = encoded(&proof, &envelope);
                around.network.write(end, &proof, around.queue);
            }
            PeerMessage::Proof(proof) => {
                let expected = prove(SECRET, false, &repair.ours, &repair.theirs);
                if !is_same(&expected, proof) {
                    self.ask_next(around);
                    return false;
                }
                repair.is_proven = true;
                let fetch = encoded(&PeerMessage::Fetch(place), &envelope);
                around.network.write(end, &fetch, around.queue);
            }
            PeerMessage::Progress(progress) => {
                let is_past = theirs.epoch < repair.superblock.committed;
                repair.leads = Some(progress.standing == Standing::Leading && !is_past);
            }
            PeerMessage::Fetched(about, outcome, block) if *about == place => {
                if *outcome == FetchOutcome::Here && self.mend(block, around) {
                    return false;
                }
                if let Some(repair) = self.repair() {
                    repair.answer = Some(*outcome);
                }
            }
            _ => {}
        }
        let is_answered = self
            .repair()
            .is_some_and(|repair| repair.answer.is_some() && repair.leads.is_some());
        if is_answered {
            self.ask_next(around);
        }
        !is_answered
    }

    /// Writes an intact block in its place; false where it is none.
    fn mend(&mut self, bytes: &[u8], around: &mut Surroundings<'_>) -> bool {
        let alignment = around.parameters.settings.block_alignment;
        let Some(repair) = self.repair() else {
            return false;
        };
        let position = repair.finding.position;
        let header = block::decode_header(bytes).ok().filter(|header| {
            let is_whole = header.position == position && header.body_end() == bytes.len();
            is_whole && block::verify_body(header, &bytes[HEADER_LENGTH..]).is_ok()
        });
        let Some(header) = header else {
            return false;
        };
        repair.step = Step::Mending;
        let mut padded = bytes.to_vec();
        padded.resize(header.written_length(alignment) as usize, 0);
        self.hang_up(around);
        around.note(Note::Mended {
            node: self.index,
            position: position.get(),
        });
        let now_ns = around.queue.now_ns();
        let disk = &mut *around.disk;
        let ticket = disk.begin_write(Zone::Log, position.get(), &padded, true, 0, now_ns);
        self.await_disk(ticket, around);
        true
    }

    fn hang_up(&mut self, around: &mut Surroundings<'_>) {
        if let Some(end) = self.repair().and_then(|repair| repair.end.take()) {
            around.network.close(end, around.queue);
        }
    }

    /// The conversation with a peer brought no block: the next one is asked, or decided from what was heard.
    fn ask_next(&mut self, around: &mut Surroundings<'_>) {
        self.hang_up(around);
        let (index, nodes) = (self.index, around.parameters.cast.nodes);
        let Some(repair) = self.repair() else {
            return;
        };
        // A leader's damaged copy was there once: no reason to cut the other one.
        repair.is_led |=
            repair.answer == Some(FetchOutcome::Otherwise) && repair.leads == Some(true);
        repair.peer += 1 + usize::from(repair.peer + 1 == index);
        if repair.peer < nodes {
            self.ask_peer(around);
            return;
        }
        if !repair.is_led {
            // Nobody can help now: the process ends and names the place, and whoever looks after it takes some time.
            around.note(Note::Halted { node: index });
            self.phase = Phase::Down;
            self.carry = None;
            self.stay_off(around.queue.now_ns() + HELPLESS_NS);
            self.restart_later(around);
            return;
        }
        repair.step = Step::Marking;
        let mut next = repair.superblock;
        next.generation += 1;
        next.unknown_tail.get_or_insert(repair.finding.position);
        next.clean = None;
        repair.superblock = next;
        repair.slot = 1 - repair.slot;
        let ticket = write_superblock(around, repair.slot, &next);
        self.await_disk(ticket, around);
    }

    /// An operation of the repair ended.
    pub(super) fn on_repair_step(&mut self, completion: Completion, around: &mut Surroundings<'_>) {
        if !completion.is_ok {
            self.give_up(around);
            return;
        }
        let Some(repair) = self.repair() else {
            return;
        };
        match repair.step {
            Step::Asking => {}
            Step::Mending => self.begin(around),
            Step::Marking => {
                repair.step = Step::SyncingMark;
                let now_ns = around.queue.now_ns();
                let ticket = around.disk.begin_sync(Zone::Superblock, 0, now_ns);
                self.await_disk(ticket, around);
            }
            Step::SyncingMark => {
                let position = repair.finding.position;
                let end = around.disk.written_end(position);
                self.begin_again(Some(Cutting { position, end }), around);
            }
        }
    }
}

fn encoded(message: &PeerMessage<'_>, envelope: &Envelope) -> Vec<u8> {
    let mut bytes = vec![0; message.length()];
    message
        .encode(envelope, &mut bytes)
        .expect("the buffer has the message's length");
    bytes
}
