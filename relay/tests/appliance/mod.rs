//! A real `relayd` for tests: its directory, configuration, process and clients. Every wait has a generous limit and looks
//! for a condition; nothing sleeps for an amount of time to be right.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test file uses its own part

pub mod asker;
pub mod disk;
pub mod faulty_disk;
pub mod flow;
pub mod group;
pub mod history;
pub mod hosts;
pub mod load;
pub mod rights;
pub mod witness;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use relay_client::{
    Credential, OutMessage, Publisher, PublisherConfig, Start, Subscriber, SubscriberConfig,
};

pub const SECRET: &str = "000102030405060708090a0b0c0d0e0f";
pub const LIMIT: Duration = Duration::from_secs(60);

/// What differs from test to test.
#[derive(Debug, Clone)]
pub struct Shape {
    pub node: u64,
    pub stream: u32,
    pub port: u16,
    pub threads: String,
    pub journal: String,
    pub limits: String,
    pub rate_limit: u32,
    /// When a message is released, where it is not the default.
    pub policy: Option<&'static str>,
    /// The group's section, where there is one.
    pub group: String,
    /// Where it runs.
    pub host: hosts::Host,
    /// Where the journal lies, if not beside the configuration.
    pub disk: Option<PathBuf>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            node: 1,
            stream: 1,
            port: 0,
            threads: "mode = \"shared\"\nidle = \"park\"".to_owned(),
            journal: "segment_size = \"4MiB\"\nprepared = \"16MiB\"\nwrite_method = \"dsync\""
                .to_owned(),
            limits: "ring = \"8MiB\"\npublishers = 16\nheartbeat_ms = 500".to_owned(),
            rate_limit: 0,
            policy: None,
            group: String::new(),
            host: hosts::Host::default(),
            disk: None,
        }
    }
}

/// A directory with a configuration, and maybe a running `relayd`.
pub struct Appliance {
    pub home: tempfile::TempDir,
    /// Where the log goes: not on a disk that a test lets fail.
    pub log_path: PathBuf,
    pub shape: Shape,
    pub process: Option<Running>,
    pub port: u16,
}

pub struct Running {
    pub child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

/// A process that has said its first line.
pub struct Launched {
    pub child: Child,
    /// The line, without its end.
    pub line: String,
    /// Kept open, so that it can say more.
    _stdout: BufReader<std::process::ChildStdout>,
}

/// Starts `command` with its log appended to `log` and waits for its first line; if it ends before, its status and the last
/// line of the log.
pub fn launch(command: &mut Command, log: &Path) -> Result<Launched, String> {
    let log_file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    if line.is_empty() {
        let status = child.wait().unwrap();
        let said = std::fs::read_to_string(log).unwrap();
        let last = said.lines().last().unwrap_or_default();
        return Err(format!("{status}: {last}"));
    }
    Ok(Launched {
        child,
        line: line.trim_end().to_owned(),
        _stdout: stdout,
    })
}

pub fn scratch() -> tempfile::TempDir {
    // Beside the build, which lies on a disk; /tmp may be a tmpfs without direct I/O.
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl Appliance {
    /// A formatted journal; nothing runs yet.
    pub fn formatted(shape: Shape) -> Self {
        let appliance = Self::configured(shape, scratch());
        let output = appliance.relayd("format");
        assert!(output.status.success(), "format: {}", text(&output));
        appliance
    }

    pub fn configured(shape: Shape, home: tempfile::TempDir) -> Self {
        let port = if shape.port == 0 {
            free_port()
        } else {
            shape.port
        };
        let appliance = Self {
            log_path: home.path().join("log"),
            home,
            port,
            shape,
            process: None,
        };
        if let Some(disk) = &appliance.shape.disk {
            let journal = disk.join("stream");
            std::fs::create_dir(&journal).unwrap();
            std::fs::File::open(disk).unwrap().sync_all().unwrap();
            std::os::unix::fs::symlink(journal, appliance.directory()).unwrap();
        }
        appliance.write_config();
        appliance
    }

    pub fn started(shape: Shape) -> Self {
        let mut appliance = Self::formatted(shape);
        appliance.start();
        appliance
    }

    pub fn directory(&self) -> PathBuf {
        self.home.path().join("stream")
    }

    pub fn config_path(&self) -> PathBuf {
        self.home.path().join("relayd.toml")
    }

    pub fn write_config(&self) {
        let Shape {
            node,
            stream,
            threads,
            journal,
            limits,
            rate_limit,
            policy,
            group,
            ..
        } = &self.shape;
        let policy = policy.map_or_else(String::new, |policy| format!("policy = \"{policy}\"\n"));
        let mut config = format!(
            "node = {node}\n[[stream]]\nid = {stream}\nname = \"test\"\n\
             listen = \"{}\"\ndirectory = \"{}\"\n{policy}[stream.threads]\n{threads}\n\
             [stream.journal]\n{journal}\n[stream.limits]\n{limits}\n{group}",
            self.address(),
            self.directory().display(),
        );
        for publisher in 1..=8 {
            config.push_str(&format!(
                "[[stream.credential]]\nname = \"p{publisher}\"\nsecret = \"{SECRET}\"\n\
                 publisher = {publisher}\npublish = [\">\"]\nsubscribe = [\">\"]\n\
                 rate_limit = {rate_limit}\n"
            ));
        }
        std::fs::write(self.config_path(), config).unwrap();
    }

    /// Runs a command of relayd's to its end.
    pub fn relayd(&self, command: &str) -> Output {
        run(relayd()
            .arg(command)
            .arg("--config")
            .arg(self.config_path()))
    }

    pub fn start(&mut self) {
        self.try_start()
            .unwrap_or_else(|error| panic!("relayd did not start: {error}"));
    }

    /// Starts and waits for `ready`; otherwise what it said.
    pub fn try_start(&mut self) -> Result<(), String> {
        self.start_as(&mut relayd())
    }

    pub fn start_as(&mut self, command: &mut Command) -> Result<(), String> {
        let log_file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log_path)
            .unwrap();
        self.shape.host.place(command);
        let mut child = command
            .arg("run")
            .arg("--config")
            .arg(self.config_path())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(address) = line.trim().split("listen=").nth(1) else {
            let status = child.wait().unwrap();
            let said = self.log();
            let last = said.lines().last().unwrap_or_default();
            return Err(format!("{status}: {last}"));
        };
        // The port stays the same over restarts, so that clients find it again.
        self.port = address.rsplit(':').next().unwrap().parse().unwrap();
        self.write_config();
        self.process = Some(Running { child, stdout });
        Ok(())
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.shape.host.address, self.port)
    }

