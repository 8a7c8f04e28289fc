//! The doorbell, for an owner that does not answer at once.

use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

use crate::case::Case;
use crate::guest::dm::Device;
use crate::guest::owner::Owner;
use crate::guest::setup::Disks;
use crate::guest::{Ctx, Disk};

pub const CASES: &[Case] = &[Case::new("doorbell.rings-until-it-is-answered", 90, rings)];

const BAD: u64 = 100;
/// Of a single ring any may be lost.
const RINGS: usize = 3;
const PATIENCE_S: i64 = 15;

fn rings(_: &mut Ctx) -> Result<()> {
    let disks = Disks::new(32, &[BAD])?;
    let device = Device::remap("d", disks.bad.path(), &disks.spare(), "2 hold_deadline_ms 40000")?;
    let mut owner = Owner::new()?;
    owner.start(64, 32768)?;
    // What rang before is answered by this.
    ensure!(owner.faults()?.is_empty(), "there are faults already");

    let group = owner.group()?;
    ensure!((1..=32).contains(&group), "group {group} is beyond a bind's mask");
    let protocol = SockProtocol::NetlinkGeneric;
    let bell = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(bell.as_raw_fd(), &NetlinkAddr::new(0, 1 << (group - 1)))?;
    setsockopt(&bell, ReceiveTimeout, &TimeVal::new(PATIENCE_S, 0))?;
    let disk = Disk::open(device.path())?;
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| disk.fill(BAD, 1, 1));
        for ring in 1..=RINGS {
            recv(bell.as_raw_fd(), &mut [0; 4096], MsgFlags::empty())
                .with_context(|| format!("the doorbell did not ring {ring} times"))?;
        }
        ensure!(!writer.is_finished(), "nobody served the write, and it has ended");
        while !writer.is_finished() {
            owner.serve()?;
            thread::sleep(Duration::from_millis(5));
        }
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    disk.verify(BAD, 1, 1)?;
    drop(disk);
    device.remove()?;
    disks.remove()
}
