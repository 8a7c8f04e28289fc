//! Spares that are not the right one, or not for this machine now: refused in words, before any harm is done.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc::{EIO, ENODATA};
use serde_json::Value;

use crate::case::Case;
use crate::guest::daemon::{Daemon, program};
use crate::guest::devices::Brd;
use crate::guest::dm::{self, Device};
use crate::guest::fs::{Kind, Mount};
use crate::guest::md::Raid1;
use crate::guest::scsi::ScsiDebug;
use crate::guest::served::{self, NAME, Served, config_path, policyd};
use crate::guest::setup::Disks;
use crate::guest::spare::{self, Frail, Image};
use crate::guest::{Cmd, Ctx, Disk, wait_until};

pub const CASES: &[Case] = &[
    Case::new("wrong-spare.foreign-and-swapped", 150, foreign_and_swapped),
    Case::new("wrong-spare.in-other-use", 120, in_other_use),
    Case::new("wrong-spare.cloned", 150, cloned),
    Case::new("wrong-spare.rolled-back-while-in-use", 120, rolled_back),
    Case::new("wrong-spare.rolled-back-while-nobody-knew", 90, rolled_back_unseen)
        .must_fail("reading 1 sectors at 200 of /dev/mapper/d1: No data available"),
    Case::new("wrong-spare.truncated-and-grown", 90, truncated),
    Case::new("wrong-spare.in-use", 150, in_use),
    Case::new("wrong-spare.taken-over", 150, taken_over),
    Case::new("wrong-spare.lost", 120, lost),
];

const PATIENCE: Duration = Duration::from_secs(30);

fn format(data: &Path, spare: &Path) -> Result<String> {
    let (data, spare) = (data.display().to_string(), spare.display().to_string());
    policyd(&["format", "--data", &data, "--spare", &spare])?.run()
}

/// Configures the pair and expects the daemon to refuse it, leaving the spare as it was.
fn refused(data: &Path, spare: &Path, words: &str) -> Result<()> {
    served::configure(data, spare, "")?;
    let before = Image::of(spare)?;
    Served::refused(words)?;
    ensure!(Image::of(spare)? == before, "{} was written to", spare.display());
    Ok(())
}

/// Real identities: each disk has a serial number and a WWN.
fn foreign_and_swapped(_: &mut Ctx) -> Result<()> {
    let scsi = ScsiDebug::load(16, &["add_host=4"])?;
    let disks: Vec<PathBuf> = (0..4).map(|host| scsi.disk(host)).collect::<Result<_>>()?;
    let [data, spare, data2, spare2] = &disks[..] else { anyhow::bail!("not four disks") };
    format(data, spare)?;
    format(data2, spare2)?;

    let disk = "this data disk is not the one the label was made for: its WWN is \"";
    refused(data, spare2, disk)?;
    refused(data2, spare, disk)?;

    // What belongs on one disk, on another.
    let own = Image::of(spare2)?;
    Image::of(spare)?.put(spare2)?;
    let copy = "this spare is not the one the label was made for: its WWN is \"";
    refused(data, spare2, copy)?;
    spare::says(&["repair", &spare2.display().to_string()], 1, copy)?;

    // Its table, where none of its slots are.
    let dump = "/run/vm/dump.json";
    fs::write(dump, spare::dump(spare)?.to_string())?;
    let blank = Disk::open(spare2)?;
    spare::COPIES.into_iter().try_for_each(|copy| blank.write(copy, &[0; 4096]))?;
    drop(blank);
    let words = "this spare is not the one the dump was made of: its WWN is \"";
    spare::says(&["restore", &spare2.display().to_string(), dump], 1, words)?;
    fs::remove_file(dump)?;
    own.put(spare2)?;

    // A file system, which leaves most copies of the label whole, and which format leaves alone.
    Mount::mkfs(spare2)?;
    let over = "holds an ext2, ext3 or ext4 file system where a spare has its first label copy, so \
                what was in its slots may be overwritten; use another spare, or wipe the first 4096 \
                bytes if the label is to be kept";
    refused(data2, spare2, over)?;
    spare::says(&["repair", &spare2.display().to_string()], 1, over)?;
    let (data_path, spare_path) = (data2.display().to_string(), spare2.display().to_string());
    let args = ["format", "--data", &data_path, "--spare", &spare_path];
    spare::says(&args, 1, "seems to hold an ext2, ext3 or ext4 file system; if nothing needs it")?;
    for copy in spare::COPIES {
        Disk::open(spare2)?.write(copy, &[0; 4096])?;
    }
    refused(
        data2,
        spare2,
        "no dm-remap label on this disk; format it, or check that it is the right disk",
    )?;
    own.put(spare2)?;
    spare::says(&args, 1, "the spare already holds a dm-remap label (")?;

    served::configure(data, spare, "")?;
    let served = Served::start()?;
    served.disk()?.fill(100, 8, 1)?;
    served.down()
}

