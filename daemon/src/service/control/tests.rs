use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::service::client::{AskError, ask};

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run/control.sock");
    (directory, path)
}

/// A daemon that answers LIST with two parts, and gives RELOAD up.
async fn serve(mut calls: mpsc::Receiver<Call>) {
    while let Some((request, to)) = calls.recv().await {
        let answers = match request {
            Request::Status {} => vec![Answer::Error("not now".to_owned())],
            Request::List { device } => {
                vec![Answer::Part(device.into()), Answer::Part(2.into()), Answer::Done]
            }
            Request::Reload {} => vec![],
        };
        for answer in answers {
            to.send(answer).await.expect("the client waits");
        }
    }
}

/// What a client gets from that daemon: the parts, and the error if one ended them.
async fn asked(path: &Path, request: Request) -> (Vec<Value>, Option<AskError>) {
    let path = path.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let mut parts = Vec::new();
        let result = ask(&path, &request, |part| {
            parts.push(part);
            Ok(())
        });
        (parts, result.err())
    });
    asked.await.expect("no panic")
}

#[tokio::test]
async fn parts_come_in_order_and_errors_in_words() {
    let (_directory, path) = place();
    let control = Control::open(&path).expect("opens");
    let (calls, called) = mpsc::channel(1);
    tokio::spawn(serve(called));
    tokio::spawn(control.serve(calls));

    let (parts, error) = asked(&path, Request::List { device: "d".to_owned() }).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(parts, [Value::from("d"), Value::from(2)]);
    let (_, error) = asked(&path, Request::Status {}).await;
    assert_eq!(error.expect("refused").to_string(), "not now");
    let (_, error) = asked(&path, Request::Reload {}).await;
    assert_eq!(error.expect("given up").to_string(), "the daemon gave the request up");
}

#[tokio::test]
async fn nonsense_is_answered_and_a_line_too_long_ends_the_connection() {
    let (_directory, path) = place();
    let control = Control::open(&path).expect("opens");
    let (calls, called) = mpsc::channel(1);
    tokio::spawn(serve(called));
    tokio::spawn(control.serve(calls));

    let stream = UnixStream::connect(&path).await.expect("connects");
    let mut lines = Framed::new(stream, LinesCodec::new());
    lines.send(r#"{"request":"status","more":1}"#).await.expect("sent");
    let refused = lines.next().await.expect("a line").expect("text");
    assert!(refused.contains("request not understood"), "{refused}");
    lines.send("x".repeat(REQUEST + 1)).await.expect("sent");
    assert!(!matches!(lines.next().await, Some(Ok(_))));
}

#[tokio::test]
async fn only_its_owner_may_connect_and_a_second_daemon_is_refused() {
    let (_directory, path) = place();
    let first = Control::open(&path).expect("opens");
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = Control::open(&path).err().expect("the first one runs");
    assert!(error.to_string().contains("another dmremap-policyd runs"), "{error}");
    drop(first);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_anything_else_is_not() {
    let (_directory, path) = place();
    fs::create_dir(path.parent().expect("below")).expect("made");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that stays"));
    drop(Control::open(&path).expect("opens"));
    fs::write(&path, "precious").expect("written");
    let error = Control::open(&path).err().expect("refused");
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(fs::read(&path).expect("still there"), b"precious");
}
