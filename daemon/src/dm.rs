//! The mapped devices themselves: made, found again, changed and removed through device-mapper.
//!
//! These calls wait: for udev, for I/O to drain, for a file system to freeze. They are made on a
//! thread of their own, never on the one that serves faults, which they may be waiting for.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use devicemapper::{DM, DevId, DeviceInfo, DmError, DmFlags, DmName, DmOptions, DmUuid, errors};
use nix::errno::Errno;
use rustix::fs::{CWD, FileType, Mode};
use thiserror::Error;

use crate::config::resolve::{DevNo, Disks};
use crate::units::Sectors;

const TARGET: &str = "remap";
/// Where it is, udev makes the nodes below /dev/mapper.
const UDEV: &str = "/run/udev/control";

#[derive(Debug, Error)]
pub enum MapperError {
    #[error("device-mapper is not there ({0}); `modprobe dm_mod` loads it")]
    Absent(DmError),
    #[error("cannot {what} {name}: {reason}")]
    Ioctl { what: &'static str, name: String, reason: String },
    #[error(
        "{name} exists already and is another device ({found}); \
         remove it with `dmsetup remove {name}` or choose another name"
    )]
    Foreign { name: String, found: String },
    #[error("cannot make {}: {source}", path.display())]
    Node { path: PathBuf, source: io::Error },
}

/// Start and length in sectors, target and parameters.
pub type Line = (u64, u64, String, String);
pub type Lines = Vec<Line>;

/// A table of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub sectors: Sectors,
    pub disks: Disks,
    /// The target's options that have a value, by name.
    pub options: Vec<(&'static str, u32)>,
}

impl Table {
    /// Faults of a device that the daemon made wait for it, were it to die.
    fn parameters(&self) -> String {
        let Disks { data, spare } = self.disks;
        let count = 1 + 2 * self.options.len();
        let options: String = self.options.iter().map(|(k, v)| format!(" {k} {v}")).collect();
        format!("{data} {spare} {count} queue_if_no_daemon{options}")
    }

    fn lines(&self) -> [Line; 1] {
        [(0, self.sectors.0, TARGET.to_owned(), self.parameters())]
    }

    /// Whether a line that the kernel shows is of the same disks; options may differ.
    fn is_of(&self, (start, len, target, parameters): &Line) -> bool {
        let mut words = parameters.split(' ');
        let Disks { data, spare } = self.disks;
        (*start, *len, target.as_str()) == (0, self.sectors.0, TARGET)
            && words.next() == Some(data.to_string().as_str())
            && words.next() == Some(spare.to_string().as_str())
    }

    /// What the kernel shows under this name is of the same disks: somebody may have removed the device, and given its name
    /// to another.
    fn own<'a>(
        &self,
        name: &str,
        lines: impl IntoIterator<Item = &'a Line>,
    ) -> Result<(), MapperError> {
        match lines.into_iter().find(|line| !self.is_of(line)) {
            None => Ok(()),
            Some((_, _, target, parameters)) => {
                let found = format!("{target} {parameters}");
                Err(MapperError::Foreign { name: name.to_owned(), found })
            }
        }
    }
}

pub struct Mapper {
    dm: DM,
}

impl Mapper {
    pub fn open() -> Result<Mapper, MapperError> {
        Ok(Mapper { dm: DM::new().map_err(MapperError::Absent)? })
    }

