//! Everything that is not the daemon: clock, chance, disks, kernel, and what has to happen when.

mod end;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::checks::Checks;
use crate::cover::{Cover, Region, Task};
use crate::disk::{Disk, DiskError, Image};
use crate::kernel::Kernel;
use crate::oracle::{Oracle, Trouble};
use crate::rng::Rng;
use crate::script::{Config, Part, Step, Which};

/// Of the simulation, requests of the daemon among them; a whole one takes some thousands.
const MOST_TURNS: u32 = 50_000;

/// Something that happens at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ev {
    // The kernel's.
    Work,
    Send,
    Listing,
    Deadlines,
    Bell(u64),
    Operate(u64),
    Io(usize),
    Resume,
    /// The device is made again.
    Made,
    RivalLeaves,
    /// A disk answers again.
    Back(bool),
    /// A mirror can be read again.
    Unmute,
    /// The next step of the script.
    Step,
    // The daemon's.
    Hear,
    Tell,
    /// By the thread that reads the spare alone, or by the other.
    Read(bool),
    Write,
    Tidy,
    Look,
    Timer(u64),
    Start,
    Continue,
    Boot,
}

/// Why the daemon gets no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Kill {
        back_ms: u64,
    },
    Cut {
        off_ms: u64,
    },
    /// SIGTERM.
    Restart {
        back_ms: u64,
    },
    Pause {
        ms: u64,
    },
    RolledBack {
        back_ms: u64,
    },
    Swapped {
        disk: Which,
        back_ms: u64,
    },
}

impl Stop {
    /// The others wait until it is done with what it does.
    pub fn is_sudden(self) -> bool {
        !matches!(self, Stop::Restart { .. } | Stop::Pause { .. })
    }
}

type Queue = BinaryHeap<Reverse<(u64, u64, u32, Ev)>>;

pub struct Sys {
    pub config: Config,
    pub now: u64,
    pub rng: Rng,
    pub data: Disk,
    pub spare: Disk,
    pub k: Kernel,
    pub oracle: Oracle,
    pub checks: Checks,
    pub cover: Cover,
    pub steps: std::vec::IntoIter<Step>,
    /// Power-ons so far: what was to happen before does not.
    pub boot: u32,
    /// Daemons so far.
    pub life: u32,
    pub stop: Option<Stop>,
    /// A crash after so many more I/Os of the daemon.
    pub fuse: Option<(u64, Stop)>,
    /// See `Op::GoneAtSuperblock`.
    pub gone_at: Option<(u32, u64)>,
    /// No other storm begins before.
    pub next_storm: u64,
    /// When the last one of the data disk began.
    pub storm_since: u64,
    /// What the daemon is at.
    pub task: Task,
    /// Where the parts of the spare are.
    pub regions: Vec<(u64, Region)>,
    /// Doorbells that were not lost, and were not heard yet.
    pub bells: u64,
    /// The next I/O of each disk takes this much longer.
    pub slow: [u64; 2],
    /// From here on nothing new goes wrong.
    pub calm_from: u64,
    /// What the daemon reads and writes instead of the spare.
    pub view: Option<Disk>,
    /// An earlier state of the spare, the instance, and how many commits it had installed by then.
    pub snapshot: Option<(Image, u32, u64)>,
    /// A part of one mirror cannot be read.
    pub mirror_unreadable: bool,
    /// Works begin at once, I/O takes its time and no other, and what fails lands where it can: what happens,
    /// and in which order, is then the kernel's doing alone.
    pub steady: bool,
    /// These disks do not answer for now.
    pub stalled: [bool; 2],
    /// What applications were told, if it is steady.
    pub ended: Vec<crate::kernel::Io>,
    /// Where in a mirror the records of the log were written to, the last one last.
    pub log: Vec<u64>,
    /// A metadata write to come that is put elsewhere, after so many others to that part.
    pub astray: Option<(Part, u32)>,
    /// One has been put elsewhere.
    strayed: bool,
    /// A flush of the daemon's has failed, and the kernel has not heard of it.
    pub untold: bool,
    /// One has failed, and the daemon has not heard that the kernel knows.
    pub may_tell: bool,
    /// The device is to be removed, and made again after so many milliseconds, perhaps by a module that is loaded anew.
    pub removing: Option<(u64, bool)>,
    /// Of the module that is loaded.
    pub family: u16,
    /// It is not there, though the machine is on.
    pub removed: bool,
    /// The daemon is opening the spare.
    pub opening: bool,
    pub trace: bool,
    pub tags: u64,
    turns: u32,
    kernel_queue: Queue,
    daemon_queue: Queue,
    order: u64,
}

