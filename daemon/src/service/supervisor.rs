//! All devices of the daemon: those that the configuration names, made by it, and those that were
//! made by hand on disks that carry a label, adopted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dmremap_protocol::{InstanceInfo, Message, Request as KernelRequest};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::control::{Answer, Call, Control, Request};
use super::device::{self, Device, Paths};
use super::{adopt, notify, report};
use crate::config::resolve::{DevNo, Place, block_device, resolve};
use crate::config::{self, Config};
use crate::error::Words;
use crate::link::{Bell, Doorbells, Link};
use crate::metadata::Uuid;
use crate::pair;

/// How often what failed is tried again, and devices made by hand are looked for.
const AGAIN: Duration = Duration::from_secs(5);
/// Doorbells that may wait for a device to hear them.
const BELLS: usize = 64;

pub struct Supervisor {
    file: PathBuf,
    config: Config,
    /// By name.
    devices: BTreeMap<String, Device>,
    /// Why a configured device is not served.
    failed: BTreeMap<String, String>,
    /// Why an instance could not be adopted so far.
    strangers: BTreeMap<u32, String>,
    /// Each device hears them for itself: what is done here may take long, or wait for the very I/O
    /// that a bell rings for.
    bells: broadcast::Sender<Bell>,
}

/// Serves until it is told to stop. The hardening of the process comes before.
pub async fn run(file: PathBuf) -> Result<()> {
    let config = device::load(file.clone()).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let control = Control::open(&config.daemon.control_socket)?;
    let (calls, mut called) = mpsc::channel(1);
    tokio::spawn(control.serve(calls));
    let bells = broadcast::Sender::new(BELLS);
    tokio::spawn(listen(bells.clone()));

    let mut all = Supervisor {
        file,
        config,
        devices: BTreeMap::new(),
        failed: BTreeMap::new(),
        strangers: BTreeMap::new(),
        bells,
    };
    all.start_missing().await;
    notify::ready();
    let mut again = interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watchdog = interval(notify::watchdog_interval().unwrap_or(AGAIN));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(call) = called.recv() => all.call(call).await,
            _ = watchdog.tick() => notify::alive(),
            _ = again.tick() => {
                all.start_missing().await;
                all.adopt().await;
            }
        }
    }
    notify::stopping();
    for device in all.devices.into_values() {
        device.stop().await;
    }
    Ok(())
}

