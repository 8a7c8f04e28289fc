//! What the service manager is told; where there is none, nothing happens.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;

pub fn ready() {
    send(&[NotifyState::Ready]);
}

pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("the service manager is not told of the reload: {error}"),
    }
}

pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often the watchdog wants [`alive`]: half of the time after which it would act.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(state: &[NotifyState]) {
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let text: String = state.iter().map(|line| format!("{line}\n")).collect();
    if let Err(error) = tell(Path::new(&manager), &text) {
        tracing::warn!("the service manager is not told {state:?}: {error}");
    }
}

/// Never waits: the manager may wait for a device that is served here.
fn tell(manager: &Path, text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(manager)?;
    socket.send(text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_listen_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        tell(&path, "READY=1\n").expect("there is room");
        let mut buf = [0; 64];
        let len = manager.recv(&mut buf).expect("received");
        assert_eq!(&buf[..len], b"READY=1\n");
        let full = (0..1 << 20).find_map(|_| tell(&path, "WATCHDOG=1\n").err());
        assert_eq!(full.expect("no room").kind(), io::ErrorKind::WouldBlock);
    }
}
