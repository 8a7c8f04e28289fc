//! How a device gets into service. Each start is a task of its own: it waits for disks, of which one may hang.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use dmremap_protocol::{InstanceInfo, Message, Request};
use tokio::sync::broadcast;
use tokio::task::spawn_blocking;

use super::adopt;
use super::device::{Device, Paths};
use super::spares::Spares;
use crate::config::resolve::{Disks, Place, block_device, resolve};
use crate::config::{self, Config};
use crate::error::Words;
use crate::link::{Bell, Link, LinkError};

#[derive(Clone)]
pub struct Starter {
    pub config: Arc<Config>,
    pub spares: Spares,
    /// Each device hears them for itself: what is done elsewhere may wait for the very I/O that a bell
    /// rings for.
    pub bells: broadcast::Sender<Bell>,
}

impl Starter {
    /// Up to where the instance is there. It must be let through with [`finish`].
    pub async fn configured(&self, device: &config::Device) -> Result<Device> {
        self.resolvable(device.name.get_ref().clone()).await?;
        let served = self.open(device.name.get_ref(), Paths::of(device)).await?;
        match served.prepare(device).await {
            Ok(()) => Ok(served),
            Err(error) => {
                served.stop().await;
                Err(error)
            }
        }
    }

    /// A device made by hand, on disks that carry a label, is served like any other. None: it is configured, and its own
    /// start says what is wrong.
    pub async fn stranger(&self, info: &InstanceInfo) -> Result<Option<Device>> {
        let numbers = [info.dm_dev, info.data_dev, info.spare_dev];
        let found = spawn_blocking(move || adopt::find(numbers)).await??;
        if self.config.device(&found.name).is_some() {
            return Ok(None);
        }
        self.open(&found.name, found.disks).await.map(Some)
    }

    async fn open(&self, name: &str, disks: Paths) -> Result<Device> {
        let taken = self.spares.take(&self.config, name, &disks.spare).await?;
        Device::open(name, disks, taken, self.config.policy.clone(), self.bells.subscribe()).await
    }

    /// Its paths lead to block devices that are in no other use.
    async fn resolvable(&self, name: String) -> Result<()> {
        let config = self.config.clone();
        spawn_blocking(move || {
            let found = resolve(&config, Place::of);
            let ours = found.into_iter().find(|(device, _)| *device.name.get_ref() == name);
            ours.map_or(Ok(()), |(_, disks)| disks.map(drop))
        })
        .await?
        .map_err(Into::into)
    }
}

/// The instances that the kernel has; none while there is no module.
pub async fn instances() -> Result<Vec<InstanceInfo>, LinkError> {
    let messages = match Link::if_loaded().await {
        Err(LinkError::NoModule) => vec![],
        link => link?.request(&Request::InstanceGet).await?,
    };
    let instance = |message| match message {
        Message::Instance(info) => Some(info),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(instance).collect())
}

/// Where the paths of the configured devices lead to.
pub struct Located {
    pub config: Arc<Config>,
    /// By name; those that lead nowhere are left out.
    pub disks: BTreeMap<String, Disks>,
}

impl Located {
    pub async fn by(config: Arc<Config>) -> Located {
        let all = config.clone();
        let locate = move || {
            let disks = |d: &config::Device| {
                let [data, spare] =
                    [d.data.get_ref(), d.spare.get_ref()].map(|path| block_device(path).ok());
                Some((d.name.get_ref().clone(), Disks { data: data?, spare: spare? }))
            };
            all.device.iter().filter_map(disks).collect()
        };
        Located { config, disks: spawn_blocking(locate).await.unwrap_or_default() }
    }
}

/// Lets I/O through; nobody waits for it, because udev may.
pub fn finish(device: &Device) {
    let (name, mapped) = (device.name().to_owned(), device.handle.clone());
    tokio::spawn(async move {
        match mapped.resume().await.context("its device node is not there") {
            Ok(()) => tracing::info!("{name}: ready"),
            Err(error) => tracing::error!("{name}: {}", Words(&error)),
        }
    });
}

/// Takes back what was not let through.
pub async fn undo(device: Device) {
    if let Err(error) = device.handle.remove().await {
        tracing::warn!("{}: {}", device.name(), Words(&error));
    }
    device.stop().await;
}
