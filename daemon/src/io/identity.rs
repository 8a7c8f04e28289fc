//! Which disk is this: the stable facts that the kernel knows, read from sysfs, udev or not.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::resolve::DevNo;
use crate::metadata::{Fact, Identity};
use crate::units::Sectors;

pub const SYSFS: &str = "/sys";

/// What can be known of the block device. A partition has its own UUID and the facts of its disk;
/// a partition without a UUID has none of them, because another one of the disk would share them.
pub fn identify(sysfs: &Path, device: DevNo, size: Sectors) -> Identity {
    let identity = Identity::new(size);
    let Ok(at) = fs::canonicalize(sysfs.join("dev/block").join(device.to_string())) else {
        return identity;
    };
    if !at.join("partition").exists() {
        return facts_of_disk(&at, identity);
    }
    match (partition_uuid(&at), at.parent()) {
        (Some(uuid), Some(disk)) => facts_of_disk(disk, identity.with(Fact::PartitionUuid, &uuid)),
        _ => identity,
    }
}

fn facts_of_disk(at: &Path, mut identity: Identity) -> Identity {
    // In the block device's own directory (NVMe, virtio, device-mapper), or its SCSI device's.
    let places: [(Fact, &[&str]); 6] = [
        (Fact::Wwn, &["wwid", "device/wwid"]),
        (Fact::Serial, &["serial", "device/serial"]),
        (Fact::NvmeUuid, &["uuid"]),
        (Fact::NvmeNguid, &["nguid"]),
        (Fact::NvmeEui64, &["eui"]),
        (Fact::DmUuid, &["dm/uuid"]),
    ];
    for (fact, files) in places {
        let found = files.iter().find_map(|file| fs::read_to_string(at.join(file)).ok());
        if let Some(value) = found.filter(|value| says_something(value)) {
            identity = identity.with(fact, &value);
        }
    }
    match unit_serial_number(at.join("device/vpd_pg80")) {
        Some(serial) => identity.with(Fact::Serial, &serial),
        None => identity,
    }
}

/// Identifiers of zeros only are what a device has that was given none.
fn says_something(value: &str) -> bool {
    let id = value.trim().rsplit('.').next().unwrap_or("");
    id.chars().any(|c| !matches!(c, '0' | '-' | ' '))
}

/// SCSI's page 0x80: a header of four bytes, and the serial number.
fn unit_serial_number(page: PathBuf) -> Option<String> {
    let page = fs::read(page).ok()?;
    let serial = std::str::from_utf8(page.get(4..)?).ok()?;
    says_something(serial).then(|| serial.to_owned())
}

fn partition_uuid(at: &Path) -> Option<String> {
    let event = fs::read_to_string(at.join("uevent")).ok()?;
    event.lines().find_map(|line| line.strip_prefix("PARTUUID=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs with a device 8:1 at `at`, and these files.
    fn sysfs(at: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            fs::write(path, content).expect("written");
        }
        let link = root.path().join("dev/block");
        fs::create_dir_all(&link).expect("made");
        std::os::unix::fs::symlink(root.path().join(at), link.join("8:1")).expect("linked");
        root
    }

    fn facts(at: &str, files: &[(&str, &[u8])]) -> Vec<(Fact, String)> {
        let root = sysfs(at, files);
        let found = identify(root.path(), DevNo { major: 8, minor: 1 }, Sectors(9));
        assert_eq!(found.size, Sectors(9));
        found.facts().map(|(fact, value)| (fact, value.to_owned())).collect()
    }

    #[test]
    fn a_scsi_disk_has_a_name_and_a_serial_number() {
        let found = facts(
            "block/sda",
            &[
                ("block/sda/device/wwid", b"naa.5000c500a1b2c3d4\n"),
                ("block/sda/device/vpd_pg80", b"\0\x80\0\x08  ZA12XY"),
            ],
        );
        let name = (Fact::Wwn, "naa.5000c500a1b2c3d4".to_owned());
        assert_eq!(found, [name, (Fact::Serial, "ZA12XY".to_owned())]);
    }

    #[test]
    fn an_nvme_namespace_has_its_ids_and_zeros_are_none() {
        let found = facts(
            "block/nvme0n1",
            &[
                ("block/nvme0n1/wwid", b"eui.0000000000000000\n"),
                ("block/nvme0n1/eui", b"00 00 00 00 00 00 00 00\n"),
                ("block/nvme0n1/uuid", b"6d9e1c7a-0000-4000-8000-000000000001\n"),
                ("block/nvme0n1/device/serial", b"S4EVNX0\n"),
            ],
        );
        let uuid = (Fact::NvmeUuid, "6d9e1c7a-0000-4000-8000-000000000001".to_owned());
        assert_eq!(found, [(Fact::Serial, "S4EVNX0".to_owned()), uuid]);
    }

    #[test]
    fn a_partition_is_told_from_its_neighbour_or_has_no_facts() {
        let disk: (&str, &[u8]) = ("block/sda/device/wwid", b"naa.5\n");
        let number: (&str, &[u8]) = ("block/sda/sda1/partition", b"1\n");
        let uuid: (&str, &[u8]) = ("block/sda/sda1/uevent", b"MAJOR=8\nPARTUUID=ab-01\n");
        let found = facts("block/sda/sda1", &[disk, number, uuid]);
        let own = (Fact::PartitionUuid, "ab-01".to_owned());
        assert_eq!(found, [(Fact::Wwn, "naa.5".to_owned()), own]);
        assert_eq!(facts("block/sda/sda1", &[disk, number]), []);
    }

    #[test]
    fn a_device_that_sysfs_does_not_know_has_its_size_only() {
        let found = identify(Path::new("/nowhere"), DevNo { major: 1, minor: 2 }, Sectors(3));
        assert!(found.is_weak());
    }
}
