//! The policy daemon of dm-remap.

pub mod config;
pub mod core;
pub mod metadata;
pub mod table;
pub mod units;
