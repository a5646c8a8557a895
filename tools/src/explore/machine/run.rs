//! One input to a running node, and its turns until it rests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use relay_core::arbiter::{ArbiterAnswer, ArbiterReply};
use relay_core::command::{ConnId, Now, PublisherLogon, ToIngress, ToSequence};
use relay_core::links::{LinkEffect, LinkId};
use relay_core::log::{LogView, LogWindow};
use relay_core::node::{Node, NodeEffect, Note};
use relay_wire::code::RecordKind;
use relay_wire::id::{Incarnation, Position, PublisherId, PublisherSeq};
use relay_wire::message::{self, TopicRequest};
use relay_wire::peer::{self, PeerMessage};
use relay_wire::record::{self, Fields};

use super::{Halt, Input, Machine, Message, Output, Session, Write};
use crate::bounds::{Bounds, CLOCK_START_NS, MEMORY, PAGE, REDIAL_NS};
use crate::log::{Log, Page, page_of, wipe_memory, with_memory};

/// Bytes of a message's payload: enough that its block is longer than a sector.
const PAYLOAD: usize = 400;
/// Pages one step appends at most.
const APPENDED_MAX: usize = 16;
/// Pages of the longest block.
const BLOCK_PAGES_MAX: usize = 2;
/// A node that is not at rest after so many turns never will be.
const TURNS_MAX: usize = 64;
const CONN: u32 = 0;

/// What becomes of `machine` by `input`, and what others notice. An assertion that fails is noticed too.
pub(crate) fn react(bounds: &Bounds, machine: &Machine, input: &Input) -> (Machine, Vec<Output>) {
    let done = catch_unwind(AssertUnwindSafe(|| react_or_panic(bounds, machine, input)));
    done.unwrap_or_else(|payload| {
        wipe_memory();
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let text = format!("it panics: {}", text.unwrap_or_default());
        (machine.clone(), vec![Output::Wrong(text)])
    })
}

fn react_or_panic(bounds: &Bounds, machine: &Machine, input: &Input) -> (Machine, Vec<Output>) {
    let mut machine = machine.clone();
    let mut outputs = Vec::new();
    match input {
        Input::Crash(loss) => machine.crash(*loss),
        Input::Rot(rot) => machine.rot(*rot),
        Input::Blank => machine.replace_disk(&mut outputs),
        Input::Start => machine.start(bounds, None, &mut outputs),
        Input::Rebuild => machine.rebuild(bounds, &mut outputs),
        _ => {}
    }
    let Some(node) = &machine.node else {
        return (machine, outputs);
    };
    let open = node.open_position();
    let log = std::mem::take(&mut machine.log);
    with_memory(&log, |memory| {
        let mut run = Run {
            bounds,
            machine,
            memory,
            outputs,
        };
        run.give(input);
        run.settle();
        run.machine.log = run.log_since(&log, open);
        run.check();
        let used = (log.len() + APPENDED_MAX) * PAGE;
        ((run.machine, run.outputs), used)
    })
}

/// A machine in the middle of a step.
struct Run<'a> {
    bounds: &'a Bounds,
    machine: Machine,
    memory: &'a mut [u8],
    outputs: Vec<Output>,
}

impl Machine {
    /// Its two clocks. The calendar decides nothing, it is only written down: it stands still, so that states don't differ in
    /// when a block was sealed.
    pub(super) const fn now(&self) -> Now {
        Now {
            utc_ns: CLOCK_START_NS,
            mono_ns: self.clock_ns,
        }
    }
}

