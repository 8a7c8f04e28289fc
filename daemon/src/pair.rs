//! A data disk and its spare: formatted, and opened to be served.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::Handle;

use crate::config::resolve::Disks;
use crate::core::{Area, Durable};
use crate::driver::Target;
use crate::driver::flushes::Flushes;
use crate::io::identity::{SYSFS, identify};
use crate::io::{Access, BlockDevice, signature};
use crate::link::Link;
use crate::metadata::{self, Expect, Format, Identity, Shared, Store, Superblock, Uuid};
use crate::units::{SECTOR_SIZE, Sectors};

const MACHINE_ID: &str = "/etc/machine-id";

/// Everything that serving needs of the two disks.
pub struct Pair {
    pub store: Store<Shared<BlockDevice, Flushes>>,
    /// Of all that was recovered.
    pub proof: Durable,
    /// For each of the readers: descriptors of its own, of data disk and spare.
    pub readers: [(BlockDevice, BlockDevice); 2],
    pub target: Target,
    pub area: Area,
    pub label: Uuid,
}

impl Pair {
    /// Takes the spare from any other writer, then recovers what is on it. `link` is for questions about flushes.
    pub fn open(data: &Path, spare: &Path, link: Link, runtime: Handle) -> Result<Pair> {
        let mut writer = open_disk(spare, Access::Write)?;
        writer.lock().with_context(|| {
            format!(
                "{} is used by another dmremap-policyd; stop that first, or whatever else locks it (`lslocks`)",
                spare.display()
            )
        })?;
        let reader =
            || anyhow::Ok((open_disk(data, Access::Read)?, open_disk(spare, Access::Read)?));
        let readers = [reader()?, reader()?];
        let data = &readers[0].0;
        let (Some(data_at), Some(spare_at)) = (data.number(), writer.number()) else {
            bail!("an image file cannot be served; attach it with losetup");
        };
        not_overwritten(&mut writer, spare)?;
        let mut flushes = Flushes::new(link, runtime, spare_at);
        let user = flushes.user().context("the kernel cannot be asked")?;
        let expect = Expect {
            data: Some(identity(data)),
            block: Some(block(data, &writer)),
            machine: machine_id(),
            in_use: user.map(|instance| instance.commit),
            ..Expect::spare(identity(&writer))
        };
        let shared = Shared::new(writer, flushes).context("the kernel cannot be asked")?;
        let (store, proof) =
            Store::open(shared, &expect).with_context(|| spare.display().to_string())?;
        let geometry = store.geometry();
        let area = Area { start: geometry.slots, len: geometry.slot_sectors, unit: geometry.unit };
        let Superblock { label, mapped: sectors, block, .. } = *store.superblock();
        let target = Target { disks: Disks { data: data_at, spare: spare_at }, sectors, block };
        let (proof, label) = (proof.into(), label.uuid);
        Ok(Pair { store, proof, readers, target, area, label })
    }
}

/// The label on a disk, good for service or not; reads only.
pub fn label(spare: &Path) -> Option<Uuid> {
    let mut disk = BlockDevice::open(spare, Access::Read).ok()?;
    metadata::identify(&mut disk).ok().map(|found| found.label.uuid)
}

/// A file system made over a spare leaves most label copies whole, and slots that hold its own bytes.
pub fn not_overwritten(disk: &mut BlockDevice, path: &Path) -> Result<()> {
    match signature::over_label(disk) {
        None => Ok(()),
        Some(found) => bail!(
            "{} holds {found} where a spare has its first label copy, so what was in its slots may be \
             overwritten; use another spare, or wipe the first 4096 bytes if the label is to be kept",
            path.display()
        ),
    }
}

/// Nobody else's, that is. `what` is done if it is forced.
pub fn holds_nothing(disk: &mut BlockDevice, path: &Path, what: &str) -> Result<()> {
    match signature::recognise(disk) {
        None => Ok(()),
        Some(found) => bail!(
            "{} seems to hold {found}; if nothing needs it, {what} with --force",
            path.display()
        ),
    }
}

/// What `format` asks for.
#[derive(Debug)]
pub struct Request {
    pub data: PathBuf,
    pub spare: PathBuf,
    pub force: bool,
    pub weak_identity: bool,
}

