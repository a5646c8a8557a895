//! The thread on which a measurement's clients send and receive, and the one that watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::load::pin;
use crate::exit::{Failure, Interrupt};
use crate::output::progress;

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
