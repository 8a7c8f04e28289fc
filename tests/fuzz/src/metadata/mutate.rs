//! The program that changes a spare. Offsets are those of FORMAT.md, which this shares with the code it tests, and
//! nothing else.

use super::disk::{BLOCK, Block, RamDisk, SECTORS};
use crate::input::Input;

const HEADER: usize = 80;
const ENTRY: usize = 24;
/// Blocks of the superblock copies.
const COPIES: [u64; 5] = [0, 128, 256, 512, 1024];

/// Where the used spare has its mirrors and what is in them.
struct Layout {
    mirrors: [u64; 2],
    log: u64,
    area: u64,
}

fn get(block: &Block, at: usize, len: usize) -> u64 {
    block[at..at + len].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

fn put(block: &mut Block, at: usize, len: usize, value: u64) {
    block[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}

impl Layout {
    /// As the spare was before anything was changed.
    fn of(disk: &RamDisk) -> Layout {
        let label = disk.block(0);
        Layout {
            mirrors: [get(&label, 136, 8) / SECTORS, get(&label, 144, 8) / SECTORS],
            log: get(&label, 152, 4),
            area: get(&label, 156, 4),
        }
    }

    /// A block that means something, and its twins.
    fn choose(&self, input: &mut Input) -> Vec<u64> {
        let both = input.u8();
        let mirrors: &[u64] = match both % 3 {
            0 => &self.mirrors[..1],
            1 => &self.mirrors[1..],
            _ => &self.mirrors,
        };
        match input.u8() % 4 {
            0 if both % 3 == 2 => COPIES.to_vec(),
            0 => vec![COPIES[input.below(5)]],
            1 | 2 => {
                let position = input.below(self.log as usize) as u64;
                mirrors.iter().map(|mirror| mirror + position).collect()
            }
            _ => {
                let before = self.log + self.area * (input.u8() & 1) as u64;
                let index = u64::from(input.u8() % 4);
                mirrors.iter().map(|mirror| mirror + before + index).collect()
            }
        }
    }
}

pub fn run(disk: &mut RamDisk, input: &mut Input) {
    let layout = Layout::of(disk);
    for _ in 0..32 {
        if input.is_empty() {
            return;
        }
        let blocks = layout.choose(input);
        step(disk, &layout, &blocks, input);
    }
}

fn step(disk: &mut RamDisk, layout: &Layout, blocks: &[u64], input: &mut Input) {
    let mut block = disk.block(blocks[0]);
    match input.u8() % 10 {
        0 => {
            let at = input.below(BLOCK);
            block[at] = input.u8();
        }
        // A field of the header: count, epoch, sequence, superblock, position, label, nonce.
        1 => {
            let (at, len) =
                [(12, 4), (40, 8), (48, 8), (56, 8), (72, 8), (16, 8), (32, 8)][input.below(7)];
            let new = near(input, get(&block, at, len));
            put(&mut block, at, len, new);
        }
        // A field of the superblock.
        2 => {
            let fields = [
                (88, 8),
                (80, 8),
                (96, 8),
                (104, 4),
                (108, 4),
                (112, 8),
                (120, 8),
                (128, 8),
                (136, 8),
                (144, 8),
                (152, 4),
                (156, 4),
                (160, 8),
                (168, 8),
                (176, 8),
                (184, 4),
                (188, 4),
                (192, 4),
                (196, 1),
                (197, 1),
                (198, 1),
                (199, 1),
            ];
            let (at, len) = fields[input.below(fields.len())];
            let new = near(input, get(&block, at, len));
            put(&mut block, at, len, new);
        }
        // An entry, and the count that includes it.
        3 => {
            let n = input.below(8);
            let at = HEADER + n * ENTRY;
            let start = near(input, get(&block, at, 8));
            let slot = near(input, get(&block, at + 8, 8));
            let len = near(input, get(&block, at + 16, 4));
            put(&mut block, at, 8, start);
            put(&mut block, at + 8, 8, slot);
            put(&mut block, at + 16, 4, len);
            block[at + 20] = input.u8() % 6;
            let count = get(&block, 12, 4).max(n as u64 + 1);
            put(&mut block, 12, 4, count);
        }
        4 => block = [0; BLOCK],
        5 => {
            disk.unreadable.extend(blocks);
            return;
        }
        // Another block in its place: stale, misplaced, or both.
        6 => {
            let other = layout.choose(input);
            block = disk.block(other[0]);
        }
        // Identities.
        7 => {
            let at = [512, 2304][input.below(2)] + input.below(32);
            block[at] = input.u8();
        }
        // Another record behind the last.
        8 => {
            let last = layout.choose(input);
            block = disk.block(last[0]);
            let (sequence, position) = (get(&block, 48, 8), get(&block, 72, 8));
            put(&mut block, 48, 8, sequence.wrapping_add(1));
            put(&mut block, 72, 8, position.wrapping_add(1));
        }
        _ => return digest(disk, layout, blocks),
    }
    // Mostly what it says of itself is made true.
    let honest = input.u8();
    for &number in blocks {
        let mut copy = block;
        if honest % 8 != 0 {
            put(&mut copy, 64, 8, number * SECTORS);
        }
        if honest % 16 != 1 {
            seal(&mut copy);
        }
        disk.put(number, copy);
    }
}

/// Small changes of what is there, or something odd.
fn near(input: &mut Input, old: u64) -> u64 {
    match input.u8() % 6 {
        0 => old.wrapping_add(u64::from(input.u8())),
        1 => old.wrapping_sub(u64::from(input.u8())),
        2 => old ^ 1 << (input.u8() % 64),
        3 => old.wrapping_add(8 * u64::from(input.u8())),
        4 => old,
        _ => input.odd_u64(),
    }
}

fn seal(block: &mut Block) {
    block[8..12].fill(0);
    let sum = crc32fast::hash(block);
    block[8..12].copy_from_slice(&sum.to_le_bytes());
}

/// Puts the digest of the checkpoint as it is now into superblocks, with the number of its entries.
fn digest(disk: &mut RamDisk, layout: &Layout, into: &[u64]) {
    for &number in into.iter().filter(|number| COPIES.contains(number)) {
        let mut label = disk.block(number);
        let area = layout.mirrors[0] + layout.log + layout.area * (get(&label, 196, 1) & 1);
        let mut sum = crc32fast::Hasher::new();
        let mut entries = 0;
        for index in 0..get(&label, 184, 4).min(layout.area) {
            let block = disk.block(area + index);
            let count = get(&block, 12, 4).min(((BLOCK - HEADER) / ENTRY) as u64);
            sum.update(&block[HEADER..HEADER + count as usize * ENTRY]);
            entries += count;
        }
        put(&mut label, 192, 4, u64::from(sum.finalize()));
        put(&mut label, 188, 4, entries);
        seal(&mut label);
        disk.put(number, label);
    }
}
