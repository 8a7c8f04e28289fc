//! The guest's root: an initramfs with the guest program, a few tools, modules, and what `make install` staged.
//!
//! It is built once for each content: the list of everything in it, with sizes and times, is its key.
//! fio needs 60 MB of libraries that nothing else uses, and unpacking them takes seconds of each boot; so they are an
//! archive of their own, with the other tools and modules that few cases want, on a disk that the guest unpacks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::kernel::Kernel;
use super::target_dir;
use crate::case::Kind;

/// Programs beside busybox, found in the usual directories.
const TOOLS: &[&str] =
    &["modprobe", "depmod", "dmsetup", "blkdiscard", "blockdev", "losetup", "mkfs.ext4", "e2fsck"];
/// Programs in the second archive.
const EXTRA: &[&str] =
    &["fio", "fsx", "mkfs.xfs", "xfs_repair", "mkfs.btrfs", "btrfs", "mdadm", "lvm"];
/// Modules a case may load; what they need comes along.
const MODULES: &[&str] = &[
    "dm-mod",
    "dm-flakey",
    "dm-delay",
    "dm-log-writes",
    "dm-integrity",
    "dm-crypt",
    "null_blk",
    "brd",
    "loop",
    "scsi_debug",
    "sd_mod",
    "raid1",
    "ext4",
    "virtio_blk",
    "virtio_pci",
    "nbd",
    "configfs",
    "crc32c",
];
/// Modules in the second archive.
const EXTRA_MODULES: &[&str] = &["xfs", "btrfs"];
/// Those that only the debug kernel has.
const DEBUG_MODULES: &[&str] = &["kunit"];
const BINARY_DIRS: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

enum Entry {
    File(PathBuf),
    /// A kernel module packed with xz.
    Packed(PathBuf),
    Link(PathBuf),
}

/// What a guest is booted from: the kernel, and the two archives.
pub struct Image {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub extra: Option<PathBuf>,
}

/// What goes where. Keys are paths in the guest without the leading slash, with `/usr` merged.
struct Plan(BTreeMap<PathBuf, Entry>);

/// The image for a kernel, built if need be; without the second archive if all is `bare`.
pub fn build(kernel: &Kernel, bare: bool) -> Result<Image> {
    let target = target_dir()?;
    let stage = target.join("stage").join(&kernel.release);
    let mut plan = Plan(BTreeMap::new());
    plan.programs(TOOLS)?;
    plan.applets()?;
    plan.guest()?;
    plan.modules(kernel, MODULES)?;
    if kernel.kind == Kind::Debug {
        plan.modules(kernel, DEBUG_MODULES)?;
    }
    if stage.exists() {
        plan.tree(&stage, Path::new(""))?;
    }
    plan.libraries()?;
    let initramfs = plan.archive(&target, &kernel.release, |root| depmod(kernel, root))?;
    let kernel_proper = unpacked(kernel, &target)?;
    if bare {
        return Ok(Image { kernel: kernel_proper, initramfs, extra: None });
    }

    let mut extra = Plan(BTreeMap::new());
    extra.programs(EXTRA)?;
    extra.modules(kernel, EXTRA_MODULES)?;
    extra.libraries()?;
    extra.0.retain(|at, _| !plan.0.contains_key(at));
    let extra = extra.archive(&target, &format!("extra-{}", kernel.release), |_| Ok(Vec::new()))?;
    Ok(Image { kernel: kernel_proper, initramfs, extra: Some(extra) })
}

/// The kernel proper, unpacked once; its time is that of the image it came from.
fn unpacked(kernel: &Kernel, target: &Path) -> Result<PathBuf> {
    if kernel.kind == Kind::Debug {
        return Ok(kernel.image());
    }
    let path = target.join("vm-images").join(format!("vmlinux-{}", kernel.release));
    let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    let packed = time(&kernel.image())?;
    if !time(&path).is_ok_and(|there| there == packed) {
        kernel.unpack(&path)?;
        // Last, so that what was interrupted is done again.
        fs::File::options().write(true).open(&path)?.set_modified(packed)?;
    }
    Ok(path)
}

