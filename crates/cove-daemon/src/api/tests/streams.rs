//! What makes a stream of the connection, and logs.

use super::{Daemon, LONG, code};
use cove_api::{Client, Dialled, ErrorCode, LogQuery, LogSource, transport};
use std::{fs, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

#[tokio::test]
async fn a_client_that_goes_ends_its_program_though_that_has_not_read_its_input() {
    let daemon = Daemon::begin();
    daemon.start().await;
    let exec = cove_wire::Exec {
        command: vec!["deaf".into()],
        environment: std::collections::BTreeMap::new(),
        directory: None,
        terminal: None,
    };
    let mut stream = daemon.client.exec("default", &exec).await.unwrap();
    let flood = async {
        let chunk = vec![0; 64 << 10];
        while stream.write_all(&chunk).await.is_ok() {}
    };
    // Everything on the way is full.
    assert!(timeout(Duration::from_millis(300), flood).await.is_err());
    drop(stream);
    let guest = daemon.fixture.host.guest();
    let hung_up = async {
        while guest.was_asked("hung-up") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, hung_up).await.expect("the guest is not told");
}

#[tokio::test]
async fn a_program_with_more_words_than_a_request_holds_is_refused_as_that() {
    let daemon = Daemon::begin();
    daemon.start().await;
    let exec = cove_wire::Exec {
        command: vec!["echo".into(), "x".repeat(cove_wire::MAX_FRAME)],
        environment: std::collections::BTreeMap::new(),
        directory: None,
        terminal: None,
    };
    let error = daemon.client.exec("default", &exec).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidRequest), "{error}");
    assert!(error.to_string().contains("too long"), "{error}");
}

#[tokio::test]
async fn exec_and_dial_turn_the_connection_into_a_stream_with_half_close() {
    let daemon = Daemon::begin();
    let exec = cove_wire::Exec {
        command: vec!["cat".into()],
        environment: std::collections::BTreeMap::new(),
        directory: None,
        terminal: None,
    };
    let dial = cove_wire::Dial {
        address: "127.0.0.1:80".parse().unwrap(),
        namespace: None,
    };
    assert_eq!(
        code(daemon.client.exec("default", &exec).await),
        ErrorCode::WrongState
    );
    daemon.start().await;
    // The scripted guest sends everything back and ends when it has seen the end.
    comes_back(daemon.client.exec("default", &exec).await.unwrap()).await;
    comes_back(daemon.client.dial("default", &dial).await.unwrap()).await;
    comes_back(dialled_by_hand(&daemon.client, &dial, "tcp").await).await;
    // What goes without its last chunk on one side has none on the other: it was reset.
    let mut stream = dialled_by_hand(&daemon.client, &dial, "cove-tcp").await;
    stream.write_all(b"\0\0\0\x04half").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    let end = timeout(LONG, Dialled::new(stream).read_to_end(&mut got)).await;
    assert_eq!(
        end.unwrap().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert_eq!(got, b"half");
    daemon.client.pause("default").await.unwrap();
    assert_eq!(
        code(daemon.client.dial("default", &dial).await),
        ErrorCode::WrongState
    );
}

/// Sends much, ends, and gets it back.
async fn comes_back(stream: impl AsyncRead + AsyncWrite) {
    let sent = vec![7; 300_000];
    let mut received = Vec::new();
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(writing, read.read_to_end(&mut received)) };
    timeout(LONG, both).await.unwrap().1.unwrap();
    assert_eq!(received, sent);
}

/// The stream of a request to dial that no client of ours wrote.
async fn dialled_by_hand(client: &Client, dial: &cove_wire::Dial, protocol: &str) -> transport::Stream {
    let body = serde_json::to_string(dial).unwrap();
    let request = format!(
        "POST /v1/machines/default/dial HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = transport::connect(client.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

#[tokio::test]
async fn logs_of_the_host_are_read_and_those_that_are_not_there_yet_are_said_to_be_so() {
    let daemon = Daemon::begin();
    let query = |source, tail| LogQuery {
        source,
        follow: false,
        tail,
    };
    let absent = daemon
        .client
        .logs("default", query(LogSource::Console, None))
        .await;
    assert_eq!(code(absent), ErrorCode::NotFound);
    let console = daemon.fixture.context.dirs.machine("default").join("console.log");
    fs::write(console, "one\ntwo\nthree\n").unwrap();
    let mut log = daemon
        .client
        .logs("default", query(LogSource::Console, Some(2)))
        .await
        .unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = log.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(text, b"two\nthree\n");
    let of_guest = daemon
        .client
        .logs("default", query(LogSource::Engine, None))
        .await;
    assert_eq!(code(of_guest), ErrorCode::WrongState);
}
