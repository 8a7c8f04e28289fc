//! A disk with a volatile cache: what a reader sees, what is durable, and the writes in between.
//!
//! A power cut keeps or loses each sector of those by itself. After a failed flush they are doomed:
//! no later flush makes them durable. A metadata block that was being written may be torn as a whole.

use std::ops::Range;
use std::sync::Arc;

use crate::rng::Rng;

pub const SECTOR: usize = 512;
const PAGE: usize = 4096;
const PER_PAGE: u64 = (PAGE / SECTOR) as u64;

/// What a sector does, by bits.
pub const BAD_READ: u8 = 1;
pub const BAD_WRITE: u8 = 2;
/// A write that succeeds makes it readable again.
pub const HEALS: u8 = 4;

/// The newest damage says whether a write heals it.
pub fn worse(old: u8, new: u8) -> u8 {
    (old & !HEALS) | new
}

type Page = Arc<[u8; PAGE]>;

/// Pages that were never written read as zeros.
#[derive(Clone, Default)]
pub struct Image(Vec<Option<Page>>);

impl Image {
    pub fn new(sectors: u64) -> Image {
        Image(vec![None; sectors.div_ceil(PER_PAGE) as usize])
    }

    pub fn read(&self, sector: u64, buf: &mut [u8]) {
        let mut at = sector as usize * SECTOR;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = at % PAGE;
            let len = rest.len().min(PAGE - within);
            let (part, tail) = rest.split_at_mut(len);
            match &self.0[at / PAGE] {
                Some(page) => part.copy_from_slice(&page[within..within + len]),
                None => part.fill(0),
            }
            rest = tail;
            at += len;
        }
    }

    /// What the page becomes when the sectors of `mask` are those of `data`.
    fn merged(&self, page: usize, data: &Page, mask: u8) -> Page {
        if mask == 0xff {
            return data.clone();
        }
        let mut new = self.copy(page);
        let to = Arc::make_mut(&mut new);
        for i in (0..PER_PAGE as usize).filter(|i| mask >> i & 1 != 0) {
            to[i * SECTOR..(i + 1) * SECTOR].copy_from_slice(&data[i * SECTOR..(i + 1) * SECTOR]);
        }
        new
    }

    fn copy(&self, page: usize) -> Page {
        Arc::new(self.0[page].as_deref().copied().unwrap_or([0; PAGE]))
    }

    /// Writes the sectors that `lands` names; returns the pages that changed, and where.
    fn put(&mut self, sector: u64, buf: &[u8], lands: impl Fn(u64) -> bool) -> Vec<(usize, u8)> {
        let mut out: Vec<(usize, u8)> = Vec::new();
        let (mut at, mut rest) = (sector, buf);
        while !rest.is_empty() {
            let (page, first) = ((at / PER_PAGE) as usize, (at % PER_PAGE) as usize);
            let len = (rest.len() / SECTOR).min(PER_PAGE as usize - first);
            let (part, tail) = rest.split_at(len * SECTOR);
            let mask = (0..len).filter(|&i| lands(at + i as u64));
            let mask = mask.fold(0u8, |mask, i| mask | 1 << (first + i));
            if mask == 0xff {
                self.0[page] = part.try_into().ok().map(|bytes: [u8; PAGE]| Arc::new(bytes));
            } else if mask != 0 {
                let mut new = self.copy(page);
                let to = Arc::make_mut(&mut new);
                for i in (first..first + len).filter(|i| mask >> i & 1 != 0) {
                    let from = (i - first) * SECTOR;
                    to[i * SECTOR..(i + 1) * SECTOR].copy_from_slice(&part[from..from + SECTOR]);
                }
                self.0[page] = Some(new);
            }
            if mask != 0 {
                out.push((page, mask));
            }
            rest = tail;
            at += len as u64;
        }
        out
    }

    pub fn write(&mut self, sector: u64, buf: &[u8]) {
        self.put(sector, buf, |_| true);
    }
}

/// Sectors of a page that may be lost, and what they were to be; the rest of `data` says nothing.
struct Loose {
    page: usize,
    mask: u8,
    data: Page,
    /// Which write it belongs to.
    write: u32,
    doomed: bool,
    metadata: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    Medium,
    /// It does not say why.
    Io,
    /// It is not there.
    Gone,
}

pub struct Disk {
    pub sectors: u64,
    live: Image,
    durable: Image,
    loose: Vec<Loose>,
    writes: u32,
    flags: Vec<u8>,
    any_bad: bool,
    /// Bad sectors say so; otherwise it is a bare I/O error.
    pub says_medium: bool,
    pub gone: bool,
    /// Sectors that cannot be read just now.
    pub mute: Vec<Range<u64>>,
    /// It fails everything, as if all of it were bad.
    pub storm: bool,
    /// Flushes do nothing and succeed.
    pub lying: bool,
    /// So many of the flushes to come fail.
    pub bad_flushes: u32,
    /// A failed flush loses what it should have kept at once, rather than at the next power cut.
    pub drops: bool,
    /// So many of the writes to come fail, although the medium is sound.
    pub hiccups: u32,
    /// One of them has.
    pub hiccuped: bool,
}

impl Disk {
    pub fn new(image: Image, sectors: u64) -> Disk {
        Disk {
            sectors,
            durable: image.clone(),
            live: image,
            loose: Vec::new(),
            writes: 0,
            flags: vec![0; sectors as usize],
            any_bad: false,
            says_medium: true,
            gone: false,
            mute: Vec::new(),
            storm: false,
            lying: false,
            bad_flushes: 0,
            drops: false,
            hiccups: 0,
            hiccuped: false,
        }
    }