/// Runs a command of the host that must succeed; its output.
fn tool(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn program(name: &str) -> Result<PathBuf> {
    let built = target_dir()?.join("tools/bin");
    let dirs = BINARY_DIRS.iter().map(PathBuf::from).chain([built]);
    dirs.map(|dir| dir.join(name))
        .find(|path| path.exists())
        .with_context(|| format!("{name} is not there: run `make deps stage target/tools/bin/fsx`"))
}

/// `/bin/x` is `/usr/bin/x`, here as on any present Debian.
fn merged(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    let top = path.components().next().map(|top| top.as_os_str().to_string_lossy().into_owned());
    match top.as_deref() {
        Some("bin" | "sbin" | "lib" | "lib64") => Path::new("usr").join(path),
        _ => path.to_path_buf(),
    }
}

impl Plan {
    fn add(&mut self, at: impl AsRef<Path>, entry: Entry) {
        self.0.insert(merged(at.as_ref()), entry);
    }

    fn programs(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            let path = program(name)?;
            let at = if path.starts_with(target_dir()?) {
                &Path::new("usr/bin").join(name)
            } else {
                &path
            };
            self.add(at, Entry::File(fs::canonicalize(&path)?));
        }
        Ok(())
    }

    /// busybox, under every name that is not taken.
    fn applets(&mut self) -> Result<()> {
        for dir in ["bin", "sbin", "lib", "lib64"] {
            self.0.insert(dir.into(), Entry::Link(Path::new("usr").join(dir)));
        }
        let busybox = program("busybox")?;
        for applet in tool(Command::new(&busybox).arg("--list"))?.lines() {
            let taken = ["usr/bin", "usr/sbin"].iter().any(|dir| self.has(dir, applet));
            if !taken {
                self.add(Path::new("usr/bin").join(applet), Entry::Link("busybox".into()));
            }
        }
        self.add("usr/bin/busybox", Entry::File(busybox));
        Ok(())
    }

    fn has(&self, dir: &str, name: &str) -> bool {
        self.0.contains_key(&Path::new(dir).join(name))
    }

    fn guest(&mut self) -> Result<()> {
        let guest = std::env::current_exe()?.with_file_name("guest");
        self.add("init", Entry::Link("usr/bin/guest".into()));
        self.add("usr/bin/guest", Entry::File(guest));
        Ok(())
    }

    fn modules(&mut self, kernel: &Kernel, names: &[&str]) -> Result<()> {
        let release = &kernel.release;
        let shown = tool(
            Command::new(program("modprobe")?)
                .arg("--dirname")
                .arg(kernel.root())
                .args(["--set-version", release, "--show-depends", "--all"])
                .args(names),
        )?;
        for line in shown.lines() {
            let Some(path) = line.strip_prefix("insmod ") else { continue };
            let path = Path::new(path.split_whitespace().next().unwrap_or(path));
            let at = path.strip_prefix(kernel.root())?;
            match path.extension() {
                Some(xz) if xz == "xz" => {
                    self.add(at.with_extension(""), Entry::Packed(path.into()))
                }
                _ => self.add(at, Entry::File(path.into())),
            }
        }
        for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            let at = Path::new("lib/modules").join(release).join(name);
            self.add(&at, Entry::File(kernel.root().join(&at)));
        }
        Ok(())
    }

    /// Everything below `from`.
    fn tree(&mut self, from: &Path, at: &Path) -> Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let at = at.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.tree(&entry.path(), &at)?;
            } else if kind.is_symlink() {
                self.add(at, Entry::Link(fs::read_link(entry.path())?));
            } else {
                self.add(at, Entry::File(entry.path()));
            }
        }
        Ok(())
    }

    /// The shared libraries of every program, where the programs look for them.
    fn libraries(&mut self) -> Result<()> {
        let programs: Vec<PathBuf> = self
            .0
            .iter()
            .filter(|(at, _)| {
                at.starts_with("usr/bin")
                    || at.starts_with("usr/sbin")
                    || at.starts_with("usr/local")
            })
            .filter_map(|(_, entry)| match entry {
                Entry::File(path) => Some(path.clone()),
                _ => None,
            })
            .collect();
        let mut found = BTreeSet::new();
        for path in programs {
            // A static program has none, which is no error here.
            let output = Command::new("ldd").arg(&path).output().context("starting ldd")?;
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                ensure!(!line.contains("not found"), "{}: {}", path.display(), line.trim());
                found.extend(
                    line.split_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from),
                );
            }
        }
        for library in found {
            self.add(&library, Entry::File(fs::canonicalize(&library)?));
        }
        Ok(())
    }

    fn key(&self) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        for (at, entry) in &self.0 {
            at.hash(&mut hasher);
            match entry {
                Entry::Link(to) => to.hash(&mut hasher),
                Entry::File(path) | Entry::Packed(path) => {
                    let meta = fs::metadata(path).with_context(|| path.display().to_string())?;
                    (path, meta.len(), meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
                }
            }
        }
        Ok(hasher.finish())
    }

    /// The archive of this plan, named for its content; older ones of the same name go. `finish` may add files to
    /// the tree, and names them.
    fn archive(
        &self,
        target: &Path,
        name: &str,
        finish: impl FnOnce(&Path) -> Result<Vec<PathBuf>>,
    ) -> Result<PathBuf> {
        let dir = target.join("vm-images");
        fs::create_dir_all(&dir)?;
        let prefix = format!("{name}-");
        let archive = dir.join(format!("{prefix}{:016x}.cpio", self.key()?));
        if archive.exists() {
            return Ok(archive);
        }
        for old in fs::read_dir(&dir)?.flatten() {
            let path = old.path();
            if old.file_name().to_string_lossy().starts_with(&prefix) && path.is_file() {
                fs::remove_file(path)?;
            }
        }
        let root = archive.with_extension("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let mut names = self.lay_out(&root)?;
        names.extend(finish(&root)?);
        // Complete or not there at all, even if this is interrupted.
        let part = archive.with_extension("part");
        pack(&root, &names, &part)?;
        fs::rename(&part, &archive)?;
        fs::remove_dir_all(&root)?;
        Ok(archive)
    }

    /// Makes the tree; every name in it.
    fn lay_out(&self, root: &Path) -> Result<BTreeSet<PathBuf>> {
        let mut names = BTreeSet::new();
        for (at, entry) in &self.0 {
            let to = root.join(at);
            names.extend(at.ancestors().filter(|a| *a != Path::new("")).map(Path::to_path_buf));
            let parent = to.parent().with_context(|| to.display().to_string())?;
            fs::create_dir_all(parent)?;
            let what = || to.display().to_string();
            match entry {
                Entry::Link(target) => symlink(target, &to).with_context(what)?,
                Entry::File(path) => drop(fs::copy(path, &to).with_context(what)?),
                Entry::Packed(path) => unpack(path, &to)?,
            }
        }
        for program in ["usr/bin/guest", "usr/sbin/dmremap-policyd"] {
            let program = root.join(program);
            if program.exists() {
                // Line tables are most of our programs.
                tool(Command::new("strip").arg(&program))?;
            }
        }
        Ok(names)
    }
}

