//! What ptp4l says of the clock it follows: asked through `pmc`, the program that comes with it.
//!
//! ```text
//! `pmc -u -b 0 -f FILE` (socket and domain as in ptp4l's own file) --> PtpStatus --> the clock watch judges
//! ```
//!
//! With software timestamps ptp4l keeps the system's clock right, which is the one that stamps. With those of hardware it keeps
//! that hardware's clock right and another program carries the time over, of whose error ptp4l knows nothing: then it is named, and
//! bounds nothing here. What it measured before its grandmaster was lost it goes on showing; so its figures count only while its
//! port is a slave, and while they are fresh. Nothing is asked that would change anything.

use std::path::Path;
use std::process::{Child, Command, Stdio};

const PROGRAMS: [&str; 3] = ["/usr/sbin/pmc", "/usr/local/sbin/pmc", "/usr/bin/pmc"];
const QUESTIONS: [&str; 4] = [
    "GET PORT_PROPERTIES_NP",
    "GET TIME_STATUS_NP",
    "GET CURRENT_DATA_SET",
    "GET PARENT_DATA_SET",
];
/// A synchronisation this long ago says nothing of now, ns. A master sends one at least every two seconds in the usual profiles.
const AGE_NS_MAX: u64 = 10_000_000_000;
/// The state of a port that follows a master and has settled on it.
const FOLLOWING: &str = "SLAVE";
/// IEEE 1588's clock accuracies from 0x17 to 0x30 (less than 1 ns: as 1), ns. Others are unknown, or worse than ten seconds.
const ACCURACIES_NS: [u64; 26] = [
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    3,
    10,
    25,
    100,
    250,
    1_000,
    2_500,
    10_000,
    25_000,
    100_000,
    250_000,
    1_000_000,
    2_500_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// What a ptp4l says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PtpStatus {
    /// Of the port that follows a master, or of the first.
    port: Port,
    grandmaster: String,
    /// Positive when the clock is ahead.
    pub(crate) offset_ns: i64,
    path_delay_ns: u64,
    /// When the offset was measured, ns by the clock that is kept right.
    measured_ns: u64,
    /// How far the grandmaster says that it may be from UTC, if it says so.
    accuracy_ns: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Port {
    state: String,
    timestamping: String,
    interface: String,
}

impl PtpStatus {
    /// Whether the system's clock follows a grandmaster, at this time of that clock.
    pub(crate) fn is_followed(&self, now_ns: u64) -> bool {
        self.port.state == FOLLOWING
            && self.port.timestamping == "SOFTWARE"
            && self.measured_ns.abs_diff(now_ns) <= AGE_NS_MAX
    }

    /// How far the clock may be from UTC, ns: from its master as far as the last measurement says; that may be wrong by the whole
    /// way's delay, if all of that was in one direction; and the grandmaster's own error. `None` where it states none.
    pub(crate) fn error_bound_ns(&self) -> Option<u64> {
        let from_master = self.offset_ns.unsigned_abs() + self.path_delay_ns;
        Some(from_master + self.accuracy_ns?)
    }

    /// Who follows what, for people.
    pub(crate) fn name(&self) -> String {
        let Port {
            state,
            timestamping,
            interface,
        } = &self.port;
        let mut name = format!("ptp4l {interface} {}", state.to_lowercase());
        if state == FOLLOWING {
            name = format!("{name} of {}", self.grandmaster);
        }
        if timestamping != "SOFTWARE" {
            name = format!("{name} {}", timestamping.to_lowercase());
        }
        name
    }

    /// Reads what the program printed; `None` where no ptp4l answered, or not in full.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut ports: Vec<Port> = Vec::new();
        let (mut offset, mut measured, mut delay) = (None, None, None);
        let (mut grandmaster, mut accuracy) = (None, None);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(key), Some(value)) = (words.next(), words.next()) else {
                continue;
            };
            match key {
                "portState" => ports.push(Port {
                    state: name_of(value),
                    ..Port::default()
                }),
                "timestamping" => ports.last_mut()?.timestamping = name_of(value),
                "interface" => ports.last_mut()?.interface = name_of(value),
                "master_offset" => offset = value.parse().ok(),
                "ingress_time" => measured = value.parse().ok(),
                "meanPathDelay" => delay = value.parse::<f64>().ok().filter(|ns| ns.is_finite()),
                "grandmasterIdentity" => grandmaster = Some(name_of(value)),
                "gm.ClockAccuracy" => accuracy = Some(accuracy_ns(value)?),
                _ => {}
            }
        }
        let following = ports.iter().position(|port| port.state == FOLLOWING);
        if ports.is_empty() {
            return None;
        }
        Some(Self {
            port: ports.swap_remove(following.unwrap_or(0)),
            grandmaster: grandmaster?,
            offset_ns: offset?,
            // Kept from overflow; an estimate of a short way may come out below zero.
            path_delay_ns: delay?.abs().ceil().min(1e18) as u64,
            measured_ns: measured?,
            accuracy_ns: accuracy?,
        })
    }
}

/// Kept to what a name may be: it goes into the journal.
fn name_of(text: &str) -> String {
    let letters = text.chars().filter(char::is_ascii_graphic);
    letters.take(24).collect()
}

