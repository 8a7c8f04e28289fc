//! The main job for a person to watch: `make demo`. ext4 on a disk with bad sectors, the daemon killed and back, the
//! power cut, and everything still there.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::libc::EIO;

use crate::case::{Case, Disk, End, Phase};
use crate::guest::dm::{self, Device};
use crate::guest::fs::{Mount, fsck};
use crate::guest::served::{self, NAME, Served, policyd};
use crate::guest::{self, Cmd, Ctx};

pub const CASES: &[Case] = &[Case::phased("demo.the-main-job", 240, PHASES)
    .disks(&[Disk::Volatile { mib: 96 }, Disk::Volatile { mib: 32 }])
    .bare()];

const PHASES: &[Phase] = &[
    Phase { body: until_the_cut, end: End::CutUnderLoad },
    Phase { body: after_the_cut, end: End::Off },
];

const FILES: u64 = 24;
const FILE: usize = 1 << 20;

/// 96 bad places over the whole disk, from ext4's group descriptors on. Its superblock is written by halves of a
/// block, which takes a read of what nobody wrote.
fn bad_sectors() -> Vec<u64> {
    (0..96).flat_map(|i| (0..=i % 4).map(move |n| 8 + i * 2003 + n)).collect()
}

fn bad_disk(ctx: &Ctx) -> Result<Device> {
    dm::disk_with_bad_sectors("bad", &ctx.disk(0)?, &bad_sectors())
}

/// Bytes that no two files share.
fn content(file: u64) -> Vec<u8> {
    let mut state = file.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..FILE).map(|_| next()).collect()
}

/// Written and on the disk before it returns.
fn write_file(dir: &Path, file: u64) -> Result<String> {
    let path = dir.join(format!("file-{file}"));
    let mut open = File::create(&path).with_context(|| path.display().to_string())?;
    open.write_all(&content(file)).with_context(|| path.display().to_string())?;
    open.sync_all().with_context(|| path.display().to_string())?;
    File::open(dir)?.sync_all()?;
    checksum(&path)
}

fn checksum(path: &Path) -> Result<String> {
    let text = guest::run(&["sha256sum", &path.display().to_string()])?;
    Ok(text.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

fn show_mappings(ctx: &mut Ctx, served: &Served) -> Result<()> {
    let mapped = served.listed("mapped")?;
    let sectors: u64 = mapped.iter().map(|(_, len)| len).sum();
    let mut text = format!("mapped to the spare: {sectors} sectors in {} places", mapped.len());
    for (start, len) in mapped.iter().take(4) {
        text += &format!(", {start}+{len}");
    }
    ctx.note(format!("{text}, ..."))?;
    ensure!(!mapped.is_empty(), "nothing was mapped");
    let bad = bad_sectors();
    let extra =
        mapped.iter().flat_map(|&(start, len)| start..start + len).find(|s| !bad.contains(s));
    ensure!(extra.is_none(), "sector {extra:?} is mapped, and is not bad");
    Ok(())
}

fn until_the_cut(ctx: &mut Ctx) -> Result<()> {
    let bad = bad_disk(ctx)?;
    let spare = ctx.disk(1)?;
    ctx.note(format!(
        "a disk of 96 MiB; {} of its sectors fail every read and write",
        bad_sectors().len()
    ))?;
    guest::Disk::open(bad.path())?.write_fails(8, 1, EIO)?;
    ctx.note("without dm-remap: a write to sector 8 fails with EIO, as it should")?;

    let mut served = Served::new(bad.path(), &spare, "")?;
    ctx.note(format!("dmremap-policyd format; dmremap-policyd: /dev/mapper/{NAME} is there"))?;
    // Nothing is left for ext4 to initialise, and so to read, later.
    let whole = ["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    Cmd::new("mkfs.ext4").args(whole).arg(served.path().display().to_string()).run()?;
    let mount = Mount::new(&served.path(), "demo")?;
    ctx.note("mkfs.ext4 and mount: no error")?;
    for file in 0..FILES / 2 {
        let sum = write_file(mount.path(), file)?;
        ctx.ack(format!("{file} {sum}"))?;
    }
    ctx.note(format!("{} files of 1 MiB written and synced: no error", FILES / 2))?;
    show_mappings(ctx, &served)?;

    served.kill()?;
    ctx.note("kill -9 of the daemon, while more files are written")?;
    let dir = mount.path();
    let sums = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (FILES / 2..FILES)
                .map(|file| Ok((file, write_file(dir, file)?)))
                .collect::<Result<Vec<_>>>()
        });
        thread::sleep(Duration::from_secs(1));
        ensure!(!writer.is_finished(), "nothing has waited for the daemon");
        served.again()?;
        ctx.note("the daemon is back, and so is the writer that waited")?;
        writer.join().unwrap_or_else(|_| bail!("the writer panicked"))
    })?;
    for (file, sum) in sums {
        ctx.ack(format!("{file} {sum}"))?;
    }
    ctx.note("the other files written and synced: no error")?;
    show_mappings(ctx, &served)?;
    // Not synced, and so not promised.
    let unsynced = mount.path().join("unsynced");
    fs::write(&unsynced, "")?;
    let unsynced = guest::Disk::open(unsynced)?;
    ctx.note("the power is cut, and writes that were not flushed are lost")?;
    ctx.ask_for_cut()?;
    loop {
        unsynced.write(0, &content(99))?;
        thread::sleep(Duration::from_millis(100));
    }
}

fn after_the_cut(ctx: &mut Ctx) -> Result<()> {
    let bad = bad_disk(ctx)?;
    ctx.note("second boot with the same disks")?;
    served::configure(bad.path(), &ctx.disk(1)?, "")?;
    let served = Served::start()?;
    show_mappings(ctx, &served)?;
    let mount = Mount::new(&served.path(), "demo")?;
    let promised = ctx.acks.clone();
    ensure!(promised.len() as u64 == FILES, "{} files were promised", promised.len());
    for line in &promised {
        let (file, sum) = line.split_once(' ').context("an odd acknowledgement")?;
        let found = checksum(&mount.path().join(format!("file-{file}")))?;
        ensure!(found == sum, "file-{file} has changed");
    }
    ctx.note(format!("all {FILES} files have their checksums"))?;
    drop(mount);
    fsck(&served.path())?;
    ctx.note("e2fsck: clean")?;
    served.down()?;
    let checked = policyd(&["check", &ctx.disk(1)?.display().to_string()])?.run()?;
    ensure!(checked.contains("clean"), "{checked}");
    ctx.note("dmremap-policyd check: clean")?;
    bad.remove()
}
