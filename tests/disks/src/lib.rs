//! Disks that behave as real ones do when something goes wrong, and judges of what is left on them.
//! Nothing here uses the daemon's code, so that the two cannot be wrong together.
//!
//! - [`volatile`]: a disk with a volatile write cache, and the power that several of them share;
//! - [`server`]: such disks served to QEMU through nbdkit, and steered over a control socket;
//! - [`logwrites`]: the log that the kernel's dm-log-writes target leaves behind;
//! - [`iocheck`]: a workload whose every sector names the write it came from, and the judge of its history.

pub mod iocheck;
pub mod logwrites;
pub mod server;
pub mod volatile;

/// Bytes in a sector: the unit of every sector number in this crate.
pub const SECTOR: usize = 512;
