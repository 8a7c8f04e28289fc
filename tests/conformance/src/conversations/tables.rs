//! What is loaded, installed and listed.

use anyhow::{Result, ensure};
use dmremap_protocol::uapi::{FaultFlags, Kind, Status as Found};
use dmremap_protocol::{Extent, Request};

use super::Conversation;
use crate::talk::{A, INSTANCE, Talk, claim, extent, load, piece, place};
use crate::{Access, Status};

pub(super) const ALL: &[Conversation] = &[
    Conversation::new("a-load-has-gaps-and-neighbours", gaps),
    Conversation::new("a-wrong-load-changes-nothing", wrong_load),
    Conversation::new("nothing-is-served-before-ready", before_ready),
    Conversation::new("a-change-splits-what-it-meets", splits),
    Conversation::new("lists-go-over-many-messages", paging),
    Conversation::new("poison-is-read-by-nobody-and-healed-whole", poison),
    Conversation::new("a-slot-that-is-poisoned-stays-its-own", poisoned_slot),
    Conversation::new("a-mapping-is-given-up", copied_back),
    Conversation::new("a-slot-serves-one-mapping", slots),
];

const EINVAL: i32 = 22;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ERANGE: i32 = 34;

fn loaded() -> Vec<Extent> {
    vec![
        extent(10, 6, Kind::Mapped, 64),
        // It goes on where the one before ends, on both disks.
        extent(16, 2, Kind::Mapped, 70),
        extent(30, 3, Kind::PoisonData, 0),
        extent(33, 1, Kind::PoisonData, 0),
        extent(40, 8, Kind::PoisonSlot, 80),
        extent(2040, 8, Kind::Mapped, 2104),
    ]
}

fn gaps(t: &mut Talk) -> Result<()> {
    let mut table = loaded();
    t.ok(claim(3))?;
    t.ok(load(&table[..2]))?;
    t.ok(load(&[extent(0, 5, Kind::Retired, 96)]))?;
    t.ok(load(&table[2..]))?;
    t.ok(load(&[]))?;
    table.push(extent(0, 5, Kind::Retired, 96));
    t.table_is(&table)?;
    t.ok(Request::Ready { instance: INSTANCE })?;
    t.refused(EBUSY, load(&[extent(100, 1, Kind::Mapped, 104)]))?;
    t.ok(Request::Ready { instance: INSTANCE })?;
    let written = t.write_well(8, 12)?;
    t.reads(8, &[Some(written); 12])?;
    for (start, len) in [(30, 1), (33, 1), (28, 3), (40, 1), (47, 2)] {
        let read = t.io(Access::Read, start, len)?;
        t.ends(read, Status::Medium)?;
    }
    t.reads(2039, &[None; 9])?;
    t.table_is(&table)
}

fn wrong_load(t: &mut Talk) -> Result<()> {
    t.ok(claim(0))?;
    let good = extent(10, 6, Kind::Mapped, 64);
    let wrong = [
        (EINVAL, extent(20, 0, Kind::Mapped, 80)),
        (EINVAL, extent(20, 4, Kind::Direct, 0)),
        (ERANGE, extent(15, 4, Kind::Mapped, 80)),
        (ERANGE, extent(2046, 4, Kind::Mapped, 80)),
        (ERANGE, extent(u64::MAX, 4, Kind::Mapped, 80)),
        (ERANGE, extent(20, 4, Kind::Mapped, 60)),
        (ERANGE, extent(20, 4, Kind::Mapped, 2110)),
        (ERANGE, extent(20, 4, Kind::Mapped, 0)),
        (ERANGE, extent(20, 4, Kind::PoisonData, 80)),
        (ERANGE, extent(5, 4, Kind::PoisonData, 0)),
        (EEXIST, extent(20, 4, Kind::Mapped, 69)),
        (EEXIST, extent(20, 4, Kind::PoisonSlot, 64)),
        (EEXIST, extent(0, 4, Kind::Retired, 66)),
        (EINVAL, extent(20, 4, Kind::Retired, 80)),
    ];
    for (errno, bad) in wrong {
        t.refused(errno, load(&[good, bad]))?;
        t.table_is(&[])?;
    }
    // Nothing of them was taken: not the slot, not the order.
    t.ok(load(&[good]))?;
    t.ok(load(&[extent(20, 4, Kind::Mapped, 80), extent(0, 4, Kind::Retired, 104)]))?;
    // To claim is to begin anew.
    t.ok(claim(0))?;
    t.table_is(&[])?;
    t.ok(load(&[extent(5, 4, Kind::Mapped, 64)]))?;
    t.table_is(&[extent(5, 4, Kind::Mapped, 64)])
}

