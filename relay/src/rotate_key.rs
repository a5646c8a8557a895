//! `relayd rotate-key`: another key signs the seals of a stream from here on, and the old one vouches for it.
//!
//! The new key is put beside the old one. Where the stream runs, its housekeeping takes it from there; where it does not, this
//! command does the same itself. Either way the seals first name the new key, signed by the old, and only then the old one is
//! gone: whoever trusts the first public key can follow.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use relay_journal::reader::JournalDir;

use crate::clock::Clock;
use crate::config::{self, Config, StreamConfig};
use crate::seal_file::{LogFacts, SealFile};
use crate::seal_key;
use crate::startup::StartError;
use crate::storage::{Storage, StorageError};

/// A running stream looks for a new key every second, and has so long to take it.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);

/// Options of `relayd rotate-key`.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateKeyArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The stream's number, where the configuration has several
    #[arg(long, value_name = "ID")]
    stream: Option<u32>,
}

/// Makes a new key and sees that it takes the old one's place; what to tell the operator.
pub(crate) fn rotate_key(arguments: &RotateKeyArguments) -> Result<String, StartError> {
    let config = Config::parse(&arguments.config, &config::read(&arguments.config)?)?;
    let stream = the_stream(&config, arguments.stream)?;
    if !stream.evidence.seals {
        return Err("seals are switched off in the configuration (evidence.seals)".into());
    }
    let file = stream.seal_key_file();
    let next_file = seal_key::next_path(&file);
    let Some(before) = seal_key::load(&file)? else {
        return Err(format!(
            "{}: there is no key to replace; the first `relayd run` or `relayd format` makes it",
            file.display()
        )
        .into());
    };
    // One that an earlier attempt left there, or an operator put there, is as good as another.
    let next = match seal_key::load(&next_file)? {
        Some(next) => next,
        None => seal_key::make(&next_file)?,
    };
    hand_over(stream, &next_file)?;
    Ok(format!(
        "{}: seals are signed with key {} from here on; {} vouches for it",
        stream.directory.display(),
        next.public(),
        before.public()
    ))
}

fn the_stream(config: &Config, id: Option<u32>) -> Result<&StreamConfig, StartError> {
    let mut streams = config.streams.iter();
    let wanted = match id {
        None if config.streams.len() > 1 => {
            return Err("the configuration has several streams: name one with --stream".into());
        }
        None => streams.next(),
        Some(id) => streams.find(|stream| stream.settings.stream.get() == id),
    };
    wanted.ok_or_else(|| "the configuration has no such stream".into())
}

/// Nobody runs the stream, and this process has its lock.
fn by_itself(stream: &StreamConfig, storage: &Storage) -> Result<(), StartError> {
    let journal = JournalDir::open(&stream.directory)?;
    // Where the log ends is for the next start to find out: only a running stream takes seals back.
    let log = LogFacts {
        stream: storage.superblock().stream,
        geometry: storage.superblock().geometry(),
        tail: relay_wire::id::Position(u64::MAX),
        epoch: journal.newest_tables()?.epoch,
    };
    let time_ns = Clock::new().now().utc_ns;
    let mut seals = SealFile::open(&stream.directory, &stream.seal_key_file(), &log, time_ns)?;
    seals.rotate(time_ns)?;
    Ok(())
}

/// A stream that runs takes the key; of one that does not, or ends meanwhile, it is done here.
fn hand_over(stream: &StreamConfig, next_file: &std::path::Path) -> Result<(), StartError> {
    let begun = Instant::now();
    loop {
        match Storage::open(&stream.directory) {
            Ok(storage) if next_file.exists() => return by_itself(stream, &storage),
            Err(StorageError::Locked(_)) if next_file.exists() => {}
            Ok(_) | Err(StorageError::Locked(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!(
                "the running relayd has not taken the new key {} yet; see its log. It takes it once what it says there is \
                 mended, or at its next start",
                next_file.display()
            )
            .into());
        }
        std::thread::sleep(PAUSE);
    }
}
