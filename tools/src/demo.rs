//! `relay demo`: everything at work at once, and a judgement on it that does not come from the product.
//!
//! ```text
//! relay pub --hash-file  ->  relayd  ->  relay sub --hash-file   live from the start
//!                          SIGKILL   ->  relay sub --hash-file   joins in the middle, from the first message
//!                          restart
//! compare_hashes.py: published against received      relay inspect --verify: the journal
//! ```
//!
//! Publisher and subscribers are processes of their own, as a user would start them. Nobody is told of the kill; they
//! notice it and come back by themselves.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use tempfile::TempDir;

use crate::bench::server::{
    Idle, Mode, Policy, Server, ServerSettings, Size, WriteMethod, find_relayd,
};
use crate::compare::{Comparison, compare_files};
use crate::exit::{Failure, Interrupt};
use crate::inspect;
use crate::inspect::verify::{Verification, verify};
use crate::output::{json_line, line, progress, thousands};
use crate::pcap::{CaptureReader, transport};
use crate::percentiles::Percentiles;
use crate::publish::utc_ns;
use crate::subscribe::LatencySummary;

mod child;

use child::Running;

/// How long the publishing takes.
const SECONDS: f64 = 9.0;
/// When the second subscriber joins, and when the relay is killed, as parts of it.
const JOIN_AT: f64 = 0.35;
const KILL_AT: f64 = 0.55;
/// Bounds on what should be over soon.
const PUBLISH_WAIT: Duration = Duration::from_secs(40);
const CATCH_UP_WAIT: Duration = Duration::from_secs(20);
const READY_WAIT: Duration = Duration::from_secs(20);
/// Everything has arrived, but a duplicate might follow: so long it is waited for.
const GRACE: Duration = Duration::from_millis(500);
/// Journal prepared for the demonstration.
const PREPARED: Size = Size(256 << 20);

const EXAMPLES: &str = "\
Examples:
  relay demo
  relay demo --pcap capture.pcap --keep /tmp/demo
  relay demo --messages 50000 --json";

/// Options of `relay demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoOptions {
    /// Publish the UDP and TCP payloads of this capture, instead of a generated flow
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Messages to generate
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20_000,
        conflicts_with = "pcap"
    )]
    messages: u64,
    /// Seed of the generated flow
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Keep journal, hashes and logs in this directory, which must be empty or new
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Script that compares the hashes, scripts/compare_hashes.py; without it the comparison is built in
    #[arg(long, value_name = "SCRIPT")]
    compare: Option<PathBuf>,
    /// The relayd program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    relayd: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    messages: u64,
    source: String,
    seconds: f64,
    received_live: u64,
    received_replayed: u64,
    reordered: u64,
    #[serde(flatten)]
    latency: Option<Percentiles>,
    compared_by: String,
    journal: Verification,
    published: u64,
    acknowledged: u64,
    /// Of the subscriber that received fewest.
    received: u64,
    lost: u64,
    duplicated: u64,
    altered: u64,
    outage_ms: f64,
    verified: bool,
}

/// Runs the command.
pub(crate) fn run(options: &DemoOptions) -> Result<(), Failure> {
    let relayd = find_relayd(options.relayd.as_deref())?;
    let directory = Directory::make(options.keep.as_deref())?;
    let flow = Source::of(options)?;
    let interrupt = Interrupt::install()?;
    let settings = ServerSettings {
        mode: Mode::Shared,
        idle: Idle::Park,
        cpus: Vec::new(),
        policy: Policy::Local,
        write_method: WriteMethod::Auto,
        prepared: PREPARED,
        publishers: 1,
    };
    let mut server = Server::prepare(relayd, directory.path(), settings)?;
    server.start()?;
    if !options.json {
        line(&format!(
            "relayd runs on {}; publishing {}",
            server.address(),
            flow.text
        ))?;
    }
    let mut stage = Stage {
        options,
        directory: directory.path(),
        interrupt: &interrupt,
        bar: progress((SECONDS * 10.0) as u64, "publishing"),
    };
    let outcome = stage.play(&mut server, &flow)?;
    stage.bar.finish_and_clear();
    let report = stage.judge(&mut server, &flow, outcome)?;
    report.print(options.json)?;
    report.verdict()
}

