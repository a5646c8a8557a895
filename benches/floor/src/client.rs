//! The load: one publisher and one subscriber on one thread, open loop.
//!
//! Message `i` is due at a time fixed before the run, `start + i / rate` unless the options say
//! otherwise, and its latency counts from then, whenever it was really sent. The thread sends what is due, reads what came, and never waits in either, so a
//! slow server neither slows the load nor hides from it.
//!
//! It deliberately uses plain non-blocking sockets, as a trading application would, and no ring.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use crate::affinity::{pin, yield_cpu};
use crate::clock::{Clock, nanoseconds};
use crate::error::FloorError;
use crate::hiccups::Hiccups;
use crate::node::{ACK_BYTES, read_index};
use crate::options::{Idle, LATE_MAX_NS, Options};
use crate::report::{new_histogram, record};
use crate::socket::{receive_now, send_now, wait_readable};
use crate::tally::Tally;

/// Most bytes handed to the socket at a time.
const SEND_BYTES: usize = 64 * 1024;
const RECEIVE_BYTES: usize = 256 * 1024;
/// Acknowledgements are looked for whenever messages came, and every so many turns besides.
const ACK_TURNS: u64 = 8;
/// Between the threads being ready and the first message, in nanoseconds.
const LEAD_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Longest sleep of a parked client, in nanoseconds: it looks at the stop flag that often.
const PARK_NS: u64 = 1_000_000;

/// What the client saw; see [`crate::Report`] for the meanings.
pub(crate) struct ClientReport {
    pub(crate) received: u64,
    pub(crate) offered: u64,
    pub(crate) lost: u64,
    pub(crate) unsent: u64,
    pub(crate) foreign: u64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
    pub(crate) achieved_rate: f64,
    pub(crate) latency: Histogram<u64>,
    pub(crate) ack_latency: Histogram<u64>,
    pub(crate) send_lateness: Histogram<u64>,
    pub(crate) hiccups: Hiccups,
    pub(crate) late_ns: u64,
    pub(crate) measured_at: SystemTime,
    pub(crate) by_second: Vec<Histogram<u64>>,
}

/// Runs the load on the calling thread. `sent` shows how many messages have been sent.
pub(crate) fn run_client(
    options: &Options,
    clock: Clock,
    publisher: TcpStream,
    subscriber: TcpStream,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<ClientReport, FloorError> {
    pin(options.client_cpu)?;
    let mut client = Client::new(options, clock, publisher, subscriber);
    let give_up_ns = client.due(client.total) + LATE_MAX_NS;
    let deadline_ns = give_up_ns + nanoseconds(options.drain);
    loop {
        let now_ns = clock.now();
        client.hiccups.note(now_ns);
        if now_ns > give_up_ns {
            client.last = client.next;
        }
        let busy = client.turn(now_ns)?;
        if client.finished() || now_ns > deadline_ns || stop.load(Ordering::Relaxed) {
            return Ok(client.report());
        }
        sent.store(client.next, Ordering::Relaxed);
        if !busy {
            client.idle(options.client_idle, now_ns);
        }
    }
}

struct Client<'a> {
    options: &'a Options,
    clock: Clock,
    publisher: TcpStream,
    subscriber: TcpStream,
    start_ns: u64,
    /// Messages of the run, warm-up included.
    total: u64,
    measured_from: u64,
    measured_from_ns: u64,
    /// The next message to fall due.
    next: u64,
    /// How many are to be sent.
    last: u64,
    turns: u64,
    unsent: Vec<u8>,
    unsent_at: usize,
    messages: Received,
    acks: Received,
    acked_to: u64,
    tally: Tally,
    received: u64,
    last_receipt_ns: u64,
    latency: Histogram<u64>,
    ack_latency: Histogram<u64>,
    send_lateness: Histogram<u64>,
    hiccups: Hiccups,
    by_second: Vec<Histogram<u64>>,
}

