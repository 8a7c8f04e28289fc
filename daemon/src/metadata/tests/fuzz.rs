//! Bytes from outside: any of them are a value or an error, never a panic, with checksums made right
//! so that they reach the code behind them.

use super::*;
use crate::metadata::block::{Header, Kind as Block};
use crate::metadata::layout::COPIES;
use crate::metadata::{check, dump};
use ram::Random;

const INTERESTING: [u8; 8] = [0, 1, 2, 4, 0x7f, 0x80, 0xfe, 0xff];

/// Changes a few bytes of a block and seals it again as what it was.
fn mutate(disk: &mut RamDisk, at: Slot, random: &mut Random) {
    let mut block = disk.bytes(at, 4096);
    let kinds = [Block::Superblock, Block::Record, Block::Checkpoint];
    let opened = kinds.iter().find_map(|&kind| Header::open(kind, at, &block).ok());
    for _ in 0..1 + random.below(4) {
        let reach = [80, 240, 700, 4096][random.below(4) as usize];
        let place = random.below(reach) as usize;
        block[place] = INTERESTING[random.below(8) as usize];
    }
    if let Some(mut header) = opened {
        match random.below(8) {
            0 => header.count = random.next() as u32,
            1 => header.sequence = random.next() >> random.below(64),
            2 => header.epoch = random.next() >> random.below(64),
            3 => header.ordinal = random.next() >> random.below(64),
            4 => header.superblock = random.next() >> random.below(64),
            _ => {}
        }
        header.seal(&mut block);
    }
    disk.put(at, &block);
}

#[test]
fn mutated_metadata_is_served_or_refused() {
    let store = used();
    let superblock = store.superblock().clone();
    let geometry = superblock.geometry;
    let disk = store.into_disk();
    let mut random = Random(99);
    let mut served = 0;
    const CASES: usize = 1500;
    for case in 0..CASES {
        let mut bad = disk.clone();
        // One copy of each is left to be read, or its mutation would not matter.
        for at in COPIES {
            if case % 2 == 0 {
                bad.put(at, &[0; 4096]);
            }
        }
        if case % 2 == 0 {
            bad.put(Slot(0), &disk.bytes(Slot(0), 4096));
            mutate(&mut bad, Slot(0), &mut random);
        } else {
            bad.put(geometry.mirrors[1], &vec![0; (SPARE - geometry.mirrors[1].0) as usize * 512]);
            let position = superblock.checkpoint.position + random.below(4);
            mutate(&mut bad, geometry.log_block(0, position), &mut random);
            mutate(&mut bad, geometry.checkpoint_area(0, superblock.checkpoint.area), &mut random);
        }
        check(&mut bad);
        let _ = dump(&mut bad);
        served += usize::from(Store::open(bad, &expect()).is_ok());
    }
    println!("{served} of {CASES} served");
    assert!(served < CASES / 2);
}

#[test]
fn random_bytes_are_no_superblock_and_no_header() {
    let mut random = Random(5);
    for len in [0, 1, 79, 80, 512, 4095, 4096, 8192] {
        for _ in 0..50 {
            let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            assert!(Superblock::decode(Slot(0), &bytes).is_err());
            if len >= 8 {
                bytes[..8].copy_from_slice(b"dmremapS");
                assert!(Superblock::decode(Slot(0), &bytes).is_err());
            }
            assert!(Header::open(Block::Record, Slot(0), &bytes).is_err());
        }
    }
}
