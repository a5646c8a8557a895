//! What a bench adds to its result so that it can be drawn and read beside others.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bench::over_time::Row;
use crate::percentiles::us;
use crate::servers::Policy;

/// Steps in which the distance to 100 % halves.
const STEPS_PER_HALF: u32 = 8;
/// Most points of a curve.
const POINTS_MAX: usize = 400;

/// The keys that all benches have in common; flattened into each one's report.
#[derive(Debug, Serialize)]
pub(in crate::bench) struct Shown {
    pub(in crate::bench) what: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<u64>,
    offered_rate: Option<f64>,
    /// Percentile and microseconds.
    percentiles: Vec<(f64, f64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    over_time: Vec<Row>,
}

impl Shown {
    /// Of a measurement that is named `name`.
    pub(in crate::bench) fn of(
        what: &'static str,
        name: String,
        offered_rate: Option<f64>,
        latency: &Histogram<u64>,
    ) -> Self {
        Self {
            what,
            name,
            holds: None,
            copies: None,
            offered_rate,
            percentiles: curve(latency),
            over_time: Vec::new(),
        }
    }

    /// With what is held by so many nodes when they acknowledge.
    pub(in crate::bench) fn holding(self, policy: Policy, nodes: u64) -> Self {
        let who = match nodes {
            1 => "the one node".to_owned(),
            2 => "both nodes".to_owned(),
            more => format!("all {more} nodes"),
        };
        let text = match policy {
            Policy::Local | Policy::Durable => format!("stable storage of {who}"),
            Policy::Mirrored => format!("memory of {who}; their disks follow"),
        };
        Self {
            holds: Some(text),
            copies: Some(nodes),
            ..self
        }
    }

    /// With the latency over the run's time.
    pub(in crate::bench) fn over_time(self, over_time: Vec<Row>) -> Self {
        Self { over_time, ..self }
    }
}

/// Percentiles from 0 to 100, denser towards the end, as far as there are messages to tell them apart.
fn curve(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = latency.iter_quantiles(STEPS_PER_HALF).take(POINTS_MAX);
    let mut points: Vec<_> = steps
        .map(|step| {
            (
                step.quantile_iterated_to() * 100.0,
                us(step.value_iterated_to()),
            )
        })
        .collect();
    if let Some(last) = points.last_mut() {
        *last = (100.0, us(latency.max()));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::percentiles::{new_histogram, record};

    #[test]
    fn a_curve_reaches_the_last_message_and_never_falls() {
        let mut latency = new_histogram();
        assert!(curve(&latency).is_empty());
        // A long tail: the slowest of n takes n times the shortest.
        for left in 1..=200_000 {
            record(&mut latency, 2_000_000_000 / left);
        }
        let points = curve(&latency);
        assert_eq!(points.last(), Some(&(100.0, us(latency.max()))));
        assert!(points.iter().any(|&(at, _)| (99.999..100.0).contains(&at)));
        assert!(
            points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1),
            "{points:?}"
        );
        let median = points.iter().find(|&&(at, _)| at >= 50.0).expect("there");
        assert!((median.1 - 20.0).abs() < 0.1, "{median:?}");
    }
}