/// Where everything lies; removed at the end unless it is to be kept.
enum Directory {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Directory {
    fn make(keep: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = keep else {
            return tempfile::Builder::new()
                .prefix("relay-demo-")
                .tempdir()
                .map(Self::Temporary)
                .map_err(|error| Failure::Failed(format!("making a directory: {error}")));
        };
        fs::create_dir_all(path).map_err(|error| Failure::file("making", path, &error))?;
        let mut entries =
            fs::read_dir(path).map_err(|error| Failure::file("reading", path, &error))?;
        if entries.next().is_some() {
            return Err(Failure::Usage(format!(
                "{} is not empty; give --keep a new directory",
                path.display()
            )));
        }
        let path = path.canonicalize();
        let path = path.map_err(|error| Failure::Failed(format!("--keep: {error}")))?;
        Ok(Self::Kept(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }
}

/// What is published.
struct Source {
    messages: u64,
    text: String,
    arguments: Vec<String>,
}

impl Source {
    fn of(options: &DemoOptions) -> Result<Self, Failure> {
        let Some(path) = &options.pcap else {
            let messages = options.messages.max(1);
            // A generated flow makes 2,000 messages a second by its own clock.
            let speed = messages as f64 / 2_000.0 / SECONDS;
            let mut arguments = vec!["--topic".into(), "demo.flow".into()];
            arguments.extend(["--generate".into(), "capture-like".into()]);
            arguments.extend(["--count".into(), messages.to_string()]);
            arguments.extend(["--seed".into(), options.seed.to_string()]);
            arguments.extend(["--pace".into(), format!("x{speed}")]);
            let text = format!("{} generated messages", thousands(messages));
            return Ok(Self {
                messages,
                text,
                arguments,
            });
        };
        let (messages, span_ns) = measure(path)?;
        if messages == 0 {
            return Err(Failure::Failed(format!(
                "{} holds no UDP or TCP payload; give another capture",
                path.display()
            )));
        }
        let mut arguments = vec!["--pcap".into(), path.to_string_lossy().into_owned()];
        arguments.extend([
            "--topic".into(),
            "demo.feed".into(),
            "--topic-per-port".into(),
        ]);
        let speed = span_ns as f64 / 1e9 / SECONDS;
        if speed > 1e-6 {
            arguments.extend(["--pace".into(), format!("x{speed}")]);
        } else {
            arguments.extend(["--rate".into(), format!("{}", messages as f64 / SECONDS)]);
        }
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        let text = format!("{} messages of {name}", thousands(messages));
        Ok(Self {
            messages,
            text,
            arguments,
        })
    }
}

/// Messages of a capture and the time from its first to its latest, ns.
fn measure(path: &Path) -> Result<(u64, u64), Failure> {
    let file = File::open(path).map_err(|error| Failure::file("opening", path, &error))?;
    let damaged = |error| Failure::Damaged(format!("{}: {error}", path.display()));
    let mut reader = CaptureReader::new(BufReader::new(file)).map_err(damaged)?;
    let (mut messages, mut first_ns, mut last_ns) = (0, u64::MAX, 0);
    while let Some(frame) = reader.next_frame().map_err(damaged)? {
        if transport(frame.link_type, frame.bytes).is_some() {
            messages += 1;
            if first_ns == u64::MAX {
                first_ns = frame.time_ns;
            }
            last_ns = last_ns.max(frame.time_ns);
        }
    }
    Ok((messages, last_ns.saturating_sub(first_ns)))
}

/// What the publisher said at its end; the fields that matter here.
#[derive(Debug, serde::Deserialize)]
struct PublisherSummary {
    published: u64,
    acknowledged: u64,
    seconds: f64,
}

/// What the play left behind.
struct Outcome {
    publisher: PublisherSummary,
    killed_ns: u64,
}

/// The run itself.
struct Stage<'a> {
    options: &'a DemoOptions,
    directory: &'a Path,
    interrupt: &'a Interrupt,
    bar: ProgressBar,
}

impl Stage<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn play(&mut self, server: &mut Server, source: &Source) -> Result<Outcome, Failure> {
        let mut live = self.subscribe(server, "live", "live")?;
        live.wait_for("subscribed", READY_WAIT, self.interrupt)?;
        let mut publisher = self.publish(server, source)?;
        let begun = Instant::now();

