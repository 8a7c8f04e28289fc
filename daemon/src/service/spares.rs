//! Which spare is whose. Of two with one label nobody can tell which is the copy: both are refused, before anything is
//! written to either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::Config;
use crate::config::resolve::{DevNo, Place, block_device, resolve};
use crate::metadata::Uuid;
use crate::pair;

/// A spare that does not tell its label within this time is not there for the others: one disk that hangs must not keep
/// them from service.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// A spare that carries a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spare {
    at: DevNo,
    label: Uuid,
}

impl Spare {
    fn at(path: &Path) -> Option<Spare> {
        Some(Spare { at: block_device(path).ok()?, label: pair::label(path)? })
    }
}

#[derive(Clone)]
pub struct Spares {
    known: Arc<Mutex<Known>>,
    read: fn(&Path) -> Option<Spare>,
    patience: Duration,
}

#[derive(Default)]
struct Known {
    /// Under way, or ended. However long a disk hangs, one thread waits for it.
    reads: BTreeMap<PathBuf, watch::Receiver<Option<Option<Spare>>>>,
    /// By the name of the device that has it.
    taken: BTreeMap<String, Option<Spare>>,
}

/// No other device gets this name, or a spare with this label, while it lives.
pub struct Taken {
    name: String,
    spares: Spares,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.spares.known().taken.remove(&self.name);
    }
}

impl Default for Spares {
    fn default() -> Spares {
        Spares { known: Arc::default(), read: Spare::at, patience: PATIENCE }
    }
}

impl Spares {
    /// Refused if another device has a spare with the same label, or the configuration names one.
    pub async fn take(&self, config: &Config, name: &str, path: &Path) -> Result<Taken> {
        let config = config.clone();
        let named = spawn_blocking(move || named(&config)).await?;
        let others = named.into_iter().filter(|(other, _)| other != name);
        let others: Vec<_> = others
            .map(|(other, path)| async move { Some((other, self.label(&path).await.ok()??)) })
            .collect();
        let (ours, others) = tokio::join!(self.label(path), join_all(others));
        self.enter(name, ours?, others.into_iter().flatten().collect())
    }

    fn enter(
        &self,
        name: &str,
        ours: Option<Spare>,
        others: Vec<(String, Spare)>,
    ) -> Result<Taken> {
        let mut known = self.known();
        ensure!(!known.taken.contains_key(name), "{name} is served already, or about to be");
        let taken = known.taken.iter().filter_map(|(other, spare)| Some((other, (*spare)?)));
        for (other, spare) in taken.chain(others.iter().map(|(other, spare)| (other, *spare))) {
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
        known.taken.insert(name.to_owned(), ours);
        Ok(Taken { name: name.to_owned(), spares: self.clone() })
    }

    /// None: it has no label that can be read.
    async fn label(&self, path: &Path) -> Result<Option<Spare>> {
        let mut told = self.ask(path);
        let label = timeout(self.patience, told.wait_for(Option::is_some)).await;
        let label = label.with_context(|| {
            let seconds = self.patience.as_secs();
            format!("the spare {} has not answered a read for {seconds} s", path.display())
        })?;
        Ok(label.ok().and_then(|label| label.flatten()))
    }

    fn ask(&self, path: &Path) -> watch::Receiver<Option<Option<Spare>>> {
        let mut known = self.known();
        let under_way = |told: &&watch::Receiver<Option<_>>| {
            told.borrow().is_none() && told.has_changed().is_ok()
        };
        if let Some(told) = known.reads.get(path).filter(under_way) {
            return told.clone();
        }
        let (tell, told) = watch::channel(None);
        known.reads.insert(path.to_owned(), told.clone());
        let (read, path) = (self.read, path.to_owned());
        spawn_blocking(move || tell.send_replace(Some(read(&path))));
        told
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The spares of a configuration, those left out whose paths are wrong: the same disk under another path
/// is no copy.
fn named(config: &Config) -> Vec<(String, PathBuf)> {
    let found = resolve(config, Place::of).into_iter().filter(|(_, disks)| disks.is_ok());
    found.map(|(d, _)| (d.name.get_ref().clone(), d.spare.get_ref().clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    static HUNG: AtomicBool = AtomicBool::new(true);
    static READS: AtomicU32 = AtomicU32::new(0);

    fn spare(minor: u32, label: u8) -> Spare {
        Spare { at: DevNo { major: 8, minor }, label: Uuid([label; 16]) }
    }

    fn read(path: &Path) -> Option<Spare> {
        if path == Path::new("/hung") {
            READS.fetch_add(1, Ordering::SeqCst);
            while HUNG.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Some(spare(1, 1))
    }

    /// A start of it is tried every few seconds: each try left a thread, were it to read for itself.
    #[tokio::test]
    async fn one_thread_waits_for_a_disk_that_hangs_and_nobody_else_does_for_long() {
        let spares = Spares { known: Arc::default(), read, patience: Duration::from_millis(20) };
        for _ in 0..3 {
            let error = spares.label(Path::new("/hung")).await.expect_err("it hangs").to_string();
            assert_eq!(error, "the spare /hung has not answered a read for 0 s");
        }
        assert_eq!(READS.load(Ordering::SeqCst), 1);
        let patient = Spares { patience: Duration::from_secs(60), ..spares };
        assert_eq!(patient.label(Path::new("/good")).await.expect("answers"), Some(spare(1, 1)));
        HUNG.store(false, Ordering::SeqCst);
        assert_eq!(patient.label(Path::new("/hung")).await.expect("answers"), Some(spare(1, 1)));
    }

    #[test]
    fn a_name_a_spare_and_a_label_are_one_devices_until_it_lets_go() {
        let spares = Spares::default();
        let refused = |name: &str, ours, others: Vec<(String, Spare)>| {
            spares.enter(name, Some(ours), others).err().map(|error| error.to_string())
        };
        let taken = spares.enter("a", Some(spare(1, 1)), vec![]).expect("free");
        assert!(refused("a", spare(2, 2), vec![]).expect("refused").contains("served already"));
        assert!(refused("b", spare(1, 1), vec![]).expect("refused").contains("the one of a"));
        assert!(refused("b", spare(2, 1), vec![]).expect("refused").contains("that of a have one"));
        let named = vec![("c".to_owned(), spare(3, 2))];
        assert!(refused("b", spare(2, 2), named).expect("refused").contains("that of c have one"));
        assert_eq!(refused("b", spare(2, 2), vec![]), None);
        drop(taken);
        assert_eq!(refused("b", spare(2, 1), vec![]), None);
    }
}
