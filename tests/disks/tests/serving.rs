//! The disks as QEMU sees them: needs nbdkit and qemu-io (Debian packages nbdkit, qemu-utils).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::Command as Process;
use std::time::Duration;

use dmremap_disks::SECTOR;
use dmremap_disks::server::{Answer, Command, Server, Side, plugin_beside};

const SECTORS: usize = 128;

struct Bench {
    dir: tempfile::TempDir,
    server: Server,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = ["data", "spare"].map(|name| dir.path().join(name));
        images.iter().for_each(|image| fs::write(image, vec![0; SECTORS * SECTOR]).unwrap());
        let disks = [("data", images[0].as_path()), ("spare", images[1].as_path())];
        let server = Server::start(dir.path(), &plugin_beside().unwrap(), &disks).unwrap();
        Self { dir, server }
    }

    /// Whether qemu-io carried out `commands`, and what it said. `cache` decides about FUA:
    /// with "writethrough" every write is sent with it.
    fn qemu_io(&self, disk: &str, cache: &str, commands: &[&str]) -> (bool, String) {
        let mut qemu_io = Process::new("qemu-io");
        qemu_io.args(["-f", "raw", "-t", cache]);
        qemu_io.args(commands.iter().flat_map(|command| ["-c", command]));
        let output = qemu_io
            .arg(self.server.uri(disk))
            .output()
            .expect("qemu-io (Debian package qemu-utils)");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn image(&self, disk: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(disk)).unwrap()
    }
}

/// qemu-io flushes when it closes an image, so what must stay unflushed is aborted instead.
const UNFLUSHED: &str = "abort";

#[test]
fn unflushed_writes_are_read_back_but_only_flushed_ones_survive_a_cut() {
    let bench = Bench::new();
    let (_, said) = bench.qemu_io(
        "data",
        "none",
        &["write -P 1 0 4k", "flush", "write -P 2 0 16k", "read -P 2 0 16k", UNFLUSHED],
    );
    assert!(!said.contains("failed"), "{said}");
    assert_eq!(bench.image("data")[..4096], [1; 4096]);
    assert_eq!(bench.image("data")[4096..], [0; SECTORS * SECTOR - 4096]);
    let counters = bench.server.counters("data").unwrap();
    assert_eq!((counters.writes, counters.fua, counters.flushes), (2, 0, 1));

    let report = bench.server.cut(3, Duration::ZERO).unwrap();
    assert_eq!(report.disks["data"].unflushed, 32);
    assert!(report.disks["data"].lost > 0);
    assert_eq!(report.disks["spare"].unflushed, 0);
    for (sector, content) in bench.image("data").chunks(SECTOR).take(32).enumerate() {
        let old = if sector < 8 { 1 } else { 0 };
        assert!(content == [old; SECTOR] || content == [2; SECTOR], "sector {sector}");
    }
    bench.server.ask(&Command::On).unwrap();
    assert!(bench.qemu_io("data", "none", &["read 0 16k"]).0);
}

#[test]
fn a_fua_write_is_durable_at_once() {
    let bench = Bench::new();
    bench.qemu_io("spare", "none", &["write -f -P 7 512 512", UNFLUSHED]);
    assert_eq!(bench.image("spare")[512..1024], [7; 512]);
    let counters = bench.server.counters("spare").unwrap();
    assert_eq!((counters.fua, counters.flushes), (1, 0));
    assert_eq!(bench.server.cut(1, Duration::ZERO).unwrap().total().unflushed, 0);
}

#[test]
fn faults_are_set_while_the_disk_is_in_use() {
    let bench = Bench::new();
    let fails =
        |what: &str| bench.qemu_io("data", "none", &[what]).1.contains("Input/output error");
    let disk = || "data".to_owned();
    bench.server.ask(&Command::Bad { disk: disk(), sectors: 8..9, side: Side::Read }).unwrap();
    assert!(fails("read 4k 512"));
    assert!(!fails("read 0 4k") && !fails("write 4k 512"));
    bench.server.ask(&Command::Good { disk: disk(), sectors: 0..100 }).unwrap();
    assert!(!fails("read 4k 512"));
    bench.server.ask(&Command::FailFlushes { disk: disk(), count: 1, lose: false }).unwrap();
    // qemu-io says nothing about a failed flush.
    bench.qemu_io("data", "none", &["write 0 512", "flush"]);
    assert_eq!(bench.server.counters("data").unwrap().flush_errors, 1);
    assert_eq!(
        bench.server.ask(&Command::LyingFlush { disk: disk(), lies: true }).unwrap(),
        Answer::Done
    );
    bench.qemu_io("data", "none", &["write -P 5 0 512", "flush"]);
    assert_ne!(bench.image("data")[..512], [5; 512]);
    let unknown = bench.server.counters("none").unwrap_err().to_string();
    assert!(unknown.contains("no disk named \"none\""), "{unknown}");
}

#[test]
fn an_unknown_export_or_image_is_refused() {
    let bench = Bench::new();
    assert!(!bench.qemu_io("other", "none", &["read 0 512"]).0);
    let missing = bench.dir.path().join("missing");
    let other = tempfile::tempdir().unwrap();
    let started =
        Server::start(other.path(), &plugin_beside().unwrap(), &[("data", missing.as_path())]);
    assert!(started.is_err_and(|error| error.to_string().contains("nbdkit ended at its start")));
}
