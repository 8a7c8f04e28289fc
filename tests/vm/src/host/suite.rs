//! Runs cases on a kernel: as many as can share a boot in one, the others in their own, and reports each.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::boot::Boot;
use super::disks::Disks;
use super::image::{self, Image};
use super::judge::expect;
use super::kernel::Kernel;
use super::qemu::Machine;
use crate::case::{Case, End, Left};

/// How often the emulator may fail on one kernel before it counts.
const AGAIN: u32 = 5;
/// How long a cut under load waits for something unflushed.
const LOAD: Duration = Duration::from_secs(10);

/// The result of all cases so far.
#[derive(Debug, Default)]
pub struct Tally {
    pub passed: u32,
    /// A line for each that failed, and why.
    pub failed: Vec<String>,
    /// Cases that were run again because the emulator had failed under them.
    pub again: u32,
    /// Cases that are for another kind of kernel.
    pub others: u32,
    pub boots: u32,
    /// Seconds from QEMU's start to the guest's first word, all boots together.
    pub booting: f64,
}

/// A run of cases on one kernel.
pub struct Suite<'a> {
    kernel: &'a Kernel,
    image: Image,
    logs: &'a Path,
    seed: u64,
    tally: Tally,
    again: u32,
}

impl<'a> Suite<'a> {
    /// Logs of the boots go to `logs`, one file each.
    pub fn new(kernel: &'a Kernel, logs: &'a Path, seed: u64, bare: bool) -> Result<Self> {
        fs::create_dir_all(logs)?;
        let image = image::build(kernel, bare)?;
        Ok(Self { kernel, image, logs, seed, tally: Tally::default(), again: 0 })
    }

    /// Runs those of the cases that are for this kernel, a line for each, and one for all.
    pub fn run(mut self, cases: &[Case]) -> Result<Tally> {
        let kind = self.kernel.kind;
        let (cases, others): (Vec<Case>, Vec<Case>) =
            cases.iter().copied().partition(|case| case.fits(kind));
        self.tally.others = u32::try_from(others.len())?;
        let begun = Instant::now();
        let shared: Vec<Case> = cases.iter().copied().filter(Case::shares_boot).collect();
        let mut left = &shared[..];
        while !left.is_empty() {
            left = self.shared_boot(left)?;
        }
        for case in cases.iter().filter(|case| !case.shares_boot()) {
            let start = Instant::now();
            let reasons = loop {
                let (reasons, emulator_failed) = self.own_boots(case)?;
                if !(emulator_failed && self.another_try(case)) {
                    break reasons;
                }
            };
            self.report(case, reasons, start);
        }
        println!(
            "{:<22} took {:.0} s, {:.0} s of it in {} boots",
            self.kernel.release,
            begun.elapsed().as_secs_f64(),
            self.tally.booting,
            self.tally.boots
        );
        Ok(self.tally)
    }

    fn boot(&mut self, drives: &[String], append: &str) -> Result<Boot> {
        let log = self.logs.join(format!("{}-{}.log", self.kernel.release, self.tally.boots));
        let machine = Machine { kernel: self.kernel, image: &self.image, drives, append };
        let mut boot = Boot::start(&machine, &log)?;
        while boot.seen.wrong_clock && self.again < AGAIN {
            println!(
                "{:<22} the emulator was starved, the guest's clock is wrong",
                self.kernel.release
            );
            self.again += 1;
            boot.kill()?;
            boot = Boot::start(&machine, &log)?;
        }
        self.tally.boots += 1;
        self.tally.booting += boot.seconds();
        println!(
            "{:<22} boot {} ready after {:.1} s, {}",
            self.kernel.release,
            self.tally.boots,
            boot.seconds(),
            log.display()
        );
        Ok(boot)
    }

