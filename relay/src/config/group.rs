//! `[stream.group]`: the other nodes of a stream, and how long is waited for what.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use relay_core::group::{GroupSettings, PeerSettings};
use relay_core::settings::Settings;
use relay_wire::id::NodeId;
use relay_wire::membership::{MEMBERS_MAX, Member};
use serde::Deserialize;

use super::{Check, ConfigError, LOGGED_SPAN_MAX, Size};
use crate::arbiter::config::{ArbiterConfig, ArbiterSection, Surroundings};

const TABLE: &str = "stream.group";
const ARBITER_TABLE: &str = "stream.group.arbiter";
/// Most nodes that keep a copy without being counted on.
const OBSERVERS_MAX: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupSection {
    mirror_listen: SocketAddr,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    peers: Vec<PeerSection>,
    #[serde(default)]
    observer: bool,
    min_copies: Option<u8>,
    #[serde(default = "defaults::heartbeat_ms")]
    heartbeat_ms: u64,
    #[serde(default = "defaults::suspect_ms")]
    suspect_ms: u64,
    #[serde(default = "defaults::suspect_closed_ms")]
    suspect_closed_ms: u64,
    #[serde(default = "defaults::head_start_ms")]
    head_start_ms: u64,
    #[serde(default = "defaults::start_wait_ms")]
    start_wait_ms: u64,
    #[serde(default = "defaults::ack_deadline_ms")]
    ack_deadline_ms: u64,
    #[serde(default = "defaults::readmit_after_ms")]
    readmit_after_ms: u64,
    #[serde(default = "defaults::disk_stall_ms")]
    disk_stall_ms: u64,
    #[serde(default = "defaults::catch_up_rate")]
    catch_up_rate: Size,
    arbiter: ArbiterSection,
}

mod defaults {
    use super::Size;

    pub(super) const fn heartbeat_ms() -> u64 {
        10
    }
    pub(super) const fn suspect_ms() -> u64 {
        200
    }
    pub(super) const fn suspect_closed_ms() -> u64 {
        5
    }
    pub(super) const fn head_start_ms() -> u64 {
        40
    }
    pub(super) const fn start_wait_ms() -> u64 {
        2_000
    }
    pub(super) const fn ack_deadline_ms() -> u64 {
        1_000
    }
    pub(super) const fn readmit_after_ms() -> u64 {
        200
    }
    pub(super) const fn disk_stall_ms() -> u64 {
        300
    }
    pub(super) const fn catch_up_rate() -> Size {
        Size(64 << 20)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerSection {
    node: u64,
    address: SocketAddr,
    #[serde(default)]
    observer: bool,
}

/// A group's configuration as one of its nodes has it, checked.
#[derive(Clone)]
pub(crate) struct GroupConfig {
    /// Where the other nodes reach this one.
    pub(crate) mirror_listen: SocketAddr,
    /// The others, and where they are reached.
    pub(crate) peers: Vec<(PeerSettings, SocketAddr)>,
    pub(crate) is_observer: bool,
    pub(crate) secret: Vec<u8>,
    pub(crate) min_copies: u8,
    pub(crate) arbiter: ArbiterConfig,
    heartbeat_ns: u64,
    suspect_ns: u64,
    suspect_closed_ns: u64,
    head_start_ns: u64,
    start_wait_ns: u64,
    ack_deadline_ns: u64,
    readmit_after_ns: u64,
    disk_stall_ns: u64,
    catch_up_rate: u64,
}

/// The secret stays out of logs.
impl std::fmt::Debug for GroupConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConfig")
            .field("mirror_listen", &self.mirror_listen)
            .field("peers", &self.peers)
            .field("is_observer", &self.is_observer)
            .field("min_copies", &self.min_copies)
            .field("arbiter", &self.arbiter)
            .field("heartbeat_ns", &self.heartbeat_ns)
            .field("suspect_ns", &self.suspect_ns)
            .field("suspect_closed_ns", &self.suspect_closed_ns)
            .field("head_start_ns", &self.head_start_ns)
            .field("start_wait_ns", &self.start_wait_ns)
            .field("ack_deadline_ns", &self.ack_deadline_ns)
            .field("readmit_after_ns", &self.readmit_after_ns)
            .field("disk_stall_ns", &self.disk_stall_ns)
            .field("catch_up_rate", &self.catch_up_rate)
            .finish_non_exhaustive()
    }
}

