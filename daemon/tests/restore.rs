//! `restore` on image files, as a user runs it.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// What it says, and whether it did it.
fn run(args: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_dmremap-policyd")).args(args).output();
    let out = out.expect("it runs");
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8(said).expect("text"))
}

fn image(directory: &Path, name: &str, len: u64) -> String {
    let path = directory.join(name);
    std::fs::File::create(&path).and_then(|file| file.set_len(len)).expect("an image");
    path.to_str().expect("a plain path").to_owned()
}

/// It wrote over whatever a disk held, and laid a label over a file system that had been made on the spare, in whose slots were
/// then the bytes of that.
#[test]
fn what_somebody_elses_disk_holds_is_not_overwritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = image(directory.path(), "data", 1 << 30);
    let spare = image(directory.path(), "spare", 16 << 20);
    let (made, said) = run(&["format", "--data", &data, "--spare", &spare, "--weak-identity"]);
    assert!(made, "{said}");
    let dump = directory.path().join("dump.json").to_str().expect("a plain path").to_owned();
    std::fs::write(&dump, run(&["dump", &spare, "--json"]).1).expect("written");

    let put = |path: &str, at, bytes: &[u8]| {
        let disk = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
        disk.write_all_at(bytes, at).expect("written");
    };
    let refused = |args: &[&str], words: &str| {
        let before = std::fs::read(args[1]).expect("read");
        let (done, said) = run(args);
        assert!(!done && said.contains(words), "{args:?}: {said}");
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
    let (done, said) = run(&["restore", &larger, &dump, "--other-spare"]);
    assert!(done, "{said}");
    let (clean, said) = run(&["check", &larger]);
    assert!(clean, "{said}");
}
