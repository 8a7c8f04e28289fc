//! The corpus, without a fuzzer: what was found once is not found again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::System;
use std::fs;
use std::path::Path;

use cap::Cap;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, dmremap_fuzz::MEMORY);

fn replay(target: &str, feed: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut bytes = 0;
    for file in &files {
        println!("{}", file.display());
        let data = fs::read(file).unwrap();
        bytes += data.len();
        feed(&data);
    }
    assert!(
        (5..=50).contains(&files.len()) && bytes <= 200 << 10,
        "{} files, {bytes} bytes",
        files.len()
    );
}

#[test]
fn wire() {
    replay("wire", dmremap_fuzz::wire);
}

#[test]
fn metadata() {
    replay("metadata", dmremap_fuzz::metadata);
}

#[test]
fn config() {
    replay("config", dmremap_fuzz::config);
}

#[test]
fn control() {
    replay("control", dmremap_fuzz::control);
}
