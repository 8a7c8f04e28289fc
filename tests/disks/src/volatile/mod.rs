//! A disk with a volatile write cache.
//!
//! [`VolatileStore`] is one disk: what is flushed lies in its [`Medium`], what is not in memory.
//! [`Power`] is what several disks share, so that a cut hits all of them at one instant.

mod faults;
mod medium;
mod power;
mod store;

pub use faults::{BadSectors, Faults};
pub use medium::Medium;
pub use power::{CutReport, Loss, Power};
pub use store::{Counters, VolatileStore};
