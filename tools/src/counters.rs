//! The counters of a relay, read from its file, and the distributions they make up.
//!
//! A label names a value; labels `hop.NAME_ns.BOUND` are the buckets of a histogram: how many took more than the bound
//! before and at most this one. Buckets only grow, so the difference of two readings is what happened between them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use relay_client::wire::counters;
use serde::Serialize;

use crate::exit::Failure;

/// A reading of one counters file.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    pub(crate) pid: u64,
    pub(crate) node: u64,
    pub(crate) stream: u32,
    pub(crate) started_ns: u64,
    /// Label and value, in the order of the file.
    pub(crate) values: Vec<(String, u64)>,
}

/// What is said of a hop, in microseconds; each is the upper bound of its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct HopSummary {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// How many by upper bound in ns.
type Buckets = BTreeMap<u64, u64>;

impl Counters {
    /// Reads the counters in a stream's directory.
    pub(crate) fn read(stream_directory: &Path) -> Result<Self, Failure> {
        let path = stream_directory.join(counters::FILE_NAME);
        let bytes = fs::read(&path).map_err(|error| Failure::file("reading", &path, &error))?;
        let view = counters::read(&bytes)
            .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        Ok(Self {
            pid: view.pid(),
            node: view.node(),
            stream: view.stream(),
            started_ns: view.started_ns(),
            values: view
                .counters()
                .map(|(label, value)| (label.to_owned(), value))
                .collect(),
        })
    }

    /// The value of a label.
    pub(crate) fn value(&self, label: &str) -> Option<u64> {
        self.values
            .iter()
            .find(|(found, _)| found == label)
            .map(|&(_, value)| value)
    }

    /// Counters that are no buckets.
    pub(crate) fn plain(&self) -> impl Iterator<Item = (&str, u64)> {
        let values = self
            .values
            .iter()
            .map(|(label, value)| (label.as_str(), *value));
        values.filter(|(label, _)| bucket(label).is_none())
    }

    /// The hops: since the relay started, or since an earlier reading of the same process.
    pub(crate) fn hops(&self, since: Option<&Self>) -> BTreeMap<String, HopSummary> {
        let mut hops: BTreeMap<&str, Buckets> = BTreeMap::new();
        for (label, value) in &self.values {
            if let Some((hop, bound)) = bucket(label) {
                *hops.entry(hop).or_default().entry(bound).or_default() += value;
            }
        }
        for (label, before) in since.into_iter().flat_map(|since| &since.values) {
            if let Some((hop, bound)) = bucket(label)
                && let Some(count) = hops.get_mut(hop).and_then(|hop| hop.get_mut(&bound))
            {
                *count = count.saturating_sub(*before);
            }
        }
        let summaries = hops.into_iter().filter_map(|(hop, buckets)| {
            let name = hop.strip_suffix("_ns").unwrap_or(hop);
            summary(&buckets).map(|summary| (name.to_owned(), summary))
        });
        summaries.collect()
    }
}

/// Hop and bound of a bucket's label.
fn bucket(label: &str) -> Option<(&str, u64)> {
    let (hop, bound) = label.strip_prefix("hop.")?.rsplit_once('.')?;
    let bound = match bound {
        "inf" => u64::MAX,
        number => number.parse().ok()?,
    };
    Some((hop, bound))
}

fn summary(buckets: &Buckets) -> Option<HopSummary> {
    let count: u64 = buckets.values().sum();
    let at = |quantile: f64| {
        let wanted = ((count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (&bound, &in_bucket) in buckets {
            seen += in_bucket;
            if seen >= wanted {
                return bound as f64 / 1e3;
            }
        }
        0.0
    };
    (count > 0).then(|| HopSummary {
        count,
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: at(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(values: &[(&str, u64)]) -> Counters {
        Counters {
            pid: 1,
            node: 1,
            stream: 1,
            started_ns: 1,
            values: values
                .iter()
                .map(|&(label, value)| (label.to_owned(), value))
                .collect(),
        }
    }

    #[test]
    fn buckets_become_quantiles_of_what_happened_since() {
        let before = reading(&[("hop.a_ns.1000", 90), ("hop.a_ns.2000", 5)]);
        let after = reading(&[
            ("records", 7),
            ("hop.a_ns.4000", 1),
            ("hop.a_ns.1000", 90),
            ("hop.a_ns.2000", 104),
            ("hop.b_ns.10", 0),
        ]);
        let hops = after.hops(Some(&before));
        let a = HopSummary {
            count: 100,
            p50_us: 2.0,
            p99_us: 2.0,
            max_us: 4.0,
        };
        assert_eq!(hops.into_iter().collect::<Vec<_>>(), [("a".to_owned(), a)]);
        assert_eq!(after.hops(None)["a"].p50_us, 2.0);
        assert_eq!(after.plain().collect::<Vec<_>>(), [("records", 7)]);
        assert_eq!(after.value("records"), Some(7));
    }

    #[test]
    fn labels_that_only_look_like_buckets_are_plain() {
        let counters = reading(&[("hop.a_ns.max", 3), ("hop.", 1), ("hopper.a.1", 2)]);
        assert_eq!(counters.plain().count(), 3);
    }
}
