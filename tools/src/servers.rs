//! Relays of one's own: `relayd` processes that a command starts on loopback, in a directory of its own, and ends again.
//!
//! ```text
//! cluster.rs   one node, or a group with its witness: prepare, start, await in sync, fail, stop
//!   node.rs      a node: configuration and addresses      gates.rs     proxies that cut a node off
//!   daemon.rs    a process: start, signal, stop           port.rs      an address kept for one that will listen there
//! ```
//!
//! The program is run as an operator would run it; nothing of it is linked in. Whatever is dropped is killed, so that no
//! command leaves a process behind.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::exit::Failure;

pub(crate) mod cluster;
mod daemon;
mod gates;
mod node;
mod port;

pub(crate) use cluster::{Cluster, ClusterSettings};
pub(crate) use daemon::terminate;
pub(crate) use node::NodeSettings;

/// Where journals lie that nobody wants to keep: the system's temporary directory, or /var/tmp where that one lives in memory, which
/// relayd refuses. TMPDIR names another.
pub(crate) fn scratch_directory() -> PathBuf {
    /// From `linux/magic.h`.
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let usual = std::env::temp_dir();
    let is_in_memory = rustix::fs::statfs(&usual).is_ok_and(|facts| facts.f_type == TMPFS_MAGIC);
    if is_in_memory {
        PathBuf::from("/var/tmp")
    } else {
        usual
    }
}

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

/// What a node does beside the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Background {
    /// Neither seals segments nor scrubs.
    Off,
    /// Both, as by default.
    Usual,
    /// Both without a pause: segments of 4 MiB are sealed as they fill, and scrubbed again and again.
    Busy,
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

impl fmt::Display for Size {
    /// In the largest unit of which it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = units
            .iter()
            .find(|(shift, _)| self.0.is_multiple_of(1 << shift));
        let (shift, unit) = *whole.unwrap_or(&(0, "B"));
        write!(f, "{} {unit}", self.0 >> shift)
    }
}

impl Size {
    /// Rounded up to whole MiB, as the configuration writes it.
    fn text(self) -> String {
        format!("{}MiB", self.0.div_ceil(1 << 20))
    }
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

/// Random bytes for a secret.
fn secret() -> Result<Vec<u8>, Failure> {
    let mut secret = vec![0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| Failure::Failed(format!("drawing random bytes: {error}")))?;
    Ok(secret)
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
}