impl<'a> Client<'a> {
    fn new(
        options: &'a Options,
        clock: Clock,
        publisher: TcpStream,
        subscriber: TcpStream,
    ) -> Self {
        let measured_from = options.warmup_messages();
        let total = measured_from + options.measured_messages();
        let seconds = match options.by_second {
            true => options.seconds.ceil() as usize,
            false => 0,
        };
        let by_second = vec![new_histogram(); seconds];
        let start_ns = clock.now() + LEAD_NS;
        let measured_from_ns = start_ns + options.due_ns(measured_from);
        Client {
            options,
            clock,
            publisher,
            subscriber,
            start_ns,
            total,
            measured_from,
            measured_from_ns,
            next: 0,
            last: total,
            turns: 0,
            unsent: Vec::with_capacity(SEND_BYTES + options.size),
            unsent_at: 0,
            messages: Received::new(options.size),
            acks: Received::new(ACK_BYTES),
            acked_to: 0,
            tally: Tally::new(total),
            received: 0,
            last_receipt_ns: 0,
            latency: new_histogram(),
            ack_latency: new_histogram(),
            send_lateness: new_histogram(),
            hiccups: Hiccups::since(measured_from_ns),
            by_second,
        }
    }

    /// When message `index` is due.
    #[inline]
    fn due(&self, index: u64) -> u64 {
        self.start_ns + self.options.due_ns(index)
    }

    /// Sends and receives what can be; false if nothing moved.
    #[inline]
    fn turn(&mut self, now_ns: u64) -> Result<bool, FloorError> {
        let sent = self.send(now_ns)?;
        let received = self.receive_messages()?;
        self.turns += 1;
        if received || self.turns.is_multiple_of(ACK_TURNS) {
            self.receive_acks()?;
        }
        Ok(sent || received)
    }

    #[inline]
    fn send(&mut self, now_ns: u64) -> Result<bool, FloorError> {
        if self.unsent_at == self.unsent.len() {
            self.unsent.clear();
            self.unsent_at = 0;
            while self.next < self.last && self.unsent.len() < SEND_BYTES {
                let due_ns = self.due(self.next);
                if due_ns > now_ns {
                    break;
                }
                if self.next >= self.measured_from {
                    record(&mut self.send_lateness, now_ns - due_ns);
                }
                let begin = self.unsent.len();
                self.unsent.extend_from_slice(&self.next.to_le_bytes());
                self.unsent.resize(begin + self.options.size, 0);
                self.next += 1;
            }
            if self.unsent.is_empty() {
                return Ok(false);
            }
        }
        let taken = send_now(&self.publisher, &self.unsent[self.unsent_at..])?.unwrap_or(0);
        self.unsent_at += taken;
        Ok(taken > 0)
    }

    #[inline]
    fn receive_messages(&mut self) -> Result<bool, FloorError> {
        let Some(frames) = self.messages.receive(&self.subscriber)? else {
            return Ok(false);
        };
        let now_ns = self.clock.now();
        for frame in frames.chunks_exact(self.options.size) {
            let index = read_index(frame);
            let first = self.tally.note(index);
            if first && index >= self.measured_from {
                let due_ns = self.start_ns + self.options.due_ns(index);
                let latency_ns = now_ns.saturating_sub(due_ns);
                record(&mut self.latency, latency_ns);
                // What is due behind the last second belongs to it; there are none unless wanted.
                let second = due_ns.saturating_sub(self.measured_from_ns) / SECOND_NS;
                let last = self.by_second.len().saturating_sub(1);
                if let Some(of_second) = self.by_second.get_mut(last.min(second as usize)) {
                    record(of_second, latency_ns);
                }
                self.received += 1;
                self.last_receipt_ns = now_ns;
            }
        }
        self.messages.consume();
        Ok(true)
    }