/// What others write on their disks, by their own tools.
fn in_other_use(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(4, 320)?;
    let (data, spare, leg) = (brd.path(0), brd.path(1), brd.path(2));
    let (data_path, spare_path) = (data.display().to_string(), spare.display().to_string());
    let refused = |what: &str| {
        let args = ["format", "--data", &data_path, "--spare", &spare_path, "--weak-identity"];
        let words =
            format!("{spare_path} seems to hold {what}; if nothing needs it, format with --force");
        spare::says(&args, 1, &words)
    };
    for version in ["1.2", "1.1", "1.0", "0.90"] {
        Raid1::of([&spare, &leg], version)?.stop()?;
        refused("a member of an md RAID").with_context(|| version)?;
        Raid1::forget(&spare)?;
    }
    Kind::Xfs.mkfs(&spare)?;
    refused("an XFS file system")?;
    Kind::Btrfs.mkfs(&spare)?;
    refused("a btrfs file system")?;
    served::forced_format(&data, &spare)?;
    spare::is_clean(&spare)?;

    let blank = Frail::new("blank", &brd.path(3))?;
    blank.fail(&[8])?;
    let path = blank.path().display().to_string();
    let args = ["format", "--data", &data_path, "--spare", &path, "--weak-identity"];
    spare::says(
        &args,
        1,
        "seems to hold something that cannot be read; if nothing needs it, format",
    )?;
    blank.fail(&[])?;
    served::format(&data, blank.path())?;
    blank.device.remove()
}

/// Disks known by their size only: nothing else tells a clone from its original.
fn cloned(_: &mut Ctx) -> Result<()> {
    let brd = Brd::load(4, 16)?;
    let path = |n| brd.path(n);
    served::format(&path(0), &path(1))?;
    let label = spare::dump(&path(1))?["label"].as_str().context("a label")?.to_owned();
    Image::of(&path(1))?.put(&path(3))?;
    let clone = Image::of(&path(3))?;
    let words = |other: &str| {
        format!(
            "its spare and that of {other} have one label, {label}: one is a copy of the other; \
             find out which, and format that one anew or take it out of the configuration"
        )
    };

    // Which one is right nobody can tell.
    served::configure_all("", &[(&path(0), &path(1)), (&path(2), &path(3))], "")?;
    Served::refused(&words("d2"))?;
    ensure!(Image::of(&path(1))? == clone && Image::of(&path(3))? == clone, "one was written to");

    // Beside one that is served, the other is refused.
    served::configure(&path(0), &path(1), "")?;
    let served = Served::start()?;
    served::configure_all("", &[(&path(0), &path(1)), (&path(2), &path(3))], "")?;
    spare::says(&["reload"], 1, &format!("nothing was changed: d2: {}", words(NAME)))?;
    ensure!(Image::of(&path(3))? == clone, "the clone was written to");
    served.disk()?.fill(100, 8, 1)?;
    served.disk()?.verify(100, 8, 1)?;

    served::forced_format(&path(2), &path(3))?;
    policyd(&["reload"])?.run()?;
    let second = Device::existing("d2");
    wait_until("d2", PATIENCE, || Ok(second.path().exists()))?;
    served.down()?;
    second.remove()
}

/// Sectors 100, 200 and 300 of d1 are bad. Fields are taken down in this order.
struct Setup {
    bad: Device,
    brd: Brd,
}

impl Setup {
    fn new() -> Result<Self> {
        let brd = Brd::load(4, 16)?;
        let bad = dm::disk_with_bad_sectors("bad", &brd.path(0), &[100, 200, 300])?;
        served::format(bad.path(), &brd.path(1))?;
        Ok(Self { bad, brd })
    }

    fn spare(&self) -> PathBuf {
        self.brd.path(1)
    }
}

/// An older state of the whole spare is put back while the device lives on: the kernel knows better.
fn rolled_back(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    served::configure(setup.bad.path(), &setup.spare(), "hold_deadline_ms = 2000")?;
    let mut served = Served::start()?;
    served.disk()?.fill(100, 1, 1)?;
    served.kill()?;
    let older = Image::of(&setup.spare())?;
    served.again()?;
    served.disk()?.fill(200, 1, 2)?;
    served.kill()?;
    let newer = Image::of(&setup.spare())?;
    older.put(&setup.spare())?;

    served.daemon = Daemon::start(config_path())?;
    let mut said = String::new();
    wait_until("the refusal", PATIENCE, || {
        let status = policyd(&["status"])?.end()?;
        said = status.stdout + &status.stderr;
        Ok(said.starts_with("d1: not served: ") && !status.status.success())
    })
    .with_context(|| served.daemon.log().unwrap_or_default())?;
    let words = "the spare ends at commit 1 and the table in use at 2: it was rolled back, is a copy, \
                 or cannot be read in part; put the newer one in its place";
    ensure!(said.contains(words), "{said}");
    ensure!(Image::of(&setup.spare())? == older, "it was written to");
    // What this spare holds is still served; for what is new nobody can promise anything.
    served.disk()?.verify(100, 1, 1)?;
    served.disk()?.write_fails(300, 1, EIO)?;
    served.kill()?;

    newer.put(&setup.spare())?;
    served.again()?;
    let disk = served.disk()?;
    disk.verify(100, 1, 1)?;
    disk.verify(200, 1, 2)?;
    disk.fill(300, 1, 3)?;
    drop(disk);
    served.down()?;
    spare::is_clean(&setup.spare())?;
    setup.bad.remove()
}

