//! The arbiter thread of a node as its machine sees it: ask, be woken, take the reply.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use relay_core::arbiter::{ArbiterAnswer, ArbiterRequest, Ask, Registers, Revision};
use relay_wire::code::Policy;
use relay_wire::id::{Epoch, NodeId, Position, StreamId};
use relay_wire::membership::{Floor, Member, Members, Membership};
use relayd::arbiter::config::{ArbiterConfig, ArbiterSection, Surroundings};
use relayd::arbiter::{self, ArbiterHandle};

use super::{LIMIT, eventually};

pub const STREAM: StreamId = StreamId(7);
pub const SECRET: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The section of a configuration file, checked as `relayd` does, for a stream named in it.
pub fn config_for(stream: StreamId, section: &str) -> ArbiterConfig {
    checked(Path::new("no-directory"), stream, section)
}

/// The same for a stream whose journal lies in `directory`.
pub fn config_in(directory: &Path, section: &str) -> ArbiterConfig {
    checked(directory, STREAM, section)
}

fn checked(directory: &Path, stream: StreamId, section: &str) -> ArbiterConfig {
    let section: ArbiterSection = toml::from_str(section).unwrap();
    let around = Surroundings {
        file: Path::new("relayd.toml"),
        node: NodeId(1),
        stream,
        group: "test",
        secret: &SECRET,
        directory,
    };
    section.check(&around).unwrap()
}

pub fn config(section: &str) -> ArbiterConfig {
    config_for(STREAM, section)
}

/// A record of [`STREAM`] that `nonce` tells from others.
pub fn record(epoch: u64, nonce: u64) -> Membership {
    Membership {
        stream: STREAM,
        epoch: Epoch(epoch),
        nonce,
        primary: NodeId(1),
        members: Members::of(&[
            Member {
                node: NodeId(1),
                incarnation: 10,
                process: 0,
            },
            Member {
                node: NodeId(2),
                incarnation: 20,
                process: 0,
            },
        ]),
        min_copies: 1,
        policy: Policy::Durable,
    }
}

pub fn floor(position: u64) -> Floor {
    Floor {
        epoch: Epoch(1),
        position: Position(position),
        checksum: 99,
    }
}

pub fn swap(base: Revision, floor_base: Option<Revision>, next: Membership) -> Ask {
    Ask::Swap {
        base,
        floor_base,
        next,
    }
}

/// A node's arbiter thread.
pub struct Asker {
    pub handle: ArbiterHandle,
    woken: Receiver<()>,
    asked: u64,
}

impl Asker {
    pub fn start(config: &ArbiterConfig) -> Self {
        let (wake, woken) = mpsc::channel();
        let handle = arbiter::start(config, move || {
            let _ = wake.send(());
        })
        .unwrap();
        Self {
            handle,
            woken,
            asked: 0,
        }
    }

    /// Started, and connected ahead of any need.
    pub fn connected(config: &ArbiterConfig) -> Self {
        let asker = Self::start(config);
        asker.wait_connected(true);
        asker
    }

    pub fn wait_connected(&self, is_connected: bool) {
        eventually("the connection's state is told", || {
            self.handle.health().is_connected == is_connected
        });
    }

    pub fn ask(&mut self, ask: Ask) -> ArbiterAnswer {
        self.asked += 1;
        let id = self.asked;
        self.handle.ask(ArbiterRequest { id, ask }).unwrap();
        self.woken.recv_timeout(LIMIT).expect("a reply wakes");
        let reply = self.handle.poll().expect("what woke is there");
        assert_eq!(reply.id, id, "the reply names its request");
        assert_eq!(self.handle.poll(), None, "one reply to one request");
        reply.answer
    }

    pub fn read(&mut self) -> Option<Registers> {
        match self.ask(Ask::Read) {
            ArbiterAnswer::Read(registers) => registers,
            other => panic!("a read gave {other:?}"),
        }
    }

    pub fn done(&mut self, ask: Ask) -> Revision {
        match self.ask(ask) {
            ArbiterAnswer::Done(revision) => revision,
            other => panic!("{ask:?} gave {other:?}"),
        }
    }

    pub fn refused(&mut self, ask: Ask) -> Option<Registers> {
        match self.ask(ask) {
            ArbiterAnswer::Refused(registers) => registers,
            other => panic!("{ask:?} gave {other:?}"),
        }
    }
}

