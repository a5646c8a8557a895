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
    /// A standby says that a block is durable the moment its write is begun.
    StandbyAcknowledgesEarly,
    /// A primary counts on a peer for all that it has sealed itself, whatever the peer says.
    ReleaseBeforePeer,
    /// A primary counts an acknowledgement whatever the checksum of the block it names.
    ChecksumIgnored,
    /// A vote is said to be durable and was never written.
    PromiseNotKept,
    /// A process starts without what the disk remembers of votes: it may go on in the epoch it was in.
    PromiseForgotten,
    /// Whoever loses a swap hears that it won.
    LostSwapGoesOn,
    /// A swap of which nothing is known counts as done.
    UnknownSwapCountsAsDone,
    /// A swap of which nothing is known counts as not carried out.
    UnknownSwapCountsAsLost,
    /// A swap of which nothing is known is said to be refused, and lands later all the same.
    LateSwapHidden,
    /// Every change of the set takes every node in, caught up or not.
    AdmittedEarly,
    /// The arbiter shows a record that was replaced already.
    StaleRecordRead,
    /// A node that is told to cut its log does not.
    CutForgotten,
    /// A start cuts what it does not know to be released, without asking anyone.
    CutAtOwnWatermark,
    /// A node whose log was cut goes on with the topics it had before.
    TopicsKeptAcrossCut,
    /// Nodes hear each other whatever epoch they speak in, and follow whoever asks whatever they promised.
    StaleEpochAccepted,
    /// A primary never hears which epoch a node could follow that promised too much.
    PromiseBlocksGroup,
    /// A smaller set counts the moment it is asked for.
    ShrinkNotAwaited,
    /// A logon calls everything released that is appended.
    LogonCountsAppended,
    /// A follower's ring lets go of what it received before its disk has it.
    RingSlotReused,
    /// A process that starts counts as the copy in memory that the one before was.
    RestartedMemberCounts,
    /// A node that cut damage at its start does not write down that its tail is unknown.
    TornCountsAsAbsent,
    /// Who loses power comes back with an old copy of its disk, which counts as the same disk.
    OldCopyCounts,
    /// Who loses power comes back with a blank disk under the old disk's name.
    BlankDiskKeepsItsName,
    /// A follower suspects its primary between two of its heartbeats.
    SuspectedTooSoon,
}
