//! What is on a disk already: the signatures of what people keep on disks, so that `format` does
//! not wipe one by mistake. Reads only; needs nothing that a bare initramfs lacks.

use std::io;

use super::BlockDevice;

const KIB: u64 = 1024;
/// Every signature that counts from the start ends below this.
const HEAD: u64 = 256 * KIB;
/// Every signature that counts from the end begins above this.
const TAIL: u64 = 128 * KIB;
const STEP: u64 = 4 * KIB;

struct Signature {
    name: &'static str,
    /// In bytes from the start.
    at: u64,
    magic: &'static [u8],
}

const fn at(at: u64, magic: &'static [u8], name: &'static str) -> Signature {
    Signature { name, at, magic }
}

const MD: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];

/// The more specific before the less: a boot sector is reported only when nothing else is there.
const SIGNATURES: &[Signature] = &[
    at(0x438, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
    at(0, b"XFSB", "an XFS file system"),
    at(0x10040, b"_BHRfS_M", "a btrfs file system"),
    at(0x400, &[0x10, 0x20, 0xf5, 0xf2], "an f2fs file system"),
    at(0x8000, b"JFS1", "a JFS file system"),
    at(0x10034, b"ReIsEr", "a reiserfs file system"),
    at(0x406, &[0x34, 0x34], "a nilfs2 file system"),
    at(3, b"NTFS    ", "an NTFS file system"),
    at(3, b"EXFAT   ", "an exFAT file system"),
    at(0x36, b"FAT1", "a FAT file system"),
    at(0x52, b"FAT32   ", "a FAT file system"),
    at(0x8001, b"CD001", "an ISO 9660 file system"),
    at(4086, b"SWAPSPACE2", "swap space"),
    at(4086, b"SWAP-SPACE", "swap space"),
    at(16374, b"SWAPSPACE2", "swap space"),
    at(65526, b"SWAPSPACE2", "swap space"),
    at(0, b"LABELONE", "an LVM physical volume"),
    at(512, b"LABELONE", "an LVM physical volume"),
    at(1024, b"LABELONE", "an LVM physical volume"),
    at(1536, b"LABELONE", "an LVM physical volume"),
    at(0, MD, "a member of an md RAID"),
    at(4096, MD, "a member of an md RAID"),
    at(0, b"LUKS\xba\xbe", "a LUKS container"),
    at(0, b"integrt\0", "a dm-integrity device"),
    at(0, b"verity\0\0", "a dm-verity hash tree"),
    at(0, b"dmvdo001", "a VDO volume"),
    at(516, b"!Stra0tis", "a Stratis pool"),
    at(4120, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], "a bcache device"),
    at(4120, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9], "a bcachefs file system"),
    at(0, b"bluestore block device", "a Ceph OSD"),
    at(512, b"EFI PART", "a GPT partition table"),
    at(4096, b"EFI PART", "a GPT partition table"),
    at(0x1fe, &[0x55, 0xaa], "a partition table or boot sector"),
];

/// What the disk seems to hold, if anything; the first that is found.
pub fn recognise(disk: &mut BlockDevice) -> Option<&'static str> {
    let size = disk.size().bytes();
    let mut unreadable = false;
    let found =
        recognise_with(size, |at, buf| disk.read_at(at, buf).inspect_err(|_| unreadable = true));
    found.or(unreadable.then_some("something that cannot be read"))
}

/// What was put over the first block of a spare: its other label copies may be whole, and what they
/// speak of is not.
pub fn over_label(disk: &mut BlockDevice) -> Option<&'static str> {
    let size = disk.size().bytes();
    recognise_with(size, |at, buf| match at {
        0 => disk.read_at(at, buf),
        _ => Ok(()),
    })
}

