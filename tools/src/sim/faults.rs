//! What goes wrong in a run: a list made from the seed before the run begins.
//!
//! A list can be shortened: every fault has a number and randomness of its own, so leaving one out leaves the others what
//! they are. That is how a failure is shrunk, and how it is replayed (`--without`).
//!
//! # Budget
//!
//! What the promise of a node standing alone covers: crashes and cuts of power at any moment, torn writes, errors, stalls,
//! anything on the network, any behaviour of clients. Such a run must end with everything acknowledged and
//! delivered. In a group that releases nothing with fewer than two copies a run may also damage one copy, always the same
//! node's, by rot or by a blank disk, and must end the same ([`Damage::OneCopy`]). While a blank disk is being filled the
//! others are spared crashes and errors: they would be a second loss at the same time. A run that is *beyond* may damage
//! every copy; there the one right answer is a halt or a report that says so (or an alarm of the client that knows more),
//! and nothing altered may reach anyone ([`Damage::EveryCopy`]).
//!
//! What themes of their own add, and what they then spare the rest, is said in `faults/themed.rs`.

pub(crate) mod themed;

use crate::clock::{MILLISECOND, SECOND};
use crate::random::Random;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    Kill {
        node: usize,
    },
    KillAtEffect {
        node: usize,
        effects: u32,
        cuts_power: bool,
    },
    CutPower {
        node: usize,
    },
    /// Killed now, and again in the middle of the start that follows.
    CrashStarting {
        node: usize,
        steps: u32,
        cuts_power: bool,
    },
    Stop {
        node: usize,
    },
    Freeze {
        node: usize,
        for_ns: u64,
    },
    StepClock {
        node: usize,
        by_ms: i64,
    },
    Stall {
        node: usize,
        for_ns: u64,
    },
    FailWrite {
        node: usize,
    },
    FailSync {
        node: usize,
    },
    FailRead {
        node: usize,
    },
    DamageCheckpoint {
        node: usize,
    },
    NoSpace {
        node: usize,
        for_ns: u64,
    },
    Rot {
        node: usize,
    },
    /// The same place on every node.
    RotEverywhere,
    LoseWrite {
        node: usize,
    },
    MisdirectWrite {
        node: usize,
    },
    AgeRead {
        node: usize,
    },
    Lie {
        node: usize,
        for_ns: u64,
    },
    Snapshot {
        node: usize,
    },
    OldCopy {
        node: usize,
    },
    Blank {
        node: usize,
    },
    /// The power is out for a while.
    PowerOut {
        node: usize,
        for_ns: u64,
    },
    /// Somebody makes a backup of the arbiter.
    BackUp,
    /// The arbiter comes back from its backup.
    Restore,
    ArbiterDown {
        for_ns: u64,
    },
    ArbiterSlow {
        for_ns: u64,
    },
    SwapInDoubt,
    HandOver {
        node: usize,
    },
    Detach {
        node: usize,
        for_ns: u64,
    },
    LoseConnection,
    Partition {
        from: usize,
        to: usize,
        is_both: bool,
        for_ns: u64,
    },
    Isolate {
        host: usize,
        for_ns: u64,
    },
    Clog {
        from: usize,
        to: usize,
        extra_ns: u64,
        for_ns: u64,
    },
    Silence {
        client: usize,
        for_ns: u64,
    },
    NewIncarnation {
        client: usize,
    },
    SecondConnection {
        client: usize,
    },
    GoBack {
        client: usize,
        by: u32,
    },
    Pause {
        client: usize,
        for_ns: u64,
    },
    Leave {
        client: usize,
        for_ns: u64,
    },
    StartAnew {
        client: usize,
    },
    AskWrongly {
        client: usize,
    },
    Stranger {
        node: usize,
    },
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let ms = |ns: u64| ns / MILLISECOND;
        match *self {
            Self::Kill { node } => write!(f, "kill node {node}"),
            Self::KillAtEffect {
                node,
                effects,
                cuts_power,
            } => {
                let how = if cuts_power { "cut node" } else { "kill node" };
                write!(f, "{how} {node} after {effects} more effects")
            }
            Self::CutPower { node } => write!(f, "cut the power of node {node}"),
            Self::CrashStarting {
                node,
                steps,
                cuts_power,
            } => {
                let how = if cuts_power { "cut" } else { "kill" };
                write!(
                    f,
                    "kill node {node}, and {how} it {steps} steps into its start"
                )
            }
            Self::Stop { node } => write!(f, "stop node {node} in order"),
            Self::Freeze { node, for_ns } => write!(f, "freeze node {node} for {} ms", ms(for_ns)),
            Self::StepClock { node, by_ms } => write!(f, "step node {node}'s clock by {by_ms} ms"),
            Self::Stall { node, for_ns } => {
                write!(f, "stall the disk of node {node} for {} ms", ms(for_ns))
            }
            Self::FailWrite { node } => write!(f, "fail the next write of node {node}"),
            Self::FailSync { node } => write!(f, "fail the next sync of node {node}"),
            Self::FailRead { node } => write!(f, "fail the next read of node {node}"),
            Self::DamageCheckpoint { node } => write!(f, "damage a checkpoint of node {node}"),
            Self::NoSpace { node, for_ns } => {
                write!(
                    f,
                    "no space is prepared on node {node} for {} ms",
                    ms(for_ns)
                )
            }
            Self::Rot { node } => write!(f, "a bit of node {node}'s log rots"),
            Self::RotEverywhere => write!(f, "the same block rots on every node"),
            Self::LoseWrite { node } => write!(f, "node {node}'s disk loses the next write"),
            Self::MisdirectWrite { node } => write!(f, "node {node}'s next write goes astray"),
            Self::AgeRead { node } => write!(f, "node {node}'s next read is stale"),
            Self::Lie { node, for_ns } => {
                write!(
                    f,
                    "node {node}'s disk lies about durability for {} ms",
                    ms(for_ns)
                )
            }
            Self::Snapshot { node } => write!(f, "somebody copies node {node}'s disk"),
            Self::OldCopy { node } => write!(f, "node {node} gets the copied disk"),
            Self::Blank { node } => write!(f, "node {node} gets a blank disk"),
            Self::PowerOut { node, for_ns } => {
                write!(f, "node {node} is without power for {} ms", ms(for_ns))
            }
            Self::BackUp => write!(f, "somebody makes a backup of the arbiter"),
            Self::Restore => write!(f, "the arbiter comes back from its backup"),
            Self::ArbiterDown { for_ns } => {
                write!(f, "nobody reaches the arbiter for {} ms", ms(for_ns))
            }
            Self::ArbiterSlow { for_ns } => write!(f, "a slow arbiter for {} ms", ms(for_ns)),
            Self::SwapInDoubt => write!(f, "nobody hears what comes of the next change"),
            Self::HandOver { node } => write!(f, "node {node} is told to hand over"),
            Self::Detach { node, for_ns } => {
                write!(f, "node {node} is detached for {} ms", ms(for_ns))
            }
            Self::LoseConnection => write!(f, "a connection is lost"),
            Self::Partition {
                from,
                to,
                is_both,
                for_ns,
            } => {
                let way = if is_both { "between" } else { "one way, of" };
                write!(
                    f,
                    "nothing passes {way} hosts {from} and {to} for {} ms",
                    ms(for_ns)
                )
            }
            Self::Isolate { host, for_ns } => {
                write!(f, "host {host} is cut off for {} ms", ms(for_ns))
            }
            Self::Clog {
                from,
                to,
                extra_ns,
                for_ns,
            } => write!(
                f,
                "from host {from} to {to} everything takes {} us more for {} ms",
                extra_ns / 1_000,
                ms(for_ns)
            ),
            Self::Silence { client, for_ns } => {
                write!(f, "client {client} goes silent for {} ms", ms(for_ns))
            }
            Self::NewIncarnation { client } => {
                write!(f, "client {client} begins a new incarnation")
            }
            Self::SecondConnection { client } => write!(f, "client {client} logs on a second time"),
            Self::GoBack { client, by } => write!(f, "client {client} sends its last {by} again"),
            Self::Pause { client, for_ns } => {
                write!(f, "client {client} reads nothing for {} ms", ms(for_ns))
            }
            Self::Leave { client, for_ns } => {
                write!(f, "client {client} leaves for {} ms", ms(for_ns))
            }
            Self::StartAnew { client } => write!(f, "client {client} starts somewhere else"),
            Self::AskWrongly { client } => write!(f, "client {client} asks for what is not there"),
            Self::Stranger { node } => write!(f, "a stranger talks to node {node}"),
        }
    }
}

