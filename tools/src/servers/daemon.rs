//! One `relayd` process: started until it says that it is ready, signalled, stopped, killed.
//!
//! Its log is kept in a file, and its last lines stand behind every error. Dropping a [`Daemon`] kills the process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::Failure;

/// Bound on a start: recovery of a large journal included.
const READY_WAIT: Duration = Duration::from_secs(120);
/// Bound on a stop in order.
const STOP_WAIT: Duration = Duration::from_secs(60);
/// Lines of relayd's own log that an error shows.
const LOG_LINES: usize = 8;

/// A program, its configuration and log, and maybe the running process.
#[derive(Debug)]
pub(super) struct Daemon {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    running: Option<Child>,
}

impl Daemon {
    /// Nothing runs yet.
    pub(super) fn new(program: PathBuf, config: PathBuf, log: PathBuf) -> Self {
        Self {
            program,
            config,
            log,
            running: None,
        }
    }

    /// Where its configuration lies.
    pub(super) fn config(&self) -> &PathBuf {
        &self.config
    }

    /// Whether it was started and not ended by us.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// `relayd ACTION --config ...`, its log kept.
    pub(super) fn command(&self, action: &str) -> Result<Command, Failure> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|error| Failure::file("opening", &self.log, &error))?;
        let mut command = Command::new(&self.program);
        command.arg(action).arg("--config").arg(&self.config);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Ok(command)
    }

    /// Runs a command of its to the end, which must be a good one.
    pub(super) fn complete(&self, action: &str, mut command: Command) -> Result<(), Failure> {
        let status = command.status().map_err(|error| self.cannot_run(&error))?;
        if status.success() {
            return Ok(());
        }
        Err(self.ended(action, status))
    }

    /// Starts it with `relayd ACTION` and waits for a line that begins with `ready`; what stands behind that.
    pub(super) fn start(&mut self, action: &str, ready: &str) -> Result<String, Failure> {
        let lines = self.spawn(action)?;
        let deadline = Instant::now() + READY_WAIT;
        loop {
            match lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(ready) {
                        return Ok(rest.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let mut child = self.running.take().expect("it was started above");
                    let status = child.wait().map_err(|error| self.cannot_run(&error))?;
                    return Err(self.ended(action, status));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    self.kill();
                    return Err(Failure::Failed(format!(
                        "relayd {action} was not ready within {} s{}",
                        READY_WAIT.as_secs(),
                        self.log_tail()
                    )));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn spawn(&mut self, action: &str) -> Result<Receiver<String>, Failure> {
        assert!(self.running.is_none(), "it is started once at a time");
        let mut child = self
            .command(action)?
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.cannot_run(&error))?;
        let lines = read_lines(child.stdout.take().expect("it was piped"));
        self.running = Some(child);
        Ok(lines)
    }

    /// Asks it to stop, and waits until it has.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        let Some(child) = &mut self.running else {
            return Ok(());
        };
        terminate(child)?;
        let deadline = Instant::now() + STOP_WAIT;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    self.kill();
                    return Err(Failure::Failed(format!(
                        "relayd did not stop within {} s and was killed{}",
                        STOP_WAIT.as_secs(),
                        self.log_tail()
                    )));
                }
                Err(error) => return Err(self.cannot_run(&error)),
            }
        };
        self.running = None;
        if status.success() {
            Ok(())
        } else {
            Err(self.ended("run", status))
        }
    }

    /// Kills it with SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal by name, such as STOP.
    pub(super) fn signal(&self, name: &str) -> Result<(), Failure> {
        match &self.running {
            Some(child) => signal(child, name),
            None => Ok(()),
        }
    }

    fn cannot_run(&self, error: &std::io::Error) -> Failure {
        Failure::Failed(format!("running {}: {error}", self.program.display()))
    }

    fn ended(&self, action: &str, status: ExitStatus) -> Failure {
        Failure::Failed(format!(
            "relayd {action} ended with {status}{}",
            self.log_tail()
        ))
    }

    /// The end of its log, to be put behind an error.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let mut tail = String::new();
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            tail.push_str("\n  ");
            tail.push_str(line);
        }
        if tail.is_empty() {
            tail
        } else {
            format!("; it said:{tail}")
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends SIGTERM.
pub(crate) fn terminate(child: &Child) -> Result<(), Failure> {
    signal(child, "TERM")
}

/// Sends a signal. The standard library knows SIGKILL only, and the shell spares an unsafe call.
fn signal(child: &Child, name: &str) -> Result<(), Failure> {
    let status = Command::new("sh")
        .args(["-c", "kill -\"$1\" \"$2\"", "sh", name])
        .arg(child.id().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // A `kill` that fails means that the process has ended; waiting for it tells how.
    status
        .map(|_| ())
        .map_err(|error| Failure::Failed(format!("running sh: {error}")))
}

/// Reads lines in a thread of their own to the end, wanted or not, so that the writer never blocks.
fn read_lines(input: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(input).lines() {
            let Ok(line) = line else { return };
            // Nobody listens after the first lines; reading goes on.
            let _ = sender.send(line);
        }
    });
    receiver
}
