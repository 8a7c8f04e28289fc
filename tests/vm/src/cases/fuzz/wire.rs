//! Attributes as bytes and back, as strict validation reads them.

use std::collections::BTreeMap;

/// Numbers of `enum dm_remap_cmd`.
pub mod command {
    pub const CLAIM: u8 = 2;
    pub const LOAD: u8 = 3;
    pub const READY: u8 = 4;
    pub const TRY: u8 = 7;
    pub const PLACE: u8 = 8;
    pub const INSTALL: u8 = 9;
    pub const RELEASE: u8 = 10;
    pub const FAIL: u8 = 11;
    pub const FENCE: u8 = 12;
    pub const FLUSH_FAILED: u8 = 14;
}

/// Numbers of `enum dm_remap_attr`.
pub mod attr {
    pub const INSTANCE: u16 = 1;
    pub const COMMIT: u16 = 9;
    pub const SLOT_START: u16 = 11;
    pub const SLOT_SECTORS: u16 = 12;
    pub const SLOT_UNIT: u16 = 13;
    pub const EXTENTS: u16 = 15;
    pub const FAULT_ID: u16 = 16;
    pub const FAULT_IDS: u16 = 17;
    pub const START: u16 = 18;
    pub const LEN: u16 = 19;
    pub const PIECES: u16 = 24;
}

/// Numbers of `enum dm_remap_kind`.
pub mod kind {
    pub const DIRECT: u8 = 0;
    pub const MAPPED: u8 = 1;
    pub const POISON_DATA: u8 = 2;
    pub const POISON_SLOT: u8 = 3;
}

const MAX_PIECES: usize = 1024;
const MAX_INSTALL: usize = 1024;
const PIECE: usize = 24;
const HEADER: usize = 4;

/// One attribute's payload.
pub struct Value(Vec<u8>);

/// By number; the last one of a number counts.
pub type Attrs = BTreeMap<u16, Value>;

#[derive(Debug, Clone)]
pub struct Piece {
    pub offset: u32,
    pub len: u32,
    pub slot: u64,
    pub kind: u8,
    pub result: u8,
    /// Its padding is zero.
    pub padded: bool,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
}

impl Value {
    pub fn number(&self) -> u64 {
        number(&self.0)
    }

    pub fn numbers(&self) -> Option<Vec<u64>> {
        let whole = self.0.len() % 8 == 0 && self.0.len() / 8 <= MAX_INSTALL;
        whole.then(|| self.0.chunks(8).map(number).collect())
    }

    pub fn pieces(&self) -> Option<Vec<Piece>> {
        let whole = self.0.len() % PIECE == 0 && self.0.len() / PIECE <= MAX_PIECES;
        let piece = |p: &[u8]| Piece {
            offset: number(&p[..4]) as u32,
            len: number(&p[4..8]) as u32,
            slot: number(&p[8..16]),
            kind: p[16],
            result: p[17],
            padded: p[18..].iter().all(|&byte| byte == 0),
        };
        whole.then(|| self.0.chunks(PIECE).map(piece).collect())
    }
}

/// The length that an attribute of the policy must have; none for arrays.
fn fixed(number: u16) -> Option<Option<usize>> {
    match number {
        attr::INSTANCE | attr::SLOT_UNIT => Some(Some(4)),
        attr::COMMIT | attr::SLOT_START | attr::SLOT_SECTORS => Some(Some(8)),
        attr::FAULT_ID | attr::START | attr::LEN => Some(Some(8)),
        attr::EXTENTS | attr::FAULT_IDS | attr::PIECES => Some(None),
        _ => None,
    }
}

/// `None` if strict validation refuses the bytes.
pub fn decode(mut bytes: &[u8]) -> Option<Attrs> {
    let mut attrs = Attrs::new();
    while bytes.len() >= HEADER {
        let len = number(&bytes[..2]) as usize;
        if len < HEADER || len > bytes.len() {
            return None;
        }
        // The upper two bits are flags: nested, which nothing here is, and the byte order, which nobody reads.
        let name = number(&bytes[2..4]) as u16 & 0xbfff;
        let value = &bytes[HEADER..len];
        let length = fixed(name)?;
        if length.is_some_and(|length| length != value.len()) {
            return None;
        }
        attrs.insert(name, Value(value.to_vec()));
        bytes = &bytes[len.next_multiple_of(HEADER).min(bytes.len())..];
    }
    bytes.is_empty().then_some(attrs)
}

pub fn put(out: &mut Vec<u8>, name: u16, value: &[u8]) {
    out.extend((HEADER as u16 + value.len() as u16).to_ne_bytes());
    out.extend(name.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(HEADER), 0);
}

pub fn put_piece(out: &mut Vec<u8>, offset: u32, len: u32, kind: u8, slot: u64) {
    out.extend(offset.to_ne_bytes());
    out.extend(len.to_ne_bytes());
    out.extend(slot.to_ne_bytes());
    out.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
}
