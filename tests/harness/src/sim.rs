//! One simulation, from its script to its verdict.

use dmremap_policyd::metadata::Error;
use dmremap_policyd::table::Kind;

use crate::cover::Cover;
use crate::daemon::{Daemon, Handle, identity};
use crate::disk::{Disk, Image};
use crate::kernel::{Cell, IoKind, RIVAL};
use crate::made;
use crate::oracle::Trouble;
use crate::script::{Script, Which};
use crate::sys::{Ev, Next, Stop, Sys};

const SECOND: u64 = 1_000_000;

pub struct Outcome {
    pub violation: Option<String>,
    pub cover: Cover,
    pub simulated_us: u64,
    pub ios: u64,
    pub errors: u64,
    pub crashes: u64,
}

pub struct Sim {
    sys: Handle,
    daemon: Option<Daemon>,
    /// What a stopped daemon has not seen yet.
    stopped: Option<Vec<Ev>>,
    /// Starts of the daemon that must be refused, and why.
    wrong: Option<Stop>,
    crashes: u64,
    /// A flush lied, and what it lost is noticed and refused: all that can be asked.
    given_up: bool,
    /// The operator has been asked, and knows that one mirror cannot be read.
    accept_tail: bool,
}

pub fn run(script: &Script, trace: bool) -> Outcome {
    let config = script.config.clone();
    let (mut data, mut spare) = (made::data(&config), made::spare(&config));
    for disk in [&mut data, &mut spare] {
        disk.says_medium = config.says_medium;
        disk.lying = config.lying_flush;
    }
    let mut sys = Sys::new(config, script.steps.clone(), script.seed, data, spare, trace);
    sys.regions = made::regions(&sys.config);
    sys.k.on = false;
    sys.daemon_in(0, Ev::Boot);
    let first = script.steps.first().map_or(0, |step| step.after);
    sys.kernel_in(first, Ev::Step);
    let mut sim = Sim {
        sys: Handle::new(sys),
        daemon: None,
        stopped: None,
        wrong: None,
        crashes: 0,
        given_up: false,
        accept_tail: false,
    };
    sim.all();
    let mut sys = sim.sys.lock();
    let checks = sys.checks.violation.take();
    let violation = sys.oracle.violation.take().or(checks);
    Outcome {
        violation,
        cover: std::mem::take(&mut sys.cover),
        simulated_us: sys.now,
        ios: sys.oracle.done,
        errors: sys.oracle.errors,
        crashes: sim.crashes,
    }
}

impl Sim {
    fn all(&mut self) {
        while !self.is_over() && !self.sys.lock().steps.as_slice().is_empty() && self.turn() {}
        self.come_to_rest("the end of the script");
        self.same_tables();
        self.read_all();
        self.write_the_worst();
        self.same_tables();
        let installed = self.sys.lock().k.cells.clone();
        self.sys.lock().stop = Some(Stop::Cut { off_ms: 10 });
        self.come_to_rest("the last power cut");
        self.same_tables();
        self.has_kept(&installed);
        self.read_all();
    }

    /// What was installed when nothing was under way is there after a cut (I5).
    fn has_kept(&self, installed: &[Cell]) {
        let mut sys = self.sys.lock();
        if sys.config.lying_flush || !self.is_served(&sys) {
            return;
        }
        if let Some(at) = (0..installed.len()).find(|&at| installed[at] != sys.k.cells[at]) {
            let (before, after) = (installed[at], sys.k.cells[at]);
            sys.oracle
                .violate(format!("I5: sector {at} was {before:?}, and is {after:?} after a cut"));
        }
    }

    /// What the kernel maps is what the daemon does (I5).
    fn same_tables(&self) {
        let mut sys = self.sys.lock();
        let Some(daemon) = self.daemon.as_ref().filter(|_| self.is_served(&sys)) else { return };
        let mut logged = vec![Cell::Direct; sys.k.cells.len()];
        for extent in daemon.core().table().extents() {
            for n in 0..extent.len.0 {
                logged[(extent.start.0 + n) as usize] = match extent.kind {
                    Kind::Mapped(slot) => Cell::Mapped(slot.0 + n),
                    Kind::PoisonData => Cell::PoisonData,
                    Kind::PoisonSlot(slot) => Cell::PoisonSlot(slot.0 + n),
                };
            }
        }
        if let Some(at) = (0..logged.len()).find(|&at| logged[at] != sys.k.cells[at]) {
            let (kernel, log) = (sys.k.cells[at], logged[at]);
            sys.oracle.violate(format!("I5: sector {at} is {kernel:?}, and {log:?} to the daemon"));
        }
    }

    fn is_over(&self) -> bool {
        let sys = self.sys.lock();
        self.given_up || sys.oracle.violation.is_some() || sys.checks.violation.is_some()
    }

