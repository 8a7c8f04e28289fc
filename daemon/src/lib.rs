//! The policy daemon of dm-remap.

pub mod core;
pub mod table;
pub mod units;
