//! A RAID 1 array of md.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Cmd, wait_until};

const NAME: &str = "md0";
/// How long a check of an array of tens of MiB may take, in guest time.
const PATIENCE: Duration = Duration::from_secs(120);

fn mdadm(args: &[&str]) -> Cmd {
    Cmd::new("mdadm").args(args).env("MDADM_NO_UDEV", "1")
}

/// An array of two legs; dropping it stops it.
pub struct Raid1 {
    path: PathBuf,
    stopped: bool,
}

impl Raid1 {
    /// Made anew of legs that are alike already.
    pub fn create(legs: [&Path; 2]) -> Result<Self> {
        Self::of(legs, "1.2")
    }

    /// Likewise, with superblocks of that version.
    pub fn of(legs: [&Path; 2], version: &str) -> Result<Self> {
        super::fs::extra()?;
        super::modprobe("raid1", &[])?;
        let path = Path::new("/dev").join(NAME);
        let legs = legs.map(|leg| leg.display().to_string());
        let array = path.display().to_string();
        let how = [
            "--run",
            "--level=1",
            &format!("--metadata={version}"),
            "--assume-clean",
            "--bitmap=none",
            "--raid-devices=2",
        ];
        mdadm(&["--create", &array]).args(how).args(legs).run()?;
        Ok(Self { path, stopped: false })
    }

    /// Wipes the superblock of what was a leg.
    pub fn forget(leg: &Path) -> Result<()> {
        mdadm(&["--zero-superblock", &leg.display().to_string()]).run().map(drop)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn attribute(&self, name: &str) -> PathBuf {
        Path::new("/sys/block").join(NAME).join("md").join(name)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.attribute(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().into())
    }

    /// Every leg is in the array, and nothing on any is held to be bad.
    pub fn expect_whole(&self) -> Result<()> {
        for entry in fs::read_dir(self.attribute(""))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("dev-") {
                let state = self.read(&format!("{name}/state"))?;
                let bad = self.read(&format!("{name}/bad_blocks"))?;
                ensure!(
                    state == "in_sync" && bad.is_empty(),
                    "md has {name} as {state:?}, bad: {bad:?}"
                );
            }
        }
        let degraded = self.read("degraded")?;
        ensure!(degraded == "0", "md has lost {degraded} legs");
        Ok(())
    }

    /// Where on a leg the array's data begins, in sectors.
    pub fn offset(&self, leg: &Path) -> Result<u64> {
        let leg = leg.file_name().context("a leg without a name")?.to_string_lossy();
        Ok(self.read(&format!("dev-{leg}/offset"))?.parse()?)
    }

    /// Reads both legs from end to end, mends what one of them cannot read, and compares: sectors that differ.
    pub fn check(&self) -> Result<u64> {
        let action = self.attribute("sync_action");
        fs::write(&action, "check").with_context(|| action.display().to_string())?;
        wait_until("the check of the array", PATIENCE, || Ok(self.read("sync_action")? == "idle"))?;
        Ok(self.read("mismatch_cnt")?.parse()?)
    }

    /// Takes a leg out, as when it has gone.
    pub fn fail(&self, leg: &Path) -> Result<()> {
        mdadm(&["--fail", &self.path.display().to_string(), &leg.display().to_string()])
            .run()
            .map(drop)
    }

    pub fn stop(mut self) -> Result<()> {
        self.stopped = true;
        self.stopping()
    }

    fn stopping(&self) -> Result<()> {
        mdadm(&["--stop", &self.path.display().to_string()]).run()?;
        // md lets its disk go a moment later.
        let there = Path::new("/sys/class/block").join(NAME);
        wait_until("the end of the array", PATIENCE, || Ok(!there.exists()))
    }
}

impl Drop for Raid1 {
    fn drop(&mut self) {
        if !self.stopped {
            // What stays keeps its legs from going, which the check for leftovers finds.
            let _ = self.stopping();
        }
    }
}
