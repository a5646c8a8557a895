//! One life of a stream: from a recovered journal to agents on threads, and to how it ended.
//!
//! A node without a group has one; a node of a group lives again, in the same process, each time it has to begin from its disk.
//! What outlives a life (the listening sockets, the memory ring, the clock, the counters) is kept by [`Ground`].

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use relay_core::command::{Now, Testimony};
use relay_core::credential::CredentialBook;
use relay_core::fanout::Fanout;
use relay_core::group::{Carry, Vote};
use relay_core::ingress::Ingress;
use relay_core::node::{Node, Start};
use relay_core::sequence::{Beginning, Sequence};
use relay_journal::superblock::WriteMethod;
use relay_journal::tables::Tables;
use relay_wire::code::Policy;
use relay_wire::id::Epoch;
use relay_wire::membership::Member;

use super::StartError;
use super::journal::{self, Cut, Ready};
use crate::admin::Admin;
use crate::arbiter;
use crate::arena::{LogRing, Pages};
use crate::clock::Clock;
use crate::clock_watch::ClockWatch;
use crate::config::{GroupConfig, LOGGED_SPAN_MAX, StreamConfig, ThreadingMode};
use crate::counters::CounterFile;
use crate::evidence::{Evidence, TESTIMONIES_MAX};
use crate::housekeeping::{Housekeeping, HousekeepingParts};
use crate::keeper;
use crate::link::{Answered, Parking, PositionCell};
use crate::pipeline::{self, Agents, Ending, ThreadParts};
use crate::preparation::{Preparation, PreparationParts};
use crate::released_log::ReleasedLog;
use crate::scrubber::{self, PeersEnd, ScrubParts, Scrubber};
use crate::seal_file::LogFacts;
use crate::sealing::{Sealing, SealingParts};
use crate::stage::egress::{EgressAgent, EgressParts};
use crate::stage::ingress::{IngressAgent, IngressParts};
use crate::stage::replicate::{ReplicateAgent, ReplicateParts};
use crate::stage::sequence::{GroupParts, SequenceAgent, SequenceParts};
use crate::stage::{Doubts, End, ToEgress};
use crate::storage::{Segments, Storage};

/// Places in the links between the agents.
const LINK_PLACES: usize = 1 << 14;

/// What all lives of a stream stand on.
pub(super) struct Ground {
    pub(super) config: StreamConfig,
    /// `None` between two lives.
    pub(super) listener: Option<OwnedFd>,
    /// Where it is bound.
    pub(super) address: SocketAddr,
    /// On a node of a group.
    pub(super) mirror_listener: Option<OwnedFd>,
    pub(super) credentials: Arc<CredentialBook>,
    pub(super) ring: Arc<LogRing>,
    pub(super) clock: Clock,
    pub(super) counters: CounterFile,
    pub(super) admin: Admin,
}

/// Why a life begins, where it is not the first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    pub(super) carry: Carry,
    pub(super) cut: Option<Cut>,
}

/// A life that goes on.
pub(super) struct Life {
    pub(super) ending: Arc<Ending>,
    threads: Vec<JoinHandle<()>>,
    /// Housekeeping, the preparation of space, and the scrubber where there is one.
    background: Vec<JoinHandle<()>>,
    stop_background: Arc<AtomicBool>,
    storage: Holder,
}

/// Who has the superblock.
enum Holder {
    Here(Storage),
    Keeper(JoinHandle<keeper::Kept>),
}

/// The ends of the links between the agents.
struct Links {
    parkings: Vec<Parking>,
    floor: PositionCell,
    kept_from: PositionCell,
    released: PositionCell,
    received: Arc<Pages>,
    buffer_size: usize,
    buffers: u32,
}

impl Life {
    /// Recovers the journal and starts the threads.
    pub(super) fn begin(
        ground: &mut Ground,
        mut storage: Storage,
        again: Option<Again>,
    ) -> Result<Self, StartError> {
        if let Some(cut) = again.and_then(|again| again.cut) {
            journal::cut(&ground.config, &mut storage, &cut)?;
        }
        let ready = journal::recover_for_writing(&ground.config, &mut storage)?;
        let carry = again.map(|again| again.carry);
        match ground.config.group.clone() {
            None => Self::alone(ground, storage, ready),
            Some(group) => Self::of_group(ground, &group, storage, ready, carry),
        }
    }

