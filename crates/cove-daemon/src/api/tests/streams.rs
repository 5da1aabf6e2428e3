//! What makes a stream of the connection, and logs.

use super::{Daemon, LONG, code};
use cove_api::{ErrorCode, LogQuery, LogSource};
use std::{fs, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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
    for mut stream in [
        daemon.client.exec("default", &exec).await.unwrap(),
        daemon.client.dial("default", &dial).await.unwrap(),
    ] {
        let sent = vec![7; 300_000];
        let mut received = Vec::new();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let writing = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let both = async { tokio::join!(writing, read.read_to_end(&mut received)) };
        timeout(LONG, both).await.unwrap().1.unwrap();
        assert_eq!(received, sent);
    }
    daemon.client.pause("default").await.unwrap();
    assert_eq!(
        code(daemon.client.dial("default", &dial).await),
        ErrorCode::WrongState
    );
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
