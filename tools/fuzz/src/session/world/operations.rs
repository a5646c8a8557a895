//! What the fuzzer's bytes can make happen: clients act, the disk completes, fails or is cut, time passes.

use super::*;

impl World {
    pub(in crate::session) fn operate(&mut self, operation: u8, input: &mut Input<'_>) {
        let at = usize::from(operation & 3) + if operation > 27 { 4 } else { 0 };
        match operation {
            0 => self.connect(input),
            1 => self.complete_write(input.byte().into()),
            2 => self.complete_sync(),
            3 => self.complete_read(input),
            4 => self.pass_time(input.byte()),
            5 => {
                let more = self.prepared.get() + SEGMENT * u64::from(input.byte() & 1);
                self.prepared = Position(more.min(DISK as u64));
            }
            6 => self.finish_storage(),
            7 => match input.byte() {
                0..8 => self.fail(),
                8..40 => self.crash(input),
                40..60 if !self.is_stopping => {
                    self.is_stopping = true;
                    self.sequence.stop();
                }
                60..70 => {
                    self.ingress.stop(TerminateCode::Stopping, self.now.mono_ns);
                    self.fanout.stop(TerminateCode::Stopping, self.now.mono_ns);
                    self.drain_ingress();
                }
                _ => self.finish_storage(),
            },
            8 => {
                // A publisher that is there from the challenge to its first topic, as most of the time.
                self.connect(input);
                self.turn();
                self.act(self.clients.len().saturating_sub(1), 0, input);
                self.settle();
            }
            _ => self.act_of(at, input),
        }
    }

    /// An action of one of the newest clients.
    pub(super) fn act_of(&mut self, back: usize, input: &mut Input<'_>) {
        let Some(at) = self.clients.len().checked_sub(back + 1) else {
            return;
        };
        let action = input.byte();
        self.act(at, action, input);
    }

    pub(super) fn act(&mut self, at: usize, action: u8, input: &mut Input<'_>) {
        if self.clients.len() <= at {
            return;
        }
        match action & 15 {
            0 => {
                let choice = input.byte();
                let role = if choice & 4 == 0 {
                    Role::Publisher
                } else {
                    Role::Subscriber
                };
                let incarnation = u64::from(choice >> 4);
                self.clients[at].log_on(usize::from(choice & 3), role, incarnation);
            }
            1 | 2 => self.publish(at, input),
            3 => {
                let request = u32::from(input.byte());
                let name = NAMES[usize::from(input.byte()) % NAMES.len()];
                if request != 0 {
                    self.clients[at].ask_topic(request, name);
                }
            }
            4 => self.subscribe(at, input),
            5 => {
                let beat = Heartbeat {
                    next_seq: Seq(0),
                    epoch: Epoch(0),
                    checksum: 0,
                    held: relay_wire::code::Held::No,
                };
                self.clients[at].say(&Message::Heartbeat(beat));
            }
            6 => {
                let text = "";
                let leave = Terminate {
                    code: TerminateCode::Logout,
                    detail: 0,
                    text,
                };
                self.clients[at].say(&Message::Terminate(leave));
            }
            7 => {
                let length = usize::from(input.byte());
                let bytes = input.take(length);
                self.clients[at].outbox.extend_from_slice(bytes);
            }
            8 => self.damage(at, input),
            9 => self.clients[at].room += usize::from(input.word()),
            10 => self.clients[at].room += 1 << 24,
            11 => self.close(at),
            12 => {
                // Only a part arrives for now.
                let part = usize::from(input.byte()).min(self.clients[at].outbox.len());
                self.deliver(at, part);
                return;
            }
            13 => return,
            _ => self.clients[at].room = usize::from(input.byte()),
        }
        if action & 16 == 0 {
            let whole = self.clients[at].outbox.len();
            self.deliver(at, whole);
        }
    }

    pub(super) fn connect(&mut self, input: &mut Input<'_>) {
        if self.clients.len() >= CLIENTS_MAX {
            return;
        }
        self.accepted += 1;
        let nonce = [self.accepted; 32];
        let room = if input.byte() & 7 == 7 {
            usize::from(input.byte())
        } else {
            1 << 24
        };
        if let Some(conn) = self.ingress.on_accept(nonce, self.now.mono_ns) {
            assert!(self.publisher(conn).is_none(), "a place is given out once");
            self.clients.push(Client::new(conn, room));
        }
        self.drain_ingress();
    }

