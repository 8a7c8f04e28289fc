//! The conversation with the kernel: one socket for requests, whose end is the end of its claims,
//! and one for doorbells, so that neither can fill the other's buffer.

mod doorbell;
mod owned;
mod socket;

use std::io;
use std::time::Duration;

use dmremap_protocol::frame::{self, Answer, FrameError, Refusal};
use dmremap_protocol::{DecodeError, Family, Message, Request, TooMany, linux};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

pub use doorbell::{Bell, Doorbells};
use socket::Socket;

/// The kernel answers while it takes the request; this long without one, and something is broken.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum LinkError {
    #[error("the module dm_remap_shim is not loaded; `modprobe dm_remap_shim` loads it")]
    NoModule,
    /// Its instances are others, though they may have the same numbers.
    #[error("the module dm_remap_shim has been loaded anew")]
    Anew,
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("netlink socket: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("message of the kernel: {0}")]
    Decode(#[from] DecodeError),
    #[error("request: {0}")]
    Request(#[from] TooMany),
}

impl LinkError {
    /// The number that the kernel refused with.
    pub fn errno(&self) -> Option<i32> {
        match self {
            LinkError::Refused(refusal) => Some(refusal.errno),
            _ => None,
        }
    }
}

/// A socket for requests. Instances claimed through it are let go when it is dropped.
pub struct Link {
    channel: Channel,
    family: Family,
}

impl Link {
    /// The kernel loads the module if it is not there.
    pub async fn open() -> Result<Link, LinkError> {
        let mut channel = Channel::open()?;
        let answer = channel.request(linux::GENL_ID_CTRL, false, &Family::request()).await;
        let answer = match answer {
            Err(LinkError::Refused(refusal)) if refusal.errno == nix::libc::ENOENT => {
                return Err(LinkError::NoModule);
            }
            answer => answer?,
        };
        let first = answer.first().ok_or(LinkError::NoModule)?;
        let family = Family::decode(first)?.ok_or(LinkError::NoModule)?;
        Ok(Link { channel, family })
    }

    /// Leaves it to others whether and when the module is loaded: they may be about to exchange it.
    pub async fn if_loaded() -> Result<Link, LinkError> {
        let mut channel = Channel::open()?;
        let family = channel.find().await?;
        Ok(Link { channel, family })
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// The socket's name, by which an instance knows its owner.
    pub fn port(&self) -> u32 {
        self.channel.socket.port()
    }

    /// Sends it and waits for the end of its answer. A request that was given up half-way may have
    /// been carried out; its late answer is passed over.
    ///
    /// Every load of the module has a family of its own. What is sent to a former one is refused, until the answer to
    /// InstanceGet, [`LinkError::Anew`], says that instances are to be looked for again.
    pub async fn request(&mut self, request: &Request) -> Result<Vec<Message>, LinkError> {
        let id = self.family.id;
        let parts = self.channel.request(id, request.is_dump(), &request.encode()?).await;
        let parts = match (parts, request) {
            // It asks for nothing that may be absent but the family.
            (Err(error), Request::InstanceGet) if error.errno() == Some(nix::libc::ENOENT) => {
                self.family = self.channel.find().await?;
                return Err(LinkError::Anew);
            }
            (parts, _) => parts?,
        };
        let messages: Result<_, DecodeError> = parts.iter().map(|p| Message::decode(p)).collect();
        Ok(messages?)
    }
}

/// Matches answers with requests; knows nothing of what they say.
struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    fn open() -> io::Result<Channel> {
        Ok(Channel { socket: Socket::open(None)?, sequence: 0 })
    }

    async fn find(&mut self) -> Result<Family, LinkError> {
        for family in self.request(linux::GENL_ID_CTRL, true, &Family::list()).await? {
            if let Some(family) = Family::decode(&family)? {
                return Ok(family);
            }
        }
        Err(LinkError::NoModule)
    }

    async fn request(
        &mut self,
        kind: u16,
        dump: bool,
        payload: &[u8],
    ) -> Result<Vec<Vec<u8>>, LinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let deadline = Instant::now() + TIMEOUT;
        let message = frame::encode(kind, dump, self.sequence, payload);
        match timeout_at(deadline, self.exchange(kind, &message)).await {
            Ok(answer) => answer,
            Err(_) => Err(LinkError::Timeout),
        }
    }

    async fn exchange(&mut self, asked: u16, message: &[u8]) -> Result<Vec<Vec<u8>>, LinkError> {
        self.socket.send(message).await?;
        let mut parts = Vec::new();
        loop {
            for frame in frame::frames(self.socket.receive().await?) {
                let frame = frame?;
                if frame.sequence != self.sequence {
                    continue;
                }
                match frame.answer()? {
                    Answer::Part { kind, payload } if kind == asked => parts.push(payload.to_vec()),
                    Answer::End(Ok(())) => return Ok(parts),
                    Answer::End(Err(refusal)) => return Err(refusal.into()),
                    Answer::Part { .. } | Answer::Nothing => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
