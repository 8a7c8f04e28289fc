//! Deadlines, owners that die, suspends, and the bound on what is held.

use anyhow::{Result, ensure};
use dmremap_protocol::uapi::{FaultFlags, FaultState, Kind};

use super::Conversation;
use super::faults::bad;
use crate::talk::{A, B, Talk, claim, extent, install, piece, place, release};
use crate::{Access, Config, Disk, Status, Step};

pub(super) const ALL: &[Conversation] = &[
    Conversation::new("what-is-held-ends-at-its-deadline", deadline)
        .with(|| Config { hold_ms: 2500, ..Config::default() }),
    Conversation::new("a-device-that-nobody-loads-errors", ready_deadline)
        .with(|| Config { ready_ms: 1500, ..Config::default() }),
    Conversation::new("an-owner-dies-and-another-goes-on", owner_dies),
    Conversation::new("nobody-owns-it", unowned),
    Conversation::new("nobody-owns-it-and-it-waits", queued)
        .with(|| Config { queue_unowned: true, ..Config::default() }),
    Conversation::new("no-more-is-held-than-may-be", bound)
        .with(|| Config { max_held: 2, ..Config::default() }),
    Conversation::new("what-the-disk-has-taken-leaves-the-room-and-has-a-deadline", uncounted)
        .with(|| Config { max_held: 1, hold_ms: 2500, ..Config::default() }),
    Conversation::new("a-noflush-suspend-pushes-back", noflush),
    Conversation::new("a-flushing-suspend-waits-for-verdicts", flushing),
];

fn deadline(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    bad(t, Disk::Data, 16, 1, true)?;
    let open = t.write(8, 1)?;
    let placed = t.write(16, 1)?;
    let parked = t.io(Access::Read, 8, 1)?;
    let id = t.faults()?[1].id;
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.is_over(id)?;
    for held in [open, placed, parked] {
        t.ends(held, Status::Io)?;
    }
    // What was placed may be in a commit.
    let left = t.fault()?;
    ensure!(left.id == id && left.state == FaultState::Placed, "{left:?}");
    ensure!(left.flags.contains(FaultFlags::PINNED) && left.deadline_ms.is_none(), "{left:?}");
    let c = t.state()?.instance.counters;
    ensure!((c.expired, c.held_bios, c.held_sectors) == (3, 0, 0), "{c:?}");
    let behind = t.io(Access::Read, 16, 1)?;
    t.is_held(behind)?;
    t.ok(install(1, &[id]))?;
    ensure!(t.ends(behind, Status::Ok)? == [Some(placed)], "the slot lacks what was placed");
    t.no_fault()
}

fn ready_deadline(t: &mut Talk) -> Result<()> {
    let read = t.io(Access::Read, 8, 1)?;
    let flush = t.io(Access::Flush, 0, 0)?;
    t.ok(claim(0))?;
    t.ends(read, Status::Io)?;
    t.ends(flush, Status::Io)?;
    t.serve(&[])?;
    t.reads(8, &[None])
}

