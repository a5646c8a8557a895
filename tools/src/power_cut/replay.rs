//! Lays the write log over the disk, entry by entry, and after each one recovers from a copy of what is there.
//!
//! The copy is a dm-snapshot, so that what mounting writes does not come between. Mounted, the journal is read as a start
//! of relayd reads it, and every so often relayd itself is started on it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use relay_client::wire::id::Position;
use relay_journal::block::records;
use relay_journal::reader::{JournalDir, ReaderError};

use super::write_log::WriteLog;
use super::{MARK, Outcome, payload, run as run_program};

/// What the kernel marks when the log is over.
const LOG_END: &str = "dm-log-writes-end";
/// How long a filesystem may stay busy.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(30);
/// The snapshot's name.
const CUT: &str = "cut";

/// Options of `power-cut replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayOptions {
    /// The device that holds the write log
    #[arg(long)]
    log: PathBuf,
    /// The device as it was when the log began; it is written to
    #[arg(long)]
    disk: PathBuf,
    /// A device for what mounting writes
    #[arg(long)]
    scratch: PathBuf,
    /// Where it is mounted
    #[arg(long)]
    mount: PathBuf,
    /// The filesystem
    #[arg(long)]
    filesystem: String,
    /// The stream's directory under the mount
    #[arg(long, default_value = "stream")]
    stream: PathBuf,
    /// relayd, and its configuration for a start on the mount
    #[arg(long)]
    relayd: PathBuf,
    /// See `relayd`
    #[arg(long)]
    config: PathBuf,
    /// Recovers after every entry with a flush, and after one in so many others
    #[arg(long, default_value_t = 1)]
    every: u64,
    /// Starts relayd itself at one prefix in so many that are recovered from
    #[arg(long, default_value_t = 20)]
    start_every: u64,
}

#[derive(Debug, Default)]
struct Counts {
    entries: u64,
    recovered: u64,
    started: u64,
    torn: u64,
    acknowledged: u64,
    found: u64,
}

/// Runs the command.
pub(super) fn run(options: &ReplayOptions) -> Outcome<()> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    let log = File::open(&options.log).map_err(at(&options.log))?;
    let mut log = WriteLog::open(log).map_err(at(&options.log))?;
    let disk = OpenOptions::new().write(true).open(&options.disk);
    let disk = disk.map_err(at(&options.disk))?;
    let mut counts = Counts::default();
    println!("{} entries in the write log", log.entries());
    while let Some(entry) = log.next_entry().map_err(at(&options.log))? {
        counts.entries += 1;
        // The kernel marks the end by itself.
        if let Some(mark) = entry.mark.as_ref().filter(|mark| *mark != LOG_END) {
            let number = mark.strip_prefix(MARK).and_then(|text| text.parse().ok());
            counts.acknowledged = number.ok_or_else(|| format!("a mark that says {mark:?}"))?;
        }
        log.apply(&entry, &disk).map_err(at(&options.disk))?;
        let is_wanted = entry.is_barrier || counts.entries.is_multiple_of(options.every);
        if !is_wanted {
            continue;
        }
        disk.sync_all().map_err(at(&options.disk))?;
        options
            .recover(&mut counts)
            .map_err(|what| format!("after {} entries: {what}", counts.entries))?;
        if counts.recovered.is_multiple_of(100) {
            println!(
                "{} entries, {} power cuts, {} acknowledged, {} found",
                counts.entries, counts.recovered, counts.acknowledged, counts.found
            );
        }
    }
    if counts.acknowledged == 0 || counts.found < counts.acknowledged {
        return Err(format!("the log ends with {counts:?}"));
    }
    println!(
        "{} entries, {} power cuts recovered from ({} of them with a torn tail, {} of them by a start of relayd), \
         {} messages acknowledged, {} found at the end, 0 lost",
        counts.entries,
        counts.recovered,
        counts.torn,
        counts.started,
        counts.acknowledged,
        counts.found
    );
    Ok(())
}

