//! The configuration file: what an operator writes, checked key by key before anything else happens.
//!
//! Every error names the file, the line, the key and what is allowed. Only `startup` and the commands see this type; the
//! machines get [`Settings`].

mod evidence;
mod group;
mod schedule;
mod size;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relay_core::credential::Credential;
use relay_core::settings::Settings;
use relay_journal::superblock::WriteMethod;
use relay_wire::code::Policy;
use relay_wire::id::{NodeId, PublisherId, StreamId};
use relay_wire::{item, topic};
use serde::Deserialize;

pub(crate) use self::evidence::EvidenceConfig;
use self::evidence::EvidenceSection;
pub(crate) use self::group::GroupConfig;
use self::group::GroupSection;
use self::schedule::ScheduleSection;
pub(crate) use self::size::Size;
use crate::idle::IdleStrategy;
use crate::schedule::Schedule;
use crate::scrubber::ScrubPace;

/// Clients of a node without a group hear something so often.
const HEARTBEAT_MS_ALONE: u64 = 1_000;
/// Clients of a group's node do: they leave one that is silent for four times this, about when another takes over.
const HEARTBEAT_MS_IN_GROUP: u64 = 50;

/// Longest block of any configuration, bytes: a log may hold such from when other limits were set.
pub(crate) const LOGGED_SPAN_MAX: u32 = 2 << 20;

/// Why a configuration is refused.
#[derive(Debug)]
pub(crate) struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    message: String,
}

impl ConfigError {
    /// An error about a line of `file`, counted from 1.
    pub(crate) fn new(file: &Path, line: Option<usize>, message: String) -> Self {
        Self {
            file: file.to_owned(),
            line,
            message,
        }
    }

