//! Joining two sockets: bytes both ways, with each direction's end passed on by itself.
//!
//! A direction that is idle owns no buffer: hundreds of connections to the engine wait most of the time. All share
//! the thread's one buffer, and only what the receiver did not take at once is kept apart.

mod chunked;

pub(crate) use chunked::relay as relay_chunked;

use crate::socket::Socket;
use std::{cell::RefCell, io};

/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Moves bytes both ways until both directions have ended, or until the host hangs up.
///
/// A host that ends its input still gets the output (`docker exec -i` with a pipe); one that closes the connection
/// ends everything, even when there is no output that could fail (`docker attach` to a silent container).
pub(crate) async fn relay(host: &Socket, inner: &Socket) -> io::Result<()> {
    // A receiver that takes no more may still have something to say; a host that is gone has hung up.
    join(host, pump(host, inner), pump(inner, host), || true).await
}

/// Goes on until both directions have ended, or until the host hangs up. An `input`, which comes from the host, that
/// fails ends the output, too, unless `answerable` then says that there is still somebody whose output it is.
async fn join(
    host: &Socket,
    input: impl Future<Output = io::Result<()>>,
    output: impl Future<Output = io::Result<()>>,
    answerable: impl Fn() -> bool,
) -> io::Result<()> {
    tokio::pin!(input, output);
    tokio::select! {
        ended = &mut input => {
            match ended {
                Err(error) if answerable() => tracing::debug!("input ended early: {error}"),
                ended => ended?,
            }
            tokio::select! {
                ended = output => ended,
                () = host.hung_up() => Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
        ended = &mut output => {
            ended?;
            input.await
        }
    }
}

/// Moves bytes one way until `from` ends, then ends `to`.
async fn pump(from: &Socket, to: &Socket) -> io::Result<()> {
    loop {
        match BUFFER.with_borrow_mut(|buffer| forward(from, to, buffer)) {
            Ok(Moved::Everything) => tokio::task::coop::consume_budget().await,
            Ok(Moved::LeftOver(rest)) => send_all(to, &rest).await?,
            Ok(Moved::End) => return to.end(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => from.recv_ready().await?,
            Err(error) => return Err(error),
        }
    }
}

enum Moved {
    Everything,
    LeftOver(Vec<u8>),
    End,
}

fn forward(from: &Socket, to: &Socket, buffer: &mut [u8]) -> io::Result<Moved> {
    let received = from.try_recv(buffer)?;
    if received == 0 {
        return Ok(Moved::End);
    }
    pass(to, &buffer[..received])
}

/// Sends what the receiver takes at once.
fn pass(to: &Socket, data: &[u8]) -> io::Result<Moved> {
    match to.try_send(data) {
        Ok(sent) if sent == data.len() => Ok(Moved::Everything),
        Ok(sent) => Ok(Moved::LeftOver(data[sent..].to_vec())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::LeftOver(data.to_vec())),
        Err(error) => Err(error),
    }
}

async fn send_all(to: &Socket, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match to.try_send(data) {
            Ok(sent) => data = &data[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.send_ready().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    /// A client, a server, and a relay between them.
    fn joined() -> (Socket, Socket, tokio::task::JoinHandle<io::Result<()>>) {
        let (client, host) = Socket::pair();
        let (inner, server) = Socket::pair();
        let relay = tokio::spawn(async move { relay(&host, &inner).await });
        (client, server, relay)
    }

    #[tokio::test]
    async fn more_than_the_sockets_hold_arrives_whole_both_ways() {
        let (mut client, mut server, relay) = joined();
        let sent: Vec<u8> = (0..4_000_000_u32)
            .map(|n| n.to_le_bytes()[(n % 3) as usize])
            .collect();
        let reply: Vec<u8> = sent.iter().rev().copied().collect();
        let at_server = async {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            server.write_all(&reply).await.unwrap();
            server.end().unwrap();
            got
        };
        let at_client = async {
            client.write_all(&sent).await.unwrap();
            client.end().unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            got
        };
        let (request, response) = tokio::join!(at_server, at_client);
        assert!(request == sent && response == reply);
        relay.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_server_may_end_first_and_still_receives() {
        let (mut client, mut server, relay) = joined();
        server.end().unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        client.write_all(b"late").await.unwrap();
        client.end().unwrap();
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "late");
        relay.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_host_that_hangs_up_ends_a_silent_connection() {
        let (client, _server, relay) = joined();
        drop(client);
        let ended = timeout(Duration::from_secs(5), relay).await.unwrap().unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_host_that_only_ends_its_input_is_not_taken_for_gone() {
        let (client, mut server, relay) = joined();
        client.end().unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!relay.is_finished());
        drop(client);
        assert!(
            timeout(Duration::from_secs(5), relay)
                .await
                .unwrap()
                .unwrap()
                .is_err()
        );
    }
}
