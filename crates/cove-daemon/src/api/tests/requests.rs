//! Requests that are none.

use super::{Daemon, LONG};
use cove_api::{ErrorCode, transport};
use std::path::Path;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

#[tokio::test]
async fn what_is_no_request_of_this_api_is_refused_and_nothing_panics() {
    let daemon = Daemon::begin();
    let socket = daemon.client.socket().to_owned();
    for (request, status) in [
        ("GET / HTTP/1.1", 404),
        ("GET /v2/version HTTP/1.1", 404),
        ("PATCH /v1/machines HTTP/1.1", 404),
        ("GET /v1/machines/%ff HTTP/1.1", 400),
        ("GET /v1/machines/%2e%2e%2f HTTP/1.1", 404),
        ("POST /v1/machines HTTP/1.1", 400),
        ("POST /v1/machines/default/exec HTTP/1.1", 400),
        ("POST /v1/machines/default/context?current=maybe HTTP/1.1", 400),
        ("GET /v1/machines/default/logs?source=x HTTP/1.1", 400),
        ("nonsense", 400),
    ] {
        let answer = raw(
            &socket,
            &format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
    let huge = "x".repeat(4 << 20);
    let file = daemon.client.settings_file().await.unwrap();
    let error = daemon
        .client
        .replace_settings_file(&huge, &file)
        .await
        .unwrap_err();
    assert!(
        matches!(error.code(), Some(ErrorCode::InvalidRequest) | None),
        "{error:?}"
    );
    daemon.client.version().await.unwrap();
}

async fn raw(socket: &Path, request: &str) -> String {
    let mut stream = transport::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}
