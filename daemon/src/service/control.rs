//! The control socket: where the operator's commands reach the running daemon.
//!
//! One line of JSON a request; the answer is any number of parts and an end, each a line. Only root
//! can connect. Everything is bounded: lines, clients, and how long one may keep quiet.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustix::fs::{FlockOperation, Mode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::codec::{Framed, LinesCodec};

/// The longest line of a request, in bytes.
pub const REQUEST: usize = 4096;
/// The longest line of an answer.
pub const ANSWER: usize = 4 << 20;
const CLIENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status {},
    List { device: String },
    Reload {},
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Part(Value),
    Done,
    Error(String),
}

/// A request and where its answer goes; without `Done` or `Error` the client learns that the daemon
/// gave up.
pub type Call = (Request, mpsc::Sender<Answer>);

/// The socket, and the lock beside it by which a second daemon is refused.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl Control {
    pub fn open(path: &Path) -> io::Result<Control> {
        let explain = |what: &str| {
            let place = path.display().to_string();
            let what = what.to_owned();
            move |error: io::Error| io::Error::new(error.kind(), format!("{place}: {what}{error}"))
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(explain("cannot make its directory: "))?;
        }
        let lock =
            File::create([path.as_os_str(), ".lock".as_ref()].into_iter().collect::<OsString>());
        let lock = lock.map_err(explain("cannot make its lock file: "))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another dmremap-policyd runs; stop it first"))
            .map_err(explain(""))?;
        // Whoever left a socket here is gone, because we hold the lock. Anything else is not ours.
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => {
                let other = io::Error::other("something that is no socket is in its place");
                return Err(explain("")(other));
            }
            Err(_) => {}
        }
        // From its first moment the socket is for its owner only.
        let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let listener = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = listener.map_err(explain("cannot listen: "))?;
        Ok(Control { listener, path: path.to_owned(), _lock: lock })
    }

    /// Takes calls for as long as somebody receives them.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let client = tokio::select! {
                client = self.listener.accept() => client,
                () = calls.closed() => return,
            };
            match client {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    tokio::spawn(async move {
                        if let Err(error) = attend(stream, &calls).await {
                            tracing::debug!("control socket: {error}");
                        }
                        drop(place);
                    });
                }
                // Out of descriptors, say: a moment later there may be some.
                Err(error) => {
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A socket that stays is removed by the next daemon.
        let _ = fs::remove_file(&self.path);
    }
}

/// What takes a client's bytes apart.
pub fn lines() -> LinesCodec {
    LinesCodec::new_with_max_length(REQUEST)
}

/// What a line asks, or what is answered to one that asks nothing.
pub fn understand(line: &str) -> Result<Request, Answer> {
    serde_json::from_str(line)
        .map_err(|error| Answer::Error(format!("request not understood: {error}")))
}

async fn attend(stream: UnixStream, calls: &mpsc::Sender<Call>) -> anyhow::Result<()> {
    let mut lines = Framed::new(stream, self::lines());
    while let Some(line) = timeout(PATIENCE, lines.next()).await? {
        let request = match understand(&line?) {
            Ok(request) => request,
            Err(refusal) => {
                say(&mut lines, &refusal).await?;
                continue;
            }
        };
        let (to, mut answers) = mpsc::channel(1);
        calls.send((request, to)).await?;
        let mut ended = false;
        while let Some(answer) = answers.recv().await {
            ended = answer == Answer::Done || matches!(answer, Answer::Error(_));
            say(&mut lines, &answer).await?;
        }
        if !ended {
            let gave_up = Answer::Error("the daemon gave the request up".to_owned());
            say(&mut lines, &gave_up).await?;
        }
    }
    Ok(())
}

/// A client that does not listen has its place for so long only.
async fn say(lines: &mut Framed<UnixStream, LinesCodec>, answer: &Answer) -> anyhow::Result<()> {
    Ok(timeout(PATIENCE, lines.send(serde_json::to_string(answer)?)).await??)
}

#[cfg(test)]
mod tests;
