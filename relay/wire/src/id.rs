//! Numbers with a name: ids, sequences and positions, each a type of its own so that none is taken for another.

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The plain number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The number after this one.
            ///
            /// # Panics
            /// At the end of the type's range, which no stream reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// One total order with one journal.
    StreamId,
    u32
);
number!(
    /// A topic within a stream, from 1; 0 is no topic.
    TopicId,
    u32
);
number!(
    /// Who publishes; 0 is the relay itself.
    PublisherId,
    u64
);
number!(
    /// One life of a publisher; a later one is higher.
    Incarnation,
    u64
);
number!(
    /// A publisher's own numbering within an incarnation, from 1.
    PublisherSeq,
    u64
);
number!(
    /// Number of a message in its stream, from 1, never used again once released.
    Seq,
    u64
);
number!(
    /// Byte address in a stream's log; the same number addresses the memory ring and the disk.
    Position,
    u64
);
number!(
    /// One reign of one primary with one in-sync set, from 1.
    Epoch,
    u64
);
number!(
    /// A node of a group.
    NodeId,
    u64
);

impl Epoch {
    /// The last epoch there is. No group gets near it: an accepted loss, which takes the longest step, opens the next multiple of
    /// 2^40, and there are four million of these. Whatever names a later one is refused.
    pub const LAST: Self = Self(1 << 62);
}

impl Position {
    /// The position `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }

    /// Bytes from `earlier` to here.
    ///
    /// # Panics
    /// When `earlier` is later than this position: positions only grow, so that is a bug of the caller's.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        assert!(self.0 >= earlier.0, "positions only grow");
        self.0 - earlier.0
    }
}
