//! What the kernel says of its own use of the spare.

use std::io;

use dmremap_protocol::{InstanceInfo, Message, Request};
use tokio::runtime::Handle;

use super::Kernel;
use super::translate::failures;
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
        self.runtime.block_on(user(&mut self.link, self.spare)).map_err(io::Error::other)
    }
}

/// The instance that uses the spare, of whichever module is loaded now.
pub async fn user(
    kernel: &mut impl Kernel,
    spare: DevNo,
) -> Result<Option<InstanceInfo>, LinkError> {
    let mut answer = kernel.request(&Request::InstanceGet).await;
    if matches!(answer, Err(LinkError::Anew)) {
        answer = kernel.request(&Request::InstanceGet).await;
    }
    let messages = match answer {
        Err(LinkError::NoModule) => return Ok(None),
        answer => answer?,
    };
    Ok(messages.into_iter().find_map(|message| match message {
        Message::Instance(info) if info.spare_dev == spare.wire() => Some(info),
        _ => None,
    }))
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
