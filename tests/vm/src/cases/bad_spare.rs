//! A spare that has bad sectors itself: in its slots, in one mirror of its metadata, in both; and one that is full.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc::{EIO, ENODATA};
use serde_json::Value;

use crate::case::Case;
use crate::guest::Ctx;
use crate::guest::devices::Brd;
use crate::guest::dm::{self, Device};
use crate::guest::served::{self, Served};
use crate::guest::spare::{self, Areas, BLOCK, COPIES, Frail, blocks};
use crate::guest::wait_until;

pub const CASES: &[Case] = &[
    Case::new("bad-spare.slots-are-replaced-and-retired", 120, slots),
    Case::new("bad-spare.too-many-slots-in-a-row", 90, too_many_slots),
    Case::new("bad-spare.a-slot-that-held-data", 90, a_slot_that_held_data),
    Case::new("bad-spare.one-mirror", 150, one_mirror),
    Case::new("bad-spare.a-mirror-fails-in-service", 90, a_mirror_fails_in_service),
    Case::new("bad-spare.blocks-of-both-mirrors", 150, blocks_of_both_mirrors),
    Case::new("bad-spare.the-last-record-unreadable", 90, the_last_record_unreadable),
    Case::new("bad-spare.full", 150, full),
    Case::new("bad-spare.metadata-takes-no-writes", 90, metadata_takes_no_writes),
];

const BAD: [u64; 5] = [100, 200, 300, 400, 500];

/// Fields are taken down in this order.
struct Setup {
    bad: Device,
    spare: Frail,
    areas: Areas,
    _brd: Brd,
}

impl Setup {
    fn new() -> Result<Self> {
        Self::with(&BAD, None)
    }

    fn with(sectors: &[u64], spare_sectors: Option<u64>) -> Result<Self> {
        let brd = Brd::load(2, 16)?;
        let bad = dm::disk_with_bad_sectors("bad", &brd.path(0), sectors)?;
        let spare = match spare_sectors {
            Some(size) => Frail::of_size("spare", &brd.path(1), size)?,
            None => Frail::new("spare", &brd.path(1))?,
        };
        served::format(bad.path(), spare.path())?;
        served::configure(bad.path(), spare.path(), "")?;
        let areas = Areas::of(spare.path())?;
        Ok(Self { bad, spare, areas, _brd: brd })
    }

    /// The log holds `BAD[..count]`, a record each, and nobody closed the spare.
    fn left_open_with(&self, count: usize) -> Result<()> {
        let mut served = Served::start()?;
        for &sector in &BAD[..count] {
            served.disk()?.fill(sector, 1, sector)?;
        }
        served.kill()
    }

    /// All that was written to `BAD[..count]` is there, and one more can be written.
    fn is_whole(&self, count: usize) -> Result<()> {
        let served = Served::start()?;
        let disk = served.disk()?;
        for &sector in &BAD[..count] {
            disk.verify(sector, 1, sector)?;
        }
        disk.fill(BAD[count], 1, BAD[count])?;
        disk.verify(BAD[count], 1, BAD[count])?;
        drop(disk);
        served.down()
    }

    fn path(&self) -> String {
        self.spare.path().display().to_string()
    }

    fn remove(self) -> Result<()> {
        self.bad.remove()?;
        self.spare.device.remove()
    }
}

/// Start, length and slot of what `list` shows of a kind; what has none of them has `None`.
type Line = (Option<u64>, u64, Option<u64>);

fn listed(kind: &str) -> Result<Vec<Line>> {
    let text = served::policyd(&["list", served::NAME])?.run()?;
    let number = |word: &str| word.parse().ok();
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_kind = lines.filter(|words| words.get(2) == Some(&kind));
    of_kind.map(|words| Ok((number(words[0]), words[1].parse()?, number(words[3])))).collect()
}

/// The slots of the mapped sectors, in the order of the sectors.
fn slots_of(kind: &str) -> Result<Vec<u64>> {
    let found = listed(kind)?.into_iter().map(|(_, _, slot)| slot.context("a slot"));
    found.collect()
}