impl Sys {
    pub fn new(
        config: Config,
        steps: Vec<Step>,
        seed: u64,
        data: Disk,
        spare: Disk,
        trace: bool,
    ) -> Sys {
        Sys {
            now: 0,
            rng: Rng::new(seed, 1),
            data,
            spare,
            k: Kernel::new(1, &config),
            oracle: Oracle::new(&config, trace),
            checks: Checks::default(),
            cover: Cover::default(),
            steps: steps.into_iter(),
            boot: 0,
            life: 0,
            stop: None,
            fuse: None,
            gone_at: None,
            next_storm: 0,
            storm_since: 0,
            task: Task::Open,
            regions: Vec::new(),
            bells: 0,
            slow: [0; 2],
            calm_from: u64::MAX,
            view: None,
            snapshot: None,
            mirror_unreadable: false,
            steady: false,
            stalled: [false; 2],
            ended: Vec::new(),
            log: Vec::new(),
            astray: None,
            strayed: false,
            untold: false,
            may_tell: false,
            opening: false,
            removing: None,
            family: 1,
            removed: false,
            trace,
            tags: 0,
            turns: 0,
            kernel_queue: Queue::new(),
            daemon_queue: Queue::new(),
            order: 0,
            config,
        }
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", self.now as f64 / 1e6, what());
        }
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub fn kernel_in(&mut self, after: u64, event: Ev) {
        let order = self.next_order();
        self.kernel_queue.push(Reverse((self.now + after, order, self.boot, event)));
    }

    pub fn daemon_in(&mut self, after: u64, event: Ev) {
        let order = self.next_order();
        self.daemon_queue.push(Reverse((self.now + after, order, self.life, event)));
    }

    /// Lets the kernel's side and the script go on while the daemon is busy.
    pub fn advance(&mut self, us: u64) {
        let until = self.now + us;
        while self.stop.is_none() && self.next_kernel().is_some_and(|(at, _)| at <= until) {
            self.run_kernel();
        }
        self.now = self.now.max(until);
    }

    fn next_kernel(&self) -> Option<(u64, u64)> {
        self.kernel_queue.peek().map(|Reverse((at, order, ..))| (*at, *order))
    }

    fn next_daemon(&self) -> Option<(u64, u64)> {
        self.daemon_queue.peek().map(|Reverse((at, order, ..))| (*at, *order))
    }

    fn run_kernel(&mut self) {
        let Some(Reverse((at, _, boot, event))) = self.kernel_queue.pop() else { return };
        self.now = self.now.max(at);
        match event {
            Ev::Step => self.step(),
            // One copy of a record is elsewhere and the other comes back in the middle of an opening: it looks like a
            // record that was never in both.
            Ev::Unmute if self.opening && self.strayed => self.kernel_in(1000, Ev::Unmute),
            Ev::Unmute => self.spare.mute.clear(),
            Ev::Back(spare) => {
                self.say(|| "  a disk is back".to_owned());
                let disk = if spare { &mut self.spare } else { &mut self.data };
                (disk.gone, disk.storm) = (false, false);
            }
            _ if boot == self.boot => self.kernel_event(event),
            _ => {}
        }
        self.remove_if_idle();
    }

    /// Runs what comes next. The daemon's events are returned, for the daemon is elsewhere.
    pub fn run_next(&mut self) -> Next {
        if let Some(stop) = self.stop {
            return Next::Stop(stop);
        }
        if !self.goes_on() {
            return Next::Nothing;
        }
        match (self.next_kernel(), self.next_daemon()) {
            (None, None) => Next::Nothing,
            (Some(kernel), daemon) if daemon.is_none_or(|daemon| kernel < daemon) => {
                self.run_kernel();
                Next::Done
            }
            _ => {
                let Some(Reverse((at, _, life, event))) = self.daemon_queue.pop() else {
                    return Next::Nothing;
                };
                let mine = life == self.life || matches!(event, Ev::Start | Ev::Boot);
                if !mine {
                    return Next::Done;
                }
                self.now = self.now.max(at);
                Next::Daemon(event)
            }
        }
    }

    /// It does not when somebody does the same thing over and over.
    fn goes_on(&mut self) -> bool {
        self.turns += 1;
        if self.turns > MOST_TURNS {
            self.oracle.violate(format!("no end after {MOST_TURNS} turns"));
        }
        self.turns <= MOST_TURNS
    }

    /// Is it to die now? Nothing that it does from here on reaches a disk.
    fn dead(&self) -> bool {
        self.stop.is_some_and(Stop::is_sudden)
    }

    pub fn slot_area(&self) -> u64 {
        self.start_of(Region::Slots)
    }

    pub fn mirror(&self, mirror: u64) -> u64 {
        self.start_of(Region::Log(mirror as u8))
    }

    fn start_of(&self, region: Region) -> u64 {
        self.regions.iter().find(|&&(_, r)| r == region).map_or(0, |&(from, _)| from)
    }

    fn region(&self, sector: u64) -> Region {
        let found = self.regions.iter().rev().find(|&&(from, _)| from <= sector);
        found.map_or(Region::Label, |&(_, region)| region)
    }

