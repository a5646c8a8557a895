//! `relay inspect DIR/set-aside-...`: a tail that one node had and the group went on without, shown to whoever audits.
//!
//! It was never released there, so nothing of it was acknowledged or delivered by that node; a publisher whose message
//! lies here sent it again, and then the group's log holds it too. What is no intact block is named by position; that is
//! no damage, since a node may die in the middle of writes that nobody counted on.

use std::path::Path;

use relay_journal::block;
use relay_journal::reader::set_aside::{Part, SetAside};
use relay_journal::reader::{Found, ReaderError};
use relay_journal::set_aside::parse_name;
use relay_journal::topics::Topics;
use serde::Serialize;

use super::{InspectOptions, print_fields};
use crate::exit::{Failure, Interrupt};
use crate::output::{Lines, json_line};
use crate::verify::failed;

#[derive(Serialize)]
struct Summary<'a> {
    path: &'a Path,
    /// The epoch the group went on in without it.
    joined_epoch: u64,
    start: u64,
    bytes: u64,
    blocks: u64,
    messages: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    broken_bytes: u64,
}

#[derive(Serialize)]
struct BrokenLine {
    position: u64,
    broken_bytes: u64,
}

/// Whether the path names a set-aside file.
pub(super) fn is_one(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    path.is_file() && name.and_then(parse_name).is_some()
}

/// Runs the command on such a file.
pub(super) fn run(options: &InspectOptions) -> Result<(), Failure> {
    if options.segments {
        return Err(Failure::Usage(
            "a set-aside file has no segments and continues nothing; use --blocks, --records or neither".into(),
        ));
    }
    let path = &options.path;
    let mut aside = SetAside::open(path).map_err(|error| unreadable(path, error))?;
    let interrupt = Interrupt::install()?;
    if options.blocks || options.records {
        options.print_parts(&mut aside, &interrupt)
    } else {
        options.print_aside(&mut aside, &interrupt)
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> Failure {
    let path = path.to_owned();
    Failure::Failed(ReaderError::Io { path, source }.to_string())
}

impl InspectOptions {
    fn print_aside(&self, aside: &mut SetAside, interrupt: &Interrupt) -> Result<(), Failure> {
        let path = &self.path;
        let mut summary = Summary {
            path,
            joined_epoch: aside.epoch().get(),
            start: aside.start().get(),
            bytes: aside.length(),
            blocks: 0,
            messages: 0,
            first_seq: None,
            last_seq: None,
            broken_bytes: 0,
        };
        while let Some(part) = aside.next_part().map_err(|error| unreadable(path, error))? {
            match part {
                Part::Broken { length, .. } => summary.broken_bytes += length,
                Part::Block(found) => {
                    let header = found.header;
                    summary.blocks += 1;
                    summary.messages += u64::from(header.data_count);
                    if header.data_count > 0 {
                        summary.first_seq.get_or_insert(header.first_seq.get());
                        summary.last_seq = Some(header.next_seq().get() - 1);
                    }
                }
            }
            interrupt.check()?;
        }
        if self.json {
            json_line(&summary)
        } else {
            print_fields(&summary)
        }
    }

    fn print_parts(&self, aside: &mut SetAside, interrupt: &Interrupt) -> Result<(), Failure> {
        let path = &self.path;
        // Ids of topics may mean something else here than in the group's log, so none is named.
        let topics = Topics::default();
        let mut lines = Lines::new();
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(part) = aside.next_part().map_err(|error| unreadable(path, error))?
        {
            interrupt.check()?;
            match part {
                Part::Broken { position, length } => {
                    self.print_broken(&mut lines, position.get(), length)?;
                }
                Part::Block(found)
                    if found.header.next_seq().get() <= self.from_seq.unwrap_or(0) => {}
                Part::Block(found) if self.blocks => {
                    self.print_block(&mut lines, &found.header)?;
                    left -= 1;
                }
                Part::Block(found) => {
                    for record in
                        block::records(found.body).take(left.min(u64::from(u32::MAX)) as usize)
                    {
                        let (offset, record) = record.map_err(|error| {
                            let position = found.header.position;
                            failed(
                                path,
                                ReaderError::Record {
                                    position,
                                    offset: 0,
                                    error,
                                },
                            )
                        })?;
                        let found = Found {
                            block: found.header,
                            offset,
                            record,
                        };
                        self.print_record(&mut lines, &found, &topics)?;
                        left -= 1;
                    }
                }
            }
        }
        lines.finish()
    }

    fn print_broken(&self, lines: &mut Lines, position: u64, length: u64) -> Result<(), Failure> {
        if self.json {
            return lines.json(&BrokenLine {
                position,
                broken_bytes: length,
            });
        }
        lines.text(&format!(
            "{position:>14}  {length} bytes that are no intact block"
        ))
    }
}
