//! A reload: all of the new configuration, or none of it. A device that it no longer names is served on, until it is
//! removed. It is a task of its own: it waits for disks, and for the I/O of the devices whose options change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::timeout;

use super::device::{self, Device, Handle};
use super::start::{Starter, undo};
use crate::config::{self, Config};
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

    /// A start that is under way goes on if its section stays as it is.
    fn new_devices<'a>(&self, next: &'a Config) -> Result<Vec<&'a config::Device>> {
        let mut new = Vec::new();
        for device in &next.device {
            let name = device.name.get_ref();
            match self.starting.get(name) {
                _ if self.served.contains_key(name) => {
                    let former = self.starter.config.device(name);
                    if former.is_some_and(|f| (&f.data, &f.spare) != (&device.data, &device.spare))
                    {
                        let reason =
                            format!("the disks of {name:?} have changed while it is served");
                        let remedy = "remove the device first, or give the new one another name";
                        bail!(next.source.diagnose(device.name.span(), reason, remedy));
                    }
                }
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

async fn undo_all(started: Vec<Device>) {
    for device in started {
        undo(device).await;
    }
}
