//! Messages that were recorded, from a journal's directory or from a live group: selected, checked, read ahead.
//!
//! ```text
//! directory.rs  \
//!                >-- a thread of its own: select, copy into batches --> bounded queue --> whoever uses them
//! live.rs       /
//! ```
//!
//! A directory is read only up to what is provably released, and a live group sends nothing else, so nothing that isn't
//! released ever comes out here. Memory is bounded: so many batches wait, and with them the thread.
//!
//! The range is that of the moment of opening; what is released later does not belong to it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use relay_client::Seq;

use crate::connect::ConnectOptions;
use crate::exit::Failure;

mod batch;
mod directory;
mod live;
mod selection;

pub(crate) use batch::Batch;
pub(crate) use selection::{Selection, SelectionOptions};

/// Batches that wait to be used.
const BATCHES_AHEAD: usize = 8;

/// Where the messages are, on the command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceOptions {
    /// The stream's directory, which holds `superblock`; without it the running relay that the connection options name
    #[arg(value_name = "DIR", help_heading = "Arguments")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectOptions,
}

/// The seqs a source offers: `first` up to but without `next`; both the same where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// About the first that is wanted.
    pub(crate) first: Seq,
    /// About the one after the last that is wanted.
    pub(crate) next: Seq,
}

/// What the reading thread says.
enum Word {
    Opened(Span),
    Batch(Batch),
    Failed(Failure),
}

/// What happened within the time given to [`Recorded::next_within`].
pub(crate) enum Next {
    /// Messages.
    Batch(Batch),
    /// Nothing yet.
    NotYet,
    /// All was handed over.
    End,
}

/// The messages; see the module.
pub(crate) struct Recorded {
    words: Receiver<Word>,
    spent: Sender<Batch>,
    span: Span,
}

/// The thread's end of it.
struct Feed {
    words: SyncSender<Word>,
    spent: Receiver<Batch>,
    batch: Batch,
}

/// What the thread does.
type Reading = Box<dyn FnOnce(&mut Feed) -> Result<(), Stop> + Send>;

/// Whoever used the messages wants no more.
struct Unwanted;

/// Why the thread ends early.
enum Stop {
    Unwanted,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Unwanted> for Stop {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

impl SourceOptions {
    /// A journal's directory.
    pub(crate) fn of(directory: &Path) -> Self {
        Self {
            directory: Some(directory.to_owned()),
            connect: ConnectOptions::default(),
        }
    }

    /// Opens the source and begins to read.
    pub(crate) fn open(&self, selection: Selection) -> Result<Recorded, Failure> {
        let (send_word, words) = sync_channel(BATCHES_AHEAD);
        let (spent, take_back) = channel();
        let feed = Feed {
            words: send_word,
            spent: take_back,
            batch: Batch::default(),
        };
        let read: Reading = match &self.directory {
            Some(path) => {
                let path = path.clone();
                Box::new(move |feed| directory::read(&path, &selection, feed))
            }
            None => {
                let connection = self.connect.resolve().map_err(|failure| match failure {
                    Failure::Usage(text) => {
                        Failure::Usage(format!("{text}; or name a stream's directory to read"))
                    }
                    other => other,
                })?;
                Box::new(move |feed| live::read(&connection, &selection, feed))
            }
        };
        thread::Builder::new()
            .name("relay-recorded".into())
            .spawn(move || feed.run(read))
            .map_err(|error| Failure::Failed(format!("starting a thread: {error}")))?;
        match words.recv() {
            Ok(Word::Opened(span)) => Ok(Recorded { words, spent, span }),
            Ok(Word::Failed(failure)) => Err(failure),
            Ok(Word::Batch(_)) | Err(_) => unreachable!("opening comes first"),
        }
    }

    /// Seconds without a connection after which to give up; 0 tries for ever.
    pub(crate) const fn give_up_after(&self) -> f64 {
        self.connect.give_up_after
    }
}

impl Recorded {
    /// What is to be expected.
    pub(crate) const fn span(&self) -> Span {
        self.span
    }

    /// What comes next; waits for it, at most for `timeout`.
    pub(crate) fn next_within(&self, timeout: Duration) -> Result<Next, Failure> {
        match self.words.recv_timeout(timeout) {
            Ok(Word::Batch(batch)) => Ok(Next::Batch(batch)),
            Ok(Word::Failed(failure)) => Err(failure),
            Ok(Word::Opened(_)) => unreachable!("a source is opened once"),
            Err(RecvTimeoutError::Timeout) => Ok(Next::NotYet),
            Err(RecvTimeoutError::Disconnected) => Ok(Next::End),
        }
    }

    /// Gives the memory of a batch back.
    pub(crate) fn give_back(&self, batch: Batch) {
        // The thread may be done and gone.
        let _ = self.spent.send(batch);
    }
}

impl Feed {
    fn run(mut self, read: Reading) {
        let result = read(&mut self);
        let flushed = self.flush();
        if let (Ok(()), Err(Stop::Failed(failure))) = (flushed, result) {
            // Nobody may be there any more to hear of it.
            let _ = self.words.send(Word::Failed(failure));
        }
    }

    fn opened(&mut self, span: Span) -> Result<(), Unwanted> {
        self.words.send(Word::Opened(span)).map_err(|_| Unwanted)
    }

    /// Hands on what is there.
    fn flush(&mut self) -> Result<(), Unwanted> {
        if self.batch.is_fresh() {
            return Ok(());
        }
        let mut next = self.spent.try_recv().unwrap_or_default();
        next.clear();
        let batch = std::mem::replace(&mut self.batch, next);
        self.words.send(Word::Batch(batch)).map_err(|_| Unwanted)
    }

    fn flush_if_full(&mut self) -> Result<(), Unwanted> {
        if self.batch.is_full() {
            return self.flush();
        }
        Ok(())
    }
}

/// The failure that a range is which a source does not have.
fn outside(what: &str, first: Seq, next: Seq) -> Failure {
    if next <= first {
        return Failure::Failed(format!("{what} is asked for, but nothing is released yet"));
    }
    Failure::Failed(format!(
        "{what} is outside of what is there, which is seq {first} to {}; give --from and --to within \
         it, or start and end",
        next.get() - 1
    ))
}

/// Refuses seqs that a source does not have; from `first` up to but without `next` it has them.
fn check_range(selection: &Selection, first: Seq, next: Seq) -> Result<(), Failure> {
    for (name, bound) in [("--from", selection.from), ("--to", selection.to)] {
        if let selection::Bound::Seq(seq) = bound
            && !(first.get()..next.get()).contains(&seq)
        {
            return Err(outside(&format!("seq {seq} ({name})"), first, next));
        }
    }
    Ok(())
}
