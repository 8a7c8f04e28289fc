//! What may be read, from the history of submissions, acknowledgements and flushes alone.

use crate::disk::SLOTS;
use crate::state::{Broken, READ, Scenario, State, WRITES, value};

/// A set of values.
type Values = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Oracle {
    /// What a read may return now.
    pub admissible: Values,
    /// And after a power cut (I1).
    pub after_cut: Values,
    /// What was acknowledged last can be read, as far as the disks go: its place has not gone bad since.
    pub readable: bool,
    /// Values that each write's acknowledgement rules out: of writes that had ended before it was sent.
    before: [Values; WRITES],
    /// Writes acknowledged that no power cut may undo once a flush sent after them succeeds.
    unflushed: u8,
    /// What the read under way may return, and whether it may fail at poison.
    reading: Values,
    excused: bool,
    /// Slots of this instance that have been installed; slots that failed and are known to have.
    pub installed: u8,
    pub failed: u8,
    /// Of `failed`, those that a durable commit records.
    pub recorded: u8,
}

impl Oracle {
    pub fn new() -> Oracle {
        Oracle {
            admissible: 1,
            after_cut: 1,
            readable: true,
            before: [0; WRITES],
            unflushed: 0,
            reading: 0,
            excused: false,
            installed: 0,
            failed: 0,
            recorded: 0,
        }
    }
}

impl State {
    pub fn note_submit(&mut self, b: usize) {
        let oracle = &mut self.oracle;
        if b == READ {
            oracle.reading = oracle.admissible;
            oracle.excused = false;
            return;
        }
        let bit = 1 << value(b);
        let ended = (0..WRITES).filter(|&w| self.bios[w].has_ended());
        oracle.before[b] = ended.fold(1, |sum, w| sum | 1 << value(w));
        oracle.admissible |= bit;
        oracle.after_cut |= bit;
        oracle.reading |= bit;
    }

    pub fn note_ack(&mut self, b: usize, fua: bool, readable: bool) {
        let oracle = &mut self.oracle;
        oracle.admissible &= !oracle.before[b];
        if fua {
            oracle.after_cut &= !oracle.before[b];
        } else {
            oracle.unflushed |= 1 << b;
        }
        oracle.readable = readable;
    }

    /// A flush that was sent when `covers` were acknowledged has succeeded.
    pub fn note_flushed(&mut self, covers: u8) {
        let oracle = &mut self.oracle;
        for b in (0..WRITES).filter(|b| (covers & oracle.unflushed) >> b & 1 != 0) {
            oracle.after_cut &= !oracle.before[b];
        }
        oracle.unflushed &= !covers;
    }

    /// Its caller knows that what came before may be lost: no later flush promises it.
    pub fn note_flush_failed(&mut self) {
        self.oracle.unflushed = 0;
    }

    pub fn unflushed(&self) -> u8 {
        self.oracle.unflushed
    }

    pub fn note_read(&mut self, found: u8) {
        if self.oracle.reading >> found & 1 == 0 {
            self.break_with(Broken::Read);
        }
    }

    pub fn note_poisoned_read(&mut self) {
        if self.oracle.readable && !self.oracle.excused {
            self.break_with(Broken::Hidden);
        }
    }

    /// After every step.
    pub fn note_step(&mut self) {
        let reading = self.bios[READ].is_under_way();
        self.oracle.excused = reading && (self.oracle.excused || !self.oracle.readable);
        if !reading {
            self.oracle.reading = 0;
        }
    }

    pub fn note_cut(&mut self) {
        let oracle = &mut self.oracle;
        oracle.admissible = oracle.after_cut;
        oracle.unflushed = 0;
        oracle.installed = 0;
        oracle.failed = oracle.recorded;
    }

    /// A slot is handed out.
    pub fn note_placed(&mut self, slot: u8) {
        if (self.oracle.installed | self.oracle.failed) >> slot & 1 != 0 {
            self.break_with(Broken::Slot);
        }
    }
    /// The daemon may pass an error up only for want of a slot.
    pub fn note_fail(&mut self) {
        let spent = self.oracle.installed | self.oracle.failed;
        if spent.count_ones() < SLOTS as u32 {
            self.break_with(Broken::Unjustified);
        }
    }

    /// I1, I2, I5: would a read that is sent now find what it may? One that a fence stops finds nothing yet.
    pub fn content_is_admissible(&self, s: &Scenario) -> bool {
        match self.lookup(s) {
            None => true,
            Some(extent) if extent.is_poison() => !self.oracle.readable,
            Some(extent) if self.disks.is_unreadable(extent.dest()) => !self.oracle.readable,
            Some(extent) => self.oracle.admissible >> self.disks.read(extent.dest()) & 1 != 0,
        }
    }
}
