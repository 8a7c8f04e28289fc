//! The five superblocks of a spare: each of their 31 subsets lost in each of three ways, on a real block device. Four
//! may be lost; with all five the spare is refused, and in which words depends on what is found in their place.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::case::Case;
use crate::guest::devices::Brd;
use crate::guest::dm::{self, Device};
use crate::guest::served::{self, Served};
use crate::guest::spare::{self, BLOCK, COPIES, Frail, Image};
use crate::guest::{Ctx, Disk};

pub const CASES: &[Case] = &[
    Case::new("superblocks.unreadable", 180, |_| every_subset(Loss::Unreadable)),
    Case::new("superblocks.zeroed", 180, |_| every_subset(Loss::Zeroed)),
    Case::new("superblocks.older", 180, |_| every_subset(Loss::Older)),
    Case::new("superblocks.lost-in-different-ways", 90, lost_in_different_ways),
    Case::new("superblocks.a-newer-one-is-missed", 90, a_newer_one_is_missed)
        .must_fail("reading 1 sectors at 200 of /dev/mapper/d1: No data available"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Unreadable,
    Zeroed,
    Older,
}

/// Its number, and how it ends for the reader.
struct State {
    image: Image,
    superblock: u64,
}

/// A spare with one mapping, then with two. Fields are taken down in this order.
struct Setup {
    bad: Device,
    spare: Frail,
    older: State,
    newer: State,
    brd: Brd,
}

impl Setup {
    fn new() -> Result<Self> {
        let brd = Brd::load(2, 16)?;
        let bad = dm::disk_with_bad_sectors("bad", &brd.path(0), &[100, 200, 300])?;
        let spare = Frail::new("spare", &brd.path(1))?;
        served::format(bad.path(), spare.path())?;
        served::configure(bad.path(), spare.path(), "")?;
        let state = |sector, version| {
            let served = Served::start()?;
            served.disk()?.fill(sector, 1, version)?;
            served.down()?;
            let superblock = spare::dump(spare.path())?["superblock"].as_u64();
            let superblock = superblock.context("a superblock without a number")?;
            Ok::<_, anyhow::Error>(State { image: Image::of(&brd.path(1))?, superblock })
        };
        let (older, newer) = (state(100, 1)?, state(200, 2)?);
        Ok(Self { bad, spare, older, newer, brd })
    }

    /// The newer spare, without these copies.
    fn lose(&self, lost: &[usize], how: Loss) -> Result<()> {
        let disk = Disk::open(self.brd.path(1))?;
        for (copy, sector) in COPIES.into_iter().enumerate() {
            let bytes = match how {
                Loss::Zeroed if lost.contains(&copy) => &[0; 4096],
                Loss::Older if lost.contains(&copy) => self.older.image.block(sector)?,
                _ => self.newer.image.block(sector)?,
            };
            disk.write(sector, bytes)?;
        }
        if how == Loss::Unreadable {
            let starts: Vec<u64> = lost.iter().map(|&copy| COPIES[copy]).collect();
            self.spare.fail(&spare::blocks(&starts))?;
        }
        Ok(())
    }

    /// What `check` says of a copy.
    fn finding(&self, copy: usize, how: Loss) -> String {
        let what = match how {
            Loss::Unreadable => "cannot be read: Input/output error (os error 5)".to_owned(),
            Loss::Zeroed => "holds something else".to_owned(),
            Loss::Older => format!(
                "is number {}, the newest is {}",
                self.older.superblock, self.newer.superblock
            ),
        };
        format!(
            "superblock copy {copy} (sector {}): {what}\n  \
             repair rewrites it from what is good; if it comes back, replace the spare\n",
            COPIES[copy]
        )
    }

    /// Why the spare is refused when nothing but that is left.
    fn refusal(&self, how: Loss) -> String {
        match how {
            Loss::Unreadable => "no superblock is left: 5 of five copies cannot be read and 0 are \
                                 damaged; restore a dump made earlier"
                .to_owned(),
            Loss::Zeroed => {
                "no dm-remap label on this disk; format it, or check that it is the right disk"
                    .to_owned()
            }
            Loss::Older => self.behind(),
        }
    }

    /// The older superblock does not know the last record, which tells on it.
    fn behind(&self) -> String {
        let older = self.older.superblock;
        format!(
            "the log ends at 1 but a log record of superblock {} (the newest found is {older}) \
             names 2; see check, then restore a dump",
            older + 1
        )
    }

    fn path(&self) -> String {
        self.spare.path().display().to_string()
    }

    /// Nothing serves, mends or reads it.
    fn is_refused(&self, words: &str) -> Result<()> {
        let checked = spare::check(self.spare.path())?;
        let fatal = format!("spare: {words}\n  as the sentence says\nnot usable\n");
        ensure!(
            checked.status.code() == Some(2) && checked.stdout.ends_with(&fatal),
            "check should say {fatal:?}: {}",
            checked.stdout
        );
        spare::says(&["dump", "--json", &self.path()], 1, words)?;
        spare::says(&["repair", &self.path()], 1, words)?;
        Served::refused(words)
    }

    /// Served from what is left, old mappings and new.
    fn is_served(&self) -> Result<()> {
        let served = Served::start()?;
        let disk = served.disk()?;
        disk.verify(100, 1, 1)?;
        disk.verify(200, 1, 2)?;
        disk.fill(300, 1, 3)?;
        disk.verify(300, 1, 3)?;
        drop(disk);
        served.down()?;
        let extents = spare::dump(self.spare.path())?["extents"].as_array().map(Vec::len);
        ensure!(extents == Some(3), "{extents:?} extents, and should be 3");
        Ok(())
    }

    /// What the refusal tells the operator to do; an older label must be overwritten on purpose.
    fn restore(&self, dump: &Value, how: Loss) -> Result<()> {
        let file = "/run/vm/dump.json";
        fs::write(file, dump.to_string())?;
        let path = self.path();
        if how == Loss::Older {
            spare::says(&["restore", &path, file], 1, "already holds a dm-remap label")?;
            spare::says(&["restore", &path, file, "--force"], 0, "2 extents, commit 2\n")?;
        } else {
            spare::says(&["restore", &path, file], 0, "2 extents, commit 2\n")?;
        }
        fs::remove_file(file)?;
        spare::is_clean(self.spare.path())?;
        self.is_served()
    }

    /// After the copies were lost; the spare is as before.
    fn heal(&self) -> Result<()> {
        self.spare.fail(&[])?;
        self.newer.image.put(&self.brd.path(1))
    }

    fn remove(self) -> Result<()> {
        self.bad.remove()?;
        self.spare.device.remove()
    }
}

fn members(subset: usize) -> Vec<usize> {
    (0..COPIES.len()).filter(|copy| subset >> copy & 1 == 1).collect()
}

fn every_subset(how: Loss) -> Result<()> {
    let setup = Setup::new()?;
    let whole = spare::dump(setup.spare.path())?;
    spare::is_clean(setup.spare.path())?;
    let all = (1 << COPIES.len()) - 1;
    for subset in 1..all {
        let lost = members(subset);
        let state = || format!("{how:?}: copies {lost:?}");
        setup.lose(&lost, how).with_context(state)?;
        let found: String = lost.iter().map(|&copy| setup.finding(copy, how)).collect();
        let wanted = found + "2 extents, commit 2\nusable, with less redundancy than it had\n";
        let checked = spare::check(setup.spare.path())?;
        ensure!(
            checked.status.code() == Some(2) && checked.stdout == wanted,
            "{}: check says {}{}, and should say {wanted}",
            state(),
            checked.stdout,
            checked.stderr
        );
        let left = spare::dump(setup.spare.path()).with_context(state)?;
        ensure!(left == whole, "{}: {left} is left of {whole}", state());
        // One copy left, the first or the last; whichever it is, where another could be taken for the newest: served.
        let single = lost.len() + 1 == COPIES.len();
        if single && (how == Loss::Older || subset == all - 1 || subset == all >> 1) {
            setup.is_served().with_context(state)?;
            let checked = spare::check(setup.spare.path())?;
            let lasts = how == Loss::Unreadable;
            let wanted: String = lost.iter().map(|&copy| setup.finding(copy, how)).collect();
            ensure!(
                checked.stdout.starts_with(if lasts { &wanted } else { "3 extents" }),
                "{}: what could be written is not: {}",
                state(),
                checked.stdout
            );
            setup.heal()?;
        }
    }
    setup.lose(&members(all), how)?;
    setup.is_refused(&setup.refusal(how))?;
    if how != Loss::Unreadable {
        setup.restore(&whole, how)?;
    }
    setup.heal()?;
    setup.lose(&[0, 2, 4], how)?;
    let mended = if how == Loss::Unreadable { 2 } else { 0 };
    spare::says(&["repair", &setup.path()], mended, "after:\n")?;
    setup.spare.fail(&[])?;
    spare::says(&["repair", &setup.path()], 0, "after:\n2 extents, commit 2\nclean\n")?;
    setup.is_served()?;
    setup.remove()
}

fn lost_in_different_ways(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    let disk = Disk::open(setup.brd.path(1))?;
    let zeroes = [0; BLOCK as usize * 512];
    setup.lose(&[0, 1, 2], Loss::Unreadable)?;
    disk.write(COPIES[3], &zeroes)?;
    disk.write(COPIES[4], &zeroes)?;
    setup.is_refused(
        "no superblock is left: 3 of five copies cannot be read and 2 are damaged; \
         restore a dump made earlier",
    )?;

    // The only one that can be read is older, and the log knows it.
    disk.write(COPIES[4], setup.older.image.block(COPIES[4])?)?;
    setup.is_refused(&setup.behind())?;

    disk.write(COPIES[3], setup.newer.image.block(COPIES[3])?)?;
    setup.is_served()?;
    drop(disk);
    setup.remove()
}

/// Without its log nothing names what the older superblock does not know: the limit that the format documents, and
/// proof that a lost mapping is seen here.
fn a_newer_one_is_missed(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    setup.older.image.put(&setup.brd.path(1))?;
    setup.is_served()
}