fn before_ready(t: &mut Talk) -> Result<()> {
    let write = t.write(10, 8)?;
    let read = t.io(Access::Read, 100, 4)?;
    let flush = t.io(Access::Flush, 0, 0)?;
    t.ok(claim(0))?;
    t.ok(load(&[extent(10, 4, Kind::Mapped, 64)]))?;
    t.refused(EBUSY, crate::talk::fence(0, 8))?;
    for id in [write, read, flush] {
        t.is_held(id)?;
    }
    // The owner's end does not let them go.
    t.close(A)?;
    t.ok(claim(0))?;
    t.ok(load(&[extent(12, 4, Kind::Mapped, 64)]))?;
    t.ok(Request::Ready { instance: INSTANCE })?;
    t.ends(write, Status::Ok)?;
    t.ends(flush, Status::Ok)?;
    ensure!(t.ends(read, Status::Ok)? == vec![None; 4], "what nobody wrote was read");
    t.reads(9, &[None, Some(write), Some(write), Some(write), Some(write)])?;
    t.reads(14, &[Some(write), Some(write), Some(write), Some(write), None])
}

fn splits(t: &mut Talk) -> Result<()> {
    t.serve(&[extent(100, 8, Kind::Mapped, 64), extent(108, 8, Kind::Mapped, 72)])?;
    let old = t.write_well(96, 24)?;
    t.change(104, piece(0, 8, Kind::Mapped, 80), 1)?;
    t.table_is(&[
        extent(100, 4, Kind::Mapped, 64),
        extent(104, 8, Kind::Mapped, 80),
        extent(112, 4, Kind::Mapped, 76),
        extent(0, 8, Kind::Retired, 68),
    ])?;
    t.reads(103, &[Some(old), None])?;
    t.reads(112, &[Some(old), Some(old), Some(old), Some(old), Some(old)])?;
    // In the middle of one, and over three.
    t.change(106, piece(0, 1, Kind::Mapped, 88), 2)?;
    t.change(98, piece(0, 20, Kind::Mapped, 96), 3)?;
    t.table_is(&[extent(98, 20, Kind::Mapped, 96), extent(0, 25, Kind::Retired, 64)])?;
    t.reads(96, &[Some(old), Some(old), None])
}

fn paging(t: &mut Talk) -> Result<()> {
    t.terse = true;
    t.ok(claim(0))?;
    let table: Vec<Extent> = (0..2048).map(|n| extent(n, 1, Kind::Mapped, 64 + 2047 - n)).collect();
    t.ok(load(&table))?;
    t.ok(Request::Ready { instance: INSTANCE })?;
    t.table_is(&table)
}

fn poison(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    let old = t.write_well(0, 16)?;
    t.change(4, piece(0, 4, Kind::PoisonData, 0), 1)?;
    let read = t.io(Access::Read, 0, 16)?;
    t.ends(read, Status::Medium)?;
    t.reads(0, &[Some(old); 4])?;
    // What is poisoned already, or mapped, cannot be poisoned so.
    let fault = t.fence(0, 16)?;
    t.refused(EINVAL, place(fault, &[piece(2, 4, Kind::PoisonData, 0)]))?;
    t.refused(EINVAL, place(fault, &[piece(0, 2, Kind::Direct, 0)]))?;
    t.ok(crate::talk::release(fault))?;
    // A write over a part of it, and its neighbour, which is no matter.
    let heal = t.write(2, 4)?;
    let fault = t.fault()?;
    ensure!((fault.start, fault.len, fault.status) == (4, 2, Found::Ok), "{fault:?}");
    ensure!(fault.flags.contains(FaultFlags::HEAL), "no disk has refused it: {fault:?}");
    let fault = fault.id;
    t.refused(EINVAL, crate::talk::attempt(fault, &[piece(0, 2, Kind::Direct, 0)]))?;
    t.refused(EINVAL, place(fault, &[piece(1, 1, Kind::Mapped, 64)]))?;
    t.refused(EINVAL, place(fault, &[]))?;
    t.ok(place(fault, &[piece(0, 2, Kind::Mapped, 64)]))?;
    t.is_over(fault)?;
    t.ok(crate::talk::install(2, &[fault]))?;
    t.ends(heal, Status::Ok)?;
    t.reads(0, &[Some(old), Some(old), Some(heal), Some(heal), Some(heal), Some(heal)])?;
    let read = t.io(Access::Read, 6, 1)?;
    t.ends(read, Status::Medium)?;
    t.reads(8, &[Some(old); 8])?;
    // The rest is proved readable.
    t.change(6, piece(0, 2, Kind::Direct, 0), 3)?;
    t.reads(4, &[Some(heal), Some(heal), Some(old), Some(old)])?;
    t.table_is(&[extent(4, 2, Kind::Mapped, 64)])
}

