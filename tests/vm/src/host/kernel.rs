//! The stock kernels installed on this machine.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A kernel package that is installed here.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What `uname -r` says in the guest.
    pub release: String,
}

impl Kernel {
    /// The newest Debian kernel for ordinary machines of a series such as `6.12`.
    pub fn newest(series: &str) -> Result<Kernel> {
        let names = fs::read_dir("/boot")?.flatten();
        let releases = names.filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(String::from)
        });
        releases
            .filter(|release| fits(release, series))
            .max_by_key(|release| numbers(release))
            .map(|release| Kernel { release })
            .with_context(|| format!("no stock {series} kernel in /boot: run `make deps`"))
    }

    #[must_use]
    pub fn image(&self) -> PathBuf {
        format!("/boot/vmlinuz-{}", self.release).into()
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
