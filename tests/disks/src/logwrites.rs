//! The log of the kernel's dm-log-writes target (drivers/md/dm-log-writes.c): every write, flush and mark in
//! the order they completed, so that a replayed prefix is a disk as a power cut could have left it.
//!
//! All numbers are little-endian, all lengths multiples of the super block's `sectorsize` (the log device's
//! logical block; not necessarily 512):
//!
//! ```text
//! block 0   super   magic u64, version u64 (1), nr_entries u64, sectorsize u32
//! then, nr_entries times
//!   1 block         sector u64, nr_sectors u64, flags u64, data_len u64, and for a mark data_len bytes of text
//!   nr_sectors blocks of data, unless it is a discard
//! ```
//!
//! The kernel writes the super block after a FUA write or a mark and when the target goes: entries past its
//! `nr_entries` are not part of the log.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::volatile::Medium;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const HEADER: usize = 32;
/// The largest piece of a write held in memory, in bytes.
const COPY: u64 = 1 << 20;

const FLUSH: u64 = 1 << 0;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;
const METADATA: u64 = 1 << 4;

/// Why a log cannot be used. Offsets are bytes into the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("reading the log at byte {at}: {source}")]
    Read { at: u64, source: io::Error },
    #[error("writing {len} bytes of entry {index} at byte {at} of the replayed disk: {source}")]
    Replay { index: u64, at: u64, len: u64, source: io::Error },
    #[error("not a dm-log-writes log: its magic is {0:#018x}, not {MAGIC:#018x}")]
    Magic(u64),
    #[error("a dm-log-writes log of version {0}; only version {VERSION} is known")]
    Version(u64),
    #[error("the log's sector size {0} is not a power of two from 512 to 65536")]
    SectorSize(u32),
    #[error("entry {index} of {entries}, at byte {at}: {what}")]
    Entry { index: u64, entries: u64, at: u64, what: String },
    #[error("the log has no mark {0:?}")]
    NoMark(String),
    #[error("the log has {entries} entries, and the first {asked} were asked for")]
    TooFew { entries: u64, asked: u64 },
}

/// One thing that reached the disk. `offset` and `len` are bytes on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counted from zero.
    pub index: u64,
    pub offset: u64,
    pub len: u64,
    flags: u64,
    /// The text of a mark.
    pub mark: Option<String>,
    data: u64,
}

impl Entry {
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }

    pub fn is_fua(&self) -> bool {
        self.flags & FUA != 0
    }

    pub fn is_discard(&self) -> bool {
        self.flags & DISCARD != 0
    }

    /// Whether a cut right after this entry is worth a look: what was promised changes here.
    pub fn is_boundary(&self) -> bool {
        self.flags & (FLUSH | FUA | MARK) != 0
    }
}

/// A log that was opened and whose super block was understood.
pub struct Log {
    file: File,
    entries: u64,
    block: u64,
}

impl Log {
    /// Reads the super block.
    pub fn open(file: File) -> Result<Self, LogError> {
        let mut block = [0; HEADER];
        read(&file, &mut block, 0)?;
        let [magic, version, entries, sector_size] = words(&block);
        let sector_size = sector_size as u32;
        if magic != MAGIC {
            return Err(LogError::Magic(magic));
        }
        if version != VERSION {
            return Err(LogError::Version(version));
        }
        if !(512..=65536).contains(&sector_size) || !sector_size.is_power_of_two() {
            return Err(LogError::SectorSize(sector_size));
        }
        Ok(Self { file, entries, block: sector_size.into() })
    }

    /// How many entries the super block counts.
    pub fn len(&self) -> u64 {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// All entries in order; after an error there are none, since where the next one starts is unknown.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, LogError>> {
        let mut at = Some(self.block);
        (0..self.entries).map_while(move |index| {
            let entry = self.entry(index, at?);
            at = entry.as_ref().ok().map(|(_, next)| *next);
            Some(entry.map(|(entry, _)| entry))
        })
    }