fn owner_dies(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    bad(t, Disk::Data, 16, 1, true)?;
    let (open, placed) = (t.write(8, 1)?, t.write(16, 1)?);
    let [first, second] = [t.faults()?[0].id, t.faults()?[1].id];
    t.ok(place(second, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.is_over(second)?;
    t.close(A)?;
    t.is_held(open)?;
    t.is_held(placed)?;
    let faults = t.faults()?;
    ensure!(faults.iter().map(|f| f.id).eq([first, second]), "{faults:?}");
    t.ok_by(B, claim(0))?;
    t.ok_by(B, install(1, &[second]))?;
    t.ends(placed, Status::Ok)?;
    t.ok_by(B, place(first, &[piece(0, 1, Kind::Mapped, 72)]))?;
    t.is_over(first)?;
    t.ok_by(B, install(2, &[first]))?;
    t.ends(open, Status::Ok)?;
    t.table_is(&[extent(8, 1, Kind::Mapped, 72), extent(16, 1, Kind::Mapped, 64)])
}

fn unowned(t: &mut Talk) -> Result<()> {
    t.serve(&[extent(100, 1, Kind::PoisonData, 0)])?;
    bad(t, Disk::Data, 8, 1, true)?;
    t.close(A)?;
    let write = t.write(8, 1)?;
    t.ends(write, Status::Io)?;
    let heal = t.write(100, 1)?;
    t.ends(heal, Status::Medium)?;
    let good = t.write_well(20, 1)?;
    t.reads(20, &[Some(good)])?;
    ensure!(t.state()?.instance.counters.unowned == 2, "not two");
    t.no_fault()
}

fn queued(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    t.close(A)?;
    let write = t.write(8, 1)?;
    t.is_held(write)?;
    t.ok(claim(0))?;
    let id = t.fault()?.id;
    bad(t, Disk::Data, 8, 1, false)?;
    t.ok(release(id))?;
    t.ends(write, Status::Ok).map(drop)
}

fn bound(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 8, true)?;
    let (one, two) = (t.write(8, 1)?, t.write(10, 1)?);
    let three = t.write(12, 1)?;
    t.ends(three, Status::Io)?;
    // Also of what would only be parked.
    let parked = t.write(8, 1)?;
    t.ends(parked, Status::Io)?;
    let c = t.state()?.instance.counters;
    ensure!((c.refused, c.held_bios, c.held_sectors) == (2, 2, 2), "{c:?}");
    bad(t, Disk::Data, 8, 8, false)?;
    for fault in t.faults()? {
        t.ok(release(fault.id))?;
    }
    t.ends(one, Status::Ok)?;
    t.ends(two, Status::Ok).map(drop)
}

/// A write that has returned goes again, and waits: as many as the disk takes would use up the bound, and every new
/// fault be an error.
fn uncounted(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 100, 1, true)?;
    t.step(Step::Stall { disk: Disk::Data, stalls: true })?;
    let taken = t.write(8, 1)?;
    t.fence(8, 1)?;
    t.step(Step::Stall { disk: Disk::Data, stalls: false })?;
    t.is_held(taken)?;
    let faulty = t.write(100, 1)?;
    t.is_held(faulty)?;
    let c = t.state()?.instance.counters;
    ensure!((c.refused, c.redone, c.held_bios, c.held_sectors) == (0, 1, 2, 2), "{c:?}");
    t.ends(faulty, Status::Io)?;
    t.ends(taken, Status::Io)?;
    let c = t.state()?.instance.counters;
    ensure!((c.expired, c.held_bios, c.held_sectors) == (2, 0, 0), "{c:?}");
    Ok(())
}

fn noflush(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    bad(t, Disk::Data, 16, 1, true)?;
    let (open, placed) = (t.write(8, 1)?, t.write(16, 1)?);
    let parked = t.write(8, 1)?;
    let [first, second] = [t.faults()?[0].id, t.faults()?[1].id];
    t.ok(place(second, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.is_over(second)?;
    t.step(Step::Suspend { noflush: true })?;
    for held in [open, placed, parked] {
        t.is_held(held)?;
    }
    let left = t.fault()?;
    ensure!(left.id == second && left.deadline_ms.is_none(), "not the pinned one alone: {left:?}");
    ensure!(t.state()?.instance.counters.held_bios == 0, "something is held by the target");
    t.ok(install(1, &[second]))?;
    let late = t.write(100, 1)?;
    t.is_held(late)?;
    bad(t, Disk::Data, 8, 1, false)?;
    t.step(Step::Resume)?;
    for held in [open, placed, parked, late] {
        t.ends(held, Status::Ok)?;
    }
    ensure!(first != second, "two faults with one number");
    t.reads(16, &[Some(placed)])?;
    t.no_fault()
}

fn flushing(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    bad(t, Disk::Data, 8, 1, true)?;
    let write = t.write(8, 1)?;
    let id = t.fault()?.id;
    t.step(Step::Suspend { noflush: false })?;
    t.is_held(write)?;
    t.ok(place(id, &[piece(0, 1, Kind::Mapped, 64)]))?;
    t.is_over(id)?;
    t.ok(install(1, &[id]))?;
    t.ends(write, Status::Ok)?;
    let late = t.write(100, 1)?;
    t.is_held(late)?;
    t.step(Step::Resume)?;
    t.ends(late, Status::Ok)?;
    t.reads(8, &[Some(write)])
}