/// Makes `spare` the spare of `data`. Refuses one that holds something, unless forced.
pub fn format(request: &Request) -> Result<Superblock> {
    let Request { data, spare, force, weak_identity } = request;
    let same_path = std::fs::canonicalize(data).ok() == std::fs::canonicalize(spare).ok();
    let data = open_disk(data, Access::Read)?;
    let mut disk = open_exclusive(spare)?;
    let same_number = data.number().is_some() && data.number() == disk.number();
    ensure!(!same_path && !same_number, "data and spare are the same disk; give two");
    if !force {
        holds_nothing(&mut disk, spare, "format")?;
    }
    let block = block(&data, &disk);
    let request = Format {
        label: Uuid(random()?),
        nonce: u64::from_ne_bytes(random()?),
        data: identity(&data),
        spare: identity(&disk),
        mapped: Sectors(data.size().0 / block.0 * block.0),
        block,
        machine: machine_id(),
        weak_identity: *weak_identity,
        force: *force,
    };
    metadata::format(&mut disk, &request).with_context(|| spare.display().to_string())
}

pub fn open_disk(path: &Path, access: Access) -> Result<BlockDevice> {
    BlockDevice::open(path, access).with_context(|| format!("cannot open {}", path.display()))
}

/// For tools that write while nothing else may.
pub fn open_exclusive(path: &Path) -> Result<BlockDevice> {
    let disk = BlockDevice::open(path, Access::WriteExclusive);
    let disk = match disk {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            bail!("{} is in use; unmount it or remove the mapped device first", path.display())
        }
        disk => disk.with_context(|| format!("cannot open {}", path.display()))?,
    };
    disk.lock().with_context(|| {
        format!(
            "{} is used by dmremap-policyd; stop that first, or whatever else locks it (`lslocks`)",
            path.display()
        )
    })?;
    Ok(disk)
}

/// An image file is known by its size only.
pub fn identity(disk: &BlockDevice) -> Identity {
    match disk.number() {
        Some(number) => identify(Path::new(SYSFS), number, disk.size()),
        None => Identity::new(disk.size()),
    }
}

/// As the kernel's target computes it.
fn block(data: &BlockDevice, spare: &BlockDevice) -> Sectors {
    Sectors(u64::from(data.logical_block().max(spare.logical_block())) / SECTOR_SIZE)
}

/// A machine without one (an initramfs, say) is not told from others.
pub fn machine_id() -> Option<Uuid> {
    std::fs::read_to_string(MACHINE_ID).ok()?.trim().parse().ok()
}

pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(len: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(len).expect("its length");
        file
    }

    #[test]
    fn format_refuses_what_it_recognises_and_what_only_its_size_tells() {
        let (data, spare) = (image(1 << 30), image(16 << 20));
        let request = |force, weak_identity| Request {
            data: data.path().to_owned(),
            spare: spare.path().to_owned(),
            force,
            weak_identity,
        };
        let refused = |request: &Request| format!("{:#}", format(request).expect_err("refused"));
        assert!(refused(&request(false, false)).contains("--weak-identity"));

        let mut disk = open_exclusive(spare.path()).expect("opens");
        let mut magic = [0; 512];
        magic[..4].copy_from_slice(b"XFSB");
        disk.write_at(0, &magic).expect("written");
        drop(disk);
        let text = refused(&request(false, true));
        assert!(text.contains("an XFS file system") && text.contains("--force"), "{text}");

        let made = format(&request(true, true)).expect("forced");
        assert_eq!((made.mapped, made.block), (Sectors(1 << 21), Sectors(1)));
        let text = refused(&request(false, true));
        assert!(text.contains(&made.label.uuid.to_string()), "{text}");
    }

    #[test]
    fn a_spare_in_use_is_not_formatted() {
        let (data, spare) = (image(1 << 30), image(16 << 20));
        let user = open_disk(spare.path(), Access::Write).expect("opens");
        user.lock().expect("locked");
        let request = Request {
            data: data.path().to_owned(),
            spare: spare.path().to_owned(),
            force: true,
            weak_identity: true,
        };
        let error = format!("{:#}", format(&request).expect_err("in use"));
        assert!(error.contains("stop that first"), "{error}");
    }
}