/// What IEEE 1588 means by this code; the outer `None` where it is no code.
fn accuracy_ns(code: &str) -> Option<Option<u64>> {
    let code = usize::from_str_radix(code.strip_prefix("0x")?, 16).ok()?;
    let known = code.checked_sub(0x17);
    Some(known.and_then(|index| ACCURACIES_NS.get(index)).copied())
}

/// Starts the program that asks the ptp4l of this configuration file, where it is installed.
pub(crate) fn ask(config_file: &Path) -> Option<Child> {
    let program = PROGRAMS
        .into_iter()
        .find(|program| Path::new(program).exists())?;
    Command::new(program)
        .args(["-u", "-b", "0", "-f"])
        .arg(config_file)
        .args(QUESTIONS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As linuxptp 3.1.1 prints it, less what is not read.
    const ANSWER: &str = "sending: GET PORT_PROPERTIES_NP\n\
        \t6eeeb2.fffe.cb516c-1 seq 0 RESPONSE MANAGEMENT PORT_PROPERTIES_NP \n\
        \t\tportIdentity            6eeeb2.fffe.cb516c-1\n\
        \t\tportState               SLAVE\n\
        \t\ttimestamping            SOFTWARE\n\
        \t\tinterface               v0\n\
        sending: GET CURRENT_DATA_SET\n\
        \t6eeeb2.fffe.cb516c-0 seq 1 RESPONSE MANAGEMENT TIME_STATUS_NP \n\
        \t\tmaster_offset              -58\n\
        \t\tingress_time               1795853267641936359\n\
        \t\tcumulativeScaledRateOffset +0.000000000\n\
        \t\tlastGmPhaseChange          0x0000'0000000000000000.0000\n\
        \t\tgmPresent                  true\n\
        \t\tgmIdentity                 6269c2.fffe.c8c355\n\
        \t6eeeb2.fffe.cb516c-0 seq 2 RESPONSE MANAGEMENT CURRENT_DATA_SET \n\
        \t\tstepsRemoved     1\n\
        \t\toffsetFromMaster -58.0\n\
        \t\tmeanPathDelay    2523.5\n\
        \t6eeeb2.fffe.cb516c-0 seq 3 RESPONSE MANAGEMENT PARENT_DATA_SET \n\
        \t\tparentPortIdentity                    6269c2.fffe.c8c355-1\n\
        \t\tgm.ClockClass                         6\n\
        \t\tgm.ClockAccuracy                      0x21\n\
        \t\tgrandmasterIdentity                   6269c2.fffe.c8c355\n";
    const MEASURED_NS: u64 = 1_795_853_267_641_936_359;

    fn with(from: &str, to: &str) -> PtpStatus {
        assert!(ANSWER.contains(from));
        PtpStatus::parse(&ANSWER.replace(from, to)).expect("it is an answer")
    }

    #[test]
    fn an_answer_is_understood() {
        let status = with("", "");
        assert_eq!(status.offset_ns, -58);
        assert_eq!(status.error_bound_ns(), Some(58 + 2_524 + 100));
        assert_eq!(status.name(), "ptp4l v0 slave of 6269c2.fffe.c8c355");
        // No ptp4l, one that did not answer everything, and one that answers nonsense.
        let questions = "sending: GET PORT_PROPERTIES_NP\nsending: GET TIME_STATUS_NP\n";
        let cut = &ANSWER[..ANSWER.find("gm.ClockAccuracy").expect("it is there")];
        let wrong = ANSWER.replace("2523.5", "nan");
        let early = ANSWER.replace("portState", "portMood");
        for text in ["", questions, cut, &wrong, &early] {
            assert_eq!(PtpStatus::parse(text), None, "{text}");
        }
        let far = with("-58\n", "-9223372036854775808\n");
        assert!(far.error_bound_ns() > Some(1 << 63));
    }

    #[test]
    fn a_grandmaster_that_states_no_accuracy_bounds_nothing() {
        assert_eq!(with("0x21", "0xfe").error_bound_ns(), None);
        assert_eq!(with("0x21", "0x31").error_bound_ns(), None);
        let bound = |code| with("0x21", code).error_bound_ns();
        assert_eq!(bound("0x20"), Some(58 + 2_524 + 25));
        assert_eq!(bound("0x29"), Some(58 + 2_524 + 1_000_000));
        assert_eq!(bound("0x30"), Some(58 + 2_524 + 10_000_000_000));
    }

    #[test]
    fn only_a_slave_with_software_timestamps_and_a_fresh_measurement_counts() {
        assert!(with("", "").is_followed(MEASURED_NS + AGE_NS_MAX));
        assert!(!with("", "").is_followed(MEASURED_NS + AGE_NS_MAX + 1));
        for state in ["UNCALIBRATED", "LISTENING", "MASTER", "FAULTY"] {
            let status = with("SLAVE", state);
            assert!(!status.is_followed(MEASURED_NS), "{state}");
            assert!(!status.name().contains(" of "), "{state}");
        }
        let hardware = with("SOFTWARE", "HARDWARE");
        assert!(!hardware.is_followed(MEASURED_NS));
        assert!(hardware.name().ends_with(" hardware"));
        // Of several ports the one that follows is meant.
        let first = "\t\tportState MASTER\n\t\ttimestamping HARDWARE\n\t\tinterface v9\n";
        let two = PtpStatus::parse(&format!("{first}{ANSWER}")).expect("it is an answer");
        assert_eq!(two, with("", ""));
    }
}
