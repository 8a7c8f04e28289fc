//! The metadata on the spare: what makes a mapping survive a crash. FORMAT.md is its manual.
//!
//! In the order of the data: a [`Disk`] is [`format`]ted, then opened by [`Store::open`], which
//! recovers the table and refuses what it cannot answer for. [`Store::commit`] makes changes durable
//! and returns a [`Durable`] as the proof; [`Store::checkpoint`] frees the log. [`identify`], [`check`], [`repair`],
//! [`dump`] and [`restore`] are the offline tools.
//!
//! No clock, randomness or thread is used here: everything comes from the caller.

mod block;
mod check;
mod checkpoint;
mod device;
mod dump;
mod error;
mod format;
mod identity;
mod layout;
mod open;
mod record;
mod recover;
mod repair;
mod shared;
mod store;
mod superblock;
#[cfg(test)]
mod tests;
mod uuid;

pub use block::Label;
pub use check::{Report, check, identify};
pub use device::Disk;
pub use dump::{Dump, dump, restore};
pub use error::{CommitError, Error};
pub use format::{Format, format};
pub use identity::{Fact, Identity, Mismatch};
pub use layout::Geometry;
pub use open::Expect;
pub use recover::{Finding, Severity};
pub use repair::repair;
pub use shared::{Doubt, Failures, Flusher, Shared};
pub use store::{Durable, Store};
pub use superblock::Superblock;
pub use uuid::Uuid;