/// How much the disks of a run may damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Nothing.
    None,
    /// One node's copy, in a group that releases nothing with fewer than two.
    OneCopy,
    /// All there are.
    EveryCopy,
}

impl Fault {
    /// The node whose process ends by it, or whose disk fails.
    pub(crate) const fn crashes(&self) -> Option<usize> {
        match *self {
            Self::Kill { node }
            | Self::KillAtEffect { node, .. }
            | Self::CutPower { node }
            | Self::PowerOut { node, .. }
            | Self::CrashStarting { node, .. }
            | Self::Stop { node }
            | Self::FailWrite { node }
            | Self::FailSync { node }
            | Self::FailRead { node } => Some(node),
            _ => None,
        }
    }

    /// Whether it is all about clients, and nothing between the nodes.
    pub(crate) const fn is_of_clients(&self) -> bool {
        matches!(
            self,
            Self::Silence { .. }
                | Self::NewIncarnation { .. }
                | Self::SecondConnection { .. }
                | Self::GoBack { .. }
                | Self::Pause { .. }
                | Self::Leave { .. }
                | Self::StartAnew { .. }
                | Self::AskWrongly { .. }
        )
    }
}

/// A fault and when it strikes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scheduled {
    pub(crate) at_ns: u64,
    pub(crate) fault: Fault,
    /// Seed of what the fault itself draws.
    pub(crate) seed: u64,
}

