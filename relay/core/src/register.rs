//! The arbiter's side of a stream: one membership record and one floor, changed by compare-and-swap.
//!
//! The witness keeps one of these for each stream, and the simulator uses it as its arbiter. It only decides: a decision
//! that changes something carries the register as it will be, and the caller makes that durable *before* it takes it over or
//! gives the answer. Until then the present register answers, so nobody ever hears of a state that a crash could take back.
//!
//! Invariants: a revision names one state of one register and is never used again; a record is made only by
//! [`Request::Create`] and never goes away; there is no floor without a record. What the registers hold is opaque, but for
//! [`request`] and [`answer`], which stand between a node's values and their bytes.

use relay_wire::id::StreamId;
use relay_wire::membership::{FLOOR_LENGTH, Floor, MEMBERSHIP_LENGTH_MAX, Membership};
use relay_wire::witness::{self, Answer, Cell, Request, VALUE_LENGTH_MAX, Value};

use crate::arbiter::{ArbiterAnswer, Ask, Registers, Revision};

const _: () =
    assert!(MEMBERSHIP_LENGTH_MAX <= VALUE_LENGTH_MAX && FLOOR_LENGTH <= VALUE_LENGTH_MAX);

/// The registers of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Register {
    registers: Option<witness::Registers>,
    revision_last: u64,
}

/// What comes of a request.
#[allow(clippy::large_enum_variant)] // held in place, so that the arbiter allocates nothing for a peer
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing changes; this is the answer.
    Answer(Answer),
    /// Once `next` is durable it takes the register's place, and then the answer is that its `revision` is done.
    Change {
        /// The register as it will be.
        next: Register,
        /// The revision the change makes.
        revision: u64,
    },
}

impl Register {
    /// The register as it was stored.
    ///
    /// # Panics
    /// When a revision is 0 or above `revision_last`: who stores registers checks what it reads.
    #[must_use]
    pub fn stored(registers: Option<witness::Registers>, revision_last: u64) -> Self {
        let register = Self {
            registers,
            revision_last,
        };
        assert!(register.is_sound(), "revisions are 1 to the last one");
        register
    }

    /// What it holds.
    #[must_use]
    pub const fn registers(&self) -> Option<&witness::Registers> {
        self.registers.as_ref()
    }

    /// The highest revision ever used.
    #[must_use]
    pub const fn revision_last(&self) -> u64 {
        self.revision_last
    }

    /// Leaves out the next `count` revisions. After a start from a store that may be older than what was served, a random
    /// number of some 30 bits keeps later revisions from being those of a forgotten state.
    #[must_use]
    pub const fn skipping(mut self, count: u32) -> Self {
        self.revision_last += count as u64;
        self
    }

    /// The register with `record` in it, whatever it held: a node whose arbiter is an operator keeps what its primary tells. A floor
    /// was about a reign that is over.
    #[must_use]
    pub fn told(&self, record: Value) -> Self {
        let revision = self.revision_last + 1;
        Self {
            registers: Some(witness::Registers {
                record: Cell {
                    revision,
                    value: record,
                },
                floor: None,
            }),
            revision_last: revision,
        }
    }

    /// Decides about a request. [`Request::Status`] is not about a register; whoever keeps registers answers it.
    ///
    /// # Panics
    /// When asked for the status.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        let refused = Decision::Answer(Answer::Refused(self.registers));
        match (request, &self.registers) {
            (Request::Status, _) => panic!("a status is not a register's to tell"),
            (Request::Read, held) => Decision::Answer(Answer::Registers(*held)),
            (Request::Create { record }, None) => self.change(|revision| witness::Registers {
                record: Cell {
                    revision,
                    value: *record,
                },
                floor: None,
            }),
            // A swap or a floor rests on a record: none may come into being by it, whatever revision it names.
            (Request::Create { .. }, Some(_))
            | (Request::Swap { .. } | Request::Floor { .. }, None) => refused,
            (
                Request::Swap {
                    base,
                    floor_base,
                    next,
                },
                Some(held),
            ) => {
                let floor_revision = held.floor.map_or(0, |floor| floor.revision);
                let is_due = held.record.revision == *base
                    && floor_base.is_none_or(|floor_base| floor_base == floor_revision);
                if !is_due {
                    return refused;
                }
                self.change(|revision| witness::Registers {
                    record: Cell {
                        revision,
                        value: *next,
                    },
                    floor: held.floor,
                })
            }
            (Request::Floor { base, floor }, Some(held)) => {
                if held.record.revision != *base {
                    return refused;
                }
                self.change(|revision| witness::Registers {
                    record: held.record,
                    floor: Some(Cell {
                        revision,
                        value: *floor,
                    }),
                })
            }
        }
    }

    fn change(&self, to: impl FnOnce(u64) -> witness::Registers) -> Decision {
        let revision = self.revision_last + 1;
        let next = Self {
            registers: Some(to(revision)),
            revision_last: revision,
        };
        assert!(next.is_sound(), "revisions are 1 to the last one");
        Decision::Change { next, revision }
    }

    fn is_sound(&self) -> bool {
        let is_used = |cell: &Cell| (1..=self.revision_last).contains(&cell.revision);
        self.registers.as_ref().is_none_or(|registers| {
            is_used(&registers.record) && registers.floor.as_ref().is_none_or(is_used)
        })
    }
}

