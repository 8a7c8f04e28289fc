//! The steps of a script, carried out; and what each of them excuses.

use dmremap_policyd::core::{At, Span};
use dmremap_policyd::driver::reader::Job;
use dmremap_policyd::units::{Sector, Slot};

use crate::disk::{BAD_READ, Disk};
use crate::kernel::{Cell, IoKind};
use crate::oracle::Trouble;
use crate::script::{Op, Which};
use crate::sys::{Ev, Stop, Sys};

/// Applications have no more I/O under way.
const MOST: usize = 48;
/// After a trouble the daemon may need this long to get over it, in microseconds.
pub const GRACE: u64 = 5_000_000;

impl Sys {
    pub(crate) fn step(&mut self) {
        let Some(step) = self.steps.next() else { return };
        self.say(|| format!("{:?}", step.op));
        self.carry_out(step.op);
        if let Some(next) = self.steps.as_slice().first() {
            let after = next.after;
            self.kernel_in(after, Ev::Step);
        }
    }

    pub fn disk(&mut self, which: Which) -> &mut Disk {
        match which {
            Which::Data => &mut self.data,
            Which::Spare => &mut self.spare,
        }
    }

    fn trouble(&mut self, trouble: Trouble, us: u64) {
        let until = self.now.saturating_add(us);
        self.oracle.excuses.trouble(trouble, until);
    }

    /// A write to the spare has failed: it may be more than one mirror, or one place, can take.
    pub(crate) fn hiccuped(&mut self) {
        if std::mem::take(&mut self.spare.hiccuped) {
            self.trouble(Trouble::Spare, GRACE);
            self.trouble(Trouble::Verdict, GRACE);
        }
    }

    fn ask(&mut self, kind: IoKind, start: u64, len: u64, fua: bool, ahead: bool) {
        if self.k.on && self.removing.is_none() && self.oracle.pending() < MOST {
            self.tags += 1;
            let tag = self.tags;
            self.say(|| format!("  io {tag}"));
            self.submit(tag, kind, (start, len), fua, ahead);
        }
    }

    /// Which of its places tell whether the disk answers: those that are not part of known damage. A search, of the few
    /// blocks that an I/O here has, reads again what fails, and looks nowhere else.
    pub(crate) fn tells_of_its_disk(&self, job: &Job) -> Vec<bool> {
        let tells = |span: &Span| match span.at {
            At::Data(Sector(at)) => {
                let end = at + span.len.0;
                let known = |at: u64| self.k.cells.get(at as usize) != Some(&Cell::Direct);
                !(at..end).any(known) && !self.k.faults.iter().any(|f| f.overlaps(at, end - at))
            }
            At::Spare(Slot(at)) => (self.slot_area()..self.mirror(1)).contains(&at),
        };
        job.spans.iter().map(|span| job.retries == 0 && tells(span)).collect()
    }

    /// How much longer this takes.
    pub(crate) fn slowness(&mut self, job: &Job) -> u64 {
        let disks = [Which::Data, Which::Spare];
        let on = |spare| job.spans.iter().any(|span| matches!(span.at, At::Spare(_)) == spare);
        let slow = disks.into_iter().filter(|&disk| on(disk == Which::Spare));
        slow.map(|disk| std::mem::take(&mut self.slow[disk as usize])).sum()
    }

    /// By chance every place where the daemon looked whether the disk answers was bad: a storm, to its eyes. Reads are
    /// repeated for seconds before the next trial ends, and that may prove nothing either.
    pub(crate) fn found_silence(&mut self) {
        self.trouble(Trouble::Verdict, 4 * GRACE);
    }

    /// The daemon is not there for a time.
    fn away(&mut self, ms: u64) {
        let us = ms * 1000;
        if us * 3 > self.config.hold_ms.min(self.config.ready_ms) * 1000 {
            self.trouble(Trouble::Away, us + GRACE);
        }
    }

    /// The daemon writes a superblock.
    pub(crate) fn at_superblock(&mut self) {
        match self.gone_at.take() {
            Some((0, ms)) => {
                self.say(|| "  the spare goes away".to_owned());
                self.cover.trouble("gone in a superblock");
                self.spare.gone = true;
                self.disk_away(Which::Spare, ms);
            }
            Some((copies, ms)) => self.gone_at = Some((copies - 1, ms)),
            None => {}
        }
    }

    /// The disk answers nothing well, and is back after a time.
    fn disk_away(&mut self, disk: Which, ms: u64) {
        self.kernel_in(ms * 1000, Ev::Back(disk == Which::Spare));
        self.trouble(Trouble::Gone, ms * 1000 + GRACE);
        self.trouble(Trouble::Verdict, ms * 1000 + GRACE);
        if disk == Which::Spare {
            self.trouble(Trouble::Spare, ms * 1000 + GRACE);
        }
    }

    fn mute(&mut self, mirrors: u8, back: Option<u32>, ms: u64) {
        let all = 0..self.slot_area() - self.mirror(0);
        let record = back.map(|back| self.log.iter().rev().nth(back as usize).copied());
        let within = match record {
            None => all,
            Some(Some(at)) => at..at + 8,
            Some(None) => return,
        };
        for mirror in (0..2).filter(|mirror| mirrors >> mirror & 1 != 0) {
            let from = self.mirror(mirror);
            self.spare.mute.push(from + within.start..from + within.end);
        }
        if mirrors == 3 {
            // Refused until it can be read again; what is served then is all of it.
            self.trouble(Trouble::Spare, ms * 1000 + GRACE);
        }
        self.kernel_in(ms * 1000, Ev::Unmute);
    }

