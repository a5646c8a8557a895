//! Blocks of messages on their way to the disk, several in flight, durable in order.
//!
//! ```text
//!   block number:   first ......... durable ......... unqueued ......... next
//!                   durable,        write or sync     filled, write      free
//!                   not released    in flight         not yet queued
//! ```
//!
//! A block lives in slot `number % depth` of one registered buffer from `fill` to `release`.
//! `durable` is a prefix: a block that is written before an older one waits for it.
//!
//! Where nobody waits for the disk, few writes are in flight at a time and what comes meanwhile
//! gathers in the newest block (`append`), so that the disk is asked for no more than it needs.
//!
//! Invariants: at most `depth` blocks are held; in covering mode at most one data-sync is in
//! flight, and it covers exactly the writes whose completions were reaped before it was queued;
//! a failed or short write is an error and never retried.

use std::io;
use std::path::PathBuf;

use io_uring::{opcode, types};

use crate::buffer::Buffer;
use crate::data_file::DataFile;
use crate::error::FloorError;
use crate::options::{BLOCK_BYTES, BLOCK_BYTES_MAX, WriteMode};
use crate::ring::Ring;

/// User data of the data-sync; writes follow, one value for each slot.
const SYNC: u64 = 15;
const WRITE_FIRST: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Free,
    Filled,
    Writing,
    /// Written, and waiting for a data-sync to begin.
    Written,
    /// Covered by the data-sync in flight.
    Syncing,
    Durable,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    state: SlotState,
    block: Block,
}

/// What the owner needs to know of a block. Times are nanoseconds of the run's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Block {
    /// Bytes of messages in it.
    pub(crate) body_len: usize,
    /// Index of its last message.
    pub(crate) last_index: u64,
    /// When its first message was received.
    pub(crate) received_ns: u64,
    /// When it joined the durable prefix.
    pub(crate) durable_ns: u64,
}

/// Where and how blocks are written.
pub(crate) struct Target {
    /// Position of the data file among the ring's registered files.
    pub(crate) file: u32,
    /// Bytes of the data file.
    pub(crate) file_len: u64,
    /// For messages.
    pub(crate) path: PathBuf,
    /// `Dsync` or `Covering`.
    pub(crate) mode: WriteMode,
}

impl Target {
    /// The target made by registering `file` at position `position`.
    pub(crate) fn new(file: &DataFile, position: u32, mode: WriteMode) -> Target {
        assert_ne!(
            mode,
            WriteMode::Auto,
            "the mode is chosen before a writer exists"
        );
        Target {
            file: position,
            file_len: file.len(),
            path: file.path().to_path_buf(),
            mode,
        }
    }
}

/// The blocks of one node. Without a target nothing is written and a filled block is durable.
pub(crate) struct BlockWriter {
    buffer: Buffer,
    slots: Box<[Slot]>,
    target: Option<Target>,
    offset: u64,
    first: u64,
    durable: u64,
    unqueued: u64,
    next: u64,
    /// Writes in flight.
    writing: usize,
    /// Most writes in flight; with as many, filled blocks wait.
    writing_max: usize,
    written: usize,
    syncing: bool,
    syncs: u64,
}

impl BlockWriter {
    /// A writer of at most `depth` blocks at a time; registers its buffer with `ring`, which must
    /// be dropped before the writer.
    pub(crate) fn new(
        ring: &Ring,
        depth: usize,
        target: Option<Target>,
    ) -> Result<BlockWriter, FloorError> {
        let buffer = Buffer::new(depth * BLOCK_BYTES_MAX)?;
        if target.is_some() {
            // SAFETY: owners drop the ring before the writer, or have given it nothing to do yet; what
            // is registered stays pinned, and an abandoned buffer mapped.
            unsafe { ring.register_buffer(buffer.address(0), buffer.len()) }?;
        }
        let free = Slot {
            state: SlotState::Free,
            block: Block::default(),
        };
        Ok(BlockWriter {
            buffer,
            slots: vec![free; depth].into_boxed_slice(),
            target,
            offset: 0,
            first: 0,
            durable: 0,
            unqueued: 0,
            next: 0,
            writing: 0,
            writing_max: depth,
            written: 0,
            syncing: false,
            syncs: 0,
        })
    }

