use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Medium, VolatileStore};

/// Several disks that lose their power together.
///
/// A request between a cut and [`Power::on`] is undone and hangs for good, as on a machine without power: so no
/// acknowledgement can be seen after the cut, and the guest sees no error either. nbdkit, too, must not be given an answer
/// for a guest that is dead: it ends itself when two of them meet.
pub struct Power<M> {
    state: Mutex<State<M>>,
    /// Notified when a request has been carried out.
    carried_out: Condvar,
}

struct State<M> {
    disks: BTreeMap<String, VolatileStore<M>>,
    on: bool,
}

/// What a cut did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutReport {
    /// The same seed over the same unflushed writes gives the same result.
    pub seed: u64,
    /// By the name of the disk.
    pub disks: BTreeMap<String, Loss>,
}

/// What a cut did to one disk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Sectors that had unflushed writes.
    pub unflushed: usize,
    /// Those of them that did not keep their last version.
    pub lost: usize,
}

impl CutReport {
    /// All disks together.
    #[must_use]
    pub fn total(&self) -> Loss {
        self.disks.values().fold(Loss::default(), |sum, disk| Loss {
            unflushed: sum.unflushed + disk.unflushed,
            lost: sum.lost + disk.lost,
        })
    }
}

impl<M: Medium> Power<M> {
    pub fn new(disks: BTreeMap<String, VolatileStore<M>>) -> Self {
        Self { state: Mutex::new(State { disks, on: true }), carried_out: Condvar::new() }
    }

    /// One request to the disk `name`, for which the power must stay on.
    pub fn request<T>(
        &self,
        name: &str,
        request: impl FnOnce(&mut VolatileStore<M>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        if !state.on {
            drop(state);
            loop {
                thread::park();
            }
        }
        let done = request(state.disks.get_mut(name).ok_or_else(|| no_disk(name))?);
        self.carried_out.notify_all();
        done
    }

    /// Looks at or steers a disk, whether or not there is power.
    pub fn steer<T>(
        &self,
        name: &str,
        steer: impl FnOnce(&mut VolatileStore<M>) -> T,
    ) -> io::Result<T> {
        self.lock().disks.get_mut(name).map(steer).ok_or_else(|| no_disk(name))
    }

    /// The names of the disks, in order.
    pub fn names(&self) -> Vec<String> {
        self.lock().disks.keys().cloned().collect()
    }

    /// Cuts the power: each sector with unflushed writes ends, independently of all others, as its durable
    /// content or any version written since. At least one loses its last version, if there is any; for one to be there
    /// the cut waits at most so long.
    pub fn cut(&self, seed: u64, patience: Duration) -> io::Result<CutReport> {
        let clean = |state: &mut State<M>| {
            state.disks.values().all(|disk| disk.unflushed().next().is_none())
        };
        let (mut state, _) = self
            .carried_out
            .wait_timeout_while(self.lock(), patience, clean)
            .unwrap_or_else(PoisonError::into_inner);
        state.on = false;
        let disks = &mut state.disks;
        let mut losses: BTreeMap<String, Loss> =
            disks.keys().map(|name| (name.clone(), Loss::default())).collect();
        let dirty: Vec<(String, u64, usize)> = (disks.iter())
            .flat_map(|(name, disk)| {
                disk.unflushed().map(|(sector, versions)| (name.clone(), sector, versions))
            })
            .collect();
        let counts: Vec<usize> = dirty.iter().map(|(_, _, versions)| *versions).collect();
        let kept = choose(seed, &counts);
        for ((name, sector, versions), kept) in dirty.into_iter().zip(kept) {
            disks.get_mut(&name).ok_or_else(|| no_disk(&name))?.settle(sector, kept)?;
            let loss = losses.entry(name).or_default();
            loss.unflushed += 1;
            loss.lost += usize::from(kept < versions);
        }
        Ok(CutReport { seed, disks: losses })
    }

    /// Gives the power back.
    pub fn on(&self) {
        self.lock().on = true;
    }

    // A panic elsewhere leaves the disks as they were at that instant, which is a state a disk may be in.
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For each sector, out of so many unflushed versions, how many it keeps. How likely the last version is kept is drawn
/// once a cut, so that cuts that lose nearly all and cuts that lose nearly nothing both happen.
fn choose(seed: u64, versions: &[usize]) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(seed);
    let keep_last = random.f64();
    let mut older_or_last =
        |&count: &usize| if random.f64() < keep_last { count } else { random.usize(..count) };
    let mut kept: Vec<usize> = versions.iter().map(&mut older_or_last).collect();
    if !kept.is_empty() && kept == versions {
        let unlucky = random.usize(..kept.len());
        kept[unlucky] = random.usize(..versions[unlucky]);
    }
    kept
}

fn no_disk(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no disk named {name:?}"))
}
