//! The kernels that guests boot: stock ones installed on this machine, and the debug kernel that was built here.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::target_dir;
use crate::case::Kind;
use crate::proto::{CHECKED, SLOWNESS};

/// How many times longer everything may take on the debug kernel: it was seen to need five times the time of a stock
/// one. The only such number: every limit of host and guest is multiplied by [`Kernel::slowness`].
const DEBUG_SLOWNESS: u32 = 6;

/// A kernel to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What `uname -r` says in the guest.
    pub release: String,
    pub kind: Kind,
    /// `lib/modules` is in it.
    root: PathBuf,
}

impl Kernel {
    /// `debug`, or the newest stock kernel of a series such as `6.12`.
    pub fn find(name: &str) -> Result<Kernel> {
        if name == "debug" { Kernel::debug() } else { Kernel::newest(name) }
    }

    /// What `make debug-kernel` has linked.
    fn debug() -> Result<Kernel> {
        let root = target_dir()?.join("debug-kernel");
        let release = fs::read_to_string(root.join("build/include/config/kernel.release"))
            .context("no debug kernel: run `make debug-kernel`")?;
        Ok(Kernel { release: release.trim().into(), kind: Kind::Debug, root })
    }

    /// The newest Debian kernel for ordinary machines of a series.
    fn newest(series: &str) -> Result<Kernel> {
        let names = fs::read_dir("/boot")?.flatten();
        let releases = names.filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(String::from)
        });
        releases
            .filter(|release| fits(release, series))
            .max_by_key(|release| numbers(release))
            .map(|release| Kernel { release, kind: Kind::Stock, root: "/".into() })
            .with_context(|| format!("no stock {series} kernel in /boot: run `make deps`"))
    }

    /// What every limit is multiplied by.
    #[must_use]
    pub fn slowness(&self) -> u32 {
        match self.kind {
            Kind::Stock => 1,
            Kind::Debug => DEBUG_SLOWNESS,
        }
    }

    /// Its own words on the kernel's command line, for the guest and for what the kernel itself watches.
    #[must_use]
    pub fn words(&self) -> String {
        let slowness = self.slowness();
        match self.kind {
            Kind::Stock => String::new(),
            // A report of KASAN must not silence the next. The kernel's own limits are 21 and 30 seconds.
            Kind::Debug => format!(
                "{SLOWNESS}{slowness} {CHECKED} kasan_multi_shot rcupdate.rcu_cpu_stall_timeout={} \
                workqueue.watchdog_thresh={}",
                21 * slowness,
                30 * slowness
            ),
        }
    }

    /// The emulated machine. On QEMU's usual one a debug kernel spends a minute of each boot in a loop of ACPI's about
    /// interrupts; the other has none there.
    #[must_use]
    pub fn machine(&self) -> &'static str {
        match self.kind {
            Kind::Stock => "pc",
            Kind::Debug => "q35",
        }
    }

    /// Where `lib/modules` is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image to boot: packed if stock.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        match self.kind {
            Kind::Stock => format!("/boot/vmlinuz-{}", self.release).into(),
            Kind::Debug => self.root.join("build/vmlinux"),
        }
    }

    /// What is packed in the image, written to `to`: the kernel proper, which has an entry of its own for virtual
    /// machines. It unpacks itself otherwise, and takes half of a boot for that.
    pub fn unpack(&self, to: &Path) -> Result<()> {
        let image = fs::read(self.image())?;
        let packed = payload(&image).context("the image of the kernel")?;
        let unpacker = match packed {
            [0xfd, b'7', b'z', ..] => "xz",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
            _ => anyhow::bail!("the kernel is packed in a way nobody knows: {:x?}", &packed[..4]),
        };
        let mut child = Command::new(unpacker)
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(fs::File::create(to).with_context(|| to.display().to_string())?)
            .spawn()
            .with_context(|| format!("starting {unpacker}: run `make deps`"))?;
        child.stdin.take().context("no standard input")?.write_all(packed)?;
        let status = child.wait()?;
        ensure!(status.success(), "unpacking the kernel: {status}");
        Ok(())
    }
}

/// The packed kernel in a boot image, by Documentation/arch/x86/boot.rst. Its last four bytes are the size of what is
/// in it.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup = (usize::from(image[0x1f1]) + 1) * 512;
    let start = setup + usize::try_from(number(0x248)?).ok()?;
    let len = usize::try_from(number(0x24c)?).ok()?;
    image.get(start..start + len.checked_sub(4)?)
}

fn fits(release: &str, series: &str) -> bool {
    let flavoured = ["cloud", "rt"].iter().any(|flavour| release.contains(&format!("-{flavour}-")));
    release.starts_with(&format!("{series}.")) && release.ends_with("-amd64") && !flavoured
}

fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248] = 16;
        image[0x24c] = 10;
        image[1040..1050].copy_from_slice(b"packed\x40\0\0\0");
        assert_eq!(payload(&image), Some(&b"packed"[..]));
        assert_eq!(payload(&image[..1045]), None);
        assert_eq!(payload(b"MZ"), None);
    }

    #[test]
    fn only_plain_kernels_of_the_series_fit() {
        assert!(fits("6.1.0-56-amd64", "6.1"));
        assert!(!fits("6.12.117+deb12-amd64", "6.1"));
        assert!(fits("6.12.117+deb12-amd64", "6.12"));
        assert!(!fits("6.12.117+deb12-cloud-amd64", "6.12"));
        assert!(!fits("6.12.117+deb12-rt-amd64", "6.12"));
        assert!(numbers("6.12.117+deb12-amd64") > numbers("6.12.9+deb12-amd64"));
    }
}
