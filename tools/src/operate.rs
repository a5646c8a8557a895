//! `relay hand-over`, `detach`, `attach`, `promote` and `roll-session`: an operator's words to a node on this machine.
//!
//! They go through the socket `admin.sock` in the stream's directory, one line each way; what may be done the node decides.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::counters::Counters;
use crate::exit::Failure;
use crate::output::Lines;

/// The node has this long to answer, and a switch this long to come about: somewhat more than the node itself takes to give up.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);
/// What `group.standing` is on a node that leads.
const LEADING: u64 = 2;

/// Options of `relay hand-over`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  relay hand-over --dir /var/lib/relay/orders\n  \
                        relay hand-over --dir /var/lib/relay/orders --to 2"
)]
pub(crate) struct HandOverOptions {
    /// The stream's directory on the node that leads
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The node that is to lead; without it the one that has kept up best
    #[arg(long, value_name = "NODE")]
    to: Option<u64>,
}

/// Options of `relay detach` and `relay attach`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  relay detach 2 --dir /var/lib/relay/orders\n  \
                        relay attach 2 --dir /var/lib/relay/orders"
)]
pub(crate) struct DetachOptions {
    /// The node
    #[arg(value_name = "NODE")]
    node: u64,
    /// The stream's directory on the node that leads
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Options of `relay promote`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  relay promote --dir /var/lib/relay/orders\n  \
                        relay promote --dir /var/lib/relay/orders --accept-loss 2"
)]
pub(crate) struct PromoteOptions {
    /// The stream's directory on the node that is to lead
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Lead although messages that were acknowledged may be lost; takes the number of this very node
    #[arg(long, value_name = "NODE")]
    accept_loss: Option<u64>,
}

/// Options of `relay roll-session`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  relay roll-session --dir /var/lib/relay/orders\n  \
                        relay roll-session 20261130 --name \"30 November\" --dir /var/lib/relay/orders"
)]
pub(crate) struct RollSessionOptions {
    /// Number of the trading session to open, above that of the one that is open [default: today's date in UTC, as 20261130]
    #[arg(value_name = "NUMBER")]
    number: Option<u64>,
    /// Its name, 1 to 64 bytes [default: today's date, or the number]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The stream's directory on the node that leads
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Runs `relay hand-over`: over once the node does not lead any more.
pub(crate) fn hand_over(options: &HandOverOptions) -> Result<(), Failure> {
    let directory = &options.dir;
    let request = match options.to {
        None => "hand-over".to_owned(),
        Some(node) => format!("hand-over {node}"),
    };
    ask(directory, &request)?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let counters = Counters::read(directory)?;
        let value = |label: &str| counters.value(label).unwrap_or(0);
        let (standing, primary) = (value("group.standing"), value("group.primary"));
        if standing != LEADING && primary != 0 && primary != counters.node {
            let done = begun.elapsed().as_millis();
            return tell(&format!("node {primary} leads now, after {done} ms"));
        }
        thread::sleep(PAUSE);
    }
    Err(Failure::Failed(
        "the switch did not come about in time and the node goes on leading; see `relay status` for \
         how the other node does"
            .to_owned(),
    ))
}

/// Runs `relay detach`.
pub(crate) fn detach(options: &DetachOptions) -> Result<(), Failure> {
    let node = options.node;
    ask(&options.dir, &format!("detach {node}"))?;
    tell(&format!(
        "node {node} is taken out and stays out until `relay attach {node}`"
    ))
}

/// Runs `relay attach`.
pub(crate) fn attach(options: &DetachOptions) -> Result<(), Failure> {
    let node = options.node;
    ask(&options.dir, &format!("attach {node}"))?;
    tell(&format!("node {node} is taken in once it has caught up"))
}

/// Runs `relay promote`: over once the node leads.
pub(crate) fn promote(options: &PromoteOptions) -> Result<(), Failure> {
    let request = match options.accept_loss {
        None => "promote".to_owned(),
        Some(node) => format!("promote accept-loss {node}"),
    };
    ask(&options.dir, &request)?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let counters = Counters::read(&options.dir)?;
        if counters.value("group.standing") == Some(LEADING) {
            return tell(&format!("node {} leads", counters.node));
        }
        thread::sleep(PAUSE);
    }
    Err(Failure::Failed(
        "the node does not lead yet; see its log and `relay status`".to_owned(),
    ))
}

/// Runs `relay roll-session`: over once the session's record is released.
pub(crate) fn roll_session(options: &RollSessionOptions) -> Result<(), Failure> {
    let today = jiff::Timestamp::now()
        .to_zoned_datetime(jiff::tz::TimeZone::UTC)
        .date();
    let (number, name) = match options.number {
        Some(number) => (number, number.to_string()),
        None => {
            let number = today.strftime("%Y%m%d").to_string();
            (number.parse().expect("eight digits"), today.to_string())
        }
    };
    let name = options.name.as_ref().unwrap_or(&name);
    ask(&options.dir, &format!("roll-session {number} {name}"))?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let counters = Counters::read(&options.dir)?;
        if counters.value("sequence.trading_session") == Some(number) {
            return tell(&format!("trading session {number} ({name}) is open"));
        }
        thread::sleep(PAUSE);
    }
    Err(Failure::Failed(
        "the session's record is not released yet: it is opened as soon as copies and journal space allow; see `relay status`"
            .to_owned(),
    ))
}

fn tell(text: &str) -> Result<(), Failure> {
    let mut lines = Lines::new();
    lines.text(text)?;
    lines.finish()
}

/// Asks the node of a stream's directory.
fn ask(directory: &Path, request: &str) -> Result<(), Failure> {
    let path = directory.join("admin.sock");
    let asked = || -> std::io::Result<String> {
        let mut socket = UnixStream::connect(&path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        writeln!(socket, "{request}")?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().map_err(|error| {
        let path = path.display();
        Failure::Refused(format!(
            "asking the node at {path}: {error}; see that relayd runs there and run this \
             as the same user"
        ))
    })?;
    let parsed: serde_json::Value = serde_json::from_str(&answer)
        .map_err(|error| Failure::Failed(format!("the node's answer can't be read: {error}")))?;
    if parsed["ok"] == true {
        return Ok(());
    }
    let why = parsed["error"].as_str().unwrap_or("no reason was given");
    Err(Failure::Failed(format!("refused: {why}")))
}
