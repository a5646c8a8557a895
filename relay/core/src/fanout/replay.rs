//! Replay buffers: what serves the subscribers that stand behind the memory ring.
//!
//! A few buffers for all of them, given out in turn: one reading each while others wait. Who can't use its buffer because its
//! socket is full loses it to who can; it reads again from the block it stands in.

use relay_wire::code::TerminateCode;
use relay_wire::id::Position;

use super::subscriber::{Sending, Subscriber};
use super::{Fanout, FanoutEffect, Source};

/// What is read into a replay buffer, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) owner: u32,
    pub(super) start: Position,
    pub(super) length: u32,
    /// Blocks from here on may not have been on the disk when it was read: a release may be ahead of it. They are in the ring, or
    /// were, and are not looked at here.
    pub(super) end: Position,
}

/// A buffer for subscribers behind the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Free,
    Reading(Reading),
    Ready(Reading),
}

impl Fanout {
    /// The bytes from `from` on in the subscriber's replay buffer, and where to look for blocks no more; asks for them where they are
    /// not there.
    pub(super) fn slot_bytes<'a>(
        &mut self,
        subscriber: &mut Subscriber,
        from: Position,
        replay: &[&'a [u8]],
    ) -> Option<(Source, &'a [u8], Position)> {
        if let Some(slot) = subscriber.slot {
            match self.slots[slot as usize] {
                Slot::Ready(read) if (read.start..read.end).contains(&from) => {
                    let filled = &replay[slot as usize][..read.length as usize];
                    if let Some(bytes) = filled.get(from.since(read.start) as usize..)
                        && !bytes.is_empty()
                    {
                        let start = read.start;
                        return Some((Source::Replay { slot, start }, bytes, read.end));
                    }
                }
                Slot::Reading(_) => return None,
                _ => {}
            }
        }
        self.reread(subscriber, from);
        None
    }

    /// Reads from `from` on into the subscriber's replay buffer, or has it wait for one.
    pub(super) fn reread(&mut self, subscriber: &mut Subscriber, from: Position) {
        let index = subscriber.conn.index;
        if subscriber.slot.is_some() && !self.waiting.is_empty() {
            // It had its turn.
            self.give_up_slot(subscriber);
        }
        let is_next = self.waiting.front().is_none_or(|&next| next == index);
        if subscriber.slot.is_none() && is_next {
            subscriber.slot = self.take_slot();
        }
        let Some(slot) = subscriber.slot else {
            if !subscriber.is_waiting {
                subscriber.is_waiting = true;
                self.waiting.push_back(index);
            }
            return;
        };
        self.leave_line(subscriber);
        let segment = self.settings.segment_size;
        let left_in_segment = segment - from.get() % segment;
        let released = self.tail.position.since(from);
        let size = u64::from(self.settings.replay_slot_size);
        let length = size.min(left_in_segment).min(released) as u32;
        let owner = subscriber.conn.index;
        // What lies before the floor is durable; blocks from there on are in the ring.
        let end = if from < self.floor {
            self.floor
        } else {
            self.tail.position
        };
        self.slots[slot as usize] = Slot::Reading(Reading {
            owner,
            start: from,
            length,
            end,
        });
        self.effects.push_back(FanoutEffect::Read {
            slot,
            position: from,
            length,
        });
    }

    /// A replay buffer that is free, or whose holder can't use it while its socket is full.
    pub(super) fn take_slot(&mut self) -> Option<u32> {
        for (index, slot) in self.slots.iter().enumerate() {
            match *slot {
                Slot::Free => return Some(index as u32),
                Slot::Reading(_) => {}
                Slot::Ready(Reading { owner, .. }) => {
                    if let Some(holder) = &mut self.subscribers[owner as usize]
                        && holder.blocked_since_ns.is_some()
                        && holder.sending == Sending::Nothing
                    {
                        holder.slot = None;
                        return Some(index as u32);
                    }
                }
            }
        }
        None
    }

    /// It needs no replay buffer, or can't use one now.
    pub(super) fn give_up_slot(&mut self, subscriber: &mut Subscriber) {
        self.leave_line(subscriber);
        let Some(slot) = subscriber.slot.take() else {
            return;
        };
        if let Slot::Reading(_) = self.slots[slot as usize] {
            // The kernel still writes into it: it becomes free when the read completes.
            return;
        }
        self.free_slot(slot);
    }

    pub(super) fn free_slot(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot::Free;
        self.call_next();
    }

    /// Waits no longer.
    pub(super) fn leave_line(&mut self, subscriber: &mut Subscriber) {
        if std::mem::take(&mut subscriber.is_waiting) {
            let index = subscriber.conn.index;
            self.waiting.retain(|&waiting| waiting != index);
            self.call_next();
        }
    }

    /// Serves who waits first, where a buffer is free; it stays in line until it has it.
    fn call_next(&mut self) {
        if let Some(&next) = self.waiting.front()
            && self.slots.contains(&Slot::Free)
        {
            self.queue(next);
        }
    }

    /// A read into a replay buffer completed with `length` bytes; `None` when it failed.
    pub fn on_read(&mut self, slot: u32, length: Option<u32>, now_ns: u64) {
        let Slot::Reading(read) = self.slots[slot as usize] else {
            panic!("a read completes that was asked for");
        };
        let Reading { owner, start, .. } = read;
        let has_others = !self.waiting.is_empty();
        let holder = self.subscribers[owner as usize]
            .as_mut()
            .filter(|holder| holder.slot == Some(slot));
        let is_of_use = match holder {
            // Its socket filled meanwhile: it reads again in its turn.
            Some(holder) if has_others && holder.blocked_since_ns.is_some() => {
                holder.slot = None;
                false
            }
            other => other.is_some(),
        };
        if !is_of_use {
            self.free_slot(slot);
            return;
        }
        match length {
            Some(length) if length > 0 && length <= read.length => {
                self.slots[slot as usize] = Slot::Ready(Reading { length, ..read });
                self.queue(owner);
            }
            _ => {
                self.slots[slot as usize] = Slot::Ready(Reading { length: 0, ..read });
                self.effects.push_back(FanoutEffect::Damaged(start));
                let conn = self.subscribers[owner as usize].as_ref().map(|s| s.conn);
                if let Some(conn) = conn {
                    self.end(conn, TerminateCode::StorageFault, start.get(), now_ns);
                }
            }
        }
    }
}
