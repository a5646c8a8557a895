//! The resend window: every record that is not released yet, each laid out once, where it is sent from.
//!
//! ```text
//!            first            cursor            next         publisher sequences
//!              |                 |                |
//!     +--------+-----+-----+-----+-----+-----+----+---------+
//!     | free   | rec | rec | rec | rec | rec | rec|  free   |   bytes, a power of two of them
//!     +--------+-----+-----+-----+-----+-----+----+---------+
//!             head   written to the   queued     tail           positions, which only grow
//!                    socket
//! ```
//!
//! A position is an address that never wraps; its place in the buffer is the position modulo the buffer's size. A record
//! always lies in one piece: where one does not fit before the end of the buffer, the rest of that lap is left free
//! and the record begins the next lap. `slots` finds a record by its publisher sequence, so releasing any number of
//! records is one step.
//!
//! Invariants: `first <= cursor <= next`; the records of `first..next` lie in order between `head` and `tail`, without
//! overlap; `tail - head` never exceeds the buffer's size. Nothing is allocated after [`Window::new`].
//!
//! It knows no socket: the connection writes [`Window::queued`] and reports how much went out.

use relay_wire::code::RecordKind;
use relay_wire::id::{PublisherSeq, TopicId};
use relay_wire::record::{self, EncodeError, Fields, HEADER_LENGTH, Record};

/// Where a record lies.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Its position.
    at: u64,
    /// Bytes of all records before it, since the window was made; unlike positions without the gaps at ends of laps.
    laid_before: u64,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No room now.
    Full,
    /// Never any room.
    TooLarge,
    /// The extension area is malformed.
    Extension,
}

/// See the module's head.
pub(crate) struct Window {
    bytes: Box<[u8]>,
    slots: Box<[Slot]>,
    first: u64,
    next: u64,
    head: u64,
    tail: u64,
    laid: u64,
    /// The first record that is not written as a whole on this connection.
    cursor: u64,
    /// Bytes of it that are.
    cursor_written: usize,
    /// One past the highest that was ever given to a socket, even in part.
    sent_to: u64,
    /// Where the newest lap begins and the records of the one before it end.
    lap_start: u64,
    lap_before_end: u64,
}

impl Window {
    /// A window of at least so many bytes, rounded up to a power of two.
    pub(crate) fn new(bytes: usize) -> Self {
        let size = bytes.max(4096).next_power_of_two();
        let records_max = (size / HEADER_LENGTH + 1).next_power_of_two();
        Self {
            bytes: vec![0; size].into_boxed_slice(),
            slots: vec![Slot::default(); records_max].into_boxed_slice(),
            first: 1,
            next: 1,
            head: 0,
            tail: 0,
            laid: 0,
            cursor: 1,
            cursor_written: 0,
            sent_to: 1,
            lap_start: 0,
            lap_before_end: 0,
        }
    }

    /// The oldest record kept.
    pub(crate) fn first(&self) -> PublisherSeq {
        PublisherSeq(self.first)
    }

    /// The number the next record gets.
    pub(crate) fn next(&self) -> PublisherSeq {
        PublisherSeq(self.next)
    }

    /// The first record not yet written as a whole on this connection.
    pub(crate) fn cursor(&self) -> PublisherSeq {
        PublisherSeq(self.cursor)
    }

    /// One past the highest publisher sequence any relay can have seen.
    pub(crate) fn sent_to(&self) -> PublisherSeq {
        PublisherSeq(self.sent_to)
    }

    /// Records kept.
    pub(crate) fn len(&self) -> usize {
        (self.next - self.first) as usize
    }

