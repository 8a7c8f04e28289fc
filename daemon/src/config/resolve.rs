//! From the paths of a configuration to the block devices they lead to.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Config, Device, Diagnostic};
use crate::io::identity::SYSFS;

/// A device number, as `stat` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevNo {
    pub major: u32,
    pub minor: u32,
}

impl DevNo {
    /// As the protocol writes it: major in the upper half.
    pub fn wire(self) -> u64 {
        u64::from(self.major) << 32 | u64::from(self.minor)
    }

    pub fn from_wire(number: u64) -> DevNo {
        DevNo { major: (number >> 32) as u32, minor: number as u32 }
    }

    /// As sysfs writes it: `major:minor`.
    fn parse(text: &str) -> Option<DevNo> {
        let (major, minor) = text.split_once(':')?;
        Some(DevNo { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    pub fn from_rdev(rdev: u64) -> DevNo {
        DevNo { major: rustix::fs::major(rdev), minor: rustix::fs::minor(rdev) }
    }
}

impl std::fmt::Display for DevNo {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The two disks of a configured device, found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disks {
    pub data: DevNo,
    pub spare: DevNo,
}

/// Follows links; errors unless a block device is at the end.
pub fn block_device(path: &Path) -> io::Result<DevNo> {
    let found = std::fs::metadata(path)?;
    if !found.file_type().is_block_device() {
        return Err(io::Error::other("it is not a block device"));
    }
    Ok(DevNo::from_rdev(found.rdev()))
}

/// A block device, and all that it lies on: the disk of a partition, what a mapped or RAID device is
/// made of, and so on down. Itself included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub at: DevNo,
    pub on: BTreeSet<DevNo>,
}

impl Place {
    pub fn of(path: &Path) -> io::Result<Place> {
        let at = block_device(path)?;
        let mut on = BTreeSet::new();
        below(Path::new(SYSFS), at, &mut on);
        Ok(Place { at, on })
    }

    /// What is written to one may be on the other. Two that share a disk below do not overlap: which
    /// parts of it are whose is for whoever made them.
    fn overlaps(&self, other: &Place) -> bool {
        self.on.contains(&other.at) || other.on.contains(&self.at)
    }
}

/// What sysfs does not show is not known to lie on anything.
fn below(sysfs: &Path, device: DevNo, on: &mut BTreeSet<DevNo>) {
    if !on.insert(device) {
        return;
    }
    let Ok(at) = fs::canonicalize(sysfs.join("dev/block").join(device.to_string())) else { return };
    let number = |at: &Path| DevNo::parse(fs::read_to_string(at.join("dev")).ok()?.trim());
    let disk = at.parent().filter(|_| at.join("partition").exists()).and_then(number);
    let slaves = fs::read_dir(at.join("slaves")).into_iter().flatten().flatten();
    for device in disk.into_iter().chain(slaves.filter_map(|slave| number(&slave.path()))) {
        below(sysfs, device, on);
    }
}

/// Finds the disks of every device, in the order of the file. Each device has its own result, so
/// that a disk that is absent keeps only its own device from service; a disk that is named twice
/// through different paths, or lies on one that was named before, is an error at its second place.
///
/// `lookup` is [`Place::of`] but for tests.
pub fn resolve<'a>(
    config: &'a Config,
    lookup: impl Fn(&Path) -> io::Result<Place>,
) -> Vec<(&'a Device, Result<Disks, Diagnostic>)> {
    let mut seen: Vec<(Place, &str, &str)> = Vec::new();
    let mut find = |device: &'a Device, role, path: &serde_spanned::Spanned<PathBuf>| {
        let place = lookup(path.get_ref()).map_err(|error| {
            let reason = format!("{role} {}: {error}", path.get_ref().display());
            let remedy = "attach the disk or correct the path; `lsblk` lists what is there";
            config.source.diagnose(path.span(), reason, remedy)
        })?;
        if let Some((other, role, name)) = seen.iter().find(|(other, ..)| other.overlaps(&place)) {
            return Err(match other.at == place.at {
                true => config.in_use(path, role, name),
                false => config.overlap(path, role, name),
            });
        }
        let at = place.at;
        seen.push((place, role, device.name.get_ref()));
        Ok(at)
    };
    let mut disks = |device| {
        let data = find(device, "data", &device.data)?;
        let spare = find(device, "spare", &device.spare)?;
        Ok(Disks { data, spare })
    };
    config.device.iter().map(|device| (device, disks(device))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
[[device]]
name = "a"
data = "/dev/one"
spare = "/dev/two"
[[device]]
name = "b"
data = "/dev/alias-of-two"
spare = "/dev/three"
"#;

    fn place(minors: &[u32]) -> Place {
        let on: Vec<DevNo> = minors.iter().map(|&minor| DevNo { major: 8, minor }).collect();
        Place { at: on[0], on: on.into_iter().collect() }
    }

    fn lookup(path: &Path) -> io::Result<Place> {
        match path.to_str() {
            Some("/dev/one") => Ok(place(&[1])),
            Some("/dev/two" | "/dev/alias-of-two") => Ok(place(&[2])),
            Some("/dev/part-of-two") => Ok(place(&[3, 2])),
            Some("/dev/other-part-of-two") => Ok(place(&[4, 2])),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    #[test]
    fn a_part_and_its_whole_overlap_and_two_parts_do_not() {
        let refused = |text: &str| {
            let config = Config::parse(Path::new("c.toml"), text).expect("parses");
            resolve(&config, lookup)[0].1.as_ref().err().map(ToString::to_string)
        };
        let parts = TWO.replace("/dev/one", "/dev/other-part-of-two");
        let error = refused(&parts).expect("a part of the spare");
        assert!(error.starts_with("c.toml:5:9: /dev/two and the data of \"a\""), "{error}");
        let error =
            refused(&TWO.replace("/dev/two", "/dev/part-of-two").replace("/dev/one", "/dev/two"));
        assert!(error.expect("the other way round").contains("the one lies on the other"));
        assert_eq!(refused(&parts.replace("/dev/two", "/dev/part-of-two")), None);
    }

    #[test]
    fn what_a_device_lies_on_is_read_from_sysfs() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |name: &str| root.path().join(name);
        let devices = [("sda", "8:0"), ("sda/sda1", "8:1"), ("dm-0", "253:0"), ("dm-1", "253:1")];
        for (name, number) in devices {
            fs::create_dir_all(at(name).join("slaves")).expect("made");
            fs::write(at(name).join("dev"), format!("{number}\n")).expect("written");
            fs::create_dir_all(at("dev/block")).expect("made");
            std::os::unix::fs::symlink(at(name), at("dev/block").join(number)).expect("linked");
        }
        fs::write(at("sda/sda1/partition"), "1\n").expect("written");
        for (upper, lower) in [("dm-1", "dm-0"), ("dm-0", "sda/sda1")] {
            let link = at(upper).join("slaves/lower");
            std::os::unix::fs::symlink(at(lower), link).expect("linked");
        }
        let mut on = BTreeSet::new();
        below(root.path(), DevNo { major: 253, minor: 1 }, &mut on);
        let numbers: Vec<String> = on.iter().map(ToString::to_string).collect();
        assert_eq!(numbers, ["8:0", "8:1", "253:0", "253:1"]);
    }

    #[test]
    fn one_disk_through_two_paths_is_refused_at_its_second_place() {
        let config = Config::parse(Path::new("c.toml"), TWO).expect("parses");
        let found = resolve(&config, lookup);
        let disks = found[0].1.as_ref().expect("the first device is whole");
        assert_eq!((disks.data.minor, disks.spare.minor), (1, 2));
        let error = found[1].1.as_ref().expect_err("two paths, one disk").to_string();
        assert!(error.starts_with("c.toml:8:8: "), "{error}");
        assert!(error.contains("already the spare of \"a\""), "{error}");
    }

    #[test]
    fn a_path_that_leads_nowhere_or_to_no_block_device_names_its_line() {
        let text = TWO.replace("/dev/one", "/nowhere/at-all");
        let config = Config::parse(Path::new("c.toml"), &text).expect("parses");
        let error = resolve(&config, Place::of)[0].1.clone().expect_err("absent").to_string();
        assert!(error.starts_with("c.toml:4:8: data /nowhere/at-all: No such file"), "{error}");
        let error = block_device(Path::new("/dev/null")).expect_err("a character device");
        assert_eq!(error.to_string(), "it is not a block device");
    }

    #[test]
    fn device_numbers_are_as_on_the_wire() {
        let device = DevNo { major: 253, minor: 7 };
        assert_eq!(device.wire(), 253 << 32 | 7);
        assert_eq!(DevNo::from_wire(device.wire()), device);
        assert_eq!(DevNo::from_rdev(rustix::fs::makedev(253, 300)).minor, 300);
    }
}
