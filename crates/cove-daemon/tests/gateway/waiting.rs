//! Machines that are not there yet, or not at all.

use crate::setup::{Setup, State, not_yet, soon};
use std::time::Duration;

#[tokio::test]
async fn a_request_waits_for_a_starting_machine() {
    let mut setup = Setup::new();
    setup.state.send_replace(State::Starting);
    let mut client = setup.client().await;
    client
        .send("POST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo")
        .await;
    not_yet("an answer", client.fill()).await;
    assert!(setup.engine_is_untouched());
    client.send("dy").await;
    setup.state.send_replace(State::Running);
    let mut engine = setup.engine().await;
    engine
        .expect("POST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    engine.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.expect("HTTP/1.1 204 No Content\r\n\r\n").await;
}

#[tokio::test]
async fn a_large_request_is_not_swallowed_while_it_waits() {
    let mut setup = Setup::new();
    setup.state.send_replace(State::Starting);
    let mut client = setup.client().await;
    let head = "POST /images/load HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n";
    client.send(head).await;
    let sent = client.flood().await;
    setup.state.send_replace(State::Running);
    let mut engine = setup.engine().await;
    engine.expect(head).await;
    engine.discard(sent, || ()).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_forgotten() {
    let mut setup = Setup::new();
    setup.state.send_replace(State::Starting);
    let mut client = setup.client().await;
    client.send("POST /containers/x/stop HTTP/1.1\r\n\r\n").await;
    let settles = async |setup: &Setup, waiting| {
        soon("the number of waiting clients to change", async {
            while setup.waiting() != waiting {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    };
    settles(&setup, 1).await;
    drop(client);
    settles(&setup, 0).await;
    setup.state.send_replace(State::Running);
    assert!(setup.engine_is_untouched());
}

#[tokio::test]
async fn a_client_that_has_ended_its_input_is_answered_by_a_machine_that_runs() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client.send("GET /_ping HTTP/1.1\r\n\r\n").await;
    client.finish().await;
    let mut engine = setup.engine().await;
    engine.expect("GET /_ping HTTP/1.1\r\n\r\n").await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
    engine.send(answer).await;
    client.expect(answer).await;
}

#[tokio::test]
async fn a_stopped_machine_is_told_in_dockers_words() {
    let setup = Setup::new();
    setup.state.send_replace(State::Stopped);
    let mut client = setup.client().await;
    client.send("GET /containers/json HTTP/1.1\r\n\r\n").await;
    let told = (
        503,
        "machine `default` is stopped. Start it with: cove start".to_owned(),
    );
    assert_eq!(client.message().await, told);
    assert_eq!(client.rest().await, b"");

    let mut client = setup.client().await;
    client.send("HEAD /_ping HTTP/1.1\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 503 "));
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_stopped_machine_is_told_to_a_client_that_is_busy_sending() {
    let setup = Setup::new();
    setup.state.send_replace(State::Stopped);
    let mut client = setup.client().await;
    client
        .send("POST /images/load HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n")
        .await;
    // As a client does that reads the answer only after its whole request has gone.
    client.send(vec![0_u8; 4 << 20]).await;
    assert_eq!(client.message().await.0, 503);
}

#[tokio::test]
async fn a_machine_that_fails_to_start_is_told_to_those_who_wait() {
    let setup = Setup::new();
    setup.state.send_replace(State::Starting);
    let mut client = setup.client().await;
    client.send("GET /info HTTP/1.1\r\n\r\n").await;
    not_yet("an answer", client.fill()).await;
    setup.state.send_replace(State::Stopped);
    assert_eq!(client.message().await.0, 503);
}
