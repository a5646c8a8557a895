//! A real `relayd witness` for tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use relay_client::wire::id::NodeId;
use relay_client::witness::WitnessClient;

use super::asker::SECRET;
use super::hosts::Host;
use super::{LIMIT, Launched, free_port, launch, relayd, run, scratch, text};

/// A directory with a witness's configuration and store, and maybe the running process.
pub struct Witness {
    pub home: tempfile::TempDir,
    pub port: u16,
    pub limits: String,
    /// Where it runs.
    pub host: Host,
    /// Where the log goes: not on a disk that a test lets fail.
    pub log_path: PathBuf,
    pub process: Option<Launched>,
}

impl Witness {
    /// A store is made; nothing runs yet.
    pub fn formatted(limits: &str, home: tempfile::TempDir) -> Self {
        Self::formatted_on(Host::default(), limits, home)
    }

    pub fn formatted_on(host: Host, limits: &str, home: tempfile::TempDir) -> Self {
        let witness = Self {
            log_path: home.path().join("log"),
            home,
            port: free_port(),
            limits: limits.to_owned(),
            host,
            process: None,
        };
        witness.write_config();
        let output = witness.relayd("format");
        assert!(output.status.success(), "format: {}", text(&output));
        witness
    }

    pub fn started(limits: &str) -> Self {
        Self::started_on(Host::default(), limits)
    }

    pub fn started_on(host: Host, limits: &str) -> Self {
        let mut witness = Self::formatted_on(host, limits, scratch());
        witness.start();
        witness
    }

    pub fn write_config(&self) {
        let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        let config = format!(
            "[witness]\nlisten = \"{}\"\ndirectory = \"{}\"\nsecret = \"{hex}\"\n\
             [witness.limits]\n{}\n",
            self.address(),
            self.directory().display(),
            self.limits
        );
        std::fs::write(self.config_path(), config).unwrap();
    }

    pub fn directory(&self) -> PathBuf {
        self.home.path().join("witness")
    }

    pub fn store(&self) -> PathBuf {
        self.directory().join("registers")
    }

    pub fn config_path(&self) -> PathBuf {
        self.home.path().join("witness.toml")
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host.address, self.port)
    }

    /// The arbiter section of a node that uses it.
    pub fn section(&self) -> String {
        format!("kind = \"witness\"\naddress = \"{}\"\n", self.address())
    }

    /// Runs a command of relayd's to its end.
    pub fn relayd(&self, command: &str) -> Output {
        run(relayd()
            .arg(command)
            .arg("--config")
            .arg(self.config_path()))
    }

    pub fn command(&self) -> Command {
        let mut command = relayd();
        self.host.place(&mut command);
        command
            .arg("witness")
            .arg("--config")
            .arg(self.config_path());
        command
    }

    pub fn start(&mut self) {
        self.try_start()
            .unwrap_or_else(|error| panic!("the witness did not start: {error}"));
    }

    /// Starts and waits for `ready`; otherwise what it said.
    pub fn try_start(&mut self) -> Result<(), String> {
        let launched = launch(&mut self.command(), &self.log_path)?;
        assert_eq!(
            launched.line,
            format!("ready witness listen={}", self.address())
        );
        self.process = Some(launched);
        Ok(())
    }

    pub fn client(&self) -> WitnessClient {
        let deadline = Instant::now() + LIMIT;
        WitnessClient::connect(self.address(), &SECRET, NodeId(1), deadline).unwrap()
    }

    pub fn pid(&self) -> i32 {
        self.process.as_ref().unwrap().child.id() as i32
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is a child of ours that was not waited for yet, so the number is its own.
        let sent = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(sent, 0);
    }

    pub fn kill(&mut self) {
        let mut launched = self.process.take().unwrap();
        launched.child.kill().unwrap();
        launched.child.wait().unwrap();
    }

    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Waits until the process ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut launched = self.process.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = launched.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// A number from the process's status, such as `Threads` or `VmRSS` (KiB).
    pub fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(launched) = &mut self.process {
            let _ = launched.child.kill();
            let _ = launched.child.wait();
        }
    }
}