/// Kinds of fault, as a run weighs them against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    KillAtEffect,
    CutPower,
    CrashStarting,
    Stop,
    Freeze,
    StepClock,
    Stall,
    FailWrite,
    FailSync,
    FailRead,
    DamageCheckpoint,
    NoSpace,
    ArbiterDown,
    ArbiterSlow,
    SwapInDoubt,
    HandOver,
    Detach,
    LoseConnection,
    Partition,
    Isolate,
    Clog,
    Silence,
    NewIncarnation,
    SecondConnection,
    GoBack,
    Pause,
    Leave,
    StartAnew,
    AskWrongly,
    Stranger,
}

impl Kind {
    /// Whether there is anything for it to hit.
    const fn is_in(self, cast: Cast) -> bool {
        let is_groups = matches!(
            self,
            Self::ArbiterDown
                | Self::ArbiterSlow
                | Self::SwapInDoubt
                | Self::HandOver
                | Self::Detach
        );
        !is_groups || cast.nodes > 1
    }
}

/// Every kind the promise of a single node covers, and the most it may weigh.
const COVERED: [(Kind, u32); 31] = [
    (Kind::Kill, 6),
    (Kind::KillAtEffect, 8),
    (Kind::CutPower, 8),
    (Kind::CrashStarting, 6),
    (Kind::Stop, 3),
    (Kind::Freeze, 4),
    (Kind::StepClock, 4),
    (Kind::Stall, 4),
    (Kind::FailWrite, 2),
    (Kind::FailSync, 2),
    (Kind::FailRead, 3),
    (Kind::DamageCheckpoint, 4),
    (Kind::NoSpace, 3),
    (Kind::ArbiterDown, 4),
    (Kind::ArbiterSlow, 3),
    (Kind::SwapInDoubt, 6),
    (Kind::HandOver, 4),
    (Kind::Detach, 2),
    (Kind::LoseConnection, 10),
    (Kind::Partition, 8),
    (Kind::Isolate, 3),
    (Kind::Clog, 6),
    (Kind::Silence, 3),
    (Kind::NewIncarnation, 4),
    (Kind::SecondConnection, 6),
    (Kind::GoBack, 6),
    (Kind::Pause, 6),
    (Kind::Leave, 6),
    (Kind::StartAnew, 6),
    (Kind::AskWrongly, 3),
    (Kind::Stranger, 4),
];

/// Who there is to be hit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    pub(crate) nodes: usize,
    /// The last so many of them keep a copy and are not counted on.
    pub(crate) observers: usize,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
}

impl Cast {
    /// Clients are numbered publishers first.
    pub(crate) const fn clients(&self) -> usize {
        self.publishers + self.subscribers
    }

    /// Nodes that make up the set where all is well; they come first.
    pub(crate) const fn data_nodes(&self) -> usize {
        self.nodes - self.observers
    }

    /// Whether a node is an observer.
    pub(crate) const fn is_observer(&self, node: usize) -> bool {
        node >= self.data_nodes()
    }

    /// The arbiter's host; nodes have the first ones.
    pub(crate) const fn arbiter_host(&self) -> usize {
        self.nodes
    }

