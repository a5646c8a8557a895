//! What to measure, with defaults that suit a two-processor machine, and the checks on it.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::FloorError;

/// What could not be sent so long after the last message was due is not sent any more, in nanoseconds: less goes through than was
/// asked for.
pub const LATE_MAX_NS: u64 = 5_000_000_000;

/// Bytes of the smallest block written, and the alignment of every write.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Bytes of the largest block written.
pub(crate) const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Most messages one run may offer: the tally keeps one bit of memory for each.
const MESSAGES_MAX: f64 = 4e9;
/// Most seconds of which latency is kept one by one.
const BY_SECOND_MAX: f64 = 4_096.0;
/// Bytes that a message may have.
pub const SIZES: RangeInclusive<usize> = 8..=32 * 1024;

/// How a write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Measure both for about a second with the run's own load and take the better, by median and
    /// 90th percentile.
    Auto,
    /// Each write carries `RWF_DSYNC`.
    Dsync,
    /// Plain direct writes; one data-sync at a time covers every write completed before it.
    Covering,
}

impl WriteMode {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            WriteMode::Auto => "auto",
            WriteMode::Dsync => "dsync",
            WriteMode::Covering => "covering",
        }
    }
}

/// What a message waits for before it is forwarded and acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Durable at every node.
    Durable,
    /// In memory at both of two nodes; the writes follow, and nothing waits for them.
    Mirrored,
}

/// What a thread does when it has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Look again at once. Needs a processor of its own, with none of the kernel's workers on it.
    Spin,
    /// `sched_yield`, then look again: kernel workers and other threads of the processor get on.
    Yield,
    /// Sleep in the kernel until something happens or a timeout passes.
    Park,
}

/// When each message is due, where that is not evenly.
///
/// Given a message's index it says how many nanoseconds after the first one's due time it is due.
/// It must never fall, and the mean rate must be that of the options: it is asked of every message
/// when it is sent, received and acknowledged, so it must also be quick.
#[derive(Clone)]
pub struct Due(Arc<dyn Fn(u64) -> u64 + Send + Sync>);

impl Due {
    /// Due times as a function of the index.
    pub fn new(due_ns: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Due {
        Due(Arc::new(due_ns))
    }
}

impl fmt::Debug for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Due")
    }
}

/// A full floor: publisher to subscriber through one or two nodes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the data files: it decides which device is measured. The files are removed.
    pub dir: PathBuf,
    /// Messages per second offered, open loop.
    pub rate: f64,
    /// When each message is due; `None` for evenly.
    pub due: Option<Due>,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds of the same load before them, left out of the histograms.
    pub warmup: f64,
    /// Bytes of a message, one of [`SIZES`].
    pub size: usize,
    /// Whether latency is also kept by the second in which a message was due, of 4,096 seconds
    /// at most: each has a histogram of about 200 KB.
    pub by_second: bool,
    /// Nodes that hold each message: 1, or 2 for a primary and a standby.
    pub nodes: usize,
    /// What a message waits for.
    pub policy: Policy,
    /// How a write is made durable.
    pub write_mode: WriteMode,
    /// Blocks a node may hold unreleased, and so writes in flight, 1 to 256.
    pub depth: usize,
    /// MiB of each node's data file; written with zeroes first, then overwritten in a circle.
    pub file_mib: u64,
    /// Processor of the server thread; `None` leaves it unpinned.
    pub server_cpu: Option<usize>,
    /// Processor of the client thread.
    pub client_cpu: Option<usize>,
    /// Processor of the standby thread.
    pub standby_cpu: Option<usize>,
    /// What the server and standby threads do when idle.
    pub server_idle: Idle,
    /// What the client thread does when idle.
    pub client_idle: Idle,
    /// Seconds to wait for the last messages, once no more are sent; what is missing then is counted lost.
    pub drain: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            dir: std::env::temp_dir(),
            rate: 2_000.0,
            due: None,
            seconds: 5.0,
            warmup: 1.0,
            size: 256,
            by_second: false,
            nodes: 1,
            policy: Policy::Durable,
            write_mode: WriteMode::Auto,
            depth: 16,
            file_mib: 256,
            server_cpu: Some(0),
            client_cpu: Some(1),
            standby_cpu: Some(1),
            server_idle: Idle::Yield,
            client_idle: Idle::Yield,
            drain: 10.0,
        }
    }
}

