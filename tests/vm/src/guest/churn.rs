//! Files that are made, grown, cut, renamed, rewritten and removed at random, with a memory of what they must hold.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::load::Random;

const DIRS: u64 = 6;
/// Names there are in a directory.
const NAMES: u64 = 12;
/// The most bytes that a file grows by at once, give or take.
const GROWTH: u64 = 96 << 10;
/// The longest file.
const LONGEST: u64 = 384 << 10;

/// What a file holds: bytes drawn from its seed, so many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    seed: u64,
    len: u64,
}

impl Content {
    /// Its bytes from `start` on.
    fn bytes(self, start: u64) -> Vec<u8> {
        const WORD: u64 = 8;
        let words = start / WORD..self.len.div_ceil(WORD);
        let bytes =
            words.flat_map(|at| Random::new(self.seed ^ at << 20).below(u64::MAX).to_le_bytes());
        let skipped = (start % WORD) as usize;
        bytes.skip(skipped).take((self.len - start) as usize).collect()
    }
}

/// A tree of files below a directory of its own.
pub struct Churn {
    dir: PathBuf,
    random: Random,
    files: BTreeMap<PathBuf, Content>,
    pub operations: u64,
}

impl Churn {
    pub fn new(dir: &Path, seed: u64) -> Result<Self> {
        for number in 0..DIRS {
            fs::create_dir_all(dir.join(format!("dir{number}")))?;
        }
        Ok(Self {
            dir: dir.into(),
            random: Random::new(seed),
            files: BTreeMap::new(),
            operations: 0,
        })
    }

    fn name(&mut self) -> PathBuf {
        let (dir, name) = (self.random.below(DIRS), self.random.below(NAMES));
        Path::new(&format!("dir{dir}")).join(format!("file{name}"))
    }

    /// One operation; any error of the file system is one.
    pub fn step(&mut self) -> Result<()> {
        self.operations += 1;
        let name = self.name();
        let path = self.dir.join(&name);
        let what = || path.display().to_string();
        match (self.files.get(&name).copied(), self.random.below(8)) {
            (Some(_), 0) => {
                fs::remove_file(&path).with_context(what)?;
                self.files.remove(&name);
            }
            (Some(content), 1) => {
                let to = self.name();
                fs::rename(&path, self.dir.join(&to)).with_context(what)?;
                self.files.remove(&name);
                self.files.insert(to, content);
            }
            (Some(content), 2) => {
                let len = self.random.below(content.len + 1);
                let file = OpenOptions::new().write(true).open(&path).with_context(what)?;
                file.set_len(len).with_context(what)?;
                self.files.insert(name, Content { len, ..content });
            }
            (Some(content), 3 | 4) if content.len < LONGEST => {
                let grown = Content { len: content.len + self.random.below(GROWTH), ..content };
                let file = OpenOptions::new().write(true).open(&path).with_context(what)?;
                file.write_all_at(&grown.bytes(content.len), content.len).with_context(what)?;
                self.files.insert(name, grown);
            }
            (_, kind) => {
                let content =
                    Content { seed: self.random.below(u64::MAX), len: self.random.below(GROWTH) };
                // In place, where the file system allows it.
                let mut options = OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .with_context(what)?;
                file.write_all(&content.bytes(0)).with_context(what)?;
                file.set_len(content.len).with_context(what)?;
                if kind > 5 {
                    file.sync_all().with_context(what)?;
                }
                self.files.insert(name, content);
            }
        }
        Ok(())
    }

    /// The tree is what it was left as: these files and no others, byte for byte. How many bytes that are.
    pub fn verify(&self) -> Result<u64> {
        let mut bytes = 0;
        for (name, content) in &self.files {
            let path = self.dir.join(name);
            let found = fs::read(&path).with_context(|| path.display().to_string())?;
            ensure!(
                found.len() as u64 == content.len,
                "{}: {} bytes, and should be {}",
                name.display(),
                found.len(),
                content.len
            );
            let wanted = content.bytes(0);
            let wrong = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
            ensure!(wrong.is_none(), "{}: byte {wrong:?} has changed", name.display());
            bytes += content.len;
        }
        let mut there = 0;
        for dir in fs::read_dir(&self.dir)? {
            there += fs::read_dir(dir?.path())?.count();
        }
        ensure!(there == self.files.len(), "{there} files, and should be {}", self.files.len());
        Ok(bytes)
    }

    /// All of it is on the disk when it returns.
    pub fn sync(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.dir)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn churned() -> (PathBuf, Churn) {
        let name = format!("churn-{}-{:?}", std::process::id(), std::thread::current().id());
        let dir = std::env::temp_dir().join(name);
        let mut churn = Churn::new(&dir, 7).unwrap();
        (0..400).try_for_each(|_| churn.step()).unwrap();
        (dir, churn)
    }

    #[test]
    fn what_was_written_is_found() {
        let (dir, churn) = churned();
        assert!(churn.files.len() > 20, "{} files", churn.files.len());
        let bytes: u64 = churn.files.values().map(|content| content.len).sum();
        assert_eq!(churn.verify().unwrap(), bytes);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_damaged_missing_or_foreign_file_is_seen() {
        let (dir, churn) = churned();
        let (name, content) = churn.files.iter().find(|(_, content)| content.len > 600).unwrap();
        let file = OpenOptions::new().write(true).open(dir.join(name)).unwrap();
        file.write_all_at(&[!content.bytes(512)[0]], 512).unwrap();
        assert!(churn.verify().unwrap_err().to_string().contains("byte Some(512) has changed"));
        file.write_all_at(&content.bytes(512)[..1], 512).unwrap();
        churn.verify().unwrap();
        file.set_len(content.len + 1).unwrap();
        assert!(churn.verify().is_err());
        fs::remove_file(dir.join(name)).unwrap();
        assert!(churn.verify().is_err());
        fs::write(dir.join(name), content.bytes(0)).unwrap();
        churn.verify().unwrap();
        fs::write(dir.join("dir0/foreign"), "").unwrap();
        assert!(churn.verify().is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
