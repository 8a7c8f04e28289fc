//! The contents that each sector may have. Orders are positions in the sequence of all submissions
//! and completions.
//!
//! A content is out of date once a write that was submitted after it had ended is acknowledged. What
//! is out of date is not read any more; after a power cut it is, unless a flush that was sent after
//! the acknowledgement has succeeded, or the write was FUA.

use std::collections::BTreeSet;

/// What every sector holds at first.
pub const BLANK: u64 = 0;

#[derive(Debug, Clone)]
struct Content {
    tag: u64,
    begun: u64,
    /// `u64::MAX`: not ended.
    ended: u64,
    acked: bool,
    live: bool,
    /// A flush failed after it was sent: no later one can cover it.
    doomed: bool,
    /// It was the daemon's own, and a flush behind FUA may succeed before the kernel hears of it.
    untold: bool,
}

impl Content {
    fn new(tag: u64, begun: u64, ended: u64, acked: bool) -> Content {
        Content { tag, begun, ended, acked, live: true, doomed: false, untold: false }
    }
}

#[derive(Default, Clone)]
struct Sector {
    contents: Vec<Content>,
    /// Rises with every beginning and end of a write.
    version: u64,
}

pub struct History {
    sectors: Vec<Sector>,
    /// Sectors with more than one content.
    dirty: BTreeSet<u64>,
    cut: u64,
}

impl History {
    pub fn new(sectors: u64) -> History {
        History {
            sectors: vec![Sector::default(); sectors as usize],
            dirty: BTreeSet::new(),
            cut: 0,
        }
    }

    fn sector(&mut self, sector: u64) -> &mut Sector {
        let found = &mut self.sectors[sector as usize];
        if found.contents.is_empty() {
            found.contents.push(Content::new(BLANK, 0, 0, true));
        }
        found
    }

    pub fn submit(&mut self, tag: u64, start: u64, len: u64, begun: u64) {
        for at in start..start + len {
            let sector = self.sector(at);
            sector.version += 1;
            sector.contents.push(Content::new(tag, begun, u64::MAX, false));
            self.dirty.insert(at);
        }
    }

    pub fn complete(&mut self, tag: u64, start: u64, len: u64, ended: u64, acked: bool, fua: bool) {
        for at in start..start + len {
            let sector = self.sector(at);
            sector.version += 1;
            let Some(i) = sector.contents.iter().position(|c| c.tag == tag) else { continue };
            sector.contents[i].ended = ended;
            sector.contents[i].acked = acked;
            let (begun, lost) = (sector.contents[i].begun, sector.contents[i].doomed);
            if !acked {
                continue;
            }
            if fua && !sector.contents[i].untold {
                sector.contents.retain(|c| c.ended >= begun);
            }
            // What a flush that failed meanwhile has lost hides nothing.
            for c in sector.contents.iter_mut().filter(|c| c.ended < begun && !lost) {
                c.live = false;
            }
        }
    }

    /// What may be read, and the version that says so.
    pub fn live(&mut self, at: u64) -> (Vec<u64>, u64) {
        let sector = self.sector(at);
        let live = sector.contents.iter().filter(|c| c.live).map(|c| c.tag).collect();
        (live, sector.version)
    }

    /// A read found this content; nothing else will be found until something is written.
    pub fn seen(&mut self, at: u64, tag: u64, version: u64) {
        let cut = self.cut;
        let sector = self.sector(at);
        let pending = sector.contents.iter().any(|c| c.ended == u64::MAX);
        if sector.version != version || pending || sector.contents.len() == 1 {
            return;
        }
        if sector.contents.iter().all(|c| c.ended <= cut) {
            sector.contents.retain(|c| c.tag == tag);
        }
        sector.contents.iter_mut().for_each(|c| c.live = c.tag == tag);
    }

    /// A flush that was sent at `sent` has succeeded.
    pub fn flushed(&mut self, sent: u64) {
        let mut still = BTreeSet::new();
        for at in std::mem::take(&mut self.dirty) {
            let contents = &mut self.sectors[at as usize].contents;
            let covered = |c: &&Content| c.acked && !c.doomed && c.ended < sent;
            if let Some(newest) = contents.iter().filter(covered).map(|c| c.begun).max() {
                contents.retain(|c| c.ended >= newest);
            }
            if contents.len() > 1 {
                still.insert(at);
            }
        }
        self.dirty = still;
    }

    /// `own`: the daemon sent it.
    pub fn flush_failed(&mut self, own: bool) {
        for &at in &self.dirty {
            self.sectors[at as usize].version += 1;
            for c in &mut self.sectors[at as usize].contents {
                c.doomed = true;
                c.untold |= own;
                c.live = true;
            }
        }
    }

    pub fn power_cut(&mut self, order: u64) {
        self.cut = order;
        for &at in &self.dirty {
            let sector = &mut self.sectors[at as usize];
            sector.version += 1;
            for c in &mut sector.contents {
                c.ended = c.ended.min(order);
                c.acked = false;
                c.live = true;
                c.doomed = false;
                c.untold = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(history: &mut History) -> Vec<u64> {
        history.live(0).0
    }

    #[test]
    fn an_acknowledged_write_hides_what_ended_before_it_and_a_cut_shows_what_was_not_flushed() {
        let mut h = History::new(1);
        h.submit(7, 0, 1, 1);
        assert_eq!(live(&mut h), [BLANK, 7]);
        h.complete(7, 0, 1, 2, true, false);
        assert_eq!(live(&mut h), [7]);
        h.submit(8, 0, 1, 3);
        h.complete(8, 0, 1, 4, true, false);
        h.flushed(3);
        h.power_cut(5);
        assert_eq!(live(&mut h), [7, 8]);
        let version = h.live(0).1;
        h.seen(0, 8, version);
        h.power_cut(6);
        assert_eq!(live(&mut h), [8]);
    }

    #[test]
    fn of_two_writes_at_once_either_may_be_last() {
        let mut h = History::new(1);
        h.submit(7, 0, 1, 1);
        h.submit(8, 0, 1, 2);
        h.complete(8, 0, 1, 3, true, true);
        h.complete(7, 0, 1, 4, true, false);
        assert_eq!(live(&mut h), [7, 8]);
        h.power_cut(5);
        assert_eq!(live(&mut h), [7, 8]);
    }

    #[test]
    fn no_flush_covers_what_an_earlier_one_has_failed_for() {
        let mut h = History::new(1);
        h.submit(7, 0, 1, 1);
        h.complete(7, 0, 1, 2, true, false);
        h.flush_failed(false);
        assert_eq!(live(&mut h), [BLANK, 7]);
        h.flushed(3);
        h.power_cut(4);
        assert_eq!(live(&mut h), [BLANK, 7]);
    }
}