impl Options {
    /// Refuses what cannot be measured, naming the option.
    pub(crate) fn validate(&self) -> Result<(), FloorError> {
        check_size(self.size)?;
        check_span("seconds", self.seconds, 0.01)?;
        check_span("warmup", self.warmup, 0.0)?;
        check_span("drain", self.drain, 0.0)?;
        if !(self.rate.is_finite() && self.rate >= 1.0) {
            return invalid(
                "rate",
                format!("{} is not a rate of 1 message/s or more", self.rate),
            );
        }
        let messages = self.rate * (self.warmup + self.seconds);
        if messages > MESSAGES_MAX {
            return invalid(
                "rate",
                format!("{messages:.0} messages in one run are too many"),
            );
        }
        if self.by_second && self.seconds > BY_SECOND_MAX {
            return invalid(
                "by_second",
                format!("of {BY_SECOND_MAX} seconds at most, not {}", self.seconds),
            );
        }
        if !(1..=2).contains(&self.nodes) {
            return invalid("nodes", format!("{} is neither 1 nor 2", self.nodes));
        }
        if self.policy == Policy::Mirrored && self.nodes != 2 {
            return invalid("policy", "mirrored takes two nodes".into());
        }
        check_depth(self.depth)?;
        check_file(self.file_mib, self.depth)
    }

    /// When message `index` is due, in nanoseconds after the first one is.
    #[inline]
    pub(crate) fn due_ns(&self, index: u64) -> u64 {
        match &self.due {
            None => (index as f64 * (1e9 / self.rate)) as u64,
            Some(Due(due_ns)) => due_ns(index),
        }
    }

    /// Seconds from the first message's due time until the run is given up.
    pub(crate) fn bound(&self) -> f64 {
        let total = self.warmup_messages() + self.measured_messages();
        (self.due_ns(total) + LATE_MAX_NS) as f64 / 1e9 + self.drain
    }

    /// Messages before the measured ones.
    pub(crate) fn warmup_messages(&self) -> u64 {
        let mut count = (self.rate * self.warmup).round() as u64;
        // What is due together is measured together, or not at all.
        while count > 0 && self.due_ns(count - 1) == self.due_ns(count) {
            count += 1;
        }
        count
    }

    /// Messages measured, at least one.
    pub(crate) fn measured_messages(&self) -> u64 {
        ((self.rate * self.seconds).round() as u64).max(1)
    }
}

/// One durable write at a time, with no socket.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Directory of the data file.
    pub dir: PathBuf,
    /// How a write is made durable; `Auto` measures both and reports the better.
    pub write_mode: WriteMode,
    /// What the writer does while it waits: `Park` sleeps in the kernel, as fio does.
    pub idle: Idle,
    /// Processor of the writer.
    pub cpu: Option<usize>,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds before them, left out.
    pub warmup: f64,
    /// MiB of the data file.
    pub file_mib: u64,
}

impl Default for WriteOptions {
    fn default() -> WriteOptions {
        WriteOptions {
            dir: std::env::temp_dir(),
            write_mode: WriteMode::Dsync,
            idle: Idle::Park,
            cpu: Some(0),
            seconds: 3.0,
            warmup: 0.5,
            file_mib: 128,
        }
    }
}

impl WriteOptions {
    pub(crate) fn validate(&self) -> Result<(), FloorError> {
        check_span("seconds", self.seconds, 0.01)?;
        check_span("warmup", self.warmup, 0.0)?;
        check_file(self.file_mib, 1)
    }
}

