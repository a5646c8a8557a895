//! What the machines need to know of the configuration, already checked.

use relay_wire::code::Policy;
use relay_wire::id::{NodeId, StreamId};
use relay_wire::message::{SILENT_INTERVALS, client_interval_ms};
use relay_wire::record;
use relay_wire::stride;

/// Settings of one stream. Sizes are bytes, times nanoseconds.
#[derive(Debug, Clone, Hash)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// The stream.
    pub stream: StreamId,
    /// When a message may be released.
    pub policy: Policy,
    /// Most bytes of a payload, up to [`relay_wire::item::PAYLOAD_LIMIT_MAX`].
    pub payload_limit: u32,
    /// Most unacknowledged bytes of one publisher.
    pub credit: u64,
    /// A client is told something at least so often.
    pub heartbeat_ns: u64,
    /// Time a new connection has for its logon.
    pub logon_timeout_ns: u64,
    /// Most connections at once, publishers, subscribers and those before logon.
    pub connections_max: u32,
    /// Most connections before logon; the oldest gives way.
    pub unauthenticated_max: u32,
    /// Most publishers the stream ever knows.
    pub publishers_max: u32,
    /// Most topics the stream ever defines.
    pub topics_max: u32,
    /// Most subscribers at once.
    pub subscribers_max: u32,
    /// Unit of writing and of block addresses.
    pub block_alignment: u32,
    /// Most bytes of a block that holds more than one record.
    pub block_length_max: u32,
    /// A block this long is worth a write although others are in flight.
    pub seal_threshold: u32,
    /// With fewer writes than this in flight a block is sealed at once, where a release waits for the disk; a follower writes what
    /// comes at once with one more.
    pub eager_depth: u32,
    /// Most writes in flight.
    pub write_depth: u32,
    /// Bytes of a segment file.
    pub segment_size: u64,
    /// Bytes of the memory ring.
    pub ring_size: u64,
    /// A release not yet on disk is written down after so long without traffic.
    pub mark_after_ns: u64,
    /// A subscriber that takes nothing for so long is disconnected.
    pub stall_limit_ns: u64,
    /// A subscriber this far behind is disconnected; 0 for never.
    pub lag_limit: u64,
    /// Buffers that subscribers behind the ring share.
    pub replay_slots: u32,
    /// Bytes of each of them.
    pub replay_slot_size: u32,
}

impl Settings {
    /// [`Settings::heartbeat_ns`] as clients are told it.
    #[must_use]
    pub const fn heartbeat_ms(&self) -> u32 {
        (self.heartbeat_ns / 1_000_000) as u32
    }

    /// A client that says nothing for so long is given up. A short heartbeat shows clients soon that this node is gone; what
    /// is asked of them does not get tighter with it.
    #[must_use]
    pub const fn client_silence_ns(&self) -> u64 {
        let interval_ms = client_interval_ms(self.heartbeat_ms()) as u64;
        interval_ms * 1_000_000 * SILENT_INTERVALS as u64
    }

    /// Most bytes of a record with its padding.
    #[must_use]
    pub const fn record_stride_max(&self) -> usize {
        stride(record::length_max(self.payload_limit) as usize)
    }

    /// Most bytes of any block: the usual most, or one record of the longest kind.
    #[must_use]
    pub fn block_span_max(&self) -> u32 {
        let lone = relay_journal::block::HEADER_LENGTH + self.record_stride_max();
        let lone = (lone as u32).next_multiple_of(self.block_alignment);
        lone.max(self.block_length_max)
    }

    /// Bytes behind the release that subscribers are served from memory. Where a release waits for no disk, what is sealed and not
    /// durable stays within them: behind them subscribers are served from the disk.
    #[must_use]
    pub const fn kept_in_memory(&self) -> u64 {
        self.ring_size / 2
    }

    /// Most bytes of log that can be under way to the disk: the width of the zone in which a crash may tear.
    #[must_use]
    pub fn in_flight_bytes_max(&self) -> u64 {
        u64::from(self.write_depth) * u64::from(self.block_span_max())
    }
}

/// Small ones, for the machines' own tests.
#[cfg(test)]
pub(crate) fn small() -> Settings {
    Settings {
        node: NodeId(2),
        stream: StreamId(1),
        policy: Policy::Durable,
        payload_limit: 64,
        credit: 1 << 16,
        heartbeat_ns: 1_000_000_000,
        logon_timeout_ns: 1_000_000_000,
        connections_max: 8,
        unauthenticated_max: 4,
        publishers_max: 4,
        topics_max: 8,
        subscribers_max: 8,
        block_alignment: 512,
        block_length_max: 512,
        seal_threshold: 512,
        eager_depth: 1,
        write_depth: 4,
        segment_size: 1 << 16,
        ring_size: 1 << 16,
        mark_after_ns: 10_000_000,
        stall_limit_ns: 1_000_000_000,
        lag_limit: 0,
        replay_slots: 1,
        replay_slot_size: 512,
    }
}