    fn receive_acks(&mut self) -> Result<(), FloorError> {
        let Some(frames) = self.acks.receive(&self.publisher)? else {
            return Ok(());
        };
        let now_ns = self.clock.now();
        for frame in frames.chunks_exact(ACK_BYTES) {
            let acked_to = read_index(frame) + 1;
            // An acknowledgement covers all before it, which waited for it too.
            for index in self.acked_to.max(self.measured_from)..acked_to {
                let due_ns = self.start_ns + self.options.due_ns(index);
                record(&mut self.ack_latency, now_ns.saturating_sub(due_ns));
            }
            self.acked_to = acked_to;
        }
        self.acks.consume();
        Ok(())
    }

    fn finished(&self) -> bool {
        self.tally.distinct >= self.last && self.acked_to >= self.last
    }

    fn idle(&self, idle: Idle, now_ns: u64) {
        match idle {
            Idle::Spin => std::hint::spin_loop(),
            Idle::Yield => yield_cpu(),
            Idle::Park => {
                let due_ns = if self.next < self.last {
                    self.due(self.next)
                } else {
                    u64::MAX
                };
                let timeout_ns = due_ns.saturating_sub(now_ns).min(PARK_NS);
                let sockets = [self.subscriber.as_raw_fd(), self.publisher.as_raw_fd()];
                wait_readable(sockets, timeout_ns);
            }
        }
    }

    fn report(self) -> ClientReport {
        // Where nothing is due at the end of the measured time, as between bursts, that belongs to it all the same.
        let meant_ns = (self.total - self.measured_from) as f64 * (1e9 / self.options.rate);
        let end_ns = self
            .due(self.total)
            .max(self.measured_from_ns + meant_ns as u64);
        let end_ns = self.last_receipt_ns.max(end_ns);
        let span_ns = end_ns - self.measured_from_ns;
        let last_due_ns = self.due(self.total - 1);
        // What no socket took is not sent, a message of which it took a part included.
        let left = (self.unsent.len() - self.unsent_at).div_ceil(self.options.size) as u64;
        let sent = self.next - left;
        let since = self.clock.now().saturating_sub(self.measured_from_ns);
        ClientReport {
            received: self.received,
            offered: self.total - self.measured_from,
            lost: sent.saturating_sub(self.tally.distinct),
            unsent: self.total - sent,
            foreign: self.tally.foreign,
            duplicated: self.tally.duplicated,
            out_of_order: self.tally.out_of_order,
            achieved_rate: self.received as f64 / (span_ns.max(1) as f64 / 1e9),
            latency: self.latency,
            ack_latency: self.ack_latency,
            send_lateness: self.send_lateness,
            hiccups: self.hiccups,
            late_ns: self.last_receipt_ns.saturating_sub(last_due_ns),
            measured_at: SystemTime::now() - Duration::from_nanos(since),
            by_second: self.by_second,
        }
    }
}

/// Frames of one size from a socket, with the part of one that is still to come.
struct Received {
    buffer: Vec<u8>,
    frame: usize,
    len: usize,
}

impl Received {
    fn new(frame: usize) -> Received {
        Received {
            buffer: vec![0; RECEIVE_BYTES],
            frame,
            len: 0,
        }
    }

    /// The whole frames received, or `None` if nothing came. To be followed by `consume`.
    #[inline]
    fn receive(&mut self, socket: &TcpStream) -> Result<Option<&[u8]>, FloorError> {
        match receive_now(socket, &mut self.buffer[self.len..])? {
            None => Ok(None),
            Some(0) => {
                let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                Err(FloorError::Socket {
                    stage: "receive",
                    source,
                })
            }
            Some(len) => {
                self.len += len;
                Ok(Some(&self.buffer[..self.len / self.frame * self.frame]))
            }
        }
    }

    /// Keeps only the beginning of the frame still to come.
    #[inline]
    fn consume(&mut self) {
        let whole = self.len / self.frame * self.frame;
        self.buffer.copy_within(whole..self.len, 0);
        self.len -= whole;
    }
}
