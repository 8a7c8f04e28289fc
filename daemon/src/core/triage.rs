//! What is wrong with a fault: search, control, and the verdicts that change nothing.

use super::breaker::{Admitted, Change, Control};
use super::control::DataPlaces;
use super::device::Device;
use super::event::{Action, Alarm, At, FaultId, Listed, Piece, ReadId, Span, Status};
use super::fault::{Fault, Step, Verdict, segments};
use super::search::{Part, Progress, Search};
use super::snapshot::Happening;
use crate::table::Kind;
use crate::units::{Sector, Sectors};

impl Device {
    pub(super) fn begin(&mut self, id: FaultId, status: Status) {
        let Some(fault) = self.faults.get_mut(&id) else { return };
        let whole = Part { offset: Sectors(0), len: fault.len };
        let (poisoned, sound): (Vec<_>, Vec<_>) = segments(&self.table, fault.start, whole)
            .into_iter()
            .partition(|(_, kind)| matches!(kind, Some(Kind::PoisonData | Kind::PoisonSlot(_))));
        let parts = |list: Vec<(Part, _)>| list.into_iter().map(|(part, _)| part).collect();
        let bad: Vec<Part> = if fault.flags.write { parts(poisoned) } else { Vec::new() };
        let heal = fault.flags.heal && !fault.rest_failed;
        fault.search = Search::new(if heal { Vec::new() } else { parts(sound) }, bad);
        (fault.control, fault.failed) = (None, None);
        if fault.attempts >= self.policy.place_attempts {
            self.fail(id, "it could not be placed");
        } else if self.metadata_dead || self.log_full.is_some() {
            self.fail(id, "no commit can be made");
        } else if heal && fault.search.bad().is_empty() {
            self.release(id);
        } else if heal {
            self.control_spare(id);
        } else if status == Status::Other {
            self.fail(id, "not an error of the medium");
        } else {
            match self.breaker.admit(self.now, id) {
                Admitted::Yes => self.search(id),
                // New until a later listing.
                Admitted::NotYet => self.list_again(),
                Admitted::No => self.fail(id, "error storm"),
            }
        }
    }

    /// The next round of the search. A read goes to its device directly, behind the fence.
    pub(super) fn search(&mut self, id: FaultId) {
        let Some(block) = self.instance.map(|instance| instance.block) else { return };
        let Some(fault) = self.faults.get_mut(&id) else { return };
        fault.step = Step::Searching;
        let parts = fault.search.round(block).to_vec();
        if parts.is_empty() {
            self.found(id);
        } else if fault.flags.write {
            fault.asked = Some(Verdict::Try);
            let piece = |p: Part| Piece { offset: p.offset, len: p.len, kind: None };
            let pieces = parts.into_iter().map(piece).collect();
            self.out.push(Action::Try { fault: id, pieces });
        } else {
            let start = fault.start;
            let decides = fault.search.decides(block);
            let spans = parts
                .into_iter()
                .flat_map(|part| segments(&self.table, start, part))
                .map(|part| span(start, part))
                .collect();
            let retries = if decides { self.policy.read_retries } else { 0 };
            self.read(id, spans, retries);
        }
    }

    fn read(&mut self, id: FaultId, spans: Vec<Span>, retries: u32) {
        self.reads += 1;
        let read = ReadId(self.reads);
        if let Some(fault) = self.faults.get_mut(&id) {
            fault.reading = Some(read);
            self.out.push(Action::Read { id: read, spans, retries, until: fault.deadline });
        }
    }

    /// A TRY has ended.
    pub(super) fn tried(&mut self, listed: Listed) {
        let Some(fault) = self.faults.get_mut(&listed.id) else { return };
        if fault.reading.is_some() {
            return;
        }
        let asked = fault.search.asked().iter().map(|p| (p.offset, p.len));
        if !asked.eq(listed.pieces.iter().map(|(p, _)| (p.offset, p.len))) {
            fault.attempts += 1;
            return self.begin(listed.id, listed.status);
        }
        let results: Vec<Status> = listed.pieces.iter().map(|&(_, status)| status).collect();
        self.searched(listed.id, &results);
    }

    pub(super) fn read_done(&mut self, read: ReadId, results: &[Status]) {
        let mut faults = self.faults.iter();
        let Some((&id, _)) = faults.find(|(_, f)| f.reading == Some(read)) else { return };
        let Some(fault) = self.faults.get_mut(&id) else { return };
        fault.reading = None;
        if results.contains(&Status::NotDone) {
            fault.step = Step::New;
            return self.list_again();
        }
        match fault.step {
            Step::Searching => self.searched(id, results),
            Step::Controlling => self.controlled(id, results),
            Step::ControllingSpare => {
                let (spare, _) = fault.judge(results);
                self.spare_controlled(id, spare);
            }
            _ => {}
        }
    }

    fn searched(&mut self, id: FaultId, results: &[Status]) {
        let Some(block) = self.instance.map(|instance| instance.block) else { return };
        let Some(fault) = self.faults.get_mut(&id) else { return };
        match fault.search.answer(block, results) {
            Progress::More => self.search(id),
            Progress::Found => self.found(id),
            Progress::Gone => self.is_away(id),
        }
    }

    pub(super) fn is_away(&mut self, id: FaultId) {
        let change = self.breaker.open(self.now, &self.policy);
        self.breaker_news(change);
        self.fail(id, "the device is not there");
    }

    fn found(&mut self, id: FaultId) {
        let Some(fault) = self.faults.get(&id) else { return };
        if fault.search.damage() {
            return self.control(id);
        }
        // The rest, which is poisoned or known to be bad, is known damage.
        let (write, rest) = (fault.flags.write, !fault.search.bad().is_empty());
        let change = self.breaker.passed(self.now, id, true);
        self.breaker_news(change);
        match (write, rest) {
            (true, true) => self.control_spare(id),
            (true, false) => self.place(id),
            (false, _) => self.release(id),
        }
    }

