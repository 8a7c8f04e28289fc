//! Deadlines, by the guest's own clock.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::kernel::scaled;

/// A deadline counts in ticks, of which an emulated processor that was not run has some to catch up on.
const EARLY: Duration = Duration::from_millis(250);
/// What it may be late by, on a stock kernel whose processors others use too.
const LATE: Duration = Duration::from_secs(10);

/// For what began then and has just ended: at its deadline, neither before it nor long after.
pub fn ended_at(begun: Instant, deadline: Duration, what: &str) -> Result<()> {
    within(begun.elapsed(), deadline, what)
}

fn within(taken: Duration, deadline: Duration, what: &str) -> Result<()> {
    ensure!(taken + EARLY >= deadline, "{what} ended before its deadline, after {taken:?}");
    ensure!(
        taken < scaled(deadline + LATE),
        "{what} ended long after its deadline of {deadline:?}, after {taken:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_two_sides() {
        let deadline = Duration::from_secs(2);
        let why = |ms| within(Duration::from_millis(ms), deadline, "it").map_err(|e| e.to_string());
        assert!(why(1700).unwrap_err().contains("before its deadline"));
        assert_eq!(why(1800), Ok(()));
        assert_eq!(why(11_900), Ok(()));
        assert!(why(12_000).unwrap_err().contains("long after"));
    }
}