    /// How many entries end with the first mark `name`.
    pub fn through_mark(&self, name: &str) -> Result<u64, LogError> {
        for entry in self.entries() {
            let entry = entry?;
            if entry.mark.as_deref() == Some(name) {
                return Ok(entry.index + 1);
            }
        }
        Err(LogError::NoMark(name.to_owned()))
    }

    /// Applies the first `count` entries to `disk`. A discarded range reads as zeroes.
    pub fn replay(&self, disk: &mut impl Medium, count: u64) -> Result<(), LogError> {
        if count > self.entries {
            return Err(LogError::TooFew { entries: self.entries, asked: count });
        }
        (self.entries().take(count as usize)).try_for_each(|entry| self.apply(&entry?, disk))
    }

    /// Applies entry after entry and calls `look` with the disk at each flush, FUA write and mark, and at the end.
    pub fn replay_each<M: Medium, E: From<LogError>>(
        &self,
        disk: &mut M,
        mut look: impl FnMut(&Entry, &mut M) -> Result<(), E>,
    ) -> Result<(), E> {
        for entry in self.entries() {
            let entry = entry?;
            self.apply(&entry, disk)?;
            if entry.is_boundary() || entry.index + 1 == self.entries {
                look(&entry, disk)?;
            }
        }
        Ok(())
    }

    /// Applies one entry; to replay, all before it must have been.
    pub fn apply(&self, entry: &Entry, disk: &mut impl Medium) -> Result<(), LogError> {
        let mut buf = vec![0; entry.len.min(COPY) as usize];
        for done in (0..entry.len).step_by(COPY as usize) {
            let len = (entry.len - done).min(COPY);
            let piece = &mut buf[..len as usize];
            if !entry.is_discard() {
                read(&self.file, piece, entry.data + done)?;
            }
            let at = entry.offset + done;
            (disk.write_at(piece, at)).map_err(|source| LogError::Replay {
                index: entry.index,
                at,
                len,
                source,
            })?;
        }
        Ok(())
    }

    /// The entry whose header is at byte `at`, and where the next header is.
    fn entry(&self, index: u64, at: u64) -> Result<(Entry, u64), LogError> {
        let wrong = |what: String| LogError::Entry { index, entries: self.entries, at, what };
        let mut block = vec![0; self.block as usize];
        read(&self.file, &mut block, at).map_err(|error| wrong(error.to_string()))?;
        let (header, text) = block.split_at(HEADER);
        let [sector, sectors, flags, data_len] = words(header);
        if flags & !(FLUSH | FUA | DISCARD | MARK | METADATA) != 0 {
            return Err(wrong(format!("unknown flags {flags:#x}")));
        }
        let range = sector.checked_mul(self.block).zip(sectors.checked_mul(self.block));
        let (offset, len) = (range.filter(|(offset, len)| offset.checked_add(*len).is_some()))
            .ok_or_else(|| wrong(format!("{sectors} sectors from {sector}: past any disk")))?;
        let mark = if flags & MARK != 0 {
            let text = usize::try_from(data_len).ok().and_then(|len| text.get(..len));
            let text = text.ok_or_else(|| {
                wrong(format!("a mark of {data_len} bytes does not fit its block"))
            })?;
            Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
        } else if data_len != 0 {
            return Err(wrong(format!(
                "{data_len} bytes of inline data, which no block device writes"
            )));
        } else {
            None
        };
        let data = at + self.block;
        let stored = if flags & DISCARD == 0 { len } else { 0 };
        let next = data
            .checked_add(stored)
            .ok_or_else(|| wrong(format!("{len} bytes of data: past any log")))?;
        let end = self
            .file
            .metadata()
            .map(|data| data.len())
            .map_err(|error| wrong(error.to_string()))?;
        // A block device has no length of its own here; there a short read tells.
        if end != 0 && next > end {
            return Err(wrong(format!("its data ends at byte {next}, the log at byte {end}")));
        }
        Ok((Entry { index, offset, len, flags, mark, data }, next))
    }
}

fn read(file: &File, buf: &mut [u8], at: u64) -> Result<(), LogError> {
    file.read_exact_at(buf, at).map_err(|source| LogError::Read { at, source })
}

fn words(header: &[u8]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.chunks_exact(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}