fn status() -> Result<Value> {
    let text = served::policyd(&["status", "--json"])?.run()?;
    serde_json::from_str(&text).context("what `status` wrote")
}

fn alarms(wanted: &[&str]) -> Result<()> {
    let shown = status()?["alarms"].clone();
    let keys: Vec<&String> = shown.as_object().into_iter().flat_map(|map| map.keys()).collect();
    ensure!(keys == wanted, "alarms: {shown}, and should be {wanted:?}");
    Ok(())
}

fn slots(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    let slot = |n: u64| setup.areas.slots + n * BLOCK;
    setup.spare.fail(&[slot(0), slot(1), slot(3)])?;
    let mut served = Served::start()?;
    served.disk()?.fill(100, 1, 1)?;
    served.disk()?.fill(200, 1, 1)?;
    let retired = [(None, 2 * BLOCK, Some(slot(0))), (None, BLOCK, Some(slot(3)))];
    let expect = |mapped: &[u64]| {
        let found = (slots_of("mapped")?, listed("retired")?);
        ensure!(
            found == (mapped.to_vec(), retired.to_vec()),
            "mapped to and retired: {found:?}, and should be {:?}",
            (mapped, retired)
        );
        Ok(())
    };
    expect(&[slot(2), slot(4)])?;
    ensure!(status()?["counters"]["slots_retired"] == 3, "{}", status()?["counters"]);

    // They can be written again: nobody may try.
    setup.spare.fail(&[])?;
    served.kill()?;
    served.again()?;
    served.disk()?.fill(300, 1, 1)?;
    expect(&[slot(2), slot(4), slot(5)])?;
    served.down()?;
    let served = Served::start()?;
    served.disk()?.fill(400, 1, 1)?;
    expect(&[slot(2), slot(4), slot(5), slot(6)])?;
    for sector in [100, 200, 300, 400] {
        served.disk()?.verify(sector, 1, 1)?;
    }
    served.down()?;
    spare::is_clean(setup.spare.path())?;
    setup.remove()
}

/// `place_attempts` slots fail one after the other: the writer gets its error, and they are retired all the same.
fn too_many_slots(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    let slot = |n: u64| setup.areas.slots + n * BLOCK;
    let bad: Vec<u64> = (0..4).map(slot).collect();
    setup.spare.fail(&bad)?;
    let served = Served::start()?;
    served.disk()?.write_fails(100, 1, EIO)?;
    let said = served.status()?;
    ensure!(said.contains("it could not be placed"), "{said}");
    served.down()?;
    setup.spare.fail(&[])?;
    let served = Served::start()?;
    ensure!(listed("retired")? == [(None, 4 * BLOCK, Some(slot(0)))], "{:?}", listed("retired")?);
    served.disk()?.fill(100, 1, 1)?;
    ensure!(slots_of("mapped")? == [slot(4)], "{:?}", listed("mapped")?);
    served.disk()?.verify(100, 1, 1)?;
    served.down()?;
    setup.remove()
}

/// A slot that becomes unreadable is poison, not what the data disk holds; an overwrite goes to another slot.
fn a_slot_that_held_data(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    let slot = |n: u64| setup.areas.slots + n * BLOCK;
    let served = Served::start()?;
    let disk = served.disk()?;
    disk.fill(100, 1, 1)?;
    disk.fill(200, 1, 1)?;
    setup.spare.fail(&[slot(0)])?;
    disk.read_fails(100, 1, ENODATA)?;
    disk.verify(200, 1, 1)?;
    ensure!(
        listed("poison-slot")? == [(Some(100), 1, Some(slot(0)))],
        "{:?}",
        listed("poison-slot")?
    );
    drop(disk);
    served.down()?;

    setup.spare.fail(&[])?;
    let served = Served::start()?;
    let disk = served.disk()?;
    ensure!(disk.read(100, 1).is_err(), "the poison is gone");
    disk.fill(100, 1, 2)?;
    disk.verify(100, 1, 2)?;
    ensure!(slots_of("mapped")? == [slot(2), slot(1)], "{:?}", listed("mapped")?);
    ensure!(slots_of("retired")? == [slot(0)], "{:?}", listed("retired")?);
    drop(disk);
    served.down()?;
    setup.remove()
}

