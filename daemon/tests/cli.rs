//! The commands, as a user runs them, on image files.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dmremap-policyd")).args(args).output().expect("it runs")
}

fn good(args: &[&str]) -> String {
    let out = run(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

fn bad(args: &[&str], code: i32) -> String {
    let out = run(args);
    assert_eq!(out.status.code(), Some(code), "{args:?}");
    String::from_utf8(out.stderr).expect("text") + &String::from_utf8_lossy(&out.stdout)
}

fn image(directory: &Path, name: &str, len: u64) -> String {
    let path = directory.join(name);
    std::fs::File::create(&path).and_then(|file| file.set_len(len)).expect("an image");
    path.to_str().expect("a plain path").to_owned()
}

#[test]
fn a_spare_is_formatted_checked_damaged_repaired_dumped_and_restored() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = image(directory.path(), "data", 1 << 30);
    let spare = image(directory.path(), "spare", 16 << 20);
    let format = ["format", "--data", &data, "--spare", &spare];
    assert!(bad(&["check", &spare], 2).contains("no dm-remap label"));
    assert!(bad(&format, 1).contains("--weak-identity"));
    let weak: Vec<&str> = format.iter().copied().chain(["--weak-identity"]).collect();
    assert!(good(&weak).contains("label "));
    assert!(bad(&weak, 1).contains("--force"));
    assert!(good(&["check", &spare]).contains("clean"));

    let dump = good(&["dump", &spare, "--json"]);
    let file = directory.path().join("dump.json");
    std::fs::write(&file, &dump).expect("written");

    // The first of five superblocks is lost.
    use std::os::unix::fs::FileExt;
    let disk = std::fs::OpenOptions::new().write(true).open(&spare).expect("opens");
    disk.write_all_at(&[0xff; 4096], 0).expect("damaged");
    assert!(bad(&["check", &spare], 2).contains("repair"));
    assert!(good(&["repair", &spare]).trim_end().ends_with("clean"));

    let file = file.to_str().expect("a plain path");
    assert!(bad(&["restore", &spare, file], 1).contains("--force"));
    good(&["restore", &spare, file, "--force"]);
    let field = |text: &str, name: &str| {
        serde_json::from_str::<serde_json::Value>(text).expect("JSON")[name].clone()
    };
    let again = good(&["dump", &spare, "--json"]);
    assert_eq!(field(&again, "label"), field(&dump, "label"));
}

#[test]
fn one_disk_is_not_its_own_spare() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = image(directory.path(), "data", 1 << 30);
    std::os::unix::fs::symlink(&data, directory.path().join("same")).expect("linked");
    let same = directory.path().join("same");
    let args = ["format", "--data", &data, "--spare", same.to_str().expect("plain")];
    assert!(bad(&args, 1).contains("same disk"));
}

#[test]
fn without_a_daemon_the_commands_say_where_they_looked() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("no.sock");
    let config = directory.path().join("c.toml");
    let text = format!("[daemon]\ncontrol_socket = {socket:?}\n");
    std::fs::write(&config, text).expect("written");
    let config = config.to_str().expect("a plain path");
    for command in ["status", "reload"] {
        let error = bad(&["--config", config, command], 1);
        assert!(error.contains("no.sock") && error.contains("running?"), "{error}");
    }
}

/// It wrote over whatever a disk held, and laid a label over a file system that had been made on the spare, in whose slots were
/// then the bytes of that.
#[test]
fn what_somebody_elses_disk_holds_is_not_overwritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = image(directory.path(), "data", 1 << 30);
    let spare = image(directory.path(), "spare", 16 << 20);
    good(&["format", "--data", &data, "--spare", &spare, "--weak-identity"]);
    let dump = directory.path().join("dump.json").to_str().expect("a plain path").to_owned();
    std::fs::write(&dump, good(&["dump", &spare, "--json"])).expect("written");

    let put = |path: &str, at, bytes: &[u8]| {
        let disk = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
        disk.write_all_at(bytes, at).expect("written");
    };
    let refused = |args: &[&str], words: &str| {
        let before = std::fs::read(args[1]).expect("read");
        let said = bad(args, 1);
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(std::fs::read(args[1]).expect("read") == before, "{args:?} wrote to it");
    };
    let foreign = image(directory.path(), "foreign", 16 << 20);
    put(&foreign, 512, b"LABELONE");
    refused(
        &["restore", &foreign, &dump],
        "seems to hold an LVM physical volume; if nothing needs it, restore with --force",
    );
    refused(&["restore", &foreign, &dump, "--other-spare"], "restore with --force");

    put(&spare, 0, b"XFSB");
    refused(&["restore", &spare, &dump], "seems to hold an XFS file system");
    refused(
        &["restore", &spare, &dump, "--force"],
        "holds an XFS file system where a spare has its first label copy",
    );
    let larger = image(directory.path(), "larger", 32 << 20);
    refused(&["restore", &larger, &dump], "its size is 65536 sectors, the label says 32768");
    // The new spare is known by no more than `format` would ask for: it was taken unasked, and any disk of its size for it
    // ever after.
    refused(&["restore", &larger, &dump, "--other-spare"], "if no disk of the same size can take");
    good(&["restore", &larger, &dump, "--other-spare", "--weak-identity"]);
    good(&["check", &larger]);
}