impl ReplayOptions {
    /// Cuts the power here: mounts a copy, and looks at the journal in it.
    fn recover(&self, counts: &mut Counts) -> Outcome<()> {
        let sectors = sectors(&self.disk)?;
        let table = format!(
            "0 {sectors} snapshot {} {} N 8",
            self.disk.display(),
            self.scratch.display()
        );
        run_program("dmsetup", &["create", CUT, "--table", &table])?;
        let device = format!("/dev/mapper/{CUT}");
        let mount = self.mount.display().to_string();
        let mounted = run_program("mount", &["-t", &self.filesystem, &device, &mount]);
        let checked = mounted.and_then(|()| {
            let checked = self.check(counts);
            unmount(&mount)?;
            checked
        });
        run_program("dmsetup", &["remove", CUT])?;
        counts.recovered += 1;
        checked
    }

    fn check(&self, counts: &mut Counts) -> Outcome<()> {
        let path = self.mount.join(&self.stream);
        let journal = JournalDir::open(&path).map_err(|error| error.to_string())?;
        let extent = journal.extent().map_err(|error| error.to_string())?;
        let recovered = extent
            .verdict
            .as_ref()
            .map_err(|error| format!("recovery refuses: {error}"))?;
        counts.torn += u64::from(recovered.cut.is_some());
        counts.found = messages(&journal, extent.tail)?;
        if counts.found < counts.acknowledged {
            return Err(format!(
                "{} messages were acknowledged, {} are there",
                counts.acknowledged, counts.found
            ));
        }
        if counts.recovered.is_multiple_of(self.start_every) {
            self.start(counts.found)?;
            counts.started += 1;
        }
        Ok(())
    }

    /// Starts relayd on the mount and stops it again; it must find the same.
    fn start(&self, expected: u64) -> Outcome<()> {
        let mut child = Command::new(&self.relayd)
            .arg("run")
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.relayd.display()))?;
        let output = child.stdout.take().expect("it was piped");
        let ready = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("ready stream="));
        if ready {
            run_program("kill", &["-TERM", &child.id().to_string()])?;
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        if !ready || !status.success() {
            return Err(format!("relayd does not start and stop: {status}"));
        }
        let path = self.mount.join(&self.stream);
        let journal = JournalDir::open(&path).map_err(|error| error.to_string())?;
        let extent = journal.extent().map_err(|error| error.to_string())?;
        let found = messages(&journal, extent.tail)?;
        if found == expected && extent.released == extent.tail {
            Ok(())
        } else {
            Err(format!("relayd made {found} messages of {expected}"))
        }
    }
}

/// Counts the messages up to `tail`, each of which must be the one that was sent.
fn messages(journal: &JournalDir, tail: Position) -> Outcome<u64> {
    let said = |error: ReaderError| error.to_string();
    let mut blocks = journal.blocks(journal.start());
    let mut count = 0;
    while blocks.position() < tail
        && let Some(block) = blocks.next_block()
    {
        for record in records(block.map_err(said)?.body) {
            let (_, record) = record.map_err(|error| error.to_string())?;
            if !record.is_data() {
                continue;
            }
            count += 1;
            let is_right = record.seq().get() == count
                && record.publisher_seq().get() == count
                && record.payload() == payload(count, record.payload().len());
            if !is_right {
                return Err(format!("message {count} is another one"));
            }
        }
    }
    Ok(count)
}

/// A process's ring lets go of its files a little after the process has ended.
fn unmount(mount: &str) -> Outcome<()> {
    let begun = Instant::now();
    loop {
        match run_program("umount", &[mount]) {
            Err(_) if begun.elapsed() < UNMOUNT_LIMIT => thread::sleep(Duration::from_millis(50)),
            done => return done,
        }
    }
}

fn sectors(disk: &Path) -> Outcome<u64> {
    use std::io::Seek;
    let mut file = File::open(disk).map_err(|error| error.to_string())?;
    let end = file.seek(std::io::SeekFrom::End(0));
    end.map(|bytes| bytes / 512)
        .map_err(|error| error.to_string())
}
