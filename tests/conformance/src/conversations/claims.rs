//! Who may say what.

use anyhow::{Result, ensure};
use dmremap_protocol::uapi::Kind;
use dmremap_protocol::{Request, SlotArea};

use super::Conversation;
use crate::talk::{
    A, AREA, B, INSTANCE, Talk, attempt, claim, extent, fail, fence, install, load, piece, place,
    release,
};

pub(super) const ALL: &[Conversation] = &[
    Conversation::new("an-instance-has-one-owner", one_owner),
    Conversation::new("a-claim-is-of-the-slot-area-that-there-is", slot_area),
    Conversation::new("a-table-below-the-last-commit-is-stale", stale),
    Conversation::new("only-the-owner-is-heard", only_the_owner),
    Conversation::new("the-doorbell-rings-until-the-owner-lists", doorbell),
];

const EINVAL: i32 = 22;
const EBUSY: i32 = 16;
const EACCES: i32 = 13;
const ERANGE: i32 = 34;
const ESRCH: i32 = 3;
const ENOENT: i32 = 2;
const ESTALE: i32 = 116;

fn one_owner(t: &mut Talk) -> Result<()> {
    ensure!(t.state()?.instance.owner.is_none(), "it is owned by somebody");
    t.ok(claim(0))?;
    t.ok(claim(0))?;
    t.refused_by(B, EBUSY, claim(0))?;
    ensure!(t.state()?.instance.owner == Some(A), "the first does not own it");
    t.close(A)?;
    ensure!(t.state()?.instance.owner.is_none(), "it is owned by a socket that has ended");
    t.ok_by(B, claim(0))?;
    t.refused(EBUSY, claim(0))?;
    // Somebody else's end changes nothing.
    t.close(A)?;
    ensure!(t.state()?.instance.owner == Some(B), "the second does not own it");
    t.ok_by(B, Request::Ready { instance: INSTANCE }).map(drop)
}

fn slot_area(t: &mut Talk) -> Result<()> {
    let with = |slots| Request::Claim { instance: INSTANCE, slots, commit: 0 };
    for unit in [0, 4, 12, 4096] {
        t.refused(EINVAL, with(SlotArea { unit, ..AREA }))?;
    }
    let outside = [
        SlotArea { start: AREA.start + 4, ..AREA },
        SlotArea { sectors: 0, ..AREA },
        SlotArea { sectors: AREA.sectors + 4, ..AREA },
        SlotArea { sectors: 4096, ..AREA },
        SlotArea { sectors: 1 << 28, ..AREA },
        SlotArea { start: u64::MAX - 7, ..AREA },
        SlotArea { sectors: u64::MAX - 7, ..AREA },
    ];
    for slots in outside {
        t.refused(ERANGE, with(slots))?;
    }
    t.ok(claim(0))?;
    t.refused(EINVAL, with(SlotArea { sectors: AREA.sectors - 8, ..AREA }))?;
    t.refused(EINVAL, with(SlotArea { unit: 16, ..AREA }))?;
    t.close(A)?;
    t.refused(EINVAL, with(SlotArea { start: AREA.start + 8, ..AREA }))?;
    t.ok(claim(0)).map(drop)
}

fn stale(t: &mut Talk) -> Result<()> {
    t.ok(claim(5))?;
    t.refused(ESTALE, claim(4))?;
    t.ok(Request::Ready { instance: INSTANCE })?;
    let fault = t.fence(8, 8)?;
    t.ok(place(fault, &[piece(0, 8, Kind::Mapped, 64)]))?;
    t.refused(ESTALE, install(4, &[fault]))?;
    t.ok(install(7, &[fault]))?;
    t.close(A)?;
    t.refused(ESTALE, claim(6))?;
    t.ok(claim(7))?;
    ensure!(t.state()?.instance.commit == 7, "the last commit is not 7");
    Ok(())
}

fn only_the_owner(t: &mut Talk) -> Result<()> {
    let requests = || {
        vec![
            load(&[extent(0, 8, Kind::Mapped, 64)]),
            Request::Ready { instance: INSTANCE },
            attempt(1, &[]),
            place(1, &[]),
            install(1, &[]),
            release(1),
            fail(1),
            fence(0, 8),
        ]
    };
    for request in requests() {
        t.refused(EACCES, request)?;
    }
    t.ok(claim(0))?;
    for request in requests() {
        t.refused_by(B, EACCES, request)?;
    }
    t.ok(Request::Ready { instance: INSTANCE })?;
    for request in [attempt(1, &[]), place(1, &[]), release(1), fail(1), install(0, &[1])] {
        t.refused(ENOENT, request)?;
    }
    t.refused(ENOENT, install(0, &[0]))?;
    t.ok(install(0, &[]))?;
    for request in [
        Request::Ready { instance: 77 },
        Request::FaultGet { instance: 77 },
        Request::ExtentGet { instance: 77 },
        Request::Claim { instance: 77, slots: AREA, commit: 0 },
    ] {
        t.refused(ESRCH, request)?;
    }
    Ok(())
}

fn doorbell(t: &mut Talk) -> Result<()> {
    let list = || Request::FaultGet { instance: INSTANCE };
    t.ok(claim(0))?;
    t.ok(Request::Ready { instance: INSTANCE })?;
    t.ok(list())?;
    ensure!(!t.rings(1500)?, "it rings after it was answered");
    let fault = t.fence(8, 8)?;
    t.ok(place(fault, &[piece(0, 8, Kind::Mapped, 64)]))?;
    ensure!(t.rings(1500)?, "a bell that nobody heard does not ring again");
    t.ok_by(B, list())?;
    ensure!(t.rings(1500)?, "a list of somebody else's answers it");
    t.ok(list())?;
    ensure!(!t.rings(1500)?, "it rings after it was answered again");
    Ok(())
}
