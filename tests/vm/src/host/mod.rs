//! The side outside the guest, in the order of a run: kernel, image, disks, boot, judge, report.

pub mod boot;
pub mod disks;
pub mod image;
pub mod judge;
pub mod kernel;
pub mod qemu;
pub mod suite;

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The build directory this program lies in, the parent of `release/` or `debug/`.
pub fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let dir = program.ancestors().nth(2).context("a program outside of a build directory")?;
    Ok(dir.to_path_buf())
}
