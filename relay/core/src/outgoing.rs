//! Session messages on their way to one connection, in a buffer of fixed size.
//!
//! Bytes are appended whole messages at a time and taken from the front as the socket accepts them. While a send is under
//! way the bytes it points at stay where they are.

use std::hash::{Hash, Hasher};

use relay_wire::message::{Message, MessageError};

/// A queue of encoded messages. Its memory is reserved at once, so that nothing is allocated later and no byte moves, but it is
/// touched only as far as messages have ever reached: long buffers of many connections cost little while nothing waits.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// As long as what was ever touched.
    bytes: Vec<u8>,
    capacity: usize,
    start: usize,
    end: usize,
    is_sending: bool,
}

/// A copy holds what waits and reserves nothing: no kernel reads from it.
impl Clone for Outgoing {
    fn clone(&self) -> Self {
        Self {
            bytes: self.front().to_vec(),
            capacity: self.capacity,
            start: 0,
            end: self.len(),
            is_sending: self.is_sending,
        }
    }
}

/// What waits, wherever in the buffer it lies.
impl Hash for Outgoing {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.front().hash(state);
        (self.capacity, self.is_sending).hash(state);
    }
}

/// There is no room for the message now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Outgoing {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            capacity,
            start: 0,
            end: 0,
            is_sending: false,
        }
    }

    /// Makes the buffer larger, keeping what is in it. Not while a send is under way.
    pub(crate) fn grow(&mut self, capacity: usize) {
        assert!(!self.is_sending, "bytes under a send stay where they are");
        let mut larger = Self::with_capacity(capacity.max(self.capacity));
        larger.end = self.end - self.start;
        larger.bytes.extend_from_slice(self.front());
        *self = larger;
    }

    /// Appends `message`, or says that it does not fit now.
    pub(crate) fn push(&mut self, message: &Message<'_>) -> Result<(), Full> {
        self.push_with(|place| match message.encode(place) {
            Ok(taken) => Ok(taken),
            Err(MessageError::NoRoom(needed)) => Err(needed),
            Err(error) => panic!("the relay built a message that can't be encoded: {error}"),
        })
    }

    /// Appends what `encode` lays out, which returns its length, or as an error the length it needs.
    pub(crate) fn push_with(
        &mut self,
        encode: impl Fn(&mut [u8]) -> Result<usize, usize>,
    ) -> Result<(), Full> {
        if self.start == self.end && !self.is_sending {
            self.start = 0;
            self.end = 0;
        }
        if self.append(&encode).is_ok() {
            return Ok(());
        }
        if self.start == 0 || self.is_sending {
            return Err(Full);
        }
        self.compact();
        self.append(&encode)
    }

    /// Makes no room but what was reserved.
    fn append(&mut self, encode: impl Fn(&mut [u8]) -> Result<usize, usize>) -> Result<(), Full> {
        let taken = match encode(&mut self.bytes[self.end..]) {
            Ok(taken) => taken,
            Err(needed) if self.end + needed <= self.capacity => {
                self.bytes.resize(self.end + needed, 0);
                encode(&mut self.bytes[self.end..]).map_err(|_| Full)?
            }
            Err(_) => return Err(Full),
        };
        self.end += taken;
        Ok(())
    }

    /// Whether there is something to send and no send under way.
    pub(crate) const fn wants_send(&self) -> bool {
        self.start != self.end && !self.is_sending
    }

    /// Starts a send of what [`Outgoing::front`] shows.
    pub(crate) fn begin_send(&mut self) {
        assert!(!self.is_sending, "one send at a time");
        // While one send follows the other this is the only time at which room behind can be made of what was taken in front.
        if self.start > self.capacity / 2 {
            self.compact();
        }
        self.is_sending = true;
    }

    fn compact(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// What the send under way covers, or the next would.
    pub(crate) fn front(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Ends a send of which `length` bytes were taken.
    pub(crate) fn end_send(&mut self, length: usize) {
        assert!(self.is_sending, "a send ends that was begun");
        self.is_sending = false;
        self.start += length;
        assert!(self.start <= self.end, "no more can be sent than there was");
    }

    pub(crate) const fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Bytes that wait.
    pub(crate) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes it holds at most.
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes it takes now.
    pub(crate) const fn room(&self) -> usize {
        if self.is_sending {
            self.capacity - self.end
        } else {
            self.capacity - self.len()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what there is said to be room for fits, and a flow that is taken a part at a time goes on at its full breadth. Method:
    /// pieces and parts of every length, one send begun with the end of the one before.
    #[test]
    fn there_is_room_while_one_send_follows_the_other() {
        let mut outgoing = Outgoing::with_capacity(4096);
        let (mut random, mut pushed, mut taken) = (1_u64, 0_u64, 0_u64);
        let mut below = |limit: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % limit
        };
        for turn in 0..20_000 {
            let length = 1 + below(600);
            if outgoing.room() >= length {
                let piece = vec![turn as u8; length];
                let encode = |place: &mut [u8]| match place.get_mut(..length) {
                    Some(place) => {
                        place.copy_from_slice(&piece);
                        Ok(length)
                    }
                    None => Err(length),
                };
                outgoing.push_with(encode).expect("there is room");
                pushed += length as u64;
            }
            if outgoing.is_sending() {
                let part = 1 + below(outgoing.len().min(300));
                outgoing.end_send(part);
                taken += part as u64;
            }
            if outgoing.wants_send() {
                outgoing.begin_send();
            }
            assert_eq!(outgoing.len() as u64, pushed - taken);
        }
        assert!(taken > 20_000 * 100, "{taken}");
    }
}