        self.wait_until(begun, JOIN_AT, &mut publisher)?;
        let mut replay = self.subscribe(server, "replay", "earliest")?;
        self.wait_until(begun, KILL_AT, &mut publisher)?;
        let killed_ns = utc_ns();
        server.kill();
        self.say("killed relayd with SIGKILL; starting it again")?;
        server.start()?;
        self.wait_until(begun, 1.0, &mut publisher)?;

        let output = publisher.finish(PUBLISH_WAIT, self.interrupt)?;
        let summary = output.lines().last().unwrap_or_default();
        let summary: PublisherSummary = serde_json::from_str(summary)
            .map_err(|error| Failure::Failed(format!("the publisher's summary: {error}")))?;
        self.catch_up(source, &mut live, "live")?;
        self.catch_up(source, &mut replay, "replay")?;
        thread::sleep(GRACE);
        live.stop(self.interrupt)?;
        replay.stop(self.interrupt)?;
        Ok(Outcome {
            publisher: summary,
            killed_ns,
        })
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.options.json {
            return Ok(());
        }
        self.bar.suspend(|| line(text))
    }

    /// This program with what every client of the demonstration needs.
    fn command(&self, server: &Server, action: &str) -> Result<Command, Failure> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::Failed(format!("finding this program: {error}")))?;
        let connection = if action == "pub" {
            server.publisher(1)
        } else {
            server.subscriber()
        };
        let mut command = Command::new(own);
        command
            .arg(action)
            .args([
                "--verbose",
                "--give-up-after",
                "30",
                "--address",
                server.address(),
            ])
            .env_remove("RELAY_ADDRESS")
            .env("RELAY_CREDENTIAL", &connection.credential.name)
            .env(
                "RELAY_SECRET",
                crate::output::hex(&connection.credential.secret),
            );
        Ok(command)
    }

    fn subscribe(&self, server: &Server, name: &str, from: &str) -> Result<Running, Failure> {
        let mut command = self.command(server, "sub")?;
        command
            .args(["--quiet", "--from", from, "--hash-file"])
            .arg(self.file(&format!("{name}.hashes")))
            .arg("--latency-file")
            .arg(self.file(&format!("{name}.json")));
        Running::start(command, name, self.directory)
    }

    fn publish(&self, server: &Server, source: &Source) -> Result<Running, Failure> {
        let mut command = self.command(server, "pub")?;
        command
            .args(["--publisher", "1", "--json", "--hash-file"])
            .arg(self.file("published.hashes"))
            .args(&source.arguments);
        Running::start(command, "publisher", self.directory)
    }

    /// Waits until a part of the publishing is over, by the clock or because it really is.
    fn wait_until(
        &self,
        begun: Instant,
        part: f64,
        publisher: &mut Running,
    ) -> Result<(), Failure> {
        let until = Duration::from_secs_f64(SECONDS * part);
        while begun.elapsed() < until && publisher.is_running()? {
            self.interrupt.check()?;
            thread::sleep(Duration::from_millis(10));
            self.bar
                .set_position((begun.elapsed().as_secs_f64() * 10.0) as u64);
        }
        Ok(())
    }

    /// Waits until a subscriber has as many messages as were published; that some are missing shows later.
    fn catch_up(&self, source: &Source, child: &mut Running, name: &str) -> Result<(), Failure> {
        let hashes = self.file(&format!("{name}.hashes"));
        let begun = Instant::now();
        while begun.elapsed() < CATCH_UP_WAIT && child.is_running()? {
            let text = fs::read(&hashes).unwrap_or_default();
            if text.iter().filter(|&&byte| byte == b'\n').count() as u64 >= source.messages {
                break;
            }
            self.interrupt.check()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Compares, verifies and puts it all together.
    fn judge(
        &self,
        server: &mut Server,
        source: &Source,
        outcome: Outcome,
    ) -> Result<Report, Failure> {
        server.stop()?;
        let (comparison, compared_by) = self.compare()?;
        let journal = server.stream_directory();
        let journal = verify(&journal, &inspect::open(&journal)?)?;
        let live: Option<LatencySummary> = fs::read(self.file("live.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let outage_ms = live.as_ref().map_or(0.0, |live| {
            let next = live
                .outages
                .iter()
                .map(|outage| outage.next_message_ns)
                .find(|&ns| ns > 0);
            next.map_or(0.0, |next_ns| {
                next_ns.saturating_sub(outcome.killed_ns) as f64 / 1e6
            })
        });
        let [first, second] = &comparison.subscribers[..] else {
            return Err(Failure::Failed(
                "the comparison is not of two subscribers".into(),
            ));
        };
        let is_all_journalled = journal.messages == outcome.publisher.published;
        Ok(Report {
            messages: source.messages,
            source: source.text.clone(),
            seconds: outcome.publisher.seconds,
            received_live: first.received,
            received_replayed: second.received,
            reordered: first.reordered + second.reordered + first.seq_breaks + second.seq_breaks,
            latency: live.map(|live| live.latency),
            compared_by,
            verified: journal.verified && is_all_journalled,
            journal,
            published: outcome.publisher.published,
            acknowledged: outcome.publisher.acknowledged,
            received: first.received.min(second.received),
            lost: first.lost + second.lost,
            duplicated: first.duplicated + second.duplicated,
            altered: first.altered + second.altered,
            outage_ms,
        })
    }

    fn compare(&self) -> Result<(Comparison, String), Failure> {
        let published = self.file("published.hashes");
        let received = [self.file("live.hashes"), self.file("replay.hashes")];
        if let Some(script) = &self.options.compare {
            if !script.is_file() {
                return Err(Failure::Usage(format!(
                    "{} is not there; name the script with --compare",
                    script.display()
                )));
            }
            let output = Command::new("python3")
                .arg(script)
                .arg(&published)
                .args(&received)
                .output();
            if let Ok(output) = output {
                let comparison = serde_json::from_slice(&output.stdout).map_err(|error| {
                    let said = String::from_utf8_lossy(&output.stderr);
                    Failure::Failed(format!("{}: {error}; it said: {said}", script.display()))
                })?;
                let name = script.file_name().unwrap_or(script.as_os_str());
                return Ok((comparison, name.to_string_lossy().into_owned()));
            }
        }
        let [live, replay] = &received;
        let comparison = compare_files(&published, &[live, replay])?;
        Ok((comparison, "relay demo".into()))
    }
}

impl Report {
    fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return json_line(self);
        }
        line("")?;
        for (what, number) in [
            ("published", self.published),
            ("acknowledged", self.acknowledged),
            ("received by the live subscriber", self.received_live),
            (
                "received by the one that joined later",
                self.received_replayed,
            ),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("altered", self.altered),
        ] {
            line(&format!("{what:<40} {:>10}", thousands(number)))?;
        }
        line(&format!(
            "{:<40} {:>10.0} ms",
            "kill to the next message", self.outage_ms
        ))?;
        line(&format!(
            "{:<40} {:>10}",
            "hashes compared by", self.compared_by
        ))?;
        let journal = &self.journal;
        line(&format!(
            "{:<40} {:>10}: {} messages in {} blocks",
            "journal",
            if self.verified {
                "verified"
            } else {
                "NOT RIGHT"
            },
            thousands(journal.messages),
            thousands(journal.blocks)
        ))?;
        let Some(latency) = &self.latency else {
            return Ok(());
        };
        line("")?;
        line(Percentiles::HEAD)?;
        line(&latency.row("publish to subscriber us"))?;
        line("(counted from when each message was due, so it contains the kill and the restart)")
    }

    /// Whether it all held.
    fn verdict(&self) -> Result<(), Failure> {
        let faults = self.lost + self.duplicated + self.reordered + self.altered;
        let is_complete = self.published == self.messages
            && self.acknowledged == self.published
            && self.received == self.published;
        if faults == 0 && is_complete && self.verified {
            return Ok(());
        }
        let damage = self.journal.damage.as_deref().unwrap_or("");
        Err(Failure::Damaged(format!(
            "the promise was broken, see above; run again with --keep DIR and keep that directory {damage}"
        )))
    }
}
