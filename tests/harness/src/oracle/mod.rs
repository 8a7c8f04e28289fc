//! What may be read, and which errors the script justifies. It knows what applications asked, what
//! they were told, and what the script did; nothing of maps, slots or metadata.

mod excuse;
mod history;

pub use excuse::{FailedPlace, Trouble};

use excuse::Excuses;
use history::History;

use crate::kernel::{Failure, GARBAGE, Io, IoKind};
use crate::script::{Config, Which};

struct Reading {
    id: u64,
    start: u64,
    /// Of each sector: what may be found, and its version when the read began.
    allowed: Vec<(Vec<u64>, u64)>,
}

pub struct Oracle {
    history: History,
    pub excuses: Excuses,
    reading: Vec<Reading>,
    /// I/Os under way and when they were submitted, in time and in order.
    under_way: Vec<(u64, u64)>,
    order: u64,
    sectors: u64,
    hold_us: u64,
    lying: bool,
    /// Under a flush that lies, after a power cut anything may be read.
    blind: bool,
    /// Reads that failed.
    pub not_read: Vec<(u64, u64)>,
    pub done: u64,
    pub errors: u64,
    pub violation: Option<String>,
    trace: bool,
}

impl Oracle {
    pub fn new(config: &Config, trace: bool) -> Oracle {
        Oracle {
            history: History::new(config.sectors),
            excuses: Excuses::new(config),
            reading: Vec::new(),
            under_way: Vec::new(),
            order: 0,
            sectors: config.sectors,
            hold_us: config.hold_ms.max(config.ready_ms) * 1000,
            lying: config.lying_flush,
            blind: false,
            not_read: Vec::new(),
            done: 0,
            errors: 0,
            violation: None,
            trace,
        }
    }

    pub fn violate(&mut self, what: String) {
        if self.trace {
            println!("VIOLATION: {what}");
        }
        self.violation.get_or_insert(what);
    }

    fn next(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// A table with that limit is loaded.
    pub fn hold(&mut self, ms: u64) {
        self.hold_us = self.hold_us.max(ms * 1000);
    }

    pub fn longest_hold(&self) -> u64 {
        self.hold_us
    }

    pub fn pending(&self) -> usize {
        self.under_way.len()
    }

    pub fn submit(&mut self, io: &Io) {
        let order = self.next();
        self.under_way.push((io.id, order));
        match io.kind {
            IoKind::Flush => {}
            IoKind::Write => {
                self.history.submit(io.id, io.start, io.len, order);
                for reading in &mut self.reading {
                    let end = reading.start + reading.allowed.len() as u64;
                    for sector in io.start.max(reading.start)..(io.start + io.len).min(end) {
                        reading.allowed[(sector - reading.start) as usize].0.push(io.id);
                    }
                }
                self.excuses.write_begins(io.start, io.len);
            }
            IoKind::Read => {
                let allowed = (io.start..io.start + io.len).map(|s| self.history.live(s)).collect();
                self.reading.push(Reading { id: io.id, start: io.start, allowed });
            }
        }
    }

    pub fn complete(&mut self, io: &Io, now: u64) {
        let order = self.next();
        let Some(at) = self.under_way.iter().position(|&(id, _)| id == io.id) else {
            return self.violate(format!("I3: io {} completes a second time", io.id));
        };
        let (_, begun) = self.under_way.swap_remove(at);
        self.done += 1;
        let ok = io.failures.is_empty();
        let most = self.hold_us + self.excuses.delay(io.submitted) + 2_000_000;
        if now - io.submitted > most {
            self.violate(format!("I3: io {} took {} ms", io.id, (now - io.submitted) / 1000));
        }
        if !ok {
            self.errors += 1;
            let unjustified = |failure| Some((failure, self.excuses.admit(io, failure).err()?));
            let found = io.failures.iter().find_map(unjustified).filter(|_| !self.blind);
            if let Some((Failure { start, len, status, why }, unjustified)) = found {
                self.violate(format!(
                    "io {} ({:?} {}+{}) failed at {start}+{len} with {status:?} for {why:?}: \
                     {unjustified}",
                    io.id, io.kind, io.start, io.len
                ));
            }
        }
        match io.kind {
            IoKind::Flush if ok => {
                self.history.flushed(begun);
                // The daemon may have to tell of a flush of its own yet.
                self.excuses.set_if_endless(Trouble::Flush, now + 10_000_000);
            }
            IoKind::Flush => {}
            IoKind::Write => {
                self.history.complete(io.id, io.start, io.len, order, ok, io.fua);
                self.excuses.write_ends((io.start, io.len), io.submitted, ok, now);
            }
            IoKind::Read => self.read(io, ok),
        }
    }

    fn read(&mut self, io: &Io, ok: bool) {
        let Some(at) = self.reading.iter().position(|r| r.id == io.id) else { return };
        let reading = self.reading.swap_remove(at);
        if !ok {
            self.not_read.push((io.start, io.len));
        }
        if !ok || self.blind {
            return;
        }
        let mut found = io.found.clone();
        found.sort_unstable();
        if !found.iter().map(|&(sector, _)| sector).eq(io.start..io.start + io.len) {
            return self.violate(format!("io {} did not read each of its sectors once", io.id));
        }
        for ((sector, tag), (allowed, version)) in found.into_iter().zip(reading.allowed) {
            if !allowed.contains(&tag) {
                let tag = if tag == GARBAGE { "what nobody wrote".into() } else { tag.to_string() };
                let text = format!("I1/I2: sector {sector} reads {tag}, want one of {allowed:?}");
                return self.violate(text);
            }
            self.history.seen(sector, tag, version);
        }
    }

    /// `own`: the daemon sent it.
    pub fn flush_failed(&mut self, disk: Which, now: u64, own: bool) {
        self.history.flush_failed(own);
        for reading in &mut self.reading {
            for (sector, (allowed, _)) in (reading.start..).zip(&mut reading.allowed) {
                allowed.extend(self.history.live(sector).0);
            }
        }
        self.excuses.set(Trouble::Flush, u64::MAX);
        if disk == Which::Spare {
            // What was placed under it is placed again.
            let (at, len) = (now, self.sectors);
            self.excuses.place_failed(FailedPlace { at, start: 0, len, rest: false });
            self.excuses.trouble(Trouble::Spare, now + 10_000_000);
        }
    }

    pub fn power_cut(&mut self) {
        let order = self.next();
        self.history.power_cut(order);
        self.reading.clear();
        self.under_way.clear();
        self.blind |= self.lying;
        self.excuses.power_cut();
    }
}