    pub(super) fn deliver(&mut self, at: usize, length: usize) {
        let client = &mut self.clients[at];
        let bytes: Vec<u8> = client.outbox.drain(..length).collect();
        client.buffer.extend_from_slice(&bytes);
        let is_read = matches!(client.side, Side::Fanout(_)) || client.is_open;
        if is_read {
            self.parse(at);
            self.drain_ingress();
        }
    }

    pub(super) fn publish(&mut self, at: usize, input: &mut Input<'_>) {
        let choice = input.byte();
        let count = 1 + usize::from(choice & 15);
        let length = match choice >> 4 & 3 {
            0 => usize::from(input.byte()),
            1 => 1_000,
            2 => usize::from(input.word()) % (PAYLOAD_LIMIT as usize + 100),
            _ => PAYLOAD_LIMIT as usize,
        };
        let client = &mut self.clients[at];
        let mut publisher_seq = client.next_publisher_seq;
        if choice & 64 != 0 {
            // A gap, or something sent before.
            publisher_seq = publisher_seq.saturating_add_signed(i64::from(input.byte() as i8) / 16);
        }
        let topic = if choice & 128 != 0 {
            input.byte().into()
        } else {
            client.topics.last().copied().unwrap_or(1)
        };
        for number in 0..count {
            let payload = vec![(publisher_seq as u8).wrapping_add(number as u8); length];
            let bytes = client.record(publisher_seq, topic, &payload);
            self.truth.on_sent(&bytes);
            client.outbox.extend_from_slice(&bytes);
            publisher_seq = publisher_seq.saturating_add(1);
        }
        client.next_publisher_seq = publisher_seq;
    }

    /// Changes a byte of what is on its way; a record may get a checksum that fits.
    pub(super) fn damage(&mut self, at: usize, input: &mut Input<'_>) {
        let client = &mut self.clients[at];
        if client.outbox.is_empty() {
            return;
        }
        let place = input.below(client.outbox.len());
        client.outbox[place] ^= input.byte();
        if input.byte() & 1 == 1
            && let Ok(record) = relay_wire::record::Record::parse(&client.outbox)
        {
            let (topic, publisher_seq) = (record.topic(), record.publisher_seq());
            relay_wire::record::readdress(&mut client.outbox, topic, publisher_seq)
                .expect("it was parsed");
            self.truth.on_sent(&client.outbox);
        }
    }

    pub(super) fn subscribe(&mut self, at: usize, input: &mut Input<'_>) {
        let choice = input.byte();
        let patterns = PATTERNS[usize::from(choice & 7)];
        let from = From::ALL[usize::from(choice >> 3 & 3)];
        let next = self.truth.next_seq();
        let seq = Seq(u64::from(input.word()) % (next.get() + 2));
        let value = match from {
            From::Live | From::Earliest => 0,
            From::Seq => seq.get(),
            From::Time => match self.truth.records.get(seq.get() as usize) {
                Some(record) => record.receive_time_ns + u64::from(choice >> 7),
                None => self.now.utc_ns,
            },
        };
        let checksum = match (from, choice & 32) {
            (From::Seq, 32) if (2..=next.get()).contains(&seq.get()) => {
                Some(self.truth.checksum_before(seq) ^ u32::from(choice & 64 != 0))
            }
            _ => None,
        };
        let mut laid_out = Vec::new();
        let listed = Patterns::lay_out(patterns, &mut laid_out).expect("there are a few");
        let client = &mut self.clients[at];
        client.say(&Message::Subscribe(Subscribe {
            from,
            checksum,
            value,
            patterns: listed,
        }));
        client.expect(patterns, if from == From::Time { value } else { 0 });
    }

    pub(super) fn close(&mut self, at: usize) {
        match self.clients[at].side {
            Side::Ingress(conn) => {
                self.ingress.on_closed(conn);
                self.drain_ingress();
            }
            Side::Fanout(conn) => self.close_fanout(conn),
            Side::Gone => {}
        }
    }

    pub(super) fn complete_write(&mut self, choice: usize) {
        if self.writes.is_empty() {
            return;
        }
        let write = self.writes.remove(choice % self.writes.len());
        let place = write.at..write.at + write.bytes.len();
        assert_eq!(
            self.memory[place], write.bytes,
            "a block under a write stays as it is"
        );
        let number = write.number;
        match self.kind.write_method() {
            WriteMethod::Dsync => self.put(&write),
            WriteMethod::Covering => self.unsynced.push(write),
        }
        if !self.has_failed {
            self.sequence.on_written(number);
            self.drain_sequence();
        }
    }

