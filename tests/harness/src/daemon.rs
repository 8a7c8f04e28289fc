//! The daemon: its own core, driver and metadata, turn by turn, over the system.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dmremap_policyd::config::resolve::{DevNo, Disks};
use dmremap_policyd::core::{Area, Device, Event, Policy, Status};
use dmremap_policyd::driver::flushes::user;
use dmremap_policyd::driver::reader::{self, Reader};
use dmremap_policyd::driver::translate::failures;
use dmremap_policyd::driver::writer::{self, Writer};
use dmremap_policyd::driver::{Ask, Clock, Conversation, Jobs, Kernel, Target};
use dmremap_policyd::io::probe::ReadAt;
use dmremap_policyd::link::{Bell, LinkError};
use dmremap_policyd::metadata::{
    Disk, Error, Expect, Fact, Failures, Flusher, Identity, Shared, Store, Uuid,
};
use dmremap_policyd::units::{Sectors, Slot};
use dmremap_protocol::frame::Refusal;
use dmremap_protocol::{InstanceInfo, Message, Request};
use nix::libc;

use crate::cover::Task;
use crate::disk::DiskError;
use crate::kernel::{DATA_DEV, SPARE_DEV};
use crate::script::Which;
use crate::sys::{Ev, Sys};

#[derive(Clone)]
pub struct Handle(Arc<Mutex<Sys>>);

impl Handle {
    pub fn new(sys: Sys) -> Handle {
        Handle(Arc::new(Mutex::new(sys)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Sys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk as the daemon has it open.
pub struct Open {
    sys: Handle,
    which: Which,
}

fn error(error: DiskError) -> io::Error {
    io::Error::from_raw_os_error(match error {
        DiskError::Medium => libc::ENODATA,
        DiskError::Io => libc::EIO,
        DiskError::Gone => libc::ENODEV,
    })
}

impl Disk for Open {
    fn size(&self) -> Sectors {
        Sectors(self.sys.lock().config.spare)
    }
    fn physical_block(&self) -> u64 {
        4096
    }
    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        self.sys.lock().daemon_read(self.which, at.0, buf).map_err(error)
    }
    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        self.sys.lock().daemon_write(at.0, buf).map_err(error)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.sys.lock().daemon_flush().map_err(error)
    }
}

impl ReadAt for Open {
    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.sys.lock().daemon_read(self.which, at / 512, buf).map_err(error)
    }
}

struct Link {
    sys: Handle,
    port: u32,
    family: u16,
}

impl Kernel for Link {
    async fn request(&mut self, request: &Request) -> Result<Vec<Message>, LinkError> {
        let mut sys = self.sys.lock();
        match sys.daemon_request(self.family, self.port, request) {
            None => Err(LinkError::Timeout),
            Some(Ok(messages)) => Ok(messages),
            Some(Err(libc::ENOENT)) if *request == Request::InstanceGet => {
                self.family = sys.family;
                Err(LinkError::Anew)
            }
            Some(Err(errno)) => Err(LinkError::Refused(Refusal { errno, text: None })),
        }
    }

    fn port(&self) -> u32 {
        self.port
    }
}

impl Link {
    /// Of the spare that every instance here has.
    fn user(&mut self) -> io::Result<Option<InstanceInfo>> {
        now(user(self, DevNo::from_wire(SPARE_DEV))).map_err(io::Error::other)
    }
}

impl Flusher for Link {
    fn failures(&mut self) -> io::Result<Option<Failures>> {
        let user = self.user()?;
        Ok(user.map(|user| failures(self.family, &user)))
    }

    fn failed(&mut self) -> io::Result<()> {
        let Some(user) = self.user()? else { return Ok(()) };
        let told = now(self.request(&Request::FlushFailed { instance: user.instance }));
        told.map(drop).map_err(io::Error::other)
    }
}

struct Time(Handle);

impl Clock for Time {
    fn now(&self) -> Duration {
        Duration::from_micros(self.0.lock().now)
    }
}

/// Nothing of the system waits, so the future is ready when it is first asked.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the simulated kernel answers at once"),
    }
}

