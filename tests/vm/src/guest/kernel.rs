//! What the host says of the kernel, on its command line.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use crate::proto::{CHECKED, SLOWNESS};

fn words() -> &'static [String] {
    static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    WORDS.get_or_init(|| {
        // Outside of a guest nothing was said.
        let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        line.split_whitespace().map(String::from).collect()
    })
}

/// A limit of guest time on this kernel, from the one on a stock kernel.
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    limit * slowness()
}

/// What every limit is multiplied by.
#[must_use]
pub fn slowness() -> u32 {
    words().iter().find_map(|word| word.strip_prefix(SLOWNESS)?.parse().ok()).unwrap_or(1)
}

/// Whether the kernel's own checkers are judged.
#[must_use]
pub fn checked() -> bool {
    words().iter().any(|word| word == CHECKED)
}