/// What every arbiter promises, whichever it is: the contract of `relay_core::arbiter`, asked through `config`, whose
/// stream the arbiter knows nothing of yet.
pub fn keeps_the_contract(config: &ArbiterConfig) {
    let patience = Duration::from_secs(30);
    let mut one = Asker::connected(config);
    let mut two = Asker::connected(config);

    // Nothing but an initialisation makes a record.
    assert_eq!(one.read(), None);
    for base in [Revision(0), Revision(1)] {
        let made = swap(base, None, record(2, 2));
        assert_eq!(one.refused(made), None);
        let made = swap(base, Some(Revision(0)), record(2, 2));
        assert_eq!(one.refused(made), None);
        let floor = floor(1);
        assert_eq!(one.refused(Ask::Floor { base, floor }), None);
    }
    let first = arbiter::init(config, &record(1, 1), patience).unwrap();
    let again = arbiter::init(config, &record(1, 1), patience).unwrap();
    assert_eq!(again, first, "the very same record is the one made before");
    let other = arbiter::init(config, &record(1, 2), patience).unwrap_err();
    assert!(
        other.to_string().contains("has a record already"),
        "{other}"
    );

    // Both nodes see it, and each change through the other.
    let expected = Registers {
        membership: record(1, 1),
        revision: first,
        floor: None,
        floor_revision: Revision(0),
    };
    assert_eq!((one.read(), two.read()), (Some(expected), Some(expected)));
    let second = one.done(swap(first, Some(Revision(0)), record(2, 20)));
    assert!(second > first);
    let held = two.read().unwrap();
    assert_eq!((held.membership, held.revision), (record(2, 20), second));

    // A swap asked again shows its asker that it happened; another on the same base is refused for good.
    let again = one.refused(swap(first, Some(Revision(0)), record(2, 20)));
    assert_eq!(again.unwrap().membership.nonce, 20);
    let late = two.refused(swap(first, None, record(2, 21)));
    assert_eq!(late.unwrap().revision, second);

    // The floor: written on the record's revision, compared by a candidate, ignored by a primary.
    let floor_one = one.done(Ask::Floor {
        base: second,
        floor: floor(4_096),
    });
    let floor_two = one.done(Ask::Floor {
        base: second,
        floor: floor(8_192),
    });
    assert!(floor_two > floor_one && floor_one > second);
    let held = two.read().unwrap();
    assert_eq!(
        (held.floor, held.floor_revision),
        (Some(floor(8_192)), floor_two)
    );
    assert_eq!(
        held.revision, second,
        "a floor leaves the record's revision alone"
    );
    for stale in [Revision(0), floor_one] {
        let refused = two
            .refused(swap(second, Some(stale), record(3, 30)))
            .unwrap();
        assert_eq!(refused.floor_revision, floor_two);
    }
    let third = two.done(swap(second, Some(floor_two), record(3, 31)));
    let stale = one.refused(Ask::Floor {
        base: second,
        floor: floor(12_288),
    });
    assert_eq!(stale.unwrap().revision, third);
    let fourth = one.done(swap(third, None, record(4, 40)));
    assert!(fourth > third);
    let held = two.read().unwrap();
    assert_eq!(
        held.floor,
        Some(floor(8_192)),
        "a swap leaves the floor alone"
    );
    let health = one.handle.health();
    assert!(health.is_connected && health.round_trip_us > 0);
    assert_eq!((health.connections, health.losses), (1, 0));
}

/// Two nodes swap on the same base at once, `rounds` times: exactly one wins each time, and the loser sees who.
pub fn one_wins_each_race(config: &ArbiterConfig, rounds: u64) {
    let patience = Duration::from_secs(30);
    let mut base = arbiter::init(config, &record(1, 1), patience).unwrap();
    let mut askers = [Asker::connected(config), Asker::connected(config)];
    let mut wins = [0_u64; 2];
    for round in 0..rounds {
        let nonce_of = |node: usize| round * 2 + node as u64 + 1_000;
        // Both are asked before either reply is looked at, so their threads run at once.
        for (node, asker) in askers.iter_mut().enumerate() {
            asker.asked += 1;
            let ask = swap(base, None, record(round + 2, nonce_of(node)));
            let id = asker.asked;
            asker.handle.ask(ArbiterRequest { id, ask }).unwrap();
        }
        let answers = askers.each_ref().map(|asker| {
            asker.woken.recv_timeout(LIMIT).expect("a reply wakes");
            asker.handle.poll().expect("what woke is there").answer
        });
        let winner = match answers {
            [ArbiterAnswer::Done(_), ArbiterAnswer::Refused(_)] => 0,
            [ArbiterAnswer::Refused(_), ArbiterAnswer::Done(_)] => 1,
            other => panic!("round {round}: {other:?}"),
        };
        let ArbiterAnswer::Done(revision) = answers[winner] else {
            unreachable!("it won");
        };
        let ArbiterAnswer::Refused(Some(seen)) = answers[1 - winner] else {
            panic!("round {round}: the loser saw nothing");
        };
        assert_eq!(seen.revision, revision, "round {round}");
        assert_eq!(seen.membership.nonce, nonce_of(winner), "round {round}");
        assert!(revision > base, "round {round}");
        base = revision;
        wins[winner] += 1;
    }
    println!("wins {wins:?} in {rounds} rounds");
}