    fn carry_out(&mut self, op: Op) {
        match &op {
            Op::Write { .. } | Op::Read { .. } | Op::Flush | Op::Rest { .. } => {}
            Op::Remade { anew: true, .. } => self.cover.trouble("module anew"),
            trouble => {
                let text = format!("{trouble:?}");
                self.cover.trouble(text.split(' ').next().unwrap_or_default());
            }
        }
        match op {
            Op::Write { start, len, fua } => self.ask(IoKind::Write, start, len, fua, false),
            Op::Read { start, len, ahead } => self.ask(IoKind::Read, start, len, false, ahead),
            Op::Flush => self.ask(IoKind::Flush, 0, 0, false, false),
            Op::Bad { start, len, flags } => {
                self.data.mark(start, len, flags);
                self.oracle.excuses.went_bad(start, len, flags, self.now);
            }
            Op::Hiccup { disk, writes } => {
                self.disk(disk).hiccups += writes;
                self.oracle.excuses.spoil(self.now);
            }
            Op::BadSlots { unit, units, flags } => {
                let from = self.slot_area();
                self.spare.mark(from + unit * 8, units * 8, flags);
                self.oracle.excuses.spoil(self.now);
                self.damaged(0, self.config.sectors);
            }
            Op::BadMirror { mirror, block, blocks, flags } => {
                self.mirror_unreadable |= flags & BAD_READ != 0;
                let from = self.mirror(mirror) + block * 8;
                let end = if mirror == 0 { self.slot_area() } else { self.spare.sectors };
                self.spare.mark(from, (blocks * 8).min(end.saturating_sub(from)), flags);
            }
            Op::Mute { mirrors, back, ms } => self.mute(mirrors, back, ms),
            Op::BadCopies { copies, flags } => {
                for (n, sector) in [0, 1024, 2048, 4096, 8192].into_iter().enumerate() {
                    if copies >> n & 1 != 0 {
                        self.spare.mark(sector, 8, flags);
                    }
                }
            }
            Op::FailFlush { disk, flushes, drops } => {
                self.disk(disk).bad_flushes += flushes;
                self.disk(disk).drops = drops;
                self.trouble(Trouble::Flush, GRACE);
            }
            Op::Slow { disk, ms } => {
                self.slow[disk as usize] = ms * 1000;
                // Whenever that is.
                self.oracle.excuses.delayed(u64::MAX, ms * 1000);
                self.away(ms);
            }
            Op::Gone { disk, ms } => {
                self.disk(disk).gone = true;
                self.disk_away(disk, ms);
            }
            Op::GoneAtSuperblock { copies, ms } => self.gone_at = Some((copies, ms)),
            // One right after another could fail a block twice, and nothing between: such a block is bad.
            Op::Storm { disk, ms } if self.now >= self.next_storm => {
                self.disk(disk).storm = true;
                self.next_storm = self.now + ms * 1000 + GRACE;
                self.disk_away(disk, ms);
                if disk == Which::Data {
                    self.storm_since = self.now;
                }
            }
            Op::Kill { back_ms } => self.crash(Stop::Kill { back_ms }),
            Op::PowerCut { off_ms } => self.crash(Stop::Cut { off_ms }),
            Op::KillAfter { ios, back_ms } => self.fuse = Some((ios, Stop::Kill { back_ms })),
            Op::CutAfter { ios, off_ms } => self.fuse = Some((ios, Stop::Cut { off_ms })),
            Op::Restart { back_ms } => self.crash(Stop::Restart { back_ms }),
            Op::Stop { ms } => {
                self.away(ms);
                self.crash(Stop::Pause { ms });
            }
            Op::LoseClaim if self.k.on => self.owner_gone(),
            Op::Rival { ms } if self.k.on => {
                self.away(ms);
                self.rival(ms);
            }
            Op::Misdirect { part, skip } => self.astray = Some((part, skip)),
            Op::Enobufs => self.bells += 1,
            Op::Suspend { noflush, ms, hold_ms } if self.k.on => {
                let us = ms * 1000 + hold_ms * 1000;
                self.oracle.excuses.delayed(self.now + us, us);
                self.oracle.hold(hold_ms);
                self.suspend(noflush, ms, hold_ms);
            }
            Op::Remade { ms, anew } if self.k.on => self.removing = Some((ms, anew)),
            Op::RolledBack { back_ms } => match &self.snapshot {
                None if self.k.owner == 0 => {}
                None => self.snapshot = Some((self.spare.live(), self.k.id, self.k.commits)),
                // One commit may have been under way.
                Some((_, id, commits)) if *id == self.k.id && commits + 1 < self.k.commits => {
                    self.crash(Stop::RolledBack { back_ms });
                }
                Some(_) => self.snapshot = None,
            },
            Op::Swapped { disk, back_ms } => self.crash(Stop::Swapped { disk, back_ms }),
            Op::Rest { .. }
            | Op::LoseClaim
            | Op::Rival { .. }
            | Op::Suspend { .. }
            | Op::Remade { .. }
            | Op::Storm { .. } => {}
        }
    }

    /// Of these sectors, what is in slots that cannot be read.
    pub(crate) fn damaged(&mut self, start: u64, len: u64) {
        for sector in start..start + len {
            let slot = self.k.cells[sector as usize].slot();
            if slot.is_some_and(|slot| self.spare.is_unreadable(slot)) {
                self.oracle.excuses.slot_went_bad(sector, self.now);
            }
        }
    }

    /// Of two crashes at once the first one counts.
    fn crash(&mut self, stop: Stop) {
        self.stop.get_or_insert(stop);
    }
}