    /// The same writer with at most so many writes in flight.
    pub(crate) fn with_writes_at_most(mut self, writing_max: usize) -> BlockWriter {
        assert!(writing_max > 0, "a writer writes");
        self.writing_max = writing_max;
        self
    }

    /// True if another block may be filled.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.next - self.first < self.slots.len() as u64
    }

    /// Copies `body` into the next block.
    #[inline]
    pub(crate) fn fill(&mut self, body: &[u8], last_index: u64, received_ns: u64) {
        assert!(self.has_room(), "filled past the depth");
        assert!(
            !body.is_empty() && body.len() <= BLOCK_BYTES_MAX,
            "a body of {}",
            body.len()
        );
        let slot = self.slot(self.next);
        let at = slot * BLOCK_BYTES_MAX;
        self.buffer
            .slice_mut(at..at + body.len())
            .copy_from_slice(body);
        self.set(slot, SlotState::Free, SlotState::Filled);
        self.slots[slot].block = Block {
            body_len: body.len(),
            last_index,
            received_ns,
            durable_ns: 0,
        };
        self.next += 1;
        if self.target.is_none() {
            self.set(slot, SlotState::Filled, SlotState::Durable);
            self.unqueued = self.next;
        }
    }

    /// True if `len` bytes can be appended.
    #[inline]
    pub(crate) fn has_room_for(&self, len: usize) -> bool {
        self.has_room() || self.gathering(len).is_some()
    }

    /// Adds `body` to the newest block if its write is not queued yet and it fits, or else begins
    /// the next one.
    #[inline]
    pub(crate) fn append(&mut self, body: &[u8], last_index: u64, received_ns: u64) {
        let Some(slot) = self.gathering(body.len()) else {
            self.fill(body, last_index, received_ns);
            return;
        };
        let block = &mut self.slots[slot].block;
        let at = slot * BLOCK_BYTES_MAX + block.body_len;
        block.body_len += body.len();
        block.last_index = last_index;
        self.buffer
            .slice_mut(at..at + body.len())
            .copy_from_slice(body);
    }

    /// The slot of the newest block, if it can take `len` more bytes.
    fn gathering(&self, len: usize) -> Option<usize> {
        if self.unqueued == self.next {
            return None;
        }
        let slot = self.slot(self.next - 1);
        let gathered = self.slots[slot].block.body_len + len;
        (gathered <= BLOCK_BYTES_MAX).then_some(slot)
    }

    /// Queues the writes of filled blocks, and a data-sync if one is due.
    #[inline]
    pub(crate) fn queue(&mut self, ring: &mut Ring) {
        while self.unqueued < self.next && self.writing < self.writing_max {
            self.queue_write(ring);
        }
        if self.written > 0 && !self.syncing {
            self.queue_sync(ring);
        }
    }

    /// True if the completion with this user data is one of this writer's.
    #[inline]
    pub(crate) fn owns(&self, user_data: u64) -> bool {
        user_data >= SYNC
    }

    /// Takes the result of a write or of the data-sync.
    #[inline]
    pub(crate) fn complete(&mut self, user_data: u64, result: i32) -> Result<(), FloorError> {
        if user_data == SYNC {
            return self.complete_sync(result);
        }
        self.writing -= 1;
        let slot = (user_data - WRITE_FIRST) as usize;
        let expected = write_len(self.slots[slot].block.body_len);
        if result != expected as i32 {
            return Err(self.fault("durable write", result));
        }
        match self.mode() {
            WriteMode::Covering => {
                self.set(slot, SlotState::Writing, SlotState::Written);
                self.written += 1;
            }
            _ => self.set(slot, SlotState::Writing, SlotState::Durable),
        }
        Ok(())
    }

    /// Extends the durable prefix as of `now_ns`.
    #[inline]
    pub(crate) fn settle(&mut self, now_ns: u64) {
        while self.durable < self.next {
            let slot = self.slot(self.durable);
            if self.slots[slot].state != SlotState::Durable {
                return;
            }
            self.slots[slot].block.durable_ns = now_ns;
            self.durable += 1;
        }
    }

    /// The oldest block held, if it is durable, with its messages.
    #[inline]
    pub(crate) fn oldest_durable(&self) -> Option<(Block, &[u8])> {
        if self.first == self.durable {
            return None;
        }
        let slot = self.slot(self.first);
        let block = self.slots[slot].block;
        let at = slot * BLOCK_BYTES_MAX;
        Some((block, self.buffer.slice(at..at + block.body_len)))
    }

    /// Frees the oldest block, which is durable.
    #[inline]
    pub(crate) fn release(&mut self) {
        assert!(self.first < self.durable, "released before it was durable");
        self.set(self.slot(self.first), SlotState::Durable, SlotState::Free);
        self.first += 1;
    }

    /// Blocks filled so far.
    pub(crate) fn blocks(&self) -> u64 {
        self.next
    }

    /// Data-syncs queued so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs
    }

    /// See [`Buffer::abandon`].
    pub(crate) fn abandon(&mut self) {
        self.buffer.abandon();
    }

    fn queue_write(&mut self, ring: &mut Ring) {
        let slot = self.slot(self.unqueued);
        let len = write_len(self.slots[slot].block.body_len);
        let target = self
            .target
            .as_ref()
            .expect("only a writer with a target has writes");
        if self.offset + len as u64 > target.file_len {
            self.offset = 0;
        }
        let flags = if target.mode == WriteMode::Dsync {
            libc::RWF_DSYNC
        } else {
            0
        };
        let address = self.buffer.address(slot * BLOCK_BYTES_MAX);
        let entry = opcode::WriteFixed::new(types::Fixed(target.file), address, len as u32, 0)
            .offset(self.offset)
            .rw_flags(flags)
            .build()
            .user_data(WRITE_FIRST + slot as u64);
        // SAFETY: the slot stays as it is from Writing to Free, which follows the completion; the
        // buffer outlives the ring or is abandoned.
        unsafe { ring.push(&entry) };
        self.set(slot, SlotState::Filled, SlotState::Writing);
        self.offset += len as u64;
        self.unqueued += 1;
        self.writing += 1;
    }

    fn queue_sync(&mut self, ring: &mut Ring) {
        let target = self
            .target
            .as_ref()
            .expect("only a writer with a target has syncs");
        let entry = opcode::Fsync::new(types::Fixed(target.file))
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(SYNC);
        // SAFETY: a sync refers to no memory of ours.
        unsafe { ring.push(&entry) };
        self.replace_all(SlotState::Written, SlotState::Syncing);
        self.written = 0;
        self.syncing = true;
        self.syncs += 1;
    }

    fn complete_sync(&mut self, result: i32) -> Result<(), FloorError> {
        assert!(self.syncing, "a data-sync ended that was never queued");
        if result != 0 {
            return Err(self.fault("data-sync", result));
        }
        self.syncing = false;
        self.replace_all(SlotState::Syncing, SlotState::Durable);
        Ok(())
    }

    fn replace_all(&mut self, from: SlotState, to: SlotState) {
        for number in self.durable..self.unqueued {
            let slot = self.slot(number);
            if self.slots[slot].state == from {
                self.set(slot, from, to);
            }
        }
    }

    fn set(&mut self, slot: usize, from: SlotState, to: SlotState) {
        assert_eq!(
            self.slots[slot].state, from,
            "slot {slot} on its way to {to:?}"
        );
        self.slots[slot].state = to;
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.slots.len() as u64) as usize
    }

    fn mode(&self) -> WriteMode {
        self.target
            .as_ref()
            .expect("only a writer with a target has completions")
            .mode
    }

    fn fault(&self, stage: &'static str, result: i32) -> FloorError {
        let source = if result < 0 {
            io::Error::from_raw_os_error(-result)
        } else {
            io::Error::from(io::ErrorKind::WriteZero)
        };
        let path = self
            .target
            .as_ref()
            .map(|target| target.path.clone())
            .unwrap_or_default();
        FloorError::Disk {
            stage,
            path,
            source,
        }
    }
}

