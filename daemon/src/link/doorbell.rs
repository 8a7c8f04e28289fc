//! The doorbell: something is to be listed.

use std::io;

use dmremap_protocol::frame::{self, FrameError};
use dmremap_protocol::{Family, Message};

use super::LinkError;
use super::socket::Socket;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bell {
    Instance(u32),
    /// Some were lost: it may have been anyone's.
    Any,
}

pub struct Doorbells {
    socket: Socket,
    family: u16,
}

impl Doorbells {
    /// Takes CAP_SYS_ADMIN. What rings from now on is heard.
    pub fn open(family: Family) -> Result<Doorbells, LinkError> {
        Ok(Doorbells { socket: Socket::open(Some(family.faults_group))?, family: family.id })
    }

    /// The bells of the next datagram. An error is of the socket, not of a message: what cannot be
    /// understood counts as a bell for all, because listing once too often does no harm.
    pub async fn next(&mut self) -> io::Result<Vec<Bell>> {
        match self.socket.receive().await {
            Ok(datagram) => Ok(bells(self.family, datagram).unwrap_or_else(|_| vec![Bell::Any])),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(vec![Bell::Any]),
            Err(error) => Err(error),
        }
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
