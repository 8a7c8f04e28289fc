//! A reload: all of the new configuration, or none of it. A device that it no longer names is served on, until it is
//! removed, and then let go. One that is not served and stays as it was configured is left to its next try. It is a task
//! of its own: it waits for disks, and for the I/O of the devices whose options change.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::device::{self, Device, Handle};
use super::start::{Starter, undo};
use crate::config::resolve::{Disks, Place, resolve};
use crate::config::{self, Config, Diagnostic};
use crate::dm::Lines;
use crate::error::Words;

/// How long the disks of a device that is new may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Reload {
    pub file: PathBuf,
    /// With the configuration in force.
    pub starter: Starter,
    pub served: BTreeMap<String, Handle>,
    /// Starts that are late, with the section that each follows.
    pub starting: BTreeMap<String, config::Device>,
}

pub struct Reloaded {
    pub config: Arc<Config>,
    /// What is new, to be let through.
    pub started: Vec<Device>,
}

impl Reload {
    pub async fn run(self) -> Result<Reloaded> {
        let next = device::load(self.file.clone()).await?;
        ensure!(
            next.daemon == self.starter.config.daemon,
            "[daemon] has changed; that takes a restart of the daemon"
        );
        let next = Arc::new(next);
        self.same_disks(next.clone()).await?;
        let new = self.new_devices(&next)?;
        let mut started = Vec::new();
        for device in new {
            if let Err(error) = self.begin(&next, device, &mut started).await {
                undo_all(started).await;
                return Err(error.context(device.name.get_ref().clone()));
            }
        }
        if let Err(error) = self.change_options(&next).await {
            undo_all(started).await;
            return Err(error);
        }
        for served in self.served.values() {
            // Nothing is left that could be refused. A driver that has ended is started anew.
            if let Err(error) = served.set_policy(next.policy.clone()).await {
                tracing::warn!("{}: {}", served.name, Words(&error));
            }
        }
        Ok(Reloaded { config: next, started })
    }

    async fn same_disks(&self, next: Arc<Config>) -> Result<()> {
        let served = self.served.iter();
        let served = served.map(|(name, handle)| (name.clone(), handle.target.disks)).collect();
        let former = self.starter.config.clone();
        Ok(spawn_blocking(move || same_disks(&next, &former, &served, Place::of)).await??)
    }

    /// A start that is under way goes on if its section stays as it is.
    fn new_devices<'a>(&self, next: &'a Config) -> Result<Vec<&'a config::Device>> {
        let mut new = Vec::new();
        for device in &next.device {
            let name = device.name.get_ref();
            match self.starting.get(name) {
                _ if self.served.contains_key(name) => {}
                None if self.starter.config.device(name) == Some(device) => {}
                None => new.push(device),
                Some(before) if before == device => {}
                Some(_) => bail!(
                    "{name} is being started as it was configured before, and its disks do not answer; give it \
                     another name, or detach them"
                ),
            }
        }
        Ok(new)
    }

    async fn begin(
        &self,
        next: &Arc<Config>,
        device: &config::Device,
        started: &mut Vec<Device>,
    ) -> Result<()> {
        let starter = Starter { config: next.clone(), ..self.starter.clone() };
        let served = timeout(PATIENCE, starter.configured(device)).await;
        started.push(served.context("its disks do not answer")??);
        Ok(())
    }

    async fn change_options(&self, next: &Config) -> Result<()> {
        let mut before: Vec<(&Handle, Lines)> = Vec::new();
        for device in &next.device {
            let name = device.name.get_ref();
            let Some(served) = self.served.get(name) else { continue };
            if self.starter.config.device(name) == Some(device) {
                continue;
            }
            match served.change(device).await {
                Ok(lines) => before.push((served, lines)),
                Err(error) => {
                    for (served, lines) in before {
                        if let Err(error) = served.change_back(lines).await {
                            tracing::error!("{}: {}", served.name, Words(&error));
                        }
                    }
                    return Err(error.context(format!("{name}: its options")));
                }
            }
        }
        Ok(())
    }
}