    /// Makes the device, or finds it as an earlier daemon left it, and loads its table, if its options are not those that it
    /// has. The instance is there then. A new one serves nothing before [`Mapper::resume`] and the daemon's READY; one that
    /// was there gets its new options with that. One that was made by hand, which has not this uuid, keeps its own.
    pub fn prepare(&self, name: &str, uuid: &str, table: &Table) -> Result<(), MapperError> {
        let id = dm_name(name)?;
        let fail = |what| failure(what, name);
        let found = self.found(name)?;
        if found.is_none() {
            let uuid = DmUuid::new(uuid).map_err(fail("create"))?;
            let created = self.dm.device_create(id, Some(uuid), DmOptions::default());
            created.map_err(fail("create"))?;
        }
        let id = DevId::Name(id);
        let (active, inactive) = (self.table(&id, false)?, self.table(&id, true)?);
        table.own(name, active.iter().chain(&inactive))?;
        let ours = || found.as_ref()?.uuid().map(|found| found.to_string() == uuid);
        if inactive.is_empty() && (active.is_empty() || ours() == Some(true)) {
            let loaded = self.dm.table_load(&id, &table.lines(), DmOptions::default());
            loaded.map_err(fail("load the table of")).inspect_err(|_| {
                // An empty device would be in the way of its name; what matters is why.
                let _ = if found.is_none() { self.remove(name) } else { Ok(()) };
            })?;
            // Only the kernel knows what is preset.
            if self.table(&id, true)? == active {
                self.dm.table_clear(&id).map_err(fail("clear the table of"))?;
            }
        }
        Ok(())
    }

    /// Lets I/O through and makes the node. Waits for udev where it runs, whose rules read the
    /// device: without READY that takes until the deadline.
    pub fn resume(&self, name: &str) -> Result<(), MapperError> {
        let id = DevId::Name(dm_name(name)?);
        let info = self.dm.device_suspend(&id, DmOptions::default());
        let at = info.map_err(failure("resume", name))?.device();
        if Path::new(UDEV).exists() {
            return Ok(());
        }
        make_node(Path::new("/dev"), name, DevNo { major: at.major, minor: at.minor })
    }

    /// Puts a table with other options in place of the present one, without losing I/O. Held I/O is
    /// served meanwhile. Returns what was in place, which [`Mapper::replace`] puts back.
    pub fn reload(&self, name: &str, table: &Table) -> Result<Lines, MapperError> {
        let before = self.table(&DevId::Name(dm_name(name)?), false)?;
        table.own(name, &before)?;
        self.replace(name, &table.lines())?;
        Ok(before)
    }

    pub fn replace(&self, name: &str, lines: &[Line]) -> Result<(), MapperError> {
        let id = DevId::Name(dm_name(name)?);
        let loaded = self.dm.table_load(&id, lines, DmOptions::default());
        loaded.map_err(failure("load the table of", name))?;
        let suspend = DmOptions::default().set_flags(DmFlags::DM_SUSPEND);
        let suspended = self.dm.device_suspend(&id, suspend);
        // Whether or not it could be suspended, it must not stay so.
        self.resume(name)?;
        suspended.map(drop).map_err(failure("suspend", name))
    }

    /// EBUSY while it is open.
    pub fn remove(&self, name: &str) -> Result<(), MapperError> {
        let id = DevId::Name(dm_name(name)?);
        let removed = self.dm.device_remove(&id, DmOptions::default());
        removed.map_err(failure("remove", name))?;
        if !Path::new(UDEV).exists() {
            // What is left of a node leads nowhere, and the next device replaces it.
            let _ = std::fs::remove_file(node(Path::new("/dev"), name));
        }
        Ok(())
    }

    /// None: there is no device of that name.
    fn found(&self, name: &str) -> Result<Option<DeviceInfo>, MapperError> {
        match self.dm.device_info(&DevId::Name(dm_name(name)?)) {
            Ok(info) => Ok(Some(info)),
            Err(DmError::Core(errors::Error::Ioctl(_, _, _, error))) if *error == Errno::ENXIO => {
                Ok(None)
            }
            Err(error) => Err(failure("find", name)(error)),
        }
    }

    fn table(&self, id: &DevId, inactive: bool) -> Result<Lines, MapperError> {
        let mut flags = DmFlags::DM_STATUS_TABLE;
        if inactive {
            flags |= DmFlags::DM_QUERY_INACTIVE_TABLE;
        }
        match self.dm.table_status(id, DmOptions::default().set_flags(flags)) {
            Ok((_, lines)) => Ok(lines),
            Err(error) => Err(failure("read the table of", &id.to_string())(error)),
        }
    }
}

