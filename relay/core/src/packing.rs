//! The open block: where the next record goes, and when the block is worth a write.
//!
//! Sealing follows the device and no timer, where a release waits for it. With a device at rest (fewer writes in flight than
//! `eager_depth`) a block is sealed at once, whatever is in it; else only when it is worth a write, and what comes meanwhile
//! shares it; at full depth it fills. A block never straddles a segment's end: a filler carries the log on to the next segment.

use relay_journal::block::{self, BlockHeader, BlockKind, HEADER_LENGTH};
use relay_wire::id::{Epoch, Position, Seq, StreamId};

use crate::log::LogWindow;
use crate::settings::Settings;

/// See the module's description.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Packing {
    stream: StreamId,
    alignment: u32,
    length_max: u32,
    span_max: u32,
    segment_size: u64,
    epoch: Epoch,
    position: Position,
    number: u64,
    previous_checksum: u32,
    first_seq: Seq,
    body_length: u32,
    record_count: u32,
    data_count: u32,
}

/// Whether a record has a place in the open block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It goes in.
    Here,
    /// The open block must be sealed first.
    AfterSeal,
    /// The open block is empty and what is left of the segment too short: a filler comes first.
    AfterFiller,
}

impl Packing {
    pub(crate) fn new(
        settings: &Settings,
        epoch: Epoch,
        position: Position,
        number: u64,
        previous_checksum: u32,
        next_seq: Seq,
    ) -> Self {
        Self {
            stream: settings.stream,
            alignment: settings.block_alignment,
            length_max: settings.block_length_max,
            span_max: settings.block_span_max(),
            segment_size: settings.segment_size,
            epoch,
            position,
            number,
            previous_checksum,
            first_seq: next_seq,
            body_length: 0,
            record_count: 0,
            data_count: 0,
        }
    }

    /// Blocks from here on are of `epoch`. The open block is empty: a block has one epoch.
    pub(crate) fn set_epoch(&mut self, epoch: Epoch) {
        assert_eq!(self.record_count, 0, "a block has one epoch");
        assert!(epoch >= self.epoch, "epochs only rise");
        self.epoch = epoch;
    }

    /// The next DATA record has this seq. The open block is empty.
    pub(crate) fn skip_to(&mut self, seq: Seq) {
        assert_eq!(
            self.record_count, 0,
            "a block's seqs are one after the other"
        );
        assert!(seq > self.first_seq, "a seq is never used twice");
        self.first_seq = seq;
    }

    /// Position of the open block.
    pub(crate) const fn position(&self) -> Position {
        self.position
    }

    /// Number of the open block.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of records in the open block.
    pub(crate) const fn body_length(&self) -> u32 {
        self.body_length
    }

    pub(crate) const fn previous_checksum(&self) -> u32 {
        self.previous_checksum
    }

    fn left_in_segment(&self) -> u64 {
        self.segment_size - self.position.get() % self.segment_size
    }

    /// Where a record of `stride` bytes fits.
    pub(crate) fn fit(&self, stride: usize) -> Fit {
        let used = HEADER_LENGTH as u64 + u64::from(self.body_length);
        let with_it = used + stride as u64;
        if with_it > self.left_in_segment() {
            return if self.record_count == 0 {
                Fit::AfterFiller
            } else {
                Fit::AfterSeal
            };
        }
        if self.record_count > 0 && with_it > u64::from(self.length_max) {
            return Fit::AfterSeal;
        }
        Fit::Here
    }

    /// Bytes of log from the open block on that must be free for any one more record.
    pub(crate) const fn room_needed(&self) -> u64 {
        2 * self.span_max as u64
    }

    /// Copies `bytes` (whole records with padding) into the open block; returns where.
    pub(crate) fn append<'w>(
        &mut self,
        log: &'w mut LogWindow<'_>,
        bytes: &[u8],
        is_data: bool,
    ) -> &'w mut [u8] {
        let at = self
            .position
            .plus(HEADER_LENGTH as u64 + u64::from(self.body_length));
        let place = log.slice_mut(at, bytes.len());
        place.copy_from_slice(bytes);
        self.body_length += bytes.len() as u32;
        self.record_count += 1;
        self.data_count += u32::from(is_data);
        place
    }

    /// Seals the open block and opens the next. With no records in it, it becomes a mark.
    pub(crate) fn seal(
        &mut self,
        log: &mut LogWindow<'_>,
        sealed_time_ns: u64,
        released: Position,
    ) -> BlockHeader {
        let kind = if self.record_count == 0 {
            BlockKind::Mark
        } else {
            BlockKind::Records
        };
        let span = block::span_for(self.body_length, self.alignment);
        self.seal_as(log, kind, span, span, sealed_time_ns, released)
    }

    /// Carries the log on to the next segment.
    pub(crate) fn seal_filler(
        &mut self,
        log: &mut LogWindow<'_>,
        sealed_time_ns: u64,
        released: Position,
    ) -> BlockHeader {
        assert_eq!(self.record_count, 0, "a filler holds no records");
        let span = self.left_in_segment() as u32;
        self.seal_as(
            log,
            BlockKind::Filler,
            span,
            self.alignment,
            sealed_time_ns,
            released,
        )
    }

    fn seal_as(
        &mut self,
        log: &mut LogWindow<'_>,
        kind: BlockKind,
        span: u32,
        written: u32,
        sealed_time_ns: u64,
        released: Position,
    ) -> BlockHeader {
        assert!(
            u64::from(span) <= self.left_in_segment(),
            "a block lies within one segment"
        );
        let header = BlockHeader {
            kind,
            stream: self.stream,
            epoch: self.epoch,
            number: self.number,
            position: self.position,
            first_seq: self.first_seq,
            record_count: self.record_count,
            data_count: self.data_count,
            body_length: self.body_length,
            span,
            sealed_time_ns,
            released,
            previous_checksum: self.previous_checksum,
            body_checksum: 0,
            checksum: 0,
        };
        let sealed = block::seal(log.slice_mut(self.position, written as usize), &header);
        self.position = sealed.next_position();
        self.number += 1;
        self.previous_checksum = sealed.checksum;
        self.first_seq = sealed.next_seq();
        self.body_length = 0;
        self.record_count = 0;
        self.data_count = 0;
        sealed
    }
}
