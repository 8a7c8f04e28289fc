//! What is fuzzed: everything that takes bytes which somebody else wrote. Each target is a function of any bytes, which
//! panics if a property does not hold; `libfuzzer/` feeds it what it thinks up, `tests/replay.rs` the corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the verdict")]

mod config;
mod control;
mod input;
mod metadata;
mod wire;

pub use config::config;
pub use control::control;
pub use metadata::metadata;
pub use wire::wire;

/// Nothing that is read may take more memory than this, in bytes; the fuzzer's own is in it.
pub const MEMORY: usize = 512 << 20;