/// What cannot be read is taken for empty.
fn recognise_with(
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Option<&'static str> {
    let mut range = |from: u64, to: u64| {
        let mut bytes = vec![0; (to - from) as usize];
        let mut at = from;
        for block in bytes.chunks_mut(STEP as usize) {
            if read(at, block).is_err() {
                block.fill(0);
            }
            at += STEP;
        }
        bytes
    };
    let head = range(0, size.min(HEAD));
    // Blocks of the tail lie at multiples of STEP, so that a disk of large blocks can be read.
    let begin = size.saturating_sub(TAIL) / STEP * STEP;
    let tail = range(begin, size);
    let is = |bytes: &[u8], at: u64, magic: &[u8]| {
        usize::try_from(at)
            .ok()
            .and_then(|at| bytes.get(at..))
            .is_some_and(|b| b.starts_with(magic))
    };
    let at_end = |at: Option<u64>, magic| {
        at.and_then(|at| at.checked_sub(begin)).is_some_and(|at| is(&tail, at, magic))
    };
    // md 0.90 sits in the last whole 64 KiB but one, md 1.0 8 KiB from the end, at a multiple of 4.
    let md_090 = (size / (64 * KIB)).checked_sub(1).map(|n| n * 64 * KIB);
    let md_10 = size.checked_sub(8 * KIB).map(|at| at / STEP * STEP);
    if at_end(md_090, MD) || at_end(md_10, MD) {
        return Some("a member of an md RAID");
    }
    // A ring of uberblocks, of which any may be the only one.
    if (128 * KIB..HEAD).step_by(KIB as usize).any(|at| is(&head, at, &[0x0c, 0xb1, 0xba, 0])) {
        return Some("a member of a ZFS pool");
    }
    if let Some(found) = SIGNATURES.iter().find(|s| is(&head, s.at, s.magic)) {
        return Some(found.name);
    }
    let backup = [512, 4096].into_iter().any(|block| at_end(size.checked_sub(block), b"EFI PART"));
    backup.then_some("the backup of a GPT partition table")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn found(at: u64, magic: &[u8]) -> Option<&'static str> {
        let mut disk = vec![0; SIZE as usize];
        disk[at as usize..][..magic.len()].copy_from_slice(magic);
        recognise_with(SIZE, |at, buf| {
            buf.copy_from_slice(&disk[at as usize..][..buf.len()]);
            Ok(())
        })
    }

    #[test]
    fn each_signature_is_found_where_it_is_and_an_empty_disk_is_empty() {
        assert_eq!(found(0, &[]), None);
        for s in SIGNATURES {
            assert_eq!(found(s.at, s.magic), Some(s.name));
            assert_eq!(found(s.at + 1, s.magic), None, "{}, out of place", s.name);
        }
        assert_eq!(found(SIZE - 64 * KIB, MD), Some("a member of an md RAID"));
        assert_eq!(found(SIZE - 8 * KIB, MD), Some("a member of an md RAID"));
        let gpt = Some("the backup of a GPT partition table");
        assert_eq!(found(SIZE - 512, b"EFI PART"), gpt);
        assert_eq!(found(200 * KIB, &[0x0c, 0xb1, 0xba, 0]), Some("a member of a ZFS pool"));
    }

    #[test]
    fn an_unreadable_block_hides_only_itself() {
        let found = recognise_with(SIZE, |at, buf| match at {
            0 => Err(io::ErrorKind::Other.into()),
            0x10000 => {
                buf[0x40..][..8].copy_from_slice(b"_BHRfS_M");
                Ok(())
            }
            _ => Ok(()),
        });
        assert_eq!(found, Some("a btrfs file system"));
    }

    #[test]
    fn a_disk_smaller_than_every_table_is_no_reason_to_fail() {
        for size in [0, 512, 4096, 70_000] {
            assert_eq!(recognise_with(size, |_, _| Ok(())), None);
        }
    }

    #[test]
    fn a_real_file_system_is_recognised() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(8 << 20).expect("its length");
        let made = std::process::Command::new("mkfs.ext4").arg("-q").arg(file.path()).status();
        assert!(made.expect("mkfs.ext4 of e2fsprogs").success());
        let mut disk = BlockDevice::open(file.path(), super::super::Access::Read).expect("opens");
        assert_eq!(recognise(&mut disk), Some("an ext2, ext3 or ext4 file system"));
    }
}
