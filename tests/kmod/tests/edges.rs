//! What random steps do not reach: a full table, faults that fit in no page, and I/O that returns in the middle of a
//! change.

use anyhow::{Result, ensure};
use dmremap_conformance::talk::{A, INSTANCE, extent, install, load, piece, place};
use dmremap_conformance::{Access, Config, Disk, Side, Simulated, Status, Step, Talk};
use dmremap_kmod_host::Host;
use dmremap_protocol::uapi::{Kind, MAX_EXTENTS, MAX_LOAD, MAX_PIECES};
use dmremap_protocol::{Extent, Piece, Request, SlotArea};

const ENOSPC: i32 = 28;

/// Extents of one sector, none of which goes on where another ends.
fn fill_up(side: &mut dyn Side) -> Result<()> {
    let mut t = Talk::new(side);
    t.terse = true;
    let sectors = MAX_EXTENTS as u64;
    let slots = SlotArea { start: 64, sectors, unit: 8 };
    t.ok(Request::Claim { instance: INSTANCE, slots, commit: 0 })?;
    let one = |n: u64| extent(n, 1, Kind::Mapped, 64 + sectors - 1 - n);
    for first in (0..sectors).step_by(MAX_LOAD) {
        let extents: Vec<Extent> = (first..first + MAX_LOAD as u64).map(one).collect();
        t.ok(load(&extents))?;
    }
    t.refused(ENOSPC, load(&[extent(sectors, 1, Kind::PoisonData, 0)]))?;
    t.ok(load(&[]))?;
    t.ok(Request::Ready { instance: INSTANCE })?;
    let fault = t.fence(sectors, 2)?;
    t.refused(ENOSPC, place(fault, &[piece(0, 1, Kind::PoisonData, 0)]))?;
    t.ok(place(fault, &[]))?;
    t.ok(install(1, &[fault])).map(drop)
}

#[test]
fn a_full_table_takes_no_more() -> Result<()> {
    let sectors = MAX_EXTENTS as u64 + 8;
    let config = Config { sectors, spare: sectors + 64, ..Config::default() };
    fill_up(&mut Simulated::new(&config))?;
    let mut module = Host::new(&config)?;
    fill_up(&mut module)?;
    let counters = module.state()?.instance.counters;
    ensure!(counters.extents == MAX_EXTENTS as u64, "{} extents", counters.extents);
    module.finish()
}

/// A listing begins with a buffer of a page, and asks for the room that the next fault takes.
#[test]
fn a_fault_with_all_its_pieces_is_listed() -> Result<()> {
    let pieces = MAX_PIECES as u32;
    let sectors = u64::from(8 * pieces);
    let config = Config { sectors, spare: 64 + sectors, ..Config::default() };
    let mut module = Host::new(&config)?;
    let mut t = Talk::new(&mut module);
    let slots = SlotArea { start: 64, sectors, unit: 8 };
    t.ok(Request::Claim { instance: INSTANCE, slots, commit: 0 })?;
    t.ok(load(&[]))?;
    t.ok(Request::Ready { instance: INSTANCE })?;
    let first = t.fence(0, 1)?;
    let most = t.fence(8, u64::from(2 * pieces))?;
    let last = t.fence(sectors - 1, 1)?;
    let spread = |n: u32| piece(2 * n, 1, Kind::Mapped, 64 + u64::from(8 * n));
    let placed: Vec<Piece> = (0..pieces).map(spread).collect();
    t.ok(place(most, &placed))?;
    let listed = t.state()?.faults;
    let ids: Vec<u64> = listed.iter().map(|fault| fault.id).collect();
    ensure!(ids == [first, most, last], "{ids:?}");
    ensure!(listed[1].pieces == placed, "{:?}", listed[1].pieces);
    module.finish()
}

/// A completion is an interrupt. One that comes while a processor changes the table must not look there, where it would
/// wait for what it has interrupted.
#[test]
fn a_write_that_returns_during_a_change_is_repeated() -> Result<()> {
    let mut module = Host::new(&Config::default())?;
    let mut t = Talk::new(&mut module);
    t.serve(&[])?;
    t.step(Step::Stall { disk: Disk::Data, stalls: true })?;
    let write = t.write(8, 8)?;
    let fault = t.fence(8, 8)?;
    t.ok(place(fault, &[piece(0, 8, Kind::Mapped, 64)]))?;
    drop(t);
    module.special("interrupt")?;
    module.step(&Step::Ask { port: A, request: install(1, &[fault]) })?;
    module.step(&Step::Stall { disk: Disk::Data, stalls: false })?;
    let counters = module.state()?.instance.counters;
    ensure!(counters.redone == 1 && counters.held_bios == 0, "{counters:?}");
    let read = dmremap_conformance::Io { id: 99, access: Access::Read, start: 8, len: 8 };
    let found = module.step(&Step::Io(read))?.ended;
    ensure!(found[0].status == Status::Ok && found[0].found == [Some(write); 8], "{found:?}");
    module.finish()
}