/// The bytes of a record.
///
/// # Panics
/// When the record can't be: that must not reach an arbiter.
#[must_use]
pub fn record_value(membership: &Membership) -> Value {
    let mut bytes = [0; MEMBERSHIP_LENGTH_MAX];
    let length = membership.encode(&mut bytes);
    Value::new(&bytes[..length]).expect("a record fits a register")
}

/// The bytes of a floor.
#[must_use]
pub fn floor_value(floor: &Floor) -> Value {
    Value::new(&floor.encode()).expect("a floor fits a register")
}

/// What a node asks, as a register hears it.
///
/// # Panics
/// When the record of a swap can't be.
#[must_use]
pub fn request(ask: &Ask) -> Request {
    match ask {
        Ask::Read => Request::Read,
        Ask::Swap {
            base,
            floor_base,
            next,
        } => Request::Swap {
            base: base.0,
            floor_base: floor_base.map(|revision| revision.0),
            next: record_value(next),
        },
        Ask::Floor { base, floor } => Request::Floor {
            base: base.0,
            floor: floor_value(floor),
        },
    }
}

/// A register's answer, as the node of `stream` understands it.
#[must_use]
pub fn answer(stream: StreamId, answer: &Answer) -> ArbiterAnswer {
    let understood = |held: &Option<witness::Registers>, wrap: fn(_) -> ArbiterAnswer| match held {
        None => wrap(None),
        Some(held) => registers(stream, held).map_or(ArbiterAnswer::Garbled, |r| wrap(Some(r))),
    };
    match answer {
        Answer::Registers(held) => understood(held, ArbiterAnswer::Read),
        Answer::Refused(held) => understood(held, ArbiterAnswer::Refused),
        Answer::Done(revision) => ArbiterAnswer::Done(Revision(*revision)),
        Answer::NoRoom | Answer::Status(_) => ArbiterAnswer::Garbled,
    }
}

