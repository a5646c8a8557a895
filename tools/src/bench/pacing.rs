//! When each message of a measurement is due: evenly, at random, in bursts, or as somebody recorded it.
//!
//! A shape says where messages lie on a line on which they are 1 apart on average; a [`Schedule`] puts it on the clock.
//! Any index's time is computed from the index alone, so that a generator that was held up has nothing to catch up on,
//! and acknowledgements find what they belong to. Random and recorded gaps are a table made before the run, which begins
//! again when it is used up: memory is bounded, and over a whole table the rate is exactly the one asked for.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::exit::Failure;
use crate::flow::Random;
use crate::pcap::{CaptureReader, transport};

/// Gaps of a table: 2 MiB of them at random, at most 32 MiB of recorded ones.
const RANDOM_GAPS: usize = 1 << 18;
const RECORDED_GAPS_MAX: usize = 1 << 22;
/// Most messages of a burst.
const BURST_MAX: u64 = 1_000_000;

/// How messages are spread over time, on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pacing {
    /// All gaps the same.
    Steady,
    /// Independent arrivals: exponential gaps.
    Poisson,
    /// So many at once, then a pause.
    Bursts(u64),
    /// The gaps between the messages of a capture, scaled to the rate.
    Recorded(PathBuf),
}

impl FromStr for Pacing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "steady" => Ok(Self::Steady),
            None if text == "poisson" => Ok(Self::Poisson),
            Some(("bursts", count)) => match count.parse() {
                Ok(count) if (1..=BURST_MAX).contains(&count) => Ok(Self::Bursts(count)),
                _ => Err(format!(
                    "a burst is 1 to {BURST_MAX} messages, not `{count}`"
                )),
            },
            Some(("recorded", file)) if !file.is_empty() => Ok(Self::Recorded(file.into())),
            _ => Err(format!(
                "`{text}` is none of: steady, poisson, bursts:N, recorded:FILE.pcap"
            )),
        }
    }
}

impl fmt::Display for Pacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady => f.write_str("steady"),
            Self::Poisson => f.write_str("poisson"),
            Self::Bursts(count) => write!(f, "bursts:{count}"),
            Self::Recorded(path) => write!(f, "recorded:{}", path.display()),
        }
    }
}

/// Where messages lie, 1 apart on average.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// At 0, 1, 2, ...
    Even,
    /// So many at the first one's place.
    Bursts(u64),
    /// Places below its length, ascending from 0; then the same again.
    Table(Arc<[f64]>),
}

impl Shape {
    /// Makes tables and reads captures; the seed decides what is random.
    pub(super) fn of(pacing: &Pacing, seed: u64) -> Result<Self, Failure> {
        match pacing {
            Pacing::Steady => Ok(Self::Even),
            Pacing::Bursts(count) => Ok(Self::Bursts(*count)),
            Pacing::Poisson => {
                let mut random = Random::new(seed);
                let gaps = (0..RANDOM_GAPS).map(|_| random.exponential(1.0));
                Ok(Self::Table(places(gaps.collect())))
            }
            Pacing::Recorded(path) => recorded(path),
        }
    }

    /// The longest time without a message, in mean gaps.
    pub(super) fn gap_max(&self) -> f64 {
        match self {
            Self::Even => 1.0,
            Self::Bursts(count) => *count as f64,
            Self::Table(places) => {
                let inner = places.windows(2).map(|pair| pair[1] - pair[0]);
                let around = places.len() as f64 - places[places.len() - 1];
                inner.fold(around, f64::max)
            }
        }
    }

    #[inline]
    fn place(&self, index: u64) -> f64 {
        match self {
            Self::Even => index as f64,
            Self::Bursts(count) => (index - index % count) as f64,
            Self::Table(places) => {
                let length = places.len() as u64;
                let within = index % length;
                (index - within) as f64 + places[within as usize]
            }
        }
    }
}

/// Gaps, of which some is above 0, as places: the first at 0, as many altogether as there are gaps.
fn places(gaps: Vec<f64>) -> Arc<[f64]> {
    let scale = gaps.len() as f64 / gaps.iter().sum::<f64>();
    let mut at = 0.0;
    let place = |gap: &f64| {
        let place = at * scale;
        at += gap;
        place
    };
    gaps.iter().map(place).collect()
}

