//! `iocheck HISTORY`: judges a recorded history; fails if any sector held what it must not.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use clap::Parser;
use dmremap_disks::iocheck::Judge;

/// Judges a history of I/O; its format is described in dmremap_disks::iocheck::history.
#[derive(Parser)]
struct Arguments {
    history: PathBuf,
}

fn main() -> Result<ExitCode> {
    let path = Arguments::parse().history;
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let verdict =
        Judge::history(&text).map_err(Error::msg).with_context(|| path.display().to_string())?;
    println!("{verdict}");
    Ok(if verdict.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
