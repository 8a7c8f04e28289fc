//! What was asked of the device and what it answered: one event a line, in the order they were seen.
//!
//! ```text
//! write ID SECTOR COUNT [fua]    submitted
//! flush ID                       submitted
//! read ID SECTOR COUNT           submitted
//! ok ID [CONTENT...]             succeeded; a read with the content of each of its sectors
//! error ID ERRNO                 failed
//! reset                          the guest died and its disks kept their power
//! cut                            the disks lost their power
//! ```
//!
//! IDs are unique in a history and not 0; the ID of a write is what its sectors carry.

use std::fmt;
use std::ops::Range;
use std::str::{FromStr, SplitWhitespace};

use super::Content;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Write { id: u64, sectors: Range<u64>, fua: bool },
    Flush { id: u64 },
    Read { id: u64, sectors: Range<u64> },
    Ok { id: u64, contents: Vec<Content> },
    Error { id: u64, errno: i32 },
    Reset,
    Cut,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Event::Write { id, sectors, fua } => {
                let fua = if *fua { " fua" } else { "" };
                write!(f, "write {id} {} {}{fua}", sectors.start, sectors.end - sectors.start)
            }
            Event::Flush { id } => write!(f, "flush {id}"),
            Event::Read { id, sectors } => {
                write!(f, "read {id} {} {}", sectors.start, sectors.end - sectors.start)
            }
            Event::Ok { id, contents } => {
                write!(f, "ok {id}")?;
                contents.iter().try_for_each(|content| write!(f, " {content}"))
            }
            Event::Error { id, errno } => write!(f, "error {id} {errno}"),
            Event::Reset => f.write_str("reset"),
            Event::Cut => f.write_str("cut"),
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let event = match words.next().unwrap_or_default() {
            "write" => {
                let (id, sectors) = (id(&mut words)?, sectors(&mut words)?);
                let fua = match words.next() {
                    None => false,
                    Some("fua") => true,
                    Some(other) => return Err(format!("{other:?} in place of \"fua\"")),
                };
                Event::Write { id, sectors, fua }
            }
            "flush" => Event::Flush { id: id(&mut words)? },
            "read" => Event::Read { id: id(&mut words)?, sectors: sectors(&mut words)? },
            "ok" => {
                let id = id(&mut words)?;
                Event::Ok {
                    id,
                    contents: words.by_ref().map(str::parse).collect::<Result<_, _>>()?,
                }
            }
            "error" => Event::Error { id: id(&mut words)?, errno: number(&mut words, "errno")? },
            "reset" => Event::Reset,
            "cut" => Event::Cut,
            other => return Err(format!("{other:?} is no event")),
        };
        match words.next() {
            None => Ok(event),
            Some(more) => Err(format!("{more:?} after the end of the event")),
        }
    }
}

fn number<T: FromStr>(words: &mut SplitWhitespace, what: &str) -> Result<T, String> {
    let word = words.next().ok_or_else(|| format!("the {what} is missing"))?;
    word.parse().map_err(|_| format!("{word:?} is not a valid {what}"))
}

fn id(words: &mut SplitWhitespace) -> Result<u64, String> {
    match number(words, "id")? {
        0 => Err("the id 0 stands for a disk never written to".into()),
        id => Ok(id),
    }
}

fn sectors(words: &mut SplitWhitespace) -> Result<Range<u64>, String> {
    let (start, count): (u64, u64) = (number(words, "sector")?, number(words, "count")?);
    let end = start.checked_add(count).filter(|end| *end > start);
    end.map(|end| start..end).ok_or_else(|| format!("{count} sectors from {start} are no range"))
}
