//! Deliberate bugs of the protocol, each of which the checker has to find.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// INSTALL goes out when the record is written, before the flush that makes it durable.
    InstallBeforeCommit,
    /// The slot is not flushed before the record that names it is written.
    PlaceNotFlushed,
    /// No list between flush and commit: somebody else's failed flush is not noticed.
    PlaceNotChecked,
    /// The count of others' failed flushes is not asked for after the commit.
    CommitNotChecked,
    /// Nor after the checkpoint that an opening writes.
    OpenNotChecked,
    /// Nor after any other.
    CheckpointNotChecked,
    /// The end of the owner completes the write that it had placed.
    AckAtOwnerDeath,
    /// The end of the owner lifts pinned fences too.
    PinnedEndsWithOwner,
    /// The deadline ends a pinned fault with its bio.
    PinnedEndsAtDeadline,
    /// An owner that lost its claim forgets what it is committing, claims again at once and releases it.
    StaleRelease,
    /// The new owner releases what the log holds.
    NothingAdopted,
    /// The lock on the spare ends with the daemon, not with its last write.
    LockDroppedEarly,
    /// PLACE of a write whose bio has left is accepted, though nothing can be written.
    PlacedUnwritten,
    /// What was placed is acknowledged, though a flush has failed since.
    PlacedThoughFlushFailed,
    /// A write that comes back after the table changed is acknowledged.
    StaleWriteAcked,
    /// The instance serves before its table is loaded.
    ServedUnready,
    /// A slot that failed is handed out again.
    RetiredSlotReused,
    /// A failed flush of the spare is not told to its caller.
    FlushFailureHidden,
    /// The doorbell is rung once.
    DoorbellNotRepeated,
    /// The end of the owner's socket leaves the claim.
    ClaimNotReleased,
    /// An unknown commit is not restated.
    UnknownNotRestated,
    /// A parked bio has no deadline.
    DeadlineLost,
}
