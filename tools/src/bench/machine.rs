//! What a report says about the machine it comes from: what makes one figure comparable with another, or not.
//!
//! Read once, after the measuring, from `/proc` and `/sys`; what is not there is left out. Of the kernel's command line only
//! the parameters that decide about latency are kept.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cpu_count;

/// Kernel parameters that decide which CPUs are left alone.
const ISOLATION: [&str; 4] = ["isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity"];
/// Kernel parameters that decide how fast CPUs are and wake up.
const SPEED: [&str; 9] = [
    "mitigations",
    "idle",
    "nosmt",
    "preempt",
    "intel_pstate",
    "amd_pstate",
    "intel_idle.max_cstate",
    "processor.max_cstate",
    "transparent_hugepage",
];

/// The machine, and the command that was run there.
#[derive(Debug, Serialize)]
pub(super) struct MachineReport {
    cpu: String,
    cpus: usize,
    kernel: String,
    command: String,
    version: &'static str,
    /// When the report was made, RFC 3339.
    measured_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    virtualisation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    governor: Option<String>,
    isolation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_parameters: Option<String>,
    #[serde(flatten)]
    disk: Option<DiskReport>,
}

/// The disk and the filesystem that a directory lies on.
#[derive(Debug, Serialize)]
struct DiskReport {
    filesystem: String,
    mount_options: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<String>,
    /// As the kernel sees it; a hypervisor below may have one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    write_cache: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io_scheduler: Option<String>,
    /// CPUs that take the interrupts of its writes; a busy thread there runs between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    interrupt_cpus: Option<String>,
}

impl MachineReport {
    /// Of a run that has no disk of its own.
    pub(super) fn new() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let found = info.lines().find_map(|line| line.strip_prefix(name));
            found.map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim())
        };
        let is_virtual = field("flags")
            .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self {
            cpu: field("model name").unwrap_or_default().to_owned(),
            cpus: cpu_count(),
            kernel: word("/proc/sys/kernel/osrelease").unwrap_or_default(),
            command: command(std::env::args().skip(1)),
            version: env!("CARGO_PKG_VERSION"),
            measured_at: format!("{:.0}", jiff::Timestamp::now()),
            memory: memory(),
            virtualisation: virtualisation(is_virtual),
            clock_source: word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            governor: word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            isolation: parameters(&command_line, &ISOLATION).unwrap_or("none".into()),
            kernel_parameters: parameters(&command_line, &SPEED),
            disk: None,
        }
    }

    /// Of a run whose files lie in `directory`.
    pub(super) fn with_disk(directory: &Path) -> Self {
        Self {
            disk: DiskReport::of(directory),
            ..Self::new()
        }
    }

    /// One line for people.
    pub(super) fn text(&self) -> String {
        format!("{}, {} CPUs, Linux {}", self.cpu, self.cpus, self.kernel)
    }
}

/// The command as a shell takes it, but for secrets: results are handed on.
fn command(words: impl Iterator<Item = String>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,=+@%".contains(c);
    let mut is_secret = false;
    let mut shown = Vec::new();
    for word in words {
        let word = if is_secret {
            "SECRET".into()
        } else if word.starts_with("--secret=") {
            "--secret=SECRET".into()
        } else {
            word
        };
        is_secret = word == "--secret";
        let is_bare = !word.is_empty() && word.chars().all(is_plain);
        shown.push(if is_bare {
            word
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        });
    }
    shown.join(" ")
}

impl DiskReport {
    fn of(directory: &Path) -> Option<Self> {
        let directory = directory.canonicalize().ok()?;
        let device = fs::metadata(&directory).ok()?.dev();
        let number = format!("{}:{}", libc::major(device), libc::minor(device));
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let (filesystem, mount_options) = mount(&mounts, &number, &directory)?;
        let block = fs::canonicalize(format!("/sys/dev/block/{number}")).ok();
        // A partition's queue is its disk's.
        let block = block.and_then(|path| match path.join("partition").exists() {
            true => path.parent().map(Path::to_owned),
            false => Some(path),
        });
        let of_block = |name: &str| block.as_deref().and_then(|path| word(path.join(name)));
        Some(Self {
            filesystem,
            mount_options,
            disk: block.as_deref().map(disk),
            write_cache: of_block("queue/write_cache"),
            io_scheduler: of_block("queue/scheduler").map(|text| chosen(&text)),
            interrupt_cpus: block.as_deref().and_then(interrupt_cpus),
        })
    }
}

