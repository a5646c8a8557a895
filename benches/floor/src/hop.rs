//! The hop alone: a message there and back over loopback TCP, nothing written.
//!
//! `hop_only` answers with the node's io_uring loop, `plain_ping_pong` with a bare receive and
//! send; the asking side is the same in both. The difference is what the ring costs per hop.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::affinity::{pin, yield_cpu};
use crate::clock::{Clock, nanoseconds};
use crate::error::FloorError;
use crate::node::{Forward, Settings, Wiring, run_node};
use crate::options::{HopOptions, Idle, Policy};
use crate::report::{new_histogram, record};
use crate::socket::{Pair, connected_pair, receive_now, send_now, wait_readable};
use crate::worker::Worker;

/// Bound on a thread's end after its measured time.
const END_WAIT: Duration = Duration::from_secs(15);
/// Longest sleep of a parked thread, in nanoseconds.
const PARK_NS: u64 = 1_000_000;

/// Measures the round trip through the node's io_uring loop, in nanoseconds.
pub fn hop_only(options: &HopOptions) -> Result<Histogram<u64>, FloorError> {
    options.validate()?;
    let Pair { near, far } = connected_pair()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, ready) = channel();
    let settings = Settings {
        size: options.size,
        depth: 1,
        policy: Policy::Durable,
        idle: options.idle,
        cpu: options.server_cpu,
        measured_from: u64::MAX,
        clock: Clock::new(),
    };
    let wiring = Wiring {
        input: far,
        forward: Forward::Back,
        acknowledge: false,
        mirror: None,
    };
    let stopped = stop.clone();
    let server = Worker::start("floor-hop", stop.clone(), move || {
        run_node(settings, wiring, None, &stopped, || {
            let _ = sender.send(());
        })
        .map(|_| ())
    })?;
    // A server that failed has dropped the sender and set the stop flag: `ask` ends at once.
    let _ = ready.recv_timeout(END_WAIT);
    ask(options, near, &stop, server)
}

/// Measures the round trip between two loops of bare non-blocking receives and sends, in
/// nanoseconds.
pub fn plain_ping_pong(options: &HopOptions) -> Result<Histogram<u64>, FloorError> {
    options.validate()?;
    let Pair { near, far } = connected_pair()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (answering, stopped) = (options.clone(), stop.clone());
    let server = Worker::start("floor-plain", stop.clone(), move || {
        pin(answering.server_cpu)?;
        let mut message = vec![0; answering.size];
        while exchange(&far, &mut message, answering.idle, &stopped, Turn::Receive)? {
            exchange(&far, &mut message, answering.idle, &stopped, Turn::Send)?;
        }
        Ok(())
    })?;
    ask(options, near, &stop, server)
}

/// Runs the asking side on a thread of its own, then stops the answering one.
fn ask(
    options: &HopOptions,
    socket: TcpStream,
    stop: &Arc<AtomicBool>,
    server: Worker<()>,
) -> Result<Histogram<u64>, FloorError> {
    let limit = Duration::from_secs_f64(options.warmup + options.seconds) + END_WAIT;
    let (options, stopped) = (options.clone(), stop.clone());
    let asked = Worker::start("floor-ask", stop.clone(), move || {
        ask_loop(&options, &socket, &stopped)
    });
    let asked = asked.and_then(|asking| asking.wait(limit));
    stop.store(true, Ordering::Relaxed);
    server.wait(END_WAIT)?;
    asked
}

fn ask_loop(
    options: &HopOptions,
    socket: &TcpStream,
    stop: &AtomicBool,
) -> Result<Histogram<u64>, FloorError> {
    pin(options.client_cpu)?;
    let clock = Clock::new();
    let measured_ns = nanoseconds(options.warmup);
    let end_ns = measured_ns + nanoseconds(options.seconds);
    let mut latency = new_histogram();
    let mut message = vec![0; options.size];
    for index in 0u64.. {
        let begin_ns = clock.now();
        if begin_ns >= end_ns {
            break;
        }
        message[..8].copy_from_slice(&index.to_le_bytes());
        let there = exchange(socket, &mut message, options.idle, stop, Turn::Send)?;
        if !there || !exchange(socket, &mut message, options.idle, stop, Turn::Receive)? {
            break;
        }
        if begin_ns >= measured_ns {
            record(&mut latency, clock.now() - begin_ns);
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
    Ok(latency)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Send,
    Receive,
}

/// Sends or receives one whole message; false if the peer closed or the run was stopped.
#[inline]
fn exchange(
    socket: &TcpStream,
    message: &mut [u8],
    idle: Idle,
    stop: &AtomicBool,
    turn: Turn,
) -> Result<bool, FloorError> {
    let mut done = 0;
    while done < message.len() {
        let moved = match turn {
            Turn::Send => send_now(socket, &message[done..])?,
            Turn::Receive => receive_now(socket, &mut message[done..])?,
        };
        match moved {
            Some(0) => return Ok(false),
            Some(len) => done += len,
            None if stop.load(Ordering::Relaxed) => return Ok(false),
            None => match idle {
                Idle::Spin => std::hint::spin_loop(),
                Idle::Yield => yield_cpu(),
                Idle::Park => wait_readable([socket.as_raw_fd()], PARK_NS),
            },
        }
    }
    Ok(true)
}
