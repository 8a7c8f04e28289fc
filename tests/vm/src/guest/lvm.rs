//! Volume groups of LVM. No udev runs in the guest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Cmd;

const SYSTEM_DIR: &str = "/run/vm/lvm";
const CONFIG: &str = "
devices { use_devicesfile = 0  obtain_device_list_from_udev = 0  external_device_info_source = \"none\" }
activation { udev_sync = 0  udev_rules = 0  monitoring = 0 }
backup { backup = 0  archive = 0 }
global { event_activation = 0 }
";

fn lvm(args: &[&str]) -> Result<()> {
    Cmd::new("lvm").args(args).env("LVM_SYSTEM_DIR", SYSTEM_DIR).run().map(drop)
}

/// An active volume group; dropping it takes its volumes down.
pub struct Group {
    name: String,
    active: bool,
}

impl Group {
    /// Made anew of these disks.
    pub fn create(name: &str, disks: &[&Path]) -> Result<Self> {
        super::fs::extra()?;
        super::modprobe("dm-mod", &[])?;
        for dir in [SYSTEM_DIR, "/run/lvm", "/run/lock/lvm"] {
            fs::create_dir_all(dir)?;
        }
        let config = Path::new(SYSTEM_DIR).join("lvm.conf");
        fs::write(&config, CONFIG).with_context(|| config.display().to_string())?;
        let disks: Vec<String> = disks.iter().map(|disk| disk.display().to_string()).collect();
        let disks: Vec<&str> = disks.iter().map(String::as_str).collect();
        lvm(&[&["pvcreate", "-q"][..], &disks].concat())?;
        lvm(&[&["vgcreate", "-q", name][..], &disks].concat())?;
        Ok(Self { name: name.into(), active: true })
    }

    /// A volume of `mib` MiB, on one of the disks.
    pub fn volume(&self, name: &str, mib: u64, disk: &Path) -> Result<PathBuf> {
        let (size, disk) = (format!("{mib}m"), disk.display().to_string());
        lvm(&["lvcreate", "-q", "-y", "-Zn", "-Wn", "-n", name, "-L", &size, &self.name, &disk])?;
        Ok(self.path(name))
    }

    #[must_use]
    pub fn path(&self, volume: &str) -> PathBuf {
        Path::new("/dev/mapper").join(format!("{}-{volume}", self.name))
    }

    /// Takes all its volumes down, which nothing may use.
    pub fn down(&mut self) -> Result<()> {
        self.active = false;
        lvm(&["vgchange", "-q", "-an", &self.name])
    }

    /// They are there again.
    pub fn up(&mut self) -> Result<()> {
        lvm(&["vgchange", "-q", "-ay", &self.name])?;
        self.active = true;
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.active {
            // What stays is found by the check for leftovers.
            let _ = self.down();
        }
    }
}