/// Nobody exchanges the disks of a device that is served, in however many steps: its mappings are of no use on others. A
/// link to its disk may be gone meanwhile, if it is the one that was there.
fn same_disks(
    next: &Config,
    former: &Config,
    served: &BTreeMap<String, Disks>,
    lookup: impl Fn(&Path) -> io::Result<Place>,
) -> Result<(), Diagnostic> {
    for (device, found) in resolve(next, &lookup) {
        let name = device.name.get_ref();
        let Some(disks) = served.get(name) else { continue };
        let unchanged = || {
            former
                .device(name)
                .is_some_and(|f| (&f.data, &f.spare) == (&device.data, &device.spare))
        };
        let gone =
            || [&device.data, &device.spare].iter().any(|path| lookup(path.get_ref()).is_err());
        match found {
            Ok(found) if found == *disks => {}
            Ok(_) => {
                let reason = format!("the disks of {name:?} have changed while it is served");
                let remedy = "remove the device and take it out of the file first, or give the new one \
                              another name";
                return Err(next.source.diagnose(device.name.span(), reason, remedy));
            }
            Err(_) if unchanged() && gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn undo_all(started: Vec<Device>) {
    for device in started {
        undo(device).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::DevNo;

    fn at(minor: u32) -> DevNo {
        DevNo { major: 8, minor }
    }

    /// `/dev/N`, and an alias of `/dev/2`.
    fn lookup(path: &Path) -> io::Result<Place> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let minor = if name == "alias" { Ok(2) } else { name.parse() };
        let at = at(minor.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?);
        Ok(Place { at, on: [at].into() })
    }

    fn config(devices: &[(&str, &str, &str)]) -> Config {
        let section = |(name, data, spare): &(&str, &str, &str)| {
            format!(
                "[[device]]\nname = \"{name}\"\ndata = \"/dev/{data}\"\nspare = \"/dev/{spare}\"\n"
            )
        };
        let text: String = devices.iter().map(section).collect();
        Config::parse(Path::new("c.toml"), &text).expect("parses")
    }

    /// The disk of one device was away. Until it was back no reload passed, not one that only changed the policy of the
    /// others, though the same file was taken at a start of the daemon.
    #[tokio::test]
    async fn what_is_not_served_and_stays_as_it_is_keeps_nothing_from_being_applied() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.toml");
        let section =
            "[[device]]\nname = \"d\"\ndata = \"/nowhere/data\"\nspare = \"/nowhere/spare\"\n";
        let former = Arc::new(Config::parse(&file, section).expect("parses"));
        let reload = async |text: String| {
            std::fs::write(&file, text).expect("written");
            let (spares, bells) = (Default::default(), tokio::sync::broadcast::Sender::new(1));
            let starter = Starter { config: former.clone(), spares, bells };
            let (served, starting) = (BTreeMap::new(), BTreeMap::new());
            Reload { file: file.clone(), starter, served, starting }.run().await
        };
        let policy = "[policy]\nread_retries = 7\n";
        let done = reload(format!("{policy}{section}")).await.expect("d is as it was");
        assert_eq!((done.config.policy.read_retries, done.started.len()), (7, 0));
        let changed = reload(format!("{policy}{section}max_held_bios = 77\n")).await;
        let error = Words(&changed.err().expect("its section is new")).to_string();
        assert!(error.contains("d: ") && error.contains("data /nowhere/data: No such"), "{error}");
    }

    /// A device that was taken out of the file is served on. It came back with another spare, and the reload said that all
    /// was done: the operator believed the new spare to be in use.
    #[test]
    fn the_disks_of_a_served_device_are_not_exchanged_in_one_step_or_two() {
        let served = [("d".to_owned(), Disks { data: at(1), spare: at(2) })].into();
        let refused = |former: &Config, next: &[(&str, &str, &str)]| {
            same_disks(&config(next), former, &served, lookup).err().map(|e| e.to_string())
        };
        let (present, taken_out) = (config(&[("d", "1", "2")]), config(&[]));
        for former in [&present, &taken_out] {
            let error = refused(former, &[("d", "1", "3")]).expect("another spare");
            assert!(
                error.contains("the disks of \"d\" have changed while it is served"),
                "{error}"
            );
            assert!(refused(former, &[("d", "1", "gone")]).expect("none").contains("/dev/gone: "));
            assert_eq!(refused(former, &[("d", "1", "2")]), None);
            assert_eq!(refused(former, &[("d", "1", "alias")]), None);
            assert_eq!(refused(former, &[]), None);
        }
        let link_gone = config(&[("d", "1", "gone")]);
        assert_eq!(refused(&link_gone, &[("d", "1", "gone")]), None);
        let error = refused(&present, &[("e", "5", "alias"), ("d", "1", "2")]).expect("used twice");
        assert!(error.contains("already the spare of \"e\""), "{error}");
    }
}