fn one_mirror(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    setup.left_open_with(2)?;
    for (mirror, count) in [(0, 2), (1, 3)] {
        setup.spare.fail(&setup.areas.mirror(mirror).collect::<Vec<_>>())?;
        setup.is_whole(count).with_context(|| format!("mirror {mirror}"))?;
        let dead = format!(
            "mirror {mirror} (sector {}): was declared dead: a write to it failed",
            setup.areas.log(mirror, 0)
        );
        spare::says(&["check", &setup.path()], 2, &dead)?;
        // Now the other one is all there is; once it is mended, this one must do.
        setup.spare.fail(&[])?;
        let clean = format!("after:\n{} extents, commit {}\nclean\n", count + 1, count + 1);
        spare::says(&["repair", &setup.path()], 0, &clean)?;
    }
    setup.is_whole(4)?;
    setup.remove()
}

fn a_mirror_fails_in_service(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    let mut served = Served::start()?;
    served.disk()?.fill(100, 1, 100)?;
    setup.spare.fail(&setup.areas.mirror(1).collect::<Vec<_>>())?;
    served.disk()?.fill(200, 1, 200)?;
    served.disk()?.fill(300, 1, 300)?;
    let log = served.daemon.log()?;
    let given_up: Vec<_> = log.lines().filter(|line| line.contains("is given up")).collect();
    let told = matches!(given_up[..], [line] if line.contains("metadata mirror 1 takes no writes"));
    ensure!(told, "given up: {given_up:?}");
    served.kill()?;
    drop(served);
    // What mirror 1 holds is older from now on, and must not be believed.
    setup.spare.fail(&[])?;
    spare::says(&["check", &setup.path()], 2, "3 extents, commit 3\nusable, with less")?;
    setup.is_whole(3)?;
    spare::says(&["repair", &setup.path()], 0, "after:\n4 extents, commit 4\nclean\n")?;
    setup.remove()
}

fn blocks_of_both_mirrors(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    setup.left_open_with(3)?;
    let areas = setup.areas;
    let refused = |bad: &[u64], words: &str| {
        setup.spare.fail(&blocks(bad))?;
        spare::says(&["check", &setup.path()], 2, &format!("spare: {words}"))?;
        spare::says(&["repair", &setup.path()], 1, words)?;
        Served::refused(words)
    };
    refused(
        &[areas.log(0, 1), areas.log(1, 1)],
        "record 2 is missing although 3 is there; see check, then restore a dump",
    )?;
    // Which of the two areas is in force is the format's business.
    let both = |mirror| [areas.checkpoint(mirror, 0, 0), areas.checkpoint(mirror, 1, 0)];
    refused(
        &[both(0), both(1)].concat(),
        "block 0 of the checkpoint is good in no live mirror; see check, then restore a dump",
    )?;
    // A block here and another there: each is left once.
    setup.spare.fail(&blocks(&[areas.log(0, 0), areas.log(0, 2), areas.log(1, 1)]))?;
    spare::says(&["check", &setup.path()], 2, "3 extents, commit 3\nusable, with less")?;
    setup.spare.fail(&blocks(&[&both(0)[..], &[areas.log(1, 0), areas.log(1, 2)]].concat()))?;
    setup.is_whole(3)?;
    setup.remove()
}

/// Nobody can know whether the block held a record: the operator decides.
fn the_last_record_unreadable(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    setup.left_open_with(3)?;
    let areas = setup.areas;
    setup.spare.fail(&blocks(&[areas.log(0, 2), areas.log(1, 2)]))?;
    let words = format!(
        "the log block at sector {}, where a record after 2 would be, cannot be read in any good \
         mirror; if losing that record is acceptable, repair with --accept-unreadable-tail",
        areas.log(0, 2)
    );
    Served::refused(&words)?;
    spare::says(&["repair", &setup.path()], 1, &words)?;
    // The block stays unreadable, and the log goes on behind it.
    let accept = ["repair", "--accept-unreadable-tail", &setup.path()];
    spare::says(&accept, 2, "after:\n")?;
    setup.is_whole(2)?;
    setup.spare.fail(&[])?;
    spare::is_clean(setup.spare.path())?;
    setup.remove()
}

