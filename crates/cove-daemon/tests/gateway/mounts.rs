//! Requests that ask for bind mounts.

use crate::setup::{Setup, Wire};
use cove_daemon::gateway::{Capacity, HostPaths};
use serde_json::json;

fn create(body: &str) -> String {
    format!(
        "POST /v1.47/containers/create?name=x HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn create_with_unshared_bind_is_refused_with_a_hint() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let body = r#"{"Image":"alpine","HostConfig":{"Binds":["/home/v/x:/x"]}}"#;
    let refused = (
        400,
        "`/home/v/x` is not shared with machine `default`, and there is nothing of that name on this computer. Make \
         the folder and share it with: cove share add /home/v/x; for a file, share the folder that it is in: /home/v"
            .to_owned(),
    );
    client.send(create(body)).await;
    assert_eq!(client.message().await, refused);
    let mut engine = setup.engine().await;
    assert!(!engine.fill().await, "the engine has seen the request");
    // The connection is good for more, another spelling included.
    client
        .send(format!(
            "POST /containers/create/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &body[..16],
            body.len() - 16,
            &body[16..]
        ))
        .await;
    assert_eq!(client.message().await, refused);
    client.send("GET /info HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    while !engine_has(&mut engine, "GET /info HTTP/1.1\r\n\r\n").await {
        engine = setup.engine().await;
    }
}

/// Whether this is what the engine got; a connection that was opened for a refused request ends at once.
async fn engine_has(engine: &mut Wire, request: &str) -> bool {
    if !engine.fill().await {
        return false;
    }
    engine.expect(request).await;
    true
}

#[tokio::test]
async fn a_client_that_wants_to_end_ends_after_a_refusal() {
    let setup = Setup::new();
    let mut client = setup.client().await;
    let request = create(r#"{"HostConfig":{"Binds":["/etc:/x"]}}"#);
    client.send(request.replace("Host: d", "Connection: close")).await;
    assert_eq!(client.message().await.0, 400);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn create_with_shared_bind_reaches_the_engine_unchanged() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let requests = [
        create(r#"{ "HostConfig" : {"Binds":["/home/u/x:/x"]} , "Odd" : 1e400 }"#),
        create(""),
        "POST /containers/create HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;x=y\r\n{\r\n1\r\n}\r\n0\r\nT: x\r\n\r\n".to_owned(),
    ];
    let mut engine = None;
    for request in requests {
        client.send(&request).await;
        if engine.is_none() {
            engine = Some(setup.engine().await);
        }
        let engine = engine.as_mut().unwrap();
        engine.expect(request).await;
        engine
            .send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
            .await;
        client
            .expect("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
            .await;
    }
}

#[tokio::test]
async fn a_checked_request_is_told_to_continue_once() {
    let mut setup = Setup::new();
    let mut client = setup.client().await;
    let body = r#"{"HostConfig":{}}"#;
    let request = create(body).replace("Host: d", "Expect: 100-continue");
    let (head, _) = request.split_at(request.len() - body.len());
    client.send(head).await;
    client.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send(body).await;
    let mut engine = setup.engine().await;
    engine.expect(&request).await;
    engine
        .send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    client
        .expect("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
}

#[tokio::test]
async fn a_checked_request_that_is_too_large_is_refused() {
    let setup = Setup::new();
    let mut client = setup.client().await;
    client
        .send("POST /containers/create HTTP/1.1\r\nContent-Length: 8388609\r\n\r\n")
        .await;
    assert_eq!(client.message().await.0, 413);

    let mut client = setup.client().await;
    client
        .send("POST /volumes/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..9 {
        client.send(&chunk).await;
    }
    assert_eq!(client.message().await.0, 413);
}

#[tokio::test]
async fn a_drive_path_is_replaced_by_its_path_in_the_guest() {
    let mut setup = Setup::with(HostPaths::Windows, &[r"C:\Users\u"], Capacity::new(10));
    let mut client = setup.client().await;
    client
        .send(create(r#"{"HostConfig":{"Binds":["C:\\Users\\u\\x:/x:ro"]}}"#) + "GET /next HTTP/1.1\r\n\r\n")
        .await;
    let mut engine = setup.engine().await;
    let head = engine.head().await;
    let body = r#"{"HostConfig":{"Binds":["/mnt/c/Users/u/x:/x:ro"]}}"#;
    assert!(
        head.ends_with(&format!("\r\nContent-Length: {}\r\n\r\n", body.len())),
        "{head}"
    );
    assert_eq!(head.matches("Content-Length").count(), 1);
    engine.expect(body).await;
    engine
        .send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    engine.expect("GET /next HTTP/1.1\r\n\r\n").await;
}

/// It was started, with an empty directory in the machine's memory for its folder.
#[tokio::test]
async fn a_container_whose_folder_is_not_shared_any_more_is_not_started() {
    let mut setup = Setup::new();
    let binds = |source: &str| json!({"HostConfig": {"Binds": [format!("{source}:/x")], "Mounts": null}});
    setup.describe("db", binds("/home/v/pg"));
    setup.describe("web", binds("/home/u/pg"));
    setup.describe("bare", json!({"HostConfig": {"Binds": null}}));
    let mut client = setup.client().await;
    for target in ["/containers/db/start", "/v1.47/containers/db/restart?t=3"] {
        client
            .send(format!("POST {target} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}"))
            .await;
        let (status, message) = client.message().await;
        assert_eq!(status, 400);
        assert!(
            message.starts_with("`/home/v/pg` is not shared with machine `default`"),
            "{message}"
        );
        assert!(message.contains("cove share add"), "{message}");
        let mut engine = setup.engine().await;
        assert!(!engine.fill().await, "the engine has seen the request");
    }
    // The engine has words for what it does not have.
    let mut engine = None;
    for name in ["web", "bare", "missing"] {
        let request = format!("POST /containers/{name}/start HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}");
        client.send(&request).await;
        if engine.is_none() {
            engine = Some(setup.engine().await);
        }
        let engine = engine.as_mut().unwrap();
        engine.expect(request).await;
        engine.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        client.expect("HTTP/1.1 204 No Content\r\n\r\n").await;
    }
}
