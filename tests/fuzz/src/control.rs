//! The control socket: lines of JSON that a client sends, however they are cut.

use bytes::BytesMut;
use dmremap_policyd::service::control::{self, Request};
use tokio_util::codec::Decoder;

/// The first byte is the size of what arrives at once.
pub fn control(data: &[u8]) {
    let (&size, stream) = data.split_first().unwrap_or((&0, &[]));
    let whole = lines(stream.chunks(stream.len().max(1)));
    let cut = lines(stream.chunks(usize::from(size).max(1)));
    assert_eq!(whole, cut, "what is asked depends on how it arrives");
}

/// What the connection's task makes of the stream; `None` ends it.
fn lines<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Option<String>> {
    let mut codec = control::lines();
    let mut held = BytesMut::new();
    let mut out = Vec::new();
    for chunk in chunks {
        held.extend_from_slice(chunk);
        loop {
            match codec.decode(&mut held) {
                Ok(None) => break,
                Ok(Some(line)) => out.push(Some(answer(&line))),
                Err(_) => {
                    out.push(None);
                    return out;
                }
            }
        }
        assert!(held.len() <= 2 * control::REQUEST + chunk.len(), "a line without end is kept");
    }
    match codec.decode_eof(&mut held) {
        Ok(Some(line)) => out.push(Some(answer(&line))),
        Ok(None) => {}
        Err(_) => out.push(None),
    }
    out
}

fn answer(line: &str) -> String {
    assert!(line.len() <= control::REQUEST);
    match control::understand(line) {
        Ok(request) => {
            let again = serde_json::to_string(&request).unwrap();
            assert_eq!(control::understand(&again), Ok(request.clone()));
            if let Request::List { device } = &request {
                assert!(device.len() <= line.len());
            }
            again
        }
        Err(refusal) => {
            let told = serde_json::to_string(&refusal).unwrap();
            assert!(!told.contains('\n'), "an answer is one line");
            assert!(told.contains("request not understood"), "{told}");
            assert!(told.len() < control::ANSWER);
            told
        }
    }
}
