//! A relayd for tests, and the `relay` command run against it. Independent of the command's own way to start one.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f";

/// The `relay` program.
pub(crate) fn relay() -> &'static str {
    env!("CARGO_BIN_EXE_relay")
}

/// The `relayd` program beside it.
pub(crate) fn relayd() -> PathBuf {
    let path = Path::new(relay()).with_file_name("relayd");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    path
}

/// A relayd on a free port, with a directory of its own. Killed and removed when it goes.
pub(crate) struct Relayd {
    pub(crate) directory: TempDir,
    pub(crate) address: String,
    child: Option<Child>,
}

impl Relayd {
    /// Formats a small journal and starts.
    pub(crate) fn start() -> Self {
        Self::start_on(|relayd| {
            let status = Command::new(self::relayd())
                .args(["format", "--config"])
                .arg(relayd.config())
                .stderr(Stdio::null())
                .status();
            assert!(status.expect("relayd runs").success(), "format");
        })
    }

    /// Starts on the journal that `make` puts into [`Relayd::stream`].
    pub(crate) fn start_on(make: impl FnOnce(&Self)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut relayd = Self {
            directory,
            address: "127.0.0.1:0".into(),
            child: None,
        };
        fs::write(relayd.config(), relayd.config_text()).expect("written");
        make(&relayd);
        relayd.run();
        relayd
    }

    /// Starts what was prepared, or was stopped before.
    pub(crate) fn run(&mut self) {
        let mut child = Command::new(relayd())
            .args(["run", "--config"])
            .arg(self.config())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("relayd runs");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut ready)
            .expect("a line");
        let address = ready.trim().rsplit_once("listen=").expect("ready").1;
        self.address = address.to_owned();
        self.child = Some(child);
    }

    fn config_text(&self) -> String {
        format!(
            "node = 1\n[[stream]]\nid = 1\nname = \"test\"\nlisten = \"{}\"\ndirectory = \"{}\"\n\
             [stream.threads]\nidle = \"park\"\n\
             [stream.journal]\nsegment_size = \"4MiB\"\nprepared = \"16MiB\"\nwrite_method = \"dsync\"\n\
             [[stream.credential]]\nname = \"desk\"\nsecret = \"{SECRET}\"\npublisher = 1\n\
             publish = [\"a.>\"]\nsubscribe = [\">\"]\n",
            self.address,
            self.stream().display()
        )
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("relayd.toml")
    }

    /// The stream's directory.
    pub(crate) fn stream(&self) -> PathBuf {
        self.directory.path().join("stream")
    }

    /// `relay COMMAND ARGUMENTS`, connected to this relayd.
    pub(crate) fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut built = Command::new(relay());
        built
            .arg(command)
            .args(arguments)
            .env("RELAY_ADDRESS", &self.address)
            .env("RELAY_CREDENTIAL", "desk")
            .env("RELAY_SECRET", SECRET)
            .stdin(Stdio::null());
        built
    }

    /// Runs `relay COMMAND ARGUMENTS`, which must end well; its output.
    pub(crate) fn run_ok(&self, command: &str, arguments: &[&str]) -> String {
        text_of(
            self.command(command, arguments)
                .output()
                .expect("relay runs"),
        )
    }

    /// Publishes `input`, a message per line.
    pub(crate) fn publish(&self, topic: &str, input: &str) -> String {
        let mut command = self.command("pub", &["--publisher", "1", "--topic", topic, "--json"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("relay runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("taken");
        drop(stdin);
        text_of(child.wait_with_output().expect("it ends"))
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            terminate(&child);
            assert!(
                child.wait().expect("it ends").success(),
                "relayd stops in order"
            );
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }
}

impl Drop for Relayd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends SIGTERM.
pub(crate) fn terminate(child: &Child) {
    let pid = child.id().to_string();
    let status = Command::new("sh")
        .args(["-c", "kill -TERM \"$1\"", "sh", &pid])
        .status();
    assert!(status.expect("sh runs").success());
}

/// The output of a command that ended well.
pub(crate) fn text_of(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// Exit status and standard error.
pub(crate) fn refusal(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("relay runs");
    let said = String::from_utf8(output.stderr).expect("text");
    (output.status.code().expect("it ended by itself"), said)
}

/// The last line, which is one JSON object.
pub(crate) fn last_object(text: &str) -> Value {
    let line = text.lines().last().expect("a line");
    let value: Value = serde_json::from_str(line).expect("JSON");
    assert!(value.is_object());
    value
}

/// Waits until `done` says so.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
