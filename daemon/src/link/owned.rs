//! From neli's socket, which sets the options of netlink, to a descriptor that tokio watches.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use neli::socket::NlSocket;
use tokio::io::unix::AsyncFd;

pub(super) fn fd_of(socket: NlSocket) -> OwnedFd {
    // SAFETY: into_raw_fd gives up the only owner of an open descriptor.
    unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) }
}

pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and stays the same one, for as long as it lives.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
