//! A client process of the demonstration: its output kept, its notices watched, never left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::Failure;
use crate::exit::Interrupt;
use crate::servers::terminate;

/// Status of a client that was asked to end.
const INTERRUPTED: i32 = 130;
/// How long a client may take to end when asked.
const STOP_WAIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// A process that was started. Dropping it kills it.
pub(super) struct Running {
    name: String,
    child: Child,
    output: PathBuf,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts it; output and notices go to files in `directory`.
    pub(super) fn start(
        mut command: Command,
        name: &str,
        directory: &Path,
    ) -> Result<Self, Failure> {
        let create = |path: &Path| {
            File::create(path).map_err(|error| Failure::file("creating", path, &error))
        };
        let output = directory.join(format!("{name}.out"));
        let log = directory.join(format!("{name}.log"));
        let child = command
            .stdin(Stdio::null())
            .stdout(create(&output)?)
            .stderr(create(&log)?)
            .spawn()
            .map_err(|error| Failure::Failed(format!("starting the {name}: {error}")))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            output,
            log,
            ended: None,
        })
    }

    /// Whether it still runs.
    pub(super) fn is_running(&mut self) -> Result<bool, Failure> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(|error| {
                Failure::Failed(format!("waiting for the {}: {error}", self.name))
            })?;
        }
        Ok(self.ended.is_none())
    }

    /// Waits for a notice that contains `word`.
    pub(super) fn wait_for(
        &mut self,
        word: &str,
        most: Duration,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            if fs::read_to_string(&self.log)
                .unwrap_or_default()
                .contains(word)
            {
                return Ok(());
            }
            if !self.is_running()? || begun.elapsed() > most {
                return Err(self.failed("did not get going"));
            }
            interrupt.check()?;
            thread::sleep(LOOK);
        }
    }

    /// Waits for its end, which must be a good one; what it printed.
    pub(super) fn finish(
        &mut self,
        most: Duration,
        interrupt: &Interrupt,
    ) -> Result<String, Failure> {
        let status = self.wait(most, interrupt)?;
        if !status.success() {
            return Err(self.failed(&format!("ended with {status}")));
        }
        fs::read_to_string(&self.output)
            .map_err(|error| Failure::file("reading", &self.output, &error))
    }

    /// Asks it to end and waits for that.
    pub(super) fn stop(&mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        if self.is_running()? {
            terminate(&self.child)?;
        }
        let status = self.wait(STOP_WAIT, interrupt)?;
        if status.success() || status.code() == Some(INTERRUPTED) {
            return Ok(());
        }
        Err(self.failed(&format!("ended with {status}")))
    }

    fn wait(&mut self, most: Duration, interrupt: &Interrupt) -> Result<ExitStatus, Failure> {
        let begun = Instant::now();
        while self.is_running()? {
            if begun.elapsed() > most {
                return Err(self.failed(&format!("did not end within {} s", most.as_secs())));
            }
            interrupt.check()?;
            thread::sleep(LOOK);
        }
        Ok(self.ended.expect("it does not run any more"))
    }

    fn failed(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Failure::Failed(format!(
            "the {} {what}; it said:\n{}",
            self.name,
            log.trim_end()
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Both fail only when it has ended by itself meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
