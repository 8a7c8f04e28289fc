//! Logs built here from `struct log_write_super` and `struct log_write_entry`, as the kernel writes them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::Write;

use dmremap_disks::logwrites::{Log, LogError};
use proptest::prelude::*;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
const DISK: usize = 64 * 1024;

/// One entry: (sector, data, flags); a mark's data is its text; a discard's counts as its length only.
type Given<'a> = (u64, &'a [u8], u64);

fn pad(mut block: Vec<u8>, size: usize) -> Vec<u8> {
    block.resize(block.len().next_multiple_of(size), 0);
    block
}

fn log_bytes(block: usize, entries: &[Given]) -> Vec<u8> {
    let numbers =
        |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
    let super_block = numbers(&[0x6a736677736872, 1, entries.len() as u64, block as u64]);
    let mut log = pad(super_block, block);
    for &(sector, data, flags) in entries {
        let (sectors, text) =
            if flags & MARK != 0 { (0, data) } else { (data.len() / block, &[][..]) };
        let header =
            [numbers(&[sector, sectors as u64, flags, text.len() as u64]), text.to_vec()].concat();
        log.extend(pad(header, block));
        if flags & (MARK | DISCARD) == 0 {
            log.extend(data);
        }
    }
    log
}

fn open(bytes: &[u8]) -> Result<Log, LogError> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Log::open(file)
}

/// The error that walking or replaying all of the log ends with.
fn error_of(bytes: &[u8]) -> String {
    let replayed = open(bytes).and_then(|log| log.replay(&mut vec![0; DISK], log.len()));
    replayed.expect_err("a damaged log").to_string()
}

fn example(block: usize) -> Vec<u8> {
    let (a, b) = (vec![1; block], vec![2; 2 * block]);
    log_bytes(
        block,
        &[
            (0, &a, 0),
            (0, &[], FLUSH),
            (1, &b, FUA),
            (0, b"mkfs\0", MARK),
            (0, &a, DISCARD),
            (1, &a, 0),
        ],
    )
}

#[test]
fn a_prefix_is_the_disk_at_that_time() {
    for block in [512, 4096] {
        let log = open(&example(block)).unwrap();
        let after = |count| {
            let mut disk = vec![0; 4 * block];
            log.replay(&mut disk, count).unwrap();
            (0..4).map(|sector| disk[sector * block]).collect::<Vec<_>>()
        };
        assert_eq!(after(0), [0, 0, 0, 0]);
        assert_eq!(after(1), [1, 0, 0, 0]);
        assert_eq!(after(3), [1, 2, 2, 0]);
        assert_eq!(after(log.through_mark("mkfs").unwrap()), [1, 2, 2, 0]);
        assert_eq!(after(log.len()), [0, 1, 2, 0]);
        assert!(matches!(log.through_mark("none"), Err(LogError::NoMark(_))));
        assert!(matches!(
            log.replay(&mut vec![0; DISK], 7),
            Err(LogError::TooFew { entries: 6, asked: 7 })
        ));
    }
}

#[test]
fn each_boundary_is_looked_at_with_what_came_before_it() {
    let log = open(&example(512)).unwrap();
    let mut seen = Vec::new();
    let look = |entry: &dmremap_disks::logwrites::Entry, disk: &mut Vec<u8>| {
        seen.push((entry.index, entry.mark.clone(), disk[0], disk[512]));
        Ok::<_, LogError>(())
    };
    log.replay_each(&mut vec![0; DISK], look).unwrap();
    let expected =
        [(1, None, 1, 0), (2, None, 1, 2), (3, Some("mkfs".to_owned()), 1, 2), (5, None, 0, 1)];
    assert_eq!(seen, expected);
}

#[test]
fn damage_is_named() {
    let good = example(512);
    let with = |at: usize, bytes: &[u8]| {
        let mut log = good.clone();
        log[at..at + bytes.len()].copy_from_slice(bytes);
        error_of(&log)
    };
    assert!(with(0, &[0]).contains("not a dm-log-writes log"));
    assert!(with(8, &[2]).contains("version 2"));
    assert!(with(24, &[1]).contains("sector size 513"));
    assert!(with(512 + 16, &[0x40]).contains("entry 0 of 6, at byte 512: unknown flags 0x40"));
    assert!(with(512, &[0xff; 8]).contains("past any disk"));
    assert!(with(512 + 8, &[0xff]).contains("its data ends at byte"));
    assert!(with(512 + 24, &[1]).contains("inline data"));
    let mark = 512 * 7;
    assert!(with(mark + 24, &[0, 2]).contains("a mark of 512 bytes"));
    assert!(with(512, &[200]).contains("writing 512 bytes of entry 0 at byte 102400"));
}

proptest! {
    #[test]
    fn a_truncated_log_is_an_error_at_its_last_entries(cut in 0..512 * 12usize) {
        let good = example(512);
        prop_assert_eq!(good.len(), 512 * 11);
        let result = open(&good[..cut.min(good.len())]).and_then(|log| log.replay(&mut vec![0; DISK], 6));
        prop_assert_eq!(result.is_ok(), cut >= good.len());
    }

    #[test]
    fn damaged_bytes_never_panic(at in 0..512 * 11usize, byte: u8) {
        let mut log = example(512);
        log[at] = byte;
        let _ = open(&log).and_then(|log| log.replay(&mut vec![0; DISK], log.len().min(100)));
    }
}