/// Passes doorbells on.
async fn listen(bells: broadcast::Sender<Bell>) {
    loop {
        let heard = async {
            let family = Link::open().await?.family();
            let mut doorbells = Doorbells::open(family)?;
            // What rang before is asked for.
            // It fails while there is no device.
            let _ = bells.send(Bell::Any);
            loop {
                for bell in doorbells.next().await? {
                    let _ = bells.send(bell);
                }
            }
            #[allow(unreachable_code, reason = "gives the block its type")]
            anyhow::Ok(())
        };
        if let Err(error) = heard.await {
            tracing::warn!("no doorbells: {}", Words(&error));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

impl Supervisor {
    /// Tries every configured device that is not served. A reason is logged when it changes.
    async fn start_missing(&mut self) {
        for device in self.config.device.clone() {
            let name = device.name.get_ref().clone();
            if self.devices.contains_key(&name) {
                continue;
            }
            match self.start(&device).await {
                Ok(served) => {
                    self.failed.remove(&name);
                    self.devices.insert(name, served);
                }
                Err(error) => {
                    let why = Words(&error).to_string();
                    if self.failed.insert(name.clone(), why.clone()).as_ref() != Some(&why) {
                        tracing::error!("{name} is not served: {why}");
                    }
                }
            }
        }
    }

    async fn start(&self, device: &config::Device) -> Result<Device> {
        self.resolvable(&self.config, &[device.name.get_ref().clone()]).await?;
        let served = self.open(&self.config, device.name.get_ref(), Paths::of(device)).await?;
        match served.prepare(device).await {
            Ok(()) => {
                finish(&served);
                Ok(served)
            }
            Err(error) => {
                served.stop().await;
                Err(error)
            }
        }
    }

    /// Starts to serve, if no other device has a spare with the same label: nobody can tell which of
    /// the two is the copy. This is found out before anything is written to either.
    async fn open(&self, config: &Config, name: &str, disks: Paths) -> Result<Device> {
        let (config, path) = (config.clone(), disks.spare.clone());
        let (ours, known) = spawn_blocking(move || (Spare::at(&path), spares(&config))).await?;
        let served = self.devices.values().map(|device| {
            let (at, label) = (device.target.disks.spare, device.label);
            (device.name.clone(), Spare { at, label })
        });
        for (other, spare) in served.chain(known).filter(|(other, _)| other != name) {
            let Some(ours) = ours.filter(|ours| ours.label == spare.label) else { continue };
            ensure!(
                ours.at != spare.at,
                "its spare is the one of {other}; remove the device, or give it a spare of its own"
            );
            bail!(
                "its spare and that of {other} have one label, {}: one is a copy of the other; find \
                 out which, and format that one anew or take it out of the configuration",
                ours.label
            );
        }
        Device::open(name, disks, self.config.policy.clone(), self.bells.subscribe()).await
    }

    /// The paths of these devices lead to block devices that are in no other use.
    async fn resolvable(&self, config: &Config, names: &[String]) -> Result<()> {
        let (config, names) = (config.clone(), names.to_vec());
        spawn_blocking(move || {
            let found = resolve(&config, Place::of);
            let wanted = found.into_iter().filter(|(d, _)| names.contains(d.name.get_ref()));
            wanted.into_iter().try_for_each(|(_, found)| found.map(drop))
        })
        .await?
        .map_err(Into::into)
    }

    /// A device made by hand, on disks that carry a label, is served like any other. A reason against it
    /// is logged when it changes.
    async fn adopt(&mut self) {
        let Ok(mut link) = Link::open().await else { return };
        let Ok(messages) = link.request(&KernelRequest::InstanceGet).await else { return };
        let instances: Vec<InstanceInfo> = messages
            .into_iter()
            .filter_map(|message| match message {
                Message::Instance(info) => Some(info),
                _ => None,
            })
            .collect();
        self.strangers.retain(|known, _| instances.iter().any(|info| info.instance == *known));
        for info in instances {
            if self.serves(&info) {
                continue;
            }
            match self.adopt_one(&info).await {
                Ok(device) => {
                    tracing::info!("{}: adopted", device.name);
                    self.devices.insert(device.name.clone(), device);
                }
                Err(error) => {
                    let why = Words(&error).to_string();
                    let before = self.strangers.insert(info.instance, why.clone());
                    if before.as_ref() != Some(&why) {
                        tracing::error!("instance {} is not adopted: {why}", info.instance);
                    }
                }
            }
        }
    }

    fn serves(&self, info: &InstanceInfo) -> bool {
        let is = |device: &Device| {
            let disks = device.target.disks;
            (disks.data.wire(), disks.spare.wire()) == (info.data_dev, info.spare_dev)
        };
        self.devices.values().any(is)
    }

    async fn adopt_one(&self, info: &InstanceInfo) -> Result<Device> {
        let numbers = [info.dm_dev, info.data_dev, info.spare_dev];
        let found = spawn_blocking(move || adopt::find(numbers)).await??;
        ensure!(!self.devices.contains_key(&found.name), "{} is served already", found.name);
        if let Some(why) = self.failed.get(&found.name) {
            bail!("{} is configured, and not served: {why}", found.name);
        }
        self.open(&self.config, &found.name, found.disks).await
    }

    async fn call(&mut self, (request, to): Call) {
        match request {
            Request::Status {} => {
                let askers = self.devices.values().map(Device::asker).collect();
                tokio::spawn(report::status(askers, self.failed.clone(), to));
            }
            Request::List { device } => match self.devices.get(&device) {
                Some(device) => drop(tokio::spawn(report::list(device.asker(), to))),
                None => {
                    let names: Vec<&str> = self.devices.keys().map(String::as_str).collect();
                    let why = format!("no device {device:?} is served; there is {names:?}");
                    let _ = to.try_send(Answer::Error(why));
                }
            },
            Request::Reload {} => {
                notify::reloading();
                let answer = match self.reload().await {
                    Ok(()) => Answer::Done,
                    Err(error) => Answer::Error(format!("nothing was changed: {}", Words(&error))),
                };
                notify::ready();
                let _ = to.try_send(answer);
            }
        }
    }

    /// All of the new configuration, or none of it. A device that it no longer names is served on,
    /// until it is removed.
    async fn reload(&mut self) -> Result<()> {
        let next = device::load(self.file.clone()).await?;
        ensure!(
            next.daemon == self.config.daemon,
            "[daemon] has changed; that takes a restart of the daemon"
        );
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for device in &next.device {
            let name = device.name.get_ref();
            match (self.devices.get(name), self.config.device(name)) {
                (None, _) => new.push(device),
                (Some(_), Some(old))
                    if (&old.data, &old.spare) != (&device.data, &device.spare) =>
                {
                    let reason = format!("the disks of {name:?} have changed while it is served");
                    let remedy = "remove the device first, or give the new one another name";
                    bail!(next.source.diagnose(device.name.span(), reason, remedy));
                }
                (Some(served), old) if old != Some(device) => changed.push((served, device)),
                _ => {}
            }
        }
        let names: Vec<String> = new.iter().map(|device| device.name.get_ref().clone()).collect();
        self.resolvable(&next, &names).await?;
        let mut started: Vec<Device> = Vec::new();
        for device in new {
            if let Err(error) = self.begin(&next, device, &mut started).await {
                for device in started {
                    undo(device).await;
                }
                return Err(error.context(device.name.get_ref().clone()));
            }
        }
        let mut before = Vec::new();
        for (served, device) in changed {
            match served.change(device).await {
                Ok(lines) => before.push((served, lines)),
                Err(error) => {
                    for (served, lines) in before {
                        if let Err(error) = served.change_back(lines).await {
                            tracing::error!("{}: {}", served.name, Words(&error));
                        }
                    }
                    for device in started {
                        undo(device).await;
                    }
                    return Err(error.context(format!("{}: its options", served.name)));
                }
            }
        }
        for device in started {
            finish(&device);
            self.failed.remove(&device.name);
            self.devices.insert(device.name.clone(), device);
        }
        for served in self.devices.values() {
            served.set_policy(next.policy.clone()).await?;
        }
        self.failed.retain(|name, _| next.device(name).is_some());
        self.config = next;
        tracing::info!("the configuration was reloaded");
        Ok(())
    }

    async fn begin(
        &self,
        config: &Config,
        device: &config::Device,
        started: &mut Vec<Device>,
    ) -> Result<()> {
        let served = self.open(config, device.name.get_ref(), Paths::of(device)).await?;
        let prepared = served.prepare(device).await;
        match prepared {
            Ok(()) => started.push(served),
            Err(_) => served.stop().await,
        }
        prepared
    }
}

/// A spare that carries a label.
#[derive(Clone, Copy)]
struct Spare {
    at: DevNo,
    label: Uuid,
}

impl Spare {
    fn at(path: &Path) -> Option<Spare> {
        Some(Spare { at: block_device(path).ok()?, label: pair::label(path)? })
    }
}

/// The spares of a configuration, those left out whose paths are wrong: the same disk under another path
/// is no copy.
fn spares(config: &Config) -> Vec<(String, Spare)> {
    let found = resolve(config, Place::of).into_iter().filter(|(_, disks)| disks.is_ok());
    found
        .filter_map(|(d, _)| Some((d.name.get_ref().clone(), Spare::at(d.spare.get_ref())?)))
        .collect()
}

/// Lets I/O through; nobody waits for it, because udev may.
fn finish(device: &Device) {
    let (name, resumed) = (device.name.clone(), device.resume());
    tokio::spawn(async move {
        match resumed.await.context("its device node is not there") {
            Ok(()) => tracing::info!("{name}: ready"),
            Err(error) => tracing::error!("{name}: {}", Words(&error)),
        }
    });
}

async fn undo(device: Device) {
    if let Err(error) = device.remove().await {
        tracing::warn!("{}: {}", device.name, Words(&error));
    }
    device.stop().await;
}
