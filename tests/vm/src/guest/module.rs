//! The module in this guest, as a kernel's side that conversations are held with.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dmremap_conformance::side::{self, ONLOOKER};
use dmremap_conformance::{
    Access, Config, Disk as Which, Ended, Io, Outcome, Side, State, Status, Step,
};
use dmremap_protocol::uapi::FaultState;
use dmremap_protocol::{Message, Request};
use nix::libc::{EIO, ENODATA};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::Disk;
use super::disk::SECTOR;
use super::dm::Device;
use super::kernel::scaled;
use super::owner::Owner;
use super::pliable::Pliable;

const NAME: &str = "conform";
/// Nothing changes any more when it has not for so many looks, and so long between two.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(10);
/// What has not settled by then is for the comparison to show.
const MOST_LOOKS: u32 = 1000;

/// Fields are taken down in this order.
pub struct Module {
    sockets: BTreeMap<u32, Owner>,
    bells: OwnedFd,
    device: Device,
    disks: Disks,
    instance: u32,
    under_way: usize,
    ended: Receiver<Ended>,
    ends: Sender<Ended>,
    suspending: Option<(bool, JoinHandle<Result<()>>)>,
}

fn bells() -> Result<OwnedFd> {
    let group = Owner::new()?.group()?;
    ensure!((1..=32).contains(&group), "group {group} is beyond a bind's mask");
    let (flags, protocol) =
        (SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkGeneric);
    let listener = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(listener.as_raw_fd(), &NetlinkAddr::new(0, 1 << (group - 1)))?;
    Ok(listener)
}

/// Data and spare, for one conversation after the other.
pub type Disks = [Pliable; 2];

pub fn disks() -> Result<Disks> {
    let config = Config::default();
    Ok([
        Pliable::new("conform-data", config.sectors)?,
        Pliable::new("conform-spare", config.spare)?,
    ])
}

impl Module {
    pub fn new(config: &Config, disks: Disks) -> Result<Self> {
        let mut options = format!(
            "hold_deadline_ms {} ready_deadline_ms {} max_held_bios {}",
            config.hold_ms, config.ready_ms, config.max_held
        );
        if config.queue_unowned {
            options += " queue_if_no_daemon";
        }
        let count = options.split(' ').count();
        let device =
            Device::remap(NAME, disks[0].path(), disks[1].path(), &format!("{count} {options}"))?;
        let onlooker = Owner::onlooker()?;
        let instance = onlooker.instance();
        let (ends, ended) = channel();
        Ok(Self {
            sockets: BTreeMap::from([(ONLOOKER, onlooker)]),
            bells: bells()?,
            device,
            disks,
            instance,
            under_way: 0,
            ended,
            ends,
            suspending: None,
        })
    }

    /// Removes the device, which must be possible, and gives the disks back as they were.
    pub fn remove(mut self) -> Result<Disks> {
        self.sockets.clear();
        self.device.remove()?;
        self.disks.iter_mut().try_for_each(Pliable::wipe)?;
        Ok(self.disks)
    }

    fn ask(&mut self, port: u32, request: &Request) -> Result<Result<Vec<Message>, i32>> {
        let request = with_instance(request, self.instance);
        let socket = match self.sockets.entry(port) {
            std::collections::btree_map::Entry::Occupied(at) => at.into_mut(),
            std::collections::btree_map::Entry::Vacant(at) => at.insert(Owner::new()?),
        };
        let answers = match socket.exchange(request.is_dump(), &request.encode()?) {
            Ok(answers) => answers,
            Err(error) => {
                let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
                return errno.map(Err).ok_or(error);
            }
        };
        answers.iter().map(|answer| self.named(answer)).collect::<Result<Vec<_>>>().map(Ok)
    }

    /// Instance and owner have the conversation's numbers.
    fn named(&self, answer: &[u8]) -> Result<Message> {
        let mut message = Message::decode(answer)?;
        match &mut message {
            Message::Instance(info) => {
                info.instance = 1;
                for (&port, socket) in &self.sockets {
                    if info.owner.is_some() && info.owner == Some(socket.port()?) {
                        info.owner = Some(port);
                        break;
                    }
                }
            }
            Message::Fault(fault) => fault.instance = 1,
            Message::Extents { instance, .. } | Message::Doorbell { instance } => *instance = 1,
            Message::FaultId(_) => {}
        }
        Ok(message)
    }

    fn rang(&self) -> bool {
        let mut rang = false;
        let mut buffer = [0; 256];
        while recv(self.bells.as_raw_fd(), &mut buffer, MsgFlags::empty()).is_ok() {
            rang = true;
        }
        rang
    }

    fn submit(&mut self, io: Io) {
        self.under_way += 1;
        let (path, ends) = (self.device.path().to_path_buf(), self.ends.clone());
        thread::spawn(move || {
            let (status, found) = match carry_out(&path, &io) {
                Ok(found) => (Status::Ok, found),
                Err(error) => match error.raw_os_error() {
                    Some(EIO) => (Status::Io, Vec::new()),
                    Some(ENODATA) => (Status::Medium, Vec::new()),
                    _ => (Status::Other, Vec::new()),
                },
            };
            // Nobody listens any more when the case has failed.
            let _ = ends.send(Ended { id: io.id, status, found });
        });
    }

