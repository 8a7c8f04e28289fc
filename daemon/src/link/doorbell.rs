//! The doorbell: something is to be listed.

use std::io;

use dmremap_protocol::frame::{self, FrameError};
use dmremap_protocol::{Message, linux};

use super::socket::Socket;
use super::{Link, LinkError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bell {
    Instance(u32),
    /// Some were lost: it may have been anyone's.
    Any,
}

/// The doorbells of whichever module is loaded: the kernel ends all hearing when one is unloaded, and does not say so.
pub struct Doorbells {
    /// Tells when a family comes or goes. Which one, it is not asked: listening anew does no harm.
    news: Socket,
    /// None while there is no module.
    rings: Option<Rings>,
}

struct Rings {
    socket: Socket,
    family: u16,
}

impl Doorbells {
    pub fn open() -> Result<Doorbells, LinkError> {
        // The controller's group has the number of its family.
        let news = Socket::open(Some(linux::GENL_ID_CTRL.into()))?;
        Ok(Doorbells { news, rings: None })
    }

    /// The next bells, and one for all where some may have been missed. An error is of a socket.
    pub async fn next(&mut self) -> Result<Vec<Bell>, LinkError> {
        loop {
            let Some(rings) = &mut self.rings else {
                self.rings = Rings::open().await?;
                if self.rings.is_some() {
                    return Ok(vec![Bell::Any]);
                }
                received(self.news.receive().await)?;
                continue;
            };
            tokio::select! {
                bells = rings.next() => return Ok(bells?),
                news = self.news.receive() => drop(received(news)?),
            }
            self.rings = None;
        }
    }
}

impl Rings {
    /// Takes CAP_SYS_ADMIN. What rings from now on is heard.
    async fn open() -> Result<Option<Rings>, LinkError> {
        let family = match Link::if_loaded().await {
            Err(LinkError::NoModule) => return Ok(None),
            link => link?.family(),
        };
        let socket = Socket::open(Some(family.faults_group))?;
        Ok(Some(Rings { socket, family: family.id }))
    }

    /// What cannot be understood counts as a bell for all, because listing once too often does no harm.
    async fn next(&mut self) -> io::Result<Vec<Bell>> {
        let datagram = received(self.socket.receive().await)?;
        let bells = datagram.map(|datagram| bells(self.family, datagram));
        Ok(bells.and_then(Result::ok).unwrap_or_else(|| vec![Bell::Any]))
    }
}

/// None: some were lost.
fn received(datagram: io::Result<&[u8]>) -> io::Result<Option<&[u8]>> {
    match datagram {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(None),
        datagram => datagram.map(Some),
    }
}

fn bells(family: u16, datagram: &[u8]) -> Result<Vec<Bell>, FrameError> {
    let mut bells = Vec::new();
    for frame in frame::frames(datagram) {
        let frame = frame?;
        if frame.kind == family {
            bells.push(match Message::decode(frame.payload) {
                Ok(Message::Doorbell { instance }) => Bell::Instance(instance),
                _ => Bell::Any,
            });
        }
    }
    Ok(bells)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: u16 = 30;

    #[test]
    fn a_doorbell_names_its_instance_and_a_strange_one_everybody() {
        // DOORBELL, version 1; INSTANCE (1) as a u32.
        let mut payload = vec![13, 1, 0, 0];
        payload.extend(8_u16.to_ne_bytes());
        payload.extend(1_u16.to_ne_bytes());
        payload.extend(7_u32.to_ne_bytes());
        let mut datagram = frame::encode(FAMILY, false, 0, &payload);
        assert_eq!(bells(FAMILY, &datagram), Ok(vec![Bell::Instance(7)]));
        assert_eq!(bells(FAMILY + 1, &datagram), Ok(vec![]));
        datagram.extend(frame::encode(FAMILY, false, 0, &[99, 1, 0, 0]));
        assert_eq!(bells(FAMILY, &datagram), Ok(vec![Bell::Instance(7), Bell::Any]));
        datagram.push(0);
        assert!(bells(FAMILY, &datagram).is_err());
    }
}
