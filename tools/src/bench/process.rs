//! What a process takes of the machine: CPU time and memory, from `/proc`.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// A reading; differences of two say what was taken between them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ProcessUse {
    /// CPU time of all its threads, kernel time included, in seconds; counted in hundredths on most machines.
    pub(super) cpu_seconds: f64,
    /// Resident memory, bytes.
    pub(super) resident: u64,
    /// The most it ever was.
    pub(super) resident_peak: u64,
}

impl ProcessUse {
    /// Of the process `pid`; `None` where it is gone.
    pub(super) fn read(pid: u64) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let ticks = ticks(&stat)?;
        Some(Self {
            cpu_seconds: ticks as f64 / clock_ticks_per_second() as f64,
            resident: kib(&status, "VmRSS:")? << 10,
            resident_peak: kib(&status, "VmHWM:")? << 10,
        })
    }
}

/// User and system time. The name before them stands in parentheses and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn kib(status: &str, label: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_wicked_name_is_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 21 4 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(25));
        assert_eq!(kib("VmHWM:\t  12 kB\nVmRSS:\t 9 kB\n", "VmRSS:"), Some(9));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let own = ProcessUse::read(std::process::id().into()).expect("it is there");
        assert!(own.resident > 0 && own.resident_peak >= own.resident);
        assert_eq!(ProcessUse::read(u64::MAX), None);
    }
}