    /// What the parser found wrong with the `text` of `file`.
    pub(crate) fn unparsed(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| line_of_offset(text, span.start));
        Self::new(file, line, toml_message(text, error))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: u64,
    stream: Vec<StreamSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamSection {
    id: u32,
    name: String,
    listen: SocketAddr,
    directory: PathBuf,
    /// By default `durable` in a group, `local` without one.
    policy: Option<PolicyName>,
    #[serde(default)]
    threads: ThreadsSection,
    #[serde(default)]
    journal: JournalSection,
    #[serde(default)]
    evidence: EvidenceSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    trading_session: Option<SessionSection>,
    schedule: Option<ScheduleSection>,
    #[serde(default)]
    credential: Vec<CredentialSection>,
    group: Option<GroupSection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PolicyName {
    Local,
    Mirrored,
    Durable,
}

/// On how many threads a stream's agents run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThreadingMode {
    /// All on one.
    #[default]
    Shared,
    /// Ingress, sequencing with persistence, and egress on one each.
    Split,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ThreadsSection {
    mode: ThreadingMode,
    idle: IdleStrategy,
    cpus: Vec<usize>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WriteMethodName {
    #[default]
    Auto,
    Dsync,
    Covering,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JournalSection {
    segment_size: Size,
    prepared: Size,
    prepare_rate: Size,
    block_alignment: Size,
    block: Size,
    write_method: WriteMethodName,
    write_depth: u32,
    eager_depth: u32,
    seal_threshold: Size,
    checkpoint_every: Size,
    mark_after_ms: u64,
    scrub_rate: Size,
    scrub_every_s: u64,
}

impl Default for JournalSection {
    fn default() -> Self {
        Self {
            segment_size: Size(64 << 20),
            prepared: Size(1 << 30),
            prepare_rate: Size(256 << 20),
            block_alignment: Size(4096),
            block: Size(256 << 10),
            write_method: WriteMethodName::Auto,
            write_depth: 16,
            eager_depth: 1,
            seal_threshold: Size(16 << 10),
            checkpoint_every: Size(64 << 20),
            mark_after_ms: 10,
            scrub_rate: Size(8 << 20),
            scrub_every_s: 86_400,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    payload: Size,
    ring: Size,
    credit: Size,
    publishers: u32,
    subscribers: u32,
    connections: u32,
    unauthenticated: u32,
    topics: u32,
    replay_buffers: u32,
    /// By default short in a group, so that clients soon leave a node that hangs.
    heartbeat_ms: Option<u64>,
    logon_timeout_ms: u64,
    stall_limit_ms: u64,
    lag_limit: Size,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            payload: Size(64 << 10),
            ring: Size(64 << 20),
            credit: Size(4 << 20),
            publishers: 64,
            subscribers: 512,
            connections: 1024,
            unauthenticated: 256,
            topics: 100_000,
            replay_buffers: 8,
            heartbeat_ms: None,
            logon_timeout_ms: 5_000,
            stall_limit_ms: 30_000,
            lag_limit: Size(0),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionSection {
    number: u64,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialSection {
    name: String,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    publisher: Option<u64>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    rate_limit: u32,
}

/// A whole configuration, checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) streams: Vec<StreamConfig>,
}

/// One stream's configuration, checked.
#[derive(Debug)]
pub(crate) struct StreamConfig {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) directory: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) trading_session: Option<(u64, String)>,
    /// When trading sessions open by themselves.
    pub(crate) schedule: Option<Schedule>,
    pub(crate) mode: ThreadingMode,
    pub(crate) idle: IdleStrategy,
    pub(crate) cpus: Vec<usize>,
    /// The method asked for; `None` to measure.
    pub(crate) write_method: Option<WriteMethod>,
    /// Bytes of zeroed space kept ahead of need.
    pub(crate) prepared: u64,
    /// Bytes per second at which it is topped up.
    pub(crate) prepare_rate: u64,
    /// `None`: never.
    pub(crate) scrub: Option<ScrubPace>,
    /// Bytes of log between two checkpoints.
    pub(crate) checkpoint_every: u64,
    pub(crate) evidence: EvidenceConfig,
    /// The other nodes, if there are any.
    pub(crate) group: Option<GroupConfig>,
}

impl Config {
    /// Reads and checks `file`.
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read(file)?)
    }

    /// Checks the `text` of `file`.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let parsed: File =
            toml::from_str(text).map_err(|error| ConfigError::unparsed(file, text, &error))?;
        let check = Check { file, text };
        let node = NodeId(parsed.node);
        if node.get() == 0 {
            let line = check.line_of(None, "node", 0);
            let message = "node: a number is 1 or more".to_owned();
            return Err(ConfigError::new(file, line, message));
        }
        if parsed.stream.is_empty() {
            return Err(check.refuse("stream", 0, "at least one [[stream]] is needed"));
        }
        let mut streams: Vec<StreamConfig> = Vec::new();
        for (at, section) in parsed.stream.into_iter().enumerate() {
            let stream = check.stream(at, node, &section)?;
            for other in &streams {
                let is_same_port = other.listen == stream.listen && stream.listen.port() != 0;
                if other.settings.stream == stream.settings.stream {
                    return Err(check.refuse("id", at, "two streams have the same id"));
                }
                if other.directory == stream.directory {
                    return Err(check.refuse("directory", at, "two streams share a directory"));
                }
                if is_same_port {
                    return Err(check.refuse("listen", at, "two streams share an address"));
                }
            }
            streams.push(stream);
        }
        Ok(Self { streams })
    }
}

/// The text of a configuration file.
pub(crate) fn read(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|error| {
        let message = format!("can't be read: {error}; name a file with --config");
        ConfigError::new(file, None, message)
    })
}

fn line_of_offset(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].matches('\n').count() + 1
}

/// The parser's message, with the text of the line it is about.
fn toml_message(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| {
        let number = line_of_offset(text, span.start);
        text.lines().nth(number - 1)
    });
    match line {
        Some(line) => format!("{} (in `{}`)", error.message(), line.trim()),
        None => error.message().to_owned(),
    }
}

