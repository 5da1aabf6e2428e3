//! Clients and engines that do not keep to the rules.

use crate::setup::{Setup, soon};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_never_reaches_the_engine() {
    let mut setup = Setup::new();
    let smuggled = "GET /smuggled HTTP/1.1\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5\r\ncontent-length: 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        "Content-Length: 5\nTransfer-Encoding: chunked",
        "X: a\rContent-Length: 5",
    ] {
        let mut client = setup.client().await;
        client
            .send(format!("POST /x HTTP/1.1\r\n{fields}\r\n\r\n{smuggled}"))
            .await;
        let (status, message) = client.message().await;
        assert!(status == 400 || status == 501, "{fields:?}: {status} {message}");
        assert_eq!(client.rest().await, b"", "{fields:?}");
        assert!(setup.engine_is_untouched(), "{fields:?}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_answered_and_dropped() {
    let mut setup = Setup::new();
    for (bytes, expected) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("CONNECT d:1 HTTP/1.1\r\n\r\n".to_owned(), 405),
        ("\x16\x03\x01\x02\n".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(300)), 431),
    ] {
        let mut client = setup.client().await;
        client.send(&bytes).await;
        assert_eq!(client.message().await.0, expected);
        assert!(setup.engine_is_untouched());
    }
}

#[tokio::test]
async fn a_malformed_chunk_ends_the_request_for_both() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client
        .send("POST /build HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    let mut engine = setup.engine().await;
    engine.head().await;
    engine.expect("3\r\nabc\r\n").await;
    client
        .send("3\r\nabcd\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
        .await;
    assert_eq!(client.message().await.0, 400);
    assert_eq!(engine.rest().await, b"");
}

#[tokio::test]
async fn an_engine_that_does_not_speak_http_is_reported() {
    let mut setup = Setup::new();
    for answer in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    ] {
        let mut client = setup.client().await;
        client.send("GET /x HTTP/1.1\r\n\r\n").await;
        let mut engine = setup.engine().await;
        engine.head().await;
        engine.send(answer).await;
        assert_eq!(client.message().await.0, 502, "{answer:?}");
        assert_eq!(client.rest().await, b"");
    }
}

#[tokio::test]
async fn an_endless_head_of_the_engine_is_not_gathered() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /x HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    let endless = vec![b'x'; 65536];
    let flood = async { while engine.stream.write_all(&endless).await.is_ok() {} };
    soon("the flood to be stopped", flood).await;
    assert_eq!(client.message().await.0, 502);
}

#[tokio::test]
async fn an_engine_that_speaks_without_being_asked_is_dropped() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let answer = "HTTP/1.1 204 No Content\r\n\r\n";
    client.send("GET /x HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    engine.send(answer).await;
    client.expect(answer).await;
    engine
        .send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        .await;
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn an_answer_queued_ahead_of_its_request_is_not_taken_for_one() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let answer = "HTTP/1.1 204 No Content\r\n\r\n";
    client.send("GET /x HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    engine
        .send(format!(
            "{answer}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
        ))
        .await;
    client.expect(answer).await;
    let _ = client.stream.write_all(b"GET /y HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.rest().await, b"");
}
