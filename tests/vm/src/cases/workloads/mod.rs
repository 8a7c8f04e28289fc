//! What people run, on a disk that goes bad under it: file systems, md and LVM, below and above.
//!
//! A sector that goes bad in use keeps what it holds and fails every write: what cannot be read any more is lost with
//! any device below, and is the subject of other cases.

mod decay;
mod file_systems;
mod lvm;
mod md;
mod work;

use crate::case::Case;

pub const CASES: &[Case] = &[
    file_systems::EXT4,
    file_systems::XFS,
    file_systems::BTRFS,
    file_systems::LINEAR,
    md::OF_REMAP,
    md::OF_LINEAR,
    md::BELOW_REMAP,
    lvm::BELOW_AND_ABOVE,
];
