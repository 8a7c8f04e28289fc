//! A minimal owner of instances that stands in for the daemon. It speaks the protocol of `uapi/dm_remap.h` byte by byte and
//! shares no code with the daemon. It maps whatever write fails, and remembers nothing.

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recv, sendto, socket,
};

const GETFAMILY: u8 = 3;
pub const INSTANCE_GET: u8 = 1;
const CLAIM: u8 = 2;
const READY: u8 = 4;
const FAULT_GET: u8 = 5;
const EXTENT_GET: u8 = 6;
const TRY: u8 = 7;
const PLACE: u8 = 8;
const INSTALL: u8 = 9;
const A_INSTANCE: u16 = 1;
const A_COMMIT: u16 = 9;
const A_COUNTERS: u16 = 10;
const A_SLOT_START: u16 = 11;
const A_SLOT_SECTORS: u16 = 12;
const A_SLOT_UNIT: u16 = 13;
const A_EXTENTS: u16 = 15;
const A_FAULT_ID: u16 = 16;
const A_FAULT_IDS: u16 = 17;
const A_START: u16 = 18;
const A_LEN: u16 = 19;
const A_FAULT_STATE: u16 = 20;
const A_FAULT_FLAGS: u16 = 21;
const A_PIECES: u16 = 24;
const OPEN: u8 = 0;
const PLACED: u8 = 2;
const HELD: u64 = 1 << 1;
const PINNED: u64 = 1 << 2;
const MAPPED: u8 = 1;
const UNIT: u64 = 8;

/// A fault or fence as it is listed to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub start: u64,
    pub len: u64,
    pub placed: bool,
    pub held: bool,
    pub pinned: bool,
}

/// Some of struct dm_remap_counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub faults: u64,
    pub installs: u64,
    pub releases: u64,
    pub expired: u64,
    pub unowned: u64,
}

type Attrs = Vec<(u16, Vec<u8>)>;

/// (start, slot, length) of a mapped extent.
pub type Extent = (u64, u64, u32);

/// A socket that has claimed an instance.
pub struct Owner {
    socket: OwnedFd,
    /// For answers.
    buffer: Vec<u8>,
    family: u16,
    instance: u32,
    next_slot: u64,
    commit: u64,
}

