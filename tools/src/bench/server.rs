//! A `relayd` of one's own: configuration, format, run, stop, kill.
//!
//! The program is run as an operator would run it, with a configuration file in a directory of its own; nothing of it is
//! linked in. Dropping a [`Server`] kills it, so that no measurement leaves one behind.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use relay_client::Credential;

use crate::connect::Connection;
use crate::exit::Failure;
use crate::output::{hex, spinner};

/// The one stream of a server started here.
const STREAM: u32 = 1;
/// Bound on a start: recovery of a large journal included.
const READY_WAIT: Duration = Duration::from_secs(120);
/// Bound on a stop in order.
const STOP_WAIT: Duration = Duration::from_secs(60);
/// How long a client of it tries to come back.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Lines of relayd's own log that an error shows.
const LOG_LINES: usize = 8;

/// How relayd spreads its agents over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// One thread for all.
    Shared,
    /// Three threads: ingress, sequence and persist, egress.
    Split,
}

/// What a thread does that has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Idle {
    /// Looks again at once.
    Spin,
    /// Lets other threads of the CPU go first.
    Yield,
    /// Sleeps in the kernel.
    Park,
}

/// What a message waits for before it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// Durable on every node of the group.
    Durable,
    /// In the memory of every node of the group.
    Mirrored,
    /// Durable on the one node there is.
    Local,
}

/// How writes are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WriteMethod {
    /// What `relayd format` measures to be faster.
    Auto,
    /// Every write by itself.
    Dsync,
    /// One data-sync for the writes before it.
    Covering,
}

/// The word for a value, as the configuration and the command line write it.
pub(crate) fn word(value: &impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .expect("no value is hidden")
        .get_name()
        .to_owned()
}

/// A size as the configuration writes it: a number and B, KiB, MiB or GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let shift = match unit.trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(format!("`{text}` is no size; write one like 512MiB")),
        };
        let number: u64 = digits.parse().map_err(|_| format!("`{text}` is no size"))?;
        let bytes = number.checked_mul(1 << shift).filter(|&bytes| bytes > 0);
        bytes
            .map(Self)
            .ok_or_else(|| format!("`{text}` is out of range"))
    }
}

impl Size {
    /// Rounded up to whole MiB, as the configuration writes it.
    fn text(self) -> String {
        format!("{}MiB", self.0.div_ceil(1 << 20))
    }
}

/// What the server is to be.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    pub(crate) mode: Mode,
    pub(crate) idle: Idle,
    /// Empty for no pinning.
    pub(crate) cpus: Vec<usize>,
    pub(crate) policy: Policy,
    pub(crate) write_method: WriteMethod,
    pub(crate) prepared: Size,
    /// Publisher ids 1 to this one get a credential each.
    pub(crate) publishers: u64,
}

/// The `relayd` beside this program, or the one that was named.
pub(crate) fn find_relayd(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe()
        .map_err(|error| Failure::Failed(format!("finding this program's place: {error}")))?;
    let beside = own.with_file_name("relayd");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Failure::Failed(format!(
        "{} is not there; build it with `cargo build --release`, or name it with --relayd FILE",
        beside.display()
    )))
}

/// Name of the credential of publisher `id`.
fn publisher_name(id: u64) -> String {
    format!("publisher-{id}")
}

const SUBSCRIBER_NAME: &str = "subscriber";

/// A relayd process with a directory.
#[derive(Debug)]
pub(crate) struct Server {
    relayd: PathBuf,
    directory: PathBuf,
    settings: ServerSettings,
    secret: Vec<u8>,
    address: String,
    running: Option<Child>,
}

impl Server {
    /// Writes the configuration into `directory` and formats the journal there.
    pub(crate) fn prepare(
        relayd: PathBuf,
        directory: &Path,
        settings: ServerSettings,
    ) -> Result<Self, Failure> {
        let mut secret = vec![0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Failure::Failed(format!("drawing random bytes: {error}")))?;
        let server = Self {
            relayd,
            directory: directory.to_owned(),
            settings,
            secret,
            address: "127.0.0.1:0".into(),
            running: None,
        };
        server.write_config()?;
        let bar = spinner("preparing the journal");
        let status = server.command("format")?.status();
        bar.finish_and_clear();
        let status = status.map_err(|error| server.cannot_run(&error))?;
        if !status.success() {
            return Err(server.ended("format", status));
        }
        Ok(server)
    }