    pub(super) fn put(&mut self, write: &Write) {
        self.disk[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
    }

    pub(super) fn complete_sync(&mut self) {
        let Some(covered) = self.syncing.take() else {
            return;
        };
        for write in &covered {
            self.put(write);
        }
        if !self.has_failed {
            self.sequence.on_synced();
            self.drain_sequence();
        }
    }

    pub(super) fn complete_read(&mut self, input: &mut Input<'_>) {
        if self.reads.is_empty() {
            return;
        }
        let choice = input.byte();
        let read = self
            .reads
            .remove(usize::from(choice & 7) % self.reads.len());
        let buffer = &mut self.replay[read.slot as usize];
        buffer[..read.length].copy_from_slice(&self.disk[read.at..read.at + read.length]);
        let mut length = Some(read.length as u32);
        match choice >> 3 {
            0 => length = None,
            1 => {
                let at = input.below(read.length);
                buffer[at] ^= input.byte();
            }
            2 => length = Some(input.below(read.length + 1) as u32),
            _ => {}
        }
        self.fanout.on_read(read.slot, length, self.now.mono_ns);
    }

    pub(super) fn pass_time(&mut self, choice: u8) {
        let milliseconds = [0, 1, 11, 126, 500, 1_001, 2_001, 5_001][usize::from(choice & 7)];
        self.now.mono_ns += milliseconds * MILLISECOND;
        // The wall clock is stepped now and then.
        self.now.utc_ns = match choice >> 3 {
            0 => self.now.utc_ns.saturating_sub(5_000_000),
            1 => self.now.utc_ns + 3_600_000_000_000,
            _ => self.now.utc_ns + milliseconds * MILLISECOND,
        };
    }

    pub(super) fn fail(&mut self) {
        self.has_failed = true;
        self.sequence.on_storage_fault();
        self.ingress
            .stop(TerminateCode::StorageFault, self.now.mono_ns);
        self.fanout
            .stop(TerminateCode::StorageFault, self.now.mono_ns);
        self.drain_ingress();
    }

    /// Completes whatever the disk has under way.
    pub(super) fn finish_storage(&mut self) {
        while !self.writes.is_empty() {
            self.complete_write(0);
        }
        self.complete_sync();
        while !self.reads.is_empty() {
            self.complete_read(&mut Input::new(&[0xF8]));
        }
    }

    /// A few turns with a fast disk.
    pub(super) fn settle(&mut self) {
        for _ in 0..6 {
            self.turn();
            self.finish_storage();
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        let is_sending = |client: &Client| {
            !matches!(client.sending, Sending::Nothing) && client.side != Side::Gone
        };
        self.writes.is_empty()
            && self.syncing.is_none()
            && self.reads.is_empty()
            && self.replies.is_empty()
            && self.release.is_none()
            && !self.fanout.has_work()
            && !self.clients.iter().any(is_sending)
    }

    /// Everything under way completes, without the clock's help: then nobody is left waiting.
    pub(in crate::session) fn finish(&mut self) {
        for at in 0..self.clients.len() {
            self.clients[at].room = 1 << 30;
            let whole = self.clients[at].outbox.len();
            self.deliver(at, whole);
        }
        self.prepared = Position(DISK as u64);
        let mut quiet = 0;
        for _ in 0..20_000 {
            self.turn();
            self.finish_storage();
            quiet = if self.is_quiet() { quiet + 1 } else { 0 };
            if quiet > 4 {
                break;
            }
        }
        assert!(quiet > 4, "the machines come to rest");
        if self.has_failed {
            return;
        }
        assert_eq!(
            self.sequence.next_seq(),
            self.truth.next_seq(),
            "all taken is released"
        );
        let room = DISK as u64 - self.sequence.open_position().get();
        let is_full = room < 2 * u64::from(self.settings.block_span_max());
        assert!(
            self.commands.is_empty() || is_full,
            "all commands are carried out"
        );
        for (at, client) in self.clients.iter().enumerate() {
            let missing = client.missing(&self.truth);
            assert_eq!(missing, 0, "client {at} is left waiting for records");
            let unacknowledged = client.unacknowledged(&self.truth);
            assert_eq!(
                unacknowledged, 0,
                "client {at} is left without an acknowledgement"
            );
        }
    }
}
