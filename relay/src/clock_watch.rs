//! What the clock that stamps is worth: measured by housekeeping, journalled by the node that leads.
//!
//! ```text
//! adjtimex, the kernel's clock source, `chronyc tracking`, `pmc` --> judged --> Testimony::Clock --> the node decides when to stamp
//! ```
//!
//! It is measured at the start, at an interval, and when the kernel's view changes (looked at every second). chrony, and ptp4l if it
//! is configured, are asked through their own programs, without waiting for them. chrony counts if it follows something, or else
//! ptp4l if that does; where neither does, the kernel's maximum error counts, and where the kernel says that nobody keeps the clock
//! right, no bound is claimed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use relay_core::command::{ClockSources, Testimony};
use relay_wire::code::ClockDiscipline;
use relay_wire::id::NodeId;
use relay_wire::record::{ClockBody, ERROR_UNBOUNDED};

use crate::clock::Clock;
use crate::config::EvidenceConfig;
use crate::counters::{Counter, CounterFile};
use crate::ptp::{self, PtpStatus};

/// The kernel's view is looked at so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The daemons' programs have this long to answer.
const PATIENCE: Duration = Duration::from_secs(1);
const CHRONY_PROGRAMS: [&str; 2] = ["/usr/bin/chronyc", "/usr/local/bin/chronyc"];
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// A longer answer is cut.
const ANSWER_LENGTH_MAX: u64 = 65_536;
const PTP_CLOCKS: &str = "/sys/class/ptp";
/// A maximum error beyond twice the last one journalled is a change, from so many ns on.
const ERROR_NOTED_NS: u64 = 1_000_000;

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kernel {
    state: u8,
    is_synchronised: bool,
    offset_ns: i64,
    error_ns: u64,
    error_ns_max: u64,
    frequency_ppt: i64,
}

/// What chrony says of it.
#[derive(Debug, Clone, PartialEq)]
struct Tracking {
    reference: String,
    stratum: u8,
    /// Positive when the clock is ahead.
    offset_ns: i64,
    error_bound_ns: u64,
    is_synchronised: bool,
}

/// What is compared to see a change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    source: String,
    state: u8,
    is_synchronised: bool,
    error_ns_max: u64,
}

/// The daemons' programs while they run.
struct Asking {
    chrony: Option<Child>,
    ptp: Option<Child>,
    since: Instant,
}

/// See the module's description.
pub(crate) struct ClockWatch {
    node: NodeId,
    clock: Clock,
    interval: Duration,
    ptp4l_config_file: Option<PathBuf>,
    due_at: Instant,
    look_at: Instant,
    asking: Option<Asking>,
    journalled: Option<Seen>,
    error_bound: Counter,
    is_bounded: Counter,
}

impl ClockWatch {
    pub(crate) fn new(
        node: NodeId,
        clock: Clock,
        config: &EvidenceConfig,
        counters: &mut CounterFile,
    ) -> Self {
        Self {
            node,
            clock,
            interval: config.clock_every,
            ptp4l_config_file: config.ptp4l_config_file.clone(),
            due_at: Instant::now(),
            look_at: Instant::now(),
            asking: None,
            journalled: None,
            error_bound: counters.counter("clock.error_bound_ns"),
            is_bounded: counters.counter("clock.is_bounded"),
        }
    }

    /// What the log is to say about the clock, when it is time for that.
    pub(crate) fn step(&mut self) -> Option<Testimony> {
        let now = Instant::now();
        if let Some(asking) = &mut self.asking {
            if !asking.is_over() && now.duration_since(asking.since) < PATIENCE {
                return None;
            }
            let (tracking, ptp) = asking.answers();
            self.asking = None;
            return self.measure(tracking.as_ref(), ptp.as_ref());
        }
        if now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK_INTERVAL;
        if now < self.due_at && !self.has_changed() {
            return None;
        }
        self.due_at = now + self.interval;
        let asking = Asking {
            chrony: ask_chrony(),
            ptp: self.ptp4l_config_file.as_deref().and_then(ptp::ask),
            since: now,
        };
        if asking.chrony.is_none() && asking.ptp.is_none() {
            return self.measure(None, None);
        }
        self.asking = Some(asking);
        None
    }