/// One message there and back over loopback TCP, with no disk.
#[derive(Debug, Clone)]
pub struct HopOptions {
    /// Bytes of the message, one of [`SIZES`].
    pub size: usize,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds before them, left out.
    pub warmup: f64,
    /// Processor of the answering thread.
    pub server_cpu: Option<usize>,
    /// Processor of the asking thread.
    pub client_cpu: Option<usize>,
    /// What both threads do when idle.
    pub idle: Idle,
}

impl Default for HopOptions {
    fn default() -> HopOptions {
        HopOptions {
            size: 256,
            seconds: 2.0,
            warmup: 0.5,
            server_cpu: Some(0),
            client_cpu: Some(1),
            idle: Idle::Spin,
        }
    }
}

impl HopOptions {
    pub(crate) fn validate(&self) -> Result<(), FloorError> {
        check_size(self.size)?;
        check_span("seconds", self.seconds, 0.01)?;
        check_span("warmup", self.warmup, 0.0)
    }
}

fn check_size(size: usize) -> Result<(), FloorError> {
    if SIZES.contains(&size) {
        return Ok(());
    }
    let (least, most) = (SIZES.start(), SIZES.end());
    invalid(
        "size",
        format!("{size} is not between {least} and {most} bytes"),
    )
}

fn check_span(option: &'static str, seconds: f64, least: f64) -> Result<(), FloorError> {
    if seconds.is_finite() && (least..=86_400.0).contains(&seconds) {
        return Ok(());
    }
    invalid(
        option,
        format!("{seconds} is not between {least} and 86,400 seconds"),
    )
}

fn check_depth(depth: usize) -> Result<(), FloorError> {
    if (1..=256).contains(&depth) {
        return Ok(());
    }
    invalid("depth", format!("{depth} is not between 1 and 256 blocks"))
}

/// The circle must be long enough that no two writes in flight meet.
fn check_file(file_mib: u64, depth: usize) -> Result<(), FloorError> {
    let least = (2 * depth * BLOCK_BYTES_MAX).div_ceil(1 << 20) as u64;
    if (least..=1 << 20).contains(&file_mib) {
        return Ok(());
    }
    invalid(
        "file_mib",
        format!("{file_mib} is not between {least} and 1,048,576 MiB"),
    )
}

fn invalid(option: &'static str, reason: String) -> Result<(), FloorError> {
    Err(FloorError::Invalid { option, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Options::default().validate().expect("Options");
        WriteOptions::default().validate().expect("WriteOptions");
        HopOptions::default().validate().expect("HopOptions");
    }

    /// Each refused value is named by its option.
    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let good = Options::default();
        let cases = [
            (
                "size",
                Options {
                    size: 7,
                    ..good.clone()
                },
            ),
            (
                "size",
                Options {
                    size: 40_000,
                    ..good.clone()
                },
            ),
            (
                "rate",
                Options {
                    rate: f64::NAN,
                    ..good.clone()
                },
            ),
            (
                "rate",
                Options {
                    rate: 0.0,
                    ..good.clone()
                },
            ),
            (
                "rate",
                Options {
                    rate: 1e9,
                    seconds: 60.0,
                    ..good.clone()
                },
            ),
            (
                "seconds",
                Options {
                    seconds: -1.0,
                    ..good.clone()
                },
            ),
            (
                "warmup",
                Options {
                    warmup: f64::INFINITY,
                    ..good.clone()
                },
            ),
            (
                "by_second",
                Options {
                    by_second: true,
                    seconds: 5_000.0,
                    ..good.clone()
                },
            ),
            (
                "nodes",
                Options {
                    nodes: 3,
                    ..good.clone()
                },
            ),
            (
                "policy",
                Options {
                    policy: Policy::Mirrored,
                    ..good.clone()
                },
            ),
            (
                "depth",
                Options {
                    depth: 0,
                    ..good.clone()
                },
            ),
            (
                "file_mib",
                Options {
                    file_mib: 1,
                    ..good
                },
            ),
        ];
        for (name, options) in cases {
            match options.validate() {
                Err(FloorError::Invalid { option, .. }) => assert_eq!(option, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
