use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Medium, VolatileStore};

/// Several disks that lose their power together.
///
/// Between a cut and [`Power::on`] a request hangs, as it does on a machine without power, and then fails
/// undone: so no acknowledgement can be seen after the cut, and the guest sees no error either.
pub struct Power<M> {
    state: Mutex<State<M>>,
    restored: Condvar,
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
    /// Sectors that had unflushed writes.
    pub unflushed: usize,
    /// Those of them that did not keep their last version.
    pub lost: usize,
}

impl<M: Medium> Power<M> {
    pub fn new(disks: BTreeMap<String, VolatileStore<M>>) -> Self {
        Self { state: Mutex::new(State { disks, on: true }), restored: Condvar::new() }
    }

    /// One request to the disk `name`, for which the power must stay on.
    pub fn request<T>(
        &self,
        name: &str,
        request: impl FnOnce(&mut VolatileStore<M>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        if !state.on {
            let _on = self
                .restored
                .wait_while(state, |state| !state.on)
                .unwrap_or_else(PoisonError::into_inner);
            return Err(rustix::io::Errno::IO.into());
        }
        request(state.disks.get_mut(name).ok_or_else(|| no_disk(name))?)
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
    /// content or any version written since. At least one loses its last version, if there is any.
    pub fn cut(&self, seed: u64) -> io::Result<CutReport> {
        let mut state = self.lock();
        state.on = false;
        let disks = &mut state.disks;
        let dirty: Vec<(String, u64, usize)> = (disks.iter())
            .flat_map(|(name, disk)| {
                disk.unflushed().map(|(sector, versions)| (name.clone(), sector, versions))
            })
            .collect();
        let counts: Vec<usize> = dirty.iter().map(|(_, _, versions)| *versions).collect();
        let kept = choose(seed, &counts);
        for ((name, sector, _), &kept) in dirty.iter().zip(&kept) {
            disks.get_mut(name).ok_or_else(|| no_disk(name))?.settle(*sector, kept)?;
        }
        let lost = kept.iter().zip(&counts).filter(|(kept, count)| kept < count).count();
        Ok(CutReport { seed, unflushed: dirty.len(), lost })
    }

    /// Gives the power back.
    pub fn on(&self) {
        self.lock().on = true;
        self.restored.notify_all();
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