fn poisoned_slot(t: &mut Talk) -> Result<()> {
    t.serve(&[extent(8, 8, Kind::Mapped, 64)])?;
    let fault = t.fence(8, 8)?;
    t.refused(EINVAL, place(fault, &[piece(0, 4, Kind::PoisonSlot, 65)]))?;
    t.refused(EINVAL, place(fault, &[piece(0, 4, Kind::PoisonData, 0)]))?;
    t.ok(place(fault, &[piece(2, 4, Kind::PoisonSlot, 66)]))?;
    t.ok(crate::talk::install(1, &[fault]))?;
    let read = t.io(Access::Read, 9, 2)?;
    t.ends(read, Status::Medium)?;
    // The disk is stale there.
    let fault = t.fence(8, 8)?;
    t.refused(EINVAL, place(fault, &[piece(2, 4, Kind::Direct, 0)]))?;
    t.refused(EEXIST, place(fault, &[piece(2, 4, Kind::Mapped, 64)]))?;
    t.ok(place(fault, &[piece(2, 4, Kind::Mapped, 72)]))?;
    t.ok(crate::talk::install(2, &[fault]))?;
    t.table_is(&[
        extent(8, 2, Kind::Mapped, 64),
        extent(10, 4, Kind::Mapped, 72),
        extent(14, 2, Kind::Mapped, 70),
        extent(0, 4, Kind::Retired, 66),
    ])
}

fn copied_back(t: &mut Talk) -> Result<()> {
    t.serve(&[])?;
    let old = t.write_well(8, 8)?;
    t.change(8, piece(0, 8, Kind::Mapped, 64), 1)?;
    let new = t.write_well(8, 8)?;
    t.change(8, piece(2, 4, Kind::Direct, 0), 2)?;
    let (o, n) = (Some(old), Some(new));
    t.reads(8, &[n, n, o, o, o, o, n, n])?;
    t.table_is(&[extent(8, 2, Kind::Mapped, 64), extent(14, 2, Kind::Mapped, 70)])?;
    // Its slot is not free, though nothing is there.
    let fault = t.fence(100, 8)?;
    t.refused(EEXIST, place(fault, &[piece(0, 8, Kind::Mapped, 64)]))
}

fn slots(t: &mut Talk) -> Result<()> {
    t.serve(&[extent(0, 3, Kind::Mapped, 64)])?;
    let fault = t.fence(100, 40)?;
    for (errno, slot) in
        [(ERANGE, 66), (ERANGE, 56), (ERANGE, 2112), (ERANGE, u64::MAX - 7), (EEXIST, 64)]
    {
        t.refused(errno, place(fault, &[piece(0, 2, Kind::Mapped, slot)]))?;
    }
    t.refused(ERANGE, place(fault, &[piece(0, 10, Kind::Mapped, 2104)]))?;
    t.refused(ERANGE, place(fault, &[piece(36, 8, Kind::Mapped, 80)]))?;
    t.refused(EINVAL, place(fault, &[piece(0, 0, Kind::Mapped, 80)]))?;
    t.refused(EINVAL, place(fault, &[piece(0, 2, Kind::Retired, 80)]))?;
    let twice = [piece(0, 2, Kind::Mapped, 80), piece(2, 2, Kind::Mapped, 80)];
    t.refused(EEXIST, place(fault, &twice))?;
    let across = [piece(0, 4, Kind::Mapped, 80), piece(2, 2, Kind::Mapped, 88)];
    t.refused(EINVAL, place(fault, &across))?;
    // Ten sectors take two units. What was refused has taken none.
    t.ok(place(fault, &[piece(0, 10, Kind::Mapped, 80)]))?;
    t.refused(EBUSY, place(fault, &[piece(0, 10, Kind::Mapped, 160)]))?;
    let other = t.fence(200, 8)?;
    t.refused(EEXIST, place(other, &[piece(0, 2, Kind::Mapped, 88)]))?;
    // A release gives them back.
    t.ok(crate::talk::release(fault))?;
    t.ok(place(other, &[piece(0, 2, Kind::Mapped, 88)]))?;
    t.ok(crate::talk::install(1, &[other]))?;
    t.table_is(&[extent(0, 3, Kind::Mapped, 64), extent(200, 2, Kind::Mapped, 88)])
}
