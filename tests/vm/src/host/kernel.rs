//! The stock kernels installed on this machine.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

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
    fn only_plain_kernels_of_the_series_fit() {
        assert!(fits("6.1.0-56-amd64", "6.1"));
        assert!(!fits("6.12.117+deb12-amd64", "6.1"));
        assert!(fits("6.12.117+deb12-amd64", "6.12"));
        assert!(!fits("6.12.117+deb12-cloud-amd64", "6.12"));
        assert!(!fits("6.12.117+deb12-rt-amd64", "6.12"));
        assert!(numbers("6.12.117+deb12-amd64") > numbers("6.12.9+deb12-amd64"));
    }
}