    /// A client's host.
    pub(crate) const fn client_host(&self, client: usize) -> usize {
        self.nodes + 1 + client
    }

    /// The strangers' host, the last.
    pub(crate) const fn stranger_host(&self) -> usize {
        self.client_host(self.clients())
    }

    /// Hosts in all.
    pub(crate) const fn hosts(&self) -> usize {
        self.stranger_host() + 1
    }
}

/// Makes the list of a run of `duration_ns`; `pause_ns` is the mean time between two faults.
pub(crate) fn draw(
    random: &mut Random,
    cast: Cast,
    duration_ns: u64,
    pause_ns: u64,
    damage: Damage,
) -> Vec<Scheduled> {
    let mut weights = Vec::new();
    for (kind, most) in COVERED {
        // Half of the kinds stay away, so that each run is about something.
        let weight = if random.chance(500_000) && kind.is_in(cast) {
            random.within(1, most.into())
        } else {
            0
        };
        weights.push((kind, weight));
    }
    let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut schedule = Vec::new();
    let mut at_ns = random.tailed(pause_ns);
    while at_ns < duration_ns && total > 0 {
        let mut choice = random.below(total);
        let found = weights.iter().find(|(_, weight)| {
            let is_it = choice < *weight;
            choice = choice.saturating_sub(*weight);
            is_it
        });
        let (kind, _) = found.expect("the choice lies below the total");
        schedule.push(Scheduled {
            at_ns,
            fault: make(*kind, random, cast),
            seed: random.next(),
        });
        at_ns += random.tailed(pause_ns);
    }
    match damage {
        Damage::None => {}
        Damage::EveryCopy if cast.nodes == 1 => {
            add_beyond(random, cast, duration_ns, &mut schedule);
        }
        _ => add_damage(random, cast, duration_ns, damage, &mut schedule),
    }
    schedule.sort_by_key(|scheduled| scheduled.at_ns);
    schedule
}

fn make(kind: Kind, random: &mut Random, cast: Cast) -> Fault {
    let node = random.below(cast.nodes as u64) as usize;
    let publisher = random.below(cast.publishers as u64) as usize;
    let subscriber = cast.publishers + random.below(cast.subscribers as u64) as usize;
    let client = random.below(cast.clients() as u64) as usize;
    let for_ns = random.tailed(400 * MILLISECOND) + MILLISECOND;
    match kind {
        Kind::Kill => Fault::Kill { node },
        Kind::KillAtEffect => Fault::KillAtEffect {
            node,
            effects: random.tailed(12) as u32,
            cuts_power: random.chance(500_000),
        },
        Kind::CutPower => Fault::CutPower { node },
        Kind::CrashStarting => Fault::CrashStarting {
            node,
            steps: random.within(1, 5) as u32,
            cuts_power: random.chance(500_000),
        },
        Kind::Stop => Fault::Stop { node },
        Kind::Freeze => Fault::Freeze { node, for_ns },
        Kind::StepClock => Fault::StepClock {
            node,
            by_ms: random.pick(&[-3_600_000, -5_000, -20, 20, 5_000, 3_600_000]),
        },
        Kind::Stall => Fault::Stall { node, for_ns },
        Kind::FailWrite => Fault::FailWrite { node },
        Kind::FailSync => Fault::FailSync { node },
        Kind::FailRead => Fault::FailRead { node },
        Kind::DamageCheckpoint => Fault::DamageCheckpoint { node },
        Kind::NoSpace => Fault::NoSpace {
            node,
            for_ns: 2 * for_ns,
        },
        Kind::ArbiterDown => Fault::ArbiterDown { for_ns },
        Kind::ArbiterSlow => Fault::ArbiterSlow { for_ns: 2 * for_ns },
        Kind::SwapInDoubt => Fault::SwapInDoubt,
        Kind::HandOver => Fault::HandOver { node },
        Kind::Detach => Fault::Detach { node, for_ns },
        Kind::LoseConnection => Fault::LoseConnection,
        Kind::Partition => {
            let other = pick_peer(random, cast, node, client);
            let is_both = random.chance(500_000);
            let (from, to) = if random.chance(500_000) {
                (node, other)
            } else {
                (other, node)
            };
            Fault::Partition {
                from,
                to,
                is_both,
                for_ns,
            }
        }
        Kind::Isolate => Fault::Isolate {
            host: random.pick(&[node, cast.client_host(client)]),
            for_ns,
        },
        Kind::Clog => {
            let other = pick_peer(random, cast, node, client);
            let (from, to) = if random.chance(500_000) {
                (node, other)
            } else {
                (other, node)
            };
            let extra_ns = random.tailed(20 * MILLISECOND);
            Fault::Clog {
                from,
                to,
                extra_ns,
                for_ns,
            }
        }
        Kind::Silence => Fault::Silence {
            client,
            for_ns: 4 * for_ns,
        },
        Kind::NewIncarnation => Fault::NewIncarnation { client: publisher },
        Kind::SecondConnection => Fault::SecondConnection { client: publisher },
        Kind::GoBack => Fault::GoBack {
            client: publisher,
            by: random.tailed(40) as u32 + 1,
        },
        Kind::Pause => Fault::Pause {
            client: subscriber,
            for_ns: 2 * for_ns,
        },
        Kind::Leave => Fault::Leave { client, for_ns },
        Kind::StartAnew => Fault::StartAnew { client: subscriber },
        Kind::AskWrongly => Fault::AskWrongly { client: subscriber },
        Kind::Stranger => Fault::Stranger { node },
    }
}

