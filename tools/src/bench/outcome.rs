//! What all subscribers of a run received, and those of each stream.
//!
//! Every subscriber is to have every message of its stream once and in order, so each is held against what was meant for
//! its stream; what one stream has too many never makes up for what another lacks.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Receiver;
use super::series::Order;
use crate::exit::Failure;
use crate::output::{line, thousands};
use crate::percentiles::{Percentiles, new_histogram};

/// What the subscribers of one stream received.
#[derive(Debug, Serialize)]
pub(super) struct StreamOutcome {
    /// Measured messages at the subscriber that received fewest.
    received: u64,
    /// At all its subscribers, over the whole run.
    lost: u64,
    duplicated: u64,
    disordered: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// What the subscribers of all streams received. Of each stream counts the subscriber that received fewest.
pub(super) struct Outcome {
    pub(super) latency: Histogram<u64>,
    /// Measured messages.
    pub(super) received: u64,
    /// Messages of the whole run.
    pub(super) distinct: u64,
    /// Messages that came within the measured time.
    pub(super) in_time: u64,
    /// Measured messages a second: over the measured time, or longer where the last one came later.
    pub(super) achieved: f64,
    /// When the last one came.
    pub(super) last_receipt_ns: u64,
    /// At all subscribers.
    pub(super) order: Order,
    /// By place.
    pub(super) streams: Vec<StreamOutcome>,
}

impl Outcome {
    /// Of at least one subscriber for each stream; `meant` holds how many messages were to come in each.
    pub(super) fn of(receivers: &[Receiver], meant: &[u64]) -> Self {
        let mut outcome = Self {
            latency: new_histogram(),
            received: 0,
            distinct: 0,
            in_time: 0,
            achieved: 0.0,
            last_receipt_ns: 0,
            order: Order::default(),
            streams: Vec::new(),
        };
        for (stream, &meant) in meant.iter().enumerate() {
            outcome.add(receivers.iter().filter(|it| it.stream == stream), meant);
        }
        outcome
    }

    fn add<'a>(&mut self, receivers: impl Iterator<Item = &'a Receiver>, meant: u64) {
        let mut latency = new_histogram();
        let mut order = Order::default();
        let (mut received, mut distinct, mut in_time) = (u64::MAX, u64::MAX, u64::MAX);
        let mut achieved = f64::MAX;
        for Receiver { receipts, .. } in receivers {
            let of_one = &receipts.latency;
            latency.add(of_one).expect("histograms of one shape");
            received = received.min(receipts.received);
            distinct = distinct.min(receipts.distinct());
            in_time = in_time.min(receipts.in_time);
            achieved = achieved.min(receipts.achieved());
            self.last_receipt_ns = self.last_receipt_ns.max(receipts.last_receipt_ns);
            order.lost += meant.saturating_sub(receipts.distinct());
            order.duplicated += receipts.duplicated();
            order.disordered += receipts.disordered();
        }
        self.latency.add(&latency).expect("histograms of one shape");
        self.received += received;
        self.distinct += distinct;
        self.in_time += in_time;
        self.achieved += achieved;
        self.order.add(order);
        let found = Percentiles::of(&latency);
        self.streams.push(StreamOutcome {
            received,
            lost: order.lost,
            duplicated: order.duplicated,
            disordered: order.disordered,
            p50_us: found.p50_us,
            p99_us: found.p99_us,
            max_us: found.max_us,
        });
    }
}

/// Prints a line for each of several streams.
pub(super) fn print_streams(streams: &[StreamOutcome]) -> Result<(), Failure> {
    if streams.len() < 2 {
        return Ok(());
    }
    for (number, stream) in (1..).zip(streams) {
        line(&format!(
            "stream {number}: received {}, lost {}, duplicated {}, out of order {}; p50 {:.1} us, p99 {:.1} us",
            thousands(stream.received),
            stream.lost,
            stream.duplicated,
            stream.disordered,
            stream.p50_us,
            stream.p99_us
        ))?;
    }
    Ok(())
}