/// The gaps of a capture. The gap behind its last message, which nobody recorded, is a mean one.
fn recorded(path: &Path) -> Result<Shape, Failure> {
    let file = File::open(path).map_err(|error| Failure::file("opening", path, &error))?;
    let damaged = |error| Failure::Damaged(format!("{}: {error}", path.display()));
    let mut reader = CaptureReader::new(BufReader::new(file)).map_err(damaged)?;
    let (mut gaps, mut latest_ns) = (Vec::new(), None);
    while gaps.len() < RECORDED_GAPS_MAX
        && let Some(frame) = reader.next_frame().map_err(damaged)?
    {
        if transport(frame.link_type, frame.bytes).is_none() {
            continue;
        }
        let latest = *latest_ns.get_or_insert(frame.time_ns);
        gaps.push(frame.time_ns.saturating_sub(latest) as f64);
        latest_ns = Some(latest.max(frame.time_ns));
    }
    let refused = |what| {
        Failure::Usage(format!(
            "{} {what}; give a capture of UDP or TCP messages over some time, or --pacing poisson",
            path.display()
        ))
    };
    let recorded_ns: f64 = gaps.iter().sum();
    if gaps.len() < 2 {
        return Err(refused("holds fewer than two messages"));
    }
    if recorded_ns <= 0.0 {
        return Err(refused("holds messages of one moment only"));
    }
    // The first message's gap is one before it, which there is none of.
    gaps.remove(0);
    gaps.push(recorded_ns / gaps.len() as f64);
    Ok(Shape::Table(places(gaps)))
}

/// A shape at a rate from a moment on.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// When the first message is due, on the run's clock.
    pub(super) start_ns: u64,
    interval_ns: f64,
    shape: Shape,
}

impl Schedule {
    /// `rate` is in messages a second.
    pub(super) fn new(start_ns: u64, rate: f64, shape: Shape) -> Self {
        Self {
            start_ns,
            interval_ns: 1e9 / rate,
            shape,
        }
    }

    /// When a message is due, on the run's clock.
    #[inline]
    pub(super) fn due_ns(&self, index: u64) -> u64 {
        self.start_ns + (self.shape.place(index) * self.interval_ns) as u64
    }

    /// When the time is over in which messages `from..to` are due: with the pause that follows the last of them, also where that is not
    /// the whole of its burst.
    pub(super) fn end_ns(&self, from: u64, to: u64) -> u64 {
        let meant_ns = ((to - from) as f64 * self.interval_ns) as u64;
        self.due_ns(to).max(self.due_ns(from) + meant_ns)
    }

    /// How many messages a warm-up of so many seconds has. What is measured is told by when it was due, so what is due together
    /// belongs together: to the warm-up.
    pub(super) fn warmup(&self, seconds: f64) -> u64 {
        let mut count = (seconds * 1e9 / self.interval_ns).round() as u64;
        while count > 0 && self.due_ns(count - 1) == self.due_ns(count) {
            count += 1;
        }
        count
    }