/// What the registers of `stream` say; `None` when they can't be read as that.
#[must_use]
pub fn registers(stream: StreamId, held: &witness::Registers) -> Option<Registers> {
    let membership = Membership::decode(held.record.value.as_slice()).ok()?;
    if membership.stream != stream {
        return None;
    }
    let floor = match &held.floor {
        Some(cell) => Some(Floor::decode(cell.value.as_slice()).ok()?),
        None => None,
    };
    Some(Registers {
        membership,
        revision: Revision(held.record.revision),
        floor,
        floor_revision: Revision(held.floor.map_or(0, |cell| cell.revision)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_wire::code::Policy;
    use relay_wire::id::{Epoch, NodeId, Position};
    use relay_wire::membership::{Member, Members};

    const STREAM: StreamId = StreamId(7);

    fn membership(epoch: u64) -> Membership {
        Membership {
            stream: STREAM,
            epoch: Epoch(epoch),
            nonce: epoch * 1_000,
            primary: NodeId(1),
            members: Members::of(&[Member {
                node: NodeId(1),
                incarnation: 11,
                process: 0,
            }]),
            min_copies: 1,
            policy: Policy::Durable,
        }
    }

    fn floor(position: u64) -> Floor {
        Floor {
            epoch: Epoch(1),
            position: Position(position),
            checksum: 5,
        }
    }

    fn value(byte: u8) -> Value {
        Value::new(&[byte]).unwrap()
    }

    /// Takes a change over; its revision.
    fn carry_out(register: &mut Register, request: Request) -> u64 {
        match register.decide(&request) {
            Decision::Change { next, revision } => {
                assert_eq!(next.revision_last(), revision);
                assert!(revision > register.revision_last(), "never used before");
                *register = next;
                revision
            }
            Decision::Answer(answer) => panic!("{request:?} gave {answer:?}"),
        }
    }

    fn is_refused(register: &Register, request: Request) {
        let refused = Answer::Refused(register.registers().copied());
        assert_eq!(register.decide(&request), Decision::Answer(refused));
    }

    fn swap(base: u64, floor_base: Option<u64>, byte: u8) -> Request {
        Request::Swap {
            base,
            floor_base,
            next: value(byte),
        }
    }

    /// Goal: nothing but a creation brings a record into being. Method: every change of an empty register, also with the
    /// revision that stands for nothing.
    #[test]
    fn an_empty_register_takes_only_a_creation() {
        let mut register = Register::default();
        let read = register.decide(&Request::Read);
        assert_eq!(read, Decision::Answer(Answer::Registers(None)));
        for base in [0, 1] {
            for floor_base in [None, Some(0), Some(1)] {
                is_refused(&register, swap(base, floor_base, 1));
            }
            let floor = value(1);
            is_refused(&register, Request::Floor { base, floor });
        }
        let record = value(9);
        assert_eq!(carry_out(&mut register, Request::Create { record }), 1);
        is_refused(&register, Request::Create { record });
        let held = witness::Registers {
            record: Cell {
                revision: 1,
                value: record,
            },
            floor: None,
        };
        let read = register.decide(&Request::Read);
        assert_eq!(read, Decision::Answer(Answer::Registers(Some(held))));
    }

    /// Goal: a swap happens exactly when the record's revision, and the floor's where given, are the present ones. Method: every
    /// combination of present, past, future and no revision, without and with a floor.
    #[test]
    fn a_swap_compares_what_it_rests_on() {
        let mut register = Register::default();
        carry_out(&mut register, Request::Create { record: value(1) });
        carry_out(&mut register, swap(1, None, 2));
        for has_floor in [false, true] {
            if has_floor {
                for byte in [3, 4] {
                    let base = register.registers().unwrap().record.revision;
                    let floor = value(byte);
                    carry_out(&mut register, Request::Floor { base, floor });
                }
            }
            let held = *register.registers().unwrap();
            let record_now = held.record.revision;
            let floor_now = held.floor.map_or(0, |cell| cell.revision);
            for base in 0..8 {
                for floor_base in [None, Some(0), Some(1), Some(3), Some(4), Some(5)] {
                    let request = swap(base, floor_base, 7);
                    let is_due =
                        base == record_now && floor_base.is_none_or(|base| base == floor_now);
                    if !is_due {
                        is_refused(&register, request);
                        continue;
                    }
                    let mut after = register;
                    let revision = carry_out(&mut after, request);
                    let now = after.registers().unwrap();
                    assert_eq!(now.record.revision, revision);
                    assert_eq!(now.record.value, value(7));
                    assert_eq!(now.floor, held.floor, "a swap leaves the floor alone");
                }
            }
        }
    }

    #[test]
    fn a_floor_compares_the_records_revision_alone() {
        let mut register = Register::default();
        carry_out(&mut register, Request::Create { record: value(1) });
        let request = |base| Request::Floor {
            base,
            floor: value(2),
        };
        for base in [0, 2] {
            is_refused(&register, request(base));
        }
        let first = carry_out(&mut register, request(1));
        let second = carry_out(&mut register, request(1));
        assert!(second > first);
        let held = register.registers().unwrap();
        assert_eq!(held.floor.unwrap().revision, second);
        assert_eq!(
            held.record.revision, 1,
            "a floor leaves the record's revision alone"
        );
        carry_out(&mut register, swap(1, Some(second), 3));
        is_refused(&register, request(1));
    }

    /// Goal: a swap asked again, because its answer was lost, shows its asker that it happened, and does not happen twice.
    #[test]
    fn a_swap_repeated_is_refused_and_shows_itself() {
        let mut register = Register::default();
        let record = record_value(&membership(1));
        let base = carry_out(&mut register, Request::Create { record });
        let ask = Ask::Swap {
            base: Revision(base),
            floor_base: None,
            next: membership(2),
        };
        let revision = carry_out(&mut register, request(&ask));
        let Decision::Answer(again) = register.decide(&request(&ask)) else {
            panic!("it happened twice");
        };
        let ArbiterAnswer::Refused(Some(registers)) = answer(STREAM, &again) else {
            panic!("{again:?}");
        };
        assert_eq!(registers.membership.nonce, membership(2).nonce);
        assert_eq!(registers.revision, Revision(revision));
    }

    #[test]
    fn skipped_revisions_are_not_used() {
        let mut register = Register::default();
        carry_out(&mut register, Request::Create { record: value(1) });
        let mut register = register.skipping(1_000);
        assert_eq!(
            register.registers().unwrap().record.revision,
            1,
            "what is held keeps its name"
        );
        assert_eq!(carry_out(&mut register, swap(1, None, 2)), 1_002);
        let again = Register::stored(register.registers().copied(), register.revision_last());
        assert_eq!(again, register);
    }

    #[test]
    #[should_panic(expected = "1 to the last one")]
    fn a_stored_revision_above_the_last_stops() {
        let held = witness::Registers {
            record: Cell {
                revision: 2,
                value: value(1),
            },
            floor: None,
        };
        let _ = Register::stored(Some(held), 1);
    }

    #[test]
    fn a_node_understands_its_own_registers_and_nothing_else() {
        let record = Cell {
            revision: 4,
            value: record_value(&membership(3)),
        };
        let floored = |bytes| witness::Registers {
            record,
            floor: Some(Cell {
                revision: 5,
                value: bytes,
            }),
        };
        let without = witness::Registers {
            record,
            floor: None,
        };
        let foreign = witness::Registers {
            record: Cell {
                revision: 4,
                value: value(1),
            },
            floor: None,
        };
        let understood = Registers {
            membership: membership(3),
            revision: Revision(4),
            floor: None,
            floor_revision: Revision(0),
        };
        let with_floor = Registers {
            floor: Some(floor(4_096)),
            floor_revision: Revision(5),
            ..understood
        };
        for (held, expected) in [
            (Some(without), ArbiterAnswer::Read(Some(understood))),
            (
                Some(floored(floor_value(&floor(4_096)))),
                ArbiterAnswer::Read(Some(with_floor)),
            ),
            (None, ArbiterAnswer::Read(None)),
            (Some(floored(value(1))), ArbiterAnswer::Garbled),
            (Some(foreign), ArbiterAnswer::Garbled),
        ] {
            assert_eq!(answer(STREAM, &Answer::Registers(held)), expected);
        }
        let refused = answer(STREAM, &Answer::Refused(Some(without)));
        assert_eq!(refused, ArbiterAnswer::Refused(Some(understood)));
        let other = answer(StreamId(8), &Answer::Registers(Some(without)));
        assert_eq!(other, ArbiterAnswer::Garbled, "another stream's record");
        assert_eq!(
            answer(STREAM, &Answer::Done(6)),
            ArbiterAnswer::Done(Revision(6))
        );
        assert_eq!(answer(STREAM, &Answer::NoRoom), ArbiterAnswer::Garbled);
        let status = Answer::Status(witness::Status::default());
        assert_eq!(answer(STREAM, &status), ArbiterAnswer::Garbled);
    }

    #[test]
    fn what_a_node_asks_reaches_the_register_as_bytes() {
        let read = request(&Ask::Read);
        assert_eq!(read, Request::Read);
        let asked = request(&Ask::Floor {
            base: Revision(3),
            floor: floor(8_192),
        });
        let expected = Request::Floor {
            base: 3,
            floor: floor_value(&floor(8_192)),
        };
        assert_eq!(asked, expected);
        let asked = request(&Ask::Swap {
            base: Revision(3),
            floor_base: Some(Revision(0)),
            next: membership(4),
        });
        let expected = Request::Swap {
            base: 3,
            floor_base: Some(0),
            next: record_value(&membership(4)),
        };
        assert_eq!(asked, expected);
    }

    #[test]
    #[should_panic(expected = "not a register's to tell")]
    fn a_status_is_not_asked_of_a_register() {
        let _ = Register::default().decide(&Request::Status);
    }
}
