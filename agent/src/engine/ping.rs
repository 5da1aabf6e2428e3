//! Asking the engine how it is.

use super::config::{CONTAINERD_SOCKET, ENGINE_SOCKET};
use crate::{socket::Socket, watch};
use std::{io, path::Path, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest answer that is read.
const LONGEST: u64 = 64 * 1024;

/// Pause after an answer other than the wanted one. No pause is needed for an engine that has not started yet: the
/// connection waits in the socket until it has.
const PAUSE: Duration = Duration::from_millis(50);

/// Returns when containerd's socket is there and the engine answers.
pub(crate) async fn answers() {
    if let Err(error) = watch::appeared(Path::new(CONTAINERD_SOCKET)).await {
        tracing::warn!("waiting for {CONTAINERD_SOCKET} failed: {error}");
    }
    loop {
        match ping(Path::new(ENGINE_SOCKET)).await {
            Ok(true) => return,
            Ok(false) => tracing::debug!("the engine answers, but not well"),
            Err(error) => tracing::debug!("the engine does not answer: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns when the engine says that containers will not outlive it.
pub(crate) async fn ends_containers() {
    says(b"\"LiveRestoreEnabled\":false").await;
}

/// Returns when the engine says that containers will outlive it.
pub(crate) async fn keeps_containers() {
    says(b"\"LiveRestoreEnabled\":true").await;
}

/// Whether the engine says that it is part of no swarm.
pub(crate) async fn has_no_swarm() -> bool {
    let answer = get(Path::new(ENGINE_SOCKET), "/info").await;
    answer.is_ok_and(|answer| contains(&answer, b"\"LocalNodeState\":\"inactive\""))
}

/// Returns when the engine describes itself with these words.
async fn says(words: &[u8]) {
    loop {
        match get(Path::new(ENGINE_SOCKET), "/info").await {
            Ok(answer) if contains(&answer, words) => return,
            Ok(_) => {}
            Err(error) => tracing::debug!("the engine does not answer: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn contains(answer: &[u8], words: &[u8]) -> bool {
    answer.windows(words.len()).any(|part| part == words)
}

async fn ping(socket: &Path) -> io::Result<bool> {
    get(socket, "/_ping").await.map(|answer| is_ok(&answer))
}

async fn get(socket: &Path, resource: &str) -> io::Result<Vec<u8>> {
    let mut socket = Socket::connect_unix(socket).await?;
    let request = format!("GET {resource} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Whether an HTTP answer has the status 200.
fn is_ok(answer: &[u8]) -> bool {
    let mut words = answer.split(|&byte| byte == b' ');
    words
        .next()
        .is_some_and(|version| version.starts_with(b"HTTP/1."))
        && words.next() == Some(b"200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_status_200_is_an_answer() {
        assert!(is_ok(b"HTTP/1.1 200 OK\r\nApi-Version: 1.45\r\n\r\nOK"));
        for answer in [
            &b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..],
            b"",
            b"HTTP/1.1 2",
            b"200 200 200",
        ] {
            assert!(!is_ok(answer));
        }
    }

    #[tokio::test]
    async fn a_ping_waits_in_the_socket_until_somebody_serves_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let waiting = tokio::spawn(async move { ping(&path).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        let (mut client, _) = listener.accept().await.unwrap();
        assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\nOK").await.unwrap();
        drop(client);
        assert!(waiting.await.unwrap().unwrap());
    }
}
