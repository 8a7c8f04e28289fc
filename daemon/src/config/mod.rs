//! The configuration file: what it may say, and what is wrong with one that says something else.
//!
//! Parsing is pure; what needs the machine (does that path lead to a block device?) is [`resolve`].

mod diagnostic;
pub mod resolve;
mod section;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_spanned::Spanned;

pub use crate::core::Policy;
pub use diagnostic::{Diagnostic, Source};

pub const DEFAULT_PATH: &str = "/etc/dmremap.toml";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    #[serde(deserialize_with = "section::one")]
    pub daemon: Daemon,
    #[serde(deserialize_with = "section::one")]
    pub policy: Policy,
    #[serde(deserialize_with = "section::many")]
    pub device: Vec<Device>,
    #[serde(skip)]
    pub source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Daemon {
    pub control_socket: PathBuf,
}

impl Default for Daemon {
    fn default() -> Daemon {
        Daemon { control_socket: "/run/dmremap/control.sock".into() }
    }
}

/// The options of the queue are the kernel target's, and what is left out has the kernel's default:
/// how much failed I/O it holds for the daemon, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: Spanned<String>,
    pub data: Spanned<PathBuf>,
    pub spare: Spanned<PathBuf>,
    #[serde(default, deserialize_with = "option::<1, 119_000, _>")]
    pub hold_deadline_ms: Option<u32>,
    #[serde(default, deserialize_with = "option::<1, 119_000, _>")]
    pub ready_deadline_ms: Option<u32>,
    #[serde(default, deserialize_with = "option::<1, 65_536, _>")]
    pub max_held_bios: Option<u32>,
    #[serde(default, deserialize_with = "option::<1, 4_194_304, _>")]
    pub max_held_kib: Option<u32>,
}