    fn has_changed(&self) -> bool {
        let (Some(before), Ok(kernel)) = (&self.journalled, kernel()) else {
            return false;
        };
        is_change(before, &seen(&kernel))
    }

    fn measure(
        &mut self,
        tracking: Option<&Tracking>,
        ptp: Option<&PtpStatus>,
    ) -> Option<Testimony> {
        let kernel = match kernel() {
            Ok(kernel) => kernel,
            Err(error) => {
                tracing::warn!(%error, "the kernel does not say what its clock is worth");
                return None;
            }
        };
        let seen = seen(&kernel);
        let now_ns = self.clock.now().utc_ns;
        let followed = ptp.filter(|ptp| ptp.is_followed(now_ns));
        let body = ClockBody {
            node: self.node.get().into(),
            measured_ns: now_ns.into(),
            ..judge(&kernel, tracking, followed)
        };
        let sources = sources(&seen.source, tracking, ptp, &ptp_clocks());
        let bound = body.error_bound_ns.get();
        let is_bounded = bound != ERROR_UNBOUNDED;
        self.error_bound.set(if is_bounded { bound } else { 0 });
        self.is_bounded.set(is_bounded.into());
        self.journalled = Some(seen);
        Some(Testimony::Clock(body, ClockSources::new(&sources)))
    }
}

impl Asking {
    fn is_over(&mut self) -> bool {
        let mut running = self.chrony.iter_mut().chain(&mut self.ptp);
        running.all(is_over)
    }

    /// What those said that are over; the others are ended.
    fn answers(&mut self) -> (Option<Tracking>, Option<PtpStatus>) {
        let chrony = self.chrony.take().and_then(answer_of);
        let ptp = self.ptp.take().and_then(answer_of);
        (
            chrony.and_then(|text| parse_tracking(&text)),
            ptp.and_then(|text| PtpStatus::parse(&text)),
        )
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.answers();
    }
}

/// Whether what is seen now is worth a word of its own.
fn is_change(before: &Seen, now: &Seen) -> bool {
    let grown = (2 * before.error_ns_max).max(ERROR_NOTED_NS);
    before.source != now.source
        || before.state != now.state
        || before.is_synchronised != now.is_synchronised
        || now.error_ns_max > grown
}

fn seen(kernel: &Kernel) -> Seen {
    let source = std::fs::read_to_string(CLOCK_SOURCE).unwrap_or_default();
    let source = source.trim();
    Seen {
        source: if source.is_empty() { "unknown" } else { source }.to_owned(),
        state: kernel.state,
        is_synchronised: kernel.is_synchronised,
        error_ns_max: kernel.error_ns_max,
    }
}

/// Figures and verdict, with a ptp4l only if the clock follows it; node and time are left to fill in.
fn judge(kernel: &Kernel, tracking: Option<&Tracking>, ptp: Option<&PtpStatus>) -> ClockBody {
    let followed = tracking.filter(|tracking| tracking.is_synchronised);
    let (discipline, offset_ns, error_bound_ns) = match (followed, ptp) {
        (Some(tracking), _) => {
            let is_ptp = tracking.reference.starts_with("PHC");
            let discipline = if is_ptp {
                ClockDiscipline::Ptp
            } else {
                ClockDiscipline::Chrony
            };
            (discipline, tracking.offset_ns, tracking.error_bound_ns)
        }
        (None, Some(ptp)) => {
            let bound = ptp.error_bound_ns().unwrap_or(ERROR_UNBOUNDED);
            (ClockDiscipline::Ptp, ptp.offset_ns, bound)
        }
        (None, None) if kernel.is_synchronised => (
            ClockDiscipline::Kernel,
            kernel.offset_ns,
            kernel.error_ns_max,
        ),
        (None, None) => (ClockDiscipline::None, kernel.offset_ns, ERROR_UNBOUNDED),
    };
    ClockBody {
        node: 0.into(),
        measured_ns: 0.into(),
        error_bound_ns: error_bound_ns.into(),
        offset_ns: offset_ns.into(),
        kernel_error_ns: kernel.error_ns.into(),
        kernel_error_ns_max: kernel.error_ns_max.into(),
        frequency_ppt: kernel.frequency_ppt.into(),
        state: kernel.state,
        discipline: discipline.number(),
        reserved: [0; 6],
    }
}

