//! What a failed flush means for later ones.

use anyhow::{Result, ensure};
use dmremap_protocol::Request;
use dmremap_protocol::uapi::{FaultState, InstanceFlags, Kind};

use super::Conversation;
use super::faults::bad;
use crate::talk::{B, INSTANCE, Talk, extent, install, piece, place, release};
use crate::{Access, Disk, Status, Step};

pub(super) const ALL: &[Conversation] = &[
    Conversation::new("after-a-failed-flush-nothing-is-durable", data),
    Conversation::new("an-unused-spare-only-alarms", unused_spare),
    Conversation::new("a-used-spare-counts", used_spare),
    Conversation::new("somebody-is-told-of-the-owners-flush", owed),
    Conversation::new("a-flush-that-fails-before-ready-is-owed", owed_before_ready),
    Conversation::new("before-an-extent-nobody-is-owed-a-flush", owed_to_nobody),
    Conversation::new("a-durable-write-hears-it-for-nobody-else", owed_past_a_durable_write),
    Conversation::new("what-a-failed-flush-may-have-lost-is-written-again", repeated),
];

fn fail(t: &mut Talk, disk: Disk, fails: bool) -> Result<()> {
    t.step(Step::FailFlushes { disk, flushes: if fails { u32::MAX } else { 0 } })
}

/// After a write, for a disk may leave a flush out that has nothing to do.
fn flush(t: &mut Talk, status: Status) -> Result<()> {
    t.write_well(1000, 1)?;
    let flush = t.io(Access::Flush, 0, 0)?;
    t.ends(flush, status).map(drop)
}

fn durable(t: &mut Talk, status: Status) -> Result<()> {
    let write = t.io(Access::Durable, 8, 1)?;
    t.ends(write, status).map(drop)
}

fn flags(t: &mut Talk, wanted: &[InstanceFlags]) -> Result<()> {
    let all = wanted.iter().fold(InstanceFlags::READY.0, |all, flag| all | flag.0);
    let found = t.state()?.instance.flags.0;
    ensure!(found == all, "its flags are {found:#x}, not {all:#x}");
    Ok(())
}

fn data(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    durable(t, Status::Ok)?;
    fail(t, Disk::Data, true)?;
    flush(t, Status::Io)?;
    flags(t, &[InstanceFlags::DATA_FLUSH_BAD])?;
    durable(t, Status::Io)?;
    fail(t, Disk::Data, false)?;
    durable(t, Status::Io)?;
    flush(t, Status::Ok)?;
    flags(t, &[])?;
    durable(t, Status::Ok)?;
    ensure!(t.state()?.instance.counters.data_flush_fails == 1, "not one failure is counted");
    Ok(())
}

fn unused_spare(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    fail(t, Disk::Spare, true)?;
    flush(t, Status::Ok)?;
    flags(t, &[InstanceFlags::SPARE_FLUSH_BAD])?;
    fail(t, Disk::Spare, false)?;
    flush(t, Status::Ok)?;
    flags(t, &[])?;
    durable(t, Status::Ok)
}

fn used_spare(t: &mut Talk) -> Result<()> {
    t.serve(&[extent(1000, 1, Kind::Mapped, 64)])?;
    fail(t, Disk::Spare, true)?;
    flush(t, Status::Io)?;
    durable(t, Status::Io)?;
    fail(t, Disk::Spare, false)?;
    flush(t, Status::Ok)?;
    durable(t, Status::Ok)
}

fn owed(t: &mut Talk) -> Result<()> {
    t.serve(&[extent(1000, 1, Kind::Mapped, 64)])?;
    // Whoever has the spare open: the one who is about to claim the instance, say.
    t.ok_by(B, Request::FlushFailed { instance: INSTANCE })?;
    flags(t, &[InstanceFlags::SPARE_FLUSH_BAD])?;
    durable(t, Status::Io)?;
    flush(t, Status::Io)?;
    // That was not heard if data came with the flush: then they must fail.
    flags(t, &[InstanceFlags::SPARE_FLUSH_BAD])?;
    durable(t, Status::Io)?;
    flush(t, Status::Ok)?;
    flags(t, &[])?;
    durable(t, Status::Ok)?;
    ensure!(t.state()?.instance.counters.spare_flush_fails == 1, "not one failure is counted");
    Ok(())
}

/// What was written to a slot through a device that is gone, and made anew.
fn owed_before_ready(t: &mut Talk) -> Result<()> {
    t.ok(Request::FlushFailed { instance: INSTANCE })?;
    t.serve(&[extent(1000, 1, Kind::Mapped, 64)])?;
    flags(t, &[InstanceFlags::SPARE_FLUSH_BAD])?;
    durable(t, Status::Io)?;
    flush(t, Status::Io)?;
    flush(t, Status::Ok)?;
    flags(t, &[])?;
    durable(t, Status::Ok)
}

/// Nobody has written to a spare without an extent.
fn owed_to_nobody(t: &mut Talk) -> Result<()> {
    t.ok(Request::FlushFailed { instance: INSTANCE })?;
    t.serve(&[])?;
    t.change(1000, piece(0, 1, Kind::Mapped, 64), 1)?;
    flags(t, &[])?;
    durable(t, Status::Ok)?;
    flush(t, Status::Ok)
}

/// One that was under way when the flush failed that was to cover another's.
fn owed_past_a_durable_write(t: &mut Talk) -> Result<()> {
    t.serve(&[extent(8, 1, Kind::Mapped, 65), extent(1000, 1, Kind::Mapped, 64)])?;
    t.write_well(1000, 1)?;
    t.step(Step::Stall { disk: Disk::Spare, stalls: true })?;
    let write = t.io(Access::Durable, 8, 1)?;
    t.ok(Request::FlushFailed { instance: INSTANCE })?;
    t.step(Step::Stall { disk: Disk::Spare, stalls: false })?;
    t.ends(write, Status::Io)?;
    flush(t, Status::Io)?;
    flush(t, Status::Ok)
}

/// A write has been repeated to its slot, and nobody was told so when a flush of the spare fails.
fn repeated(t: &mut Talk) -> Result<()> {
    t.serve(&[extent(8, 1, Kind::Mapped, 64)])?;
    bad(t, Disk::Spare, 64, 1, true)?;
    let write = t.write(8, 1)?;
    let id = t.fault()?.id;
    bad(t, Disk::Spare, 64, 1, false)?;
    t.ok(place(id, &[]))?;
    let placed = t.is_over(id)?;
    ensure!(placed.state == FaultState::Placed, "{placed:?}");
    fail(t, Disk::Spare, true)?;
    flush(t, Status::Io)?;
    fail(t, Disk::Spare, false)?;
    // It shows that it is written again by being refused.
    bad(t, Disk::Spare, 64, 1, true)?;
    t.ok(install(1, &[id]))?;
    t.is_held(write)?;
    let again = t.fault()?.id;
    ensure!(again != id, "a number is used again");
    bad(t, Disk::Spare, 64, 1, false)?;
    t.ok(release(again))?;
    t.ends(write, Status::Ok)?;
    t.reads(8, &[Some(write)])
}
