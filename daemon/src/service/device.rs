//! One device in service: its disks opened, its threads and its driver started, its mapped device
//! made.

use std::path::PathBuf;
use std::sync::mpsc as threads;

use anyhow::{Context, Result};
use dmremap_protocol::InstanceInfo;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

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
    pub name: String,
    pub target: Target,
    pub label: Uuid,
    asks: mpsc::Sender<Ask>,
    driver: JoinHandle<()>,
    writer: std::thread::JoinHandle<()>,
}

impl Device {
    /// Opens the disks, which may take as long as a disk does, and serves their instance, whenever
    /// there is one.
    pub async fn open(
        name: &str,
        disks: Paths,
        policy: Policy,
        bells: broadcast::Receiver<Bell>,
    ) -> Result<Device> {
        // First, because opening writes to the spare.
        let (link, second, runtime) = (Link::open().await?, Link::open().await?, Handle::current());
        let open = move || Pair::open(&disks.data, &disks.spare, second, runtime);
        let pair = spawn_blocking(open).await??;
        let Pair { store, proof, data, spare, target, area, label } = pair;
        let core = Core::new(policy, area, store.table().clone(), proof);
        let (events, told) = mpsc::unbounded_channel();
        let (to_reader, reads) = threads::channel();
        let (to_writer, writes) = threads::channel();
        let start = "cannot start a thread";
        // The reader ends with its driver, whenever its last read returns.
        reader::start(Reader::new(data, spare), reads, events.clone()).context(start)?;
        let (closing, closed) = oneshot::channel();
        let writer = writer::start(store, writes, events, closing).context(start)?;
        let jobs = Jobs { reader: to_reader, writer: to_writer };
        let threads = Threads { jobs, events: told, closed };
        let (asks, asked) = mpsc::channel(ASKS);
        tokio::spawn(hear(bells, asks.downgrade()));
        let driver = Driver::new(name.to_owned(), core, link, target, threads);
        let driver = tokio::spawn(driver.run(asked));
        Ok(Device { name: name.to_owned(), target, label, asks, driver, writer })
    }

    /// Makes its mapped device, or finds it, up to where the instance is there. It must be resumed.
    pub async fn prepare(&self, device: &config::Device) -> Result<()> {
        let (name, table) = (self.name.clone(), self.table_line(device));
        let uuid = format!("DMREMAP-{}", self.label);
        spawn_blocking(move || Mapper::open()?.prepare(&name, &uuid, &table)).await??;
        self.ask(Ask::Look);
        Ok(())
    }

    /// Comes back when udev is done with it, and so only once it is served.
    pub fn resume(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let name = self.name.clone();
        async move { Ok(spawn_blocking(move || Mapper::open()?.resume(&name)).await??) }
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

    /// Never waits. A driver whose queue is full is busy listing anyway, and looks every second.
    pub fn ask(&self, ask: Ask) {
        if let Err(mpsc::error::TrySendError::Closed(_)) = self.asks.try_send(ask) {
            tracing::error!("{}: its driver has ended", self.name);
        }
    }

    /// Fails if the driver has ended.
    pub async fn set_policy(&self, policy: Policy) -> Result<()> {
        Ok(self.asks.send(Ask::Policy(policy)).await?)
    }

    pub fn asker(&self) -> Asker {
        Asker { name: self.name.clone(), asks: self.asks.clone() }
    }

    /// Closes the spare once what was under way has ended, and then ends the claim.
    pub async fn stop(self) {
        drop(self.asks);
        if let Err(error) = self.driver.await {
            tracing::warn!("{}: {error}", self.name);
        }
        if let Err(error) = spawn_blocking(move || self.writer.join()).await {
            tracing::warn!("{}: {error}", self.name);
        }
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

/// Asks a device from another task.
#[derive(Clone)]
pub struct Asker {
    pub name: String,
    asks: mpsc::Sender<Ask>,
}

impl Asker {
    pub async fn status(&self) -> Result<(Snapshot, Option<InstanceInfo>)> {
        let (to, answer) = oneshot::channel();
        self.asks.send(Ask::Status(to)).await?;
        Ok(answer.await?)
    }

    pub async fn table(&self) -> Result<Table> {
        let (to, answer) = oneshot::channel();
        self.asks.send(Ask::Table(to)).await?;
        Ok(answer.await?)
    }
}

/// Reads a configuration, whose file may lie on a device that is being served.
pub async fn load(file: PathBuf) -> Result<Config> {
    Ok(spawn_blocking(move || Config::load(&file)).await??)
}
