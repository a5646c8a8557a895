//! What a measurement found. All histograms are in nanoseconds, 1 ns to 10 min, three digits.

use std::time::SystemTime;

use hdrhistogram::Histogram;

use crate::hiccups::Hiccups;
use crate::options::{Options, WriteMode};

/// Largest latency kept apart; anything above counts as this, in nanoseconds.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// An empty histogram of the shape every report uses, so that a caller may merge into it.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid")
}

/// Counts one latency, clamped to the histogram's range.
#[inline]
pub(crate) fn record(histogram: &mut Histogram<u64>, latency_ns: u64) {
    histogram.saturating_record(latency_ns.clamp(1, LATENCY_NS_MAX));
}

/// What two write modes are compared by: median plus 90th percentile, in nanoseconds. The median
/// alone can prefer a mode that stalls one write in ten: a data-sync runs on a kernel worker, which
/// pollers on every processor hold up for milliseconds now and then.
pub(crate) fn typical_ns(histogram: &Histogram<u64>) -> u64 {
    histogram.value_at_quantile(0.5) + histogram.value_at_quantile(0.9)
}

/// A full floor's result. Counts are of measured messages unless they say otherwise.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was asked for.
    pub options: Options,
    /// How writes were made durable; never `Auto`.
    pub write_mode: WriteMode,
    /// Messages that fell due.
    pub offered: u64,
    /// Messages the subscriber received, each counted once.
    pub received: u64,
    /// Messages that were sent and that the subscriber did not receive before the drain ended, over the whole run.
    pub lost: u64,
    /// Messages that fell due and could not be sent before the run was given up, over the whole run.
    pub unsent: u64,
    /// Messages received more than once, over the whole run.
    pub duplicated: u64,
    /// Messages received after one with a higher index, over the whole run.
    pub out_of_order: u64,
    /// Messages per second that fell due.
    pub offered_rate: f64,
    /// Messages per second received: over the measured time, or longer where the last one came later.
    pub achieved_rate: f64,
    /// Intended send to receipt at the subscriber.
    pub latency: Histogram<u64>,
    /// Intended send to the acknowledgement; one sample per message, though an acknowledgement may cover several.
    pub ack_latency: Histogram<u64>,
    /// Intended send to the client's own send call: what of `latency` is the load generator's.
    pub send_lateness: Histogram<u64>,
    /// Of the load generator's thread, in the measured time.
    pub hiccups: Hiccups,
    /// From the last message's due time to the last receipt.
    pub late_ns: u64,
    /// When the first measured message was due.
    pub measured_at: SystemTime,
    /// `latency` by the second, after `measured_at`, in which a message was due; empty unless
    /// asked for.
    pub by_second: Vec<Histogram<u64>>,
    /// At the server, per block: first message received to durable locally.
    pub received_to_written: Histogram<u64>,
    /// At the server of two nodes, per block: first message received to the standby's
    /// acknowledgement: of its durable write, or when mirrored of its receipt.
    pub received_to_held: Histogram<u64>,
    /// At the server, per block: durable locally to the turn after the subscriber's socket took
    /// it. It includes the sends queued with it (the acknowledgement's), and with two nodes waiting
    /// for the standby. Empty when mirrored: nothing waits for the write then.
    pub written_to_sent: Histogram<u64>,
    /// Blocks the server formed, over the whole run.
    pub blocks: u64,
    /// Data-syncs the server issued, over the whole run (covering mode).
    pub syncs: u64,
}

/// The result of single durable writes.
#[derive(Debug, Clone)]
pub struct WriteReport {
    /// How writes were made durable; never `Auto`.
    pub write_mode: WriteMode,
    /// Before the write is queued to durable, 4 KiB, one at a time.
    pub latency: Histogram<u64>,
}
