//! Where the family is: its id and that of the doorbell's group, which the kernel gives at load.

use crate::attribute::{self, DecodeError};
use crate::layout::Wire;
use crate::linux;
use crate::uapi::{GENL_NAME, MCGRP_FAULTS};

/// The family as the running kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The `kind` of its messages.
    pub id: u16,
    /// The doorbell's multicast group.
    pub faults_group: u32,
}

impl Family {
    /// The payload that asks the family `GENL_ID_CTRL`, which loads the module if it can; refused with ENOENT without it.
    pub fn request() -> Vec<u8> {
        let mut out = Self::list();
        let name = [GENL_NAME.as_bytes(), &[0]].concat();
        attribute::put_bytes(&mut out, linux::CTRL_ATTR_FAMILY_NAME, &name);
        out
    }

    /// The payload of a dump of all families, which loads nothing.
    pub fn list() -> Vec<u8> {
        vec![linux::CTRL_CMD_GETFAMILY, 1, 0, 0]
    }

    /// None: another family, or a well-formed answer without the id or the group.
    pub fn decode(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let &[command, _version, _, _, ref attributes @ ..] = payload else {
            return Err(DecodeError::NoHeader(payload.len()));
        };
        if command != linux::CTRL_CMD_NEWFAMILY {
            return Err(DecodeError::Command(command));
        }
        let name = find(attributes, linux::CTRL_ATTR_FAMILY_NAME)?.unwrap_or(&[]);
        if name.strip_suffix(&[0]) != Some(GENL_NAME.as_bytes()) {
            return Ok(None);
        }
        let id = find(attributes, linux::CTRL_ATTR_FAMILY_ID)?.and_then(u16::get);
        let groups = find(attributes, linux::CTRL_ATTR_MCAST_GROUPS)?.unwrap_or(&[]);
        for group in attribute::iter(groups) {
            let (_, group) = group?;
            let name = find(group, linux::CTRL_ATTR_MCAST_GRP_NAME)?.unwrap_or(&[]);
            if name.strip_suffix(&[0]) == Some(MCGRP_FAULTS.as_bytes()) {
                let number = find(group, linux::CTRL_ATTR_MCAST_GRP_ID)?.and_then(u32::get);
                return Ok(id.zip(number).map(|(id, faults_group)| Self { id, faults_group }));
            }
        }
        Ok(None)
    }
}

/// The content of the attribute `wanted`.
fn find(attributes: &[u8], wanted: u16) -> Result<Option<&[u8]>, DecodeError> {
    for attribute in attribute::iter(attributes) {
        match attribute? {
            (number, content) if number == wanted => return Ok(Some(content)),
            _ => {}
        }
    }
    Ok(None)
}