impl GroupConfig {
    /// The settings of a node that is `identity` in a process with the random number `process`; `seed` is another.
    pub(crate) fn settings(
        &self,
        settings: &Settings,
        identity: Member,
        process: u64,
        seed: u64,
    ) -> GroupSettings {
        GroupSettings {
            identity,
            process,
            seed,
            is_observer: self.is_observer,
            peers: self.peers.iter().map(|(peer, _)| *peer).collect(),
            secret: self.secret.clone(),
            policy: settings.policy,
            min_copies: self.min_copies,
            is_manual: self.arbiter.is_manual(),
            heartbeat_ns: self.heartbeat_ns,
            suspect_ns: self.suspect_ns,
            suspect_closed_ns: self.suspect_closed_ns,
            head_start_ns: self.head_start_ns,
            start_wait_ns: self.start_wait_ns,
            ack_deadline_ns: self.ack_deadline_ns,
            readmit_after_ns: self.readmit_after_ns,
            disk_stall_ns: self.disk_stall_ns,
            logged_span_max: LOGGED_SPAN_MAX,
            retry_ns: 10_000_000,
            floor_every_ns: 1_000_000_000,
            catch_up_rate: self.catch_up_rate,
        }
    }
}

impl Check<'_> {
    /// Checks the group of the stream section number `at`.
    pub(super) fn group(
        &self,
        at: usize,
        (name, directory): (&str, &Path),
        settings: &Settings,
        section: &GroupSection,
    ) -> Result<GroupConfig, ConfigError> {
        let refuse = |key: &str, message: String| self.refuse_in(TABLE, key, at, message);
        if settings.block_alignment < 1024 {
            let message = "at least 1024 is needed in a group";
            return Err(self.refuse("block_alignment", at, message));
        }
        let data_nodes = self.peers(at, settings.node, section)?;
        let min_copies = section.min_copies.unwrap_or(data_nodes as u8 - 1);
        if !(1..=data_nodes).contains(&min_copies.into()) {
            let message = format!(
                "{min_copies} is not within 1 to {data_nodes}, the nodes that are no observers"
            );
            return Err(refuse("min_copies", message));
        }
        let secret = super::secret(
            self.file,
            section.secret.as_deref(),
            section.secret_file.as_deref(),
        )
        .map_err(|(key, message)| refuse(key, message))?;
        let around = Surroundings {
            file: self.file,
            node: settings.node,
            stream: settings.stream,
            group: name,
            secret: &secret,
            directory,
        };
        let arbiter = section
            .arbiter
            .check(&around)
            .map_err(|(key, message)| self.refuse_in(ARBITER_TABLE, key, at, message))?;
        let time = |key: &str, value: u64, least: u64| {
            if (least..=3_600_000).contains(&value) {
                return Ok(value * 1_000_000);
            }
            let message = format!("{value} is not within {least} to 3600000 milliseconds");
            Err(refuse(key, message))
        };
        let heartbeat = section.heartbeat_ms;
        let head_start = section.head_start_ms;
        let rate = section.catch_up_rate.0;
        if !(1 << 20..=1 << 40).contains(&rate) {
            let message = format!("{rate} is not within 1MiB to 1TiB a second");
            return Err(refuse("catch_up_rate", message));
        }
        Ok(GroupConfig {
            mirror_listen: section.mirror_listen,
            peers: section
                .peers
                .iter()
                .map(|peer| {
                    let settings = PeerSettings {
                        node: NodeId(peer.node),
                        is_observer: peer.observer,
                    };
                    (settings, peer.address)
                })
                .collect(),
            is_observer: section.observer,
            secret,
            min_copies,
            arbiter,
            heartbeat_ns: time("heartbeat_ms", heartbeat, 1)?,
            // Two nodes that lose each other must come to suspect in the right order: more than two heartbeats apart.
            head_start_ns: time("head_start_ms", head_start, 2 * heartbeat + 1)?,
            suspect_ns: time("suspect_ms", section.suspect_ms, head_start + 4 * heartbeat)?,
            suspect_closed_ns: time("suspect_closed_ms", section.suspect_closed_ms, 1)?,
            start_wait_ns: time("start_wait_ms", section.start_wait_ms, 0)?,
            ack_deadline_ns: time("ack_deadline_ms", section.ack_deadline_ms, heartbeat)?,
            readmit_after_ns: time("readmit_after_ms", section.readmit_after_ms, 0)?,
            disk_stall_ns: time("disk_stall_ms", section.disk_stall_ms, 10)?,
            catch_up_rate: rate,
        })
    }

    /// Checks who is in the group; how many of them are no observers.
    fn peers(&self, at: usize, node: NodeId, section: &GroupSection) -> Result<usize, ConfigError> {
        let refuse = |message: String| self.refuse_in(TABLE, "peers", at, message);
        let peers = &section.peers;
        for (number, peer) in peers.iter().enumerate() {
            let is_twice = peers[..number].iter().any(|other| other.node == peer.node);
            if peer.node == 0 || peer.node == node.get() || is_twice {
                let message = format!(
                    "node {}: every node has a number of its own, 1 or more, and this one is not \
                     among its peers",
                    peer.node
                );
                return Err(refuse(message));
            }
            let address = peer.address;
            let is_taken = peers[..number].iter().any(|other| other.address == address)
                || (address == section.mirror_listen && address.port() != 0);
            if is_taken || address.port() == 0 {
                let message =
                    format!("{address}: a peer's address is its own mirror_listen, with its port");
                return Err(refuse(message));
            }
        }
        let observers = peers.iter().filter(|peer| peer.observer).count();
        let data_nodes = peers.len() - observers + usize::from(!section.observer);
        if !(2..=MEMBERS_MAX).contains(&data_nodes) || observers > OBSERVERS_MAX {
            let message = format!(
                "with this node that makes {data_nodes} nodes and {observers} observers; 2 or \
                 {MEMBERS_MAX} nodes and up to {OBSERVERS_MAX} observers are possible"
            );
            return Err(refuse(message));
        }
        Ok(data_nodes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    const SECRET: &str = "secret = \"000102030405060708090a0b0c0d0e0f\"";

    /// A sample with its secrets in it.
    fn with_secrets(sample: &str) -> String {
        let lines = sample.lines().map(|line| {
            let is_file = line.starts_with("secret_file");
            if is_file { SECRET } else { line }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("relayd.toml"), text).map_err(|error| error.to_string())
    }

    const PAIR: &str = include_str!("../../../config/pair-witness.toml");

    #[test]
    fn every_sample_is_taken() {
        for (sample, data_nodes) in [
            (PAIR, 2),
            (include_str!("../../../config/pair-etcd.toml"), 2),
            (include_str!("../../../config/three-nodes.toml"), 3),
            (include_str!("../../../config/manual.toml"), 2),
        ] {
            let config = parse(&with_secrets(sample)).unwrap();
            let group = config.streams[0].group.as_ref().unwrap();
            assert_eq!(group.min_copies, data_nodes - 1);
        }
    }

    /// Goal: the sample says what the defaults are. Method: compare it with a file that leaves them all out.
    #[test]
    fn the_sample_shows_the_defaults() {
        let least = format!(
            "node = 1\n[[stream]]\nid = 1\nname = \"orders\"\nlisten = \"10.0.0.1:7400\"\n\
             directory = \"/var/lib/relay/orders\"\n[stream.group]\n\
             mirror_listen = \"10.0.0.1:7410\"\n{SECRET}\n\
             peers = [{{ node = 2, address = \"10.0.0.2:7410\" }}]\n[stream.group.arbiter]\n\
             kind = \"witness\"\naddress = \"10.0.0.3:7500\"\n"
        );
        let shown = |text: &str| {
            let mut config = parse(text).unwrap();
            config.streams[0].credentials.clear();
            format!("{config:?}")
        };
        assert_eq!(shown(&with_secrets(PAIR)), shown(&least));
    }

    /// Goal: an error names file, line, key and what is allowed. Method: break one line at a time.
    #[test]
    fn errors_say_where_and_what() {
        let good = with_secrets(PAIR);
        let line_of = |start: &str| {
            let at = good.lines().position(|line| line.starts_with(start));
            format!("relayd.toml:{}", at.unwrap() + 1)
        };
        for (key, line, expected) in [
            (
                "policy",
                "policy = \"local\"",
                "\"durable\" or \"mirrored\"",
            ),
            ("min_copies", "min_copies = 3", "not within 1 to 2"),
            ("head_start_ms", "head_start_ms = 20", "not within 21"),
            ("heartbeat_ms", "heartbeat_ms = 0", "not within 1"),
            ("suspect_ms", "suspect_ms = 50", "not within 80"),
            ("catch_up_rate", "catch_up_rate = 1", "1MiB"),
            ("observer", "observer = true", "1 nodes and 0 observers"),
            (
                "peers",
                "peers = [{ node = 1, address = \"10.0.0.2:7410\" }]",
                "a number of its own",
            ),
            (
                "peers",
                "peers = [{ node = 2, address = \"10.0.0.1:7410\" }]",
                "its own mirror_listen",
            ),
            ("deadline_ms", "deadline_ms = 1", "not within 10"),
        ] {
            let broken: Vec<&str> = good
                .lines()
                .map(|found| {
                    let rest = found.strip_prefix(key);
                    let is_it = rest.is_some_and(|rest| rest.starts_with(" = "));
                    if is_it { line } else { found }
                })
                .collect();
            let message = parse(&broken.join("\n")).expect_err("it is wrong");
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
            let told = if key == "observer" { "peers" } else { key };
            assert!(message.contains(told), "{message:?} lacks {told:?}");
            let at = line_of(told);
            assert!(
                message.starts_with(&format!("{at}:")),
                "{message:?} is not at {at}"
            );
        }
    }
}