    /// Nothing new goes wrong: within a time everything is answered, and the device served.
    fn come_to_rest(&mut self, after: &str) {
        let limit = {
            let mut sys = self.sys.lock();
            sys.calm_from = sys.now;
            sys.now + sys.oracle.longest_hold() + sys.oracle.excuses.delay(sys.now) + 20 * SECOND
        };
        while !self.is_over() && !self.is_at_rest() {
            if self.sys.lock().now > limit || !self.turn() {
                let mut sys = self.sys.lock();
                let (pending, faults) = (sys.oracle.pending(), sys.k.faults.len());
                let text = format!(
                    "not at rest after {after}: {pending} I/Os, {faults} faults, owner {}, ready {}",
                    sys.k.owner, sys.k.ready
                );
                sys.oracle.violate(text);
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        let sys = self.sys.lock();
        let idle = sys.stop.is_none() && sys.oracle.pending() == 0 && sys.k.faults.is_empty();
        idle && self.is_served(&sys)
    }

    fn is_served(&self, sys: &Sys) -> bool {
        sys.k.on && sys.k.ready && sys.k.owner > RIVAL && self.wrong.is_none()
    }

    /// All of it, and what cannot be read in one piece block by block.
    fn read_all(&mut self) {
        const STRIDE: u64 = 64;
        let (sectors, block) = {
            let mut sys = self.sys.lock();
            sys.oracle.not_read.clear();
            (sys.config.sectors, sys.config.block)
        };
        for start in (0..sectors).step_by(STRIDE as usize) {
            self.submit(IoKind::Read, start, STRIDE.min(sectors - start), false);
            if start % (16 * STRIDE) == 0 {
                self.come_to_rest("a read");
            }
        }
        self.come_to_rest("the reads");
        let not_read = std::mem::take(&mut self.sys.lock().oracle.not_read);
        for (start, len) in not_read {
            for at in (start..start + len).step_by(block as usize) {
                self.submit(IoKind::Read, at, block, false);
            }
            self.come_to_rest("the reads of single blocks");
        }
    }

    fn submit(&mut self, kind: IoKind, start: u64, len: u64, fua: bool) {
        if !self.is_over() {
            let mut sys = self.sys.lock();
            sys.tags += 1;
            let tag = sys.tags;
            sys.submit(tag, kind, (start, len), fua, false);
        }
    }

    /// Long after the last trouble, when nothing excuses an error any more. One after the other, or they would be a storm.
    fn write_the_worst(&mut self) {
        const LONG: u64 = 25 * SECOND;
        // One that is to fail may be left over.
        for _ in 0..2 {
            self.submit(IoKind::Flush, 0, 0, false);
            self.come_to_rest("a flush");
            let until = self.sys.lock().now + LONG;
            while !self.is_over() && self.sys.lock().now < until && self.turn() {}
            self.come_to_rest("a rest");
        }
        let (sectors, block) = {
            let sys = self.sys.lock();
            (sys.config.sectors, sys.config.block)
        };
        for at in (0..sectors).step_by(block as usize) {
            let fua = at % (2 * block) == 0;
            if (at..at + block).any(|s| self.sys.lock().oracle.excuses.was_bad(s)) {
                self.submit(IoKind::Write, at, block, fua);
                self.come_to_rest("a write to a bad sector");
            }
        }
        self.submit(IoKind::Flush, 0, 0, false);
        self.come_to_rest("the last flush");
    }

    fn turn(&mut self) -> bool {
        let next = {
            let mut sys = self.sys.lock();
            if sys.bells > 0 && self.daemon.is_some() {
                sys.bells = 0;
                let delay = sys.rng.range(1, 100);
                sys.daemon_in(delay, Ev::Hear);
            }
            sys.run_next()
        };
        match next {
            Next::Nothing => return false,
            Next::Done => {}
            Next::Stop(stop) => self.stop(stop),
            Next::Daemon(Ev::Boot) => self.boot(),
            Next::Daemon(Ev::Start) => {
                self.start();
                self.is_told();
            }
            Next::Daemon(Ev::Continue) if self.wrong.is_some() => {
                let back_ms = 10;
                self.wrong = None;
                self.stop(Stop::Kill { back_ms });
            }
            Next::Daemon(Ev::Continue) => {
                for event in self.stopped.take().unwrap_or_default() {
                    self.daemon.iter_mut().for_each(|daemon| daemon.run(event));
                }
            }
            Next::Daemon(event) => match (&mut self.stopped, &mut self.daemon) {
                (Some(waiting), _) => waiting.push(event),
                (None, Some(daemon)) => {
                    daemon.run(event);
                    self.is_told();
                }
                (None, None) => {}
            },
        }
        true
    }

    /// What a flush of the daemon's has lost, the kernel has heard of before the daemon does anything else (I7).
    fn is_told(&self) {
        let mut sys = self.sys.lock();
        if std::mem::take(&mut sys.untold) && sys.stop.is_none() {
            sys.oracle.violate("I7: nobody was told of a flush that failed".into());
        }
    }

    fn boot(&mut self) {
        let mut sys = self.sys.lock();
        if sys.k.on || sys.removed {
            return;
        }
        sys.say(|| "power on".to_owned());
        sys.switch_on();
        sys.oracle.excuses.set(Trouble::Unowned, u64::MAX);
        let delay = sys.rng.range(1000, 100_000);
        sys.daemon_in(delay, Ev::Start);
    }

    fn start(&mut self) {
        let (sectors, spare) = {
            let sys = self.sys.lock();
            if self.daemon.is_some() || !(sys.k.on || sys.removed) {
                return;
            }
            sys.say(|| "the daemon starts".to_owned());
            (sys.config.sectors, sys.config.spare)
        };
        let disk = |which, size| match self.wrong {
            Some(Stop::Swapped { disk, .. }) if disk == which => {
                identity(if which == Which::Data { Which::Spare } else { Which::Data }, size)
            }
            _ => identity(which, size),
        };
        let (data, spare) = (disk(Which::Data, sectors), disk(Which::Spare, spare));
        self.sys.lock().opening = true;
        let opened = Daemon::start(&self.sys, &data, &spare, self.accept_tail);
        self.sys.lock().opening = false;
        match opened {
            Ok(daemon) => self.opened(daemon),
            Err(error) => self.refused(&error),
        }
    }

    fn opened(&mut self, daemon: Daemon) {
        self.daemon = Some(daemon);
        let mut sys = self.sys.lock();
        match self.wrong {
            None => sys.say(|| "the daemon is up".to_owned()),
            // The kernel did not say that it has a table in use: the claim must be refused; see there.
            Some(Stop::RolledBack { back_ms }) => {
                sys.daemon_in(back_ms * 1000 + 3 * SECOND, Ev::Continue);
            }
            Some(_) => sys.oracle.violate("I6: a disk that is not the right one is taken".into()),
        }
    }

    fn refused(&mut self, error: &Error) {
        let mut sys = self.sys.lock();
        if sys.stop.is_some() {
            return;
        }
        sys.say(|| format!("refused: {error}"));
        let foreign = matches!(error, Error::Foreign { .. });
        match self.wrong.take() {
            Some(Stop::Swapped { .. }) if foreign => {}
            Some(Stop::RolledBack { .. }) if matches!(error, Error::Older { .. }) => {
                sys.view = None
            }
            None if matches!(error, Error::UnreadableTail { .. }) && sys.mirror_unreadable => {
                self.accept_tail = true;
            }
            // The kernel did not answer whether flushes failed, as often as it is asked.
            wrong
                if matches!(error, Error::Flush(_) | Error::Unwritable(_))
                    && sys.config.lost_answers > 0 =>
            {
                self.wrong = wrong;
            }
            _ if sys.config.lying_flush => self.given_up = true,
            _ if sys.oracle.excuses.lasts(Trouble::Spare, sys.now) => {}
            _ => sys.oracle.violate(format!("the right spare is refused: {error}")),
        }
        sys.life += 1;
        sys.daemon_in(SECOND, Ev::Start);
    }

    fn stop(&mut self, stop: Stop) {
        self.sys.lock().stop = None;
        if let Stop::Pause { ms } = stop {
            let mut sys = self.sys.lock();
            if self.daemon.is_none() {
                // It was about to open the spare, and begins that anew.
                sys.daemon_in(ms * 1000, Ev::Start);
            } else if self.stopped.is_none() {
                self.stopped = Some(Vec::new());
                sys.daemon_in(ms * 1000, Ev::Continue);
            }
            return;
        }
        let sudden = stop.is_sudden();
        self.crashes += u64::from(sudden);
        let daemon = self.daemon.take();
        if let Some(daemon) = daemon.as_ref().filter(|_| sudden) {
            let cut = matches!(stop, Stop::Cut { .. });
            let faults = daemon.core().snapshot().faults;
            let mut sys = self.sys.lock();
            faults.iter().for_each(|f| sys.cover.step(&format!("{:?}", f.step), cut));
        }
        self.stopped = None;
        self.wrong = None;
        {
            let mut sys = self.sys.lock();
            sys.fuse = None;
            // What only a daemon knew that has died nobody can be told.
            sys.untold &= !sudden;
            sys.may_tell &= !sudden;
            sys.life += 1;
            sys.say(|| format!("{stop:?}"));
        }
        match (stop, daemon) {
            (Stop::Cut { .. }, _) => self.sys.lock().cut(),
            (Stop::Restart { .. }, Some(daemon)) => daemon.end(),
            (_, Some(daemon)) => daemon.die(),
            (_, None) => {}
        }
        let mut sys = self.sys.lock();
        sys.view = None;
        match stop {
            Stop::Cut { off_ms } => sys.daemon_in(off_ms * 1000, Ev::Boot),
            Stop::Kill { back_ms } | Stop::Restart { back_ms } => {
                sys.daemon_in(back_ms * 1000, Ev::Start);
            }
            Stop::RolledBack { .. } => {
                let image = sys.snapshot.take().map(|(image, ..)| image);
                let size = sys.config.spare;
                sys.view = image.map(|image: Image| Disk::new(image, size));
                self.wrong = Some(stop);
                sys.daemon_in(1000, Ev::Start);
            }
            Stop::Swapped { .. } => {
                self.wrong = Some(stop);
                sys.daemon_in(1000, Ev::Start);
            }
            Stop::Pause { .. } => {}
        }
    }
}
