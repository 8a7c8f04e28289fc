//! The other end of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use super::control::{ANSWER, Answer, Request};

#[derive(Debug, Error)]
pub enum AskError {
    #[error("no daemon answers at {path}: {source}; is dmremap-policyd running?")]
    Connect { path: String, source: io::Error },
    #[error("the daemon's answer broke off: {0}")]
    Io(#[from] io::Error),
    #[error("the daemon's answer makes no sense: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

/// Asks and gives each part of the answer to `part`.
pub fn ask(
    socket: &Path,
    request: &Request,
    mut part: impl FnMut(Value) -> io::Result<()>,
) -> Result<(), AskError> {
    let mut stream = UnixStream::connect(socket)
        .map_err(|source| AskError::Connect { path: socket.display().to_string(), source })?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answers = BufReader::new(stream);
    loop {
        line.clear();
        let length = answers.by_ref().take(ANSWER as u64).read_line(&mut line)?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_str(&line)? {
            Answer::Part(value) => part(value)?,
            Answer::Done => return Ok(()),
            Answer::Error(reason) => return Err(AskError::Refused(reason)),
        }
    }
}
