//! The client against a socket that answers as it is told.

use super::*;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

/// An engine that reads one request and answers with these bytes, in pieces.
fn engine(answer: &'static [&'static str]) -> (Engine, tempfile::TempDir, tokio::task::JoinHandle<String>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let count = stream.read(&mut request).await.unwrap();
        for piece in answer {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    (Engine::at(socket), directory, heard)
}

#[test]
fn a_name_cannot_reach_another_path() {
    assert_eq!(
        Place::of(&["containers", "../images/x?a=b", "json"]).0,
        "/containers/..%2Fimages%2Fx%3Fa%3Db/json"
    );
    assert_eq!(Place::of(&["containers", "..", "json"]).0, "/containers/%20/json");
    let place = Place::of(&["images", "create"])
        .with("fromImage", "a/b:c&d")
        .with("x", "1");
    assert_eq!(place.0, "/images/create?fromImage=a%2Fb%3Ac%26d&x=1");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_engines_words() {
    let (engine, _directory, _) = engine(&[
        "HTTP/1.1 404 Not Found\r\nContent-Length: 41\r\n\r\n{\"message\":\"No such image: what:latest\"}\n\n",
    ]);
    let error = engine
        .get(&Place::of(&["images", "what", "json"]))
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "No such image: what:latest");
}

#[tokio::test]
async fn lines_are_read_however_they_are_cut() {
    let (engine, _directory, _) = engine(&[
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\":",
        "1}\n\r\n{\"a\":2}\n{\"a\"",
        ":3}",
    ]);
    let mut lines = engine.lines(Method::GET, &Place::of(&["events"])).await.unwrap();
    for expected in 1..=3 {
        assert_eq!(lines.next().await.unwrap().unwrap()["a"], expected);
    }
    assert!(lines.next().await.unwrap().is_none());
}

#[tokio::test]
async fn an_answer_larger_than_it_may_be_is_refused() {
    let (engine, _directory, _) = engine(&["HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[]"]);
    let answer = engine.get(&Place::of(&["containers", "json"])).await;
    assert!(
        matches!(answer, Err(EngineError::Unexpected { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_terminal_carries_bytes_both_ways() {
    let (engine, _directory, heard) = engine(&[
        "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        "\u{1}/ # ",
    ]);
    let place = Place::of(&["exec", "e1", "start"]);
    let mut terminal = engine
        .terminal(&place, Some(&serde_json::json!({"Tty": true})))
        .await
        .unwrap();
    let mut prompt = [0; 5];
    terminal.read_exact(&mut prompt).await.unwrap();
    assert_eq!(&prompt, b"\x01/ # ");
    assert!(
        heard
            .await
            .unwrap()
            .starts_with("POST /exec/e1/start HTTP/1.1\r\n")
    );
}

#[tokio::test]
async fn no_engine_names_the_socket() {
    let error = Engine::at("/nowhere/docker.sock")
        .get(&Place::of(&["version"]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nowhere/docker.sock"), "{error}");
}

#[tokio::test]
async fn an_archive_is_sent_while_it_is_made() {
    let (engine, _directory, heard) = engine(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
    let place = Place::of(&["containers", "web", "archive"]).with("path", "/srv");
    engine.put_archive(&place, &b"an archive"[..]).await.unwrap();
    let request = heard.await.unwrap();
    assert!(
        request.starts_with("PUT /containers/web/archive?path=%2Fsrv "),
        "{request}"
    );
    assert!(request.contains("content-type: application/x-tar"), "{request}");
}

#[tokio::test]
async fn a_registry_is_told_who_asks() {
    let (engine, _directory, heard) =
        engine(&["HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"status\":\"Pushing\"}\n"]);
    let place = Place::of(&["images", "a/b", "push"]);
    let mut lines = engine.lines_as(Method::POST, &place, "e30=").await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap()["status"], "Pushing");
    assert!(heard.await.unwrap().contains("x-registry-auth: e30=\r\n"));
}

#[tokio::test]
async fn what_the_engine_says_of_an_archive_comes_line_by_line() {
    let (engine, _directory, heard) =
        engine(&["HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"stream\":\"Loaded\"}\n"]);
    let place = Place::of(&["images", "load"]);
    let mut lines = engine.post_archive(&place, &b"an archive"[..]).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap()["stream"], "Loaded");
    assert!(
        heard
            .await
            .unwrap()
            .contains("content-type: application/x-tar\r\n")
    );
}

#[tokio::test]
async fn only_what_the_engine_says_is_not_there_is_absent() {
    for (answer, expected) in [
        (&["HTTP/1.1 200 OK\r\n\r\n"], Some(true)),
        (
            &["HTTP/1.1 404 Not Found\r\nContent-Length: 41\r\n\r\n"],
            Some(false),
        ),
        (
            &["HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9\r\n\r\n"],
            None,
        ),
        (&["nonsense"], None),
    ] {
        let (engine, _directory, _) = engine(answer);
        let found = engine.has(&Place::of(&["containers", "web", "archive"])).await;
        assert_eq!(found.ok(), expected, "{answer:?}");
    }
}
