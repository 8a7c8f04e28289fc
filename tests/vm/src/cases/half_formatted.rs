//! A format that ends after any of its writes: the old label, none, or the new one, and nothing in between. What was
//! written in which order comes from dm-log-writes.

use std::fs::{File, OpenOptions};
use std::io::Read;

use anyhow::{Context, Result, ensure};
use dmremap_disks::logwrites::{Entry, Log};

use crate::case::Case;
use crate::guest::devices::Brd;
use crate::guest::dm::{self, Device};
use crate::guest::served::{self, Served};
use crate::guest::spare::{self, COPIES, Image};
use crate::guest::{Ctx, modprobe};

pub const CASES: &[Case] = &[
    Case::new("half-formatted.over-an-older-label", 150, over_a_label),
    Case::new("half-formatted.over-nothing", 150, over_nothing),
];

/// Formats through dm-log-writes and returns the log; `ram1` is formatted afterwards.
fn log_of_format(brd: &Brd, data: &Device) -> Result<Log> {
    modprobe("dm-log-writes", &[])?;
    let sectors = crate::guest::Disk::open(brd.path(1))?.sectors()?;
    let table = format!("0 {sectors} log-writes /dev/ram1 /dev/ram2\n");
    let logged = Device::create("logged", &table)?;
    served::forced_format(data.path(), logged.path())?;
    logged.remove()?;
    Ok(Log::open(File::open(brd.path(2))?)?)
}

/// The copy that an entry writes, and no more.
fn copy_of(entry: &Entry) -> Option<usize> {
    let at = (entry.len == 4096).then_some(entry.offset / 512)?;
    COPIES.iter().position(|&copy| copy == at)
}

/// Wiped in the order they are looked for; written with sector 0 last; flushed in between.
fn order_is_right(entries: &[Entry]) -> Result<()> {
    let copies: Vec<usize> = entries.iter().filter_map(copy_of).collect();
    ensure!(copies == [0, 1, 2, 3, 4, 1, 2, 3, 4, 0], "copies are written as {copies:?}");
    let at = |nth: usize| {
        let found = entries.iter().enumerate().filter(|(_, e)| copy_of(e).is_some()).nth(nth);
        found.map(|(index, _)| index).context("a write to a copy")
    };
    let end = entries.len();
    // After the wipe, after the areas, after four copies, and at the end.
    for (from, to) in [(at(4)? + 1, at(5)?), (at(8)? + 1, at(9)? + 1), (at(9)? + 1, end)] {
        let flushed = entries[from..to].iter().any(Entry::is_flush);
        ensure!(flushed, "no flush among the entries {from} to {to}: {entries:?}");
    }
    Ok(())
}

fn over_a_label(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(4, 16)?;
    let data = dm::disk_with_bad_sectors("bad", &brd.path(0), &[100, 200])?;
    served::format(data.path(), &brd.path(1))?;
    served::configure(data.path(), &brd.path(1), "")?;
    let served = Served::start()?;
    served.disk()?.fill(100, 1, 1)?;
    served.down()?;
    every_prefix(&brd, &data, true)?;
    data.remove()
}

fn over_nothing(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(4, 16)?;
    let data = dm::disk_with_bad_sectors("bad", &brd.path(0), &[100, 200])?;
    every_prefix(&brd, &data, false)?;
    data.remove()
}

fn every_prefix(brd: &Brd, data: &Device, labelled: bool) -> Result<()> {
    let (before, replayed) = (Image::of(&brd.path(1))?, brd.path(3));
    let label = || Ok::<_, anyhow::Error>(spare::dump(&replayed)?["label"].clone());
    before.put(&replayed)?;
    let old = if labelled { Some(label()?) } else { None };
    let log = log_of_format(brd, data)?;
    let entries: Vec<Entry> = log.entries().collect::<Result<_, _>>()?;
    order_is_right(&entries)?;
    let path = replayed.display().to_string();
    let says = |code, words: &str| spare::says(&["check", &path], code, words);
    served::configure(data.path(), &replayed, "")?;

    let mut written = 0;
    for count in 0..=entries.len() {
        let state = || format!("after {count} of {} entries", entries.len());
        let step = count.checked_sub(1).and_then(|last| copy_of(&entries[last]));
        written += usize::from(step.is_some());
        before.put(&replayed)?;
        let mut disk = OpenOptions::new().read(true).write(true).open(&replayed)?;
        log.replay(&mut disk, count as u64)?;
        disk.sync_all()?;
        drop(disk);
        match (written, &old) {
            (0, Some(_)) => says(0, "1 extents, commit 1\nclean\n"),
            (1..5, Some(old)) => {
                says(2, "1 extents, commit 1\nusable, with less redundancy than it had\n")?;
                ensure!(label()? == *old, "{}: another label", state());
                Ok(())
            }
            (0..=5, _) => says(2, "spare: no dm-remap label on this disk; format it"),
            (6..10, old) => {
                says(2, "0 extents, commit 0\nusable, with less redundancy than it had\n")?;
                ensure!(Some(label()?) != *old, "{}: the old label", state());
                Ok(())
            }
            _ => says(0, "0 extents, commit 0\nclean\n"),
        }
        .with_context(state)?;
        // The last copy of the old label, none, the first of the new one, all.
        match (step.is_some(), written) {
            (true, 4) if labelled => serves(Some(1)).with_context(state)?,
            (true, 4 | 5) => {
                Served::refused("no dm-remap label on this disk; format it").with_context(state)?;
            }
            (true, 6 | 10) => serves(None).with_context(state)?,
            _ => {}
        }
    }
    ensure!(written == 10, "{written} writes to copies");
    same_as_formatted(brd)
}

/// With what version sector 100 was written before, and on.
fn serves(before: Option<u64>) -> Result<()> {
    let served = Served::start()?;
    let disk = served.disk()?;
    match before {
        Some(version) => disk.verify(100, 1, version)?,
        None => ensure!(disk.read(100, 1).is_err(), "bytes that nobody wrote"),
    }
    disk.fill(200, 1, 5)?;
    disk.verify(200, 1, 5)?;
    drop(disk);
    served.down()
}

/// The log was whole: what it makes is what format made, but for what serving wrote.
fn same_as_formatted(brd: &Brd) -> Result<()> {
    let (mut a, mut b) = (vec![0; 4096], vec![0; 4096]);
    File::open(brd.path(1))?.read_exact(&mut a)?;
    File::open(brd.path(3))?.read_exact(&mut b)?;
    // Magic, then the label behind the checksum.
    ensure!(a[..8] == b[..8] && a[16..40] == b[16..40], "another label was replayed");
    Ok(())
}
