//! Faults without a bio.

use anyhow::{Context, Result, ensure};
use dmremap_protocol::Request;
use dmremap_protocol::uapi::{FaultFlags, FaultState, Kind};

use super::Conversation;
use super::faults::bad;
use crate::talk::{A, INSTANCE, Talk, attempt, claim, fail, fence, install, piece, place, release};
use crate::{Access, Disk, Status, Step};

pub(super) const ALL: &[Conversation] = &[
    Conversation::new("a-fence-is-refused-or-parks", parks),
    Conversation::new("a-fence-ends-with-its-owner-unless-pinned", owner_ends),
    Conversation::new("an-install-is-whole-and-idempotent", installs),
    Conversation::new("there-are-512-faults-and-fences-at-most", full),
    Conversation::new("a-write-that-meets-a-change-is-repeated", repeated),
];

const EINVAL: i32 = 22;
const EBUSY: i32 = 16;
const ENOENT: i32 = 2;
const ERANGE: i32 = 34;

fn parks(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    for (start, len) in [(0, 0), (2041, 8), (2048, 1), (u64::MAX, 2), (8, u64::MAX)] {
        t.refused(ERANGE, fence(start, len))?;
    }
    let fault = t.fence(16, 8)?;
    for (start, len) in [(16, 8), (15, 2), (23, 1), (0, 2048)] {
        t.refused(EBUSY, fence(start, len))?;
    }
    ensure!(t.fault()?.flags == FaultFlags::FENCE, "its flags are not FENCE alone");
    let next = t.fence(24, 8)?;
    let beside = t.write_well(8, 8)?;
    let across = t.write(12, 8)?;
    let read = t.io(Access::Read, 20, 1)?;
    let second = t.io(Access::Read, 28, 2)?;
    let flush = t.io(Access::Flush, 0, 0)?;
    t.ends(flush, Status::Ok)?;
    t.refused(EINVAL, attempt(fault, &[]))?;
    t.refused(ENOENT, fail(fault))?;
    t.is_held(across)?;
    t.ok(release(fault))?;
    t.refused(ENOENT, release(fault))?;
    t.ends(across, Status::Ok)?;
    ensure!(t.ends(read, Status::Ok)?.len() == 1, "a sector is missing");
    t.is_held(second)?;
    t.ok(release(next))?;
    t.ends(second, Status::Ok)?;
    t.reads(10, &[Some(beside), Some(beside), Some(across)])?;
    t.no_fault()
}

fn owner_ends(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    let plain = t.fence(0, 8)?;
    let pinned = t.fence(8, 8)?;
    t.ok(place(pinned, &[piece(2, 4, Kind::Mapped, 64)]))?;
    t.refused(EBUSY, attempt(pinned, &[]))?;
    let [first, second] = [t.write(0, 8)?, t.write(8, 8)?];
    t.close(A)?;
    t.ends(first, Status::Ok)?;
    t.is_held(second)?;
    let left = t.fault()?;
    ensure!(left.id == pinned && left.state == FaultState::Placed, "not the pinned one: {left:?}");
    ensure!(left.flags.contains(FaultFlags::PINNED), "it is not pinned");
    t.ok(claim(0))?;
    t.refused(ENOENT, place(plain, &[]))?;
    t.ok(install(1, &[pinned]))?;
    t.ends(second, Status::Ok)?;
    t.reads(8, &[Some(second); 8])?;
    t.no_fault()
}

fn installs(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    let (one, two, open) = (t.fence(0, 8)?, t.fence(8, 8)?, t.fence(16, 8)?);
    t.ok(place(one, &[piece(0, 8, Kind::Mapped, 64)]))?;
    t.ok(place(two, &[piece(0, 3, Kind::Mapped, 72), piece(3, 2, Kind::PoisonData, 0)]))?;
    t.refused(EBUSY, install(1, &[one, open]))?;
    t.refused(ENOENT, install(1, &[one, 99]))?;
    ensure!(t.state()?.extents.is_empty(), "a refused INSTALL has installed");
    t.ok(install(1, &[two, one, two]))?;
    t.ok(install(1, &[one, two]))?;
    t.refused(EBUSY, install(2, &[open]))?;
    let state = t.state()?;
    ensure!(state.instance.counters.installs == 2, "not two installs");
    ensure!(
        state.extents.len() == 3 && state.instance.commit == 1,
        "not three extents at commit 1"
    );
    Ok(())
}

fn full(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    t.terse = true;
    for n in 0..512 {
        t.fence(n * 2, 1)?;
    }
    t.refused(EBUSY, fence(2000, 1))?;
    t.ok(release(7))?;
    t.fence(2000, 1)?;
    t.refused(EBUSY, fence(1900, 1))?;
    let faults = t.faults()?;
    ensure!(
        faults.len() == 512 && faults.is_sorted_by_key(|f| f.id),
        "they are not all listed in order"
    );
    // What fails now waits until there is room for its fault.
    bad(t, Disk::Data, 1501, 1, true)?;
    let write = t.write(1501, 1)?;
    t.is_held(write)?;
    ensure!(t.faults()?.iter().all(|f| f.start != 1501), "513 faults");
    t.ok(release(8))?;
    let last = t.faults()?.pop().filter(|f| f.start == 1501).context("it still waits")?;
    t.ok(fail(last.id))?;
    t.ends(write, Status::Io)?;
    t.terse = false;
    t.ok(Request::Ready { instance: INSTANCE }).map(drop)
}

fn repeated(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    t.step(Step::Stall { disk: Disk::Data, stalls: true })?;
    let write = t.write(8, 8)?;
    let read = t.io(Access::Read, 100, 1)?;
    t.change(10, piece(0, 2, Kind::Mapped, 64), 1)?;
    t.change(100, piece(0, 1, Kind::Mapped, 72), 2)?;
    t.step(Step::Stall { disk: Disk::Data, stalls: false })?;
    t.ends(write, Status::Ok)?;
    // Nothing is lost if a read saw what was there before.
    ensure!(t.ends(read, Status::Ok)? == vec![None], "the read found what nobody wrote");
    t.reads(8, &[Some(write); 8])?;
    ensure!(t.state()?.instance.counters.redone == 1, "not one write was repeated");
    Ok(())
}
