//! A thread that is waited for within a bound, and that stops the others when it fails.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::FloorError;

/// A running thread and the way its result comes back.
pub(crate) struct Worker<T> {
    name: &'static str,
    handle: JoinHandle<()>,
    result: Receiver<Result<T, FloorError>>,
}

/// Sets the stop flag unless the thread ended well.
struct StopOnFailure {
    stop: Arc<AtomicBool>,
    failed: bool,
}

impl Drop for StopOnFailure {
    fn drop(&mut self) {
        if self.failed {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread; `stop` is set if it fails.
    pub(crate) fn start(
        name: &'static str,
        stop: Arc<AtomicBool>,
        body: impl FnOnce() -> Result<T, FloorError> + Send + 'static,
    ) -> Result<Worker<T>, FloorError> {
        let (sender, result) = channel();
        let handle = Builder::new()
            .name(name.to_string())
            .spawn(move || {
                let mut guard = StopOnFailure { stop, failed: true };
                let ended = body();
                guard.failed = ended.is_err();
                // Before the result, so that whoever has an error finds the flag set.
                drop(guard);
                // Nobody listens any more only when the wait was given up.
                let _ = sender.send(ended);
            })
            .map_err(|source| FloorError::Thread { name, source })?;
        Ok(Worker {
            name,
            handle,
            result,
        })
    }

    /// The thread's result, within `limit`.
    pub(crate) fn wait(self, limit: Duration) -> Result<T, FloorError> {
        self.wait_with(limit, limit, &mut || {})
    }

    /// The thread's result, within `limit`, calling `each` every `period` meanwhile.
    pub(crate) fn wait_with(
        self,
        limit: Duration,
        period: Duration,
        each: &mut dyn FnMut(),
    ) -> Result<T, FloorError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.result.recv_timeout(period) {
                Ok(ended) => return ended,
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => each(),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(FloorError::Stuck {
                        stage: self.name,
                        seconds: limit.as_secs(),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => match self.handle.join() {
                    Err(panic) => resume_unwind(panic),
                    Ok(()) => unreachable!("a thread that ends without a panic sends its result"),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_thread_stops_the_others_and_hands_back_its_error() {
        let stop = Arc::new(AtomicBool::new(false));
        let worker: Worker<()> = Worker::start("failing", stop.clone(), || {
            Err(FloorError::Stuck {
                stage: "on purpose",
                seconds: 1,
            })
        })
        .expect("a thread");
        let error = worker.wait(Duration::from_secs(30)).expect_err("it failed");
        assert!(error.to_string().contains("on purpose"));
        assert!(stop.load(Ordering::Relaxed));
    }
}
