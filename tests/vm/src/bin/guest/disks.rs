//! Disks inside the guest, and direct I/O on them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

#[repr(C, align(4096))]
pub struct Buffer(pub [u8; 512]);

pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(program).args(args).output().context(program.to_owned())?;
    if !out.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

pub fn dm_create(name: &str, table: &str) -> Result<()> {
    let mut child = Command::new("dmsetup")
        .args(["create", "--noudevsync", name])
        .stdin(Stdio::piped())
        .spawn()
        .context("dmsetup")?;
    child.stdin.take().context("dmsetup's input")?.write_all(table.as_bytes())?;
    if !child.wait()?.success() {
        bail!("dmsetup create {name} refused {table:?}");
    }
    run("dmsetup", &["mknodes", name])?;
    Ok(())
}

/// A disk of `sectors` over `base` whose `bad` sectors, in rising order, fail reads and writes.
pub fn bad_disk(name: &str, base: &str, sectors: u64, bad: &[u64]) -> Result<()> {
    let (mut table, mut at) = (String::new(), 0);
    for &sector in bad {
        if sector > at {
            table += &format!("{at} {} linear {base} {at}\n", sector - at);
        }
        table += &format!("{sector} 1 error\n");
        at = sector + 1;
    }
    table += &format!("{at} {} linear {base} {at}\n", sectors - at);
    dm_create(name, &table)
}

/// Unbuffered, so that what is read comes from the disk.
pub fn open_direct(path: &str) -> Result<File> {
    const O_DIRECT: i32 = 0o40000;
    let open = OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(path);
    open.with_context(|| path.to_owned())
}

pub fn write_sector(file: &File, sector: u64, fill: u8) -> io::Result<()> {
    file.write_all_at(&Buffer([fill; 512]).0, sector * 512)
}

pub fn read_sector(file: &File, sector: u64) -> io::Result<[u8; 512]> {
    let mut buffer = Box::new(Buffer([0; 512]));
    file.read_exact_at(&mut buffer.0, sector * 512)?;
    Ok(buffer.0)
}
