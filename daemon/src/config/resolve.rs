//! From the paths of a configuration to the block devices they lead to.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Config, Device, Diagnostic};

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

/// Finds the disks of every device, in the order of the file. Each device has its own result, so
/// that a disk that is absent keeps only its own device from service; a disk that is named twice
/// through different paths is an error at its second place.
///
/// `lookup` is [`block_device`] but for tests.
pub fn resolve<'a>(
    config: &'a Config,
    lookup: impl Fn(&Path) -> io::Result<DevNo>,
) -> Vec<(&'a Device, Result<Disks, Diagnostic>)> {
    let mut seen: HashMap<DevNo, (&str, &str)> = HashMap::new();
    let mut find = |device: &'a Device, role, path: &serde_spanned::Spanned<PathBuf>| {
        let at = lookup(path.get_ref()).map_err(|error| {
            let reason = format!("{role} {}: {error}", path.get_ref().display());
            let remedy = "attach the disk or correct the path; `lsblk` lists what is there";
            config.source.diagnose(path.span(), reason, remedy)
        })?;
        match seen.insert(at, (role, device.name.get_ref())) {
            Some((role, name)) => Err(config.in_use(path, role, name)),
            None => Ok(at),
        }
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

    fn lookup(path: &Path) -> io::Result<DevNo> {
        let minor = match path.to_str() {
            Some("/dev/one") => 1,
            Some("/dev/two" | "/dev/alias-of-two") => 2,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(DevNo { major: 8, minor })
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
        let error = resolve(&config, block_device)[0].1.clone().expect_err("absent").to_string();
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
