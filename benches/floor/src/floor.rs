//! A full floor: makes the files and sockets, starts the threads, and gathers what they saw.
//!
//! The calling thread only waits. Whatever fails, every thread is told to stop and is waited for
//! within a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::client::{ClientReport, run_client};
use crate::clock::Clock;
use crate::data_file::{DataFile, check_dir};
use crate::error::FloorError;
use crate::node::{Forward, NodeReport, Settings, Wiring, run_node};
use crate::options::{Options, Policy, WriteMode};
use crate::report::{Report, new_histogram, typical_ns};
use crate::socket::connected_pair;
use crate::worker::Worker;

/// How often the progress callback is called.
const PROGRESS: Duration = Duration::from_millis(200);
/// Bound on a node's start: buffers, ring, registration.
const READY_WAIT: Duration = Duration::from_secs(20);
/// Bound on a stopped thread's end, above the drain of its ring.
const END_WAIT: Duration = Duration::from_secs(15);
/// Seconds of one `Auto` probe and of its warm-up; each mode is probed `AUTO_ROUNDS` times.
const AUTO_SECONDS: f64 = 0.25;
const AUTO_WARMUP: f64 = 0.05;
const AUTO_ROUNDS: usize = 2;

/// Measures a full floor. `progress` is given the fraction sent, from 0 to 1, on the calling
/// thread, about five times a second; where it says `false` the run ends, with what came so far.
///
/// Blocks for the warm-up, the measured time and the drain, and about a second before them when
/// the write mode is [`WriteMode::Auto`], besides writing the data files.
pub fn run(options: &Options, progress: &mut dyn FnMut(f64) -> bool) -> Result<Report, FloorError> {
    options.validate()?;
    check_dir(&options.dir, options.nodes as u64, options.file_mib)?;
    let mut files = Vec::new();
    for _ in 0..options.nodes {
        files.push(Arc::new(DataFile::create(&options.dir, options.file_mib)?));
    }
    let mode = match options.write_mode {
        WriteMode::Auto => choose_mode(options, &files)?,
        chosen => chosen,
    };
    run_once(options, mode, &files, progress)
}

/// Probes both modes in turn with the run's own load and takes the better.
fn choose_mode(options: &Options, files: &[Arc<DataFile>]) -> Result<WriteMode, FloorError> {
    let probe = Options {
        seconds: AUTO_SECONDS,
        warmup: AUTO_WARMUP,
        ..options.clone()
    };
    let mut dsync = new_histogram();
    let mut covering = new_histogram();
    for _ in 0..AUTO_ROUNDS {
        for (mode, found) in [
            (WriteMode::Dsync, &mut dsync),
            (WriteMode::Covering, &mut covering),
        ] {
            let report = run_once(&probe, mode, files, &mut |_| true)?;
            let judged = match options.policy {
                Policy::Durable => &report.latency,
                // No latency waits for these writes.
                Policy::Mirrored => &report.received_to_written,
            };
            found.add(judged).expect("histograms of one shape");
        }
    }
    let better = typical_ns(&dsync) <= typical_ns(&covering);
    Ok(if better {
        WriteMode::Dsync
    } else {
        WriteMode::Covering
    })
}

fn run_once(
    options: &Options,
    mode: WriteMode,
    files: &[Arc<DataFile>],
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Report, FloorError> {
    let clock = Clock::new();
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = connected_pair()?;
    let subscriber = connected_pair()?;
    let mut server_wiring = Wiring {
        input: publisher.far,
        forward: Forward::To(subscriber.far),
        acknowledge: true,
        mirror: None,
    };
    let mut nodes = Nodes::new(options, mode, clock, &stop);
    if options.nodes == 2 {
        let mirror = connected_pair()?;
        server_wiring.mirror = Some(mirror.near);
        let standby = Wiring {
            input: mirror.far,
            forward: Forward::Nowhere,
            acknowledge: true,
            mirror: None,
        };
        nodes.start("floor-standby", options.standby_cpu, standby, &files[1])?;
    }
    nodes.start("floor-server", options.server_cpu, server_wiring, &files[0])?;
    nodes.wait_ready()?;

    let sent = Arc::new(AtomicU64::new(0));
    let client = {
        let (options, stop, sent) = (options.clone(), stop.clone(), sent.clone());
        let stopped = stop.clone();
        Worker::start("floor-client", stopped, move || {
            run_client(
                &options,
                clock,
                publisher.near,
                subscriber.near,
                &stop,
                &sent,
            )
        })?
    };
    let total = (options.warmup_messages() + options.measured_messages()) as f64;
    let client = client.wait_with(
        Duration::from_secs_f64(options.bound()) + END_WAIT,
        PROGRESS,
        &mut || {
            if !progress(sent.load(Ordering::Relaxed) as f64 / total) {
                stop.store(true, Ordering::Relaxed);
            }
        },
    );
    let mut node_reports = nodes.finish()?;
    let client = client?;
    if client.foreign > 0 {
        return Err(FloorError::Foreign {
            count: client.foreign,
        });
    }
    progress(1.0);
    let server = node_reports.pop().expect("the server was started last");
    Ok(report(options, mode, client, server))
}

/// The node threads of one run. Dropping it stops them.
struct Nodes<'a> {
    options: &'a Options,
    mode: WriteMode,
    clock: Clock,
    stop: &'a Arc<AtomicBool>,
    ready: (mpsc::Sender<()>, mpsc::Receiver<()>),
    started: Vec<Worker<NodeReport>>,
}