/// The names of everything the clock rests on.
fn sources(
    clock_source: &str,
    tracking: Option<&Tracking>,
    ptp: Option<&PtpStatus>,
    ptp_clocks: &[String],
) -> String {
    let mut names = vec![clock_source.to_owned()];
    names.extend(
        tracking
            .map(|tracking| format!("chrony {} stratum {}", tracking.reference, tracking.stratum)),
    );
    names.extend(ptp.map(PtpStatus::name));
    names.extend(ptp_clocks.iter().cloned());
    names.join(", ")
}

/// The PTP hardware clocks there are.
fn ptp_clocks() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(Path::new(PTP_CLOCKS)) else {
        return Vec::new();
    };
    let mut clocks: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = std::fs::read_to_string(entry.path().join("clock_name")).ok()?;
            let place = entry.file_name().into_string().ok()?;
            Some(format!("{place} {}", name.trim()))
        })
        .collect();
    clocks.sort_unstable();
    clocks
}

/// What adjtimex says; nothing is changed.
fn kernel() -> std::io::Result<Kernel> {
    // SAFETY: all zeroes is a value of this plain structure, and means: change nothing.
    let mut facts: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer is passed.
    let state = unsafe { libc::adjtimex(&raw mut facts) };
    if state < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let unit = if facts.status & libc::STA_NANO == 0 {
        1_000
    } else {
        1
    };
    let microseconds = |value: i64| u64::try_from(value).unwrap_or(0) * 1_000;
    Ok(Kernel {
        state: u8::try_from(state).unwrap_or(u8::MAX),
        is_synchronised: facts.status & libc::STA_UNSYNC == 0,
        offset_ns: facts.offset * unit,
        error_ns: microseconds(facts.esterror),
        error_ns_max: microseconds(facts.maxerror),
        // Parts in a million, times 65,536.
        frequency_ppt: facts.freq * 15_625 / 1_024,
    })
}

