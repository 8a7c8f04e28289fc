//! Damage in runs, all over a disk, under traffic: no error reaches the application, and what it wrote is there.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::guest::fs::fio;
use crate::guest::served::Served;
use crate::guest::setup::Disks;
use crate::guest::{Ctx, Disk};

pub const CASES: &[Case] = &[
    Case::new("scattered.four-kib-over-a-run", 90, four_kib),
    Case::new("scattered.unaligned-mib-over-a-run", 90, unaligned_mib),
    Case::new("scattered.fio-verifies-over-200-runs", 240, fio_over_runs),
    Case::new("scattered.fio-without-remapping-fails", 120, fio_without_remapping)
        .must_fail("io_u error on file /dev/mapper/bad: Input/output error: write"),
    Case::new("scattered.fio-over-a-changed-slot-fails", 120, fio_over_a_changed_slot)
        .must_fail("crc32c: verify failed"),
];

const MIB: u64 = 2048;
const SIZE: u64 = 64 * MIB;
const RUNS: usize = 200;

fn expect_mapped(served: &Served, wanted: &[u64]) -> Result<()> {
    let mapped = served.sectors_of(0, "mapped")?;
    let good = mapped.iter().find(|sector| wanted.binary_search(sector).is_err());
    ensure!(good.is_none(), "sector {good:?} is mapped, and is not bad");
    let missed = wanted.iter().find(|sector| mapped.binary_search(sector).is_err());
    ensure!(missed.is_none(), "sector {missed:?} is bad and was written, and is not mapped");
    let poisoned = served.sectors_of(0, "poison-data")?;
    ensure!(poisoned.is_empty(), "poisoned, though all was written first: {poisoned:?}");
    Ok(())
}

fn four_kib(_: &mut Ctx) -> Result<()> {
    let bad: Vec<u64> = (1000..1008).collect();
    let disks = Disks::new(64, &bad)?;
    let served = disks.serve("")?;
    let disk = served.disk()?;
    // Aligned with the run, and so one whole fault; then 512 bytes off it, over each of its ends.
    disk.fill(1000, 8, 1)?;
    disk.verify(1000, 8, 1)?;
    expect_mapped(&served, &bad)?;
    for (sector, version) in [(993, 2), (1001, 3), (1007, 4)] {
        disk.fill(sector, 8, version)?;
        disk.verify(sector, 8, version)?;
    }
    for (sector, version) in [(1000, 2), (1001, 3), (1006, 3), (1007, 4), (1014, 4)] {
        disk.verify(sector, 1, version)?;
    }
    expect_mapped(&served, &bad)?;
    drop(disk);
    served.down()
}

fn unaligned_mib(_: &mut Ctx) -> Result<()> {
    let bad: Vec<u64> = (1000..1008).collect();
    let disks = Disks::new(64, &bad)?;
    let served = disks.serve("")?;
    let disk = served.disk()?;
    disk.fill(37, 2048, 1)?;
    disk.verify(37, 2048, 1)?;
    for sector in 990..1018 {
        disk.verify(sector, 1, 1)?;
    }
    expect_mapped(&served, &bad)?;
    drop(disk);
    served.down()
}

/// Bad sectors, in rising order: [`RUNS`] runs of 1 to 64 anywhere on the disk, with good ones between them.
fn runs(seed: u64) -> Vec<u64> {
    let mut state = seed;
    // SplitMix64.
    let mut next = |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    let (mut bad, mut drawn) = (BTreeSet::new(), 0);
    while drawn < RUNS {
        let len = 1 + next(64);
        let start = next(SIZE - len);
        if bad.range(start.saturating_sub(1)..=start + len).next().is_none() {
            bad.extend(start..start + len);
            drawn += 1;
        }
    }
    bad.into_iter().collect()
}

/// fio writes a half of the disk and reads it back; every byte of the half, once each.
fn write_and_verify(disk: &std::path::Path, rw: &str, block: &str, half: u64) -> Result<()> {
    let bytes = SIZE / 2 * 512;
    let (rw, block) = (format!("--rw={rw}"), format!("--bs={block}"));
    let (size, offset) = (format!("--size={bytes}"), format!("--offset={}", half * bytes));
    let verify = ["--verify=crc32c", "--verify_fatal=1", "--iodepth=32", "--minimal"];
    let args = [&rw[..], &block, &size, &offset];
    let text = fio(disk, &[&args[..], &verify].concat(), 180)?;
    // Kilobytes read and written, as fio's terse format 3 counts its fields.
    let fields: Vec<&str> = text.trim().split(';').collect();
    let kib = (bytes / 1024).to_string();
    ensure!(
        fields.get(5) == Some(&&kib[..]) && fields.get(46) == Some(&&kib[..]),
        "not {kib} KiB each were read and written: {text}"
    );
    Ok(())
}

fn fio_over_runs(ctx: &mut Ctx) -> Result<()> {
    let bad = runs(ctx.seed);
    ctx.note(format!("seed {}: {} bad sectors", ctx.seed, bad.len()))?;
    let disks = Disks::new(64, &bad)?;
    let served = disks.serve("")?;
    write_and_verify(&served.path(), "write", "64k", 0)?;
    let half: Vec<u64> = bad.iter().copied().filter(|&sector| sector < SIZE / 2).collect();
    expect_mapped(&served, &half)?;
    write_and_verify(&served.path(), "randwrite", "4k", 1)?;
    expect_mapped(&served, &bad)?;
    served.down()
}

/// The control of the case above.
fn fio_without_remapping(ctx: &mut Ctx) -> Result<()> {
    let disks = Disks::new(64, &runs(ctx.seed))?;
    write_and_verify(disks.bad.path(), "write", "64k", 0)
}

/// What was written is read and found right, and after that a sector of a slot is another one.
fn fio_over_a_changed_slot(ctx: &mut Ctx) -> Result<()> {
    let disks = Disks::new(64, &runs(ctx.seed))?;
    let served = disks.serve("")?;
    let all = ["--bs=64k", "--size=8m", "--verify=crc32c", "--verify_fatal=1"];
    fio(&served.path(), &[&all[..], &["--rw=write", "--do_verify=0"]].concat(), 60)?;
    let verify = || fio(&served.path(), &[&all[..], &["--rw=read"]].concat(), 60);
    verify().context("before anything was changed")?;
    // fio's own words are at the begin of each of its blocks.
    let slot = served.slot_of(|start| start % 128 != 0)?;
    Disk::open(disks.spare())?.fill(slot, 1, 0)?;
    verify().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_runs_are_one() {
        for seed in 0..20 {
            let bad = runs(seed);
            let ends = bad.windows(2).filter(|pair| pair[0] + 1 < pair[1]).count() + 1;
            assert_eq!(ends, RUNS, "seed {seed}");
        }
    }
}
