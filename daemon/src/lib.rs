//! The policy daemon of dm-remap.

pub mod table;
pub mod units;
