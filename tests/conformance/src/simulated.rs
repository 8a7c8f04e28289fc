//! The kernel's side of `tests/harness`, with nothing left to chance.

use anyhow::Result;
use dmremap_harness::disk::{BAD_READ, BAD_WRITE, Disk as Medium, Image};
use dmremap_harness::kernel::{GARBAGE, IoKind, Sts, Suspend, What as Found};
use dmremap_harness::script::{Config as Setup, Which};
use dmremap_harness::sys::Sys;

use crate::side::{self, ONLOOKER};
use crate::{Access, Config, Disk, Ended, Io, Look, Outcome, Side, State, Status, Step, What};

/// By then everything has happened that happens by itself, but for what waits for time to pass.
pub const SETTLES: u64 = 20_000;

pub struct Simulated(Sys);

fn which(disk: Disk) -> Which {
    match disk {
        Disk::Data => Which::Data,
        Disk::Spare => Which::Spare,
    }
}

impl Simulated {
    #[must_use]
    pub fn new(config: &Config) -> Simulated {
        let setup = Setup {
            sectors: config.sectors,
            spare: config.spare,
            block: 1,
            hold_ms: config.hold_ms,
            ready_ms: config.ready_ms,
            max_held: config.max_held,
            queue_unowned: config.queue_unowned,
            says_medium: config.says_medium,
            emulated_fua: config.emulated_fua,
            record: 0,
            lying_flush: false,
            lost_bells: 0,
            no_memory: 0,
            lost_answers: 0,
            lost_requests: 0,
        };
        let disk = |sectors| {
            let mut disk = Medium::new(Image::new(sectors), sectors);
            disk.says_medium = config.says_medium;
            disk
        };
        let (data, spare) = (disk(config.sectors), disk(config.spare));
        let mut sys = Sys::new(setup, Vec::new(), 1, data, spare, false);
        sys.steady = true;
        sys.switch_on();
        Simulated(sys)
    }

    fn submit(&mut self, io: &Io) {
        let kind = match io.access {
            Access::Read | Access::ReadAhead => IoKind::Read,
            Access::Write | Access::Durable => IoKind::Write,
            Access::Flush => IoKind::Flush,
        };
        let (fua, ahead) = (io.access == Access::Durable, io.access == Access::ReadAhead);
        self.0.submit(io.id, kind, (io.start, io.len), fua, ahead);
    }

    fn look(&self, start: u64, len: u64) -> Look {
        let place = self.0.lookup(start, len);
        let what = match (place.what, place.dest) {
            (Found::Go, Which::Data) => What::Data,
            (Found::Go, Which::Spare) => What::Spare,
            (Found::Fenced, _) => What::Fenced,
            (Found::Poisoned, _) => What::Poisoned,
        };
        let sector = (place.what == Found::Go).then_some(place.sector);
        Look { what, sector, len: place.len }
    }

    fn ended(&mut self) -> Vec<Ended> {
        let ended = std::mem::take(&mut self.0.ended);
        ended
            .into_iter()
            .map(|mut io| {
                io.found.sort_unstable();
                let found = io.found.iter().map(|&(_, tag)| (tag != GARBAGE).then_some(tag));
                let status = match io.status() {
                    Sts::Ok => Status::Ok,
                    Sts::Medium => Status::Medium,
                    Sts::Io => Status::Io,
                    Sts::Other | Sts::Requeue => Status::Other,
                };
                let found = if status == Status::Ok { found.collect() } else { Vec::new() };
                Ended { id: io.id, status, found }
            })
            .collect()
    }
}

impl Side for Simulated {
    fn step(&mut self, step: &Step) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let sys = &mut self.0;
        match *step {
            Step::Ask { port, ref request } => outcome.answer = Some(sys.request(port, request)),
            Step::Close { port } => sys.socket_ends(port),
            Step::Io(ref io) => self.submit(io),
            Step::Rest { ms } => sys.advance(ms * 1000),
            Step::Bad { disk, start, len, reads, writes } => {
                let disk = sys.disk(which(disk));
                disk.mend(start, len);
                let flag = |set, flag| if set { flag } else { 0 };
                disk.mark(start, len, flag(reads, BAD_READ) | flag(writes, BAD_WRITE));
            }
            Step::Stall { disk, stalls } => sys.stalled[disk as usize] = stalls,
            Step::FailFlushes { disk, flushes } => sys.disk(which(disk)).bad_flushes = flushes,
            Step::NoMemory { nth } => sys.k.memory_fails = nth,
            Step::Suspend { noflush } => {
                let hold_ms = sys.config.hold_ms;
                sys.suspend(noflush, u64::from(u32::MAX), hold_ms);
            }
            Step::Resume if sys.k.suspend == Suspend::Done => sys.resume(),
            Step::Resume => {}
            Step::Look { start, len } => outcome.look = Some(self.look(start, len)),
        }
        self.0.advance(SETTLES);
        outcome.ended = self.ended();
        outcome.rang = std::mem::take(&mut self.0.bells) > 0;
        Ok(outcome)
    }

    fn state(&mut self) -> Result<State> {
        side::list(self.0.k.id, |request| Ok(self.0.request(ONLOOKER, &request)))
    }
}
