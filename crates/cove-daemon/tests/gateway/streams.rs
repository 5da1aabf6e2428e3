//! Connections that become raw streams: attach, exec, build sessions.

use crate::setup::{Setup, Wire, not_yet, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const UPGRADE: &str =
    "POST /v1.47/exec/1/start HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}";
const SWITCHED: &str = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

/// A client and an engine whose connection has become a raw stream.
async fn upgraded() -> (Setup, Wire, Wire) {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send(UPGRADE).await;
    let mut engine = setup.engine().await;
    engine.expect(UPGRADE).await;
    engine.send(SWITCHED).await;
    client.expect(SWITCHED).await;
    (setup, client, engine)
}

#[tokio::test]
async fn output_goes_on_after_the_end_of_input() {
    let (_setup, mut client, mut engine) = upgraded().await;
    client.send("input").await;
    client.finish().await;
    assert_eq!(engine.rest().await, b"input");
    for _ in 0..3 {
        engine.send("output").await;
        client.expect("output").await;
    }
    drop(engine);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn input_goes_on_after_the_end_of_output() {
    let (_setup, mut client, mut engine) = upgraded().await;
    engine.send("output").await;
    engine.finish().await;
    assert_eq!(client.rest().await, b"output");
    for _ in 0..3 {
        client.send("input").await;
        engine.expect("input").await;
    }
    drop(client);
    assert_eq!(engine.rest().await, b"");
}

#[tokio::test]
async fn an_answer_without_a_length_is_a_raw_stream_too() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let request = "POST /containers/x/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\n\r\n";
    client.send(request).await;
    let mut engine = setup.engine().await;
    engine.expect(request).await;
    let hijacked = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
    engine.send(hijacked).await;
    client.expect(hijacked).await;
    client.send("GET /not/a/request HTTP/1.1\r\n\r\n").await;
    engine.expect("GET /not/a/request HTTP/1.1\r\n\r\n").await;
    client.finish().await;
    assert_eq!(engine.rest().await, b"");
    engine.send("bye").await;
    drop(engine);
    assert_eq!(client.rest().await, b"bye");
}

#[tokio::test]
async fn input_that_comes_with_the_request_waits_for_the_stream() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send(UPGRADE).await;
    client.send("eager").await;
    client.finish().await;
    let mut engine = setup.engine().await;
    engine.expect(UPGRADE).await;
    not_yet("input, or its end", engine.fill()).await;
    engine.send(SWITCHED).await;
    engine.send("output at once").await;
    assert_eq!(engine.rest().await, b"eager");
    client.expect(SWITCHED).await;
    client.expect("output at once").await;
}

#[tokio::test]
async fn a_declined_upgrade_leaves_the_connection_usable() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send(UPGRADE).await;
    let mut engine = setup.engine().await;
    engine.expect(UPGRADE).await;
    let declined = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
    engine.send(declined).await;
    client.expect(declined).await;
    client.send(UPGRADE).await;
    engine.expect(UPGRADE).await;
}

/// `yes | docker run -i alpine head -1`: the engine ends while the client writes more than anybody reads.
#[tokio::test]
async fn output_is_not_lost_when_the_engine_ends_in_the_middle_of_input() {
    for _ in 0..5 {
        let (_setup, client, mut engine) = upgraded().await;
        let (mut reader, mut writer) = client.stream.into_split();
        let writing = tokio::spawn(async move { while writer.write_all(&[b'y'; 4096]).await.is_ok() {} });
        engine.exactly(10_000).await;
        engine.send("y\n").await;
        drop(engine);
        let mut output = Vec::new();
        let read = soon("the end of output", reader.read_to_end(&mut output)).await;
        assert_eq!(output, b"y\n", "{read:?}");
        assert!(read.is_ok(), "{read:?}");
        drop(reader);
        soon("the client to be told", writing).await.unwrap();
    }
}

#[tokio::test]
async fn input_is_not_lost_when_the_client_ends_in_the_middle_of_output() {
    for _ in 0..20 {
        let (_setup, mut client, engine) = upgraded().await;
        let (mut reader, mut writer) = engine.stream.into_split();
        let writing = tokio::spawn(async move { while writer.write_all(&[b'x'; 4096]).await.is_ok() {} });
        client.exactly(1_000_000).await;
        client.send("last words").await;
        drop(client);
        let mut input = Vec::new();
        // Closing with output unread, the gateway may reset the connection; what it had passed on is there all the
        // same.
        let _ = soon("the end of input", reader.read_to_end(&mut input)).await;
        assert_eq!(input, b"last words");
        drop(reader);
        soon("the engine to be told", writing).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_is_slowed_down_by_the_end_that_does_not_read() {
    let (_setup, mut client, mut engine) = upgraded().await;
    let sent = client.flood().await;
    // The other direction is not held up by it, and nothing is lost.
    engine.send("output").await;
    client.expect("output").await;
    engine.discard(sent, || ()).await;
}
