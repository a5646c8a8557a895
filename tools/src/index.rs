//! `relay index`: makes what is missing of a journal's side index.
//!
//! A running relay does this by itself, behind the flow; this is for journals that were written before there were indexes,
//! copied without them, or whose index is damaged. It writes into the directory `index` of the journal and nowhere else; a
//! relay may run meanwhile, since both make the same bytes and put them in place whole.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use relay_journal::reader::point::PointReader;
use relay_journal::reader::{JournalDir, ReaderError};
use relay_journal::segment;
use relay_journal::side_index::{self, Builder};
use relay_journal::tables::TradingSession;
use serde::Serialize;

use crate::exit::{Failure, Interrupt};
use crate::output::{json_line, line, progress, thousands};
use crate::verify::{failed, known_released, open};

const EXAMPLES: &str = "\
Examples:
  relay index /var/lib/relay/orders
  relay index /var/lib/relay/orders --rebuild --json";

/// Options of `relay index`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct IndexOptions {
    /// The stream's directory, which holds `superblock` and `segments`
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// Make every index anew, also where it is intact
    #[arg(long)]
    rebuild: bool,
    /// Print the result as a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Segments that are full and released, and so have an index.
    finished_segments: u64,
    made: u64,
    intact: u64,
    /// Bytes of the index files made.
    bytes: u64,
    /// Messages in them.
    messages: u64,
    /// Bytes of log in them.
    log_bytes: u64,
    /// Segments that can't be indexed, since they are damaged.
    damaged: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(options: &IndexOptions) -> Result<(), Failure> {
    let path = &options.path;
    let interrupt = Interrupt::install()?;
    let journal = open(path)?;
    let released = known_released(&journal)?;
    let directory = path.join(side_index::DIRECTORY);
    let mut work = Work {
        journal: &journal,
        points: PointReader::new(&journal),
        directory: &directory,
        summary: Summary::default(),
        session: Some(None),
        next: 0,
    };
    fs::create_dir_all(&directory)
        .map_err(|error| Failure::file("making the directory", &directory, &error))?;
    let geometry = journal.superblock().geometry();
    let finished: Vec<u64> = journal
        .segments()
        .iter()
        .copied()
        .filter(|&index| geometry.start_of(index + 1) <= released)
        .collect();
    let bar = progress(finished.len() as u64, "indexing");
    for segment in finished {
        interrupt.check()?;
        work.take(segment, options.rebuild)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let summary = work.summary;
    if options.json {
        json_line(&summary)?;
    } else {
        line(&format!(
            "{} finished segments: {} indexed now, {} were; {} bytes of index for {} messages in {} bytes of log",
            thousands(summary.finished_segments),
            thousands(summary.made),
            thousands(summary.intact),
            thousands(summary.bytes),
            thousands(summary.messages),
            thousands(summary.log_bytes)
        ))?;
    }
    match summary.damaged.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Damaged(format!(
            "{}: {} segments can't be indexed, the first is {first}; `relay verify` says what is wrong",
            path.display(),
            summary.damaged.len()
        ))),
    }
}

struct Work<'a> {
    journal: &'a JournalDir,
    points: PointReader,
    directory: &'a Path,
    summary: Summary,
    /// The trading session open where the next segment begins, if one is; nothing where that can't be told.
    session: Option<Option<TradingSession>>,
    /// The segment that is due.
    next: u64,
}

impl Work<'_> {
    fn take(&mut self, segment: u64, is_anew: bool) -> Result<(), Failure> {
        self.summary.finished_segments += 1;
        if segment != self.next {
            self.session = None;
        }
        self.next = segment + 1;
        if !is_anew && let Some(session) = self.session_of_intact(segment) {
            self.summary.intact += 1;
            self.session = Some(session);
            return Ok(());
        }
        let made = self.summary.made;
        self.session = self.build(segment)?;
        if self.summary.made == made {
            self.summary.damaged.push(segment::name(segment));
        }
        Ok(())
    }

    /// The session at the end of a segment whose index is whole.
    fn session_of_intact(&mut self, segment: u64) -> Option<Option<TradingSession>> {
        let mut index = self.journal.side_index(segment).ok()?;
        index.check_log(&mut self.points).ok()?.ok()?;
        index.check_all().ok()?;
        index.session_at_end().ok()
    }

    /// Makes the index of a segment; the session at its end, or nothing where the segment is damaged. Behind a break in the log nobody can
    /// tell in which session a segment begins, and none is made; one that opens in it is that at its end.
    fn build(&mut self, segment: u64) -> Result<Option<Option<TradingSession>>, Failure> {
        let path = self.journal.path();
        let superblock = self.journal.superblock();
        let geometry = superblock.geometry();
        let (start, end) = (geometry.start_of(segment), geometry.start_of(segment + 1));
        let written =
            |error: &io::Error| Failure::file("writing the index in", self.directory, error);
        let mut fresh = tempfile::Builder::new()
            .prefix("new-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(self.directory)
            .map_err(|error| written(&error))?;
        let session = self.session.as_ref().and_then(Option::as_ref);
        let mut builder = Builder::new(superblock.stream, geometry, segment, session);
        let mut blocks = self.journal.blocks(start).up_to(end);
        let mut messages = 0;
        while let Some(next) = blocks.next_block() {
            let block = match next {
                Ok(block) => block,
                Err(ReaderError::Damage(_) | ReaderError::Source(_)) => return Ok(None),
                Err(error) => return Err(failed(path, error)),
            };
            if builder.add_block(&block.header, block.body).is_err() {
                return Ok(None);
            }
            messages += u64::from(block.header.data_count);
            append(&mut builder, fresh.as_file_mut()).map_err(|error| written(&error))?;
        }
        let Some(head) = builder.head() else {
            return Ok(None);
        };
        if self.session.is_none() {
            return Ok(builder.session_at_end().map(Some));
        }
        let file = fresh.as_file_mut();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&head))
            .and_then(|()| file.sync_all())
            .map_err(|error| written(&error))?;
        self.summary.bytes += file.metadata().map_err(|error| written(&error))?.len();
        let place = self.directory.join(side_index::name(segment));
        fresh
            .persist(place)
            .map_err(|error| written(&error.error))?;
        File::open(self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| written(&error))?;
        self.summary.made += 1;
        self.summary.messages += messages;
        self.summary.log_bytes += end.since(start);
        Ok(Some(builder.session_at_end()))
    }
}

/// Writes the pages that are finished.
fn append(builder: &mut Builder, file: &mut File) -> io::Result<()> {
    if let Some((offset, pages)) = builder.take_pages() {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&pages)?;
    }
    Ok(())
}
