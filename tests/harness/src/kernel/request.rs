//! `netlink.c`: requests in.

use dmremap_protocol::uapi::{MAX_INSTALL, MAX_LOAD, MAX_PIECES};
use dmremap_protocol::{Message, Request};
use nix::libc;

use crate::sys::Sys;

type Answer = Result<Vec<Message>, i32>;

impl Sys {
    /// Is there memory for what a request needs?
    pub(super) fn memory(&mut self) -> Result<(), i32> {
        if self.k.memory_fails > 0 {
            self.k.memory_fails -= 1;
            if self.k.memory_fails == 0 {
                return Err(libc::ENOMEM);
            }
        }
        let none = self.config.no_memory;
        if none > 0 && self.calm_from > self.now && self.rng.chance(none) {
            self.cover.trouble("no memory");
            self.say(|| "  no memory".to_owned());
            return Err(libc::ENOMEM);
        }
        Ok(())
    }

    pub fn request(&mut self, port: u32, request: &Request) -> Answer {
        let answer = self.answer(port, request);
        if !request.is_dump() {
            self.k.memory_fails = 0;
        }
        if let Err(errno @ (libc::EINVAL | libc::ERANGE | libc::ENOSPC)) = answer {
            self.oracle.violate(format!("a request was malformed ({errno}): {request:?}"));
        }
        answer
    }

    fn answer(&mut self, port: u32, request: &Request) -> Answer {
        let instance = match *request {
            Request::InstanceGet => {
                return Ok(if self.k.on { vec![self.instance_info()] } else { Vec::new() });
            }
            Request::Claim { instance, .. }
            | Request::Load { instance, .. }
            | Request::Ready { instance }
            | Request::FaultGet { instance }
            | Request::ExtentGet { instance }
            | Request::Try { instance, .. }
            | Request::Place { instance, .. }
            | Request::Install { instance, .. }
            | Request::Release { instance, .. }
            | Request::Fail { instance, .. }
            | Request::Fence { instance, .. }
            | Request::FlushFailed { instance } => instance,
        };
        if !self.k.on || instance != self.k.id {
            return Err(libc::ESRCH);
        }
        match request {
            Request::FaultGet { .. } => return Ok(self.fault_list(port)),
            Request::ExtentGet { .. } => return Ok(self.extent_list()),
            Request::Claim { slots, commit, .. } => {
                return self.claim(port, *slots, *commit).map(|()| Vec::new());
            }
            Request::FlushFailed { .. } => {}
            _ if self.k.owner != port => return Err(libc::EACCES),
            _ => {}
        }
        let done = match request {
            Request::Load { extents, .. } if extents.len() > MAX_LOAD => Err(libc::EINVAL),
            Request::Load { extents, .. } => self.load(extents),
            Request::Ready { .. } => {
                self.ready();
                Ok(())
            }
            Request::Try { pieces, .. } | Request::Place { pieces, .. }
                if pieces.len() > MAX_PIECES =>
            {
                Err(libc::EINVAL)
            }
            Request::Try { fault, pieces, .. } => self.start_op(*fault, false, pieces.clone()),
            Request::Place { fault, pieces, .. } => self.start_op(*fault, true, pieces.clone()),
            Request::Install { faults, .. } if faults.len() > MAX_INSTALL => Err(libc::EINVAL),
            Request::Install { commit, faults, .. } => self.install(*commit, faults),
            Request::Release { fault, .. } => self.release(*fault),
            Request::Fail { fault, .. } => self.fail(*fault),
            Request::Fence { start, len, .. } => {
                return self.fence(*start, *len).map(|id| vec![Message::FaultId(id)]);
            }
            _ => {
                self.daemons_flush_failed();
                Ok(())
            }
        };
        done.map(|()| Vec::new())
    }

    /// The end of a socket is the end of its claims.
    pub fn socket_ends(&mut self, port: u32) {
        if self.k.on && self.k.owner == port {
            self.say(|| format!("  the claim of {port} ends"));
            self.owner_gone();
        }
    }
}
