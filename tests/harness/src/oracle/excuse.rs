//! Which errors the script justifies. An I/O is excused by a trouble that lasted until after it was
//! submitted; what nothing excuses must succeed.

use crate::disk::{BAD_READ, BAD_WRITE, HEALS, worse};
use crate::kernel::{Failure, Io, IoKind, Sts, Why};
use crate::script::Config;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The daemon was away for as long as a hold may last.
    Away,
    /// Nobody had claimed the instance.
    Unowned,
    /// Something happened for which the daemon may give up.
    Verdict,
    /// A disk did not answer.
    Gone,
    /// A flush failed, and no later one has told its caller yet.
    Flush,
    /// The spare may be refused for a while.
    Spare,
}

/// Failed places after which the daemon gives a write up.
const PLACES: usize = 4;

#[derive(Clone, Copy, Default)]
struct Sector {
    flags: u8,
    was_bad: bool,
    seemed_bad: bool,
    tried_in_a_storm: bool,
    /// Reads that began before this may find the data disk's damage.
    unreadable_until: u64,
    /// Writes under way that began while it refused writes; and all.
    refused: u32,
    under_way: u32,
    /// A write that began before may have passed it by, and not have healed it.
    worse_since: u64,
    /// The same of the slot that it is in.
    slot_worse_since: u64,
}

pub struct Excuses {
    until: [u64; 6],
    sectors: Vec<Sector>,
    /// Added to the deadlines of what is submitted up to a time: that, and how much.
    delays: Vec<(u64, u64)>,
    short_holds: bool,
    few_holds: bool,
    failed_places: Vec<FailedPlace>,
    /// When sectors or slots went bad, or writes were to fail.
    spoilt: Vec<u64>,
}

/// A PLACE that failed, of a fault that has these sectors.
pub struct FailedPlace {
    pub at: u64,
    pub start: u64,
    pub len: u64,
    /// For what was to stay where it is, and not for a slot.
    pub rest: bool,
}

impl Excuses {
    pub fn new(config: &Config) -> Excuses {
        Excuses {
            until: [0; 6],
            sectors: vec![Sector::default(); config.sectors as usize],
            delays: Vec::new(),
            short_holds: config.hold_ms.min(config.ready_ms) < 30_000,
            few_holds: config.max_held < 64,
            failed_places: Vec::new(),
            spoilt: Vec::new(),
        }
    }

    /// I/O that is submitted up to then is excused.
    pub fn trouble(&mut self, trouble: Trouble, until: u64) {
        let at = &mut self.until[trouble as usize];
        *at = (*at).max(until);
    }

    pub fn set(&mut self, trouble: Trouble, until: u64) {
        self.until[trouble as usize] = until;
    }

    /// What was to last until somebody does something ends.
    pub fn set_if_endless(&mut self, trouble: Trouble, until: u64) {
        let at = &mut self.until[trouble as usize];
        *at = if *at == u64::MAX { until } else { *at };
    }

    pub fn lasts(&self, trouble: Trouble, now: u64) -> bool {
        now <= self.until[trouble as usize]
    }

    pub fn place_failed(&mut self, place: FailedPlace) {
        self.failed_places.push(place);
    }

    /// May a write be given up for its places? What was to stay may turn out to be bad once, and once more
    /// whenever something goes bad meanwhile, or a slot fails in the same PLACE and hides it.
    fn could_not_be_placed(&self, io: &Io, start: u64, len: u64) -> bool {
        let its = |place: &&FailedPlace| {
            place.at >= io.submitted && place.start < start + len && start < place.start + place.len
        };
        let (rest, slots): (Vec<_>, Vec<_>) =
            self.failed_places.iter().filter(its).partition(|place| place.rest);
        let spoilt = self.spoilt.iter().filter(|&&at| at >= io.submitted).count();
        io.kind == IoKind::Write && slots.len() + rest.len().min(1 + spoilt + slots.len()) >= PLACES
    }

    pub fn delayed(&mut self, until: u64, us: u64) {
        self.delays.push((until, us));
    }

    pub fn delay(&self, submitted: u64) -> u64 {
        self.delays.iter().filter(|&&(until, _)| submitted <= until).map(|&(_, us)| us).sum()
    }

    pub fn went_bad(&mut self, start: u64, len: u64, flags: u8, now: u64) {
        self.spoilt.push(now);
        for sector in self.range(start, len) {
            sector.flags = worse(sector.flags, flags);
            sector.was_bad = true;
            sector.worse_since = now;
            if flags & BAD_READ != 0 {
                sector.unreadable_until = u64::MAX;
            }
        }
    }

