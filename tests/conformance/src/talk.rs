//! A conversation: what is said and expected, and all that was answered, for comparison with the other side.

use std::fmt::Debug;

use anyhow::{Context, Result, bail, ensure};
use dmremap_protocol::uapi::{FaultState, Kind, Status as Found};
use dmremap_protocol::{Extent, FaultInfo, Message, Piece, Request, SlotArea};

use crate::side::differences;
use crate::{Access, Ended, Io, Side, State, Status, Step};

/// The sockets.
pub const A: u32 = 1;
pub const B: u32 = 2;
pub const INSTANCE: u32 = 1;
pub const AREA: SlotArea = SlotArea { start: 64, sectors: 2048, unit: 8 };

/// How long something may take that happens by itself, in steps of 100 ms.
const PATIENCE: u32 = 300;

/// What was said, and what it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    said: String,
    answer: String,
    ended: Vec<Ended>,
    state: Option<State>,
}

impl Entry {
    #[must_use]
    pub fn said(&self) -> &str {
        &self.said
    }
}

pub struct Talk<'a> {
    side: &'a mut dyn Side,
    transcript: Vec<Entry>,
    ended: Vec<Ended>,
    ios: u64,
    /// The state is not looked at after each step: it is large.
    pub terse: bool,
}

impl<'a> Talk<'a> {
    pub fn new(side: &'a mut dyn Side) -> Talk<'a> {
        Talk { side, transcript: Vec::new(), ended: Vec::new(), ios: 0, terse: false }
    }

    #[must_use]
    pub fn transcript(self) -> Vec<Entry> {
        self.transcript
    }

    /// The devices' numbers and the time that is left are not compared.
    pub fn state(&mut self) -> Result<State> {
        let mut state = self.side.state()?;
        let instance = &mut state.instance;
        (instance.dm_dev, instance.data_dev, instance.spare_dev) = (0, 0, 0);
        state.faults.iter_mut().for_each(|f| f.deadline_ms = f.deadline_ms.map(|_| 0));
        Ok(state)
    }

    fn enter(
        &mut self,
        said: &impl Debug,
        answer: &impl Debug,
        mut ended: Vec<Ended>,
    ) -> Result<()> {
        // What ends by one step may end in any order.
        ended.sort();
        let state = if self.terse { None } else { Some(self.state()?) };
        let (said, answer) = (format!("{said:?}"), format!("{answer:?}"));
        self.transcript.push(Entry { said, answer, ended, state });
        Ok(())
    }

    /// Takes a step that has no answer.
    pub fn step(&mut self, step: Step) -> Result<()> {
        let outcome = self.side.step(&step)?;
        self.ended.extend(outcome.ended.iter().cloned());
        self.enter(&step, &outcome.look, outcome.ended)
    }

    pub fn ask(&mut self, port: u32, request: Request) -> Result<Result<Vec<Message>, i32>> {
        let outcome = self.side.step(&Step::Ask { port, request: request.clone() })?;
        let answer = outcome.answer.context("no answer")?;
        self.ended.extend(outcome.ended.iter().cloned());
        // Lists are looked at as a whole, and hold what is not compared.
        let told =
            if request.is_dump() { answer.clone().map(|_| Vec::new()) } else { answer.clone() };
        self.enter(&request, &told, outcome.ended)?;
        Ok(answer)
    }

    /// The owner's request is accepted.
    pub fn ok(&mut self, request: Request) -> Result<Vec<Message>> {
        self.ok_by(A, request)
    }

    pub fn ok_by(&mut self, port: u32, request: Request) -> Result<Vec<Message>> {
        let answer = self.ask(port, request.clone())?;
        answer.map_err(|errno| anyhow::anyhow!("{request:?} is refused: errno {errno}"))
    }

    pub fn refused(&mut self, errno: i32, request: Request) -> Result<()> {
        self.refused_by(A, errno, request)
    }

    pub fn refused_by(&mut self, port: u32, errno: i32, request: Request) -> Result<()> {
        let answer = self.ask(port, request.clone())?;
        ensure!(answer == Err(errno), "{request:?}: {answer:?}, and not errno {errno}");
        Ok(())
    }

    pub fn close(&mut self, port: u32) -> Result<()> {
        self.step(Step::Close { port })
    }

    /// Sends an I/O; its number.
    pub fn io(&mut self, access: Access, start: u64, len: u64) -> Result<u64> {
        self.ios += 1;
        self.step(Step::Io(Io { id: self.ios, access, start, len }))?;
        Ok(self.ios)
    }

    pub fn write(&mut self, start: u64, len: u64) -> Result<u64> {
        self.io(Access::Write, start, len)
    }

    /// Has ended, or does soon.
    pub fn ends(&mut self, id: u64, status: Status) -> Result<Vec<Option<u64>>> {
        for _ in 0..PATIENCE {
            if let Some(at) = self.ended.iter().position(|e| e.id == id) {
                let ended = self.ended.swap_remove(at);
                ensure!(
                    ended.status == status,
                    "I/O {id} ends with {:?}, not {status:?}",
                    ended.status
                );
                return Ok(ended.found);
            }
            let outcome = self.side.step(&Step::Rest { ms: 100 })?;
            self.ended.extend(outcome.ended);
        }
        bail!("I/O {id} does not end")
    }

    /// Does not end by itself.
    pub fn is_held(&mut self, id: u64) -> Result<()> {
        ensure!(!self.ended.iter().any(|e| e.id == id), "I/O {id} has ended: {:?}", self.ended);
        Ok(())
    }

    /// Reads well, and finds this from `start` on.
    pub fn reads(&mut self, start: u64, wanted: &[Option<u64>]) -> Result<()> {
        let id = self.io(Access::Read, start, wanted.len() as u64)?;
        let found = self.ends(id, Status::Ok)?;
        ensure!(found == wanted, "at {start} stands what {found:?} wrote, and not {wanted:?}");
        Ok(())
    }

    pub fn write_well(&mut self, start: u64, len: u64) -> Result<u64> {
        let id = self.write(start, len)?;
        self.ends(id, Status::Ok)?;
        Ok(id)
    }

    pub fn faults(&mut self) -> Result<Vec<FaultInfo>> {
        Ok(self.state()?.faults)
    }

    /// The only fault there is.
    pub fn fault(&mut self) -> Result<FaultInfo> {
        let mut faults = self.faults()?;
        ensure!(faults.len() == 1, "not one fault: {faults:?}");
        faults.pop().context("no fault")
    }

    pub fn no_fault(&mut self) -> Result<()> {
        let faults = self.faults()?;
        ensure!(faults.is_empty(), "there are faults: {faults:?}");
        Ok(())
    }

    pub fn table_is(&mut self, wanted: &[Extent]) -> Result<()> {
        let found = self.state()?.extents;
        ensure!(found == wanted, "the table has{}", differences(&found, &wanted));
        Ok(())
    }

    /// Whether the doorbell rings within the time.
    pub fn rings(&mut self, ms: u64) -> Result<bool> {
        Ok(self.side.step(&Step::Rest { ms })?.rang)
    }

    /// An owner, and a table that it has made ready.
    pub fn serve(&mut self, extents: &[Extent]) -> Result<()> {
        self.ok(claim(0))?;
        if !extents.is_empty() {
            self.ok(load(extents))?;
        }
        self.ok(Request::Ready { instance: INSTANCE }).map(drop)
    }

    /// The range becomes this, by a fence of its own.
    pub fn change(&mut self, start: u64, piece: Piece, commit: u64) -> Result<()> {
        let fault = self.fence(start, u64::from(piece.offset + piece.len))?;
        self.ok(place(fault, &[piece]))?;
        self.ok(install(commit, &[fault])).map(drop)
    }

    pub fn fence(&mut self, start: u64, len: u64) -> Result<u64> {
        match self.ok(fence(start, len))?[..] {
            [Message::FaultId(id)] => Ok(id),
            ref other => bail!("FENCE answers {other:?}"),
        }
    }

    /// I/O of TRY or PLACE is over.
    pub fn is_over(&mut self, fault: u64) -> Result<FaultInfo> {
        for _ in 0..PATIENCE {
            let faults = self.faults()?;
            let found =
                faults.into_iter().find(|f| f.id == fault).context("the fault has ended")?;
            if found.state != FaultState::Busy {
                return Ok(found);
            }
            self.side.step(&Step::Rest { ms: 100 })?;
        }
        bail!("fault {fault} stays busy")
    }
}

pub fn claim(commit: u64) -> Request {
    Request::Claim { instance: INSTANCE, slots: AREA, commit }
}

pub fn load(extents: &[Extent]) -> Request {
    Request::Load { instance: INSTANCE, extents: extents.to_vec() }
}

pub fn fence(start: u64, len: u64) -> Request {
    Request::Fence { instance: INSTANCE, start, len }
}

pub fn attempt(fault: u64, pieces: &[Piece]) -> Request {
    Request::Try { instance: INSTANCE, fault, pieces: pieces.to_vec() }
}

pub fn place(fault: u64, pieces: &[Piece]) -> Request {
    Request::Place { instance: INSTANCE, fault, pieces: pieces.to_vec() }
}

pub fn install(commit: u64, faults: &[u64]) -> Request {
    Request::Install { instance: INSTANCE, commit, faults: faults.to_vec() }
}

pub fn release(fault: u64) -> Request {
    Request::Release { instance: INSTANCE, fault }
}

pub fn fail(fault: u64) -> Request {
    Request::Fail { instance: INSTANCE, fault }
}

pub fn extent(start: u64, len: u32, kind: Kind, slot: u64) -> Extent {
    Extent { start, slot, len, kind }
}

pub fn piece(offset: u32, len: u32, kind: Kind, slot: u64) -> Piece {
    Piece { offset, len, slot, kind, result: Found::Ok }
}
