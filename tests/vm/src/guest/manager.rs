//! The service manager of a daemon under a case's control.

use std::fs;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::kernel::scaled;

pub const SOCKET: &str = "/run/vm/notify.sock";
const PATIENCE: Duration = Duration::from_secs(30);

/// What systemd is to a unit of `Type=notify`.
pub struct Manager {
    socket: UnixDatagram,
    said: Receiver<String>,
}

impl Manager {
    pub fn new() -> Result<Self> {
        let socket = UnixDatagram::bind(SOCKET).context(SOCKET)?;
        let (heard, (tell, said)) = (socket.try_clone()?, channel());
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(len @ 1..) = heard.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).trim_end().to_owned();
                if tell.send(text).is_err() {
                    break;
                }
            }
        });
        Ok(Self { socket, said })
    }

    pub fn next(&self) -> Result<String> {
        self.said.recv_timeout(scaled(PATIENCE)).context("the daemon is silent")
    }

    /// What it was told so far, and has not looked at.
    pub fn heard(&self) -> Vec<String> {
        self.said.try_iter().collect()
    }

    /// The next message but those for the watchdog.
    pub fn news(&self) -> Result<String> {
        loop {
            let said = self.next()?;
            if said != "WATCHDOG=1" {
                return Ok(said);
            }
        }
    }

    /// A reload is announced with the time, and its end by readiness.
    pub fn hears_a_reload(&self, begun: u64) -> Result<()> {
        let said = self.news()?;
        let time = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time: u64 = time.with_context(|| said.clone())?.parse()?;
        ensure!((begun..now()? + 10_000).contains(&time), "{time} is not now");
        let said = self.news()?;
        ensure!(said == "READY=1", "{said:?} after a reload");
        Ok(())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Ends the thread that listens; a socket that stays would fail the next case that binds it.
        let _ = self.socket.shutdown(Shutdown::Both);
        let _ = fs::remove_file(SOCKET);
    }
}

/// In microseconds, rounded down to hundredths of a second.
pub fn now() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let hundredths: String = text.chars().take_while(|c| *c != ' ').filter(|c| *c != '.').collect();
    Ok(hundredths.parse::<u64>()? * 10_000)
}