    fn alone(ground: &mut Ground, storage: Storage, ready: Ready) -> Result<Self, StartError> {
        let (config, now) = (&ground.config, ground.clock.now());
        let settings = &config.settings;
        let tables = &ready.recovered.tables;
        let method = write_method(config, &storage);
        ground.counters.counter("epoch").set(ready.epoch.get());
        let beginning = Beginning {
            tables,
            epoch: ready.epoch,
            was_clean: ready.was_clean,
            write_method: method,
            prepared: ready.segments.end(),
            now,
        };
        let credentials = &ground.credentials;
        let mut sequence = Sequence::new(settings.clone(), Arc::clone(credentials), &beginning);
        let known = tables
            .trading_session
            .as_ref()
            .map(|session| session.number);
        let configured = config.trading_session.as_ref();
        let opened = configured.filter(|(number, _)| Some(*number) > known);
        {
            let (ring, tail) = (&ground.ring, tables.position);
            // SAFETY: no thread runs yet; nobody else has the ring.
            let mut window = unsafe { ring.window(tail, tail.plus(ring.size())) };
            let session = opened.map(|(number, name)| (*number, name.as_str()));
            sequence.open_epoch(&beginning, session, &mut window);
        }
        let session_number = opened.map(|(number, _)| *number).or(known).unwrap_or(0);
        let ingress = Ingress::new(
            settings.clone(),
            Arc::clone(credentials),
            ready.epoch,
            session_number,
            tables.next_seq,
        );
        let fanout = Fanout::new(
            settings.clone(),
            Arc::clone(credentials),
            tables,
            ready.epoch,
        );
        let node = Node::alone(settings.clone(), Arc::clone(credentials), sequence);
        let links = Links::new(ground, tables.position)?;
        let parts = Parts {
            node,
            ingress,
            fanout: Some(fanout),
            group: None,
            to_egress: None,
            doubts: None,
            replicate: None,
            peers: None,
            method,
        };
        Self::spawn(ground, ready, &links, parts, Holder::Here(storage))
    }

    fn of_group(
        ground: &mut Ground,
        group: &GroupConfig,
        storage: Storage,
        ready: Ready,
        carry: Option<Carry>,
    ) -> Result<Self, StartError> {
        let (config, now) = (&ground.config, ground.clock.now());
        let settings = &config.settings;
        let tables = &ready.recovered.tables;
        let method = write_method(config, &storage);
        let node = group_node(ground, group, &storage, &ready, carry, now)?;
        let mut ingress = Ingress::new(
            settings.clone(),
            Arc::clone(&ground.credentials),
            Epoch(0),
            0,
            tables.next_seq,
        );
        ingress.stand_by();
        let links = Links::new(ground, tables.position)?;
        let hot = links.parkings[1].clone();
        let name = format!("keeper-{}", settings.stream);
        let unsaid = ground.counters.counter("group.notes_unsaid");
        let arbiter_answered = Answered::new(hot.clone());
        let answer = arbiter_answered.clone();
        let arbiter = arbiter::start(&group.arbiter, move || answer.raise())?;
        let own = arbiter.own_register();
        let (keeper, thread) = keeper::start(storage, own, name, hot.clone(), unsaid)?;
        let nodes: Vec<_> = group.peers.iter().map(|(peer, _)| peer.node).collect();
        let (peers, scrub) = scrubber::way_to(nodes.clone(), hot.clone());
        let (to_egress_in, to_egress) = rtrb::RingBuffer::new(16);
        let doubts = Doubts {
            raised: Answered::new(links.parkings[1].clone()),
            raised_ns: Arc::default(),
            settled: Answered::new(links.parkings[2].clone()),
            asked_ns: Arc::default(),
        };
        let listener = ground
            .mirror_listener
            .as_ref()
            .expect("a node of a group listens for its peers");
        let replicate = ReplicateAgent::new(
            ReplicateParts {
                listener: listener.as_fd().try_clone_to_owned()?,
                peers: group.peers.iter().map(|(_, address)| *address).collect(),
                segments: ready.segments.clone(),
                message_length_max: node.link_message_length_max(),
                dial_patience_ns: node.link_dial_patience_ns(),
                read_length_max: settings.block_span_max().max(LOGGED_SPAN_MAX),
            },
            &mut ground.counters,
        )?;
        let parts = Parts {
            node,
            ingress,
            fanout: None,
            group: Some(GroupParts {
                settings: ground.config.settings.clone(),
                credentials: Arc::clone(&ground.credentials),
                to_egress: to_egress_in,
                doubts: doubts.clone(),
                keeper,
                arbiter,
                arbiter_answered,
                peers: nodes,
                scrub,
            }),
            to_egress: Some(to_egress),
            doubts: Some(doubts),
            replicate: Some(replicate),
            peers: Some(peers),
            method,
        };
        Self::spawn(ground, ready, &links, parts, Holder::Keeper(thread))
    }

