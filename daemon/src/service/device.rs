//! One device in service: its disks opened, its threads and its driver started, its mapped device
//! made.

use std::path::PathBuf;
use std::sync::mpsc as threads;
use std::time::Instant;

use anyhow::{Context, Result};
use dmremap_protocol::InstanceInfo;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use super::spares::Taken;
use crate::config::{self, Config};
use crate::core::{Device as Core, Policy, Snapshot};
use crate::dm::{Lines, Mapper, Table as DmTable};
use crate::driver::reader::{self, Reader};
use crate::driver::{Ask, Driver, Jobs, Target, Threads, writer};
use crate::link::{Bell, Link};
use crate::metadata::Uuid;
use crate::pair::Pair;
use crate::table::Table;

/// Asks that may wait for the driver; a doorbell that finds no room is one of many.
const ASKS: usize = 64;

/// Where the disks are.
pub struct Paths {
    pub data: PathBuf,
    pub spare: PathBuf,
}

impl Paths {
    pub fn of(device: &config::Device) -> Paths {
        Paths { data: device.data.get_ref().clone(), spare: device.spare.get_ref().clone() }
    }
}

pub struct Device {
    pub handle: Handle,
    /// Its end is the end of the service.
    asks: mpsc::Sender<Ask>,
    driver: JoinHandle<()>,
    writer: std::thread::JoinHandle<()>,
    taken: Taken,
}

impl Device {
    /// Opens the disks, which may take as long as a disk does, and serves their instance, whenever
    /// there is one.
    pub async fn open(
        name: &str,
        disks: Paths,
        taken: Taken,
        policy: Policy,
        bells: broadcast::Receiver<Bell>,
    ) -> Result<Device> {
        // First, because opening writes to the spare.
        let (link, second, runtime) =
            (Link::open().await?, Link::open().await?, Runtime::current());
        // The thread has the name and the label for as long as it may write, whoever still waits for it.
        let open =
            move || anyhow::Ok((Pair::open(&disks.data, &disks.spare, second, runtime)?, taken));
        let (pair, taken) = spawn_blocking(open).await??;
        let Pair { store, proof, readers, target, area, label } = pair;
        let core = Core::new(policy, area, store.table().clone(), proof);
        let (events, told) = mpsc::unbounded_channel();
        let (to_writer, writes) = threads::channel();
        let start = "cannot start a thread";
        // The readers end with their driver, whenever their last read returns.
        let begun = Instant::now();
        let [reader, spare_reader] = readers.map(|(data, spare)| {
            let (to_reader, reads) = threads::channel();
            let reader = Reader::new(data, spare, begun);
            reader::start(reader, reads, events.clone()).map(|()| to_reader)
        });
        let (reader, spare_reader) = (reader.context(start)?, spare_reader.context(start)?);
        let (closing, closed) = oneshot::channel();
        let writer = writer::start(store, writes, events, closing).context(start)?;
        let jobs = Jobs { reader, spare_reader, writer: to_writer };
        let threads = Threads { jobs, events: told, closed, begun };
        let (asks, asked) = mpsc::channel(ASKS);
        tokio::spawn(hear(bells, asks.downgrade()));
        let driver = Driver::new(name.to_owned(), core, link, target, threads);
        let driver = tokio::spawn(driver.run(asked));
        let handle = Handle { name: name.to_owned(), target, label, asks: asks.downgrade() };
        Ok(Device { handle, asks, driver, writer, taken })
    }

    pub fn name(&self) -> &str {
        &self.handle.name
    }

    /// Makes its mapped device, or finds it, up to where the instance is there. It must be resumed.
    pub async fn prepare(&self, device: &config::Device) -> Result<()> {
        self.handle.make(device).await?;
        // A driver whose queue is full looks every second anyway.
        let _ = self.asks.try_send(Ask::Look);
        Ok(())
    }

    /// Closes the spare once what was under way has ended, and then ends the claim.
    pub async fn stop(self) {
        let Device { handle: Handle { name, .. }, asks, driver, writer, taken } = self;
        drop(asks);
        if let Err(error) = driver.await {
            tracing::warn!("{name}: {error}");
        }
        if let Err(error) = spawn_blocking(move || writer.join()).await {
            tracing::warn!("{name}: {error}");
        }
        drop(taken);
    }
}

/// A device as other tasks know it; it does not keep it in service.
#[derive(Clone)]
pub struct Handle {
    pub name: String,
    pub target: Target,
    label: Uuid,
    asks: mpsc::WeakSender<Ask>,
}

impl Handle {
    async fn make(&self, device: &config::Device) -> Result<()> {
        let (name, table) = (self.name.clone(), self.table_line(device));
        let uuid = format!("DMREMAP-{}", self.label);
        spawn_blocking(move || Mapper::open()?.prepare(&name, &uuid, &table)).await??;
        Ok(())
    }

    /// Comes back when udev is done with it, and so only once it is served.
    pub async fn resume(&self) -> Result<()> {
        let name = self.name.clone();
        Ok(spawn_blocking(move || Mapper::open()?.resume(&name)).await??)
    }

    /// Gives its mapped device other options; what it had before can be put back.
    pub async fn change(&self, device: &config::Device) -> Result<Lines> {
        let (name, table) = (self.name.clone(), self.table_line(device));
        Ok(spawn_blocking(move || Mapper::open()?.reload(&name, &table)).await??)
    }

    pub async fn change_back(&self, lines: Lines) -> Result<()> {
        let name = self.name.clone();
        Ok(spawn_blocking(move || Mapper::open()?.replace(&name, &lines)).await??)
    }

    pub async fn remove(&self) -> Result<()> {
        let name = self.name.clone();
        Ok(spawn_blocking(move || Mapper::open()?.remove(&name)).await??)
    }

    fn table_line(&self, device: &config::Device) -> DmTable {
        let Target { disks, sectors, .. } = self.target;
        DmTable { sectors, disks, options: device.queue_options().collect() }
    }

    pub async fn set_policy(&self, policy: Policy) -> Result<()> {
        self.ask(Ask::Policy(policy)).await
    }

    pub async fn status(&self) -> Result<(Snapshot, Option<InstanceInfo>)> {
        let (to, answer) = oneshot::channel();
        self.ask(Ask::Status(to)).await?;
        Ok(answer.await?)
    }

    pub async fn table(&self) -> Result<Table> {
        let (to, answer) = oneshot::channel();
        self.ask(Ask::Table(to)).await?;
        Ok(answer.await?)
    }

    async fn ask(&self, ask: Ask) -> Result<()> {
        let asks = self.asks.upgrade().context("its driver has ended")?;
        Ok(asks.send(ask).await?)
    }
}

/// Until the device is gone. A bell that finds no room is not lost: the kernel rings again.
async fn hear(mut bells: broadcast::Receiver<Bell>, asks: mpsc::WeakSender<Ask>) {
    loop {
        let bell = match bells.recv().await {
            Ok(bell) => bell,
            Err(broadcast::error::RecvError::Lagged(_)) => Bell::Any,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(asks) = asks.upgrade() else { return };
        let _ = asks.try_send(Ask::Doorbell(bell));
    }
}

/// Reads a configuration, whose file may lie on a device that is being served.
pub async fn load(file: PathBuf) -> Result<Config> {
    Ok(spawn_blocking(move || Config::load(&file)).await??)
}