    fn burn(&mut self) {
        if let Some((left, stop)) = &mut self.fuse {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let stop = *stop;
                self.fuse = None;
                self.stop.get_or_insert(stop);
            }
        }
    }

    /// A crash while the daemon waits for a disk.
    fn crashed(&mut self, region: Option<Region>) -> bool {
        if self.dead() {
            if let Some(stop) = self.stop {
                self.cover.disk(self.task, region, matches!(stop, Stop::Cut { .. }));
            }
        }
        self.dead()
    }

    fn disk_time(&mut self, which: Which) -> u64 {
        self.rng.range(5, 60) + std::mem::take(&mut self.slow[which as usize])
    }

    pub fn daemon_read(
        &mut self,
        which: Which,
        sector: u64,
        buf: &mut [u8],
    ) -> Result<(), DiskError> {
        if self.dead() {
            return Err(DiskError::Gone);
        }
        let time = self.disk_time(which);
        self.advance(time);
        if self.dead() {
            return Err(DiskError::Gone);
        }
        match which {
            Which::Data => self.data.read(sector, buf),
            Which::Spare => self.view.as_ref().unwrap_or(&self.spare).read(sector, buf),
        }
    }

    pub fn daemon_write(&mut self, sector: u64, buf: &[u8]) -> Result<(), DiskError> {
        if self.dead() {
            return Err(DiskError::Gone);
        }
        self.burn();
        let region = Some(self.region(sector));
        let time = self.disk_time(Which::Spare);
        self.advance(time / 2);
        let fate = self.rng.bits();
        if self.crashed(region) {
            // It was on its way.
            if self.rng.below(2) == 0 {
                self.spare_view().put(sector, buf, true, false, fate);
            }
            return Err(DiskError::Gone);
        }
        if region == Some(Region::Log(0)) {
            self.log.push(sector - self.mirror(0));
        }
        if region == Some(Region::Label) && !self.opening {
            self.at_superblock();
        }
        let put = self.misdirected(sector, buf.len() as u64 / 512, fate);
        let result = self.spare_view().write(put, buf, true, false, fate);
        self.hiccuped();
        self.advance(time / 2);
        if self.crashed(region) { Err(DiskError::Gone) } else { result }
    }

    /// Where a metadata write really goes.
    fn misdirected(&mut self, sector: u64, len: u64, fate: u64) -> u64 {
        let Some((part, skip)) = self.astray.take() else { return sector };
        let here = match (self.region(sector), part) {
            (Region::Label, Part::Copies) => sector > 0,
            (Region::Log(m) | Region::Checkpoint(m), Part::Mirror(mirror)) => m == mirror,
            _ => false,
        };
        if !here || skip > 0 {
            self.astray = Some((part, skip.saturating_sub(u32::from(here))));
            return sector;
        }
        let put = match part {
            Part::Copies => [1024, 2048, 4096, 8192][fate as usize % 4],
            Part::Mirror(mirror) => {
                let size = self.slot_area() - self.mirror(0);
                self.mirror(mirror.into()) + fate % ((size - len) / 8 + 1) * 8
            }
        };
        self.strayed = true;
        self.cover.trouble("write astray");
        self.say(|| format!("  what was for {sector} is put at {put}"));
        put
    }

    pub fn daemon_flush(&mut self) -> Result<(), DiskError> {
        if self.dead() {
            return Err(DiskError::Gone);
        }
        self.burn();
        let time = self.disk_time(Which::Spare);
        self.advance(time);
        if self.crashed(None) {
            return Err(DiskError::Gone);
        }
        let result = self.spare_view().flush();
        if result.is_err() {
            self.may_tell = true;
            self.oracle.flush_failed(Which::Spare, self.now, true);
            self.untold |= self.k.on && (self.k.mapped || !self.k.ready);
        }
        let time = self.rng.range(1, 40);
        self.advance(time);
        if self.crashed(None) { Err(DiskError::Gone) } else { result }
    }

    fn spare_view(&mut self) -> &mut Disk {
        self.view.as_mut().unwrap_or(&mut self.spare)
    }

    /// A request of the daemon, at the end of which more may have happened.
    pub fn daemon_request(
        &mut self,
        family: u16,
        port: u32,
        request: &dmremap_protocol::Request,
    ) -> Option<Result<Vec<dmremap_protocol::Message>, i32>> {
        let time = self.rng.range(1, 30);
        self.advance(time);
        if self.dead() || !self.goes_on() {
            return None;
        }
        if family != self.family {
            return Some(Err(nix::libc::ENOENT));
        }
        let lost = self.config.lost_requests;
        if lost > 0 && self.now < self.calm_from && self.rng.below(1000) < lost {
            self.cover.trouble("request lost");
            self.say(|| format!("  {:?} is lost", request.command()));
            return None;
        }
        let tells = matches!(request, dmremap_protocol::Request::FlushFailed { .. });
        if tells && !self.may_tell {
            self.oracle.violate("I7: the kernel is told of a flush that did not fail".into());
        }
        let answer = self.request(port, request);
        if self.now < self.calm_from && self.rng.below(1000) < self.config.lost_answers {
            self.cover.trouble("answer lost");
            self.say(|| format!("  the answer to {:?} is lost", request.command()));
            return None;
        }
        self.may_tell &= !tells;
        Some(answer)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Nothing,
    Done,
    Daemon(Ev),
    Stop(Stop),
}