    fn suspend(&mut self, noflush: bool) {
        let device = Device::shared(NAME);
        let suspend = move || if noflush { device.suspend_noflush() } else { device.suspend() };
        self.suspending = Some((noflush, thread::spawn(suspend)));
    }

    fn resume(&mut self) -> Result<()> {
        if let Some((_, thread)) = self.suspending.take() {
            thread.join().map_err(|_| anyhow!("the suspend panicked"))??;
            self.device.resume()?;
        }
        Ok(())
    }

    /// Until nothing more happens by itself.
    fn settle(&mut self, ended: &mut Vec<Ended>) -> Result<()> {
        let (mut last, mut same) = (None, 0);
        for _ in 0..MOST_LOOKS {
            for end in self.ended.try_iter() {
                self.under_way -= 1;
                ended.push(end);
            }
            let suspended = self.suspending.is_some();
            if self.under_way == 0 && !suspended {
                return Ok(());
            }
            let mut state = self.state()?;
            // A flushing suspend waits for what is held, and ends soon once nothing is.
            let ends = |(noflush, thread): &(bool, JoinHandle<_>)| {
                !thread.is_finished() && (*noflush || state.instance.counters.held_bios == 0)
            };
            if self.suspending.as_ref().is_some_and(ends) {
                thread::sleep(scaled(PAUSE));
                continue;
            }
            state.faults.iter_mut().for_each(|f| f.deadline_ms = None);
            let counters = &state.instance.counters;
            let stalled = self.disks.iter().any(Pliable::stalls);
            let held = self.under_way as u64 <= counters.held_bios || suspended;
            let busy = state.faults.iter().any(|f| f.state == FaultState::Busy);
            let listed = counters.open_faults == state.faults.len() as u64;
            same = if last.as_ref() == Some(&state) { same + 1 } else { 0 };
            last = Some(state);
            if same >= LOOKS && listed && (stalled || held && !busy) {
                return Ok(());
            }
            thread::sleep(scaled(PAUSE));
        }
        Ok(())
    }
}

fn carry_out(path: &std::path::Path, io: &Io) -> io::Result<Vec<Option<u64>>> {
    let open = |durable| {
        let disk = if durable { Disk::open_durable(path) } else { Disk::open(path) };
        disk.map_err(io::Error::other)
    };
    match io.access {
        Access::Write | Access::Durable => {
            let mut bytes = vec![0; io.len as usize * SECTOR];
            for (chunk, sector) in bytes.chunks_exact_mut(SECTOR).zip(io.start..) {
                chunk[..8].copy_from_slice(&io.id.to_le_bytes());
                chunk[8..16].copy_from_slice(&sector.to_le_bytes());
            }
            open(io.access == Access::Durable)?.write(io.start, &bytes).map(|()| Vec::new())
        }
        Access::Read | Access::ReadAhead => {
            let bytes = open(false)?.read(io.start, io.len as usize)?;
            let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
            let tag = |(chunk, sector): (&[u8], u64)| {
                let id = word(&chunk[..8]);
                (id != 0 && word(&chunk[8..16]) == sector).then_some(id)
            };
            Ok(bytes.chunks_exact(SECTOR).zip(io.start..).map(tag).collect())
        }
        Access::Flush => open(false)?.flush().map(|()| Vec::new()),
    }
}

/// The conversation's instance 1 is the one that there is; others are not.
fn with_instance(request: &Request, id: u32) -> Request {
    let mut request = request.clone();
    match &mut request {
        Request::InstanceGet => {}
        Request::Claim { instance, .. }
        | Request::Load { instance, .. }
        | Request::Ready { instance }
        | Request::FaultGet { instance }
        | Request::ExtentGet { instance }
        | Request::Try { instance, .. }
        | Request::Place { instance, .. }
        | Request::Install { instance, .. }
        | Request::Release { instance, .. }
        | Request::Fail { instance, .. }
        | Request::Fence { instance, .. }
        | Request::FlushFailed { instance } => {
            *instance = if *instance == 1 { id } else { u32::MAX };
        }
    }
    request
}

impl Side for Module {
    fn step(&mut self, step: &Step) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        self.rang();
        match *step {
            Step::Ask { port, ref request } => outcome.answer = Some(self.ask(port, request)?),
            Step::Close { port } => drop(self.sockets.remove(&port).context("no such socket")?),
            Step::Io(io) => self.submit(io),
            Step::Rest { ms } => thread::sleep(Duration::from_millis(ms)),
            Step::Bad { disk, start, len, reads, writes } => {
                ensure!(reads == writes, "either both fail or none");
                self.disks[disk as usize].mark(start, len, reads)?;
            }
            Step::Stall { disk, stalls } => self.disks[disk as usize].stall(stalls)?,
            Step::FailFlushes { disk, flushes } => {
                ensure!([0, u32::MAX].contains(&flushes), "all fail or none");
                self.disks[disk as usize].fail_flushes(flushes > 0)?;
            }
            Step::Suspend { noflush } => self.suspend(noflush),
            Step::Resume => self.resume()?,
            Step::NoMemory { .. } | Step::Look { .. } => bail!("not from outside: {step:?}"),
        }
        self.settle(&mut outcome.ended)?;
        outcome.rang = self.rang();
        Ok(outcome)
    }

    fn state(&mut self) -> Result<State> {
        side::list(1, |request| self.ask(ONLOOKER, &request))
    }
}

/// The order of [`Module::disks`].
const _: () = assert!(Which::Data as usize == 0 && Which::Spare as usize == 1);
