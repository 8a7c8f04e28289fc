//! Writes and reads that a disk refuses.

use anyhow::{Result, ensure};
use dmremap_protocol::FaultInfo;
use dmremap_protocol::uapi::{FaultFlags, FaultState, Kind, Status as Found};

use super::Conversation;
use crate::talk::{Talk, attempt, extent, fail, install, piece, place, release};
use crate::{Access, Disk, Status, Step};

pub(super) const ALL: &[Conversation] = &[
    Conversation::new("a-write-is-tried-placed-and-installed", main_way),
    Conversation::new("a-place-may-be-voided", voided),
    Conversation::new("a-write-that-has-left-is-not-placed", left),
    Conversation::new("a-slot-that-fails-is-retired", failing_slot),
    Conversation::new("a-read-is-placed-without-its-bio", read),
    Conversation::new("a-verdict-may-be-to-fail-or-to-try-again", verdicts),
];

const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const EBUSY: i32 = 16;
const ERANGE: i32 = 34;
const EEXIST: i32 = 17;

pub(super) fn bad(t: &mut Talk, disk: Disk, start: u64, len: u64, bad: bool) -> Result<()> {
    t.step(Step::Bad { disk, start, len, reads: bad, writes: bad })
}

fn flags(fault: &FaultInfo, wanted: &[FaultFlags]) -> Result<()> {
    let all = wanted.iter().fold(0, |all, flag| all | flag.0);
    ensure!(fault.flags.0 == all, "its flags are {:#x}, not {all:#x}", fault.flags.0);
    Ok(())
}

fn main_way(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 100, 2, true)?;
    let write = t.write(96, 8)?;
    let fault = t.fault()?;
    ensure!((fault.start, fault.len) == (96, 8), "its range: {fault:?}");
    ensure!(fault.state == FaultState::Open && fault.status == Found::Ioerr, "{fault:?}");
    flags(&fault, &[FaultFlags::WRITE, FaultFlags::HELD])?;
    ensure!(fault.deadline_ms.is_some() && fault.pieces.is_empty(), "{fault:?}");
    let id = fault.id;
    // What is behind the fence waits; what is not goes.
    let parked = t.io(Access::Read, 97, 1)?;
    let beside = t.write_well(104, 1)?;
    for (errno, wrong) in [
        (ERANGE, piece(6, 4, Kind::Direct, 0)),
        (EINVAL, piece(0, 4, Kind::Mapped, 64)),
        (EINVAL, piece(0, 4, Kind::Direct, 64)),
    ] {
        t.refused(errno, attempt(id, &[wrong]))?;
    }
    let pieces = [
        piece(0, 4, Kind::Direct, 0),
        piece(4, 1, Kind::Direct, 0),
        piece(5, 1, Kind::Direct, 0),
        piece(6, 2, Kind::Direct, 0),
    ];
    t.ok(attempt(id, &pieces))?;
    let tried = t.is_over(id)?;
    let results: Vec<Found> = tried.pieces.iter().map(|p| p.result).collect();
    ensure!(results == [Found::Ok, Found::Ioerr, Found::Ioerr, Found::Ok], "{results:?}");
    t.refused(EBUSY, install(1, &[id]))?;
    t.refused(EINVAL, place(id, &[piece(4, 2, Kind::PoisonData, 0)]))?;
    t.refused(EINVAL, place(id, &[piece(4, 2, Kind::Direct, 0)]))?;
    t.ok(place(id, &[piece(4, 2, Kind::Mapped, 64)]))?;
    let placed = t.is_over(id)?;
    ensure!(placed.state == FaultState::Placed, "{placed:?}");
    flags(&placed, &[FaultFlags::WRITE, FaultFlags::HELD, FaultFlags::PINNED])?;
    t.is_held(write)?;
    t.is_held(parked)?;
    t.ok(install(1, &[id]))?;
    t.ends(write, Status::Ok)?;
    ensure!(t.ends(parked, Status::Ok)? == [Some(write)], "the parked read found something else");
    t.reads(96, &[Some(write); 8])?;
    t.reads(104, &[Some(beside)])?;
    t.table_is(&[extent(100, 2, Kind::Mapped, 64)])?;
    // Into the slot from now on.
    let again = t.write_well(98, 4)?;
    t.reads(97, &[Some(write), Some(again), Some(again), Some(again), Some(again), Some(write)])?;
    t.no_fault()
}