    /// It is in a slot that cannot be read.
    pub fn slot_went_bad(&mut self, sector: u64, now: u64) {
        let sector = &mut self.sectors[sector as usize];
        sector.unreadable_until = u64::MAX;
        sector.slot_worse_since = now;
    }

    /// Something else is to fail.
    pub fn spoil(&mut self, now: u64) {
        self.spoilt.push(now);
    }

    /// The write that was to show whether these are bad failed, though they are sound.
    pub fn seemed_bad(&mut self, start: u64, len: u64) {
        self.range(start, len).for_each(|s| s.seemed_bad = true);
    }

    /// The write that was to show whether these are bad failed in a storm. When it is over the disk is sound
    /// elsewhere, and they may be mapped. A read is repeated then.
    pub fn tried_in_a_storm(&mut self, start: u64, len: u64) {
        self.range(start, len).for_each(|s| s.tried_in_a_storm = true);
    }

    pub fn may_map(&self, sector: u64) -> bool {
        self.sectors[sector as usize].tried_in_a_storm || self.seemed_bad_itself(sector)
    }

    /// Without a storm.
    pub fn seemed_bad_itself(&self, sector: u64) -> bool {
        let Sector { was_bad, seemed_bad, .. } = self.sectors[sector as usize];
        was_bad || seemed_bad
    }

    pub fn was_bad(&self, sector: u64) -> bool {
        self.sectors[sector as usize].was_bad
    }

    fn range(&mut self, start: u64, len: u64) -> impl Iterator<Item = &mut Sector> {
        let end = (start + len).min(self.sectors.len() as u64) as usize;
        self.sectors[start as usize..end].iter_mut()
    }

    pub fn write_begins(&mut self, start: u64, len: u64) {
        for sector in self.range(start, len) {
            sector.under_way += 1;
            sector.refused += u32::from(sector.flags & BAD_WRITE != 0);
        }
    }

    /// Acknowledged or not, at a time.
    pub fn write_ends(&mut self, (start, len): (u64, u64), begun: u64, acked: bool, now: u64) {
        for sector in self.range(start, len) {
            // All that are under way began under the refusal: whichever this is, it is in a slot.
            let in_slot = sector.refused == sector.under_way;
            sector.under_way -= 1;
            let early = begun <= sector.worse_since;
            sector.refused =
                sector.refused.saturating_sub(u32::from(sector.flags & BAD_WRITE != 0));
            if !acked {
                continue;
            }
            if sector.flags & HEALS != 0 && sector.flags & BAD_WRITE == 0 && !early {
                sector.flags = 0;
            }
            let slot_early = sector.slot_worse_since > 0 && begun <= sector.slot_worse_since;
            if (in_slot || sector.flags & BAD_READ == 0) && !slot_early {
                sector.unreadable_until = sector.unreadable_until.min(now);
            }
        }
    }

    pub fn power_cut(&mut self) {
        for sector in &mut self.sectors {
            sector.under_way = 0;
            sector.refused = 0;
        }
    }

    fn excused(&self, io: &Io, trouble: Trouble) -> bool {
        io.submitted <= self.until[trouble as usize]
    }

    pub fn admit(&self, io: &Io, failure: &Failure) -> Result<(), &'static str> {
        let Failure { start, len, status, why } = *failure;
        let sectors = start as usize..(start + len) as usize;
        let unreadable = |s: &Sector| io.submitted <= s.unreadable_until;
        let (ok, why) = match why {
            Why::Ahead => (io.ahead, "it was no read-ahead"),
            Why::Poison => (
                io.kind == IoKind::Read && self.sectors[sectors].iter().any(unreadable),
                "what was written last can be read",
            ),
            Why::Class if status != Sts::Other => (io.ahead, "an error of the medium passed up"),
            Why::Class => (self.excused(io, Trouble::Gone), "both disks were there"),
            Why::Failed => (
                self.excused(io, Trouble::Verdict)
                    || self.excused(io, Trouble::Gone)
                    || self.could_not_be_placed(io, start, len),
                "the daemon had no reason to give up",
            ),
            Why::Expired => (
                self.short_holds || self.excused(io, Trouble::Away),
                "the daemon was there in time",
            ),
            Why::Unowned => (self.excused(io, Trouble::Unowned), "the instance was owned"),
            Why::Bound => (self.few_holds, "there was room to hold it"),
            Why::Flush => (
                self.excused(io, Trouble::Flush) || self.excused(io, Trouble::Gone),
                "no flush had failed",
            ),
            Why::None => (false, "for no reason"),
        };
        if ok { Ok(()) } else { Err(why) }
    }
}

#[cfg(test)]
mod tests;