    fn spawn(
        ground: &mut Ground,
        ready: Ready,
        links: &Links,
        mut parts: Parts,
        storage: Holder,
    ) -> Result<Self, StartError> {
        let (ready_segments, tables) = (ready.segments, ready.recovered.tables);
        let peers = parts.peers.take();
        let (testimonies, testimonies_out) = rtrb::RingBuffer::new(TESTIMONIES_MAX);
        let agents = agents(ground, &ready_segments, links, parts, testimonies_out)?;
        let evidence = Evidence {
            sealing: sealing(ground, &ready_segments, &tables),
            clock: ClockWatch::new(
                ground.config.settings.node,
                ground.clock.clone(),
                &ground.config.evidence,
                &mut ground.counters,
            ),
            testimonies,
            hot: links.parkings[1].clone(),
        };
        let config = &ground.config;
        let ending = Arc::new(Ending::default());
        let stop_background = Arc::new(AtomicBool::new(false));
        let scrubber = config.scrub.map(|pace| {
            let parts = ScrubParts {
                directory: config.directory.clone(),
                stream: config.settings.stream,
                geometry: ready_segments.geometry(),
                segments: ready_segments.clone(),
                released: links.released.clone(),
                pace,
                peers,
                stop: Arc::clone(&stop_background),
            };
            Scrubber::new(parts, &mut ground.counters)
        });
        let preparation = Preparation::new(
            PreparationParts {
                directory: config.directory.clone(),
                segments: ready_segments.clone(),
                released: links.released.clone(),
                ahead: config.prepared,
                rate_max: config.prepare_rate,
                block_room: 2 * u64::from(config.settings.block_span_max()),
                stop: Arc::clone(&stop_background),
            },
            &mut ground.counters,
        );
        let housekeeping = Housekeeping::new(
            HousekeepingParts {
                directory: config.directory.clone(),
                superblock: ready.superblock,
                log: ReleasedLog {
                    ring: Arc::clone(&ground.ring),
                    kept_from: links.kept_from.clone(),
                    segments: ready_segments,
                },
                tables,
                released: links.released.clone(),
                checkpoint_every: config.checkpoint_every,
                stop: Arc::clone(&stop_background),
                evidence,
            },
            &mut ground.counters,
        )?;
        let mut threads = Vec::new();
        for (at, (name, agents)) in agents.into_iter().enumerate() {
            let mut counter = |what: &str| {
                let label = format!("thread.{name}.{what}");
                ground.counters.counter(&label)
            };
            let parts = ThreadParts {
                allocations: counter("allocations"),
                turn_ns_max: counter("turn_ns_max"),
                name: format!("{name}-{}", config.settings.stream),
                cpu: config.cpus.get(at).copied(),
                idle: config.idle,
                parking: links.parkings[at].clone(),
                clock: ground.clock.clone(),
                ending: Arc::clone(&ending),
            };
            threads.push(pipeline::spawn(parts, agents)?);
        }
        let stream = config.settings.stream;
        let thread = |name: &str| std::thread::Builder::new().name(format!("{name}-{stream}"));
        let mut background = vec![
            thread("housekeeping").spawn(move || housekeeping.run())?,
            thread("preparation").spawn(move || preparation.run())?,
        ];
        if let Some(scrubber) = scrubber {
            background.push(thread("scrubber").spawn(move || scrubber.run())?);
        }
        Ok(Self {
            ending,
            threads,
            background,
            stop_background,
            storage,
        })
    }

