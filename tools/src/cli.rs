//! The command line as a whole; each command's own options stand with the command.

use clap::{ColorChoice, Parser, Subcommand};

use crate::bench::BenchOptions;
use crate::demo::DemoOptions;
use crate::exit::STATUSES;
use crate::export::ExportOptions;
use crate::find::FindOptions;
use crate::import::ImportOptions;
use crate::index::IndexOptions;
use crate::inspect::InspectOptions;
use crate::operate::{DetachOptions, HandOverOptions, PromoteOptions, RollSessionOptions};
use crate::publish::PublishOptions;
use crate::replay::ReplayOptions;
use crate::status::StatusOptions;
use crate::subscribe::SubscribeOptions;
use crate::verify::VerifyOptions;

fn after_help() -> String {
    format!(
        "Examples:\n  relay demo\n  \
         echo 'buy 100' | relay pub --publisher 1 --topic orders.new\n  \
         relay sub --topic 'orders.>' --from earliest\n  \
         relay help bench latency\n\n{STATUSES}"
    )
}

/// Sends messages through a relay, takes them out again, measures it and looks into its journal
#[derive(Debug, Parser)]
#[command(name = "relay", version, color = ColorChoice::Never, after_help = after_help())]
#[command(arg_required_else_help = true, infer_subcommands = false)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish lines, files, a capture or generated messages
    Pub(PublishOptions),
    /// Print messages as they are released, or from any point of the past
    Sub(SubscribeOptions),
    /// Measure latency and throughput, and the floor beneath them
    Bench(BenchOptions),
    /// Look into a journal on disk, without a relay
    Inspect(InspectOptions),
    /// Send again what was recorded, at its own pace or another
    Replay(Box<ReplayOptions>),
    /// Write what was recorded as CSV, JSON lines or a capture
    Export(ExportOptions),
    /// Make a journal of a capture, JSON lines or generated messages, without a relay
    Import(ImportOptions),
    /// Prove that a journal is whole and unaltered, and the same on every node
    Verify(VerifyOptions),
    /// Find messages by seq, publisher, topic, key, time or content, with their whole life
    Find(FindOptions),
    /// Make what is missing of a journal's index
    Index(IndexOptions),
    /// Show the counters of a relay on this machine
    Status(StatusOptions),
    /// Let another node of a group lead, without an error at any client
    HandOver(HandOverOptions),
    /// Take a node out of a group's in-sync set
    Detach(DetachOptions),
    /// Let a detached node in again
    Attach(DetachOptions),
    /// Make a node lead: where an operator decides, or after a disaster
    Promote(PromoteOptions),
    /// Close the trading session and open the next
    RollSession(RollSessionOptions),
    /// Show it all: publish, kill one primary after the other, go on, compare, verify
    Demo(DemoOptions),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_helps_with_an_example() {
        let mut command = Arguments::command();
        let help = command.render_long_help().to_string();
        assert!(help.contains("Examples") && help.contains("Exit statuses"));
        let mut seen = 0;
        let names = [
            "pub",
            "sub",
            "inspect",
            "replay",
            "export",
            "import",
            "verify",
            "find",
            "index",
            "status",
            "hand-over",
            "detach",
            "attach",
            "promote",
            "roll-session",
            "demo",
            "bench",
        ];
        for name in names {
            let sub = command.find_subcommand_mut(name).expect("it exists");
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Example"), "{name}");
            seen += 1;
        }
        let bench = command.find_subcommand_mut("bench").expect("it exists");
        for name in [
            "latency",
            "throughput",
            "floor",
            "failover",
            "replay",
            "report",
        ] {
            let sub = bench.find_subcommand_mut(name).expect("it exists");
            assert!(
                sub.render_long_help().to_string().contains("Example"),
                "bench {name}"
            );
            seen += 1;
        }
        assert_eq!(seen, 23);
    }
}