    /// Is its damage on the data disk, and in slots?
    fn damaged(&self, fault: &Fault) -> [bool; 2] {
        let bad = fault.search.bad().iter().flat_map(|&p| segments(&self.table, fault.start, p));
        let in_slots: Vec<bool> =
            bad.map(|(_, kind)| kind.and_then(Kind::slot).is_some()).collect();
        [in_slots.contains(&false), in_slots.contains(&true)]
    }

    /// Reads elsewhere on each disk that has the damage; of a write the spare's turn comes by itself.
    fn control(&mut self, id: FaultId) {
        let Some(instance) = self.instance else { return };
        let suspects: Vec<(Sector, Sectors)> =
            self.faults.values().map(|f| (f.start, f.len)).collect();
        let Some(fault) = self.faults.get(&id) else { return };
        let [on_data, in_slots] = self.damaged(fault);
        let (start, len, write) = (fault.start, fault.len, fault.flags.write);
        let mut places = Vec::new();
        if on_data {
            let (table, suspects) = (&self.table, &suspects[..]);
            let size = instance.sectors;
            let data = DataPlaces { table, suspects, size, block: instance.block };
            places.push(data.pick(start, len, &mut self.seed));
        }
        if in_slots && !(write && on_data) {
            places.push(self.spare.places(&mut self.seed));
        }
        let Some(fault) = self.faults.get_mut(&id) else { return };
        fault.step = Step::Controlling;
        fault.places = places;
        let mut spans = fault.control_spans();
        if !write {
            // Once more, and last: a disk that was away and is back has no damage to poison (I8). Each
            // block by itself, as one that is bad would hide others.
            let blocks = fault.search.bad().iter().flat_map(|part| part.blocks(instance.block));
            let bad = blocks.flat_map(|block| segments(&self.table, start, block));
            spans.extend(bad.map(|part| span(start, part)));
        }
        self.read(id, spans, 0);
    }

    fn controlled(&mut self, id: FaultId, results: &[Status]) {
        let Some(fault) = self.faults.get(&id) else { return };
        let (control, again) = fault.judge(results);
        if again.contains(&Status::Other) {
            return self.is_away(id);
        }
        if again.contains(&Status::Ok) {
            let change = self.breaker.passed(self.now, id, true);
            self.breaker_news(change);
            return self.release(id);
        }
        let [on_data, _] = self.damaged(fault);
        if on_data && fault.flags.write && control != Control::Silent {
            self.faults.entry(id).and_modify(|fault| fault.control = Some(control));
            return self.control_spare(id);
        }
        self.judged(id, control);
    }

    fn judged(&mut self, id: FaultId, control: Control) {
        let (go, change) = self.breaker.judge(self.now, id, control, &self.policy);
        self.breaker_news(change);
        if go {
            self.place(id);
        } else {
            self.fail(id, "error storm");
        }
    }

    /// Is there a spare to place it on?
    pub(super) fn control_spare(&mut self, id: FaultId) {
        if self.spare.is_full() {
            return self.spare_controlled(id, Control::Proved);
        }
        let places = self.spare.places(&mut self.seed);
        let Some(fault) = self.faults.get_mut(&id) else { return };
        fault.step = Step::ControllingSpare;
        fault.places = vec![places];
        let spans = fault.control_spans();
        self.read(id, spans, 0);
    }

    fn spare_controlled(&mut self, id: FaultId, spare: Control) {
        let Some(fault) = self.faults.get_mut(&id) else { return };
        match fault.control.take() {
            Some(data) => self.judged(id, data.max(spare)),
            // Known damage, which needs no proof.
            None if spare == Control::Silent => self.is_away(id),
            None => self.place(id),
        }
    }

    pub(super) fn breaker_news(&mut self, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Opened) => {
                self.alarms.remove(&Alarm::StormOver);
                let text = "error storm: errors are passed up until the disk answers again";
                self.alarm(Alarm::Storm, text.into());
            }
            Some(Change::Closed) => {
                self.alarms.remove(&Alarm::Storm);
                self.alarm(Alarm::StormOver, "the disk answers again".into());
            }
        }
    }

    pub(super) fn release(&mut self, id: FaultId) {
        if let Some(fault) = self.faults.get_mut(&id) {
            fault.step = Step::Ending;
            fault.asked = Some(Verdict::Release);
            self.out.push(Action::Release { fault: id });
        }
    }

    /// The original error, and the end of the fence too. What a commit names keeps its fence, but its
    /// bio need not wait.
    pub(super) fn fail(&mut self, id: FaultId, why: &'static str) {
        let Some(fault) = self.faults.get_mut(&id) else { return };
        let ends = !fault.is_committed();
        match fault.flags.held {
            false if ends => return self.release(id),
            true if ends || fault.asked.is_none() => {}
            _ => return,
        }
        if fault.step != Step::Ending {
            self.counters.failed += 1;
            self.notes.add(self.now, Happening::Failed { fault: id, why });
        }
        if ends {
            fault.step = Step::Ending;
        }
        fault.asked = Some(Verdict::Fail);
        self.out.push(Action::Fail { fault: id });
    }
}

/// Where a part of the fault at `start` is, by what the table has there.
fn span(start: Sector, (part, kind): (Part, Option<Kind>)) -> Span {
    let at = match kind.and_then(Kind::slot) {
        Some(slot) => At::Spare(slot),
        None => At::Data(start + part.offset),
    };
    Span { at, len: part.len }
}
