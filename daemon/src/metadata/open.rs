//! Opening a spare: is it the right one, may it be used, and what does it hold.

use super::device::Disk;
use super::error::{CommitError, Error};
use super::identity::Identity;
use super::recover::{self, Findings};
use super::store::{Durable, Store};
use super::superblock::{READ_ONLY, Superblock};
use super::uuid::Uuid;
use crate::units::Sectors;

/// What the opener knows of its machine and disks, and has been allowed. What is `None` is not
/// compared.
#[derive(Debug, Clone)]
pub struct Expect {
    pub label: Option<Uuid>,
    pub data: Option<Identity>,
    pub spare: Identity,
    /// Length of the mapped device.
    pub mapped: Option<Sectors>,
    /// Its logical block.
    pub block: Option<Sectors>,
    pub machine: Option<Uuid>,
    /// The last commit of a table in use that came from the spare.
    pub in_use: Option<u64>,
    /// Take a spare that another machine left open.
    pub take_over: bool,
    /// Serve a log whose end is next to an unreadable block.
    pub accept_unreadable_tail: bool,
}

impl Expect {
    /// A spare with this identity, whatever it was used for.
    pub fn spare(spare: Identity) -> Expect {
        Expect {
            label: None,
            data: None,
            spare,
            mapped: None,
            block: None,
            machine: None,
            in_use: None,
            take_over: false,
            accept_unreadable_tail: false,
        }
    }

    fn admit(&self, found: &Superblock) -> Result<(), Error> {
        let label = found.label.uuid;
        if let Some(expected) = self.label.filter(|&expected| expected != label) {
            return Err(Error::WrongLabel { found: label, expected });
        }
        let foreign = |disk| move |why| Error::Foreign { disk, why };
        found.spare.admit(&self.spare).map_err(foreign("spare"))?;
        if let Some(data) = &self.data {
            found.data.admit(data).map_err(foreign("data disk"))?;
        }
        let shapes = [
            ("mapped device", self.mapped, found.mapped),
            ("mapped device's logical block", self.block, found.block),
        ];
        for (what, present, label) in shapes {
            if let Some(found) = present.filter(|&present| present != label) {
                return Err(Error::Shape { what, found, label });
            }
        }
        match (found.machine, self.machine) {
            (Some(machine), Some(ours)) if machine != ours && !found.clean && !self.take_over => {
                Err(Error::Unclean { machine })
            }
            _ => Ok(()),
        }
    }
}

impl<D: Disk> Store<D> {
    /// Recovers the table, and makes it durable in all live mirrors under a new epoch. The caller
    /// holds the spare exclusively since before this call. The proof is of all that was recovered.
    pub fn open(disk: D, expect: &Expect) -> Result<(Store<D>, Durable), Error> {
        Store::open_with(disk, expect, false)
    }

    /// `revive` takes mirrors back that were declared dead.
    pub(super) fn open_with(
        mut disk: D,
        expect: &Expect,
        revive: bool,
    ) -> Result<(Store<D>, Durable), Error> {
        let mut findings = Findings::new();
        let (superblock, numbers) = recover::superblock(&mut disk, &mut findings)?;
        expect.admit(&superblock)?;
        let accept = expect.accept_unreadable_tail;
        let recovered = recover::contents(&mut disk, &superblock, accept, &mut findings)?;
        if let Some(in_use) = expect.in_use.filter(|&in_use| in_use > recovered.sequence) {
            return Err(Error::Older { found: recovered.sequence, in_use });
        }
        let read_only = superblock.read_only & !READ_ONLY != 0;
        let mut store = Store::new(disk, superblock, numbers, recovered);
        if read_only {
            let durable = store.durable();
            return Ok((store, durable));
        }
        // Before its predecessor's area is written to.
        store.anchor(numbers).map_err(unwritable)?;
        let mut next = store.successor();
        next.epoch += 1;
        next.clean = false;
        next.machine = expect.machine;
        if revive {
            next.live = [true; 2];
        }
        store.checkpoint_under(next).map_err(unwritable)?;
        let durable = store.durable();
        Ok((store, durable))
    }
}

fn unwritable(e: CommitError) -> Error {
    Error::Unwritable(e.to_string())
}
