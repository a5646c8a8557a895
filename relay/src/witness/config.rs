//! The configuration file of a witness: one section `[witness]`, checked key by key.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::config::{self, ConfigError};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    witness: Section,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    listen: SocketAddr,
    directory: PathBuf,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    connections: u32,
    unauthenticated: u32,
    logon_timeout_ms: u64,
    idle_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            unauthenticated: 16,
            logon_timeout_ms: 2_000,
            idle_timeout_ms: 15_000,
        }
    }
}

/// A witness's configuration, checked.
#[derive(Clone)]
pub(crate) struct WitnessConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) directory: PathBuf,
    pub(crate) secret: Vec<u8>,
    /// Most connections at once.
    pub(crate) connections: usize,
    /// Most of them before their logon; the oldest gives way.
    pub(crate) unauthenticated: usize,
    /// Most time for a logon, and for a frame from its first byte to its last.
    pub(crate) logon_timeout: Duration,
    /// A connection on which nothing is asked for so long is closed.
    pub(crate) idle_timeout: Duration,
}

/// The secret stays out of logs.
impl fmt::Debug for WitnessConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WitnessConfig")
            .field("listen", &self.listen)
            .field("directory", &self.directory)
            .field("connections", &self.connections)
            .field("unauthenticated", &self.unauthenticated)
            .field("logon_timeout", &self.logon_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}

/// Whether the `text` of a configuration file is a witness's. One that can't be parsed is nobody's.
pub(crate) fn is_witness(text: &str) -> bool {
    toml::from_str::<toml::Table>(text).is_ok_and(|table| table.contains_key("witness"))
}

impl WitnessConfig {
    /// Checks the `text` of `file`.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let parsed: File =
            toml::from_str(text).map_err(|error| ConfigError::unparsed(file, text, &error))?;
        let Section {
            listen,
            directory,
            secret,
            secret_file,
            limits,
        } = parsed.witness;
        let refuse = |key: &str, message: String| {
            ConfigError::new(file, line_of_key(text, key), format!("{key}: {message}"))
        };
        let within = |key: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            let message = format!("{value} is not within {least} to {most}");
            Err(refuse(key, message))
        };
        let secret = config::secret(file, secret.as_deref(), secret_file.as_deref())
            .map_err(|(key, message)| refuse(key, message))?;
        let connections = within("connections", limits.connections.into(), 1, 4_096)?;
        let unauthenticated = limits.unauthenticated.into();
        let milliseconds =
            |key, value| within(key, value, 10, 86_400_000).map(Duration::from_millis);
        Ok(Self {
            listen,
            directory,
            secret,
            connections: connections as usize,
            unauthenticated: within("unauthenticated", unauthenticated, 1, connections)? as usize,
            logon_timeout: milliseconds("logon_timeout_ms", limits.logon_timeout_ms)?,
            idle_timeout: milliseconds("idle_timeout_ms", limits.idle_timeout_ms)?,
        })
    }
}

fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let is_about = |line: &str| {
        let rest = line.trim_start().strip_prefix(key).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with('='))
    };
    text.lines().position(is_about).map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[witness]
listen = "10.0.0.3:7500"
directory = "/var/lib/relay/witness"
secret = "000102030405060708090a0b0c0d0e0f"
[witness.limits]
connections = 64
"#;

    fn refused(text: &str) -> String {
        WitnessConfig::parse(Path::new("witness.toml"), text)
            .expect_err("it is wrong")
            .to_string()
    }

    /// Goal: an error names file, line, key and what is allowed. Method: break one line at a time.
    #[test]
    fn errors_say_where_and_what() {
        for (from, to, expected) in [
            (
                "connections = 64\n",
                "connections = 0\n",
                &["witness.toml:6", "connections", "1 to 4096"][..],
            ),
            (
                "connections = 64\n",
                "unauthenticated = 65\n",
                &["witness.toml:6", "unauthenticated", "1 to 64"],
            ),
            (
                "connections = 64\n",
                "idle_timeout_ms = 1\n",
                &["witness.toml:6", "idle_timeout_ms"],
            ),
            (
                "connections",
                "speed",
                &["witness.toml:6", "speed", "expected one of"],
            ),
            ("7500", "seven", &["witness.toml:2", "listen"]),
            (
                "000102030405060708090a0b0c0d0e0f",
                "00",
                &["witness.toml:4", "secret", "openssl rand"],
            ),
            (
                "secret = \"000102030405060708090a0b0c0d0e0f\"",
                "secret_file = \"no-such.key\"",
                &["witness.toml:4", "secret_file", "no-such.key"],
            ),
            (
                "secret = \"000102030405060708090a0b0c0d0e0f\"",
                "",
                &["secret", "one of them"],
            ),
            (
                "[witness]\n",
                "[witness]\nnode = 1\n",
                &["witness.toml:2", "node"],
            ),
        ] {
            let message = refused(&GOOD.replace(from, to));
            for part in expected {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn a_witness_is_told_from_a_node() {
        assert!(is_witness(GOOD));
        assert!(!is_witness("node = 1\n[[stream]]\nid = 1\n"));
        assert!(!is_witness("[witness"));
    }

    /// Goal: the sample says what the defaults are. Method: compare it with a file that leaves them all out.
    #[test]
    fn the_sample_shows_the_defaults() {
        let sample = include_str!("../../../config/witness.toml").replace(
            "secret_file = \"group.key\"",
            "secret = \"000102030405060708090a0b0c0d0e0f\"",
        );
        let least = GOOD.split("[witness.limits]").next().unwrap();
        let shown = |text: &str| {
            let config = WitnessConfig::parse(Path::new("witness.toml"), text).unwrap();
            format!("{config:?}")
        };
        assert_eq!(shown(&sample), shown(least));
        assert!(!shown(&sample).contains("secret"), "{}", shown(&sample));
    }
}
