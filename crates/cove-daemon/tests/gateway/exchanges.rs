//! Requests and answers on their way through.

use crate::setup::{Setup, Wire, not_yet, soon};
use proptest::prelude::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sends a request through and checks that it arrives as it was sent.
async fn passes(client: &mut Wire, engine: &mut Wire, message: impl AsRef<[u8]>) {
    client.send(&message).await;
    engine.expect(message).await;
}

#[tokio::test]
async fn requests_of_one_connection_share_one_engine_connection() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /first HTTP/1.1\r\nHost: d\r\n\r\n").await;
    let mut engine = setup.engine().await;
    assert!(engine.head().await.starts_with("GET /first "));
    passes(&mut engine, &mut client, OK).await;
    for _ in 0..10 {
        passes(
            &mut client,
            &mut engine,
            "POST /next HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        )
        .await;
        passes(&mut engine, &mut client, OK).await;
    }
    assert!(setup.engine_is_untouched());
}

#[tokio::test]
async fn nothing_of_a_message_is_changed() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let request = "POST /x?a=%2f&b HTTP/1.1\r\nhOST:d\r\nX-Odd:   spaced \r\nTRANSFER-encoding: Chunked\r\nTrailer: T\r\n\r\n5;name=\"v\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nT: end\r\n\r\n";
    client.send(request).await;
    let mut engine = setup.engine().await;
    engine.expect(request).await;
    let answer = "HTTP/1.1 299 Odd Reason\r\napi-version: 1.47\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    passes(&mut engine, &mut client, answer).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_one_after_the_other() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client
        .send("GET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\n\r\n")
        .await;
    let mut engine = setup.engine().await;
    engine.expect("GET /1 HTTP/1.1\r\n\r\n").await;
    not_yet("the second request", engine.exactly(1)).await;
    engine.send(OK).await;
    engine
        .expect("POST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    engine.send(OK).await;
    engine.expect("GET /3 HTTP/1.1\r\n\r\n").await;
    engine.send(OK).await;
    client.expect(OK.repeat(3)).await;
}

#[tokio::test]
async fn what_follows_an_unanswered_request_is_not_gathered() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /events HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    client.flood().await;
    passes(&mut engine, &mut client, OK).await;
}