/// Filesystem and options of the mount that holds `directory`.
fn mount(mounts: &str, number: &str, directory: &Path) -> Option<(String, String)> {
    let found = mounts.lines().filter_map(|line| {
        let (mount, device) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        if mount.next() != Some(number) {
            return None;
        }
        let (_, point, options) = (mount.next()?, mount.next()?, mount.next()?);
        let mut device = device.split(' ');
        let (filesystem, _, of_device) = (device.next()?, device.next()?, device.next()?);
        // A point with a blank is written with an escape, matches nothing, and comes last.
        let depth = match directory.starts_with(point) {
            true => point.len(),
            false => 0,
        };
        Some((
            depth,
            filesystem.to_owned(),
            format!("{options} {of_device}"),
        ))
    });
    found
        .max_by_key(|&(depth, ..)| depth)
        .map(|(_, filesystem, options)| (filesystem, options))
}

/// Name, model and size of a block device.
fn disk(block: &Path) -> String {
    let name = block.file_name().unwrap_or_default().to_string_lossy();
    let mut parts = vec![name.into_owned()];
    parts.extend(word(block.join("device/model")).or_else(|| word(block.join("dm/name"))));
    let driver = fs::canonicalize(block.join("device/driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name);
    parts.extend(driver.map(|name| name.to_string_lossy().into_owned()));
    let sectors: Option<u64> = word(block.join("size")).and_then(|size| size.parse().ok());
    parts.extend(sectors.map(|sectors| format!("{} GB", sectors * 512 / 1_000_000_000)));
    match word(block.join("queue/rotational")).as_deref() {
        Some("1") => parts.push("rotating as reported".into()),
        Some("0") => parts.push("not rotating".into()),
        _ => {}
    }
    parts.join(", ")
}

/// CPUs on which the interrupts of a block device's queues arrive.
fn interrupt_cpus(block: &Path) -> Option<String> {
    let device = fs::canonicalize(block.join("device")).ok()?;
    let device = device.file_name()?.to_str()?.to_owned();
    let interrupts = fs::read_to_string("/proc/interrupts").ok()?;
    let each = interrupts_of(&interrupts, &device).filter_map(|number| {
        let cpus = word(format!("/proc/irq/{number}/effective_affinity_list"))?;
        cpus.parse::<usize>().ok()
    });
    let cpus: Vec<_> = each
        .collect::<BTreeSet<_>>()
        .iter()
        .map(usize::to_string)
        .collect();
    (!cpus.is_empty()).then(|| cpus.join(", "))
}

/// Numbers of the interrupts of a device's queues, as virtio and NVMe name them: `virtio1-req.0`, `nvme0q1`.
fn interrupts_of<'a>(interrupts: &'a str, device: &'a str) -> impl Iterator<Item = u32> + 'a {
    interrupts.lines().filter_map(move |line| {
        let queue = line.split_whitespace().last()?.strip_prefix(device)?;
        let is_queue = queue.starts_with("-req") || queue.starts_with('q');
        let number = line.split(':').next()?.trim();
        is_queue.then(|| number.parse().ok()).flatten()
    })
}

/// The one in brackets of several choices.
fn chosen(text: &str) -> String {
    let inner = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(text, |(inner, _)| inner).to_owned()
}

fn memory() -> Option<String> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(format!("{:.1} GiB", kib as f64 / f64::from(1 << 20)))
}

fn virtualisation(is_virtual: bool) -> String {
    if !is_virtual {
        return "none seen".into();
    }
    let names: Vec<String> = ["sys_vendor", "product_name"]
        .iter()
        .filter_map(|name| word(PathBuf::from("/sys/class/dmi/id").join(name)))
        .collect();
    match names.is_empty() {
        true => "virtual machine".into(),
        false => format!("virtual machine ({})", names.join(" ")),
    }
}

/// Those of a kernel's command line that have these names.
fn parameters(command_line: &str, names: &[&str]) -> Option<String> {
    let kept: Vec<_> = command_line
        .split_whitespace()
        .filter(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            names.contains(&name)
        })
        .collect();
    (!kept.is_empty()).then(|| kept.join(" "))
}

