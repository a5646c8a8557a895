//! What can happen next to a group, one small thing at a time, and how each is written.

use core::fmt;

use crate::machine::{Loss, Rot};

/// See the module's description. Nodes are counted from 0, and written from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The next message on the way from the first node arrives at the second.
    Hear(u8, u8),
    /// The first node hears that its connection to the second is gone; what was on the way is lost.
    Lost(u8, u8),
    /// The connection breaks, and the first node is told.
    Close(u8, u8),
    /// The two nodes connect, and prove themselves.
    Connect(u8, u8),
    /// A write of a node, counted from the oldest, completes.
    Write(u8, u8),
    /// A node's vote is in its superblock.
    Vote(u8),
    /// A node begins again from its disk, as it asked for.
    Rebuild(u8),
    /// The arbiter carries out what a node asks.
    Carry(u8),
    /// The node hears the answer.
    Answer(u8),
    /// What the node asked is never carried out, and it hears that nobody knows.
    Lose(u8),
    /// What the node asked may be carried out later, and it hears that nobody knows.
    Late(u8),
    /// What the node asked was carried out, and it hears that nobody knows.
    Forget(u8),
    /// The node hears that the arbiter can't be reached.
    Refuse(u8),
    /// Something asked earlier is carried out.
    Land(u8),
    /// The publisher sends its next message to a node.
    Publish(u8),
    /// A heartbeat's time passes at a node.
    Beat(u8),
    /// A long time passes at a node.
    Lapse(u8),
    /// A node's process dies.
    Crash(u8, Loss),
    /// It starts.
    Start(u8),
    /// The last block on its disk rots.
    Rot(u8, Rot),
    /// It gets a blank disk.
    Blank(u8),
    /// An operator wants the node to hand over.
    HandOver(u8),
}

impl Action {
    /// The action as a number.
    pub(crate) const fn code(self) -> u32 {
        let (kind, a, b) = match self {
            Self::Hear(from, to) => (0, from, to),
            Self::Lost(at, peer) => (1, at, peer),
            Self::Close(at, peer) => (2, at, peer),
            Self::Connect(a, b) => (3, a, b),
            Self::Write(at, place) => (4, at, place),
            Self::Vote(at) => (5, at, 0),
            Self::Rebuild(at) => (6, at, 0),
            Self::Carry(at) => (7, at, 0),
            Self::Answer(at) => (8, at, 0),
            Self::Lose(at) => (9, at, 0),
            Self::Late(at) => (10, at, 0),
            Self::Forget(at) => (11, at, 0),
            Self::Refuse(at) => (12, at, 0),
            Self::Land(place) => (13, place, 0),
            Self::Publish(at) => (14, at, 0),
            Self::Beat(at) => (15, at, 0),
            Self::Lapse(at) => (16, at, 0),
            Self::Crash(at, loss) => {
                let flags = loss.is_torn as u8 | (loss.keeps_vote as u8) << 1;
                return 17
                    | (at as u32) << 8
                    | (loss.kept as u32) << 16
                    | (flags as u32) << 20
                    | (loss.cut as u32) << 24;
            }
            Self::Start(at) => (18, at, 0),
            Self::Rot(at, Rot::Header) => (19, at, 0),
            Self::Rot(at, Rot::Body) => (19, at, 1),
            Self::Blank(at) => (20, at, 0),
            Self::HandOver(at) => (21, at, 0),
        };
        kind | (a as u32) << 8 | (b as u32) << 16
    }

    /// The action with a number [`Action::code`] gave.
    pub(crate) const fn from_code(code: u32) -> Self {
        let (a, b) = ((code >> 8) as u8, (code >> 16) as u8);
        match code & 0xff {
            0 => Self::Hear(a, b),
            1 => Self::Lost(a, b),
            2 => Self::Close(a, b),
            3 => Self::Connect(a, b),
            4 => Self::Write(a, b),
            5 => Self::Vote(a),
            6 => Self::Rebuild(a),
            7 => Self::Carry(a),
            8 => Self::Answer(a),
            9 => Self::Lose(a),
            10 => Self::Late(a),
            11 => Self::Forget(a),
            12 => Self::Refuse(a),
            13 => Self::Land(a),
            14 => Self::Publish(a),
            15 => Self::Beat(a),
            16 => Self::Lapse(a),
            17 => {
                let loss = Loss {
                    kept: b & 15,
                    is_torn: code >> 20 & 1 == 1,
                    keeps_vote: code >> 21 & 1 == 1,
                    cut: (code >> 24) as u8,
                };
                Self::Crash(a, loss)
            }
            18 => Self::Start(a),
            19 if b == 0 => Self::Rot(a, Rot::Header),
            19 => Self::Rot(a, Rot::Body),
            20 => Self::Blank(a),
            _ => Self::HandOver(a),
        }
    }