/// A host that `node` talks to: mostly a client, in a group another node or the arbiter.
fn pick_peer(random: &mut Random, cast: Cast, node: usize, client: usize) -> usize {
    if cast.nodes == 1 || random.chance(300_000) {
        return cast.client_host(client);
    }
    let other = random.below(cast.nodes as u64) as usize;
    if other == node {
        cast.arbiter_host()
    } else {
        other
    }
}

/// One kind of damage to the only copy, once or a few times, each followed by a crash that may bring it to light.
fn add_beyond(random: &mut Random, cast: Cast, duration_ns: u64, schedule: &mut Vec<Scheduled>) {
    let node = random.below(cast.nodes as u64) as usize;
    let kind = random.below(7);
    let times = random.within(1, 3);
    let mut add = |random: &mut Random, at_ns: u64, fault| {
        let seed = random.next();
        schedule.push(Scheduled { at_ns, fault, seed });
    };
    if kind == 6 {
        let at_ns = random.below(duration_ns / 2);
        add(random, at_ns, Fault::Snapshot { node });
    }
    for _ in 0..times {
        let at_ns = random.within(duration_ns / 2, duration_ns - 1);
        let fault = match kind {
            0 => Fault::Rot { node },
            1 => Fault::LoseWrite { node },
            2 => Fault::MisdirectWrite { node },
            3 => Fault::AgeRead { node },
            4 => Fault::Lie {
                node,
                for_ns: SECOND,
            },
            5 => Fault::Blank { node },
            _ => Fault::OldCopy { node },
        };
        add(random, at_ns, fault);
        let crash_ns = at_ns + random.tailed(300 * MILLISECOND);
        let crash = if random.chance(500_000) {
            Fault::CutPower { node }
        } else {
            Fault::Kill { node }
        };
        add(random, crash_ns.min(duration_ns), crash);
    }
}

/// Damage in a group: to one copy or to all, a few times, each followed by crashes that may bring it to light.
fn add_damage(
    random: &mut Random,
    cast: Cast,
    duration_ns: u64,
    damage: Damage,
    schedule: &mut Vec<Scheduled>,
) {
    let node = random.below(cast.nodes as u64) as usize;
    let is_blank = random.chance(400_000);
    for _ in 0..random.within(1, 4) {
        let at_ns = random.within(duration_ns / 4, duration_ns - 1);
        let (fault, crashed) = match damage {
            Damage::EveryCopy => (Fault::RotEverywhere, 0..cast.nodes),
            _ if is_blank => (Fault::Blank { node }, 0..0),
            _ if random.chance(500_000) => (Fault::Rot { node }, 0..cast.nodes),
            _ => (Fault::Rot { node }, node..node + 1),
        };
        let seed = random.next();
        schedule.push(Scheduled { at_ns, fault, seed });
        for node in crashed {
            let delay_ns = random.pick(&[10, 300]) * MILLISECOND;
            let at_ns = (at_ns + random.tailed(delay_ns)).min(duration_ns);
            let fault = if random.chance(500_000) {
                Fault::CutPower { node }
            } else {
                Fault::Kill { node }
            };
            let seed = random.next();
            schedule.push(Scheduled { at_ns, fault, seed });
        }
    }
}
