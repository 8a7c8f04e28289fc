//! What the service manager is told; where there is none, nothing happens.

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
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager is not told {state:?}: {error}");
    }
}
