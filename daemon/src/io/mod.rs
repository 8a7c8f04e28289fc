//! Disks as the daemon touches them itself: direct, durable, and one at a time.

mod disk;
pub mod identity;
pub mod node;
pub mod probe;
pub mod signature;

pub use disk::{Access, BlockDevice};