    /// Bytes of the records kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        (self.laid - self.laid_before(self.first)) as usize
    }

    /// Whether everything queued is written.
    pub(crate) fn is_written(&self) -> bool {
        self.cursor == self.next
    }

    /// Whether the connection stands within a record.
    pub(crate) fn is_within_record(&self) -> bool {
        self.cursor_written > 0
    }

    fn slot_index(&self, seq: u64) -> usize {
        seq as usize & (self.slots.len() - 1)
    }

    fn laid_before(&self, seq: u64) -> u64 {
        if seq == self.next {
            self.laid
        } else {
            self.slots[self.slot_index(seq)].laid_before
        }
    }

    /// Where in the buffer a position is.
    fn offset(&self, position: u64) -> usize {
        position as usize & (self.bytes.len() - 1)
    }

    fn stride_of(&self, seq: u64) -> usize {
        (self.laid_before(seq + 1) - self.laid_before(seq)) as usize
    }

    /// The position for a record of `stride` bytes behind `tail`.
    fn place(&self, tail: u64, stride: usize) -> u64 {
        let offset = self.offset(tail);
        if offset + stride <= self.bytes.len() {
            tail
        } else {
            tail + (self.bytes.len() - offset) as u64
        }
    }

    fn note_lap(&mut self, at: u64, tail_before: u64) {
        if self.offset(at) == 0 {
            self.lap_start = at;
            self.lap_before_end = tail_before;
        }
    }

    /// Lays a record out behind the others and gives it the next publisher sequence; `fields` needs all but that.
    pub(crate) fn push(
        &mut self,
        mut fields: Fields,
        extension: &[u8],
        payload: &[u8],
    ) -> Result<PublisherSeq, Refusal> {
        let stride = record::encoded_stride(extension.len(), payload.len());
        if stride > self.bytes.len() {
            return Err(Refusal::TooLarge);
        }
        let at = self.place(self.tail, stride);
        let is_full = at + stride as u64 - self.head > self.bytes.len() as u64
            || self.len() == self.slots.len();
        if is_full {
            return Err(Refusal::Full);
        }
        fields.publisher_seq = PublisherSeq(self.next);
        let offset = self.offset(at);
        let out = &mut self.bytes[offset..offset + stride];
        match record::encode(out, RecordKind::Data, &fields, extension, payload) {
            Ok(taken) => assert_eq!(taken, stride, "a record takes what was reckoned for it"),
            Err(EncodeError::Extension) => return Err(Refusal::Extension),
            Err(_) => return Err(Refusal::TooLarge),
        }
        if !extension.is_empty() && Record::parse(out).is_err() {
            return Err(Refusal::Extension);
        }
        self.note_lap(at, self.tail);
        let index = self.slot_index(self.next);
        self.slots[index] = Slot {
            at,
            laid_before: self.laid,
        };
        self.laid += stride as u64;
        self.tail = at + stride as u64;
        self.next += 1;
        Ok(PublisherSeq(self.next - 1))
    }

    /// What may be written now, in the order of the wire: at most two pieces, the second past the buffer's end.
    ///
    /// Ends at the last record with which what is written and unreleased stays within `credit` bytes. A record larger
    /// than the whole credit goes when nothing else is on its way: the relay then says what it thinks of it.
    pub(crate) fn queued(&self, credit: u64) -> (&[u8], &[u8]) {
        let end = self.end_within(credit);
        if end <= self.cursor {
            return (&[], &[]);
        }
        let from = self.slots[self.slot_index(self.cursor)].at + self.cursor_written as u64;
        let to = if end == self.next {
            self.tail
        } else {
            let last = self.slots[self.slot_index(end - 1)].at;
            last + self.stride_of(end - 1) as u64
        };
        if from < self.lap_start && self.lap_start < to {
            let before =
                self.offset(from)..self.offset(from) + (self.lap_before_end - from) as usize;
            (
                &self.bytes[before],
                &self.bytes[..(to - self.lap_start) as usize],
            )
        } else {
            let offset = self.offset(from);
            (&self.bytes[offset..offset + (to - from) as usize], &[])
        }
    }

    /// One past the last record that `credit` lets go.
    fn end_within(&self, credit: u64) -> u64 {
        let base = self.laid_before(self.first);
        if self.laid - base <= credit {
            return self.next;
        }
        let (mut low, mut high) = (self.first, self.next);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.laid_before(middle + 1) - base <= credit {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let is_alone = self.cursor == self.first && low == self.first && self.first < self.next;
        low + u64::from(is_alone)
    }

    /// `written` bytes of [`Window::queued`] went out.
    pub(crate) fn wrote(&mut self, mut written: usize) {
        while written > 0 {
            assert!(self.cursor < self.next, "no more is written than is queued");
            let stride = self.stride_of(self.cursor);
            let missing = stride - self.cursor_written;
            if written < missing {
                self.cursor_written += written;
                break;
            }
            written -= missing;
            self.cursor += 1;
            self.cursor_written = 0;
        }
        let touched = self.cursor + u64::from(self.cursor_written > 0);
        self.sent_to = self.sent_to.max(touched);
    }

    /// Everything through `seq` is released and forgotten. True if that was new.
    pub(crate) fn release(&mut self, seq: PublisherSeq) -> bool {
        if seq.get() < self.first {
            return false;
        }
        assert!(seq.get() < self.next, "only what is kept is released");
        self.first = seq.get() + 1;
        if self.cursor < self.first {
            self.cursor = self.first;
            self.cursor_written = 0;
        }
        self.move_head();
        true
    }

    /// The window begins with the oldest record that is kept.
    fn move_head(&mut self) {
        if self.first == self.next {
            // Begin at the front again, where a record of any length has room; those bytes are still in the processor's cache.
            let size = self.bytes.len() as u64;
            self.tail = self.tail.next_multiple_of(size);
            self.head = self.tail;
        } else {
            self.head = self.slots[self.slot_index(self.first)].at;
        }
    }

    /// Bytes of the record under the cursor that are still missing on the wire; empty between records.
    pub(crate) fn rest_of_record(&self) -> &[u8] {
        if self.cursor_written == 0 {
            return &[];
        }
        let at = self.offset(self.slots[self.slot_index(self.cursor)].at);
        &self.bytes[at + self.cursor_written..at + self.stride_of(self.cursor)]
    }

    /// Writes again from `seq` on. Between records only: see [`Window::rest_of_record`].
    pub(crate) fn rewind(&mut self, seq: PublisherSeq) {
        let seq = seq.get();
        assert!(
            seq >= self.first && seq <= self.next,
            "only what is kept is sent again"
        );
        self.cursor = seq;
        self.cursor_written = 0;
    }

    /// The relay said that it took nothing from `seq` on, so that none of it counts as sent.
    pub(crate) fn forget_sent_from(&mut self, seq: PublisherSeq) {
        self.sent_to = self.sent_to.min(seq.get()).max(self.first);
    }

    /// Gives each record from `from` on the topic that `decide` says, or drops it where that is `None`; the ones behind a
    /// dropped record move up and take over its number. `decide` sees the number as it is at that moment.
    ///
    /// The cursor has to stand at `from` or before. Not for the hot path: it may touch every byte kept.
    pub(crate) fn rewrite(
        &mut self,
        from: PublisherSeq,
        mut decide: impl FnMut(PublisherSeq, TopicId) -> Option<TopicId>,
    ) {
        let from = from.get().max(self.first);
        if from >= self.next {
            return;
        }
        assert!(
            self.cursor_written == 0,
            "no record is rewritten while half of it is on its way"
        );
        let end = self.next;
        let laid_end = self.laid;
        let (mut tail, mut laid) = if from == self.first {
            (self.head, self.laid_before(from))
        } else {
            let before = self.slots[self.slot_index(from - 1)];
            let stride = self.stride_of(from - 1) as u64;
            (before.at + stride, self.laid_before(from))
        };
        let mut target = from;
        for source in from..end {
            let slot = self.slots[self.slot_index(source)];
            let laid_after = if source + 1 == end {
                laid_end
            } else {
                self.slots[self.slot_index(source + 1)].laid_before
            };
            let stride = (laid_after - slot.laid_before) as usize;
            let old = self.offset(slot.at);
            let topic = Record::parse(&self.bytes[old..old + stride])
                .expect("what is kept was laid out here")
                .topic();
            let Some(new_topic) = decide(PublisherSeq(target), topic) else {
                continue;
            };
            // Never further on than it lies now, because `place` grows with the tail; so no unmoved record is touched.
            let at = self.place(tail, stride);
            assert!(at <= slot.at, "records only move towards the head");
            if at != slot.at {
                let new = self.offset(at);
                self.bytes.copy_within(old..old + stride, new);
            }
            self.note_lap(at, tail);
            if new_topic != topic || target != source {
                let new = self.offset(at);
                record::readdress(
                    &mut self.bytes[new..new + stride],
                    new_topic,
                    PublisherSeq(target),
                )
                .expect("what is kept was laid out here");
            }
            let index = self.slot_index(target);
            self.slots[index] = Slot {
                at,
                laid_before: laid,
            };
            tail = at + stride as u64;
            laid += stride as u64;
            target += 1;
        }
        self.next = target;
        self.tail = tail;
        self.laid = laid;
        self.cursor = self.cursor.min(target);
        self.sent_to = self.sent_to.min(target).max(self.first);
        self.move_head();
    }
}

#[cfg(test)]
mod tests;
