//! A set-aside file, block by block, for whoever audits.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use relay_wire::id::{Epoch, Position};

use super::Block;
use crate::block::{BLOCK_ALIGNMENT_MIN, BlockHeader, HEADER_LENGTH, decode_header, verify_body};
use crate::set_aside::parse_name;

/// What lies next in a set-aside file.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// An intact block.
    Block(Block<'a>),
    /// Bytes that are none: a write that was under way when the node died, or damage.
    Broken {
        /// Where they begin in the log.
        position: Position,
        /// How many they are.
        length: u64,
    },
}

/// Reads a set-aside file, one block at a time. Whatever it holds, there is an end, and memory for one block.
#[derive(Debug)]
pub struct SetAside {
    file: File,
    epoch: Epoch,
    start: Position,
    length: u64,
    offset: u64,
    buffer: Vec<u8>,
}

impl SetAside {
    /// Opens the file, whose name says what it is.
    ///
    /// # Errors
    /// `InvalidInput` when the name is not one of a set-aside file; otherwise what the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str());
        let (epoch, start) = name.and_then(parse_name).ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidInput, "not a set-aside file's name")
        })?;
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            epoch,
            start,
            length,
            offset: 0,
            buffer: Vec::new(),
        })
    }

    /// The epoch in which the group went on without it.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where it begins in the log.
    #[must_use]
    pub const fn start(&self) -> Position {
        self.start
    }

    /// Bytes of the log it holds.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The next part; nothing at the end.
    ///
    /// # Errors
    /// What the system says to reading.
    pub fn next_part(&mut self) -> io::Result<Option<Part<'_>>> {
        if self.offset >= self.length {
            return Ok(None);
        }
        let begin = self.offset;
        while self.offset < self.length {
            if let Some(header) = self.block_here()? {
                if self.offset > begin {
                    break;
                }
                self.offset += u64::from(header.span);
                let body = &self.buffer[HEADER_LENGTH..header.body_end()];
                return Ok(Some(Part::Block(Block { header, body })));
            }
            self.offset += u64::from(BLOCK_ALIGNMENT_MIN);
        }
        let end = self.offset.min(self.length);
        Ok(Some(Part::Broken {
            position: self.start.plus(begin),
            length: end - begin,
        }))
    }

    /// The intact block at the present offset, if there is one; its bytes are in the buffer then.
    fn block_here(&mut self) -> io::Result<Option<BlockHeader>> {
        self.fill(HEADER_LENGTH)?;
        let Ok(header) = decode_header(&self.buffer) else {
            return Ok(None);
        };
        let is_at_home = self.start.plus(self.offset) == header.position;
        if !is_at_home {
            return Ok(None);
        }
        self.fill(header.body_end())?;
        let is_intact = self
            .buffer
            .get(HEADER_LENGTH..header.body_end())
            .is_some_and(|body| verify_body(&header, body).is_ok());
        Ok(is_intact.then_some(header))
    }

    /// Reads `length` bytes from the present offset, fewer at the end.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        let length = (self.length - self.offset).min(length as u64) as usize;
        self.buffer.resize(length, 0);
        self.file.read_exact_at(&mut self.buffer, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use relay_wire::id::{Seq, StreamId};

    use super::*;
    use crate::block::{BlockKind, seal};
    use crate::set_aside::name;

    fn mark(number: u64, position: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        let header = BlockHeader {
            kind: BlockKind::Mark,
            stream: StreamId(1),
            epoch: Epoch(1),
            number,
            position: Position(position),
            first_seq: Seq(1),
            record_count: 0,
            data_count: 0,
            body_length: 0,
            span: 512,
            sealed_time_ns: 1,
            released: Position(0),
            previous_checksum: 0,
            body_checksum: 0,
            checksum: 0,
        };
        seal(&mut bytes, &header);
        bytes
    }

    fn parts(bytes: &[u8]) -> Vec<(u64, u64, bool)> {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join(name(Epoch(2), Position(4096)));
        std::fs::write(&path, bytes).expect("it is written");
        let mut aside = SetAside::open(&path).expect("it opens");
        assert_eq!((aside.epoch(), aside.start()), (Epoch(2), Position(4096)));
        let mut found = Vec::new();
        while let Some(part) = aside.next_part().expect("it is read") {
            found.push(match part {
                Part::Block(block) => (block.header.position.get(), 512, true),
                Part::Broken { position, length } => (position.get(), length, false),
            });
        }
        found
    }

    #[test]
    fn blocks_are_found_behind_what_is_broken() {
        let mut bytes = mark(1, 4096);
        bytes.extend([0xa5; 1024]);
        bytes.extend(mark(4, 4096 + 1536));
        bytes.extend([0; 100]);
        let expected = [
            (4096, 512, true),
            (4608, 1024, false),
            (5632, 512, true),
            (6144, 100, false),
        ];
        assert_eq!(parts(&bytes), expected);
    }

    #[test]
    fn a_block_of_another_place_is_none() {
        assert_eq!(parts(&mark(1, 8192)), [(4096, 512, false)]);
        assert_eq!(parts(&[]), []);
    }

    #[test]
    fn another_file_is_refused() {
        let error = SetAside::open(Path::new("/tmp/superblock")).expect_err("it is none");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
