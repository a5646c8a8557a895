//! A log as shared pages, so that thousands of states that differ in a block share all the others.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use relay_journal::block::{self, BlockHeader, HEADER_LENGTH};
use relay_journal::scan::{LogSource, SourceError};
use relay_wire::id::Position;

use crate::bounds::{MEMORY, PAGE};
use crate::digest::digest_of;

/// One aligned unit of a log.
#[derive(Debug)]
struct Bytes {
    digest: u64,
    bytes: [u8; PAGE],
}

/// A page, or none where everything is zero.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page(Option<Arc<Bytes>>);

impl Page {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if block::is_zero(bytes) {
            return Self(None);
        }
        let bytes: [u8; PAGE] = bytes.try_into().expect("a page has its length");
        let digest = digest_of(&bytes);
        Self(Some(Arc::new(Bytes { digest, bytes })))
    }

    pub(crate) const fn is_zero(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn bytes(&self) -> &[u8; PAGE] {
        self.0.as_ref().map_or(&[0; PAGE], |page| &page.bytes)
    }

    pub(crate) fn digest(&self) -> u64 {
        self.0.as_ref().map_or(0, |page| page.digest)
    }
}

impl PartialEq for Page {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for Page {}

impl Hash for Page {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest());
    }
}

/// A log, or a disk, from position 0 on; zero behind its last page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Log(Vec<Page>);

impl Log {
    pub(crate) fn pages(&self) -> &[Page] {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn end(&self) -> Position {
        Position((self.0.len() * PAGE) as u64)
    }

    /// Puts pages at a position, which is that of a page.
    pub(crate) fn put(&mut self, position: Position, pages: &[Page]) {
        let first = page_of(position);
        if self.0.len() < first + pages.len() {
            self.0.resize(first + pages.len(), Page::default());
        }
        self.0[first..first + pages.len()].clone_from_slice(pages);
        self.trim();
    }

    /// Makes everything from this page on zero.
    pub(crate) fn cut(&mut self, pages: usize) {
        self.0.truncate(pages);
        self.trim();
    }

    /// Drops the pages from this one on.
    pub(crate) fn keep(&mut self, pages: usize) {
        self.0.truncate(pages);
    }

    fn trim(&mut self) {
        while self.0.last().is_some_and(Page::is_zero) {
            self.0.pop();
        }
    }

    pub(crate) fn push(&mut self, page: Page) {
        self.0.push(page);
    }

    /// The log up to a position.
    pub(crate) fn front(&self, end: Position) -> &[Page] {
        &self.0[..page_of(end).min(self.0.len())]
    }

    /// Whether it holds everything of `other`.
    pub(crate) fn starts_with(&self, other: &[Page]) -> bool {
        let held = self.0.iter().map(Page::digest).chain(std::iter::repeat(0));
        other
            .iter()
            .map(Page::digest)
            .zip(held)
            .all(|(a, b)| a == b)
    }

    /// The blocks of a log that is nothing but blocks, from a page on: header and body.
    pub(crate) fn blocks(pages: &[Page]) -> Vec<(BlockHeader, Vec<u8>)> {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| *page.bytes()).collect();
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let Ok(header) = block::decode_header(&bytes[at..]) else {
                break;
            };
            let body = bytes.get(at + HEADER_LENGTH..at + header.body_end());
            blocks.push((header, body.unwrap_or_default().to_vec()));
            at += header.span as usize;
        }
        blocks
    }
}

impl LogSource for &Log {
    fn read_at(&mut self, position: Position, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let first = page_of(position);
        let left = (MEMORY / PAGE).saturating_sub(first);
        let count = left.min(buffer.len() / PAGE);
        for (at, place) in buffer.chunks_exact_mut(PAGE).take(count).enumerate() {
            match self.0.get(first + at) {
                Some(page) => place.copy_from_slice(page.bytes()),
                None => place.fill(0),
            }
        }
        Ok(count * PAGE)
    }
}

/// Which page a position is the start of.
pub(crate) fn page_of(position: Position) -> usize {
    let at = position.get() as usize;
    debug_assert!(at.is_multiple_of(PAGE), "blocks are aligned");
    at / PAGE
}

thread_local! {
    static MEMORY_RING: RefCell<Vec<u8>> = RefCell::new(vec![0; MEMORY]);
}

/// Wipes the memory after a step that ended half-way.
pub(crate) fn wipe_memory() {
    MEMORY_RING.with_borrow_mut(|memory| memory.fill(0));
}

/// Runs with the memory of a machine: its log laid out in bytes, zero behind it. What lies there afterwards up to `used`
/// (which `with` returns) is wiped again.
pub(crate) fn with_memory<R>(log: &Log, with: impl FnOnce(&mut [u8]) -> (R, usize)) -> R {
    MEMORY_RING.with_borrow_mut(|memory| {
        for (page, place) in log.0.iter().zip(memory.chunks_exact_mut(PAGE)) {
            place.copy_from_slice(page.bytes());
        }
        let (result, used) = with(memory);
        memory[..used.max(log.0.len() * PAGE)].fill(0);
        result
    })
}
