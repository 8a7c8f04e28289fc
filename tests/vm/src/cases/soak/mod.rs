//! The soak: everything that can go wrong at random for as long as one likes, over disks with volatile caches. `make soak`
//! runs it for minutes or hours; the suite has a short one. One seed orders all that is done.
//!
//! A boot ends with a power cut. It is made of rounds: a load, and meanwhile acts, one after the other; between two
//! rounds nothing is under way, and what is in use is counted. Everything goes to a journal that the cut does not reach,
//! and the host judges that after each boot.

mod act;
mod boot;
mod flat;
mod judge;
mod plan;

use std::ops::Range;

use crate::case::{Case, Disk, End, Phase, Repeat};

/// Data, spare, journal, control. All of the data disk is written to, and judged. In an hour most of its sectors go bad: the
/// spare has a slot for each, and more for those that go bad too. The journal has room for two hours.
const DISKS: &[Disk] = &[
    Disk::Volatile { mib: DATA_SECTORS / 2048 },
    Disk::Volatile { mib: 128 },
    Disk::Raw { mib: 4096 },
    Disk::Control,
];
const DATA_SECTORS: u64 = 8 * 2048;
const CONTROL: u8 = 3;

/// Sectors of a boot's part of the journal.
const REGION: u64 = 32 * 2048;

fn region(boot: u64) -> Range<u64> {
    boot * REGION..(boot + 1) * REGION
}

const SHORT: boot::Rounds = 4;
const USUAL: boot::Rounds = 32;

const fn soak(name: &'static str, each: crate::case::Body, repeat: Repeat) -> Case {
    let each = Phase { body: each, end: End::CutUnderLoad };
    let last = Phase { body: boot::last, end: End::Off };
    Case::repeated(name, 1200, each, last, repeat)
        .disks(DISKS)
        .judge(|left| judge::judge(&left.images[2], left.boots as u64))
}

/// For as long as whoever asks for it says.
pub const LONG: Case = soak("soak.long", |ctx| boot::each(ctx, USUAL), Repeat::Times(1));

pub const CASES: &[Case] = &[
    soak("soak.short", |ctx| boot::each(ctx, SHORT), Repeat::Times(2)),
    soak("soak.a-lying-disk-is-seen", |ctx| boot::each_over_a_lying_disk(ctx, 1), Repeat::Times(2))
        .must_fail("a write was lost"),
];