    pub fn pid(&self) -> i32 {
        self.process.as_ref().unwrap().child.id() as i32
    }

    pub fn kill(&mut self) {
        let mut running = self.process.take().unwrap();
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    pub fn stop(&mut self) -> ExitStatus {
        // SAFETY: the process is a child of ours that was not waited for yet, so the number is its own.
        unsafe { libc::kill(self.pid(), libc::SIGTERM) };
        self.wait()
    }

    /// Waits until the process ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut running = self.process.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = running.child.try_wait().unwrap() {
                let mut rest = String::new();
                running.stdout.read_to_string(&mut rest).unwrap();
                return status;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "relayd does not end: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// Waits until the log holds every one of these parts: what a thread writes into it comes in its own time.
    pub fn await_log(&self, parts: &[&str]) {
        let begun = Instant::now();
        loop {
            let log = self.log();
            let Some(missing) = parts.iter().find(|part| !log.contains(**part)) else {
                return;
            };
            assert!(
                begun.elapsed() < LIMIT,
                "the log does not say {missing:?}:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn counters(&self) -> BTreeMap<String, u64> {
        let bytes = std::fs::read(self.directory().join("counters")).unwrap();
        let view = relay_wire::counters::read(&bytes).unwrap();
        view.counters()
            .map(|(label, value)| (label.to_owned(), value))
            .collect()
    }

    pub fn publisher(&self, id: u64) -> Publisher {
        Publisher::connect(self.publisher_config(id)).unwrap()
    }

    pub fn publisher_config(&self, id: u64) -> PublisherConfig {
        PublisherConfig::new(vec![self.address()], credential(&format!("p{id}")), id)
    }

    pub fn subscriber(&self, patterns: &[&str], start: Start) -> Subscriber {
        Subscriber::connect(self.subscriber_config(patterns, start)).unwrap()
    }

    pub fn subscriber_config(&self, patterns: &[&str], start: Start) -> SubscriberConfig {
        let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        SubscriberConfig::new(vec![self.address()], credential("p1"), patterns, start)
    }
}

/// A port nobody listens on, below those the kernel gives to outgoing connections: a client that tries to reach a relay
/// while that restarts must not be given the relay's own port.
pub fn free_port() -> u16 {
    let first = std::process::id() as u16 % 10_000;
    let mut ports = (0..10_000).map(|n| 20_000 + (first + n) % 10_000);
    static TAKEN: std::sync::Mutex<Vec<u16>> = std::sync::Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    let port = ports
        .find(|port| {
            !taken.contains(port) && std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()
        })
        .expect("some port is free");
    taken.push(port);
    port
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if let Some(running) = &mut self.process {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

pub fn credential(name: &str) -> Credential {
    let secret = (0..16).collect();
    Credential {
        name: name.to_owned(),
        secret,
    }
}

pub fn signal(pid: i32, number: libc::c_int) {
    // SAFETY: the process is a child of ours that was not waited for yet, so the number is its own.
    let sent = unsafe { libc::kill(pid, number) };
    assert_eq!(sent, 0, "the process is there");
}

pub fn relayd() -> Command {
    program(env!("CARGO_BIN_EXE_relayd"))
}

/// A program that dies with the thread that starts it, so that an aborted test leaves nothing behind.
pub fn program(path: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(path);
    // SAFETY: between fork and exec only prctl is called, which is allowed there.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

pub fn text(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}{err}")
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A payload that names its publisher and number, of a length that varies with it.
pub fn payload(publisher: u64, number: u64) -> Vec<u8> {
    let mut bytes = vec![publisher as u8; 16 + (number * 37 % 400) as usize];
    bytes[..8].copy_from_slice(&publisher.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes
}

pub fn send(publisher: &mut Publisher, topic: relay_client::TopicId, payload: &[u8]) {
    publisher.send(&OutMessage::new(topic, payload)).unwrap();
}

/// The next `count` payloads.
pub fn take(subscriber: &mut Subscriber, count: usize) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let delivery = subscriber.next_within(LIMIT).unwrap();
        let delivery = delivery.unwrap_or_else(|| panic!("{} of {count} came", payloads.len()));
        payloads.push(delivery.record.payload().to_vec());
    }
    payloads
}

pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// The seed of a random test: `RELAY_SEED`, or the time. It is printed, so that a failure can be run again.
pub fn seed() -> u64 {
    let given = std::env::var("RELAY_SEED").ok();
    let seed = given.map_or_else(
        || {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap();
            now.as_nanos() as u64
        },
        |text| text.parse().expect("RELAY_SEED is a number"),
    );
    println!("RELAY_SEED={seed}");
    seed
}

/// Numbers that only look random (splitmix64).
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