    /// Starts it and waits until it accepts clients. After the first time it listens where it did before.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        assert!(self.running.is_none(), "it is started once at a time");
        let mut child = self
            .command("run")?
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.cannot_run(&error))?;
        let lines = read_lines(child.stdout.take().expect("it was piped"));
        self.running = Some(child);
        let deadline = Instant::now() + READY_WAIT;
        let prefix = format!("ready stream={STREAM} listen=");
        loop {
            match lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix(&prefix) {
                        let is_first = self.address != address;
                        self.address = address.trim().to_owned();
                        return if is_first {
                            self.write_config()
                        } else {
                            Ok(())
                        };
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let mut child = self.running.take().expect("it was started above");
                    let status = child.wait().map_err(|error| self.cannot_run(&error))?;
                    return Err(self.ended("run", status));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    self.kill();
                    return Err(Failure::Failed(format!(
                        "relayd was not ready within {} s{}",
                        READY_WAIT.as_secs(),
                        self.log_tail()
                    )));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
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
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The stream's directory: journal and counters.
    pub(crate) fn stream_directory(&self) -> PathBuf {
        self.directory.join("stream")
    }

    /// How publisher `id` connects.
    pub(crate) fn publisher(&self, id: u64) -> Connection {
        self.connection(publisher_name(id))
    }

    /// How a subscriber connects.
    pub(crate) fn subscriber(&self) -> Connection {
        self.connection(SUBSCRIBER_NAME.into())
    }

    fn connection(&self, name: String) -> Connection {
        Connection {
            addresses: vec![self.address.clone()],
            credential: Credential {
                name,
                secret: self.secret.clone(),
            },
            stream: STREAM,
            give_up_after: Some(GIVE_UP_AFTER),
        }
    }

    fn config_path(&self) -> PathBuf {
        self.directory.join("relayd.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("relayd.log")
    }

    fn write_config(&self) -> Result<(), Failure> {
        let path = self.config_path();
        fs::write(&path, self.config()).map_err(|error| Failure::file("writing", &path, &error))
    }

    fn config(&self) -> String {
        let settings = &self.settings;
        let directory = toml::Value::from(self.stream_directory().to_string_lossy().into_owned());
        let mut text = format!(
            "node = 1\n\n[[stream]]\nid = {STREAM}\nname = \"main\"\nlisten = \"{}\"\n\
             directory = {directory}\npolicy = \"{}\"\n\n[stream.threads]\nmode = \"{}\"\nidle = \"{}\"\n",
            self.address,
            word(&settings.policy),
            word(&settings.mode),
            word(&settings.idle)
        );
        let mut add = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line).expect("a string takes all");
        };
        if !settings.cpus.is_empty() {
            add(format_args!("cpus = {:?}\n", settings.cpus));
        }
        add(format_args!(
            "\n[stream.journal]\nprepared = \"{}\"\nwrite_method = \"{}\"\n",
            settings.prepared.text(),
            word(&settings.write_method)
        ));
        let secret = hex(&self.secret);
        for id in 1..=settings.publishers {
            add(format_args!(
                "\n[[stream.credential]]\nname = \"{}\"\nsecret = \"{secret}\"\npublisher = {id}\n\
                 publish = [\">\"]\n",
                publisher_name(id)
            ));
        }
        add(format_args!(
            "\n[[stream.credential]]\nname = \"{SUBSCRIBER_NAME}\"\nsecret = \"{secret}\"\n\
             subscribe = [\">\"]\n"
        ));
        text
    }

    /// `relayd ACTION --config ...`, its log kept.
    fn command(&self, action: &str) -> Result<Command, Failure> {
        let path = self.log_path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| Failure::file("opening", &path, &error))?;
        let mut command = Command::new(&self.relayd);
        command.arg(action).arg("--config").arg(self.config_path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Ok(command)
    }

    fn cannot_run(&self, error: &std::io::Error) -> Failure {
        Failure::Failed(format!("running {}: {error}", self.relayd.display()))
    }

    fn ended(&self, action: &str, status: ExitStatus) -> Failure {
        Failure::Failed(format!(
            "relayd {action} ended with {status}{}",
            self.log_tail()
        ))
    }

    /// The end of relayd's log, to be put behind an error.
    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
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

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends SIGTERM. The standard library knows SIGKILL only, and the shell spares an unsafe call.
pub(crate) fn terminate(child: &Child) -> Result<(), Failure> {
    let status = Command::new("sh")
        .args(["-c", "kill -TERM \"$1\"", "sh", &child.id().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // A `kill` that fails means that the process has ended; waiting for it tells how.
    status
        .map(|_| ())
        .map_err(|error| Failure::Failed(format!("running sh: {error}")))
}

/// Reads lines in a thread of their own to the end, wanted or not, so that the writer never blocks.
fn read_lines(input: impl std::io::Read + Send + 'static) -> Receiver<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_configuration_writes_them() {
        assert_eq!("512MiB".parse(), Ok(Size(512 << 20)));
        assert_eq!("1GiB".parse(), Ok(Size(1 << 30)));
        assert_eq!("4096".parse(), Ok(Size(4096)));
        for bad in ["", "MiB", "1MB", "0", "-1", "99999999999GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        assert_eq!(Size((3 << 20) + 1).text(), "4MiB");
    }

    #[test]
    fn the_configuration_is_toml_and_says_what_was_asked() {
        let server = Server {
            relayd: "relayd".into(),
            directory: "/tmp/a \"b\"".into(),
            settings: ServerSettings {
                mode: Mode::Split,
                idle: Idle::Park,
                cpus: vec![0, 2, 3],
                policy: Policy::Local,
                write_method: WriteMethod::Auto,
                prepared: Size(64 << 20),
                publishers: 2,
            },
            secret: vec![1, 2],
            address: "127.0.0.1:0".into(),
            running: None,
        };
        let config: toml::Table = server.config().parse().expect("TOML");
        let stream = &config["stream"][0];
        assert_eq!(stream["directory"].as_str(), Some("/tmp/a \"b\"/stream"));
        assert_eq!(stream["threads"]["mode"].as_str(), Some("split"));
        assert_eq!(stream["threads"]["cpus"].as_array().map(Vec::len), Some(3));
        assert_eq!(stream["journal"]["prepared"].as_str(), Some("64MiB"));
        assert_eq!(stream["credential"].as_array().map(Vec::len), Some(3));
        assert_eq!(stream["credential"][1]["publisher"].as_integer(), Some(2));
    }
}