impl Device {
    /// The options that are set, by the names that the target knows them by.
    pub fn queue_options(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        [
            ("hold_deadline_ms", self.hold_deadline_ms),
            ("ready_deadline_ms", self.ready_deadline_ms),
            ("max_held_bios", self.max_held_bios),
            ("max_held_kib", self.max_held_kib),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// A whole number from MIN to MAX.
fn bounded<'de, const MIN: u32, const MAX: u32, D>(input: D) -> Result<u32, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let value = i64::deserialize(input)?;
    u32::try_from(value).ok().filter(|n| (MIN..=MAX).contains(n)).ok_or_else(|| {
        serde::de::Error::custom(format!("{value} is not a number from {MIN} to {MAX}"))
    })
}

fn option<'de, const MIN: u32, const MAX: u32, D>(input: D) -> Result<Option<u32>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    bounded::<MIN, MAX, D>(input).map(Some)
}

impl Config {
    /// Reads and parses `file`.
    pub fn load(file: &Path) -> Result<Config, Diagnostic> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Source::new(file, "").diagnose(
                0..0,
                format!("cannot be read: {error}"),
                "name a readable file with --config",
            )
        })?;
        Config::parse(file, &text)
    }

    /// `file` is used in messages only.
    pub fn parse(file: &Path, text: &str) -> Result<Config, Diagnostic> {
        let source = Source::new(file, text);
        let mut config: Config = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            source.diagnose(span, error.message(), remedy_for(error.message()))
        })?;
        config.source = source;
        config.check_daemon()?;
        config.check_policy()?;
        for device in &config.device {
            config.check_device(device)?;
        }
        config.check_unique(|d| &d.name, "name", "give each device a name of its own")?;
        config.check_disks()?;
        Ok(config)
    }

    pub fn device(&self, name: &str) -> Option<&Device> {
        self.device.iter().find(|device| device.name.get_ref() == name)
    }

    fn check_daemon(&self) -> Result<(), Diagnostic> {
        let path = &self.daemon.control_socket;
        // The kernel's sun_path holds 108 bytes with its end mark.
        if path.is_absolute() && path.as_os_str().len() < 108 {
            return Ok(());
        }
        Err(self.source.diagnose(
            self.line_of("control_socket"),
            format!("{} is no place for a socket", path.display()),
            "give an absolute path of at most 107 bytes, as /run/dmremap/control.sock",
        ))
    }

    fn check_policy(&self) -> Result<(), Diagnostic> {
        self.policy.validate().map_err(|error| {
            let remedy = "choose a number within the bounds, or leave the key out for its default";
            self.source.diagnose(self.line_of(error.field), error.to_string(), remedy)
        })
    }

    /// Where the line begins that sets a key of which the file has at most one.
    fn line_of(&self, key: &str) -> Range<usize> {
        let mut at = 0;
        for line in self.source.text().split_inclusive('\n') {
            if line.trim_start().starts_with(key) {
                return at..at + line.trim_end().len();
            }
            at += line.len();
        }
        0..0
    }

    fn check_device(&self, device: &Device) -> Result<(), Diagnostic> {
        let name = device.name.get_ref();
        if let Err(reason) = check_name(name) {
            return Err(self.source.diagnose(
                device.name.span(),
                format!("{name:?} cannot name a device: {reason}"),
                "use 1 to 127 letters, digits or any of # + - . : = @ _",
            ));
        }
        for (key, path) in [("data", &device.data), ("spare", &device.spare)] {
            if !path.get_ref().is_absolute() {
                return Err(self.source.diagnose(
                    path.span(),
                    format!("{key} is not an absolute path"),
                    "give a stable path, as /dev/disk/by-id/...",
                ));
            }
        }
        Ok(())
    }

    fn check_unique<'a, T: Eq + std::hash::Hash + std::fmt::Debug + 'a>(
        &'a self,
        key: impl Fn(&'a Device) -> &'a Spanned<T>,
        what: &str,
        remedy: &str,
    ) -> Result<(), Diagnostic> {
        let mut seen: HashMap<&T, &Spanned<T>> = HashMap::new();
        for value in self.device.iter().map(key) {
            if let Some(first) = seen.insert(value.get_ref(), value) {
                let line = self.source.diagnose(first.span(), "", "").line;
                let reason = format!("{what} {:?} is already on line {line}", value.get_ref());
                return Err(self.source.diagnose(value.span(), reason, remedy));
            }
        }
        Ok(())
    }

    /// One path serves one purpose of one device.
    fn check_disks(&self) -> Result<(), Diagnostic> {
        let mut seen: HashMap<&Path, (&str, &str)> = HashMap::new();
        for device in &self.device {
            for (role, path) in [("data", &device.data), ("spare", &device.spare)] {
                let used = (role, device.name.get_ref().as_str());
                if let Some((role, name)) = seen.insert(path.get_ref(), used) {
                    return Err(self.in_use(path, role, name));
                }
            }
        }
        Ok(())
    }

    fn overlap(&self, path: &Spanned<PathBuf>, role: &str, name: &str) -> Diagnostic {
        self.source.diagnose(
            path.span(),
            format!(
                "{} and the {role} of {name:?} overlap: the one lies on the other",
                path.get_ref().display()
            ),
            "give each device a data and a spare of its own; `lsblk` shows what lies on what",
        )
    }

    fn in_use(&self, path: &Spanned<PathBuf>, role: &str, name: &str) -> Diagnostic {
        self.source.diagnose(
            path.span(),
            format!("{} is already the {role} of {name:?}", path.get_ref().display()),
            "give each device a data and a spare of its own; a partition will do for a spare",
        )
    }
}

/// What device-mapper and udev accept as it stands, without mangling.
fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("it is empty"),
        "." | ".." | "control" => Err("it is reserved"),
        _ if name.len() > 127 => Err("it is too long"),
        _ if name.bytes().all(|c| c.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&c)) => Ok(()),
        _ => Err("it holds a character that is not allowed"),
    }
}

fn remedy_for(message: &str) -> &'static str {
    if message.contains("unknown field") {
        "remove the key or correct it; keys belong under [daemon], [policy] or [[device]]"
    } else if message.contains("missing field") {
        "a [[device]] needs name, data and spare"
    } else if message.contains("duplicate") {
        "keep one of them"
    } else if message.contains("not a number from") || message.contains("invalid value") {
        "choose a number within the bounds, or leave the key out for its default"
    } else if message.contains("invalid type") {
        "texts and paths stand in quotes, numbers without; devices begin with [[device]]"
    } else {
        "write it as TOML: key = value, texts in quotes"
    }
}

#[cfg(test)]
mod tests;