impl<'a> Nodes<'a> {
    fn new(
        options: &'a Options,
        mode: WriteMode,
        clock: Clock,
        stop: &'a Arc<AtomicBool>,
    ) -> Nodes<'a> {
        Nodes {
            options,
            mode,
            clock,
            stop,
            ready: mpsc::channel(),
            started: Vec::new(),
        }
    }

    fn start(
        &mut self,
        name: &'static str,
        cpu: Option<usize>,
        wiring: Wiring,
        file: &Arc<DataFile>,
    ) -> Result<(), FloorError> {
        let settings = Settings {
            size: self.options.size,
            depth: self.options.depth,
            policy: self.options.policy,
            idle: self.options.server_idle,
            cpu,
            measured_from: self.options.warmup_messages(),
            clock: self.clock,
        };
        let (stop, ready, file) = (self.stop.clone(), self.ready.0.clone(), file.clone());
        let mode = self.mode;
        let worker = Worker::start(name, self.stop.clone(), move || {
            run_node(settings, wiring, Some((&file, mode)), &stop, || {
                // The receiver may have given up; then the stop flag is set too.
                let _ = ready.send(());
            })
        })?;
        self.started.push(worker);
        Ok(())
    }

    /// Waits until every node can receive; the error of the one that failed otherwise.
    fn wait_ready(&mut self) -> Result<(), FloorError> {
        let deadline = std::time::Instant::now() + READY_WAIT;
        for _ in 0..self.started.len() {
            while self
                .ready
                .1
                .recv_timeout(Duration::from_millis(10))
                .is_err()
            {
                let failed = self.stop.load(Ordering::Relaxed);
                if failed || std::time::Instant::now() > deadline {
                    self.join()?;
                    let seconds = READY_WAIT.as_secs();
                    return Err(FloorError::Stuck {
                        stage: "starting the nodes",
                        seconds,
                    });
                }
            }
        }
        Ok(())
    }

    /// Stops the nodes; their reports in the order they were started, or the first error.
    fn finish(mut self) -> Result<Vec<NodeReport>, FloorError> {
        self.join()
    }

    fn join(&mut self) -> Result<Vec<NodeReport>, FloorError> {
        self.stop.store(true, Ordering::Relaxed);
        let ended: Vec<_> = self
            .started
            .drain(..)
            .map(|worker| worker.wait(END_WAIT))
            .collect();
        ended.into_iter().collect()
    }
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        // Left over only when starting the rest failed, and that error is already on its way.
        let _ = self.join();
    }
}

fn report(options: &Options, mode: WriteMode, client: ClientReport, server: NodeReport) -> Report {
    Report {
        options: options.clone(),
        write_mode: mode,
        offered: client.offered,
        received: client.received,
        lost: client.lost,
        unsent: client.unsent,
        duplicated: client.duplicated,
        out_of_order: client.out_of_order,
        offered_rate: options.rate,
        achieved_rate: client.achieved_rate,
        latency: client.latency,
        ack_latency: client.ack_latency,
        send_lateness: client.send_lateness,
        hiccups: client.hiccups,
        late_ns: client.late_ns,
        measured_at: client.measured_at,
        by_second: client.by_second,
        received_to_written: server.received_to_written,
        received_to_held: server.received_to_held,
        written_to_sent: server.written_to_sent,
        blocks: server.blocks,
        syncs: server.syncs,
    }
}
