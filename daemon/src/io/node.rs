//! The node of a block device that devtmpfs made.

use std::io;
use std::path::{Path, PathBuf};

use super::identity::SYSFS;
use crate::config::resolve::{DevNo, block_device};

/// Where the kernel says that it is. A device may have other nodes, of other inodes: without udev, `dmsetup` makes its
/// own. A lock is an inode's, so that all who lock must open the same one.
pub fn of(device: DevNo) -> io::Result<PathBuf> {
    let event = Path::new(SYSFS).join("dev/block").join(device.to_string()).join("uevent");
    let event = std::fs::read_to_string(event)?;
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let name = name.ok_or_else(|| io::Error::other("the kernel names no node"))?;
    let path = Path::new("/dev").join(name);
    match block_device(&path) {
        Ok(at) if at == device => Ok(path),
        _ => Err(io::Error::other(format!("{} is not {device}", path.display()))),
    }
}