/// Of the two disks in a simulation.
pub fn identity(which: Which, size: u64) -> Identity {
    let serial = if which == Which::Data { "DATA" } else { "SPARE" };
    Identity::new(Sectors(size)).with(Fact::Serial, serial)
}

pub const MACHINE: Uuid = Uuid([7; 16]);

pub struct Daemon {
    sys: Handle,
    conversation: Conversation<Link, Time>,
    reader: Reader<Open, Time>,
    writer: Writer<Shared<Open, Link>>,
    /// Of the thread that reads the spare alone, and of the other.
    reads: [Receiver<reader::Job>; 2],
    writes: Receiver<writer::Job>,
    reading: [VecDeque<reader::Job>; 2],
    /// When each of them goes on: it waits for a slow disk.
    waits_until: [u64; 2],
    writing: VecDeque<writer::Job>,
    told: VecDeque<Event>,
    port: u32,
    timer: Option<Duration>,
}

impl Daemon {
    /// `data` is the disk that it finds in place of the data disk.
    pub fn start(
        sys: &Handle,
        data: &Identity,
        spare: &Identity,
        accept_unreadable_tail: bool,
    ) -> Result<Daemon, Error> {
        let open = |which| Open { sys: sys.clone(), which };
        sys.lock().task = Task::Open;
        let port = 100 + sys.lock().life;
        let link = || Link { sys: sys.clone(), port, family: sys.lock().family };
        let user = link().user().map_err(Error::Flush)?;
        let expect = Expect {
            data: Some(data.clone()),
            block: Some(Sectors(sys.lock().config.block)),
            machine: Some(MACHINE),
            in_use: user.map(|instance| instance.commit),
            accept_unreadable_tail,
            ..Expect::spare(spare.clone())
        };
        let spare_disk = Shared::new(open(Which::Spare), link()).map_err(Error::Flush)?;
        let (mut store, proof) = Store::open(spare_disk, &expect)?;
        let record = sys.lock().config.record as usize;
        if record > 0 {
            store = store.with_records_of(record);
        }
        let geometry = *store.geometry();
        let area = Area { start: geometry.slots, len: geometry.slot_sectors, unit: geometry.unit };
        let core = Device::new(Policy::default(), area, store.table().clone(), proof.into());
        let (mapped, block) = (store.superblock().mapped, store.superblock().block);
        let disks = Disks { data: DevNo::from_wire(DATA_DEV), spare: DevNo::from_wire(SPARE_DEV) };
        let target = Target { disks, sectors: mapped, block };
        let (reader, reads) = channel();
        let (spare_reader, spare_reads) = channel();
        let (to_writer, writes) = channel();
        let jobs = Jobs { reader, spare_reader, writer: to_writer };
        let clock = Time(sys.clone());
        let conversation = Conversation::new("sim".into(), core, link(), clock, target, jobs);
        let mut guard = sys.lock();
        guard.daemon_in(10, Ev::Look);
        guard.daemon_in(20, Ev::Tidy);
        drop(guard);
        Ok(Daemon {
            sys: sys.clone(),
            conversation,
            reader: Reader::new(open(Which::Data), open(Which::Spare), Time(sys.clone())),
            writer: Writer::new(store),
            reads: [reads, spare_reads],
            writes,
            reading: Default::default(),
            waits_until: [0; 2],
            writing: VecDeque::new(),
            told: VecDeque::new(),
            port,
            timer: None,
        })
    }

    pub fn core(&self) -> &Device {
        self.conversation.core()
    }

    pub fn run(&mut self, event: Ev) {
        match event {
            Ev::Look => {
                now(self.conversation.look());
                self.sys.lock().daemon_in(1_000_000, Ev::Look);
            }
            Ev::Hear => {
                let bell = Bell::Instance(self.sys.lock().k.id);
                now(self.conversation.asked(Ask::Doorbell(bell)));
            }
            Ev::Timer(at) if self.conversation.timer().map(micros) == Some(at) => {
                self.timer = None;
                now(self.conversation.tick());
            }
            Ev::Tell => {
                if let Some(event) = self.told.pop_front() {
                    now(self.conversation.handle(event));
                }
            }
            Ev::Read(spare) => self.read(spare),
            Ev::Write => self.write(),
            Ev::Tidy if self.writing.is_empty() => {
                self.sys.lock().task = Task::Checkpoint;
                let news = self.writer.rest();
                news.into_iter().for_each(|event| self.tell(event));
            }
            _ => {}
        }
        self.hand_on();
    }

