//! From a configuration to running threads: the one place that sees both.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relay_core::credential::CredentialBook;
use relay_core::fanout::Fanout;
use relay_core::ingress::Ingress;
use relay_core::sequence::{Beginning, Sequence};
use relay_core::startup as decide;
use relay_journal::reader::JournalDir;
use relay_journal::recovery::{Recovered, recover};
use relay_wire::id::Epoch;

use crate::arena::{LogRing, Pages};
use crate::clock::Clock;
use crate::config::{StreamConfig, ThreadingMode};
use crate::counters::CounterFile;
use crate::housekeeping::{Housekeeping, HousekeepingParts};
use crate::link::{Parking, PositionCell};
use crate::pipeline::{self, Agents, Ending, Outcome, ThreadParts};
use crate::stage::egress::{EgressAgent, EgressParts};
use crate::stage::ingress::{IngressAgent, IngressParts};
use crate::stage::sequence::{SequenceAgent, SequenceParts};
use crate::storage::{Segments, Storage};

/// An error for the operator; the text says what to do.
pub(crate) type StartError = Box<dyn std::error::Error + Send + Sync>;

/// Places in the links between the agents.
const LINK_PLACES: usize = 1 << 14;

/// A stream that runs.
pub(crate) struct RunningStream {
    pub(crate) id: u32,
    pub(crate) address: SocketAddr,
    storage: Storage,
    threads: Vec<JoinHandle<()>>,
    housekeeping: JoinHandle<()>,
    ending: Arc<Ending>,
    stop_housekeeping: Arc<AtomicBool>,
}

/// What recovery leaves for the start.
struct Ready {
    storage: Storage,
    segments: Segments,
    recovered: Recovered,
    epoch: Epoch,
    was_clean: bool,
}

/// Recovers the journal and opens it for writing in a new epoch.
fn open_journal(config: &StreamConfig) -> Result<Ready, StartError> {
    let begun = Instant::now();
    let mut storage = Storage::open(&config.directory)?;
    check_fit(config, &storage)?;
    let superblock = *storage.superblock();
    let journal = JournalDir::open(&config.directory)?;
    let tables = journal.newest_tables()?;
    let mut source = journal.source()?;
    let recovered = recover(&mut source, &superblock, tables, &mut |_| {})?;
    let was_clean = decide::was_clean(&recovered.tables, &superblock);
    if let Some(cut) = &recovered.cut {
        tracing::warn!(
            position = %cut.position,
            bytes = cut.leftovers,
            "the log's torn end was cut: it was never released"
        );
        storage.zero(cut.position, cut.leftovers)?;
    }
    storage.settle(recovered.tail)?;
    let segments = storage.open_segments()?;
    let epoch = decide::next_epoch(&recovered.tables, &superblock);
    let in_flight = config.settings.in_flight_bytes_max();
    storage.update(|next| {
        next.promised = epoch;
        next.clean = None;
        next.in_flight_bytes_max = next.in_flight_bytes_max.max(in_flight);
        next.ring_length = config.settings.ring_size;
    })?;
    tracing::info!(
        stream = config.name,
        tail = %recovered.tail,
        next_seq = %recovered.tables.next_seq,
        %epoch,
        was_clean,
        blocks_scanned = recovered.blocks_scanned,
        milliseconds = begun.elapsed().as_millis() as u64,
        "journal recovered"
    );
    Ok(Ready {
        storage,
        segments,
        recovered,
        epoch,
        was_clean,
    })
}

/// Refuses a journal made for something else than the configuration says.
fn check_fit(config: &StreamConfig, storage: &Storage) -> Result<(), StartError> {
    let superblock = storage.superblock();
    let settings = &config.settings;
    superblock
        .check_identity(settings.node, settings.stream)
        .map_err(|error| format!("{}: {error}", config.directory.display()))?;
    let wanted = (settings.segment_size, settings.block_alignment);
    let found = (superblock.segment_size, superblock.block_alignment);
    if wanted != found {
        return Err(format!(
            "{}: the journal was made with segment_size {} and block_alignment {}; write these into \
             the configuration",
            config.directory.display(),
            found.0,
            found.1
        )
        .into());
    }
    Ok(())
}

/// How long a port may still be held by a process that was killed: the kernel ends the operations of its ring, and with
/// them its sockets, only after the process itself is gone.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
const PORT_PAUSE: Duration = Duration::from_millis(5);

