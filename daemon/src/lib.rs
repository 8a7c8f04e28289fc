//! The policy daemon of dm-remap.

pub mod config;
pub mod core;
pub mod dm;
pub mod driver;
pub mod error;
pub mod io;
pub mod link;
pub mod metadata;
pub mod pair;
pub mod service;
pub mod table;
pub mod units;