    /// Waits for the threads; how it ended, and the superblock's owner.
    pub(super) fn finish(self) -> Result<(Option<End>, Storage), StartError> {
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| "a hot thread ended in a panic; see the log")?;
        }
        self.stop_background.store(true, Ordering::Release);
        for thread in self.background {
            thread
                .join()
                .map_err(|_| "a background thread ended in a panic; see the log")?;
        }
        let (storage, fault) = match self.storage {
            Holder::Here(storage) => (storage, None),
            Holder::Keeper(thread) => thread
                .join()
                .map_err(|_| "the keeper of the vote ended in a panic; see the log")?,
        };
        // A vote that nobody waited for any more may have failed too.
        let end = match (self.ending.outcome(), fault) {
            (Some(end), Some(what)) => Some(end.and(End::Fault(what))),
            (end, _) => end,
        };
        Ok((end, storage))
    }
}

/// The seals of the journal, opened where they stand, if there are to be any.
fn sealing(ground: &mut Ground, segments: &Segments, tables: &Tables) -> Option<Sealing> {
    let config = &ground.config;
    if !config.evidence.seals {
        return None;
    }
    let settings = &config.settings;
    // What a node without a group recovered is on the one disk that counts.
    let released = match config.group {
        None => tables.position,
        Some(_) => tables.released.min(tables.position),
    };
    let parts = SealingParts {
        directory: config.directory.clone(),
        key_file: config.seal_key_file(),
        segments: segments.clone(),
        log: LogFacts {
            stream: settings.stream,
            geometry: segments.geometry(),
            tail: tables.position,
            epoch: tables.epoch,
        },
        node: settings.node,
        released,
        clock: ground.clock.clone(),
    };
    Some(Sealing::new(parts, &mut ground.counters))
}

/// A node of a group as its journal and the configuration make it.
fn group_node(
    ground: &Ground,
    group: &GroupConfig,
    storage: &Storage,
    ready: &Ready,
    carry: Option<Carry>,
    now: Now,
) -> Result<Node, StartError> {
    let settings = &ground.config.settings;
    let superblock = storage.superblock();
    let process = random()?;
    let identity = Member {
        node: settings.node,
        incarnation: superblock.disk_incarnation,
        // Where memory counts as a copy, whoever begins again has lost it.
        process: if settings.policy == Policy::Mirrored {
            process
        } else {
            0
        },
    };
    let start = Start {
        tables: ready.recovered.tables.clone(),
        vote: Vote {
            promised: superblock.promised,
            committed: superblock.committed,
            nonce: superblock.committed_nonce,
            unknown_tail: superblock.unknown_tail,
            learning_from: superblock.learning_from,
        },
        carry,
        write_method: write_method(&ground.config, storage),
        prepared: ready.segments.end(),
        session: ground.config.trading_session.clone(),
        now,
    };
    Ok(Node::of_group(
        settings.clone(),
        group.settings(settings, identity, process, random()?),
        Arc::clone(&ground.credentials),
        start,
    ))
}

fn random() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

fn write_method(config: &StreamConfig, storage: &Storage) -> WriteMethod {
    config
        .write_method
        .unwrap_or(storage.superblock().write_method)
}

/// The machines, and what is there on a node of a group only.
struct Parts {
    node: Node,
    ingress: Ingress,
    fanout: Option<Fanout>,
    group: Option<GroupParts>,
    to_egress: Option<rtrb::Consumer<ToEgress>>,
    doubts: Option<Doubts>,
    replicate: Option<ReplicateAgent>,
    peers: Option<PeersEnd>,
    method: WriteMethod,
}

