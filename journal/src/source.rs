//! The segment files of a directory as a [`LogSource`]: plain blocking reads, for tools and for
//! tests.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use relay_wire::id::Position;
use rustix::fs::Advice;

use crate::scan::{LogSource, SourceError};
use crate::segment::{self, Geometry};

/// A segment file that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its index.
    pub index: u64,
    /// Its length, bytes; [`Geometry::segment_size`] when it is whole.
    pub length: u64,
}

/// Lists the segment files of a journal's directory, by index. Other files there are passed over.
///
/// # Errors
/// What the system says.
pub fn list_segments(journal: &Path) -> io::Result<Vec<SegmentFile>> {
    let indices = segment_indices(journal)?.into_iter();
    let segments = indices.map(|index| {
        let length = segment_length(journal, index)?;
        Ok(SegmentFile { index, length })
    });
    segments.collect()
}

/// The indices of the segment files, in order. No file is looked at, which after a cold start costs a read for each few.
///
/// # Errors
/// What the system says.
pub fn segment_indices(journal: &Path) -> io::Result<Vec<u64>> {
    let mut indices = Vec::new();
    for entry in std::fs::read_dir(journal.join(segment::DIRECTORY))? {
        let name = entry?.file_name();
        indices.extend(name.to_str().and_then(segment::parse_name));
    }
    indices.sort_unstable();
    Ok(indices)
}

/// The length of a segment file, bytes.
///
/// # Errors
/// What the system says.
pub fn segment_length(journal: &Path, index: u64) -> io::Result<u64> {
    let path = journal.join(segment::DIRECTORY).join(segment::name(index));
    Ok(std::fs::metadata(path)?.len())
}

/// Reads the log of one journal directory. It keeps one file open.
#[derive(Debug)]
pub struct DirSource {
    directory: PathBuf,
    geometry: Geometry,
    /// Index of the last segment that is known to be there: up to it none may be missing.
    last: Option<u64>,
    open: Option<(u64, File)>,
    /// Nothing of a file that is opened is to come from the page cache.
    is_forgetful: bool,
}

impl DirSource {
    /// The log in the journal directory `journal`, as far as the segments go.
    ///
    /// # Errors
    /// What the system says when the segments can't be listed.
    pub fn new(journal: &Path, geometry: Geometry) -> io::Result<Self> {
        let last = segment_indices(journal)?.last().copied();
        Ok(Self::with_last(journal, geometry, last))
    }

    /// The same for who has listed the segments: `last` is the index of the last one, of which there may be more by now.
    #[must_use]
    pub fn with_last(journal: &Path, geometry: Geometry, last: Option<u64>) -> Self {
        Self {
            directory: journal.join(segment::DIRECTORY),
            geometry,
            last,
            open: None,
            is_forgetful: false,
        }
    }

    /// Whether a segment is one that may not be there, or not be whole yet.
    fn is_beyond(&self, index: u64) -> bool {
        self.last.is_none_or(|last| index > last)
    }

    fn file(&mut self, index: u64) -> io::Result<&File> {
        let is_open = self.open.as_ref().is_some_and(|(open, _)| *open == index);
        if !is_open {
            let path = self.directory.join(segment::name(index));
            let file = File::open(path)?;
            if self.is_forgetful {
                // What was written and is not on the device yet stays in the cache.
                rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
            }
            self.open = Some((index, file));
        }
        let (_, file) = self.open.as_ref().expect("it was opened just now");
        Ok(file)
    }

    /// Reads within one segment; fewer bytes than asked for where the file ends, none where there is no such segment yet.
    fn read_in(&mut self, index: u64, mut offset: u64, part: &mut [u8]) -> io::Result<usize> {
        let is_beyond = self.is_beyond(index);
        let file = match self.file(index) {
            Err(error) if error.kind() == ErrorKind::NotFound && is_beyond => return Ok(0),
            opened => opened?,
        };
        let mut filled = 0;
        while filled < part.len() {
            match file.read_at(&mut part[filled..], offset) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    offset += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl LogSource for DirSource {
    fn forget(&mut self) {
        self.open = None;
        self.is_forgetful = true;
    }

    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = position.plus(filled as u64);
            let index = self.geometry.segment_of(at);
            let left = self.geometry.left_in_segment(at);
            let room = (buffer.len() - filled).min(usize::try_from(left).unwrap_or(usize::MAX));
            let offset = self.geometry.offset_of(at);
            let part = &mut buffer[filled..filled + room];
            let failed = |cause: String| SourceError {
                position: at,
                cause: format!("segment {}: {cause}", segment::name(index)),
            };
            let read = match self.read_in(index, offset, part) {
                Ok(count) if count < room && self.last != Some(index) && !self.is_beyond(index) => {
                    Err(failed("the file is shorter than a segment".to_owned()))
                }
                read => read.map_err(|error| failed(error.to_string())),
            };
            let count = match read {
                Ok(count) => count,
                // No block goes on into the next segment: what was read before it stands by itself, and the error is told to who asks
                // for more.
                Err(_) if filled > 0 && offset == 0 => break,
                Err(error) => return Err(error),
            };
            filled += count;
            if count < room {
                break;
            }
        }
        Ok(filled)
    }
}
