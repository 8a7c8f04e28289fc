//! Devices that the daemon serves: formatted, configured, started.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::daemon::{Daemon, program};
use super::dm::Device;
use super::{Cmd, Disk, wait_until};

const CONFIG: &str = "/run/vm/dmremap.toml";

/// How long the daemon may take to answer a signal or to serve a device, in guest time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the device that most cases serve; see [`name`].
pub const NAME: &str = "d1";

/// Fields are taken down in this order: the devices first, while their daemon can still serve what is in flight.
pub struct Served {
    devices: Vec<Device>,
    pub daemon: Daemon,
}

/// The name of a device, counted from 0.
#[must_use]
pub fn name(index: usize) -> String {
    format!("d{}", index + 1)
}

/// A command of the daemon's.
pub fn policyd(args: &[&str]) -> Result<Cmd> {
    Ok(Cmd::new(&program()?.display().to_string()).args(["--config", CONFIG]).args(args))
}

pub fn format(data: &Path, spare: &Path) -> Result<String> {
    let (data, spare) = (data.display().to_string(), spare.display().to_string());
    policyd(&["format", "--data", &data, "--spare", &spare, "--weak-identity"])?.run()
}

/// Overwrites the label that is there.
pub fn forced_format(data: &Path, spare: &Path) -> Result<String> {
    let (data, spare) = (data.display().to_string(), spare.display().to_string());
    policyd(&["format", "--data", &data, "--spare", &spare, "--weak-identity", "--force"])?.run()
}

/// Writes the configuration of one device; `more` goes into its section.
pub fn configure(data: &Path, spare: &Path, more: &str) -> Result<()> {
    configure_all("", &[(data, spare)], more)
}

/// Writes the configuration of devices on these disks, each data and spare. `top` stands before them, and `more` goes
/// into the section of each.
pub fn configure_all(top: &str, disks: &[(&Path, &Path)], more: &str) -> Result<()> {
    let mut text = format!("[daemon]\ncontrol_socket = \"/run/vm/control.sock\"\n{top}\n");
    for (index, (data, spare)) in disks.iter().enumerate() {
        text += &format!(
            "[[device]]\nname = \"{}\"\ndata = \"{}\"\nspare = \"{}\"\n{more}\n",
            name(index),
            data.display(),
            spare.display()
        );
    }
    fs::write(CONFIG, text).context(CONFIG)
}

pub fn config_path() -> &'static Path {
    Path::new(CONFIG)
}

impl Served {
    /// Formats the spare and starts the daemon.
    pub fn new(data: &Path, spare: &Path, more: &str) -> Result<Self> {
        format(data, spare)?;
        configure(data, spare, more)?;
        Self::start()
    }

    /// Several devices under one daemon.
    pub fn several(disks: &[(&Path, &Path)]) -> Result<Self> {
        disks.iter().try_for_each(|(data, spare)| format(data, spare).map(drop))?;
        configure_all("", disks, "")?;
        Self::start()
    }

    /// Starts the daemon on what is configured and formatted already.
    pub fn start() -> Result<Self> {
        let config = fs::read_to_string(CONFIG)?;
        Self::start_first(config.lines().filter(|line| *line == "[[device]]").count())
    }

    /// Likewise, but only the first `count` devices must be served, and are taken down.
    pub fn start_first(count: usize) -> Result<Self> {
        Self::start_in_env(count, &[])
    }

    /// Likewise, with this in its environment.
    pub fn start_in_env(count: usize, env: &[(&str, &str)]) -> Result<Self> {
        super::modprobe("dm-mod", &[])?;
        let daemon = Daemon::start_in_env(config_path(), env)?;
        let devices = (0..count).map(|index| Device::existing(&name(index))).collect();
        let served = Served { devices, daemon };
        served.until_ready()?;
        Ok(served)
    }

    /// Starts a daemon that must refuse the only device there is, in these words. It is stopped again.
    pub fn refused(words: &str) -> Result<()> {
        super::modprobe("dm-mod", &[])?;
        let mut daemon = Daemon::start(config_path())?;
        let mut said = String::new();
        wait_until("the daemon's answer", PATIENCE, || {
            let status = policyd(&["status"])?.end()?;
            said = status.stdout + &status.stderr;
            Ok(said.starts_with(NAME))
        })
        .with_context(|| daemon.log().unwrap_or_default())?;
        let wanted = format!("{NAME}: not served: ");
        ensure!(
            said.starts_with(&wanted) && said.contains(words),
            "not refused in the words {words:?}: {said}"
        );
        daemon.stop(PATIENCE)
    }

    pub fn until_ready(&self) -> Result<()> {
        let ready = wait_until("the devices to be served", PATIENCE, || {
            let serving = policyd(&["status"])?.end()?;
            Ok(serving.stdout.matches("kernel: ready").count() >= self.devices.len()
                && self.devices.iter().all(|device| device.path().exists()))
        });
        ready.with_context(|| self.daemon.log().unwrap_or_default())
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.kill().map(drop)
    }

    /// A new daemon on the same configuration.
    pub fn again(&mut self) -> Result<()> {
        self.again_in_env(&[])
    }

    /// Likewise, with this in its environment.
    pub fn again_in_env(&mut self, env: &[(&str, &str)]) -> Result<()> {
        self.daemon = Daemon::start_in_env(config_path(), env)?;
        self.until_ready()
    }

    /// Likewise, working and logging in `dir`.
    pub fn again_in(&mut self, dir: &Path) -> Result<()> {
        self.daemon = Daemon::start_in(config_path(), dir)?;
        self.until_ready()
    }

    pub fn disk(&self) -> Result<Disk> {
        self.disk_of(0)
    }

    pub fn disk_of(&self, index: usize) -> Result<Disk> {
        Disk::open(self.devices[index].path())
    }

    pub fn path(&self) -> PathBuf {
        self.devices[0].path().to_path_buf()
    }

    pub fn status(&self) -> Result<String> {
        policyd(&["status"])?.run()
    }

    /// Start and length of the extents of a kind, such as `mapped`.
    pub fn listed(&self, kind: &str) -> Result<Vec<(u64, u64)>> {
        self.listed_of(0, kind)
    }

    /// The sectors of that kind. Neighbours may be one extent or two; the sectors are what counts.
    pub fn sectors_of(&self, index: usize, kind: &str) -> Result<Vec<u64>> {
        let extents = self.listed_of(index, kind)?;
        Ok(extents.iter().flat_map(|&(start, len)| start..start + len).collect())
    }

    fn listed_of(&self, index: usize, kind: &str) -> Result<Vec<(u64, u64)>> {
        let text = policyd(&["list", &name(index)])?.run()?;
        let mut found = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            ensure!(words.len() == 4, "an odd line of `list`: {line}");
            if words[2] == kind {
                found.push((words[0].parse()?, words[1].parse()?));
            }
        }
        Ok(found)
    }

    /// Where the first mapped extent that begins at a sector such as this is on the spare.
    pub fn slot_of(&self, wanted: impl Fn(u64) -> bool) -> Result<u64> {
        let text = policyd(&["list", NAME])?.run()?;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [start, _, "mapped", slot] = words[..] else { continue };
            if wanted(start.parse()?) {
                return Ok(slot.parse()?);
            }
        }
        bail!("none of these is such an extent: {text}")
    }

    /// Ends the daemon with the devices still there, then removes those: what is left is on the disks.
    pub fn down(self) -> Result<()> {
        let Served { devices, mut daemon } = self;
        daemon.stop(PATIENCE)?;
        devices.into_iter().try_for_each(Device::remove)
    }
}