fn dm_name(name: &str) -> Result<&DmName, MapperError> {
    DmName::new(name).map_err(failure("name", name))
}

/// The crate's own text shows two headers of an ioctl; the error number is what helps.
fn failure(what: &'static str, name: &str) -> impl Fn(DmError) -> MapperError {
    move |error| {
        let reason = match error {
            DmError::Core(errors::Error::Ioctl(_, _, _, errno)) => match *errno {
                Errno::EBUSY if what.starts_with("load") => {
                    "one of its disks is in use, perhaps by another mapped device; \
                     `dmsetup table` and `lsblk` show by which"
                        .to_owned()
                }
                Errno::EBUSY => "it is in use".to_owned(),
                Errno::EINVAL | Errno::ENODEV if what.starts_with("load") => {
                    format!("{} (`dmesg` has the target's words)", errno.desc())
                }
                errno => errno.desc().to_owned(),
            },
            error => error.to_string(),
        };
        MapperError::Ioctl { what, name: name.to_owned(), reason }
    }
}

fn node(dev: &Path, name: &str) -> PathBuf {
    dev.join("mapper").join(name)
}

/// As udev would: a link to the node of the kernel's own naming, or the node itself where no devtmpfs
/// makes that one.
fn make_node(dev: &Path, name: &str, number: DevNo) -> Result<(), MapperError> {
    let path = node(dev, name);
    let made = || -> io::Result<()> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let kernels = format!("dm-{}", number.minor);
        if dev.join(&kernels).exists() {
            return symlink(Path::new("..").join(kernels), &path);
        }
        let mode = Mode::RUSR | Mode::WUSR;
        let number = rustix::fs::makedev(number.major, number.minor);
        Ok(rustix::fs::mknodat(CWD, &path, FileType::BlockDevice, mode, number)?)
    };
    made().map_err(|source| MapperError::Node { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let disks =
            Disks { data: DevNo { major: 8, minor: 0 }, spare: DevNo { major: 8, minor: 17 } };
        Table { sectors: Sectors(2048), disks, options: vec![("max_held_kib", 64)] }
    }

    #[test]
    fn the_table_line_counts_its_options() {
        assert_eq!(table().parameters(), "8:0 8:17 3 queue_if_no_daemon max_held_kib 64");
        let plain = Table { options: vec![], ..table() };
        assert_eq!(plain.parameters(), "8:0 8:17 1 queue_if_no_daemon");
    }

    #[test]
    fn a_device_is_ours_by_its_disks_and_length_whatever_its_options() {
        let line = |len, target: &str, text: &str| (0, len, target.to_owned(), text.to_owned());
        assert!(table().is_of(&line(2048, "remap", "8:0 8:17 2 hold_deadline_ms 9")));
        assert!(table().is_of(&line(2048, "remap", "8:0 8:17")));
        assert!(!table().is_of(&line(2040, "remap", "8:0 8:17")));
        assert!(!table().is_of(&line(2048, "linear", "8:0 8:17")));
        assert!(!table().is_of(&line(2048, "remap", "8:0 8:1")));
        assert!(!table().is_of(&line(2048, "remap", "8:17 8:0")));
    }

    #[test]
    fn without_udev_the_node_is_a_link_to_the_kernels() {
        let dev = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dev.path().join("mapper")).expect("made");
        std::fs::write(dev.path().join("dm-3"), "").expect("made");
        // Twice: an older link is replaced.
        for _ in 0..2 {
            make_node(dev.path(), "d", DevNo { major: 253, minor: 3 }).expect("made");
        }
        let link = std::fs::read_link(dev.path().join("mapper/d")).expect("a link");
        assert_eq!(link, Path::new("../dm-3"));
    }
}
