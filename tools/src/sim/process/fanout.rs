//! The egress agent's part of a process: released log to subscribers, from the ring or from disk.

use relay_core::command::{ConnId, ReleasePoint};
use relay_core::fanout::{Fanout, FanoutEffect, Source};
use relay_wire::id::Position;

use super::sockets::Side;
use super::{Inbound, Process, Surroundings};
use crate::canary::Canary;
use crate::disk::Zone;

impl Process {
    pub(super) fn turn_fanout(&mut self, around: &mut Surroundings<'_>) -> usize {
        let mut work = 0;
        if around.canary == Some(Canary::ReadersPassReleased) {
            self.release = Some(ReleasePoint {
                position: self.machine.open_position(),
                next_seq: self.machine.next_seq(),
                checksum: 0,
            });
        }
        let Some(fanout) = &mut self.fanout else {
            return 0;
        };
        if let Some(point) = self.release.take() {
            work += 1;
            let view = self.memory.view(self.floor, point.position);
            fanout.on_released(point, &view);
            assert!(fanout.floor() >= self.floor, "the floor only rises");
            self.floor = fanout.floor();
            self.forwarded = point.position;
        }
        fanout.on_time(around.now.mono_ns);
        if fanout.has_work() {
            work += 1;
            let view = self.memory.view(self.floor, self.forwarded);
            let replay: [&[u8]; 4] =
                core::array::from_fn(|slot| self.replay.get(slot).map_or(&[][..], Vec::as_slice));
            let slots = self.replay.len();
            fanout.serve(&view, &replay[..slots], around.now.mono_ns);
        }
        work + self.drain_fanout(around)
    }

    fn drain_fanout(&mut self, around: &mut Surroundings<'_>) -> usize {
        let mut work = 0;
        while let Some(effect) = self.fanout.as_mut().and_then(Fanout::poll_effect) {
            if !self.burns_on() {
                return work;
            }
            work += 1;
            match effect {
                FanoutEffect::SendLog { conn, source } => self.send_log(conn, source, around),
                FanoutEffect::SendMessages(conn) => {
                    let Some(place) = self.place_of(Side::Fanout(conn)) else {
                        continue;
                    };
                    let end = self.socket(place).end;
                    let bytes = self.serving().outgoing(conn);
                    let sent = around.network.write(end, bytes, around.queue);
                    self.note_fanout_sent(conn, sent);
                }
                FanoutEffect::AwaitRoom(conn) => {
                    if let Some(place) = self.place_of(Side::Fanout(conn)) {
                        let end = self.socket(place).end;
                        around.network.await_room(end, around.queue);
                    }
                }
                FanoutEffect::Read {
                    slot,
                    position,
                    length,
                } => {
                    self.begin_read(slot, position, length, around);
                }
                FanoutEffect::Close(conn) => self.close_subscriber(conn, around),
                FanoutEffect::Damaged(position) => self.report_damage(position, around),
                FanoutEffect::Doubt => self.machine.on_doubt(around.now.mono_ns),
            }
        }
        work
    }

    /// The machine of a node that has subscribers.
    pub(super) fn serving(&mut self) -> &mut Fanout {
        self.fanout.as_mut().expect("it has subscribers")
    }

    fn send_log(&mut self, conn: ConnId, source: Source, around: &mut Surroundings<'_>) {
        let Some(place) = self.place_of(Side::Fanout(conn)) else {
            return;
        };
        self.scratch.clear();
        let fanout = self.fanout.as_ref().expect("it has subscribers");
        for piece in fanout.pieces(conn) {
            let end = piece.position.plus(piece.length.into());
            assert!(end <= self.forwarded, "nothing unreleased is sent");
            match source {
                Source::Ring => {
                    assert!(
                        piece.position >= self.floor,
                        "sends are from above the floor"
                    );
                    self.scratch
                        .extend_from_slice(self.memory.slice(piece.position, end));
                }
                Source::Replay { slot, start } => {
                    let at = piece.position.since(start) as usize;
                    let bytes = &self.replay[slot as usize][at..at + piece.length as usize];
                    self.scratch.extend_from_slice(bytes);
                }
            }
        }
        assert!(!self.scratch.is_empty(), "something is sent");
        let end = self.socket(place).end;
        let sent = around.network.write(end, &self.scratch, around.queue);
        self.note_fanout_sent(conn, sent);
    }

    /// The kernel took so much, or said that the connection is gone; the machine hears of it in the next round.
    fn note_fanout_sent(&mut self, conn: ConnId, sent: Option<usize>) {
        // A broken connection takes nothing; that it is broken comes as a signal of its own.
        let sent = sent.unwrap_or(0);
        self.inbound.push_back(Inbound::FanoutSent(conn, sent));
    }

    fn begin_read(
        &mut self,
        slot: u32,
        position: Position,
        length: u32,
        around: &mut Surroundings<'_>,
    ) {
        let settings = &self.settings;
        assert!(
            length > 0 && length <= settings.replay_slot_size,
            "a read fits its buffer"
        );
        let left = settings.segment_size - position.get() % settings.segment_size;
        assert!(u64::from(length) <= left, "a read lies in one segment");
        assert!(
            position.plus(length.into()) <= self.forwarded,
            "only released log is read"
        );
        let read = &mut self.reads[slot as usize];
        assert!(read.is_none(), "one read a buffer");
        *read = Some((position, length));
        let now_ns = around.queue.now_ns();
        let ticket = around.disk.begin_read(slot.into(), now_ns);
        self.await_disk(ticket, around);
    }

    pub(super) fn on_read(&mut self, slot: u32, is_ok: bool, around: &mut Surroundings<'_>) {
        let read = self.reads[slot as usize].take();
        let (position, length) = read.expect("a read ends that was begun");
        let buffer = &mut self.replay[slot as usize][..length as usize];
        around.disk.read(Zone::Log, position.get(), buffer);
        let length = is_ok.then_some(length);
        self.serving().on_read(slot, length, around.now.mono_ns);
    }

    /// A subscriber's connection is over, whoever wanted it so.
    pub(super) fn close_subscriber(&mut self, conn: ConnId, around: &mut Surroundings<'_>) {
        let Some(place) = self.place_of(Side::Fanout(conn)) else {
            return;
        };
        self.serving().on_closed(conn);
        let socket = self.sockets[place as usize].take().expect("found just now");
        around.network.close(socket.end, around.queue);
        self.free.push(place);
    }
}
