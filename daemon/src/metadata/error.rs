//! What can be wrong with a spare, in sentences that say what was found and what to do.

use std::io;

use super::identity::Mismatch;
use super::uuid::Uuid;
use crate::units::{Sectors, Slot};

/// Why a spare was not formatted, opened, repaired or restored. Nothing was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what} the spare at sector {sector}: {source}")]
    Io { what: &'static str, sector: Slot, source: io::Error },
    #[error("cannot flush the spare: {0}; nothing on it can be trusted to last, replace it")]
    Flush(io::Error),
    #[error(
        "the spare's physical block of {bytes} bytes is not a power of two up to 512 KiB; use another disk"
    )]
    PhysicalBlock { bytes: u64 },
    #[error("the spare has {size} sectors and needs at least {needed}; use a larger one")]
    TooSmall { size: Sectors, needed: Sectors },
    #[error(
        "the spare already holds a dm-remap label ({label}); if nothing needs it, format with --force"
    )]
    Labelled { label: Uuid },
    #[error(
        "the {disk} shows nothing but its size to know it by; give --weak-identity if no disk of the same size can take its place"
    )]
    Weak { disk: &'static str },
    #[error(
        "this spare is not the one the dump was made of: {why}; if that one is lost, restore with --other-spare, and what was mapped is an error until it is written again"
    )]
    NotTheDumps { why: String },
    #[error(
        "as far as can be told this is the data disk the dump names, whose sectors would be overwritten; give a disk that its serial number, or else its size, tells from it"
    )]
    DumpsData,
    #[error("cannot be stored: {0}")]
    Unstorable(String),

    #[error("no dm-remap label on this disk; format it, or check that it is the right disk")]
    NotFormatted,
    #[error(
        "no superblock is left: {unreadable} of five copies cannot be read and {damaged} are damaged; restore a dump made earlier"
    )]
    NoSuperblock { unreadable: usize, damaged: usize },
    #[error(
        "superblocks of two labels, {first} and {second}; the disk was partly overwritten from another one, wipe the wrong copies (see check)"
    )]
    TwoLabels { first: Uuid, second: Uuid },
    #[error(
        "two superblocks with number {number} differ: two hosts wrote to this spare; find out which was right and restore its dump"
    )]
    Disagree { number: u64 },
    #[error(
        "the format uses features this version does not know (bits {bits:#x}); use a newer dm-remap"
    )]
    Incompatible { bits: u64 },
    #[error(
        "the spare was formatted for blocks of {unit} sectors and its disk now has physical blocks of {physical}; attach it as it was when formatted"
    )]
    BlockGrew { unit: Sectors, physical: Sectors },
    #[error(
        "the spare has {size} sectors, its label says {label}: it is truncated; use the whole disk"
    )]
    Truncated { size: Sectors, label: Sectors },

    #[error("this {disk} is not the one the label was made for: {why}; check the paths")]
    Foreign { disk: &'static str, why: Mismatch },
    #[error("the label is {found}, expected {expected}; check the paths")]
    WrongLabel { found: Uuid, expected: Uuid },
    #[error("the {what} is {found} sectors, the label says {label}; check the paths")]
    Shape { what: &'static str, found: Sectors, label: Sectors },
    #[error(
        "the spare was last used by another machine ({machine}) that did not close it; make sure it is off, then repair with --take-over"
    )]
    Unclean { machine: Uuid },

    #[error(
        "record {missing} is missing although {later} is there; see check, then restore a dump"
    )]
    Gap { missing: u64, later: u64 },
    #[error("the log ends at {found} but {witness} names {named}; see check, then restore a dump")]
    Behind { found: u64, named: u64, witness: String },
    #[error(
        "the spare ends at commit {found} and the table in use at {in_use}: it was rolled back, is a copy, or cannot be read in part; put the newer one in its place"
    )]
    Older { found: u64, in_use: u64 },
    #[error("two records numbered {sequence} differ; see check, then restore a dump")]
    Conflict { sequence: u64 },
    #[error(
        "the log block at sector {sector}, where a record after {sequence} would be, cannot be read in any good mirror; if losing that record is acceptable, repair with --accept-unreadable-tail"
    )]
    UnreadableTail { sequence: u64, sector: Slot },
    #[error(
        "block {block} of the checkpoint is good in no live mirror; see check, then restore a dump"
    )]
    CheckpointLost { block: u32 },
    #[error("the metadata contradicts itself: {0}; see check, then restore a dump")]
    Damaged(String),
    #[error("the spare cannot be taken into use: {0}")]
    Unwritable(String),
}

/// Why a commit is not durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It may or may not be found after a crash: fences stay, and nothing but `restate` comes next.
    #[error("commit {sequence} may or may not be durable ({why}); it must be restated")]
    Unknown { sequence: u64, why: String },
    /// Nothing was written.
    #[error("the spare's metadata is full: {0}; new faults fail until a checkpoint succeeds")]
    Full(&'static str),
    /// Nothing was written.
    #[error("the change is not valid: {0}")]
    Invalid(String),
    /// Nothing was written.
    #[error(
        "the format uses features that this version may not write (bits {bits:#x}); use a newer dm-remap"
    )]
    ReadOnly { bits: u64 },
    /// The table and the log in force are unchanged.
    #[error("no checkpoint could be written: {0}")]
    Checkpoint(String),
    /// It may or may not be found after a crash: nothing else is written before it is in force.
    #[error("no superblock could be written: {0}; the next commit tries again")]
    Superblock(String),
    /// The store must be opened anew; recovery then decides what is durable.
    #[error("the spare's metadata cannot be written any more: {0}; replace the spare")]
    Dead(String),
}
