//! `list.c`: the answers, and the doorbell.

use dmremap_protocol::uapi::{FaultFlags, FaultState, InstanceFlags, Kind, Status};
use dmremap_protocol::{Counters, Extent, FaultInfo, InstanceInfo, Message};

use super::{Cell, DATA_DEV, DM_DEV, SPARE_DEV};
use crate::oracle::Trouble;
use crate::step::GRACE;
use crate::sys::{Ev, Sys};

const AGAIN: u64 = 1_000_000;

impl Sys {
    pub(super) fn instance_info(&self) -> Message {
        let k = &self.k;
        let c = &k.counts;
        let flag = |set: bool, flag: InstanceFlags| if set { flag.0 } else { 0 };
        let flags = flag(k.ready, InstanceFlags::READY)
            | flag(k.queue_unowned, InstanceFlags::QUEUE)
            | flag(k.flush_bad[0], InstanceFlags::DATA_FLUSH_BAD)
            | flag(k.flush_bad[1], InstanceFlags::SPARE_FLUSH_BAD);
        Message::Instance(InstanceInfo {
            instance: k.id,
            dm_dev: DM_DEV,
            data_dev: DATA_DEV,
            spare_dev: SPARE_DEV,
            sectors: k.sectors,
            block: k.block as u32,
            flags: InstanceFlags(flags),
            generation: k.generation,
            commit: k.commit,
            counters: Counters {
                faults: c.faults,
                installs: c.installs,
                releases: c.releases,
                fails: c.fails,
                expired: c.expired,
                refused: c.refused,
                unowned: c.unowned,
                passed: c.passed,
                poison_reads: c.poison_reads,
                redone: c.redone,
                spare_flush_errors: c.spare_flush_errors,
                data_flush_fails: k.flush_fails[0],
                spare_flush_fails: k.flush_fails[1],
                held_bios: k.held_bios.iter().sum(),
                held_sectors: k.held_sectors.iter().sum(),
                extents: k.extents,
                open_faults: k.faults.len() as u64,
            },
            slots: k.slots,
            owner: (k.owner != 0).then_some(k.owner),
        })
    }

    pub(super) fn fault_list(&mut self, port: u32) -> Vec<Message> {
        if port == self.k.owner {
            self.k.bell = false;
        }
        let mut out = vec![self.instance_info()];
        for f in self.k.faults.iter().filter(|f| f.listed) {
            let disk_away = f.pieces.iter().any(|piece| piece.result == Status::Other);
            if port == self.k.owner && f.state == FaultState::Open && !f.placing && disk_away {
                // So long ago as that may be: that is all the daemon knows, and it opens the breaker.
                self.oracle.excuses.trouble(Trouble::Verdict, self.now + GRACE);
            }
            let flag = |set: bool, flag: FaultFlags| if set { flag.0 } else { 0 };
            let flags = flag(f.write, FaultFlags::WRITE)
                | flag(f.held, FaultFlags::HELD)
                | flag(f.pinned, FaultFlags::PINNED)
                | flag(f.fence, FaultFlags::FENCE)
                | flag(f.heal, FaultFlags::HEAL);
            let left = |b: usize| (self.k.bios[b].deadline.saturating_sub(self.now) / 1000) as u32;
            out.push(Message::Fault(FaultInfo {
                instance: self.k.id,
                id: f.id,
                start: f.start,
                len: f.len,
                state: f.state,
                flags: FaultFlags(flags),
                status: f.status,
                deadline_ms: f.bio.map(left),
                pieces: f.pieces.clone(),
            }));
        }
        self.checks.listed();
        out
    }

    pub(super) fn extent_list(&mut self) -> Vec<Message> {
        let mut extents = Vec::new();
        let mut at = 0;
        while at < self.k.sectors {
            let (cell, len) = self.k.run(at, self.k.sectors - at);
            let (kind, slot) = match cell {
                Cell::Direct => {
                    at += len;
                    continue;
                }
                Cell::Mapped(slot) => (Kind::Mapped, slot),
                Cell::PoisonData => (Kind::PoisonData, 0),
                Cell::PoisonSlot(slot) => (Kind::PoisonSlot, slot),
            };
            extents.push(Extent { start: at, slot, len: len as u32, kind });
            at += len;
        }
        let first = self.k.slots.map_or(0, |area| area.start);
        let mut s = 0;
        while let Some(from) = self.k.retired[s..].iter().position(|&r| r).map(|n| s + n) {
            let len = self.k.retired[from..].iter().take_while(|&&r| r).count();
            let (slot, kind) = (first + from as u64, Kind::Retired);
            extents.push(Extent { start: 0, slot, len: len as u32, kind });
            s = from + len;
        }
        self.checks.listed();
        vec![Message::Extents { instance: self.k.id, extents }]
    }

    pub(crate) fn ring(&mut self) {
        self.k.bell = true;
        let delay = self.soon();
        self.ring_in(delay);
    }

    /// Instead of any earlier one that is due.
    fn ring_in(&mut self, after: u64) {
        self.k.ringing += 1;
        let ring = self.k.ringing;
        self.kernel_in(after, Ev::Bell(ring));
    }

    pub(super) fn doorbell(&mut self, ring: u64) {
        if !self.k.bell || ring != self.k.ringing {
            return;
        }
        let lost = self.config.lost_bells;
        if self.rng.chance(lost) {
            self.cover.trouble("doorbell lost");
        } else {
            self.bells += 1;
        }
        self.ring_in(AGAIN);
    }
}