fn listen(address: SocketAddr) -> Result<(OwnedFd, SocketAddr), StartError> {
    let bind = || -> std::io::Result<(OwnedFd, SocketAddr)> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok((socket.into(), bound))
    };
    let begun = Instant::now();
    loop {
        let error = match bind() {
            Ok(bound) => return Ok(bound),
            Err(error) => error,
        };
        let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
        if is_taken && begun.elapsed() < PORT_PATIENCE {
            std::thread::sleep(PORT_PAUSE);
            continue;
        }
        let hint = if is_taken {
            ": another process has it; stop that, or change `listen` in the configuration"
        } else {
            ": correct `listen` in the configuration"
        };
        return Err(format!("listening on {address} failed ({error}){hint}").into());
    }
}

/// Starts a stream: recovery, machines, agents, threads.
pub(crate) fn start(config: &StreamConfig) -> Result<RunningStream, StartError> {
    let ready = open_journal(config)?;
    let (listener, address) = listen(config.listen)?;
    let clock = Clock::new();
    let now = clock.now();
    let settings = &config.settings;
    let tables = &ready.recovered.tables;
    let book = Arc::new(CredentialBook::new(config.credentials.clone()));
    let mut counters = CounterFile::create(
        &config.directory,
        settings.node.get(),
        settings.stream.get(),
        now.utc_ns,
    )
    .map_err(|error| {
        let directory = config.directory.display();
        format!("{directory}: the counters file can't be made ({error}); is the disk full?")
    })?;
    counters.counter("epoch").set(ready.epoch.get());

    let ring = Arc::new(LogRing::new(settings.ring_size as usize)?);
    let tail = ready.recovered.tail;
    let write_method = config
        .write_method
        .unwrap_or(ready.storage.superblock().write_method);
    let beginning = Beginning {
        tables,
        epoch: ready.epoch,
        was_clean: ready.was_clean,
        write_method,
        prepared: ready.segments.end(),
        now,
    };
    let mut sequence = Sequence::new(settings.clone(), Arc::clone(&book), &beginning);
    let known = tables
        .trading_session
        .as_ref()
        .map(|session| session.number);
    let configured = config.trading_session.as_ref();
    let opened = configured.filter(|(number, _)| Some(*number) != known);
    {
        // SAFETY: no thread runs yet; nobody else has the ring.
        let mut window = unsafe { ring.window(tail, tail.plus(ring.size())) };
        sequence.open_epoch(
            &beginning,
            opened.map(|(n, name)| (*n, name.as_str())),
            &mut window,
        );
    }
    let session_number = opened.map(|(number, _)| *number).or(known).unwrap_or(0);
    let ingress = Ingress::new(
        settings.clone(),
        Arc::clone(&book),
        ready.epoch,
        session_number,
        tables.next_seq,
    );
    let fanout = Fanout::new(settings.clone(), book, tables, ready.epoch);

    let is_split = config.mode == ThreadingMode::Split;
    let parkings: Vec<Parking> = if is_split {
        (0..3).map(|_| Parking::new()).collect::<Result<_, _>>()?
    } else {
        vec![Parking::new()?; 3]
    };
    let (commands_in, commands_out) = rtrb::RingBuffer::new(LINK_PLACES);
    let (replies_in, replies_out) = rtrb::RingBuffer::new(LINK_PLACES);
    let (releases_in, releases_out) = rtrb::RingBuffer::new(LINK_PLACES);
    let (arrivals_in, arrivals_out) = rtrb::RingBuffer::new(256);
    let floor = PositionCell::new(tail);
    let released = PositionCell::new(tail);
    // A publisher's buffer holds two of the longest records; some buffers more than publishers, for connections that still
    // linger while their publisher is back already.
    let buffer_size = (2 * settings.record_stride_max()).next_multiple_of(4096);
    let buffers = settings.publishers_max + 16;
    let received = Arc::new(Pages::new(buffers as usize * buffer_size)?);

    let sequence = SequenceAgent::new(
        SequenceParts {
            machine: sequence,
            ring: Arc::clone(&ring),
            received: Arc::clone(&received),
            receive_buffer_size: buffer_size,
            segments: ready.segments.clone(),
            method: write_method,
            commands: commands_out,
            replies: replies_in,
            releases: releases_in,
            floor: floor.clone(),
            released: released.clone(),
            ingress: parkings[0].clone(),
            egress: parkings[2].clone(),
            write_depth: settings.write_depth,
        },
        &mut counters,
    );
    let ingress = IngressAgent::new(
        IngressParts {
            machine: ingress,
            listener,
            received,
            receive_buffer_size: buffer_size,
            receive_buffers: buffers,
            connections: settings.connections_max,
            commands: commands_in,
            replies: replies_out,
            arrivals: arrivals_in,
            sequence: parkings[1].clone(),
            egress: parkings[2].clone(),
        },
        &mut counters,
    )?;
    let egress = EgressAgent::new(
        EgressParts {
            machine: fanout,
            ring,
            segments: ready.segments.clone(),
            arrivals: arrivals_out,
            releases: releases_out,
            floor,
            released: tail,
            subscribers: settings.subscribers_max,
            replay_slots: settings.replay_slots,
            replay_slot_size: settings.replay_slot_size,
        },
        &mut counters,
    )?;

    let ending = Arc::new(Ending::default());
    let groups = if is_split {
        vec![
            (
                "ingress",
                Agents {
                    ingress: Some(ingress),
                    ..Agents::default()
                },
            ),
            (
                "sequence",
                Agents {
                    sequence: Some(sequence),
                    ..Agents::default()
                },
            ),
            (
                "egress",
                Agents {
                    egress: Some(egress),
                    ..Agents::default()
                },
            ),
        ]
    } else {
        let all = Agents {
            ingress: Some(ingress),
            sequence: Some(sequence),
            egress: Some(egress),
        };
        vec![("hot", all)]
    };
    let stop_housekeeping = Arc::new(AtomicBool::new(false));
    let housekeeping = Housekeeping::new(
        HousekeepingParts {
            directory: config.directory.clone(),
            segments: ready.segments,
            tables: ready.recovered.tables,
            released,
            prepared_ahead: config.prepared,
            block_room: 2 * u64::from(settings.block_span_max()),
            prepare_rate: config.prepare_rate,
            checkpoint_every: config.checkpoint_every,
            stop: Arc::clone(&stop_housekeeping),
        },
        &mut counters,
    )?;
    let mut threads = Vec::new();
    for (at, (name, agents)) in groups.into_iter().enumerate() {
        let parts = ThreadParts {
            name: format!("{name}-{}", settings.stream),
            cpu: config.cpus.get(at).copied(),
            idle: config.idle,
            parking: parkings[at].clone(),
            clock: clock.clone(),
            ending: Arc::clone(&ending),
            allocations: counters.counter(&format!("thread.{name}.allocations")),
            turn_ns_max: counters.counter(&format!("thread.{name}.turn_ns_max")),
        };
        threads.push(pipeline::spawn(parts, agents)?);
    }
    let housekeeping = std::thread::Builder::new()
        .name(format!("housekeeping-{}", settings.stream))
        .spawn(move || housekeeping.run())?;
    Ok(RunningStream {
        id: settings.stream.get(),
        address,
        storage: ready.storage,
        threads,
        housekeeping,
        ending,
        stop_housekeeping,
    })
}