/// Starts chrony's program, where it is installed.
fn ask_chrony() -> Option<Child> {
    let program = CHRONY_PROGRAMS
        .into_iter()
        .find(|program| Path::new(program).exists())?;
    Command::new(program)
        .args(["-c", "-n", "tracking"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

fn is_over(child: &mut Child) -> bool {
    child.try_wait().is_ok_and(|status| status.is_some())
}

/// What the program printed; one that is not over is ended, and said nothing.
fn answer_of(mut child: Child) -> Option<String> {
    if !is_over(&mut child) {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    let mut text = String::new();
    let pipe = child.stdout.take()?;
    pipe.take(ANSWER_LENGTH_MAX)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// Reads a line of `chronyc -c tracking`: reference id, name, stratum, reference time, system time's offset, last offset, RMS
/// offset, frequency, residual frequency, skew, root delay, root dispersion, update interval, leap status. Seconds, with the offset
/// positive when the clock is behind.
fn parse_tracking(text: &str) -> Option<Tracking> {
    let fields: Vec<&str> = text.lines().next()?.split(',').collect();
    let [
        id,
        name,
        stratum,
        _,
        offset,
        _,
        _,
        _,
        _,
        _,
        delay,
        dispersion,
        _,
        leap,
        ..,
    ] = fields[..]
    else {
        return None;
    };
    let seconds = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite());
    let (offset, delay, dispersion) = (seconds(offset)?, seconds(delay)?, seconds(dispersion)?);
    let bound = offset.abs() + dispersion + delay / 2.0;
    let reference = if name.is_empty() { id } else { name };
    // Kept to what a name may be: it goes into the journal.
    let reference = reference.chars().filter(|c| c.is_ascii_graphic()).take(40);
    Some(Tracking {
        reference: reference.collect(),
        stratum: stratum.parse().ok()?,
        offset_ns: (-offset * 1e9) as i64,
        error_bound_ns: (bound * 1e9).ceil() as u64,
        is_synchronised: leap != "Not synchronised",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Kernel = Kernel {
        state: 0,
        is_synchronised: true,
        offset_ns: -500,
        error_ns: 1_000,
        error_ns_max: 250_000,
        frequency_ppt: 12,
    };
    const LINE: &str = "A9FEA97B,169.254.169.123,4,1764291000.123456789,-0.000012345,0.000001,0.000002,\
                        -12.345,0.001,0.02,0.000400000,0.000100000,16.2,Normal\n";

    #[test]
    fn chrony_is_understood() {
        let tracking = parse_tracking(LINE).expect("it is a line");
        assert_eq!(tracking.reference, "169.254.169.123");
        assert_eq!((tracking.stratum, tracking.offset_ns), (4, 12_345));
        let bound = 12_345 + 100_000 + 200_000;
        assert!(tracking.error_bound_ns.abs_diff(bound) <= 1);
        for wrong in [
            "",
            "506 Cannot talk to daemon",
            "a,b,c",
            &LINE.replace("0.0004", "nan"),
        ] {
            assert_eq!(parse_tracking(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_bound_is_that_of_whoever_keeps_the_clock_right() {
        let tracking = parse_tracking(LINE).expect("it is a line");
        let told = |kernel: &Kernel, tracking: Option<&Tracking>| {
            let body = judge(kernel, tracking, None);
            let discipline = ClockDiscipline::from_number(body.discipline);
            (discipline.expect("it is one"), body.error_bound_ns.get())
        };
        let bound = tracking.error_bound_ns;
        assert_eq!(
            told(&KERNEL, Some(&tracking)),
            (ClockDiscipline::Chrony, bound)
        );
        let ptp = Tracking {
            reference: "PHC0".to_owned(),
            ..tracking.clone()
        };
        assert_eq!(told(&KERNEL, Some(&ptp)), (ClockDiscipline::Ptp, bound));
        assert_eq!(told(&KERNEL, None), (ClockDiscipline::Kernel, 250_000));
        let lost = Tracking {
            is_synchronised: false,
            ..tracking
        };
        let alone = Kernel {
            is_synchronised: false,
            ..KERNEL
        };
        let unbounded = (ClockDiscipline::None, ERROR_UNBOUNDED);
        assert_eq!(told(&alone, Some(&lost)), unbounded);
        assert_eq!(told(&alone, None), unbounded);
    }

    #[test]
    fn a_change_is_told_from_what_always_moves() {
        let before = Seen {
            source: "tsc".to_owned(),
            state: 0,
            is_synchronised: true,
            error_ns_max: 2_000_000,
        };
        let with = |change: fn(&mut Seen)| {
            let mut now = before.clone();
            change(&mut now);
            is_change(&before, &now)
        };
        assert!(!with(|_| {}));
        // Between two corrections the kernel lets the maximum error grow.
        assert!(!with(|now| now.error_ns_max = 4_000_000));
        assert!(with(|now| now.error_ns_max = 4_000_001));
        assert!(with(|now| now.source = "hpet".to_owned()));
        assert!(with(|now| now.state = 5));
        assert!(with(|now| now.is_synchronised = false));
        // A good clock's error may double without a word.
        let good = Seen {
            error_ns_max: 10_000,
            ..before.clone()
        };
        let worse = Seen {
            error_ns_max: 1_000_000,
            ..before.clone()
        };
        assert!(!is_change(&good, &worse));
    }

    #[test]
    fn the_kernel_answers() {
        let kernel = kernel().expect("it says something");
        assert!(kernel.state <= 5);
        assert!(!seen(&kernel).source.is_empty());
    }

    #[test]
    fn sources_are_named_in_one_line() {
        let tracking = parse_tracking(LINE).expect("it is a line");
        assert_eq!(
            sources("tsc", Some(&tracking), None, &["ptp0 ena".to_owned()]),
            "tsc, chrony 169.254.169.123 stratum 4, ptp0 ena"
        );
        assert_eq!(sources("tsc", None, None, &[]), "tsc");
    }
}