/// Checks what the parser can't.
struct Check<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Check<'_> {
    /// An error about `key` of the stream section number `at`.
    fn refuse(&self, key: &str, at: usize, message: impl fmt::Display) -> ConfigError {
        let line = self.line_of(None, key, at + 1);
        ConfigError::new(self.file, line, format!("{key}: {message}"))
    }

    /// An error about `key` of `table` in the stream section number `at`.
    fn refuse_in(
        &self,
        table: &str,
        key: &str,
        at: usize,
        message: impl fmt::Display,
    ) -> ConfigError {
        let line = self
            .line_of(Some(table), key, at + 1)
            .or_else(|| self.line_of(None, &format!("[{table}]"), at + 1));
        ConfigError::new(self.file, line, format!("{table}.{key}: {message}"))
    }

    /// The line that gives `key`, or holds a table's header, in the stream section that is the `wanted`th; before all of them for 0.
    fn line_of(&self, table: Option<&str>, key: &str, wanted: usize) -> Option<usize> {
        let mut section = 0;
        let mut is_in_table = table.is_none();
        for (number, content) in self.text.lines().enumerate() {
            let content = content.trim_start();
            section += usize::from(content.starts_with("[[stream]]"));
            if let Some(table) = table
                && content.starts_with('[')
            {
                is_in_table = content
                    .trim_start_matches('[')
                    .starts_with(&format!("{table}]"));
            }
            let is_here = match content.strip_prefix(key) {
                Some(rest) => key.starts_with('[') || rest.trim_start().starts_with('='),
                None => false,
            };
            if section == wanted && is_in_table && is_here {
                return Some(number + 1);
            }
        }
        None
    }

    fn within(
        &self,
        key: &str,
        at: usize,
        value: u64,
        allowed: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        if allowed.contains(&value) {
            return Ok(value);
        }
        let message = format!(
            "{value} is not within {} to {}",
            allowed.start(),
            allowed.end()
        );
        Err(self.refuse(key, at, message))
    }

    fn stream(
        &self,
        at: usize,
        node: NodeId,
        section: &StreamSection,
    ) -> Result<StreamConfig, ConfigError> {
        self.within("id", at, section.id.into(), 1..=u64::from(u32::MAX))?;
        let StreamSection {
            threads, journal, ..
        } = section;
        let policy = self.policy(at, section)?;
        let wanted = match threads.mode {
            ThreadingMode::Shared => 1,
            ThreadingMode::Split => 3,
        };
        if !threads.cpus.is_empty() && threads.cpus.len() != wanted {
            let message = format!("{wanted} CPU numbers are needed in this mode, or none");
            return Err(self.refuse("cpus", at, message));
        }
        let settings = Settings {
            policy,
            ..self.settings(at, node, section)?
        };
        let group = match &section.group {
            Some(group) => {
                let around = (section.name.as_str(), section.directory.as_path());
                Some(self.group(at, around, &settings, group)?)
            }
            None => None,
        };
        let segment_size = settings.segment_size;
        let prepared = self.within("prepared", at, journal.prepared.0, segment_size..=1 << 44)?;
        let rate = self.within(
            "prepare_rate",
            at,
            journal.prepare_rate.0,
            1 << 20..=1 << 40,
        )?;
        let every = self.within(
            "checkpoint_every",
            at,
            journal.checkpoint_every.0,
            1 << 20..=1 << 40,
        )?;
        let scrub_rate = self.within("scrub_rate", at, journal.scrub_rate.0, 64 << 10..=1 << 40)?;
        let scrub_every_s =
            self.within("scrub_every_s", at, journal.scrub_every_s, 0..=31_536_000)?;
        if let Some(session) = &section.trading_session
            && !(1..=64).contains(&session.name.len())
        {
            return Err(self.refuse("trading_session", at, "its name has 1 to 64 bytes"));
        }
        let schedule = section.schedule.as_ref().map(ScheduleSection::schedule);
        let schedule = schedule
            .transpose()
            .map_err(|message| self.refuse("schedule", at, message))?;
        let credentials = self.credentials(at, &section.credential)?;
        Ok(StreamConfig {
            name: section.name.clone(),
            listen: section.listen,
            directory: section.directory.clone(),
            settings,
            credentials,
            trading_session: section
                .trading_session
                .as_ref()
                .map(|s| (s.number, s.name.clone())),
            schedule,
            mode: threads.mode,
            idle: threads.idle,
            cpus: threads.cpus.clone(),
            write_method: match journal.write_method {
                WriteMethodName::Auto => None,
                WriteMethodName::Dsync => Some(WriteMethod::Dsync),
                WriteMethodName::Covering => Some(WriteMethod::Covering),
            },
            prepared,
            prepare_rate: rate,
            checkpoint_every: every,
            scrub: (scrub_every_s > 0).then_some(ScrubPace {
                rate: scrub_rate,
                every: Duration::from_secs(scrub_every_s),
            }),
            evidence: self.evidence(at, &section.evidence)?,
            group,
        })
    }

    fn policy(&self, at: usize, section: &StreamSection) -> Result<Policy, ConfigError> {
        let message = match (section.policy, &section.group) {
            (None | Some(PolicyName::Durable), Some(_)) => return Ok(Policy::Durable),
            (Some(PolicyName::Mirrored), Some(_)) => return Ok(Policy::Mirrored),
            (None | Some(PolicyName::Local), None) => return Ok(Policy::Local),
            (Some(PolicyName::Local), Some(_)) => {
                "\"durable\" or \"mirrored\" is needed in a group"
            }
            (Some(_), None) => "only \"local\" is possible for a node without a group",
        };
        Err(self.refuse("policy", at, message))
    }

    fn settings(
        &self,
        at: usize,
        node: NodeId,
        section: &StreamSection,
    ) -> Result<Settings, ConfigError> {
        let StreamSection {
            journal, limits, ..
        } = section;
        let alignment = journal.block_alignment.0;
        if !alignment.is_power_of_two() || !(512..=65_536).contains(&alignment) {
            let message = "a power of two from 512 to 65536 bytes is needed";
            return Err(self.refuse("block_alignment", at, message));
        }
        let payload_most = u64::from(item::PAYLOAD_LIMIT_MAX);
        let payload = self.within("payload", at, limits.payload.0, 1..=payload_most)?;
        let block_most = u64::from(LOGGED_SPAN_MAX);
        let block = self.within("block", at, journal.block.0, alignment..=block_most)?;
        let segment = self.within(
            "segment_size",
            at,
            journal.segment_size.0,
            4 << 20..=1 << 32,
        )?;
        if !segment.is_multiple_of(65_536) || !block.is_multiple_of(alignment) {
            let message = "segment_size must be a multiple of 64KiB, block of block_alignment";
            return Err(self.refuse("segment_size", at, message));
        }
        let milliseconds = |key: &str, value: u64, least: u64| {
            self.within(key, at, value, least..=86_400_000)
                .map(|ms| ms * 1_000_000)
        };
        let counted = |key: &str, value: u32, most: u64| {
            self.within(key, at, value.into(), 1..=most)
                .map(|count| count as u32)
        };
        let usual_ms = match section.group {
            Some(_) => HEARTBEAT_MS_IN_GROUP,
            None => HEARTBEAT_MS_ALONE,
        };
        let heartbeat_ms = limits.heartbeat_ms.unwrap_or(usual_ms);
        let mut settings = Settings {
            node,
            stream: StreamId(section.id),
            policy: Policy::Local,
            payload_limit: payload as u32,
            credit: limits.credit.0,
            heartbeat_ns: milliseconds("heartbeat_ms", heartbeat_ms, 10)?,
            logon_timeout_ns: milliseconds("logon_timeout_ms", limits.logon_timeout_ms, 10)?,
            connections_max: counted("connections", limits.connections, 100_000)?,
            unauthenticated_max: counted("unauthenticated", limits.unauthenticated, 100_000)?,
            publishers_max: counted("publishers", limits.publishers, 1_000_000)?,
            topics_max: counted("topics", limits.topics, 1 << 24)?,
            subscribers_max: counted("subscribers", limits.subscribers, 100_000)?,
            block_alignment: alignment as u32,
            block_length_max: block as u32,
            seal_threshold: self.within(
                "seal_threshold",
                at,
                journal.seal_threshold.0,
                1..=block,
            )? as u32,
            eager_depth: counted("eager_depth", journal.eager_depth, 256)?,
            write_depth: counted("write_depth", journal.write_depth, 256)?,
            segment_size: segment,
            ring_size: limits.ring.0,
            mark_after_ns: milliseconds("mark_after_ms", journal.mark_after_ms, 1)?,
            stall_limit_ns: milliseconds("stall_limit_ms", limits.stall_limit_ms, 10)?,
            lag_limit: limits.lag_limit.0,
            replay_slots: counted("replay_buffers", limits.replay_buffers, 64)?,
            replay_slot_size: 0,
        };
        let span = u64::from(settings.block_span_max());
        settings.replay_slot_size = (4 << 20_u64).max(span) as u32;
        let mut least_ring = (8 * span).next_power_of_two();
        if section.group.is_some() {
            // What a peer sends may hold blocks from when other limits were set.
            least_ring = least_ring.max(2 * block_most);
        }
        let ring = self.within("ring", at, settings.ring_size, least_ring..=1 << 36)?;
        if !ring.is_multiple_of(65_536) {
            return Err(self.refuse("ring", at, "a multiple of 64KiB is needed"));
        }
        self.within("segment_size", at, segment, 4 * span..=1 << 32)?;
        let least_credit = settings.record_stride_max() as u64;
        self.within("credit", at, settings.credit, least_credit..=ring / 2)?;
        Ok(settings)
    }

    fn credentials(
        &self,
        at: usize,
        sections: &[CredentialSection],
    ) -> Result<Vec<Credential>, ConfigError> {
        let mut credentials: Vec<Credential> = Vec::new();
        for section in sections {
            let refuse = |key: &str, message: String| {
                let about = format!("credential \"{}\": {message}", section.name);
                Err(self.refuse(key, at, about))
            };
            if section.name.is_empty() || section.name.len() > 64 {
                return refuse("name", "a name has 1 to 64 bytes".to_owned());
            }
            if credentials.iter().any(|other| other.name == section.name) {
                return refuse("name", "is given twice".to_owned());
            }
            if section.publisher == Some(0) {
                return refuse("publisher", "an id is 1 or more".to_owned());
            }
            let is_taken = |id| {
                credentials
                    .iter()
                    .any(|c| c.publisher == Some(PublisherId(id)))
            };
            if section.publisher.is_some_and(is_taken) {
                return refuse("publisher", "another credential has this id".to_owned());
            }
            if section.publisher.is_none() && !section.publish.is_empty() {
                return refuse("publish", "needs a publisher id too".to_owned());
            }
            for (key, patterns) in [
                ("publish", &section.publish),
                ("subscribe", &section.subscribe),
            ] {
                for pattern in patterns {
                    if let Err(error) = topic::check_pattern(pattern.as_bytes()) {
                        return refuse(key, format!("\"{pattern}\": {error}"));
                    }
                }
            }
            let secret = match secret(
                self.file,
                section.secret.as_deref(),
                section.secret_file.as_deref(),
            ) {
                Ok(secret) => secret,
                Err((key, message)) => return refuse(key, message),
            };
            credentials.push(Credential {
                name: section.name.clone(),
                secret,
                publisher: section.publisher.map(PublisherId),
                publish: section.publish.clone(),
                subscribe: section.subscribe.clone(),
                rate_limit: section.rate_limit,
            });
        }
        Ok(credentials)
    }
}