    /// Runs cases in one boot until one spoils it; those that are left. At least one gets its verdict, and all do
    /// if the guest does not come up: it would not the next time either.
    fn shared_boot<'c>(&mut self, cases: &'c [Case]) -> Result<&'c [Case]> {
        let mut boot = self.boot(&[], "")?;
        let mut ran = 0;
        for case in cases {
            let start = Instant::now();
            if boot.seen.broken.is_none() {
                boot.run(case, 0, End::Off, self.seed, &[])?;
            }
            if boot.seen.emulator_failed() && self.another_try(case) {
                boot.kill()?;
                return Ok(&cases[ran..]);
            }
            self.report(case, boot.seen.verdict(case.name), start);
            ran += 1;
            if boot.seen.release.is_some() && !boot.usable() {
                break;
            }
        }
        if boot.seen.dirty.is_none() {
            let was_broken = boot.seen.broken.is_some();
            boot.off()?;
            if let (false, Some(why)) = (was_broken, &boot.seen.broken) {
                self.boot_failed(why);
            }
        }
        boot.kill()?;
        for stray in boot.seen.strays() {
            self.boot_failed(stray);
        }
        Ok(&cases[ran..])
    }

    /// Whether a case is run again because the emulator failed under it.
    fn another_try(&mut self, case: &Case) -> bool {
        let release = &self.kernel.release;
        println!("{release:<22} the emulator failed in boot {}: {}", self.tally.boots, case.name);
        self.again += 1;
        let another = self.again <= AGAIN;
        self.tally.again += u32::from(another);
        another
    }

    /// A fault that belongs to no case counts as a failed one.
    fn boot_failed(&mut self, why: &str) {
        self.failed(format!("boot {}: {why}", self.tally.boots));
    }

    /// Runs every phase of a case over the same disks; why it failed, and whether that was the emulator's doing.
    fn own_boots(&mut self, case: &Case) -> Result<(Vec<String>, bool)> {
        let disks = Disks::new(case, self.kernel)?;
        let (mut facts, mut cuts, mut verdict) = (Vec::new(), Vec::new(), None);
        for (boots, number) in case.numbers().enumerate() {
            let phase = case.phase(number).context("the case has no such phase")?;
            let mut boot = self.boot(&disks.drives, case.append)?;
            if boot.seen.broken.is_none() {
                boot.run(case, number, phase.end, self.seed, &facts)?;
            }
            let mut reasons = match phase.end {
                End::Off => {
                    boot.off()?;
                    boot.seen.verdict(case.name)
                }
                cut => {
                    let must_lose = cut == End::CutUnderLoad && boot.seen.cut_requested;
                    let patience = if must_lose { LOAD } else { Duration::ZERO };
                    // The disks first: nothing that the guest still does can reach them.
                    let lost = disks.cut(self.seed.wrapping_add(number as u64), patience)?;
                    boot.log(&format!("the cut: {lost:?}"))?;
                    boot.kill()?;
                    disks.on()?;
                    let mut reasons = boot.seen.verdict_of_cut(case.name);
                    if must_lose && lost.total().lost == 0 {
                        reasons.push("the cut lost nothing".into());
                    }
                    cuts.push(lost);
                    reasons
                }
            };
            reasons.extend(boot.seen.strays().iter().cloned());
            if reasons.is_empty() {
                reasons.extend(boot.seen.broken.take());
            }
            if let (Some(judge), true) = (case.judge, reasons.is_empty()) {
                match judge(&Left { images: &disks.images, boots: boots + 1, cuts: &cuts }) {
                    Ok(line) => verdict = Some(line),
                    Err(why) => reasons.push(format!("{why:#}")),
                }
            }
            if !reasons.is_empty() {
                let reasons = reasons.iter().map(|why| format!("phase {number}: {why}"));
                return Ok((reasons.collect(), boot.seen.emulator_failed()));
            }
            facts.append(&mut boot.seen.acks);
        }
        if let Some(line) = verdict {
            println!("{:<22}       {line}", self.kernel.release);
        }
        Ok((Vec::new(), false))
    }

    fn report(&mut self, case: &Case, reasons: Vec<String>, start: Instant) {
        let reasons = expect(case.must_fail, reasons);
        let seconds = start.elapsed().as_secs_f64();
        if reasons.is_empty() {
            self.tally.passed += 1;
            println!("{:<22} PASS  {} ({seconds:.1} s)", self.kernel.release, case.name);
        } else {
            self.failed(format!("{} ({seconds:.1} s): {}", case.name, reasons.join("; ")));
        }
    }

    fn failed(&mut self, what: String) {
        let line = format!("{:<22} FAIL  {what}", self.kernel.release);
        println!("{line}");
        self.tally.failed.push(line);
    }
}