    pub fn mark(&mut self, start: u64, len: u64, flags: u8) {
        self.any_bad = true;
        let end = (start + len).min(self.sectors) as usize;
        self.flags[(start as usize).min(end)..end].iter_mut().for_each(|f| *f = worse(*f, flags));
    }

    /// They work again.
    pub fn mend(&mut self, start: u64, len: u64) {
        self.flags[start as usize..(start + len) as usize].fill(0);
    }

    pub fn flags(&self, sector: u64) -> u8 {
        self.flags[sector as usize]
    }

    pub fn live(&self) -> Image {
        self.live.clone()
    }

    fn error(&self) -> DiskError {
        if self.says_medium { DiskError::Medium } else { DiskError::Io }
    }

    /// One sector.
    pub fn is_unreadable(&self, sector: u64) -> bool {
        self.bad(sector, 1, BAD_READ)
    }

    fn bad(&self, start: u64, len: u64, flag: u8) -> bool {
        self.any_bad
            && self.flags[start as usize..(start + len) as usize].iter().any(|f| f & flag != 0)
    }

    pub fn read(&self, sector: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        if self.gone {
            return Err(DiskError::Gone);
        }
        let end = sector + (buf.len() / SECTOR) as u64;
        if self.storm || self.mute.iter().any(|mute| sector < mute.end && end > mute.start) {
            return Err(DiskError::Io);
        }
        if self.bad(sector, (buf.len() / SECTOR) as u64, BAD_READ) {
            return Err(self.error());
        }
        self.live.read(sector, buf);
        Ok(())
    }

    /// `fate` says which sectors of a write that fails land all the same.
    pub fn write(
        &mut self,
        sector: u64,
        buf: &[u8],
        metadata: bool,
        fua: bool,
        fate: u64,
    ) -> Result<(), DiskError> {
        if self.gone {
            return Err(DiskError::Gone);
        }
        let len = (buf.len() / SECTOR) as u64;
        if self.storm {
            self.put(sector, buf, metadata, false, fate);
            return Err(DiskError::Io);
        }
        let hiccup = self.hiccups > 0;
        if hiccup || self.bad(sector, len, BAD_WRITE) {
            self.hiccups = self.hiccups.saturating_sub(1);
            self.hiccuped |= hiccup;
            self.put(sector, buf, metadata, false, fate);
            return Err(self.error());
        }
        if self.any_bad {
            for flags in &mut self.flags[sector as usize..(sector + len) as usize] {
                if *flags & HEALS != 0 {
                    *flags = 0;
                }
            }
        }
        self.put(sector, buf, metadata, fua && !self.lying, u64::MAX);
        Ok(())
    }

    /// A write that has not returned: the sectors that `fate` names have landed.
    pub fn put(&mut self, sector: u64, buf: &[u8], metadata: bool, fua: bool, fate: u64) {
        self.writes += 1;
        let flags = &self.flags;
        let lands =
            |at: u64| fate >> ((at - sector) % 64) & 1 != 0 && flags[at as usize] & BAD_WRITE == 0;
        for (page, mask) in self.live.put(sector, buf, lands) {
            let Some(data) = self.live.0[page].clone() else { continue };
            if fua {
                self.settle(page, &data, mask);
                self.loose.iter_mut().filter(|l| l.page == page).for_each(|l| l.mask &= !mask);
                continue;
            }
            self.loose.push(Loose {
                page,
                mask,
                data,
                write: self.writes,
                doomed: false,
                metadata,
            });
        }
    }

    pub fn flush(&mut self) -> Result<(), DiskError> {
        if self.gone {
            return Err(DiskError::Gone);
        }
        if self.storm || self.bad_flushes > 0 {
            self.bad_flushes = self.bad_flushes.saturating_sub(1);
            self.loose.iter_mut().for_each(|loose| loose.doomed = true);
            if self.drops {
                self.loose.clear();
                self.live = self.durable.clone();
            }
            return Err(DiskError::Io);
        }
        if self.lying {
            return Ok(());
        }
        let mut still: Vec<Loose> = Vec::new();
        for loose in std::mem::take(&mut self.loose) {
            if loose.doomed {
                still.push(loose);
                continue;
            }
            self.settle(loose.page, &loose.data, loose.mask);
            for old in still.iter_mut().filter(|old| old.page == loose.page) {
                old.mask &= !loose.mask;
            }
        }
        still.retain(|old| old.mask != 0);
        self.loose = still;
        Ok(())
    }

    fn settle(&mut self, page: usize, data: &Page, mask: u8) {
        self.durable.0[page] = Some(self.durable.merged(page, data, mask));
    }

    /// The power fails.
    pub fn cut(&mut self, rng: &mut Rng) {
        let loose = std::mem::take(&mut self.loose);
        let way = rng.below(5);
        let last = self.writes;
        let some = rng.below(u64::from(last) + 1) as u32;
        let (mut write, mut keep) = (u32::MAX, 0);
        for l in loose {
            if l.write != write {
                write = l.write;
                keep = match way {
                    0 => 0,
                    1 => 0xff,
                    2 => [0, 0xff][rng.below(2) as usize],
                    3 => rng.bits() as u8,
                    _ if l.write < some => 0xff,
                    _ => rng.bits() as u8 & rng.bits() as u8,
                };
            } else if way == 3 {
                keep = rng.bits() as u8;
            }
            if l.metadata && way > 1 && rng.below(8) == 0 {
                self.settle(l.page, &Arc::new([rng.bits() as u8; PAGE]), 0xff);
            } else {
                self.settle(l.page, &l.data, l.mask & keep);
            }
        }
        self.live = self.durable.clone();
        self.gone = false;
        self.storm = false;
        self.hiccups = 0;
    }
}
