//! Latency second by second, as an HdrHistogram interval log (`--hlog`).
//!
//! A message counts in the second it was *due* in, so a stall shows where it began and all intervals together are the
//! whole distribution. Where the length of a run is known, all histograms are made before it, and a receipt only counts;
//! where it is not, a second makes its own. Either way their number is bounded.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};

use crate::exit::Failure;
use crate::percentiles::{new_histogram, record};

const SECOND_NS: u64 = 1_000_000_000;
/// Most intervals of all subscribers together: about 1 GiB.
const INTERVALS_MAX: u64 = 4_096;

/// Refuses what would take too much memory.
pub(super) fn check_log(seconds: f64, subscribers: u64) -> Result<(), Failure> {
    if seconds.ceil() as u64 * subscribers <= INTERVALS_MAX {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--hlog keeps {INTERVALS_MAX} seconds of all subscribers together; give fewer --seconds or --subscribers"
    )))
}

/// What one subscriber received, by second.
#[derive(Debug, Clone)]
pub(super) struct Intervals(Vec<Histogram<u64>>);

impl Intervals {
    /// For so many measured seconds, above 0.
    pub(super) fn new(seconds: f64) -> Self {
        Self(vec![new_histogram(); seconds.ceil() as usize])
    }

    /// Counts a message due `at_ns` after the measured time began; what is due behind the last second belongs to it.
    #[inline]
    pub(super) fn note(&mut self, at_ns: u64, latency_ns: u64) {
        let last = self.0.len() - 1;
        let second = ((at_ns / SECOND_NS) as usize).min(last);
        record(&mut self.0[second], latency_ns);
    }

    /// For a run that ends nobody knows when.
    pub(super) fn open_ended() -> Self {
        Self(vec![new_histogram()])
    }

    /// Counts as [`Self::note`] does, but makes room up to the message's second, as far as memory is allowed to go.
    pub(super) fn note_beyond(&mut self, at_ns: u64, latency_ns: u64) {
        let seconds = (at_ns / SECOND_NS + 1).min(INTERVALS_MAX) as usize;
        if seconds > self.0.len() {
            self.0.resize_with(seconds, new_histogram);
        }
        self.note(at_ns, latency_ns);
    }
}

impl From<Vec<Histogram<u64>>> for Intervals {
    /// Histograms that were filled elsewhere, second by second.
    fn from(seconds: Vec<Histogram<u64>>) -> Self {
        Self(seconds)
    }
}

/// Writes all subscribers' intervals as one log. Values are nanoseconds, the column of the largest is milliseconds;
/// `from` is when the measured time began.
pub(super) fn write<'a>(
    path: &Path,
    all: impl IntoIterator<Item = &'a Intervals>,
    from: SystemTime,
) -> Result<(), Failure> {
    let mut all = all.into_iter();
    let Some(mut sum) = all.next().cloned() else {
        return Ok(());
    };
    for other in all {
        for (second, more) in sum.0.iter_mut().zip(&other.0) {
            second.add(more).expect("histograms of one shape");
        }
    }
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        log(&mut out, &sum, from)?;
        out.flush()
    };
    write().map_err(|error| Failure::file("writing", path, &error))
}

fn log(out: &mut impl Write, intervals: &Intervals, from: SystemTime) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("relay bench: from the intended send to the subscriber, ns")
        .with_start_time(from)
        .with_base_time(from)
        .with_max_value_divisor(1e6)
        .begin_log_with(out, &mut serializer)?;
    for (second, histogram) in (0..).zip(&intervals.0) {
        log.write_histogram(
            histogram,
            Duration::from_secs(second),
            Duration::from_secs(1),
            None,
        )
        .map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn the_log_reads_back_and_its_intervals_are_the_whole() {
        let (mut one, mut other) = (Intervals::new(2.5), Intervals::new(2.5));
        let mut whole = new_histogram();
        for ms in 0..2_600 {
            for (place, intervals) in [&mut one, &mut other].into_iter().enumerate() {
                let latency_ns = 100_000 + ms * 1_000 + place as u64;
                intervals.note(ms * 1_000_000, latency_ns);
                record(&mut whole, latency_ns);
            }
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        write(file.path(), [&one, &other], from).expect("written");
        let text = fs::read(file.path()).expect("it is there");
        let mut merged = new_histogram();
        let (mut counts, mut starts) = (Vec::new(), Vec::new());
        for entry in IntervalLogIterator::new(&text) {
            match entry.expect("it is a log") {
                LogEntry::Interval(interval) => {
                    use base64::Engine as _;
                    let bytes = base64::engine::general_purpose::STANDARD
                        .decode(interval.encoded_histogram())
                        .expect("base64");
                    let found: Histogram<u64> = Deserializer::new()
                        .deserialize(&mut &bytes[..])
                        .expect("a histogram");
                    counts.push(found.len());
                    starts.push(interval.start_timestamp().as_secs());
                    merged.add(&found).expect("histograms of one shape");
                }
                LogEntry::BaseTime(time) => assert_eq!(time.as_secs(), 1_600_000_000),
                LogEntry::StartTime(time) => assert_eq!(time.as_secs(), 1_600_000_000),
            }
        }
        assert_eq!((counts, starts), (vec![2_000, 2_000, 1_200], vec![0, 1, 2]));
        assert!(merged == whole, "merging is recording into one");
    }

    #[test]
    fn a_log_without_an_end_grows_to_its_bound() {
        let mut intervals = Intervals::open_ended();
        intervals.note_beyond(3 * SECOND_NS, 1_000);
        intervals.note_beyond(SECOND_NS, 1_000);
        let counts: Vec<_> = intervals.0.iter().map(Histogram::len).collect();
        assert_eq!(counts, [0, 1, 0, 1]);
        intervals.note_beyond(u64::MAX, 1_000);
        assert_eq!(intervals.0.len() as u64, INTERVALS_MAX);
        assert_eq!(intervals.0[INTERVALS_MAX as usize - 1].len(), 1);
    }

    #[test]
    fn a_log_that_would_not_fit_into_memory_is_refused() {
        assert!(check_log(4_096.0, 1).is_ok());
        assert!(check_log(4_096.5, 1).is_err());
        assert!(check_log(100.0, 64).is_err());
    }
}