/// Bytes written for a body: whole blocks.
fn write_len(body_len: usize) -> usize {
    body_len.next_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer whose completions the test makes up; the ring queues and never submits.
    fn writer(ring: &Ring, depth: usize, mode: WriteMode) -> BlockWriter {
        let mut writer = BlockWriter::new(ring, depth, None).expect("memory");
        writer.target = Some(Target {
            file: 0,
            file_len: 1 << 20,
            path: PathBuf::new(),
            mode,
        });
        writer
    }

    fn fill_and_queue(writer: &mut BlockWriter, ring: &mut Ring, count: u64) {
        for index in 0..count {
            writer.fill(&index.to_le_bytes(), index, 1);
        }
        writer.queue(ring);
    }

    #[test]
    fn durable_is_a_prefix_whatever_order_writes_end_in() {
        let mut ring = Ring::new(16).expect("a ring");
        let mut writer = writer(&ring, 4, WriteMode::Dsync);
        fill_and_queue(&mut writer, &mut ring, 3);
        writer
            .complete(WRITE_FIRST + 1, 4096)
            .expect("second write");
        writer.settle(10);
        assert!(writer.oldest_durable().is_none());
        writer.complete(WRITE_FIRST, 4096).expect("first write");
        writer.settle(20);
        let mut released = Vec::new();
        while let Some((block, body)) = writer.oldest_durable() {
            assert_eq!(body, block.last_index.to_le_bytes());
            assert_eq!(block.durable_ns, 20);
            released.push(block.last_index);
            writer.release();
        }
        assert_eq!(released, [0, 1]);
    }

    /// A write that ends while a sync is in flight waits for the next one.
    #[test]
    fn a_data_sync_covers_only_writes_that_ended_before_it() {
        let mut ring = Ring::new(16).expect("a ring");
        let mut writer = writer(&ring, 4, WriteMode::Covering);
        fill_and_queue(&mut writer, &mut ring, 2);
        writer.complete(WRITE_FIRST, 4096).expect("first write");
        writer.queue(&mut ring);
        assert_eq!(writer.syncs(), 1);
        writer
            .complete(WRITE_FIRST + 1, 4096)
            .expect("second write");
        writer.queue(&mut ring);
        assert_eq!(writer.syncs(), 1, "one data-sync at a time");
        writer.complete(SYNC, 0).expect("first sync");
        writer.settle(5);
        writer.queue(&mut ring);
        assert_eq!((writer.durable, writer.syncs()), (1, 2));
        writer.complete(SYNC, 0).expect("second sync");
        writer.settle(6);
        assert_eq!(writer.durable, 2);
    }

    #[test]
    fn a_short_write_and_a_failed_sync_are_errors() {
        let mut ring = Ring::new(16).expect("a ring");
        let mut writer = writer(&ring, 4, WriteMode::Covering);
        fill_and_queue(&mut writer, &mut ring, 2);
        assert!(writer.complete(WRITE_FIRST, 512).is_err());
        writer
            .complete(WRITE_FIRST + 1, 4096)
            .expect("second write");
        writer.queue(&mut ring);
        let error = writer
            .complete(SYNC, -libc::EIO)
            .expect_err("a failed sync");
        assert!(error.to_string().contains("data-sync"), "{error}");
    }

    /// Only what is not on its way to the disk can still be added to.
    #[test]
    fn what_comes_while_writes_are_in_flight_gathers() {
        let mut ring = Ring::new(16).expect("a ring");
        let mut writer = writer(&ring, 2, WriteMode::Dsync).with_writes_at_most(1);
        for index in 0..4u64 {
            writer.append(&index.to_le_bytes(), index, 1 + index);
            writer.queue(&mut ring);
        }
        assert_eq!((writer.blocks(), writer.writing), (2, 1));
        assert!(!writer.has_room() && writer.has_room_for(8));
        assert!(!writer.has_room_for(BLOCK_BYTES_MAX));
        writer.complete(WRITE_FIRST, 4096).expect("first write");
        writer.queue(&mut ring);
        assert!(!writer.has_room_for(8), "both blocks are on their way");
        writer
            .complete(WRITE_FIRST + 1, 4096)
            .expect("second write");
        writer.settle(9);
        let mut bodies = Vec::new();
        while let Some((block, body)) = writer.oldest_durable() {
            bodies.push((block.received_ns, block.last_index, body.len()));
            writer.release();
        }
        assert_eq!(bodies, [(1, 0, 8), (2, 3, 24)]);
    }

    #[test]
    fn depth_bounds_the_blocks_held() {
        let ring = Ring::new(4).expect("a ring");
        let mut writer = BlockWriter::new(&ring, 2, None).expect("memory");
        writer.fill(b"12345678", 0, 1);
        writer.fill(b"12345678", 1, 1);
        assert!(!writer.has_room());
        writer.settle(2);
        writer.release();
        assert!(writer.has_room());
    }
}