/// The secret given in `file`, or in another one beside it; otherwise the key that is wrong, and why.
pub(crate) fn secret(
    file: &Path,
    inline: Option<&str>,
    secret_file: Option<&Path>,
) -> Result<Vec<u8>, (&'static str, String)> {
    let hex = match (inline, secret_file) {
        (Some(hex), None) => hex.to_owned(),
        (None, Some(path)) => {
            let base = file.parent().unwrap_or(Path::new("."));
            std::fs::read_to_string(base.join(path))
                .map_err(|error| ("secret_file", format!("{}: {error}", path.display())))?
        }
        _ => {
            let message = "give secret or secret_file, one of them";
            return Err(("secret", message.to_owned()));
        }
    };
    let long_enough = parse_hex(hex.trim()).filter(|secret| secret.len() >= 16);
    long_enough.ok_or_else(|| {
        let message = "a secret is 32 or more hexadecimal digits; make one with \
                       `openssl rand -hex 32`";
        ("secret", message.to_owned())
    })
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"node = 1
[[stream]]
id = 1
name = "orders"
listen = "127.0.0.1:7400"
directory = "/tmp/orders"
[stream.limits]
ring = "64MiB"
[[stream.credential]]
name = "gateway"
secret = "000102030405060708090a0b0c0d0e0f"
publisher = 7
publish = ["orders.>"]
subscribe = [">"]
"#;

    fn refused(text: &str) -> String {
        Config::parse(Path::new("relayd.toml"), text)
            .expect_err("it is wrong")
            .to_string()
    }

    #[test]
    fn a_good_file_is_taken() {
        let config = Config::parse(Path::new("relayd.toml"), GOOD).unwrap();
        assert_eq!(config.streams[0].settings.ring_size, 64 << 20);
        assert_eq!(config.streams[0].credentials[0].secret.len(), 16);
    }

    /// Goal: an error names file, line, key and what is allowed. Method: break one line at a time.
    #[test]
    fn errors_say_where_and_what() {
        for (from, to, expected) in [
            (
                "id = 1\n",
                "id = 1\nspeed = 9\n",
                &["relayd.toml:4", "speed", "expected one of"][..],
            ),
            (
                "id = 1\n",
                "id = \"x\"\n",
                &["relayd.toml:3", "id = \"x\"", "u32"],
            ),
            (
                "node = 1\n",
                "node = 0\n",
                &["relayd.toml:1", "node", "1 or more"],
            ),
            ("64MiB", "1MiB", &["relayd.toml:8", "ring", "is not within"]),
            ("64MiB", "64MB", &["relayd.toml:8", "64MB", "KiB"]),
            (
                "\"orders.>\"",
                "\"orders.>.x\"",
                &["relayd.toml:13", "publish", "gateway"],
            ),
            (
                "000102030405060708090a0b0c0d0e0f",
                "zz",
                &["secret", "hexadecimal"],
            ),
            (
                "directory = \"/tmp/orders\"\n",
                "",
                &["missing field `directory`"],
            ),
            (
                "id = 1\n",
                "id = 1\ntrading_session = { number = 1, name = \"\" }\n",
                &["relayd.toml:4", "trading_session", "1 to 64"],
            ),
            (
                "id = 1\n",
                "id = 1\npolicy = \"durable\"\n",
                &["relayd.toml:4", "policy", "group"],
            ),
        ] {
            let message = refused(&GOOD.replace(from, to));
            for part in expected {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        }
    }

    /// Goal: clients of a group notice soon that its node hangs, unless the operator decides otherwise.
    #[test]
    fn in_a_group_clients_hear_more_often() {
        let group = "[stream.group]\nmirror_listen = \"127.0.0.1:7500\"\n\
                     secret = \"000102030405060708090a0b0c0d0e0f\"\n\
                     peers = [{ node = 2, address = \"127.0.0.1:7501\" }]\n\
                     [stream.group.arbiter]\nkind = \"manual\"\n[[stream.credential]]";
        let told = GOOD.replace("[stream.limits]", "[stream.limits]\nheartbeat_ms = 300");
        for (text, alone_ms, in_group_ms) in [(GOOD, 1_000, 50), (&told, 300, 300)] {
            let in_group = text.replace("[[stream.credential]]", group);
            for (text, expected_ms) in [(text, alone_ms), (&in_group, in_group_ms)] {
                let config = Config::parse(Path::new("relayd.toml"), text).unwrap();
                assert_eq!(config.streams[0].settings.heartbeat_ms(), expected_ms);
            }
        }
    }

    /// Goal: the sample says what the defaults are. Method: compare it with a file that leaves them all out.
    #[test]
    fn the_sample_shows_the_defaults() {
        let sample = include_str!("../../config/single.toml")
            .replace(
                "secret_file = \"gateway-1.key\"",
                "secret = \"000102030405060708090a0b0c0d0e0f\"",
            )
            .replace(
                "secret_file = \"surveillance.key\"",
                "secret = \"000102030405060708090a0b0c0d0e0f\"",
            );
        let least = "node = 1\n[[stream]]\nid = 1\nname = \"orders\"\nlisten = \"127.0.0.1:7400\"\n\
                     directory = \"/var/lib/relay/orders\"\n";
        let shown = |text: &str| {
            let mut config = Config::parse(Path::new("relayd.toml"), text).unwrap();
            config.streams[0].credentials.clear();
            format!("{config:?}")
        };
        assert_eq!(shown(&sample), shown(least));
    }
}
