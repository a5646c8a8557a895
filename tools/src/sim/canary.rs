//! Rules broken on purpose, here and nowhere else, to show that the checkers would see it.

/// A rule of the relay that the simulator breaks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Canary {
    /// A block is reported as written the moment its write is begun.
    ReleaseBeforeDurable,
    /// A failed write is reported as written: retried into success.
    WriteErrorRetried,
    /// A failed sync is reported as done.
    SyncErrorRetried,
    /// What a killed process left is counted as released without making it durable first.
    UnsyncedTailTrusted,
    /// The generation of the superblock that was read is not made durable before the other is written over.
    UnsyncedSuperblockTrusted,
    /// A start cuts one block more than recovery says.
    CutTooFar,
    /// A start goes on in the epoch before.
    OldEpochGoesOn,
    /// A start forgets what publishers sent.
    DuplicatesForgotten,
    /// Readers are let up to the end of what is sealed.
    ReadersPassReleased,
    /// Publishers are acknowledged one message more than is released.
    AcknowledgedTooFar,
    /// The disk loses writes that it reported, in runs where no copy may be damaged.
    LostWriteCounted,
}
