//! The configuration: any text is one that can be served, or is refused at a place in it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use dmremap_policyd::config::resolve::{DevNo, Place, resolve};
use dmremap_policyd::config::{Config, Diagnostic};

const FILE: &str = "/etc/dmremap.toml";

pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match Config::parse(Path::new(FILE), text) {
        Ok(config) => config,
        Err(refusal) => return check(&refusal, text),
    };
    assert_eq!(config.policy.validate(), Ok(()));
    assert!(config.daemon.control_socket.is_absolute());
    let mut names = BTreeSet::new();
    for device in &config.device {
        assert!(names.insert(device.name.get_ref()), "two of one name");
        assert!(config.device(device.name.get_ref()).is_some_and(|found| found == device));
        assert!(device.data.get_ref().is_absolute() && device.spare.get_ref().is_absolute());
        for (option, value) in device.queue_options() {
            assert!(value >= 1, "{option} is {value}");
        }
    }
    let mut taken: Vec<DevNo> = Vec::new();
    let found = resolve(&config, lookup);
    assert_eq!(found.len(), config.device.len());
    for (_, disks) in &found {
        match disks {
            Ok(disks) => taken.extend([disks.data, disks.spare]),
            Err(refusal) => check(refusal, text),
        }
    }
    let distinct: BTreeSet<DevNo> = taken.iter().copied().collect();
    assert_eq!(distinct.len(), taken.len(), "a disk is used twice");
}

/// Some paths lead nowhere, some to the same disk, some to one that lies on another.
fn lookup(path: &Path) -> io::Result<Place> {
    let last = path.as_os_str().as_encoded_bytes().last().copied().unwrap_or(0);
    if last % 8 == 7 {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    let disk = |minor: u8| DevNo { major: 8, minor: minor.into() };
    let at = disk(last % 8);
    Ok(Place { at, on: [at, disk(last / 8 % 8)].into() })
}

fn check(refusal: &Diagnostic, text: &str) {
    let lines = text.split('\n').count();
    assert!((1..=lines).contains(&refusal.line), "line {} of {lines}", refusal.line);
    let line = text.split('\n').nth(refusal.line - 1).unwrap_or("");
    let columns = line.chars().count() + 1;
    assert!((1..=columns).contains(&refusal.column), "column {} of {columns}", refusal.column);
    assert!(!refusal.remedy.is_empty() && !refusal.reason.is_empty());
    assert!(refusal.to_string().starts_with(&format!("{FILE}:{}:", refusal.line)));
}
