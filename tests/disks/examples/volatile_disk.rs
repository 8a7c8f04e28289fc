//! The nbdkit plugin: every parameter `NAME=IMAGE` is an export named NAME on one shared power, and
//! `control=SOCKET` is where they are steered, as is the export named control. See `dmremap_disks::server`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::{io, iter};

use dmremap_disks::SECTOR;
use dmremap_disks::server::{self, CONTROL, CONTROL_SIZE};
use dmremap_disks::volatile::{Power, VolatileStore};
use nbdkit::{Error, Flags, FuaFlags, Result, Server, ThreadModel, plugin};

static PARAMETERS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
static POWER: OnceLock<Power<File>> = OnceLock::new();

/// The answer to the last command that came through the export for control.
static ANSWER: Mutex<String> = Mutex::new(String::new());

/// One connection to the export of this name.
struct Connection(String);

fn power() -> io::Result<&'static Power<File>> {
    POWER.get().ok_or_else(|| io::Error::other("the disks are not open yet"))
}

fn open_disk(image: &str) -> io::Result<VolatileStore<File>> {
    let file = File::options().read(true).write(true).open(image)?;
    let bytes = file.metadata()?.len();
    Ok(VolatileStore::new(file, bytes / SECTOR as u64))
}

impl Server for Connection {
    fn name() -> &'static str {
        "volatile-disk"
    }

    fn config(key: &str, value: &str) -> Result<()> {
        PARAMETERS.lock().unwrap_or_else(PoisonError::into_inner).insert(key.into(), value.into());
        Ok(())
    }

    fn config_complete() -> Result<()> {
        Ok(())
    }

    // Threads do not outlive a fork, so the control socket opens after nbdkit's.
    fn after_fork() -> Result<()> {
        let mut parameters = PARAMETERS.lock().unwrap_or_else(PoisonError::into_inner);
        let control = parameters
            .remove("control")
            .ok_or_else(|| Error::new(22, "control=SOCKET is missing"))?;
        let disks = (parameters.iter())
            .map(|(name, image)| {
                let opened =
                    open_disk(image).map_err(|error| Error::new(5, format!("{image}: {error}")));
                Ok((name.clone(), opened?))
            })
            .collect::<Result<_>>()?;
        let power = POWER.get_or_init(|| Power::new(disks));
        let listener = UnixListener::bind(&control)
            .map_err(|error| Error::new(5, format!("{control}: {error}")))?;
        thread::spawn(move || server::listen(&listener, power));
        Ok(())
    }

    fn open(_readonly: bool) -> Result<Box<dyn Server>> {
        let name = nbdkit::export_name().map_err(|error| Error::new(2, error.to_string()))?;
        if name != CONTROL {
            power()?.steer(&name, |_| ())?;
        }
        Ok(Box::new(Connection(name)))
    }

    fn thread_model() -> Result<ThreadModel> {
        Ok(ThreadModel::Parallel)
    }

    fn get_size(&self) -> Result<i64> {
        if self.0 == CONTROL {
            return Ok(CONTROL_SIZE as i64);
        }
        Ok(power()?.steer(&self.0, |disk| (disk.sectors() * SECTOR as u64) as i64)?)
    }

    fn can_write(&self) -> Result<bool> {
        Ok(true)
    }

    fn can_flush(&self) -> Result<bool> {
        Ok(true)
    }

    fn can_fua(&self) -> Result<FuaFlags> {
        Ok(FuaFlags::Native)
    }

    // A flush on one connection covers the writes acknowledged on all.
    fn can_multi_conn(&self) -> Result<bool> {
        Ok(true)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.0 == CONTROL {
            let answer = ANSWER.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = answer.bytes().skip(offset as usize).chain(iter::repeat(0));
            buf.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
            return Ok(());
        }
        Ok(power()?.request(&self.0, |disk| disk.read(buf, offset))?)
    }

    fn write_at(&self, buf: &[u8], offset: u64, flags: Flags) -> Result<()> {
        if self.0 == CONTROL {
            let command = String::from_utf8_lossy(buf);
            let answer = server::answer(power()?, command.trim_end_matches('\0'));
            let answer = serde_json::to_string(&answer).map_err(io::Error::from)?;
            *ANSWER.lock().unwrap_or_else(PoisonError::into_inner) = answer;
            return Ok(());
        }
        let fua = flags.contains(Flags::FUA);
        Ok(power()?.request(&self.0, |disk| disk.write(buf, offset, fua))?)
    }

    fn flush(&self) -> Result<()> {
        if self.0 == CONTROL {
            return Ok(());
        }
        Ok(power()?.request(&self.0, |disk| disk.flush())?)
    }
}

plugin!(Connection {
    after_fork,
    can_flush,
    can_fua,
    can_multi_conn,
    can_write,
    config,
    config_complete,
    flush,
    thread_model,
    write_at
});