impl Links {
    fn new(ground: &Ground, tail: relay_wire::id::Position) -> Result<Self, StartError> {
        let settings = &ground.config.settings;
        let parkings = match ground.config.mode {
            ThreadingMode::Split => (0..3).map(|_| Parking::new()).collect::<Result<_, _>>()?,
            ThreadingMode::Shared => vec![Parking::new()?; 3],
        };
        // A publisher's buffer holds two of the longest records; some buffers more than publishers, for connections that
        // still linger while their publisher is back already.
        let buffer_size = (2 * settings.record_stride_max()).next_multiple_of(4096);
        let buffers = settings.publishers_max + 16;
        Ok(Self {
            parkings,
            floor: PositionCell::new(tail),
            kept_from: PositionCell::new(tail),
            released: PositionCell::new(tail),
            received: Arc::new(Pages::new(buffers as usize * buffer_size)?),
            buffer_size,
            buffers,
        })
    }
}

/// The agents of each thread, with the thread's name.
fn agents(
    ground: &mut Ground,
    segments: &Segments,
    links: &Links,
    parts: Parts,
    testimonies: rtrb::Consumer<Testimony>,
) -> Result<Vec<(&'static str, Agents)>, StartError> {
    let settings = ground.config.settings.clone();
    let listener = match ground.listener.take() {
        Some(listener) => listener,
        None => super::listen(ground.address, "listen")?.0,
    };
    let listener = ground.listener.insert(listener);
    let counters = &mut ground.counters;
    let parkings = &links.parkings;
    let (commands_in, commands_out) = rtrb::RingBuffer::new(LINK_PLACES);
    let (replies_in, replies_out) = rtrb::RingBuffer::new(LINK_PLACES);
    let (releases_in, releases_out) = rtrb::RingBuffer::new(LINK_PLACES);
    let (arrivals_in, arrivals_out) = rtrb::RingBuffer::new(256);
    let sequence = SequenceAgent::new(
        SequenceParts {
            node: parts.node,
            admin: ground.admin.link(parkings[1].clone()),
            group: parts.group,
            ring: Arc::clone(&ground.ring),
            received: Arc::clone(&links.received),
            receive_buffer_size: links.buffer_size,
            segments: segments.clone(),
            method: parts.method,
            commands: commands_out,
            testimonies,
            replies: replies_in,
            releases: releases_in,
            floor: links.floor.clone(),
            kept_from: links.kept_from.clone(),
            released: links.released.clone(),
            ingress: parkings[0].clone(),
            egress: parkings[2].clone(),
            write_depth: settings.write_depth,
        },
        counters,
    );
    let ingress = IngressAgent::new(
        IngressParts {
            machine: parts.ingress,
            listener: listener.as_fd().try_clone_to_owned()?,
            received: Arc::clone(&links.received),
            receive_buffer_size: links.buffer_size,
            receive_buffers: links.buffers,
            connections: settings.connections_max,
            commands: commands_in,
            replies: replies_out,
            arrivals: arrivals_in,
            sequence: parkings[1].clone(),
            egress: parkings[2].clone(),
        },
        counters,
    )?;
    let egress = EgressAgent::new(
        EgressParts {
            machine: parts.fanout,
            words: parts.to_egress,
            doubts: parts.doubts,
            ring: Arc::clone(&ground.ring),
            segments: segments.clone(),
            arrivals: arrivals_out,
            releases: releases_out,
            floor: links.floor.clone(),
            released: links.floor.read(),
            subscribers: settings.subscribers_max,
            replay_slots: settings.replay_slots,
            replay_slot_size: settings.replay_slot_size,
        },
        counters,
    )?;
    let first = Agents {
        ingress: Some(ingress),
        ..Agents::default()
    };
    let second = Agents {
        sequence: Some(sequence),
        replicate: parts.replicate,
        ..Agents::default()
    };
    let third = Agents {
        egress: Some(egress),
        ..Agents::default()
    };
    Ok(match ground.config.mode {
        ThreadingMode::Split => vec![("ingress", first), ("sequence", second), ("egress", third)],
        ThreadingMode::Shared => {
            let all = Agents {
                ingress: first.ingress,
                egress: third.egress,
                ..second
            };
            vec![("hot", all)]
        }
    })
}
