//! Disks as every simulation finds them: made once, then shared.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;

use dmremap_policyd::metadata::{Disk as Spare, Format, Geometry, Uuid, format};
use dmremap_policyd::units::{Sectors, Slot};

use crate::cover::Region;
use crate::daemon::{MACHINE, identity};
use crate::disk::{Disk, Image, SECTOR};
use crate::kernel::fill;
use crate::script::{Config, Which};

const UNIT: Sectors = Sectors(8);

struct Plain(Image, u64);

impl Spare for Plain {
    fn size(&self) -> Sectors {
        Sectors(self.1)
    }
    fn physical_block(&self) -> u64 {
        UNIT.bytes()
    }
    fn read(&mut self, at: Slot, buf: &mut [u8]) -> io::Result<()> {
        self.0.read(at.0, buf);
        Ok(())
    }
    fn write(&mut self, at: Slot, buf: &[u8]) -> io::Result<()> {
        self.0.write(at.0, buf);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    static MADE: RefCell<HashMap<(bool, u64, u64, u64), Image>> = RefCell::default();
}

fn once(key: (bool, u64, u64, u64), make: impl FnOnce() -> Image) -> Image {
    MADE.with(|made| made.borrow_mut().entry(key).or_insert_with(make).clone())
}

/// Each sector has a content that says where it belongs.
pub fn data(config: &Config) -> Disk {
    let sectors = config.sectors;
    let image = once((true, sectors, 0, 0), || {
        let mut image = Image::new(sectors);
        let mut buf = vec![0; sectors as usize * SECTOR];
        fill(&mut buf, 0, 0);
        image.write(0, &buf);
        image
    });
    Disk::new(image, sectors)
}

/// Formatted by the daemon's own tool.
pub fn spare(config: &Config) -> Disk {
    let Config { sectors, spare, block, .. } = *config;
    let image = once((false, sectors, spare, block), || {
        let mut disk = Plain(Image::new(spare), spare);
        let request = Format {
            label: Uuid([1; 16]),
            nonce: 7,
            data: identity(Which::Data, sectors),
            spare: identity(Which::Spare, spare),
            mapped: Sectors(sectors),
            block: Sectors(block),
            machine: Some(MACHINE),
            weak_identity: false,
            force: false,
        };
        let made = format(&mut disk, &request);
        assert!(made.is_ok(), "a spare of {spare} sectors: {made:?}");
        disk.0
    });
    Disk::new(image, spare)
}

/// Where the parts of the spare are.
pub fn regions(config: &Config) -> Vec<(u64, Region)> {
    let planned = Geometry::plan(Sectors(config.spare), UNIT);
    let geometry = planned.unwrap_or_else(|error| panic!("{error}"));
    let log = u64::from(geometry.log_blocks) * UNIT.0;
    let [first, second] = geometry.mirrors;
    vec![
        (0, Region::Label),
        (first.0, Region::Log(0)),
        (first.0 + log, Region::Checkpoint(0)),
        (geometry.slots.0, Region::Slots),
        (second.0, Region::Log(1)),
        (second.0 + log, Region::Checkpoint(1)),
    ]
}