fn put(out: &mut Vec<u8>, attr: u16, value: &[u8]) {
    out.extend((4 + value.len() as u16).to_ne_bytes());
    out.extend(attr.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

fn parse(mut bytes: &[u8]) -> Attrs {
    let mut attrs = Vec::new();
    while bytes.len() >= 4 {
        let len = (number(&bytes[..2]) as usize).clamp(4, bytes.len());
        attrs.push((number(&bytes[2..4]) as u16 & 0x3fff, bytes[4..len].to_vec()));
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    attrs
}

fn attr(attrs: &Attrs, wanted: u16) -> Result<&[u8]> {
    let found = attrs.iter().find(|(a, _)| *a == wanted);
    found.map(|(_, v)| v.as_slice()).with_context(|| format!("attribute {wanted} is missing"))
}

impl Owner {
    /// Finds the family; claims nothing yet.
    pub fn new() -> Result<Owner> {
        let protocol = SockProtocol::NetlinkGeneric;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let buffer = vec![0; 65536];
        let mut owner = Owner { socket, buffer, family: 16, instance: 0, next_slot: 0, commit: 0 };
        owner.family = number(attr(&owner.about_family()?, 1)?) as u16;
        Ok(owner)
    }

    /// What the kernel says of the family.
    fn about_family(&mut self) -> Result<Attrs> {
        let mut name = Vec::new();
        put(&mut name, 2, b"dm_remap\0");
        let own = std::mem::replace(&mut self.family, 16);
        let answer = self.ask(GETFAMILY, false, &name).context("family dm_remap");
        self.family = own;
        answer?.pop().context("no answer")
    }

    /// The number of the multicast group.
    pub fn group(&mut self) -> Result<u32> {
        // CTRL_ATTR_MCAST_GROUPS, its first, and of that CTRL_ATTR_MCAST_GRP_ID.
        let groups = parse(attr(&self.about_family()?, 7)?);
        let (_, first) = groups.first().context("the family has no group")?;
        Ok(number(attr(&parse(first), 2)?) as u32)
    }

    /// Sends a request and returns the messages up to its acknowledgement or the dump's end.
    pub fn ask(&mut self, cmd: u8, dump: bool, attrs: &[u8]) -> Result<Vec<Attrs>> {
        let mut payload = vec![cmd, 1, 0, 0];
        payload.extend(attrs);
        let answers = self.exchange(dump, &payload)?;
        Ok(answers.iter().map(|answer| parse(answer.get(4..).unwrap_or(&[]))).collect())
    }

    /// The same with whole generic netlink messages.
    pub fn exchange(&mut self, dump: bool, payload: &[u8]) -> Result<Vec<Vec<u8>>> {
        let flags: u16 = if dump { 0x301 } else { 0x5 };
        let mut out = Vec::new();
        out.extend((16 + payload.len() as u32).to_ne_bytes());
        out.extend(self.family.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend([0; 8]);
        out.extend(payload);
        sendto(self.socket.as_raw_fd(), &out, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answers = Vec::new();
        loop {
            let n = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let mut rest = &self.buffer[..n];
            while rest.len() >= 16 {
                let len = (number(&rest[..4]) as usize).clamp(16, rest.len());
                match number(&rest[4..6]) {
                    // The end of a dump says how it ended, as an acknowledgement does.
                    2 | 3 => match i32::from_ne_bytes(rest[16..20].try_into()?) {
                        0.. => return Ok(answers),
                        error => bail!(std::io::Error::from_raw_os_error(-error)),
                    },
                    _ => answers.push(rest[16..len].to_vec()),
                }
                rest = &rest[len.next_multiple_of(4).min(rest.len())..];
            }
        }
    }

    fn with_instance(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, A_INSTANCE, &self.instance.to_ne_bytes());
        out
    }

    /// Looks at the newest instance, and claims nothing.
    pub fn onlooker() -> Result<Owner> {
        let mut owner = Self::new()?;
        owner.newest()?;
        Ok(owner)
    }

    fn newest(&mut self) -> Result<Attrs> {
        let newest = self.ask(INSTANCE_GET, true, &[])?.pop().context("no instance")?;
        self.instance = number(attr(&newest, A_INSTANCE)?) as u32;
        Ok(newest)
    }

    pub fn counters(&mut self) -> Result<Counters> {
        let newest = self.newest()?;
        let all: Vec<u64> = attr(&newest, A_COUNTERS)?.chunks_exact(8).map(number).collect();
        let [faults, installs, releases, _, expired, _, unowned, ..] = all[..] else {
            bail!("few counters: {all:?}");
        };
        Ok(Counters { faults, installs, releases, expired, unowned })
    }

    /// All faults and fences, in the order of their numbers.
    pub fn fences(&mut self) -> Result<Vec<Fence>> {
        let list = self.with_instance();
        let mut fences = Vec::new();
        for fault in self.ask(FAULT_GET, true, &list)?.iter().skip(1) {
            let flags = number(attr(fault, A_FAULT_FLAGS)?);
            fences.push(Fence {
                start: number(attr(fault, A_START)?),
                len: number(attr(fault, A_LEN)?),
                placed: attr(fault, A_FAULT_STATE)?[0] == PLACED,
                held: flags & HELD != 0,
                pinned: flags & PINNED != 0,
            });
        }
        Ok(fences)
    }

    /// Claims the newest instance, with a slot area of `sectors` at `start`, and makes it ready.
    pub fn start(&mut self, start: u64, sectors: u64) -> Result<()> {
        self.newest()?;
        let mut claim = self.with_instance();
        put(&mut claim, A_SLOT_START, &start.to_ne_bytes());
        put(&mut claim, A_SLOT_SECTORS, &sectors.to_ne_bytes());
        put(&mut claim, A_SLOT_UNIT, &(UNIT as u32).to_ne_bytes());
        put(&mut claim, A_COMMIT, &0u64.to_ne_bytes());
        self.ask(CLAIM, false, &claim).context("claim")?;
        self.next_slot = start;
        let ready = self.with_instance();
        self.ask(READY, false, &ready).context("ready")?;
        Ok(())
    }

    /// Takes every fault one step on: find the bad sectors, place them, install them.
    pub fn serve(&mut self) -> Result<()> {
        let list = self.with_instance();
        for fault in self.ask(FAULT_GET, true, &list)?.iter().skip(1) {
            let id = attr(fault, A_FAULT_ID)?.to_vec();
            match attr(fault, A_FAULT_STATE)?[0] {
                OPEN => self.open(fault, &id)?,
                PLACED => {
                    self.commit += 1;
                    let mut install = self.with_instance();
                    put(&mut install, A_COMMIT, &self.commit.to_ne_bytes());
                    put(&mut install, A_FAULT_IDS, &id);
                    self.ask(INSTALL, false, &install).context("install")?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn open(&mut self, fault: &Attrs, id: &[u8]) -> Result<()> {
        let mut pieces = Vec::new();
        let tried = attr(fault, A_PIECES).ok();
        for sector in 0..number(attr(fault, A_LEN)?) as u32 {
            // Field `result` of struct dm_remap_piece.
            let bad = tried.is_some_and(|t| t[sector as usize * 24 + 17] != 0);
            if tried.is_some() && !bad {
                continue;
            }
            pieces.extend(sector.to_ne_bytes());
            pieces.extend(1u32.to_ne_bytes());
            pieces.extend(if bad { self.next_slot } else { 0 }.to_ne_bytes());
            pieces.extend([if bad { MAPPED } else { 0 }, 0, 0, 0, 0, 0, 0, 0]);
            self.next_slot += if bad { UNIT } else { 0 };
        }
        ensure!(!pieces.is_empty(), "a write failed whose sectors all succeed");
        let mut verdict = self.with_instance();
        put(&mut verdict, A_FAULT_ID, id);
        put(&mut verdict, A_PIECES, &pieces);
        self.ask(if tried.is_some() { PLACE } else { TRY }, false, &verdict)?;
        Ok(())
    }

    /// Serves faults until the work on another thread is done.
    pub fn serve_during<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() {
                self.serve()?;
                thread::sleep(Duration::from_millis(5));
            }
            worker.join().map_err(|_| anyhow!("the work panicked"))
        })
    }

    /// The table and the retired slots: start, slot, length and kind of each.
    pub fn entries(&mut self) -> Result<Vec<(u64, u64, u64, u8)>> {
        let list = self.with_instance();
        let mut entries = Vec::new();
        for message in self.ask(EXTENT_GET, true, &list)? {
            for e in attr(&message, A_EXTENTS)?.chunks_exact(24) {
                entries.push((number(&e[..8]), number(&e[8..16]), number(&e[16..20]), e[20]));
            }
        }
        Ok(entries)
    }

    /// All mapped extents.
    pub fn extents(&mut self) -> Result<Vec<Extent>> {
        let entry = |(start, slot, len, kind)| {
            ensure!(kind == MAPPED, "an extent is not mapped");
            Ok((start, slot, len as u32))
        };
        self.entries()?.into_iter().map(entry).collect()
    }

    /// Faults and fences: id, start, length, and whether it is placed.
    pub fn faults(&mut self) -> Result<Vec<(u64, u64, u64, bool)>> {
        let list = self.with_instance();
        let faults = self.ask(FAULT_GET, true, &list)?;
        let fault = |f: &Attrs| {
            let of = |name| Ok::<_, anyhow::Error>(number(attr(f, name)?));
            Ok((of(A_FAULT_ID)?, of(A_START)?, of(A_LEN)?, attr(f, A_FAULT_STATE)?[0] == PLACED))
        };
        faults.iter().skip(1).map(fault).collect()
    }

    /// The socket's name, by which the kernel knows it.
    pub fn port(&self) -> Result<u32> {
        Ok(getsockname::<NetlinkAddr>(self.socket.as_raw_fd())?.pid())
    }

    #[must_use]
    pub fn instance(&self) -> u32 {
        self.instance
    }
}
