//! Replay buffers: what serves the subscribers that stand behind the memory ring.
//!
//! A few buffers for all of them, given out in turn. Who can't use its buffer because its socket is full loses it to who
//! can; it reads again from the block it stands in.

use relay_wire::code::TerminateCode;
use relay_wire::id::Position;

use super::subscriber::{Sending, Subscriber};
use super::{Fanout, FanoutEffect, Source};

/// A buffer for subscribers behind the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Free,
    Reading {
        owner: u32,
        start: Position,
        length: u32,
    },
    Ready {
        owner: u32,
        start: Position,
        length: u32,
    },
}

impl Fanout {
    /// The bytes from `from` on in the subscriber's replay buffer; asks for them where they are not there.
    pub(super) fn slot_bytes<'a>(
        &mut self,
        subscriber: &mut Subscriber,
        from: Position,
        replay: &[&'a [u8]],
    ) -> Option<(Source, &'a [u8])> {
        if let Some(slot) = subscriber.slot {
            match self.slots[slot as usize] {
                Slot::Ready { start, length, .. } if start <= from => {
                    let filled = &replay[slot as usize][..length as usize];
                    if let Some(bytes) = filled.get(from.since(start) as usize..)
                        && !bytes.is_empty()
                    {
                        return Some((Source::Replay { slot, start }, bytes));
                    }
                }
                Slot::Reading { .. } => return None,
                _ => {}
            }
        }
        self.reread(subscriber, from);
        None
    }

    /// Reads from `from` on into the subscriber's replay buffer, or has it wait for one.
    pub(super) fn reread(&mut self, subscriber: &mut Subscriber, from: Position) {
        if subscriber.slot.is_none() {
            subscriber.slot = self.take_slot();
        }
        let Some(slot) = subscriber.slot else {
            if !subscriber.is_waiting {
                subscriber.is_waiting = true;
                self.waiting.push_back(subscriber.conn.index);
            }
            return;
        };
        if subscriber.is_waiting {
            // It got one out of its turn, from a holder that could not use it.
            subscriber.is_waiting = false;
            let index = subscriber.conn.index;
            self.waiting.retain(|&waiting| waiting != index);
        }
        let segment = self.settings.segment_size;
        let left_in_segment = segment - from.get() % segment;
        let released = self.tail.position.since(from);
        let size = u64::from(self.settings.replay_slot_size);
        let length = size.min(left_in_segment).min(released) as u32;
        let owner = subscriber.conn.index;
        self.slots[slot as usize] = Slot::Reading {
            owner,
            start: from,
            length,
        };
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
                Slot::Reading { .. } => {}
                Slot::Ready { owner, .. } => {
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

    pub(super) fn give_up_slot(&mut self, subscriber: &mut Subscriber) {
        let Some(slot) = subscriber.slot.take() else {
            return;
        };
        if let Slot::Reading { .. } = self.slots[slot as usize] {
            // The kernel still writes into it: it becomes free when the read completes.
            return;
        }
        self.free_slot(slot);
    }

    pub(super) fn free_slot(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot::Free;
        if let Some(next) = self.waiting.pop_front() {
            if let Some(subscriber) = &mut self.subscribers[next as usize] {
                subscriber.is_waiting = false;
            }
            self.queue(next);
        }
    }

    /// A read into a replay buffer completed with `length` bytes; `None` when it failed.
    pub fn on_read(&mut self, slot: u32, length: Option<u32>, now_ns: u64) {
        let Slot::Reading {
            owner,
            start,
            length: wanted,
        } = self.slots[slot as usize]
        else {
            panic!("a read completes that was asked for");
        };
        let is_owned = self.subscribers[owner as usize]
            .as_ref()
            .is_some_and(|s| s.slot == Some(slot));
        if !is_owned {
            self.free_slot(slot);
            return;
        }
        match length {
            Some(length) if length > 0 && length <= wanted => {
                self.slots[slot as usize] = Slot::Ready {
                    owner,
                    start,
                    length,
                };
                self.queue(owner);
            }
            _ => {
                self.slots[slot as usize] = Slot::Ready {
                    owner,
                    start,
                    length: 0,
                };
                self.effects.push_back(FanoutEffect::Damaged(start));
                let conn = self.subscribers[owner as usize].as_ref().map(|s| s.conn);
                if let Some(conn) = conn {
                    self.end(conn, TerminateCode::StorageFault, start.get(), now_ns);
                }
            }
        }
    }
}