#[tokio::test]
async fn a_body_waits_for_the_engines_word_when_the_client_asks_for_it() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let head = "POST /images/load HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head).await;
    let mut engine = setup.engine().await;
    engine.expect(head).await;
    passes(&mut engine, &mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    passes(&mut client, &mut engine, "body").await;
    passes(&mut engine, &mut client, OK).await;
    passes(&mut client, &mut engine, "GET /next HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn every_part_of_an_answer_arrives_when_it_is_sent() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /events HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    passes(&mut engine, &mut client, "HTTP/1.1 103 Early Hints\r\n\r\n").await;
    passes(
        &mut engine,
        &mut client,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    for part in ["5\r\nhello\r\n", "1", "\r", "\nx", "\r\n", "0\r\n", "\r\n"] {
        passes(&mut engine, &mut client, part).await;
    }
    passes(&mut client, &mut engine, "GET /next HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("HEAD /_ping HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    passes(
        &mut engine,
        &mut client,
        "HTTP/1.1 200 OK\r\nContent-Length: 7000\r\n\r\n",
    )
    .await;
    passes(
        &mut client,
        &mut engine,
        "POST /containers/x/start HTTP/1.1\r\n\r\n",
    )
    .await;
    passes(&mut engine, &mut client, "HTTP/1.1 204 No Content\r\n\r\n").await;
    passes(&mut client, &mut engine, "GET /next HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn an_old_client_gets_an_answer_that_ends_with_the_connection() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /info HTTP/1.0\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    engine.send("HTTP/1.0 200 OK\r\n\r\nall of it").await;
    drop(engine);
    assert_eq!(client.rest().await, b"HTTP/1.0 200 OK\r\n\r\nall of it");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_arrives() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client
        .send("POST /build HTTP/1.1\r\nContent-Length: 100000000\r\n\r\nsome")
        .await;
    let mut engine = setup.engine().await;
    engine.head().await;
    let refusal = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";
    engine.send(refusal).await;
    drop(engine);
    // The client has not noticed yet and goes on, more than any buffer holds.
    let more = vec![b'x'; 4 << 20];
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &more).await;
    assert_eq!(client.rest().await, refusal.as_bytes());
}

#[tokio::test]
async fn an_early_answer_does_not_cut_the_request_short() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let head = "POST /build HTTP/1.1\r\nContent-Length: 8\r\n\r\n";
    client.send(head).await;
    client.send("half").await;
    let mut engine = setup.engine().await;
    engine.expect(head).await;
    passes(&mut engine, &mut client, OK).await;
    // No head could begin like the rest.
    client.send("\n\n\n\nGET /next HTTP/1.1\r\n\r\n").await;
    engine.expect("half\n\n\n\nGET /next HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn an_engine_that_stops_reading_may_still_say_why() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client
        .send("POST /images/load HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome")
        .await;
    let mut engine = setup.engine().await;
    engine.head().await;
    engine.exactly(4).await;
    rustix::net::shutdown(&engine.stream, rustix::net::Shutdown::Read).unwrap();
    client.send("more").await;
    not_yet("an answer", client.fill()).await;
    let full = "HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 2\r\n\r\nno";
    passes(&mut engine, &mut client, full).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_answer_is_missed_by_the_engine() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client
        .send("GET /containers/x/logs?follow=1 HTTP/1.1\r\n\r\n")
        .await;
    let mut engine = setup.engine().await;
    engine.head().await;
    passes(
        &mut engine,
        &mut client,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    drop(client);
    assert_eq!(engine.rest().await, b"");
}

#[tokio::test]
async fn a_client_that_only_ends_its_side_still_gets_its_answer() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /info HTTP/1.1\r\n\r\n").await;
    client.finish().await;
    let mut engine = setup.engine().await;
    assert_eq!(engine.rest().await, b"GET /info HTTP/1.1\r\n\r\n");
    engine.send(OK).await;
    assert_eq!(client.rest().await, OK.as_bytes());
}

#[tokio::test]
async fn a_client_that_dies_in_a_request_ends_it_for_the_engine() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client
        .send("POST /build HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome")
        .await;
    let mut engine = setup.engine().await;
    engine.head().await;
    drop(client);
    assert_eq!(engine.rest().await, b"some");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /x HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    engine
        .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    drop(engine);
    assert!(client.rest().await.ends_with(b"\r\n\r\nhalf"));
}

#[tokio::test]
async fn an_engine_that_ends_without_a_word_is_reported_once() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /x HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    drop(engine);
    let (status, message) = client.message().await;
    assert_eq!(status, 502);
    assert!(message.contains("cove logs"), "{message}");
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn an_engine_that_ends_a_used_connection_ends_the_clients() {
    let mut setup = Setup::new();
    for idle in [true, false] {
        let mut client = setup.client().await;
        client.send("GET /x HTTP/1.1\r\n\r\n").await;
        let mut engine = setup.engine().await;
        engine.head().await;
        passes(&mut engine, &mut client, OK).await;
        if !idle {
            client.send("GET /y HTTP/1.1\r\n\r\n").await;
            engine.head().await;
        }
        drop(engine);
        // No answer of the gateway's: clients try again on a fresh connection when this happens.
        assert_eq!(client.rest().await, b"", "idle: {idle}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a client sends and however it is cut up on the way, the engine gets these bytes, and the client those
    /// of the answers.
    #[test]
    fn conversations_pass_through_unchanged(
        conversation in prop::collection::vec((message("POST /x HTTP/1.1"), message("HTTP/1.1 200 OK")), 1..5),
        // Nobody reads beside the sending, and a socket holds a few hundred parts, however small.
        step in 8_usize..200,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut setup = Setup::new();
            let mut client = setup.client().await;
            let mut engine = None;
            for (request, answer) in conversation {
                for part in request.chunks(step) {
                    client.send(part).await;
                    tokio::task::yield_now().await;
                }
                if engine.is_none() {
                    engine = Some(setup.engine().await);
                }
                let engine = engine.as_mut().unwrap();
                engine.expect(request).await;
                for part in answer.chunks(step) {
                    engine.send(part).await;
                    tokio::task::yield_now().await;
                }
                client.expect(answer).await;
            }
            setup.shutdown.cancel();
            soon("the gateway's end", &mut setup.serving).await.unwrap();
        });
    }
}

/// A message with a body of any content, either of known length or in chunks.
fn message(start: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5);
    (chunks, any::<bool>()).prop_map(move |(chunks, chunked)| {
        let mut message = format!("{start}\r\n").into_bytes();
        if chunked {
            message.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in chunks {
                message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                message.extend_from_slice(&chunk);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"0\r\n\r\n");
        } else {
            let body = chunks.concat();
            message.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            message.extend_from_slice(&body);
        }
        message
    })
}