/// The same without the device: documented as not detectable, and so this must fail.
fn rolled_back_unseen(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    served::configure(setup.bad.path(), &setup.spare(), "")?;
    let served = Served::start()?;
    served.disk()?.fill(100, 1, 1)?;
    served.down()?;
    let older = Image::of(&setup.spare())?;
    let served = Served::start()?;
    served.disk()?.fill(200, 1, 2)?;
    served.down()?;
    older.put(&setup.spare())?;
    let served = Served::start()?;
    served.disk()?.verify(100, 1, 1)?;
    served.disk()?.verify(200, 1, 2)
}

fn truncated(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    let whole = 16 * 2048;
    for size in [whole - 8, 9216, 4104] {
        let short = Frail::of_size("short", &setup.spare(), size)?;
        let words = format!(
            "the spare has {size} sectors, its label says {whole}: it is truncated; use the whole disk"
        );
        refused(setup.bad.path(), short.path(), &words)?;
        let path = short.path().display().to_string();
        spare::says(&["check", &path], 2, &words)?;
        spare::says(&["repair", &path], 1, &words)?;
        short.device.remove()?;
    }
    let table = format!("0 {whole} linear /dev/ram1 0\n{whole} 8 linear /dev/ram2 0\n");
    let long = Device::create("long", &table)?;
    let words = format!(
        "this spare is not the one the label was made for: its size is {} sectors, the label says \
         {whole}; check the paths",
        whole + 8
    );
    refused(setup.bad.path(), long.path(), &words)?;
    long.remove()?;
    setup.bad.remove()
}

fn in_use(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    let (data, spare) = (setup.bad.path().to_path_buf(), setup.spare());
    let shown = spare.display().to_string();
    served::configure(&data, &spare, "")?;
    let served = Served::start()?;
    served.disk()?.fill(100, 1, 1)?;

    // Another daemon, and every tool that writes.
    let other = Path::new("/run/vm/other.toml");
    let text = fs::read_to_string(config_path())?;
    fs::write(other, text.replace("control.sock", "other.sock"))?;
    let mut second = Daemon::start(other)?;
    let program = program()?.display().to_string();
    let mut said = String::new();
    wait_until("the second daemon's answer", PATIENCE, || {
        let args = ["--config", "/run/vm/other.toml", "status"];
        said = Cmd::new(&program).args(args).end()?.stdout;
        Ok(!said.is_empty())
    })?;
    second.stop(PATIENCE)?;
    fs::remove_file(other)?;
    ensure!(
        said.starts_with(&format!(
            "d1: not served: {shown} is used by another dmremap-policyd; stop"
        )),
        "{said}"
    );
    let same = program.clone();
    let ended = Cmd::new(&same).args(["--config", &config_path().display().to_string()]).end()?;
    ensure!(
        ended.status.code() == Some(1)
            && ended.stderr.contains("another dmremap-policyd runs; stop it first"),
        "{}",
        ended.stderr
    );
    let busy = format!("{shown} is in use; unmount it or remove the mapped device first");
    let data_path = data.display().to_string();
    spare::says(&["repair", &shown], 1, &busy)?;
    let format = ["format", "--data", &data_path, "--spare", &shown, "--weak-identity", "--force"];
    spare::says(&format, 1, &busy)?;
    served.disk()?.fill(200, 1, 2)?;
    served.down()?;

    // Another mapped device has it, made by hand.
    let sectors = Disk::open(setup.brd.path(2))?.sectors()?;
    Cmd::new("modprobe").arg("dm_remap_shim").run()?;
    let by_hand = Device::create("hand", &format!("0 {sectors} remap /dev/ram2 {shown}\n"))?;
    Served::refused(
        "cannot load the table of d1: one of its disks is in use, perhaps by another mapped device; \
         `dmsetup table` and `lsblk` show by which",
    )?;
    let mut daemon = Daemon::start(config_path())?;
    wait_until("what the daemon says of the other one", PATIENCE, || {
        Ok(daemon.log()?.contains("is not adopted: its spare is the one of d1; remove the device"))
    })?;
    daemon.stop(PATIENCE)?;
    let log = Cmd::new("dmesg").run()?;
    ensure!(log.contains("used by another mapped device"), "dmesg does not say why");
    ensure!(!Path::new("/sys/class/block/dm-2").exists(), "an empty d1 was left");
    by_hand.remove()?;

    let served = Served::start()?;
    served.disk()?.verify(100, 1, 1)?;
    served.disk()?.verify(200, 1, 2)?;
    served.down()?;
    setup.bad.remove()
}

