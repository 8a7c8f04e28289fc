//! The virtio disks of a case, which outlive its boots.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmremap_disks::server::{CONTROL, Command, Server};
use dmremap_disks::volatile::CutReport;

use super::kernel::Kernel;
use super::qemu::socket_dir;
use super::target_dir;
use crate::case::{Case, Disk};

/// The disks of one run of a case.
pub struct Disks {
    /// As QEMU takes them, in the case's order.
    pub drives: Vec<String>,
    /// Where their content is; of the one for control there is none.
    pub images: Vec<PathBuf>,
    /// Serves the volatile ones.
    server: Option<Server>,
}

impl Disks {
    /// Makes them anew, all zeroes.
    pub fn new(case: &Case, kernel: &Kernel) -> Result<Disks> {
        let dir = target_dir()?.join("vm-disks").join(&kernel.release);
        fs::create_dir_all(&dir)?;
        let mut images = Vec::new();
        for (index, disk) in case.disks.iter().enumerate() {
            let mib = match disk {
                Disk::Raw { mib } | Disk::Volatile { mib } => *mib,
                Disk::Control => 0,
            };
            let name = format!("disk{index}");
            let path = dir.join(format!("{name}.img"));
            let file = File::create(&path).with_context(|| path.display().to_string())?;
            file.set_len(mib << 20)?;
            images.push((*disk, name, path));
        }
        let volatile: Vec<(&str, &Path)> = images
            .iter()
            .filter(|(disk, ..)| matches!(disk, Disk::Volatile { .. }))
            .map(|(_, name, path)| (name.as_str(), path.as_path()))
            .collect();
        let server = match &volatile[..] {
            [] => None,
            disks => Some(Server::start(&socket_dir(kernel)?, &plugin()?, disks)?),
        };
        let drives = images
            .iter()
            .map(|(disk, name, path)| match (disk, &server) {
                (Disk::Volatile { .. }, Some(server)) => server.uri(name),
                (Disk::Control, Some(server)) => server.uri(CONTROL),
                _ => path.display().to_string(),
            })
            .collect();
        let images = images.into_iter().map(|(.., path)| path).collect();
        Ok(Disks { drives, images, server })
    }

    /// Cuts the power of the volatile disks, once there is something to lose, or so much later; what that lost.
    pub fn cut(&self, seed: u64, patience: Duration) -> Result<CutReport> {
        match &self.server {
            Some(server) => server.cut(seed, patience),
            None => Ok(CutReport { seed, disks: BTreeMap::new() }),
        }
    }

    /// Gives it back, to the next QEMU.
    pub fn on(&self) -> Result<()> {
        self.server.iter().try_for_each(|server| server.ask(&Command::On).map(drop))
    }
}

/// The plugin as `make stage` builds it.
fn plugin() -> Result<PathBuf> {
    let path = target_dir()?.join("debug/examples/libvolatile_disk.so");
    ensure!(path.exists(), "{}: build it with `make stage`", path.display());
    Ok(path)
}