/// Sectors of the smallest spare, which has 64 slots.
const SMALL: u64 = 10496;

fn full(_: &mut Ctx) -> Result<()> {
    let bad: Vec<u64> = (0..70).map(|n| 1000 + 97 * n).collect();
    let setup = Setup::with(&bad, Some(SMALL))?;
    ensure!(setup.areas.slot_sectors == 64 * BLOCK, "{} sectors", setup.areas.slot_sectors);
    let slot = |n: u64| setup.areas.slots + n * BLOCK;
    setup.spare.fail(&[slot(7), slot(63)])?;
    let served = Served::start()?;
    let disk = served.disk()?;
    for &sector in &bad[..62] {
        disk.fill(sector, 1, 1)?;
    }
    alarms(&["spare-low"])?;
    for &sector in &bad[62..] {
        disk.write_fails(sector, 1, EIO)?;
    }
    // Far more has happened since than status remembers.
    for _ in 0..40 {
        disk.write_fails(bad[62], 1, EIO)?;
    }
    alarms(&["spare-full", "spare-low"])?;
    let said = served.status()?;
    ensure!(said.contains("the spare is full: new bad sectors are errors"), "{said}");
    ensure!(said.contains("spare 512 of 512 sectors used"), "{said}");
    let full = |served: &Served| {
        let disk = served.disk()?;
        for &sector in &bad[..62] {
            disk.verify(sector, 1, 1)?;
        }
        let slots = slots_of("mapped")?;
        let wanted: Vec<u64> = (0..64).filter(|n| ![7, 63].contains(n)).map(slot).collect();
        let mut sorted = slots.clone();
        sorted.sort_unstable();
        ensure!(sorted == wanted, "slots {slots:?}");
        disk.write_fails(bad[62], 1, EIO)
    };
    full(&served)?;
    disk.fill(bad[5], 1, 1)?;
    drop(disk);
    served.down()?;
    // Good again, and still retired: not even now is there room.
    setup.spare.fail(&[])?;
    let served = Served::start()?;
    alarms(&["spare-full", "spare-low"])?;
    full(&served)?;
    served.down()?;
    spare::is_clean(setup.spare.path())?;
    setup.remove()
}

/// A mirror takes no writes, and no superblock that says so: after a quarter of the log, of the smallest spare here, no commit
/// is tried again. What is mapped is served on, and until the daemon is restarted nothing more is.
fn metadata_takes_no_writes(_: &mut Ctx) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let setup = Setup::with(&BAD, Some(SMALL))?;
    let mut served = Served::start()?;
    let disk = served.disk()?;
    disk.fill(BAD[0], 1, 1)?;
    setup.spare.fail(&[blocks(&COPIES), setup.areas.mirror(1).collect()].concat())?;
    disk.write_fails(BAD[1], 1, EIO)?;
    wait_until("the end of the commits", PATIENCE, || Ok(alarms(&["metadata-dead"]).is_ok()))?;
    disk.verify(BAD[0], 1, 1)?;
    disk.fill(BAD[0], 1, 2)?;
    disk.write_fails(BAD[2], 1, EIO)?;
    setup.spare.fail(&[])?;
    disk.write_fails(BAD[3], 1, EIO)?;
    disk.verify(BAD[0], 1, 2)?;
    served.daemon.stop(PATIENCE)?;
    served.again()?;
    alarms(&[])?;
    disk.verify(BAD[0], 1, 2)?;
    for sector in &BAD[1..4] {
        disk.fill(*sector, 1, 3)?;
        disk.verify(*sector, 1, 3)?;
    }
    drop(disk);
    served.down()?;
    spare::is_clean(setup.spare.path())?;
    setup.remove()
}
