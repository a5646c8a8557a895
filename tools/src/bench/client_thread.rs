//! The thread on which a measurement's clients send and receive, the one that watches it, and what it says of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use relay_floor::{HICCUP_NS, Hiccups};
use serde::Serialize;

use super::load::pin;
use crate::exit::{Failure, Interrupt};
use crate::output::progress;
use crate::percentiles::Percentiles;

const NS_PER_MS: u64 = 1_000_000;

/// What the two share.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How far the clients are: messages sent, or another number that grows to the total.
    pub(super) done: AtomicU64,
    /// That they are to end at once.
    pub(super) stop: AtomicBool,
}

/// How clients are run and watched.
pub(super) struct ClientThread<'a> {
    /// The CPU they run on; `None` leaves that to the scheduler.
    pub(super) cpu: Option<usize>,
    pub(super) progress: Arc<Progress>,
    /// What `done` grows to.
    pub(super) total: u64,
    /// How often it is looked at.
    pub(super) look_every: Duration,
    pub(super) interrupt: &'a Interrupt,
}

impl ClientThread<'_> {
    /// Runs clients to their end, and hands them back. `watch` is told how far they are, again and again.
    pub(super) fn run<C: Send + 'static>(
        &self,
        mut clients: C,
        run: impl FnOnce(&mut C) -> Result<(), Failure> + Send + 'static,
        mut watch: impl FnMut(u64),
    ) -> Result<C, Failure> {
        let cpu = self.cpu;
        let worker = thread::Builder::new()
            .name("bench-client".into())
            .spawn(move || {
                let result = pin(cpu).and_then(|()| run(&mut clients));
                result.map(|()| clients)
            })
            .map_err(|error| Failure::Failed(format!("starting a thread: {error}")))?;
        let bar = progress(self.total, "measuring");
        while !worker.is_finished() {
            thread::sleep(self.look_every);
            if self.interrupt.is_set() {
                self.progress.stop.store(true, Ordering::Relaxed);
            }
            let done = self.progress.done.load(Ordering::Relaxed);
            bar.set_position(done);
            watch(done);
        }
        bar.finish_and_clear();
        let clients = worker
            .join()
            .map_err(|_| Failure::Failed("the client panicked".into()))??;
        self.interrupt.check()?;
        Ok(clients)
    }
}

/// What of the latencies is the clients' own: what kept their thread from running delayed every message that was due then.
#[derive(Debug, Serialize)]
pub(super) struct OwnDelays {
    lateness_p99_us: f64,
    hiccups: u64,
    hiccups_ms: f64,
    hiccup_longest_ms: f64,
}

impl OwnDelays {
    /// Of how late each message was sent, and of the thread's own stops.
    pub(super) fn of(lateness: &Histogram<u64>, hiccups: &Hiccups) -> Self {
        let ms = |ns: u64| ns as f64 / NS_PER_MS as f64;
        Self {
            lateness_p99_us: Percentiles::of(lateness).p99_us,
            hiccups: hiccups.count,
            hiccups_ms: ms(hiccups.total_ns),
            hiccup_longest_ms: ms(hiccups.longest_ns),
        }
    }

    /// One line for people, where there is something to say.
    pub(super) fn text(&self) -> Option<String> {
        (self.hiccups > 0).then(|| {
            format!(
                "the clients' thread stood still for more than {} ms {} times, {:.0} ms in all, {:.1} at most: its CPU was not \
                 its own, and the tail is in part the machine's",
                HICCUP_NS / NS_PER_MS,
                self.hiccups,
                self.hiccups_ms,
                self.hiccup_longest_ms
            )
        })
    }
}