impl Run<'_> {
    fn give(&mut self, input: &Input) {
        let now = self.machine.now();
        match input {
            Input::Hear(peer, message) => self.hear(*peer, message),
            Input::Lost(peer) => {
                if let Some(link) = self.machine.links[usize::from(*peer)].take() {
                    self.node().on_link_closed(link, now);
                }
            }
            Input::Opened(peer, is_dialer) => self.open(*peer, *is_dialer),
            Input::Pass(ns) => self.machine.clock_ns += ns,
            Input::Written(place) => {
                let write = self.machine.writes.remove(usize::from(*place));
                self.machine.disk.put(write.position, &write.pages);
                self.node().on_written(write.number);
            }
            Input::VoteStored => {
                let vote = self.machine.vote.take().expect("a vote is under way");
                self.machine.store(vote);
                self.node().on_vote_stored();
            }
            Input::Answer(answer) => self.answer(*answer),
            Input::Logon => self.log_on(),
            Input::Publish => self.publish(),
            Input::HandOver => {
                // Where it is refused nothing changes.
                let said = self.node().hand_over(None, now);
                self.machine.is_handing_over |= said.is_ok();
            }
            Input::Crash(_) | Input::Start | Input::Rebuild | Input::Rot(_) | Input::Blank => {}
        }
    }

    fn node(&mut self) -> &mut Node {
        self.machine.node.as_mut().expect("a node runs here")
    }

    fn wrong(&mut self, text: impl Into<String>) {
        self.outputs.push(Output::Wrong(text.into()));
    }

    fn with_window<R>(&mut self, with: impl FnOnce(&mut Node, &mut LogWindow<'_>, Now) -> R) -> R {
        let now = self.machine.now();
        let ring = self.bounds.settings(0).ring_size;
        let floor = self.machine.floor;
        let node = self.machine.node.as_mut().expect("a node runs here");
        let start = node.open_position().get() as usize;
        let end = node.forgettable(floor).plus(ring).get() as usize;
        let bytes = &mut self.memory[start..end.min(MEMORY)];
        let mut window = LogWindow::new(Position(start as u64), bytes);
        with(node, &mut window, now)
    }

    fn hear(&mut self, peer: u8, message: &Message) {
        let Some(link) = self.machine.links[usize::from(peer)] else {
            return self.wrong("a message comes over a connection that is closed");
        };
        let bytes = &message.bytes;
        let heard = self.with_window(|node, log, now| node.on_link_bytes(link, bytes, now, log));
        if heard.consumed != bytes.len() {
            self.wrong("it does not take a message");
        }
    }

    fn open(&mut self, peer: u8, is_dialer: bool) {
        let place = usize::from(peer);
        if is_dialer && !self.machine.dials[place] {
            self.machine.clock_ns += REDIAL_NS;
            self.settle();
        }
        if is_dialer && !std::mem::take(&mut self.machine.dials[place]) {
            return self.wrong("it does not dial again");
        }
        let now = self.machine.now();
        let nonce = [self.machine.at; 32];
        let link = self
            .node()
            .on_link_opened(is_dialer.then_some(peer.into()), nonce, now);
        if link.is_none() {
            return self.wrong("it refuses a connection");
        }
        self.machine.stale[place] = self.machine.links[place];
        self.machine.links[place] = link;
    }

    fn answer(&mut self, answer: ArbiterAnswer) {
        let now = self.machine.now();
        let request = self.machine.ask.take().expect("something was asked");
        let reply = ArbiterReply {
            id: request.id,
            answer,
        };
        self.node().on_arbiter(&reply, now);
    }

    /// Turns until nothing is left to be done.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if self.machine.node.is_none() {
                return;
            }
            self.with_window(|node, log, now| node.turn(now, log));
            let now = self.machine.now();
            let node = self.machine.node.as_mut().expect("looked at just now");
            let end = node.open_position();
            let start = node.ring_start().min(end);
            let ring = &self.memory[start.get() as usize..end.get() as usize];
            node.pump(now, &LogView::new(start, ring));
            if !self.drain() {
                return;
            }
        }
        self.wrong("it never comes to rest");
    }

    /// Carries out what the node wants done; whether there was anything.
    fn drain(&mut self) -> bool {
        let mut is_any = false;
        while let Some(effect) = self
            .machine
            .node
            .as_mut()
            .and_then(|node| node.poll_effect())
        {
            is_any = true;
            self.carry_out(effect);
        }
        is_any
    }

    fn carry_out(&mut self, effect: NodeEffect) {
        match effect {
            NodeEffect::Write {
                number,
                position,
                length,
            } => {
                let from = position.get() as usize;
                let bytes = &self.memory[from..from + length as usize];
                self.machine.writes.push(Write {
                    number,
                    position,
                    pages: bytes.chunks_exact(PAGE).map(Page::of).collect(),
                });
            }
            NodeEffect::Sync => self.wrong("it asks for a sync where writes are durable"),
            NodeEffect::Reply(reply) => self.on_reply(reply),
            NodeEffect::Released(point) => self.on_released(point.position),
            NodeEffect::Link(effect) => self.on_link(effect),
            NodeEffect::Ask(request) => {
                if self.machine.ask.replace(request).is_some() {
                    self.wrong("it asks the arbiter two things at once");
                }
            }
            NodeEffect::StoreVote(vote, _) => {
                if self.machine.vote.replace(vote).is_some() {
                    self.wrong("it stores two votes at once");
                }
            }
            NodeEffect::ReadLog {
                peer,
                purpose,
                position,
                length,
            } => {
                let pages = self.machine.disk.pages().iter().skip(page_of(position));
                let pages = pages.take(length as usize / PAGE);
                let bytes: Vec<u8> = pages.flat_map(|page| *page.bytes()).collect();
                let now = self.machine.now();
                self.node()
                    .on_log_read(peer, purpose, position, &bytes, now);
            }
            NodeEffect::Lead(tables, _) => {
                self.machine.floor = tables.position;
                self.outputs.push(Output::Leads);
            }
            NodeEffect::Restart(reason, carry) => self.machine.restart = Some((reason, carry)),
            NodeEffect::Halt(reason) => {
                self.machine.forget();
                self.machine.halt = Some(Halt::Reason(reason));
                self.outputs.push(Output::Halted(reason));
            }
            NodeEffect::Note(Note::PeerRefused(fault)) => self.wrong(fault.to_string()),
            NodeEffect::Note(Note::HandOverFailed) => {
                self.machine.is_handing_over = false;
                self.log_on();
            }
            NodeEffect::Note(_)
            | NodeEffect::Stopped(_)
            | NodeEffect::Withdraw
            | NodeEffect::ServeAgain
            | NodeEffect::Assured { .. }
            | NodeEffect::Fetched(_) => {}
        }
    }

    fn on_released(&mut self, end: Position) {
        self.machine.floor = end;
        let status = self.node().status();
        self.outputs.push(Output::Released {
            end,
            epoch: status.epoch,
            copies: status.membership.map_or(0, |record| record.min_copies),
        });
    }

    fn on_link(&mut self, effect: LinkEffect) {
        match effect {
            LinkEffect::Dial(peer) => self.machine.dials[peer as usize] = true,
            // Without an answer it is as if the peer's host were gone too; here suspicion waits for neither.
            LinkEffect::Knock(_) => {}
            LinkEffect::Send(link) => {
                let bytes = self.node().link_outgoing(link).to_vec();
                self.node().on_link_sent(link, bytes.len());
                if let Some(peer) = self.peer_of(link) {
                    self.say(peer, &bytes);
                }
            }
            LinkEffect::Close(link) => {
                if let Some(peer) = self.peer_of(link) {
                    self.machine.links[peer] = None;
                    self.outputs.push(Output::Closed(peer as u8));
                }
                for stale in &mut self.machine.stale {
                    *stale = stale.filter(|stale| *stale != link);
                }
            }
        }
    }

    fn peer_of(&self, link: LinkId) -> Option<usize> {
        self.machine
            .links
            .iter()
            .position(|held| *held == Some(link))
    }

    /// One output for each of the messages in `bytes`.
    fn say(&mut self, peer: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(Some(length)) = peer::front(rest, rest.len()) else {
                return self.wrong("it sends something that is no message");
            };
            let message = Message::new(&rest[..length]);
            self.outputs.push(Output::Said(peer as u8, message));
            rest = &rest[length..];
        }
    }

    fn on_reply(&mut self, reply: ToIngress) {
        let own = self.conn();
        match reply {
            ToIngress::Serve { .. } => {
                self.machine.is_serving = true;
                self.outputs.push(Output::Serves);
                self.log_on();
            }
            ToIngress::Withdraw => {
                self.machine.is_serving = false;
                let generation = own.generation + 1;
                self.command(ToSequence::Closed { conn: own }, &[]);
                self.machine.session = Session {
                    generation,
                    ..Session::default()
                };
            }
            ToIngress::Established {
                conn,
                next_expected,
                released_through,
            } if conn == own => {
                self.machine.session.is_established = true;
                self.machine.session.sent = next_expected.get() - 1;
                let epoch = self.machine.reign().unwrap_or_default();
                self.outputs.push(Output::Established {
                    epoch,
                    next: next_expected.get(),
                    released: released_through.get(),
                });
            }
            ToIngress::Topic { conn, topic, .. } if conn == own => {
                self.machine.session.topic = Some(topic);
            }
            ToIngress::Ack { publisher_seq, .. } => {
                self.outputs.push(Output::Acknowledged(publisher_seq.get()));
            }
            ToIngress::Reject { code, .. } => self.wrong(format!("it refuses a message: {code:?}")),
            ToIngress::Terminate { code, .. } => {
                self.wrong(format!("it ends a publisher's connection: {code:?}"));
            }
            _ => {}
        }
    }

    const fn conn(&self) -> ConnId {
        ConnId {
            index: CONN,
            generation: self.machine.session.generation,
        }
    }

    fn command(&mut self, command: ToSequence, bytes: &[u8]) -> bool {
        self.with_window(|node, log, now| node.on_command(command, bytes, now, log).is_done)
    }

    /// The publisher logs on and asks for its topic, as far as the node takes that.
    fn log_on(&mut self) {
        if !self.machine.is_serving {
            return;
        }
        let conn = self.conn();
        let logon = ToSequence::Logon(PublisherLogon {
            conn,
            publisher: PublisherId(1),
            incarnation: Incarnation(1),
            credential: 0,
            accepted: 0,
        });
        if !self.machine.session.is_logon_taken {
            self.machine.session.is_logon_taken = self.command(logon, &[]);
        }
        let session = self.machine.session;
        if session.is_logon_taken && !session.is_request_taken {
            let request = message::Message::TopicRequest(TopicRequest {
                request: 1,
                name: b"a",
            });
            let mut bytes = [0; 64];
            let length = request.encode(&mut bytes).expect("it fits");
            let ask = ToSequence::TopicRequest {
                conn,
                offset: 0,
                length: length as u32,
            };
            self.machine.session.is_request_taken = self.command(ask, &bytes[..length]);
        }
        // What comes while a switch is under way waits: it is for the next primary, or for this one where nothing comes of it.
        if !self.machine.session.is_request_taken && !self.machine.is_handing_over {
            self.wrong("there is no room for a publisher");
        }
    }

    /// The message with a publisher sequence is the same whenever and to whomever it is sent.
    fn publish(&mut self) {
        let sequence = self.machine.session.sent + 1;
        let fields = Fields {
            topic: self.machine.session.topic.unwrap_or_default(),
            publisher: PublisherId(1),
            incarnation: Incarnation(1),
            publisher_seq: PublisherSeq(sequence),
            ..Fields::default()
        };
        let payload = [sequence as u8; PAYLOAD];
        let mut bytes = [0; 2 * PAYLOAD];
        let length = record::encode(&mut bytes, RecordKind::Data, &fields, &[], &payload);
        let length = length.expect("it fits");
        let records = ToSequence::Records {
            conn: self.conn(),
            offset: 0,
            length: length as u32,
            receive_time_ns: CLOCK_START_NS,
        };
        if self.command(records, &bytes[..length]) {
            self.machine.session.sent = sequence;
        }
    }

    /// The log as it lies in memory now; before `open` nothing changes any more.
    fn log_since(&self, before: &Log, open: Position) -> Log {
        let mut log = before.clone();
        let Some(node) = self.machine.node.as_ref().filter(|_| self.machine.is_up()) else {
            return Log::default();
        };
        let end = page_of(node.open_position());
        assert!(
            end + BLOCK_PAGES_MAX <= before.len() + APPENDED_MAX,
            "a step appends a few blocks"
        );
        log.keep(page_of(open));
        for at in page_of(open)..end + BLOCK_PAGES_MAX {
            let page = Page::of(&self.memory[at * PAGE..(at + 1) * PAGE]);
            if at >= end && page.is_zero() {
                break;
            }
            log.push(page);
        }
        log
    }

    /// What must hold of a machine by itself.
    fn check(&mut self) {
        if !self.machine.is_up() {
            return;
        }
        let status = self.node().status();
        let (appended, durable) = (
            status.appended.point.position,
            status.durable.point.position,
        );
        let released = status.released.point.position;
        if released > durable || durable > appended {
            self.wrong(format!(
                "released {released}, durable {durable}, appended {appended}"
            ));
        }
        for at in 0..self.outputs.len() {
            let Output::Said(_, message) = &self.outputs[at] else {
                continue;
            };
            let Ok((_, PeerMessage::Progress(progress))) = PeerMessage::decode(&message.bytes)
            else {
                continue;
            };
            let log = self.machine.log.front(progress.durable);
            let is_whole = log.len() == page_of(progress.durable);
            if !is_whole || !self.machine.disk.starts_with(log) {
                self.wrong(format!(
                    "it acknowledges {}, which its disk does not hold",
                    progress.durable
                ));
            }
        }
    }
}