fn voided(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    let write = t.write(8, 2)?;
    let id = t.fault()?.id;
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.is_over(id)?;
    t.refused(EBUSY, attempt(id, &[piece(0, 1, Kind::Direct, 0)]))?;
    // While its bio is held: the spare may have lost what it was given. The slot may be the same.
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.is_over(id)?;
    t.refused(EEXIST, place(id, &[piece(0, 1, Kind::Mapped, 72), piece(1, 1, Kind::Mapped, 72)]))?;
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 72)]))?;
    t.is_over(id)?;
    let other = t.fence(100, 8)?;
    t.refused(EEXIST, place(other, &[piece(0, 1, Kind::Mapped, 72)]))?;
    t.ok(place(other, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.ok(install(1, &[other, id]))?;
    t.ends(write, Status::Ok)?;
    t.table_is(&[extent(8, 1, Kind::Mapped, 72), extent(100, 1, Kind::Mapped, 64)])
}

/// Nobody has its data any more.
fn left(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    bad(t, Disk::Spare, 72, 1, true)?;
    let write = t.write(8, 1)?;
    let id = t.fault()?.id;
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.is_over(id)?;
    // Void, and the next slot fails: pinned and open.
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 72)]))?;
    let failed = t.is_over(id)?;
    ensure!(failed.state == FaultState::Open, "{failed:?}");
    t.ok(fail(id))?;
    t.ends(write, Status::Io)?;
    flags(&t.fault()?, &[FaultFlags::WRITE, FaultFlags::PINNED])?;
    t.refused(ENOENT, place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.refused(ENOENT, place(id, &[]))?;
    t.ok(release(id))?;
    t.no_fault()?;
    t.table_is(&[extent(0, 8, Kind::Retired, 72)])
}

fn failing_slot(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    bad(t, Disk::Spare, 64, 1, true)?;
    let write = t.write(8, 2)?;
    let id = t.fault()?.id;
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    let failed = t.is_over(id)?;
    ensure!(
        failed.state == FaultState::Open && failed.pieces[0].result == Found::Ioerr,
        "{failed:?}"
    );
    t.table_is(&[extent(0, 8, Kind::Retired, 64)])?;
    t.refused(EEXIST, place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    // The disk refuses what is not listed: the place fails, and no slot is to blame.
    bad(t, Disk::Data, 9, 1, true)?;
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 72)]))?;
    let failed = t.is_over(id)?;
    ensure!(failed.state == FaultState::Open && failed.pieces[0].result == Found::Ok, "{failed:?}");
    t.table_is(&[extent(0, 8, Kind::Retired, 64)])?;
    t.ok(place(id, &[piece(0, 2, Kind::Mapped, 72)]))?;
    t.is_over(id)?;
    t.ok(install(1, &[id]))?;
    t.ends(write, Status::Ok)?;
    t.table_is(&[extent(8, 2, Kind::Mapped, 72), extent(0, 8, Kind::Retired, 64)])
}

fn read(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    let old = t.write_well(8, 4)?;
    bad(t, Disk::Data, 9, 1, true)?;
    let read = t.io(Access::Read, 8, 4)?;
    let fault = t.fault()?;
    flags(&fault, &[FaultFlags::HELD])?;
    t.refused(EINVAL, attempt(fault.id, &[piece(0, 4, Kind::Direct, 0)]))?;
    t.refused(EINVAL, place(fault.id, &[piece(1, 1, Kind::Direct, 0)]))?;
    t.ok(place(fault.id, &[piece(1, 1, Kind::Mapped, 64)]))?;
    let placed = t.is_over(fault.id)?;
    flags(&placed, &[FaultFlags::HELD, FaultFlags::PINNED])?;
    t.ok(install(1, &[fault.id]))?;
    // From a slot that nobody has written.
    ensure!(t.ends(read, Status::Ok)? == [Some(old), None, Some(old), Some(old)], "it found else");
    // Lost, and said so.
    bad(t, Disk::Data, 20, 1, true)?;
    let read = t.io(Access::Read, 20, 2)?;
    let id = t.fault()?.id;
    t.ok(place(id, &[piece(0, 1, Kind::PoisonData, 0)]))?;
    t.ok(install(2, &[id]))?;
    t.ends(read, Status::Medium)?;
    t.no_fault()
}

fn verdicts(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    let write = t.write(8, 1)?;
    let id = t.fault()?.id;
    t.ok(fail(id))?;
    t.ends(write, Status::Io)?;
    t.no_fault()?;
    // Released, it fails again under another number; the disk mended, it does not.
    let write = t.write(8, 1)?;
    let first = t.fault()?.id;
    t.ok(release(first))?;
    t.is_held(write)?;
    let second = t.fault()?.id;
    ensure!(second != first, "a number is used again");
    bad(t, Disk::Data, 8, 1, false)?;
    t.ok(release(second))?;
    t.ends(write, Status::Ok)?;
    // A pinned one stays when its bio has failed.
    bad(t, Disk::Data, 8, 1, true)?;
    let write = t.write(8, 1)?;
    let id = t.fault()?.id;
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.is_over(id)?;
    t.ok(fail(id))?;
    t.ends(write, Status::Io)?;
    let left = t.fault()?;
    flags(&left, &[FaultFlags::WRITE, FaultFlags::PINNED])?;
    t.ok(release(id))?;
    let c = t.state()?.instance.counters;
    ensure!((c.faults, c.fails, c.releases) == (4, 2, 3), "{c:?}");
    t.table_is(&[])
}
