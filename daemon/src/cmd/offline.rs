//! Commands that work on disks without the daemon.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use dmremap_policyd::io::Access;
use dmremap_policyd::metadata::{self, Dump, Expect, Report};
use dmremap_policyd::pair;

/// The spare is not clean.
const UNCLEAN: u8 = 2;

pub fn format(request: &pair::Request) -> Result<ExitCode> {
    let made = pair::format(request)?;
    println!(
        "{}: label {}, {} sectors of slots for {} sectors of {}",
        request.spare.display(),
        made.label.uuid,
        made.geometry.slot_sectors,
        made.mapped,
        request.data.display(),
    );
    Ok(ExitCode::SUCCESS)
}

pub fn check(spare: &Path) -> Result<ExitCode> {
    let mut disk = pair::open_disk(spare, Access::Read)?;
    Ok(say(&metadata::check(&mut disk)))
}

pub fn repair(spare: &Path, take_over: bool, accept_unreadable_tail: bool) -> Result<ExitCode> {
    let mut disk = pair::open_exclusive(spare)?;
    pair::not_overwritten(&mut disk, spare)?;
    let expect = Expect {
        machine: pair::machine_id(),
        take_over,
        accept_unreadable_tail,
        ..Expect::spare(pair::identity(&disk))
    };
    let repaired = metadata::repair(&mut disk, &expect);
    let (before, after) = repaired.with_context(|| spare.display().to_string())?;
    println!("before:");
    say(&before);
    println!("after:");
    Ok(say(&after))
}

fn say(report: &Report) -> ExitCode {
    for finding in &report.findings {
        let sector = finding.sector.map(|at| format!(" (sector {at})")).unwrap_or_default();
        println!("{}{sector}: {}\n  {}", finding.place, finding.what, finding.remedy);
    }
    if let (Some(extents), Some(sequence)) = (report.extents, report.sequence) {
        println!("{extents} extents, commit {sequence}");
    }
    match report.is_clean() {
        true => println!("clean"),
        false if report.is_usable() => println!("usable, with less redundancy than it had"),
        false => println!("not usable"),
    }
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(UNCLEAN) }
}

pub fn dump(spare: &Path) -> Result<ExitCode> {
    let mut disk = pair::open_disk(spare, Access::Read)?;
    let dump = metadata::dump(&mut disk).with_context(|| spare.display().to_string())?;
    let mut out = BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, &dump)?;
    writeln!(out)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// `other`: it is not the spare the dump was made of, and whether it may be one that only its size tells from others.
pub fn restore(spare: &Path, dump: &Path, force: bool, other: Option<bool>) -> Result<ExitCode> {
    let place = dump.display().to_string();
    let file = File::open(dump).with_context(|| place.clone())?;
    let mut dump: Dump = serde_json::from_reader(BufReader::new(file)).context(place)?;
    let mut disk = pair::open_exclusive(spare)?;
    let identity = pair::identity(&disk);
    if !force {
        pair::holds_nothing(&mut disk, spare, "restore")?;
    }
    match other {
        Some(weak) => dump = dump.for_another(&disk, identity.clone(), weak)?,
        // It would be served with slots that hold bytes of somebody else.
        None => pair::not_overwritten(&mut disk, spare)?,
    }
    let nonce = u64::from_ne_bytes(pair::random()?);
    let restored = metadata::restore(&mut disk, &dump, identity, nonce, force);
    let restored = restored.with_context(|| spare.display().to_string())?;
    println!(
        "{}: label {}, {} extents, commit {}",
        spare.display(),
        restored.label.uuid,
        dump.extents.len(),
        dump.sequence
    );
    Ok(ExitCode::SUCCESS)
}