impl RunningStream {
    /// Asks for a clean stop.
    pub(crate) fn ask_to_stop(&self) {
        self.ending.ask();
    }

    /// Whether its threads still run.
    pub(crate) fn is_running(&self) -> bool {
        !self.ending.has_failed() && self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Where its journal lies.
    pub(crate) fn directory(&self) -> &Path {
        self.storage.directory()
    }

    /// Waits for its threads and records how it ended.
    pub(crate) fn finish(mut self) -> Result<(), StartError> {
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| "a hot thread ended in a panic; see the log")?;
        }
        self.stop_housekeeping.store(true, Ordering::Release);
        self.housekeeping
            .join()
            .map_err(|_| "housekeeping ended in a panic; see the log")?;
        let directory = self.storage.directory().display().to_string();
        match self.ending.outcome() {
            Some(Outcome::Clean(stop)) => {
                self.storage.update(|next| next.clean = Some(stop))?;
                tracing::info!(stream = self.id, tail = %stop.tail, "stopped cleanly");
                Ok(())
            }
            Some(Outcome::Fault(what)) => Err(format!(
                "{directory}: {what}. Nothing was acknowledged that is not on disk. This disk is not \
                 used any more by this process: look at the kernel's log, replace the disk or \
                 restore the journal, then start again"
            )
            .into()),
            None => Err(format!("{directory}: the stream ended without saying how").into()),
        }
    }
}
