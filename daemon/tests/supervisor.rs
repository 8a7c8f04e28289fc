//! The daemon's loop, without a device: what it hears while something hangs.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dmremap_policyd::service::client::ask;
use dmremap_policyd::service::control::Request;
use dmremap_policyd::service::supervisor;
use nix::sys::signal::{Signal, raise};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(60);

/// The daemon's answer, in words.
fn asked(socket: &Path, request: Request) -> JoinHandle<String> {
    let socket = socket.to_owned();
    spawn_blocking(move || match ask(&socket, &request, |_| Ok(())) {
        Ok(()) => "done".to_owned(),
        Err(error) => error.to_string(),
    })
}

async fn answered(answer: JoinHandle<String>) -> String {
    timeout(LIMIT, answer).await.expect("an answer").expect("no panic")
}

async fn begun(file: &Path, socket: &Path) -> JoinHandle<anyhow::Result<()>> {
    let daemon = tokio::spawn(supervisor::run(file.to_owned()));
    while answered(asked(socket, Request::Status {})).await != "done" {
        assert!(!daemon.is_finished(), "{:?}", daemon.await);
        sleep(Duration::from_millis(20)).await;
    }
    daemon
}

/// A reload waits for the disk that the file is on, and for the I/O of devices. All that time nobody fed the watchdog,
/// and no call was answered.
#[tokio::test]
async fn calls_and_signals_are_heard_while_a_reload_hangs() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, socket): (PathBuf, PathBuf) =
        (directory.path().join("c.toml"), directory.path().join("socket"));
    let text = format!("[daemon]\ncontrol_socket = {socket:?}\n");
    fs::write(&file, &text).expect("written");
    let daemon = begun(&file, &socket).await;

    // Whoever reads it waits for a writer.
    fs::remove_file(&file).expect("removed");
    mkfifo(&file, Mode::S_IRUSR | Mode::S_IWUSR).expect("made");
    let (mut one, mut two) =
        (asked(&socket, Request::Reload {}), asked(&socket, Request::Reload {}));
    // One of them waits for the file; which, is for the scheduler to say.
    let (refused, other) = tokio::select! {
        answer = &mut one => (answer.expect("no panic"), two),
        answer = &mut two => (answer.expect("no panic"), one),
        () = sleep(LIMIT) => panic!("neither reload is answered"),
    };
    let words = "nothing was changed: a reload is under way; try again when it has ended";
    assert_eq!(refused, words);
    assert_eq!(answered(asked(&socket, Request::Status {})).await, "done");
    fs::write(&file, &text).expect("written");
    assert_eq!(answered(other).await, "done");

    // It ended the daemon, with the spares left open.
    fs::remove_file(&file).expect("removed");
    raise(Signal::SIGHUP).expect("sent");
    assert_eq!(answered(asked(&socket, Request::Status {})).await, "done");

    raise(Signal::SIGTERM).expect("sent");
    timeout(LIMIT, daemon).await.expect("its end").expect("no panic").expect("well");
}
