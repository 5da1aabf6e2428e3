//! Many connections, and much on one.

use crate::setup::{Setup, not_yet, soon};
use cove_daemon::gateway::{Capacity, HostPaths};

#[tokio::test]
async fn three_hundred_requests_are_in_flight_at_once() {
    let mut setup = Setup::new();
    let mut clients = Vec::new();
    for number in 0..300 {
        let mut client = setup.client().await;
        client.send(format!("GET /{number} HTTP/1.1\r\n\r\n")).await;
        clients.push(client);
    }
    // None is answered before all have arrived.
    let mut engines = Vec::new();
    for _ in 0..300 {
        let mut engine = setup.engine().await;
        let number = engine.head().await.split(['/', ' ']).nth(2).unwrap().to_owned();
        engines.push((engine, number));
    }
    for (engine, number) in engines.iter_mut().rev() {
        let length = number.len();
        engine
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{number}"
            ))
            .await;
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.head().await;
        client.expect(number.to_string()).await;
    }
}

#[tokio::test]
async fn clients_beyond_the_capacity_wait_for_a_place() {
    let mut setup = Setup::with(HostPaths::Unix, &[], Capacity::new(2));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = setup.client().await;
        client.send("GET /x HTTP/1.1\r\n\r\n").await;
        clients.push(client);
    }
    let first = setup.engine().await;
    let _second = setup.engine().await;
    not_yet("the third", setup.engine()).await;
    drop(clients.remove(0));
    drop(first);
    setup.engine().await.expect("GET /x HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn shutting_down_ends_every_connection() {
    let mut setup = Setup::new();
    let mut idle = setup.client().await;
    let mut busy = setup.client().await;
    busy.send("GET /x HTTP/1.1\r\n\r\n").await;
    let mut engine = setup.engine().await;
    engine.head().await;
    setup.shutdown.cancel();
    soon("the gateway's end", &mut setup.serving).await.unwrap();
    assert_eq!(idle.rest().await, b"");
    assert_eq!(busy.rest().await, b"");
    assert_eq!(engine.rest().await, b"");
}

/// Resident memory of this process in KiB.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// `docker load` and `docker save` of images larger than memory: 512 MiB each way, with what a few buffers need.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn bodies_of_any_size_stream_through_in_little_memory() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 512;
    // Other tests of this process hold bodies of a few MiB at the same time.
    const ROOM: usize = 64 * 1024;

    let mut setup = Setup::new();
    let mut client = setup.client().await;
    client
        .send("POST /images/load HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let mut engine = setup.engine().await;
    engine.head().await;
    let before = resident();
    let mut peak = before;

    let content = vec![0; CHUNK];
    let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &content, b"\r\n"].concat();
    let uploading = async {
        for _ in 0..CHUNKS {
            client.send(&chunk).await;
        }
        client.send("0\r\n\r\n").await;
        client.head().await;
        client.discard(CHUNK * CHUNKS, || ()).await;
    };
    let answering = async {
        let mut watch = || peak = peak.max(resident());
        engine.discard(chunk.len() * CHUNKS + 5, &mut watch).await;
        engine
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                CHUNK * CHUNKS
            ))
            .await;
        for _ in 0..CHUNKS {
            engine.send(&content).await;
            watch();
        }
    };
    tokio::join!(uploading, answering);
    assert!(peak < before + ROOM, "{before} KiB before, {peak} KiB at most");
}