/// A file of one line; nothing where it is missing or empty.
fn word(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_of_the_device_holds_a_directory() {
        let mounts = "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
            30 21 254:1 / /srv rw - xfs /dev/vdb rw\n\
            31 21 254:0 /a /srv/b rw,noatime - ext4 /dev/vda rw,discard\n\
            nonsense\n";
        let found = |number, directory: &str| mount(mounts, number, Path::new(directory));
        let text = |filesystem: &str, options: &str| Some((filesystem.into(), options.into()));
        assert_eq!(
            found("254:0", "/tmp"),
            text("ext4", "rw,relatime rw,discard")
        );
        assert_eq!(
            found("254:0", "/srv/b/c"),
            text("ext4", "rw,noatime rw,discard")
        );
        assert_eq!(found("254:1", "/srv/x"), text("xfs", "rw rw"));
        assert_eq!(found("9:9", "/"), None);
    }

    #[test]
    fn the_interrupts_of_a_disks_queues_are_found_by_its_name() {
        let interrupts = "           CPU0       CPU1\n\
            \x2035:          0          1 PCI-MSIX-0000:00:02.0   0-edge      virtio1-config\n\
            \x2036:          0   18751463 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0\n\
            \x2038:          0      27362 PCI-MSIX-0000:00:03.0   1-edge      virtio12-req.0\n\
            130:          0          7 IR-PCI-MSIX   1-edge      nvme0q1\n\
            131:          0          7 IR-PCI-MSIX   2-edge      nvme0q2\n\
            NMI:          0          0   Non-maskable interrupts\n";
        let found = |device| interrupts_of(interrupts, device).collect::<Vec<_>>();
        assert_eq!(found("virtio1"), [36]);
        assert_eq!(found("nvme0"), [130, 131]);
        assert!(found("sda").is_empty());
    }

    #[test]
    fn only_what_decides_about_latency_is_kept_of_the_command_line() {
        let line = "root=/dev/vda isolcpus=2,3 password=x nohz_full=2,3 quiet";
        let kept = parameters(line, &ISOLATION);
        assert_eq!(kept.as_deref(), Some("isolcpus=2,3 nohz_full=2,3"));
        assert_eq!(parameters(line, &SPEED), None);
    }

    #[test]
    fn this_machine_has_a_processor_and_a_filesystem() {
        let found = MachineReport::with_disk(Path::new("."));
        assert!(found.cpus > 0 && !found.kernel.is_empty());
        assert!(found.disk.is_some_and(|disk| !disk.filesystem.is_empty()));
        assert_eq!(chosen("mq-deadline [none] bfq"), "none");
    }

    #[test]
    fn a_command_is_told_without_its_secret() {
        let told = |words: &[&str]| command(words.iter().map(|&word| word.to_owned()));
        let plain = "bench latency --connect --address h:1,i:2 --secret SECRET --rate 5";
        let words = plain.replace("SECRET", "00ff");
        assert_eq!(told(&words.split(' ').collect::<Vec<_>>()), plain);
        assert_eq!(told(&["--secret=00ff"]), "--secret=SECRET");
        assert_eq!(told(&["--secret-file", "f"]), "--secret-file f");
        assert_eq!(told(&["a b", "it's", ""]), r"'a b' 'it'\''s' ''");
    }
}
