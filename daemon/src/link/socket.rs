//! A generic netlink socket that sends and receives datagrams.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use neli::consts::socket::NlFamily;
use neli::socket::NlSocket;
use neli::utils::Groups;
use nix::sys::socket::{MsgFlags, NetlinkAddr, recvmsg, send, setsockopt, sockopt};
use tokio::io::unix::AsyncFd;

use super::owned::{fd_of, watch};

/// The kernel's answers to one dump, or a burst of doorbells.
const RECEIVE_BUFFER: usize = 1 << 20;
/// More than the kernel puts into one datagram: an attribute's 64 KiB, or a refused request, which
/// is as long, and headers.
const DATAGRAM: usize = 128 << 10;

pub(super) struct Socket {
    fd: AsyncFd<OwnedFd>,
    port: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Joins the multicast group, if one is given; it takes CAP_SYS_ADMIN where the family says so.
    pub(super) fn open(group: Option<u32>) -> io::Result<Socket> {
        let groups = group.map_or(Groups::empty(), |group| Groups::new_groups(&[group]));
        let socket = NlSocket::connect(NlFamily::Generic, None, groups)?;
        socket.nonblock()?;
        socket.enable_ext_ack(true)?;
        socket.enable_strict_checking(true)?;
        let port = socket.pid()?;
        let fd = fd_of(socket);
        // Without CAP_NET_ADMIN the system's own limit has to do: nothing depends on the size.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        Ok(Socket { fd: watch(fd)?, port, buffer: vec![0; DATAGRAM] })
    }

    pub(super) fn port(&self) -> u32 {
        self.port
    }

    pub(super) async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        loop {
            let mut ready = self.fd.writable().await?;
            let sent = ready.try_io(|fd| {
                send(fd.as_raw_fd(), datagram, MsgFlags::empty()).map_err(io::Error::from)
            });
            match sent {
                Ok(sent) => return sent.map(drop),
                Err(_would_block) => {}
            }
        }
    }

    /// The next datagram that the kernel sent; ENOBUFS means that some were lost before it.
    pub(super) async fn receive(&mut self) -> io::Result<&[u8]> {
        let length = loop {
            let mut ready = self.fd.readable().await?;
            let buffer = &mut self.buffer;
            let received = ready.try_io(|fd| receive(fd, buffer));
            match received {
                // Any process may send to a netlink socket; only the kernel's port is 0.
                Ok(Ok((_, port))) if port != 0 => {}
                Ok(Ok((length, _))) => break length,
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        };
        self.buffer.get(..length).ok_or_else(|| io::Error::other("datagram cut off"))
    }
}

/// The length of the datagram, longer than `buffer` if it was cut off, and its sender's port.
fn receive(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, u32)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut parts, None, MsgFlags::MSG_TRUNC)?;
    Ok((received.bytes, received.address.map_or(u32::MAX, |from| from.pid())))
}
