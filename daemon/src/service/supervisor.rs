//! All devices of the daemon: those that the configuration names, made by it, and those that were
//! made by hand on disks that carry a label, adopted.
//!
//! Nothing here waits for a disk, for device-mapper or for a client. What does is a task, and tells of its end
//! by a channel; so a disk that hangs costs its own device only, and signals and calls are always heard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use dmremap_protocol::InstanceInfo;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::control::{Answer, Call, Control, Request};
use super::device::{self, Device};
use super::reload::{Reload, Reloaded};
use super::start::{Located, Starter, finish, instances, undo};
use super::{notify, report};
use crate::config;
use crate::error::Words;
use crate::link::{Bell, Doorbells, LinkError};

/// How often what failed is tried again, and devices made by hand are looked for. What has not ended after that time
/// is late.
pub const AGAIN: Duration = Duration::from_secs(5);
const LATE: &str =
    "its disks have not answered yet; it is served once they do, and the others meanwhile";
/// Doorbells that may wait for a device to hear them.
const BELLS: usize = 64;
/// How long the end of the daemon waits for a reload's, which may have suspended a device.
const RELOAD: Duration = Duration::from_secs(10);

/// What a task has come to.
enum End {
    Started(Box<config::Device>, Result<Device>),
    Listed(Result<Vec<InstanceInfo>, LinkError>, Located),
    /// None: it is no stranger.
    Adopted(u32, Result<Option<Device>>),
    Reloaded(Result<Reloaded>, mpsc::Sender<Answer>),
}

struct Supervisor {
    file: PathBuf,
    starter: Starter,
    /// By name.
    devices: BTreeMap<String, Device>,
    /// By name.
    starting: BTreeMap<String, Start>,
    /// Why a configured device is not served.
    failed: BTreeMap<String, String>,
    /// Instances that are being adopted.
    adopting: BTreeSet<u32>,
    /// Why an instance could not be adopted so far.
    strangers: BTreeMap<u32, String>,
    /// Nothing else is begun meanwhile.
    reloading: bool,
    /// A reload that is still to begin: first those starts shall end that are not late.
    waiting: Option<mpsc::Sender<Answer>>,
    ends: mpsc::UnboundedSender<End>,
}

struct Start {
    /// What it follows.
    section: config::Device,
    late: bool,
}

/// Serves until it is told to stop. The hardening of the process comes before.
pub async fn run(file: PathBuf) -> Result<()> {
    let config = device::load(file.clone()).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let control = Control::open(&config.daemon.control_socket)?;
    let (calls, mut called) = mpsc::channel(1);
    tokio::spawn(control.serve(calls));
    let bells = broadcast::Sender::new(BELLS);
    tokio::spawn(listen(bells.clone()));

    let (ends, mut ended) = mpsc::unbounded_channel();
    let starter = Starter { config: Arc::new(config), spares: Default::default(), bells };
    let mut all = Supervisor::new(file, starter, ends);
    let mut again = interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // It certifies that this loop turns: signals and calls are heard, and the drivers, on the same thread, get their turns.
    // It says nothing of any disk: the others are served while one hangs.
    let mut watchdog = interval(notify::watchdog_interval().unwrap_or(AGAIN));
    let mut told = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => all.reload(answer_in_the_log()),
            Some(call) = called.recv() => all.call(call),
            Some(end) = ended.recv() => all.ended(end),
            _ = watchdog.tick() => notify::alive(),
            _ = again.tick() => all.again(),
        }
        // A start that is late counts as tried, so this is within twice AGAIN.
        if !told && all.all_tried() {
            notify::ready();
            told = true;
        }
    }
    notify::stopping();
    let end_of_reload = async {
        while all.reloading {
            let Some(end) = ended.recv().await else { return };
            all.ended(end);
        }
    };
    if timeout(RELOAD, end_of_reload).await.is_err() {
        tracing::warn!("a reload is cut off");
    }
    all.stop(watchdog).await;
    Ok(())
}

/// For a reload that a signal asks for.
fn answer_in_the_log() -> mpsc::Sender<Answer> {
    let (to, mut answer) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Some(Answer::Error(why)) = answer.recv().await {
            tracing::error!("{why}");
        }
    });
    to
}

