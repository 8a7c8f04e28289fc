//! Rewriting what is lost from what is good.

use super::check::{Report, check};
use super::device::Disk;
use super::error::Error;
use super::open::Expect;
use super::store::Store;

/// Rewrites all superblock copies, both mirrors included those declared dead, and closes the spare.
/// What cannot be written stays lost. Returns what `check` says before and after.
pub fn repair<D: Disk>(disk: &mut D, expect: &Expect) -> Result<(Report, Report), Error> {
    let before = check(disk);
    let (store, _) = Store::open_with(&mut *disk, expect, true)?;
    store.close().map_err(|e| Error::Unwritable(e.to_string()))?;
    Ok((before, check(disk)))
}
