//! What the kernel says of its own use of the spare.

use std::io;

use dmremap_protocol::{InstanceInfo, Request};
use tokio::runtime::Handle;

use super::translate::{failures, user};
use crate::config::resolve::DevNo;
use crate::link::{Link, LinkError};
use crate::metadata::{Failures, Flusher};

/// Asked by a thread that may wait, while the runtime's own do not.
pub struct Flushes {
    link: Link,
    runtime: Handle,
    spare: DevNo,
}

impl Flushes {
    pub fn new(link: Link, runtime: Handle, spare: DevNo) -> Flushes {
        Flushes { link, runtime, spare }
    }

    /// Whose they are.
    pub fn user(&mut self) -> io::Result<Option<InstanceInfo>> {
        let mut answer = self.runtime.block_on(self.link.request(&Request::InstanceGet));
        if matches!(answer, Err(LinkError::Anew)) {
            answer = self.runtime.block_on(self.link.request(&Request::InstanceGet));
        }
        match answer {
            Err(LinkError::NoModule) => Ok(None),
            answer => Ok(user(answer.map_err(io::Error::other)?, self.spare)),
        }
    }
}

impl Flusher for Flushes {
    fn failures(&mut self) -> io::Result<Option<Failures>> {
        let user = self.user()?;
        Ok(user.map(|user| failures(self.link.family().id, &user)))
    }

    fn failed(&mut self) -> io::Result<()> {
        let Some(user) = self.user()? else { return Ok(()) };
        let tell = Request::FlushFailed { instance: user.instance };
        let told = self.runtime.block_on(self.link.request(&tell));
        told.map(drop).map_err(io::Error::other)
    }
}
