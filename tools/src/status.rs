//! `relay status`: the counters of a relay on this machine, read from its files without asking it.

mod group;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use self::group::GroupStatus;
use crate::counters::{Counters, HopSummary};
use crate::exit::{Failure, Interrupt};
use crate::output::{Lines, thousands};
use crate::publish::utc_ns;

const EXAMPLES: &str = "\
Examples:
  relay status --dir /var/lib/relay/orders
  relay status --config /etc/relay/relayd.toml --watch 1
  relay status --config /etc/relay/relayd.toml --json";

/// Options of `relay status`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusOptions {
    /// A stream's directory
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    dir: Vec<PathBuf>,
    /// relayd's configuration, which names the directories of its streams
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    config: Option<PathBuf>,
    /// Print again every so many seconds, with what was added per second
    #[arg(long, value_name = "SECONDS")]
    watch: Option<f64>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Status<'a> {
    directory: &'a Path,
    stream: u32,
    node: u64,
    pid: u64,
    running: bool,
    started_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<GroupStatus>,
    counters: BTreeMap<&'a str, u64>,
    hops: BTreeMap<String, HopSummary>,
}

/// A reading and when it was made.
type Reading = (Instant, Counters);

/// Runs the command.
pub(crate) fn run(options: &StatusOptions) -> Result<(), Failure> {
    let directories = options.directories()?;
    let Some(every) = options.watch else {
        return options.print(&directories, &mut Vec::new());
    };
    if !(every.is_finite() && (0.01..=86_400.0).contains(&every)) {
        return Err(Failure::Usage(format!(
            "--watch takes 0.01 to 86,400 seconds, not {every}"
        )));
    }
    let interrupt = Interrupt::install()?;
    let mut before = Vec::new();
    loop {
        options.print(&directories, &mut before)?;
        let until = Instant::now() + Duration::from_secs_f64(every);
        while Instant::now() < until {
            interrupt.check()?;
            let left = until.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

impl StatusOptions {
    fn directories(&self) -> Result<Vec<PathBuf>, Failure> {
        let Some(path) = &self.config else {
            return Ok(self.dir.clone());
        };
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::file("reading the configuration", path, &error))?;
        let directories = directories(&text).map_err(|what| {
            Failure::Failed(format!(
                "{}: {what}; `relayd check --config {}` says more",
                path.display(),
                path.display()
            ))
        })?;
        // As relayd itself takes them: from its working directory, which is ours.
        Ok(directories)
    }

    /// Prints every stream once; `before` holds the last readings, and then these.
    fn print(&self, directories: &[PathBuf], before: &mut Vec<Reading>) -> Result<(), Failure> {
        let mut lines = Lines::new();
        let mut readings = Vec::new();
        for (place, directory) in directories.iter().enumerate() {
            let counters = Counters::read(directory)?;
            let earlier = before
                .get(place)
                .filter(|(_, c)| c.started_ns == counters.started_ns);
            if self.json {
                lines.json(&Status {
                    directory,
                    stream: counters.stream,
                    node: counters.node,
                    pid: counters.pid,
                    running: is_running(&counters),
                    started_ns: counters.started_ns,
                    group: GroupStatus::of(&counters),
                    counters: counters.plain().collect(),
                    hops: counters.hops(earlier.map(|(_, counters)| counters)),
                })?;
            } else {
                print_text(&mut lines, directory, &counters, earlier)?;
            }
            readings.push((Instant::now(), counters));
        }
        *before = readings;
        lines.finish()
    }
}

/// The `directory` of each stream of a configuration.
fn directories(config: &str) -> Result<Vec<PathBuf>, String> {
    let table: toml::Table = config
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    let streams = table.get("stream").and_then(toml::Value::as_array);
    let streams = streams.ok_or("there is no [[stream]]")?;
    let directory = |stream: &toml::Value| {
        let directory = stream.get("directory").and_then(toml::Value::as_str);
        directory
            .map(PathBuf::from)
            .ok_or_else(|| "a stream has no directory".to_owned())
    };
    streams.iter().map(directory).collect()
}

/// Whether the process that wrote the counters lives: there is one of its number, and it is a relayd.
pub(crate) fn is_running(counters: &Counters) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", counters.pid));
    name.is_ok_and(|name| name.trim_end().starts_with("relayd"))
}

fn print_text(
    lines: &mut Lines,
    directory: &Path,
    counters: &Counters,
    earlier: Option<&Reading>,
) -> Result<(), Failure> {
    let age_s = utc_ns().saturating_sub(counters.started_ns) / 1_000_000_000;
    let state = if is_running(counters) {
        "runs"
    } else {
        "DOES NOT RUN"
    };
    lines.text(&format!(
        "stream {} of node {} in {}: process {} {state}, started {} s ago",
        counters.stream,
        counters.node,
        directory.display(),
        counters.pid,
        thousands(age_s)
    ))?;
    for line in GroupStatus::of(counters)
        .iter()
        .flat_map(GroupStatus::lines)
    {
        lines.text(&line)?;
    }
    let mut groups: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for (label, value) in counters.plain().filter(|(label, _)| !group::is_told(label)) {
        let (group, name) = label.rsplit_once('.').unwrap_or(("", label));
        groups.entry(group).or_default().push((name, value));
    }
    for (group, values) in groups {
        if !group.is_empty() {
            lines.text(&format!("  {group}"))?;
        }
        for (name, value) in values {
            let label = if group.is_empty() {
                name.into()
            } else {
                format!("{group}.{name}")
            };
            let rate = earlier.and_then(|(at, earlier)| {
                let added = value.checked_sub(earlier.value(&label)?)?;
                (added > 0).then(|| added as f64 / at.elapsed().as_secs_f64())
            });
            let rate = rate.map(|rate| format!("  {:>12} /s", thousands(rate as u64)));
            let value = thousands(value);
            lines.text(&format!(
                "    {name:<36} {value:>20}{}",
                rate.unwrap_or_default()
            ))?;
        }
    }
    let hops = counters.hops(earlier.map(|(_, counters)| counters));
    if hops.is_empty() {
        return Ok(());
    }
    lines.text(&format!(
        "  {:<38} {:>12} {:>10} {:>10} {:>10}",
        "hops, us", "count", "p50", "p99", "max"
    ))?;
    for (hop, found) in hops {
        lines.text(&format!(
            "    {hop:<36} {:>12} {:>10.1} {:>10.1} {:>10.1}",
            thousands(found.count),
            found.p50_us,
            found.p99_us,
            found.max_us
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_from_the_configuration() {
        let config = "node = 1\n[[stream]]\ndirectory = \"/a\"\n[[stream]]\ndirectory = \"b\"\n";
        assert_eq!(directories(config), Ok(vec!["/a".into(), "b".into()]));
        for bad in ["", "[[stream]]\nid = 1", "node = ", "stream = 3"] {
            assert!(directories(bad).is_err(), "{bad}");
        }
    }
}