    /// Reads what [`Action`]'s `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let name = words.next()?;
        let mut number = || words.next()?.parse::<u8>().ok();
        let mut node = || number()?.checked_sub(1);
        Some(match name {
            "hear" => {
                let to = node()?;
                Self::Hear(node()?, to)
            }
            "lost" => Self::Lost(node()?, node()?),
            "close" => Self::Close(node()?, node()?),
            "connect" => Self::Connect(node()?, node()?),
            "write" => Self::Write(node()?, node()?),
            "vote" => Self::Vote(node()?),
            "rebuild" => Self::Rebuild(node()?),
            "carry" => Self::Carry(node()?),
            "answer" => Self::Answer(node()?),
            "lose" => Self::Lose(node()?),
            "late" => Self::Late(node()?),
            "forget" => Self::Forget(node()?),
            "refuse" => Self::Refuse(node()?),
            "land" => Self::Land(node()?),
            "publish" => Self::Publish(node()?),
            "beat" => Self::Beat(node()?),
            "lapse" => Self::Lapse(node()?),
            "start" => Self::Start(node()?),
            "rot-header" => Self::Rot(node()?, Rot::Header),
            "rot-body" => Self::Rot(node()?, Rot::Body),
            "blank" => Self::Blank(node()?),
            "hand-over" => Self::HandOver(node()?),
            "crash" => return Self::parse_crash(text),
            _ => return None,
        })
    }

    fn parse_crash(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace().skip(1);
        let at = words.next()?.parse::<u8>().ok()?.checked_sub(1)?;
        let mut loss = Loss {
            kept: 0,
            is_torn: false,
            keeps_vote: false,
            cut: 0,
        };
        for word in words {
            match word.split_once('=') {
                Some(("kept", writes)) => {
                    for write in writes.split('+') {
                        loss.kept |= 1 << write.parse::<u8>().ok()?.checked_sub(1)?;
                    }
                }
                Some(("cut", pages)) => loss.cut = pages.parse().ok()?,
                None if word == "torn" => loss.is_torn = true,
                None if word == "voted" => loss.keeps_vote = true,
                _ => return None,
            }
        }
        Some(Self::Crash(at, loss))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, nodes): (&str, &[u8]) = match self {
            Self::Hear(from, to) => ("hear", &[*to, *from]),
            Self::Lost(at, peer) => ("lost", &[*at, *peer]),
            Self::Close(at, peer) => ("close", &[*at, *peer]),
            Self::Connect(a, b) => ("connect", &[*a, *b]),
            Self::Write(at, place) => ("write", &[*at, *place]),
            Self::Vote(at) => ("vote", &[*at]),
            Self::Rebuild(at) => ("rebuild", &[*at]),
            Self::Carry(at) => ("carry", &[*at]),
            Self::Answer(at) => ("answer", &[*at]),
            Self::Lose(at) => ("lose", &[*at]),
            Self::Late(at) => ("late", &[*at]),
            Self::Forget(at) => ("forget", &[*at]),
            Self::Refuse(at) => ("refuse", &[*at]),
            Self::Land(place) => ("land", &[*place]),
            Self::Publish(at) => ("publish", &[*at]),
            Self::Beat(at) => ("beat", &[*at]),
            Self::Lapse(at) => ("lapse", &[*at]),
            Self::Crash(at, _) => ("crash", &[*at]),
            Self::Start(at) => ("start", &[*at]),
            Self::Rot(at, Rot::Header) => ("rot-header", &[*at]),
            Self::Rot(at, Rot::Body) => ("rot-body", &[*at]),
            Self::Blank(at) => ("blank", &[*at]),
            Self::HandOver(at) => ("hand-over", &[*at]),
        };
        write!(f, "{name}")?;
        for node in nodes {
            write!(f, " {}", node + 1)?;
        }
        if let Self::Crash(_, loss) = self {
            if loss.kept != 0 {
                let writes = (0..8).filter(|at| loss.kept >> at & 1 == 1);
                let writes: Vec<String> = writes.map(|at| (at + 1).to_string()).collect();
                write!(f, " kept={}", writes.join("+"))?;
            }
            if loss.is_torn {
                write!(f, " torn")?;
            }
            if loss.keeps_vote {
                write!(f, " voted")?;
            }
            if loss.cut != 0 {
                write!(f, " cut={}", loss.cut)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_come_back_from_their_codes_and_texts() {
        let loss = Loss {
            kept: 3,
            is_torn: true,
            keeps_vote: true,
            cut: 2,
        };
        let mut actions = vec![
            Action::Hear(0, 2),
            Action::Lost(1, 0),
            Action::Close(0, 1),
            Action::Connect(1, 2),
            Action::Write(1, 1),
            Action::Land(1),
            Action::Rot(1, Rot::Header),
            Action::Rot(1, Rot::Body),
            Action::Crash(2, loss),
        ];
        let of_one: [fn(u8) -> Action; 14] = [
            Action::Vote,
            Action::Rebuild,
            Action::Carry,
            Action::Answer,
            Action::Lose,
            Action::Late,
            Action::Forget,
            Action::Refuse,
            Action::Publish,
            Action::Beat,
            Action::Lapse,
            Action::Start,
            Action::Blank,
            Action::HandOver,
        ];
        actions.extend(of_one.iter().map(|action| action(1)));
        for action in actions {
            assert_eq!(Action::from_code(action.code()), action);
            assert_eq!(Action::parse(&action.to_string()), Some(action));
        }
    }
}