    /// How many messages are due before `end_ns`.
    pub(super) fn due_until(&self, end_ns: u64) -> u64 {
        let (mut least, mut most) = (0, 1);
        while self.due_ns(most) < end_ns {
            (least, most) = (most, 2 * most);
        }
        // The first index that is due then or later lies between the two.
        while least < most {
            let middle = u64::midpoint(least, most);
            if self.due_ns(middle) < end_ns {
                least = middle + 1;
            } else {
                most = middle;
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcap::{CaptureWriter, Datagram};

    fn due(pacing: &Pacing, rate: f64, count: u64) -> Vec<u64> {
        let shape = Shape::of(pacing, 7).expect("it is made");
        let schedule = Schedule::new(1_000, rate, shape);
        (0..count).map(|index| schedule.due_ns(index)).collect()
    }

    /// Goal: the pause behind a burst that is not whole belongs to the measured time, or its rate would be too high.
    #[test]
    fn the_measured_time_ends_with_the_pause_behind_the_last_message() {
        let bursts = Schedule::new(1_000, 1_000.0, Shape::Bursts(1_000));
        assert_eq!(bursts.due_ns(1_500), 1_000_001_000);
        assert_eq!(bursts.end_ns(0, 1_500), 1_500_001_000);
        assert_eq!(bursts.end_ns(1_000, 2_000), 2_000_001_000);
        let even = Schedule::new(0, 1_000.0, Shape::Even);
        assert_eq!(even.end_ns(500, 2_500), 2_500_000_000);
    }

    #[test]
    fn a_steady_rate_does_not_drift() {
        assert_eq!(
            due(&Pacing::Steady, 3.0, 4),
            [1_000, 333_334_333, 666_667_666, 1_000_001_000]
        );
    }

    #[test]
    fn what_is_due_until_a_moment_is_counted() {
        for pacing in [Pacing::Steady, Pacing::Bursts(7), Pacing::Poisson] {
            let shape = Shape::of(&pacing, 7).expect("it is made");
            let schedule = Schedule::new(1_000, 1e6, shape);
            for end_ns in [0, 1_000, 1_001, 2_000, 2_001, 9_500, 777_777] {
                let meant = (0..)
                    .take_while(|&index| schedule.due_ns(index) < end_ns)
                    .count();
                assert_eq!(
                    schedule.due_until(end_ns),
                    meant as u64,
                    "{pacing} {end_ns}"
                );
            }
        }
    }

    #[test]
    fn bursts_come_together_at_the_same_mean_rate() {
        assert_eq!(
            due(&Pacing::Bursts(3), 1e6, 7),
            [1_000, 1_000, 1_000, 4_000, 4_000, 4_000, 7_000]
        );
    }

    #[test]
    fn random_gaps_have_the_mean_and_variance_of_independent_arrivals() {
        let rate = 10_000.0;
        let count = RANDOM_GAPS as u64;
        let times = due(&Pacing::Poisson, rate, 2 * count + 1);
        assert_eq!(times[2 * count as usize], 1_000 + (2 * count) * 100_000);
        let gaps: Vec<_> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64 * rate / 1e9)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 1e-6, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.02, "variance {variance}");
        // Memoryless: a share of exp(-k) is longer than k mean gaps.
        for k in [1.0f64, 3.0] {
            let share = gaps.iter().filter(|gap| **gap > k).count() as f64 / gaps.len() as f64;
            assert!((share / (-k).exp() - 1.0).abs() < 0.05, "{share} over {k}");
        }
        assert_ne!(
            Random::new(7).exponential(1.0),
            Random::new(8).exponential(1.0)
        );
    }

    fn capture(times_ns: &[u64]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut writer = CaptureWriter::new(file.reopen().expect("opened")).expect("a head");
        for &time_ns in times_ns {
            let datagram = Datagram {
                time_ns,
                publisher: 1,
                topic: 1,
                seq: 1,
                source_port: 50_000,
                port: 30_000,
                payload: b"order",
            };
            writer.datagram(&datagram).expect("written");
        }
        file
    }

    #[test]
    fn recorded_gaps_are_scaled_and_go_round() {
        let second = 1_600_000_000_000_000_000;
        let file = capture(&[second, second + 1_000, second + 6_000]);
        // Gaps of 1 and 5 us, then a mean one of 3: 9 us for 3 messages, so 3 us each on average.
        let times = due(&Pacing::Recorded(file.path().into()), 1e6 / 30.0, 5);
        let meant = [1_000u64, 11_000, 61_000, 91_000, 101_000];
        let is_near = |(time, meant): (&u64, u64)| time.abs_diff(meant) <= 1;
        assert!(times.iter().zip(meant).all(is_near), "{times:?}");
    }

    #[test]
    fn the_longest_gap_of_a_shape_is_in_mean_gaps() {
        let second = 1_600_000_000_000_000_000;
        // Gaps of 1 and 5 us and a mean one of 3, so that 5 of 3 is the longest; then 4 and 2 and a mean one.
        for (times_us, longest) in [([0, 1, 6], 5.0 / 3.0), ([0, 4, 6], 4.0 / 3.0)] {
            let file = capture(&times_us.map(|us| second + us * 1_000));
            let shape = Shape::of(&Pacing::Recorded(file.path().into()), 1).expect("it is made");
            assert!((shape.gap_max() - longest).abs() < 1e-9, "{times_us:?}");
        }
        let of = |pacing| Shape::of(&pacing, 1).expect("it is made").gap_max();
        assert_eq!((of(Pacing::Steady), of(Pacing::Bursts(32))), (1.0, 32.0));
        assert!((8.0..30.0).contains(&of(Pacing::Poisson)));
    }

    #[test]
    fn captures_without_gaps_are_refused_with_a_reason() {
        for (times_ns, reason) in [
            (&[][..], "fewer than two"),
            (&[5], "fewer than two"),
            (&[5, 5, 5], "one moment"),
        ] {
            let file = capture(times_ns);
            let refusal = Shape::of(&Pacing::Recorded(file.path().into()), 1);
            let said = refusal.expect_err("it is refused").to_string();
            assert!(said.contains(reason), "{said}");
        }
    }

    #[test]
    fn pacings_are_read_and_nonsense_is_refused() {
        assert_eq!("poisson".parse(), Ok(Pacing::Poisson));
        assert_eq!("bursts:32".parse(), Ok(Pacing::Bursts(32)));
        let recorded = Ok(Pacing::Recorded("a:b.pcap".into()));
        assert_eq!("recorded:a:b.pcap".parse(), recorded);
        for good in ["steady", "poisson", "bursts:32", "recorded:a:b.pcap"] {
            let pacing: Pacing = good.parse().expect(good);
            assert_eq!(pacing.to_string(), good);
        }
        for bad in ["", "bursts", "bursts:0", "bursts:-1", "recorded:", "even"] {
            assert!(bad.parse::<Pacing>().is_err(), "{bad}");
        }
    }
}