const MACHINE_ID: &str = "/etc/machine-id";

/// The guest has no machine id but while this lives.
struct Machine;

impl Machine {
    fn is(id: &str) -> Result<Machine> {
        fs::write(MACHINE_ID, format!("{id}\n")).context(MACHINE_ID)?;
        Ok(Machine)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(MACHINE_ID);
    }
}

const HERE: &str = "11111111111111111111111111111111";
const THERE: &str = "22222222222222222222222222222222";

fn taken_over(_: &mut Ctx) -> Result<()> {
    let setup = Setup::new()?;
    let spare = setup.spare().display().to_string();
    served::configure(setup.bad.path(), &setup.spare(), "")?;
    let here = Machine::is(HERE)?;
    let mut served = Served::start()?;
    served.disk()?.fill(100, 1, 1)?;
    served.kill()?;
    drop(served);

    // Another machine finds it open: the first may still be writing.
    let there = Machine::is(THERE)?;
    let dashed = "11111111-1111-1111-1111-111111111111";
    let words = format!(
        "the spare was last used by another machine ({dashed}) that did not close it; make sure it is \
         off, then repair with --take-over"
    );
    refused(setup.bad.path(), &setup.spare(), &words)?;
    spare::says(&["repair", &spare], 1, &words)?;
    spare::says(&["repair", "--take-over", &spare], 0, "after:\n1 extents, commit 1\nclean\n")?;
    let served = Served::start()?;
    served.disk()?.verify(100, 1, 1)?;
    served.disk()?.fill(200, 1, 2)?;
    served.down()?;
    let owner = |dump: &Value| dump["machine"].as_str().map(|id| id.replace('-', ""));
    ensure!(owner(&spare::dump(&setup.spare())?).as_deref() == Some(THERE), "not taken over");

    // Closed in order, it may go back by itself.
    let back = Machine::is(HERE)?;
    let mut served = Served::start()?;
    served.disk()?.verify(200, 1, 2)?;
    // Left open by this machine, it is still this machine's.
    served.kill()?;
    served.again()?;
    served.disk()?.verify(100, 1, 1)?;
    served.down()?;
    drop((here, there, back));
    setup.bad.remove()
}

/// A dump of it goes to another one: what was mapped is an error until it is written again, and nothing else is.
fn lost(_: &mut Ctx) -> Result<()> {
    let disks = Disks::of(4, 16, &[100, 200])?;
    // Only its size tells it from the data disk.
    let (half, rest) = (disks.brd.path(2), disks.brd.path(3));
    let sectors = Disk::open(&half)?.sectors()?;
    let line = |at, disk: &Path| format!("{at} {sectors} linear {} 0\n", disk.display());
    let another = Device::create("another", &(line(0, &half) + &line(sectors, &rest)))?;
    let served = disks.serve("")?;
    let disk = served.disk()?;
    disk.fill(96, 8, 1)?;
    disk.fill(200, 1, 1)?;
    drop(disk);
    served.down()?;

    let dump = "/run/vm/dump.json";
    fs::write(dump, spare::dump(&disks.spare())?.to_string())?;
    let path = another.path().display().to_string();
    let mut args = vec!["restore", &path, dump, "--other-spare"];
    spare::says(&args, 1, "give --weak-identity if no disk of the same size can take its place")?;
    args.push("--weak-identity");
    spare::says(&args, 0, "2 extents, commit ")?;
    fs::remove_file(dump)?;

    served::configure(disks.bad.path(), another.path(), "")?;
    let served = Served::start()?;
    let disk = served.disk()?;
    for (first, count) in [(96, 8), (100, 1), (200, 1)] {
        disk.read_fails(first, count, ENODATA)?;
    }
    disk.verify(96, 4, 1)?;
    disk.verify(101, 3, 1)?;
    disk.fill(100, 1, 2)?;
    disk.verify(100, 1, 2)?;
    disk.read_fails(200, 1, ENODATA)?;
    ensure!(served.listed("mapped")? == [(100, 1)], "{:?}", served.listed("mapped")?);
    drop(disk);
    served.down()?;
    another.remove()?;
    disks.remove()
}