fn unpack(from: &Path, to: &Path) -> Result<()> {
    let to = fs::File::create(to).with_context(|| to.display().to_string())?;
    let status = Command::new("xz").arg("-dc").arg(from).stdout(to).status()?;
    ensure!(status.success(), "unpacking {}: {status}", from.display());
    Ok(())
}

/// The files it makes.
fn depmod(kernel: &Kernel, root: &Path) -> Result<Vec<PathBuf>> {
    tool(Command::new(program("depmod")?).arg("-b").arg(root.join("usr")).arg(&kernel.release))?;
    let modules = Path::new("usr/lib/modules").join(&kernel.release);
    let entries = fs::read_dir(root.join(&modules))?;
    Ok(entries.flatten().map(|entry| modules.join(entry.file_name())).collect())
}

fn pack(root: &Path, names: &BTreeSet<PathBuf>, to: &Path) -> Result<()> {
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--null", "--owner=+0:+0", "--quiet"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(to)?)
        .spawn()
        .context("starting cpio: run `make deps`")?;
    let mut list = cpio.stdin.take().context("cpio without a standard input")?;
    for name in names {
        list.write_all(name.as_os_str().as_encoded_bytes())?;
        list.write_all(b"\0")?;
    }
    drop(list);
    let status = cpio.wait()?;
    if !status.success() {
        bail!("cpio: {status}");
    }
    Ok(())
}