/// Passes doorbells on.
async fn listen(bells: broadcast::Sender<Bell>) {
    loop {
        let heard = async {
            let mut doorbells = Doorbells::open()?;
            loop {
                for bell in doorbells.next().await? {
                    // It fails while there is no device.
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

/// A reason is logged when it changes.
fn fail(failed: &mut BTreeMap<String, String>, name: &str, why: String) {
    if failed.insert(name.to_owned(), why.clone()).as_ref() != Some(&why) {
        tracing::error!("{name} is not served: {why}");
    }
}

fn is_of(device: &Device, info: &InstanceInfo) -> bool {
    let disks = device.handle.target.disks;
    (disks.data.wire(), disks.spare.wire()) == (info.data_dev, info.spare_dev)
}

impl Supervisor {
    fn new(file: PathBuf, starter: Starter, ends: mpsc::UnboundedSender<End>) -> Supervisor {
        Supervisor {
            file,
            starter,
            devices: BTreeMap::new(),
            starting: BTreeMap::new(),
            failed: BTreeMap::new(),
            adopting: BTreeSet::new(),
            strangers: BTreeMap::new(),
            reloading: false,
            waiting: None,
            ends,
        }
    }

    /// Its end is heard in [`Supervisor::ended`].
    fn begin(&self, task: impl Future<Output = End> + Send + 'static) {
        let ends = self.ends.clone();
        tokio::spawn(async move {
            // Nobody listens any more when the daemon ends.
            let _ = ends.send(task.await);
        });
    }

    fn ended(&mut self, end: End) {
        match end {
            End::Started(section, device) => self.started(*section, device),
            End::Listed(Ok(instances), located) => self.listed(instances, &located),
            End::Listed(Err(error), _) => tracing::warn!("instances cannot be listed: {error}"),
            End::Adopted(instance, device) => self.adopted(instance, device),
            End::Reloaded(done, to) => self.reloaded(done, &to),
        }
        self.reload_if_due();
    }

    /// Tries what is not served.
    fn again(&mut self) {
        for (name, start) in &mut self.starting {
            start.late = true;
            fail(&mut self.failed, name, LATE.to_owned());
        }
        self.reload_if_due();
        if self.reloading {
            return;
        }
        for device in &self.starter.config.device {
            let name = device.name.get_ref();
            if self.devices.contains_key(name) || self.starting.contains_key(name) {
                continue;
            }
            let start = Start { section: device.clone(), late: false };
            self.starting.insert(name.clone(), start);
            let (starter, device) = (self.starter.clone(), Box::new(device.clone()));
            self.begin(async move {
                let started = starter.configured(&device).await;
                End::Started(device, started)
            });
        }
        self.list();
    }

    fn list(&self) {
        let config = self.starter.config.clone();
        self.begin(async { End::Listed(instances().await, Located::by(config).await) });
    }

    fn all_tried(&self) -> bool {
        let tried = |name| self.devices.contains_key(name) || self.failed.contains_key(name);
        self.starter.config.device.iter().all(|device| tried(device.name.get_ref()))
    }

    fn started(&mut self, section: config::Device, device: Result<Device>) {
        let name = section.name.get_ref();
        self.starting.remove(name);
        match device {
            Ok(device) if self.starter.config.device(name) == Some(&section) => {
                self.failed.remove(name);
                self.enter(device);
            }
            // It took so long that a reload has come between.
            Ok(device) => drop(tokio::spawn(undo(device))),
            Err(error) if self.starter.config.device(name).is_some() => {
                fail(&mut self.failed, name, Words(&error).to_string());
            }
            Err(_) => {}
        }
    }

    /// Lets it through.
    fn enter(&mut self, device: Device) {
        finish(&device);
        // A reload may have come between.
        self.give_policy(&device);
        self.devices.insert(device.name().to_owned(), device);
    }

    fn give_policy(&self, device: &Device) {
        let (handle, policy) = (device.handle.clone(), self.starter.config.policy.clone());
        tokio::spawn(async move { handle.set_policy(policy).await });
    }

    fn listed(&mut self, instances: Vec<InstanceInfo>, located: &Located) {
        self.strangers.retain(|known, _| instances.iter().any(|info| info.instance == *known));
        if self.reloading {
            return;
        }
        self.let_go(&instances, located);
        for info in instances {
            if self.devices.values().any(|device| is_of(device, &info))
                || !self.adopting.insert(info.instance)
            {
                continue;
            }
            let starter = self.starter.clone();
            self.begin(async move {
                let adopted = starter.stranger(&info).await;
                End::Adopted(info.instance, adopted)
            });
        }
    }

    /// What has been removed leaves its disks to others, unless it is configured, and on these disks.
    fn let_go(&mut self, instances: &[InstanceInfo], located: &Located) {
        let config = &self.starter.config;
        // A reload has come between, and may have started what was not there yet.
        if !Arc::ptr_eq(config, &located.config) {
            return;
        }
        let why = |device: &Device| {
            if instances.iter().any(|info| is_of(device, info)) {
                return None;
            }
            match (config.device(device.name()), located.disks.get(device.name())) {
                (None, _) => Some("not configured"),
                (_, Some(disks)) if *disks != device.handle.target.disks => {
                    Some("its paths lead to other disks now")
                }
                _ => None,
            }
        };
        let gone = self.devices.values().filter_map(|d| Some((d.name().to_owned(), why(d)?)));
        for (name, why) in gone.collect::<Vec<_>>() {
            let Some(device) = self.devices.remove(&name) else { continue };
            tracing::info!("{name}: removed, and {why}: its spare is closed");
            tokio::spawn(device.stop());
        }
    }

    fn adopted(&mut self, instance: u32, device: Result<Option<Device>>) {
        self.adopting.remove(&instance);
        match device {
            Ok(None) => {}
            Ok(Some(device)) => {
                tracing::info!("{}: adopted", device.name());
                self.give_policy(&device);
                self.devices.insert(device.name().to_owned(), device);
            }
            Err(error) => {
                let why = Words(&error).to_string();
                if self.strangers.insert(instance, why.clone()).as_ref() != Some(&why) {
                    tracing::error!("instance {instance} is not adopted: {why}");
                }
            }
        }
    }

    fn call(&mut self, (request, to): Call) {
        match request {
            Request::Status {} => {
                let served = self.devices.values().map(|device| device.handle.clone()).collect();
                tokio::spawn(report::status(served, self.failed.clone(), to));
            }
            Request::List { device } => match self.devices.get(&device) {
                Some(device) => drop(tokio::spawn(report::list(device.handle.clone(), to))),
                None => {
                    let names: Vec<&str> = self.devices.keys().map(String::as_str).collect();
                    let why = format!("no device {device:?} is served; there is {names:?}");
                    let _ = to.try_send(Answer::Error(why));
                }
            },
            Request::Reload {} => self.reload(to),
        }
    }

    /// One at a time.
    fn reload(&mut self, to: mpsc::Sender<Answer>) {
        if std::mem::replace(&mut self.reloading, true) {
            let why = "nothing was changed: a reload is under way; try again when it has ended";
            let _ = to.try_send(Answer::Error(why.to_owned()));
            return;
        }
        notify::reloading();
        self.waiting = Some(to);
        self.reload_if_due();
    }

    fn reload_if_due(&mut self) {
        if !self.starting.values().all(|start| start.late) {
            return;
        }
        let Some(to) = self.waiting.take() else { return };
        let served = self.devices.iter();
        let starting = self.starting.iter();
        let reload = Reload {
            file: self.file.clone(),
            starter: self.starter.clone(),
            served: served.map(|(name, device)| (name.clone(), device.handle.clone())).collect(),
            starting: starting.map(|(name, start)| (name.clone(), start.section.clone())).collect(),
        };
        self.begin(async move { End::Reloaded(reload.run().await, to) });
    }

    fn reloaded(&mut self, done: Result<Reloaded>, to: &mpsc::Sender<Answer>) {
        self.reloading = false;
        let answer = match done {
            Ok(Reloaded { config, started }) => {
                self.failed.retain(|name, _| config.device(name).is_some());
                self.starter.config = config;
                // One may have come between.
                self.devices.values().for_each(|device| self.give_policy(device));
                for device in started {
                    self.failed.remove(device.name());
                    self.enter(device);
                }
                tracing::info!("the configuration was reloaded");
                self.list();
                Answer::Done
            }
            Err(error) => Answer::Error(format!("nothing was changed: {}", Words(&error))),
        };
        notify::ready();
        let _ = to.try_send(answer);
    }

    /// All at once: one whose disk hangs must not keep the others from being closed.
    async fn stop(self, mut watchdog: Interval) {
        let mut last: JoinSet<()> = self.devices.into_values().map(Device::stop).collect();
        while !last.is_empty() {
            tokio::select! {
                _ = last.join_next() => {}
                _ = watchdog.tick() => notify::alive(),
            }
        }
    }
}
