//! Netlink attributes: a length, a number, bytes, and padding to four bytes.
//!
//! neli 0.7.5's codec is not used: a message shorter than its own header overflows its arithmetic (a
//! panic in debug builds), its refusals lose the kernel's sentence, and its errors name no attribute.

use crate::layout::{Wire, take};
use crate::uapi::Attr;
use thiserror::Error;

const HEADER: usize = 4;
/// The bits of the number that are not flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Rounds up to netlink's alignment of messages and attributes.
pub(crate) fn align(bytes: usize) -> usize {
    bytes.saturating_add(3) & !3
}

/// Why bytes are not a message of this protocol.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("message of {0} bytes has no generic netlink header")]
    NoHeader(usize),
    #[error("message of unknown or unexpected command {0}")]
    Command(u8),
    #[error("attribute {number} does not fit into its message, {left} bytes before its end")]
    Framing { number: u16, left: usize },
    #[error("attribute {0:?} is missing")]
    Missing(Attr),
    #[error("attribute {attr:?} has a wrong length: {bytes} bytes")]
    Length { attr: Attr, bytes: usize },
    #[error("attribute {0:?} has a value that this version does not know")]
    Value(Attr),
}

/// An array is longer than the kernel takes: split the request.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{attr:?} of {count} elements, above the limit of {max}")]
pub struct TooMany {
    pub attr: Attr,
    pub count: usize,
    pub max: usize,
}

/// The most bytes of one attribute.
pub(crate) const MAX_BYTES: usize = u16::MAX as usize - HEADER;

/// Appends an attribute of at most [`MAX_BYTES`].
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u16, bytes: &[u8]) {
    ((HEADER + bytes.len()) as u16).put(out);
    number.put(out);
    out.extend_from_slice(bytes);
    out.resize(align(out.len()), 0);
}

pub(crate) fn put<T: Wire>(out: &mut Vec<u8>, attr: Attr, value: &T) {
    put_array(out, attr, std::slice::from_ref(value));
}

pub(crate) fn put_array<T: Wire>(out: &mut Vec<u8>, attr: Attr, items: &[T]) {
    let mut bytes = Vec::with_capacity(items.len() * T::SIZE);
    items.iter().for_each(|item| item.put(&mut bytes));
    put_bytes(out, attr as u16, &bytes);
}

/// The attributes in `bytes`, as number and content; ends after the first error.
pub(crate) fn iter(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), DecodeError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let left = bytes.len();
        let mut header = std::mem::take(&mut bytes);
        let all = header;
        let length = take::<u16>(&mut header).unwrap_or(0);
        let number = take::<u16>(&mut header).unwrap_or(0) & NLA_TYPE_MASK;
        let Some(content) = all.get(HEADER..usize::from(length)) else {
            return Some(Err(DecodeError::Framing { number, left }));
        };
        bytes = all.get(align(length.into())..).unwrap_or(&[]);
        Some(Ok((number, content)))
    })
}

/// The attributes of one message. Of a repeated one the last counts, as in the kernel; those that
/// this version does not know are passed over: the kernel may be newer.
pub(crate) struct Attributes<'a>([Option<&'a [u8]>; Attr::ALL.len() + 1]);

impl<'a> Attributes<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut found = [None; Attr::ALL.len() + 1];
        for attribute in iter(bytes) {
            let (number, content) = attribute?;
            if let Some(entry) = found.get_mut(usize::from(number)) {
                *entry = Some(content);
            }
        }
        Ok(Self(found))
    }

    pub(crate) fn bytes(&self, attr: Attr) -> Result<&'a [u8], DecodeError> {
        self.0[attr as usize].ok_or(DecodeError::Missing(attr))
    }

    pub(crate) fn get<T: Wire>(&self, attr: Attr) -> Result<T, DecodeError> {
        let bytes = self.bytes(attr)?;
        if bytes.len() != T::SIZE {
            return Err(DecodeError::Length { attr, bytes: bytes.len() });
        }
        T::get(bytes).ok_or(DecodeError::Value(attr))
    }

    pub(crate) fn get_if_there<T: Wire>(&self, attr: Attr) -> Result<Option<T>, DecodeError> {
        self.0[attr as usize].map(|_| self.get(attr)).transpose()
    }

    pub(crate) fn array<T: Wire>(&self, attr: Attr) -> Result<Vec<T>, DecodeError> {
        let bytes = self.bytes(attr)?;
        if bytes.len() % T::SIZE != 0 {
            return Err(DecodeError::Length { attr, bytes: bytes.len() });
        }
        let items = bytes.chunks_exact(T::SIZE).map(T::get);
        items.collect::<Option<_>>().ok_or(DecodeError::Value(attr))
    }

    /// A struct that grows at its end: what an older kernel lacks is zero.
    pub(crate) fn growing<T: Wire>(&self, attr: Attr) -> Result<T, DecodeError> {
        let mut bytes = self.bytes(attr)?.to_vec();
        bytes.resize(T::SIZE, 0);
        T::get(&bytes).ok_or(DecodeError::Value(attr))
    }
}
