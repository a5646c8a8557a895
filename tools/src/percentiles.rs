//! Latencies: the one histogram shape of all commands, what is said of it, and the `.hgrm` file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// Largest latency kept apart, ns; anything above counts as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// An empty histogram of nanoseconds, three digits exact.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid")
}

/// Counts one latency.
#[inline]
pub(crate) fn record(histogram: &mut Histogram<u64>, latency_ns: u64) {
    histogram.saturating_record(latency_ns.clamp(1, LATENCY_NS_MAX));
}

/// What is said of a latency, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) p9999_us: f64,
    pub(crate) max_us: f64,
}

/// Nanoseconds as microseconds.
pub(crate) fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

impl Percentiles {
    /// Of a histogram; zeroes where it is empty.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: us(histogram.max()),
        }
    }

    /// The same with the names of a second latency beside the first.
    pub(crate) fn of_acks(self) -> AckPercentiles {
        AckPercentiles {
            ack_p50_us: self.p50_us,
            ack_p90_us: self.p90_us,
            ack_p99_us: self.p99_us,
            ack_p999_us: self.p999_us,
            ack_max_us: self.max_us,
        }
    }

    /// Column heads for [`Percentiles::row`].
    pub(crate) const HEAD: &'static str =
        "                                p50        p90        p99      p99.9        max";

    /// One line of a table, microseconds.
    pub(crate) fn row(&self, what: &str) -> String {
        format!(
            "{what:<24} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1}",
            self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us
        )
    }
}

/// [`Percentiles`] of the acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct AckPercentiles {
    ack_p50_us: f64,
    ack_p90_us: f64,
    ack_p99_us: f64,
    ack_p999_us: f64,
    ack_max_us: f64,
}

/// Writes the whole distribution as HdrHistogram's percentile text, values in microseconds.
pub(crate) fn write_hgrm(path: &Path, histogram: &Histogram<u64>) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        hgrm(&mut out, histogram)?;
        out.flush()
    };
    write().map_err(|error| Failure::file("writing", path, &error))
}

fn hgrm(out: &mut impl Write, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    writeln!(out)?;
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = us(step.value_iterated_to());
        if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(
                out,
                "{value:>12.3} {quantile:>14.12} {total:>10} {inverse:>14.2}"
            )?;
        } else {
            writeln!(
                out,
                "{value:>12.3} {quantile:>14.12} {total:>10} {:>14}",
                "inf"
            )?;
        }
    }
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n\
         #[Max     = {:>12.3}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3,
        us(histogram.max()),
        histogram.len(),
        histogram.buckets(),
        2048
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = new_histogram();
        for latency_us in 1..=1_000 {
            record(&mut histogram, latency_us * 1_000);
        }
        let found = Percentiles::of(&histogram);
        assert!((found.p50_us - 500.0).abs() < 1.0, "{found:?}");
        assert!((found.p99_us - 990.0).abs() < 1.0, "{found:?}");
        assert!((found.max_us - 1_000.0).abs() < 1.0, "{found:?}");
    }

    #[test]
    fn the_hgrm_text_ends_with_everything_counted() {
        let mut histogram = new_histogram();
        for latency_ns in 1..=10_000 {
            record(&mut histogram, latency_ns);
        }
        let mut text = Vec::new();
        hgrm(&mut text, &histogram).expect("a vector takes all");
        let text = String::from_utf8(text).expect("it is text");
        let last = text
            .lines()
            .rfind(|line| !line.starts_with('#'))
            .expect("lines");
        let fields: Vec<_> = last.split_whitespace().collect();
        assert_eq!((fields[2], fields[3]), ("10000", "inf"), "{last}");
    }
}
