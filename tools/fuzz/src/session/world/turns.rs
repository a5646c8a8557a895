//! What one turn of the world's thread does: completions, the machines in their order, and then the kernel.

use super::*;

impl World {
    /// One turn of the one thread: completions, sequencer, fan-out, ingress, and then the kernel.
    pub(in crate::session) fn turn(&mut self) {
        self.complete_sends();
        self.turn_sequence();
        self.turn_fanout();
        self.turn_ingress();
        self.carry_out_sends();
    }

    pub(super) fn complete_sends(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let (side, now_ns) = (client.side, self.now.mono_ns);
            match (client.sending.clone(), side) {
                (Sending::Taken(length), Side::Ingress(conn)) => {
                    // A full socket is waited for here; a publisher's machine hears when there is room.
                    client.sending = if length == 0 {
                        Sending::AwaitsRoom
                    } else {
                        Sending::Nothing
                    };
                    if length > 0 {
                        self.ingress.on_sent(conn, length, now_ns);
                    }
                    self.drain_ingress();
                }
                (Sending::Taken(length), Side::Fanout(conn)) => {
                    client.sending = Sending::Nothing;
                    self.fanout.on_sent(conn, length, now_ns);
                }
                _ => {}
            }
            let client = &mut self.clients[at];
            if client.sending == Sending::AwaitsRoom && client.room > 0 {
                client.sending = Sending::Nothing;
                match client.side {
                    Side::Ingress(conn) => {
                        self.ingress.on_sent(conn, 0, now_ns);
                        self.drain_ingress();
                    }
                    Side::Fanout(conn) => self.fanout.on_writable(conn),
                    Side::Gone => {}
                }
            }
        }
    }

    pub(super) fn turn_sequence(&mut self) {
        if self.has_failed {
            self.commands.clear();
            return;
        }
        self.sequence.on_prepared(self.prepared);
        let start = self.sequence.open_position();
        let end = self.floor.plus(RING).get().min(DISK as u64) as usize;
        let mut window = LogWindow::new(start, &mut self.memory[start.get() as usize..end]);
        let mut is_stalled = false;
        while let Some(command) = self.commands.front().copied() {
            let named = match command {
                ToSequence::Records {
                    conn,
                    offset,
                    length,
                    ..
                }
                | ToSequence::TopicRequest {
                    conn,
                    offset,
                    length,
                } => Some((conn, offset, length)),
                _ => None,
            };
            let bytes = named.map_or(&[][..], |(conn, offset, length)| {
                let named = self
                    .clients
                    .iter()
                    .rfind(|client| client.ingress_conn == conn);
                let buffer = &named
                    .expect("a command names a connection there was")
                    .buffer;
                &buffer[offset as usize + self.taken..(offset + length) as usize]
            });
            let progress = self
                .sequence
                .on_command(command, bytes, self.now, &mut window);
            assert!(progress.taken <= bytes.len());
            if !progress.is_done {
                self.taken += progress.taken;
                is_stalled = true;
                break;
            }
            self.taken = 0;
            self.commands.pop_front();
        }
        self.sequence.seal_if_due(self.now, &mut window);
        self.sequence.note_held(is_stalled, self.now, &window);
        self.drain_sequence();
    }

    pub(super) fn drain_sequence(&mut self) {
        while let Some(effect) = self.sequence.poll_effect() {
            match effect {
                SequenceEffect::Write {
                    number,
                    position,
                    length,
                } => {
                    let at = position.get() as usize;
                    let end = position.plus(length.into());
                    assert!(end <= self.prepared, "only prepared space is written");
                    let in_flight = end.since(self.sequence.durable().position);
                    assert!(
                        in_flight <= self.settings.in_flight_bytes_max(),
                        "W is kept"
                    );
                    let bytes = self.memory[at..at + length as usize].to_vec();
                    self.writes.push(Write { number, at, bytes });
                    assert!(self.writes.len() <= self.settings.write_depth as usize);
                }
                SequenceEffect::Sync => {
                    assert!(self.syncing.is_none(), "one sync at a time");
                    self.syncing = Some(std::mem::take(&mut self.unsynced));
                }
                SequenceEffect::Reply(reply) => self.replies.push_back(reply),
                SequenceEffect::Released(point) => self.on_released(point),
                SequenceEffect::Stopped(stop) => {
                    assert_eq!(
                        stop.tail, self.truth.tables.position,
                        "all is released by then"
                    );
                    assert_eq!(stop.checksum, self.truth.tables.previous_checksum);
                    assert_eq!(stop.next_seq, self.truth.next_seq());
                    self.stopped = Some(stop);
                    self.superblock.clean = Some(stop);
                }
            }
        }
    }

    pub(super) fn on_released(&mut self, point: ReleasePoint) {
        assert!(
            point.position <= self.sequence.durable().position,
            "released <= durable"
        );
        let unsynced = self.unsynced.iter().chain(self.syncing.iter().flatten());
        let first = self
            .writes
            .iter()
            .chain(unsynced)
            .map(|write| write.at)
            .min();
        let first = first.unwrap_or(usize::MAX);
        assert!(
            point.position.get() as usize <= first,
            "released is on stable storage"
        );
        self.truth.on_released(&self.disk, point.position);
        assert_eq!(point.next_seq, self.truth.next_seq());
        assert_eq!(point.checksum, self.truth.checksum_before(point.next_seq));
        self.release = Some(point);
    }

    pub(super) fn turn_fanout(&mut self) {
        let released = self.release.take();
        if let Some(point) = released {
            let view = self
                .memory
                .get(self.floor.get() as usize..point.position.get() as usize);
            let view = LogView::new(self.floor, view.expect("the floor follows the release"));
            self.fanout.on_released(point, &view);
            self.forwarded = point.position;
            assert!(self.fanout.floor() >= self.floor, "the floor only rises");
            assert!(self.fanout.floor() <= self.forwarded);
            self.floor = self.fanout.floor();
        }
        self.fanout.on_time(self.now.mono_ns);
        if self.fanout.has_work() {
            let view = &self.memory[self.floor.get() as usize..self.forwarded.get() as usize];
            let replay: Vec<&[u8]> = self.replay.iter().map(Vec::as_slice).collect();
            self.fanout
                .serve(&LogView::new(self.floor, view), &replay, self.now.mono_ns);
            assert_eq!(
                self.fanout.floor(),
                self.floor,
                "the floor moves with a release"
            );
        }
        self.drain_fanout();
    }

    pub(super) fn subscriber(&mut self, conn: ConnId) -> Option<&mut Client> {
        self.clients
            .iter_mut()
            .find(|client| client.side == Side::Fanout(conn))
    }

    pub(super) fn drain_fanout(&mut self) {
        while let Some(effect) = self.fanout.poll_effect() {
            match effect {
                FanoutEffect::SendLog { conn, source } => {
                    let mut bytes = Vec::new();
                    for piece in self.fanout.pieces(conn) {
                        let (at, length) = (piece.position.get() as usize, piece.length as usize);
                        let end = piece.position.plus(piece.length.into());
                        assert!(end <= self.forwarded, "nothing unreleased is sent");
                        match source {
                            Source::Ring => {
                                assert!(piece.position >= self.floor, "sent from above the floor");
                                bytes.extend_from_slice(&self.memory[at..at + length]);
                            }
                            Source::Replay { slot, start } => {
                                let at = at - start.get() as usize;
                                let buffer = &self.replay[slot as usize];
                                bytes.extend_from_slice(&buffer[at..at + length]);
                            }
                        }
                    }
                    self.begin_fanout_send(conn, bytes);
                }
                FanoutEffect::SendMessages(conn) => {
                    let bytes = self.fanout.outgoing(conn).to_vec();
                    self.begin_fanout_send(conn, bytes);
                }
                FanoutEffect::AwaitRoom(conn) => {
                    if let Some(client) = self.subscriber(conn) {
                        assert_eq!(client.sending, Sending::Nothing);
                        client.sending = Sending::AwaitsRoom;
                    }
                }
                FanoutEffect::Read {
                    slot,
                    position,
                    length,
                } => {
                    assert!(length > 0 && length <= self.settings.replay_slot_size);
                    assert!(position.get().is_multiple_of(ALIGNMENT.into()));
                    let left = SEGMENT - position.get() % SEGMENT;
                    assert!(u64::from(length) <= left, "a read lies in one segment");
                    assert!(position.plus(length.into()) <= self.forwarded);
                    assert!(
                        self.reads.iter().all(|read| read.slot != slot),
                        "one read a buffer"
                    );
                    let (at, length) = (position.get() as usize, length as usize);
                    self.reads.push(Read { slot, at, length });
                }
                FanoutEffect::Close(conn) => self.close_fanout(conn),
                FanoutEffect::Damaged(_) | FanoutEffect::Doubt => {}
            }
        }
    }

    pub(super) fn close_fanout(&mut self, conn: ConnId) {
        if let Some(client) = self.subscriber(conn) {
            client.side = Side::Gone;
            self.fanout.on_closed(conn);
        }
    }

    pub(super) fn begin_fanout_send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        // One that was closed in this very turn has nothing to send to.
        if let Some(client) = self.subscriber(conn) {
            assert!(!bytes.is_empty(), "something is sent");
            assert_eq!(client.sending, Sending::Nothing, "one send at a time");
            client.sending = Sending::Begun(bytes);
        }
    }

    pub(super) fn turn_ingress(&mut self) {
        while let Some(reply) = self.replies.pop_front() {
            self.ingress.on_reply(reply, self.now.mono_ns);
            self.drain_ingress();
        }
        self.ingress.on_time(self.now.mono_ns);
        self.drain_ingress();
    }

    pub(super) fn publisher(&mut self, conn: ConnId) -> Option<usize> {
        self.clients
            .iter()
            .position(|client| client.side == Side::Ingress(conn))
    }

    pub(super) fn drain_ingress(&mut self) {
        while let Some(effect) = self.ingress.poll_effect() {
            match effect {
                IngressEffect::Send(conn) => {
                    // The bytes are looked at when the kernel is entered: more may be added until then.
                    if let Some(at) = self.publisher(conn) {
                        assert_eq!(self.clients[at].sending, Sending::Nothing);
                        self.clients[at].sending = Sending::Begun(Vec::new());
                    }
                }
                IngressEffect::Close(conn) => {
                    if let Some(at) = self.publisher(conn) {
                        self.clients[at].side = Side::Gone;
                    }
                }
                IngressEffect::WidenReceive(conn) => {
                    if let Some(at) = self.publisher(conn) {
                        self.parse(at);
                    }
                }
                IngressEffect::HandOver { conn, credential } => {
                    if let Some(at) = self.publisher(conn) {
                        self.hand_over(at, credential);
                    }
                }
            }
        }
        while let Some(command) = self.ingress.poll_command() {
            self.commands.push_back(command);
        }
    }

    pub(super) fn hand_over(&mut self, at: usize, credential: u32) {
        let Some(conn) = self.fanout.on_subscriber(credential, self.now.mono_ns) else {
            self.clients[at].side = Side::Gone;
            return;
        };
        let client = &mut self.clients[at];
        assert_eq!(
            client.sending,
            Sending::Nothing,
            "the answer to the logon was taken"
        );
        client.side = Side::Fanout(conn);
        self.parse(at);
    }

    /// Gives the machine what the connection received.
    pub(super) fn parse(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let bytes = &client.buffer[client.parsed..];
        match client.side {
            Side::Ingress(conn) => {
                let offset = client.parsed as u32;
                let Now { utc_ns, mono_ns } = self.now;
                let parsed = self.ingress.on_bytes(conn, bytes, offset, utc_ns, mono_ns);
                assert!(parsed.consumed <= bytes.len());
                client.parsed += parsed.consumed;
                client.is_open = parsed.is_open;
            }
            Side::Fanout(conn) => {
                let consumed = self.fanout.on_bytes(conn, bytes, self.now.mono_ns);
                assert!(consumed <= bytes.len());
                client.parsed += consumed;
            }
            Side::Gone => {}
        }
    }

    /// The kernel takes as many bytes of each send as the client's socket has room for.
    pub(super) fn carry_out_sends(&mut self) {
        for client in &mut self.clients {
            let Sending::Begun(bytes) = &client.sending else {
                continue;
            };
            let bytes = match client.side {
                Side::Ingress(conn) => self.ingress.outgoing(conn),
                Side::Fanout(_) => &bytes[..],
                // Closed in the turn that began it: the bytes of a socket that is shut go nowhere.
                Side::Gone => &[],
            };
            let length = bytes.len().min(client.room);
            client.room -= length;
            let taken = bytes[..length].to_vec();
            client.sending = Sending::Taken(length);
            client.on_received(&taken, &self.truth);
        }
    }
}
