//! Blocks on their way from the thread that reads them and checks each by itself to the one that holds them to the rules.
//!
//! ```text
//! thread: read, checksums of header and body, padding, chain --blocks--> rules and records' checksums --> findings
//!                                                           <--spent---
//! ```
//!
//! What a block shows by itself does not wait for what all those before it add up to, so two processors have a part each.
//! The order is the log's: what lies before a fault is handed on before it. Memory: [`WAITING`] pieces, one that is being
//! filled and one that is being used. What is wrong is not judged here.

use std::sync::mpsc::{Receiver, SyncSender};

use relay_journal::block::BlockHeader;
use relay_journal::reader::{BlockReader, ReaderError};

/// Pieces that may wait for whoever checks rules.
pub(super) const WAITING: usize = 2;
/// Bytes of bodies from which on a piece is handed on: large enough that waking the other thread costs nothing beside it,
/// small enough to be still in the processor's cache there. The last block may take it 4 MiB beyond.
const PIECE_LENGTH: usize = 1 << 20;

/// Blocks that are right in themselves, and their bodies one behind the other.
#[derive(Default)]
pub(super) struct Blocks {
    /// Each with the offset of its body.
    headers: Vec<(BlockHeader, usize)>,
    bytes: Vec<u8>,
}

impl Blocks {
    /// A piece without blocks: one that was used, if there is one, for its memory.
    pub(super) fn reused(empty: &Receiver<Self>) -> Self {
        let mut blocks = empty.try_recv().unwrap_or_default();
        blocks.headers.clear();
        blocks.bytes.clear();
        blocks
    }

    /// Takes in the next block.
    pub(super) fn push(&mut self, header: &BlockHeader, body: &[u8]) {
        self.headers.push((*header, self.bytes.len()));
        self.bytes.extend_from_slice(body);
    }

    /// The blocks, in the order of the log.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&BlockHeader, &[u8])> {
        let blocks = self.headers.iter();
        blocks.map(|(header, offset)| {
            (
                header,
                &self.bytes[*offset..][..header.body_length as usize],
            )
        })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    const fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE_LENGTH
    }
}

/// Reads and checks blocks to the end or to a fault, which is the last it hands on.
pub(super) fn check_blocks(
    mut reader: BlockReader,
    out: &SyncSender<Result<Blocks, ReaderError>>,
    empty: &Receiver<Blocks>,
) {
    loop {
        let mut blocks = Blocks::reused(empty);
        let end = loop {
            match reader.next_block() {
                Some(Ok(block)) => blocks.push(&block.header, block.body),
                Some(Err(error)) => break Some(Err(error)),
                None => break Some(Ok(())),
            }
            if blocks.is_full() {
                break None;
            }
        };
        if !blocks.is_empty() && out.send(Ok(blocks)).is_err() {
            return;
        }
        match end {
            None => {}
            Some(Ok(())) => return,
            Some(Err(error)) => {
                // Whoever takes them may have given up.
                let _ = out.send(Err(error));
                return;
            }
        }
    }
}
