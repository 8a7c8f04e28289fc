//! The work on a file system: fio that verifies what it wrote, fsx, and churn, all at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::{major, minor};

use crate::guest::churn::Churn;
use crate::guest::fs::{Mount, fio};
use crate::guest::served::policyd;
use crate::guest::{Cmd, Ctx, run};

/// How much is done.
#[derive(Clone, Copy)]
pub struct Amount {
    pub fio_mib: u64,
    pub fsx: u64,
    pub churn: u64,
}

/// Between two places that go bad.
const PAUSE: Duration = Duration::from_millis(10);
const LIMIT: u64 = 200;
const FSX: &str = "/run/vm/fsx.toml";
/// All that the file systems have.
const FSX_CONFIG: &str = "
flen = 2097152
[weights]
close_open = 1
invalidate = 1
read = 10
write = 20
mapread = 5
mapwrite = 10
truncate = 5
fsync = 2
fdatasync = 1
posix_fallocate = 2
punch_hole = 2
copy_file_range = 1
";

/// What must be there from now on.
pub struct Work {
    churn: Churn,
    sums: Vec<(PathBuf, String)>,
}

/// What it has counted and done last, to tell its errors from the kernel's.
fn daemons_word() -> String {
    let status = policyd(&["status", "--json"]).and_then(Cmd::run);
    status.unwrap_or_else(|error| format!("no daemon: {error}"))
}

fn sum(path: &Path) -> Result<String> {
    let text = run(&["sha256sum", &path.display().to_string()])?;
    Ok(text.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

fn fio_verifies(file: &Path, mib: u64, seed: u64) -> Result<()> {
    let (size, seed) = (format!("--size={mib}M"), format!("--randseed={seed}"));
    let how = ["--rw=randwrite", "--bsrange=4k-32k", "--iodepth=16", "--fsync=32"];
    let text = fio(file, &[&how[..], &["--verify=crc32c", &size, &seed]].concat(), LIMIT)?;
    ensure!(text.contains("err= 0"), "{text}");
    Ok(())
}

fn fsx(file: &Path, operations: u64, seed: u64) -> Result<()> {
    fs::write(FSX, FSX_CONFIG)?;
    Cmd::new("fsx")
        .args(["-q", "-f", FSX, "-P", "/run/vm", "-N", &operations.to_string()])
        .args(["-S", &(seed % (1 << 31)).to_string()])
        .arg(file.display().to_string())
        .limit(LIMIT)
        .run()
        .map(drop)
}

impl Work {
    /// Works in a directory of that name, while `worsen` is called again and again.
    pub fn on(
        ctx: &Ctx,
        mount: &Mount,
        name: &str,
        amount: Amount,
        mut worsen: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let dir = mount.path().join(name);
        fs::create_dir_all(&dir)?;
        let (with_fio, with_fsx) = (dir.join("fio"), dir.join("fsx"));
        let seed = ctx.seed;
        let churn = thread::scope(|scope| {
            let workers = [
                scope.spawn(|| fio_verifies(&with_fio, amount.fio_mib, seed).context("fio")),
                scope.spawn(|| fsx(&with_fsx, amount.fsx, seed).context("fsx")),
            ];
            let churning = scope.spawn(|| {
                let mut churn = Churn::new(&dir.join("churn"), seed)?;
                (0..amount.churn).try_for_each(|_| churn.step())?;
                Ok(churn)
            });
            while !(churning.is_finished() && workers.iter().all(|worker| worker.is_finished())) {
                worsen()?;
                thread::sleep(PAUSE);
            }
            for worker in workers {
                worker.join().unwrap_or_else(|_| bail!("a worker panicked"))?;
            }
            churning.join().unwrap_or_else(|_| bail!("a worker panicked"))
        })
        .and_then(|churn: Churn| churn.sync().map(|()| churn))
        .with_context(daemons_word)
        .context("the work while the disk went bad")?;
        let sums = [with_fio, with_fsx].map(|path| Ok((path.clone(), sum(&path)?)));
        Ok(Self { churn, sums: sums.into_iter().collect::<Result<_>>()? })
    }

    /// Every file is what it was.
    pub fn verify(&self) -> Result<u64> {
        let mut bytes = self.churn.verify()?;
        for (path, wanted) in &self.sums {
            let found = sum(path)?;
            ensure!(found == *wanted, "{} has changed", path.display());
            bytes += fs::metadata(path)?.len();
        }
        Ok(bytes)
    }
}

/// The kernel has nothing to say against the device, nor what lies on it.
pub fn no_errors_on(device: &Path) -> Result<()> {
    let number = fs::metadata(device).with_context(|| device.display().to_string())?.rdev();
    let link = format!("/sys/dev/block/{}:{}", major(number), minor(number));
    let path = fs::canonicalize(&link).context(link)?;
    let name = path.file_name().context("a device without a name")?.to_string_lossy();
    let log = run(&["dmesg"])?;
    let of_it = |line: &&str| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        line.to_lowercase().contains("error") && words.any(|word| word == name)
    };
    match log.lines().find(of_it) {
        Some(line) => bail!("an error has come up: {line}"),
        None => Ok(()),
    }
}