    /// The others go on while one reader waits for its disk.
    fn read(&mut self, spare: bool) {
        let at = usize::from(spare);
        let Some(job) = self.reading[at].pop_front() else { return };
        {
            let mut sys = self.sys.lock();
            let us = sys.slowness(&job);
            self.waits_until[at] = self.waits_until[at].max(sys.now + us);
            let wait = self.waits_until[at] - sys.now;
            if wait > 0 {
                sys.daemon_in(wait, Ev::Read(spare));
                return self.reading[at].push_front(job);
            }
        }
        self.sys.lock().task = Task::Other;
        let tells = self.sys.lock().tells_of_its_disk(&job);
        let places: Vec<_> = job.spans.iter().map(|span| (span.at, span.len.0)).collect();
        let event = self.reader.work(job);
        if let Event::ReadDone { results, .. } = &event {
            self.sys.lock().say(|| format!("  read {places:?}: {results:?}"));
        }
        if is_silence(&tells, &event) {
            self.sys.lock().found_silence();
        }
        self.tell(event);
    }

    fn write(&mut self) {
        let Some(job) = self.writing.pop_front() else { return };
        self.sys.lock().task = match &job {
            writer::Job::Flush => Task::Flush,
            writer::Job::Commit(_) => Task::Commit,
            writer::Job::Restate => Task::Restate,
        };
        let told = self.writer.work(job);
        told.into_iter().for_each(|event| self.tell(event));
        if self.writing.is_empty() {
            self.sys.lock().daemon_in(1, Ev::Tidy);
        }
    }

    fn tell(&mut self, event: Event) {
        self.told.push_back(event);
        self.later(Ev::Tell);
    }

    fn later(&self, event: Ev) {
        let mut sys = self.sys.lock();
        let delay = match sys.rng.below(16) {
            0 => sys.rng.range(200, 5000),
            _ => sys.rng.range(1, 60),
        };
        sys.daemon_in(delay, event);
    }

    /// What a turn left to do.
    fn hand_on(&mut self) {
        for spare in [false, true] {
            while let Ok(job) = self.reads[usize::from(spare)].try_recv() {
                self.reading[usize::from(spare)].push_back(job);
                self.later(Ev::Read(spare));
            }
        }
        while let Ok(job) = self.writes.try_recv() {
            self.writing.push_back(job);
            self.later(Ev::Write);
        }
        let timer = self.conversation.timer();
        if timer != self.timer {
            self.timer = timer;
            if let Some(at) = timer {
                let mut sys = self.sys.lock();
                let at = micros(at);
                let after = at.saturating_sub(sys.now);
                sys.daemon_in(after, Ev::Timer(at));
            }
        }
    }

    /// It is gone, and its socket with it.
    pub fn die(self) {
        self.sys.lock().socket_ends(self.port);
    }

    /// In good order: what is under way on the spare is ended, then the label is closed.
    pub fn end(mut self) {
        while !self.writing.is_empty() {
            self.write();
        }
        self.sys.lock().task = Task::Close;
        self.writer.close();
        self.conversation.end();
        while let Some(event) = self.told.pop_front() {
            now(self.conversation.handle(event));
        }
        self.sys.lock().socket_ends(self.port);
    }
}

/// The clock's next tick that is not before.
fn micros(at: Duration) -> u64 {
    at.as_nanos().div_ceil(1000) as u64
}

/// Do all places fail that show whether a disk answers? Two at least, so that one bad sector is no storm.
fn is_silence(tells: &[bool], event: &Event) -> bool {
    let Event::ReadDone { results, .. } = event else { return false };
    let said: Vec<_> = tells.iter().zip(results).filter(|(tells, _)| **tells).collect();
    let failed = |status: &Status| !matches!(status, Status::Ok | Status::NotDone);
    said.len() >= 2 && said.iter().all(|(_, status)| failed(status))
}
