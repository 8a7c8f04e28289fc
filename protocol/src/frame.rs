//! Netlink messages: their header, acknowledgements, errors and the end of a dump.

use crate::attribute::{self, align};
use crate::layout::{Wire, take};
use crate::linux;
use thiserror::Error;

const HEADER: usize = 16;

/// One netlink message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// `nlmsg_type`: the family's id, or one of netlink's own below 16.
    pub kind: u16,
    pub flags: u16,
    /// The request's number; 0 in multicasts.
    pub sequence: u32,
    /// The port id of the socket that asked.
    pub port: u32,
    pub payload: &'a [u8],
}

/// A datagram or its end is not made of netlink messages.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("damaged netlink message, {left} bytes before the end of its datagram")]
pub struct FrameError {
    pub left: usize,
}

/// What a message means for the request with its sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A part of the answer, of the family `kind`; more follows.
    Part { kind: u16, payload: &'a [u8] },
    /// The request, dump or not, is over.
    End(Result<(), Refusal>),
    /// Means nothing.
    Nothing,
}

/// The kernel's refusal of a request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}{}", text.as_ref().map(|text| format!("{text}: ")).unwrap_or_default(),
        std::io::Error::from_raw_os_error(*errno))]
pub struct Refusal {
    /// Positive, as in `errno`.
    pub errno: i32,
    /// The sentence that came with it (extack).
    pub text: Option<String>,
}

/// A whole message that asks the family `kind`: a list (`dump`), or one answer and its
/// acknowledgement.
pub fn encode(kind: u16, dump: bool, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mode = if dump { linux::NLM_F_DUMP } else { linux::NLM_F_ACK };
    let mut out = Vec::with_capacity(HEADER + payload.len());
    // Limits in the protocol's header keep a payload far below 4 GiB.
    ((HEADER + payload.len()) as u32).put(&mut out);
    kind.put(&mut out);
    (linux::NLM_F_REQUEST | mode).put(&mut out);
    sequence.put(&mut out);
    0_u32.put(&mut out); // the kernel knows the sender's port
    out.extend_from_slice(payload);
    out
}

/// The messages of a datagram; ends after the first error. Who receives it has made sure that it
/// came from the kernel, port 0.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, FrameError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let all = std::mem::take(&mut bytes);
        let Some((frame, length)) = Frame::first(all) else {
            return Some(Err(FrameError { left: all.len() }));
        };
        bytes = all.get(align(length)..).unwrap_or(&[]);
        Some(Ok(frame))
    })
}

impl<'a> Frame<'a> {
    /// The first message of `bytes`, and its length in bytes.
    fn first(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let mut header = bytes;
        let length = usize::try_from(take::<u32>(&mut header)?).ok()?;
        let kind = take(&mut header)?;
        let flags = take(&mut header)?;
        let sequence = take(&mut header)?;
        let port = take(&mut header)?;
        let payload = bytes.get(HEADER..length)?;
        Some((Self { kind, flags, sequence, port, payload }, length))
    }

    pub fn answer(&self) -> Result<Answer<'a>, FrameError> {
        match self.kind {
            linux::NLMSG_ERROR | linux::NLMSG_DONE => self.end().map(Answer::End),
            kind if kind < linux::NLMSG_MIN_TYPE => Ok(Answer::Nothing),
            kind => Ok(Answer::Part { kind, payload: self.payload }),
        }
    }

    fn end(&self) -> Result<Result<(), Refusal>, FrameError> {
        let damaged = FrameError { left: self.payload.len() };
        let mut rest = self.payload;
        let code: i32 = take(&mut rest).ok_or(damaged)?;
        if code == 0 {
            return Ok(Ok(()));
        }
        let errno = code.checked_neg().filter(|&errno| errno > 0).ok_or(damaged)?;
        Ok(Err(Refusal { errno, text: self.text() }))
    }

    /// The sentence of an error; none where there is none that can be read: the number is what
    /// counts.
    fn text(&self) -> Option<String> {
        if self.flags & linux::NLM_F_ACK_TLVS == 0 {
            return None;
        }
        // Behind the number, an error (but not a dump's end) repeats the request, or its header.
        let (_, rest) = self.payload.split_at_checked(size_of::<i32>())?;
        let repeated = match (self.kind, self.flags & linux::NLM_F_CAPPED) {
            (linux::NLMSG_DONE, _) => 0,
            (_, 0) => align(u32::get(rest.get(..4)?)?.try_into().ok()?),
            _ => HEADER,
        };
        let found = attribute::iter(rest.get(repeated..)?).map_while(Result::ok);
        let (_, text) = { found }.find(|&(number, _)| number == linux::NLMSGERR_ATTR_MSG)?;
        let text = text.split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}
