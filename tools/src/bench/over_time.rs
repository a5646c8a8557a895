//! Latency over the time of a run: a coarse histogram for each slot of it.
//!
//! A message counts in the slot it was *due* in, so a stall shows where it began. All slots are made before the run: a
//! receipt only counts, and nothing is computed while it is measured.

use hdrhistogram::Histogram;

use crate::percentiles::us;

/// Most slots of a run; a long one has longer slots.
const SLOTS_MAX: u64 = 200;
/// Shortest slot.
const SLOT_NS_MIN: u64 = 100_000_000;
/// Largest latency kept apart, ns.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// What one subscriber received, by slot. About 17 KB a slot, of which what is never counted in is never touched.
#[derive(Debug, Clone)]
pub(super) struct OverTime {
    slot_ns: u64,
    slots: Vec<Histogram<u32>>,
}

/// Second since the measured time began, p50, p99 and largest latency of what was due from then on, microseconds.
pub(super) type Row = (f64, f64, f64, f64);

impl OverTime {
    /// Slots for so long a run.
    pub(super) fn new(run_ns: u64) -> Self {
        let slot_ns = SLOT_NS_MIN.max(run_ns.div_ceil(SLOTS_MAX));
        let empty = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 2);
        let empty = empty.expect("constant bounds are valid");
        Self {
            slot_ns,
            slots: vec![empty; run_ns.div_ceil(slot_ns) as usize],
        }
    }

    /// Counts a message due `at_ns` after the beginning; what is due after the end is left out.
    #[inline]
    pub(super) fn note(&mut self, at_ns: u64, latency_ns: u64) {
        if let Some(slot) = self.slots.get_mut((at_ns / self.slot_ns) as usize) {
            slot.saturating_record(latency_ns.clamp(1, LATENCY_NS_MAX));
        }
    }

    /// Several subscribers of one run together; slots without a message are left out.
    pub(super) fn rows<'a>(all: impl IntoIterator<Item = &'a Self>) -> Vec<Row> {
        let mut all = all.into_iter();
        let Some(mut sum) = all.next().cloned() else {
            return Vec::new();
        };
        for other in all {
            for (slot, more) in sum.slots.iter_mut().zip(&other.slots) {
                slot.add(more).expect("histograms of one shape");
            }
        }
        let slots = (0u32..).zip(&sum.slots);
        let filled = slots.filter(|(_, slot)| !slot.is_empty());
        let row = |(index, slot): (u32, &Histogram<u32>)| {
            let at = |quantile| us(slot.value_at_quantile(quantile));
            let second = f64::from(index) * sum.slot_ns as f64 / 1e9;
            (
                (second * 1e3).round() / 1e3,
                at(0.5),
                at(0.99),
                us(slot.max()),
            )
        };
        filled.map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_shows_in_the_slot_it_began_in() {
        let mut one = OverTime::new(1_000_000_000);
        let mut other = one.clone();
        for ms in 0..1_000 {
            let latency_ns = if ms == 250 { 90_000_000 } else { 100_000 };
            one.note(ms * 1_000_000, latency_ns);
            other.note(ms * 1_000_000, 100_000);
        }
        one.note(5_000_000_000, 1);
        let rows = OverTime::rows([&one, &other]);
        assert_eq!(rows.len(), 10);
        let (second, p50_us, p99_us, max_us) = rows[2];
        assert_eq!(second, 0.2);
        assert!((p50_us - 100.0).abs() < 2.0 && (p99_us - 100.0).abs() < 2.0);
        assert!((max_us - 90_000.0).abs() < 1_000.0, "{max_us}");
        assert!(rows.iter().filter(|row| row.3 > 1_000.0).count() == 1);
    }

    #[test]
    fn a_day_has_no_more_slots_than_a_minute() {
        assert_eq!(
            OverTime::new(86_400_000_000_000).slots.len() as u64,
            SLOTS_MAX
        );
        assert!(OverTime::rows([&OverTime::new(1)]).is_empty());
        assert!(OverTime::rows([]).is_empty());
    }
}
