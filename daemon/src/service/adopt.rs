//! Where the devices of an instance are, by their numbers, on systems with udev and without.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::device::Paths;
use crate::config::resolve::DevNo;
use crate::io::identity::SYSFS;
use crate::io::node;

pub struct Found {
    /// The mapped device's.
    pub name: String,
    pub disks: Paths,
}

/// `numbers` are those of the mapped device, its data and its spare, as the protocol writes them.
pub fn find(numbers: [u64; 3]) -> Result<Found> {
    let [mapped, data, spare] = numbers.map(DevNo::from_wire);
    let name = sysfs(mapped).join("dm/name");
    let name = std::fs::read_to_string(&name).with_context(|| name.display().to_string())?;
    let disks = Paths { data: node(data)?, spare: node(spare)? };
    Ok(Found { name: name.trim_end().to_owned(), disks })
}

fn sysfs(device: DevNo) -> PathBuf {
    Path::new(SYSFS).join("dev/block").join(device.to_string())
}

fn node(device: DevNo) -> Result<PathBuf> {
    node::of(device).with_context(|| format!("device {device}"))
}
