//! Joining a stream to the host with a TCP connection in the guest, so that a reset on one side is one on the other.
//!
//! The stream carries chunks (see [`Chunks`]), since its own end would not tell the two apart. A client that was sent
//! half of an answer must not take it for a whole one.

use super::{BUFFER, Moved, join, pass, send_all};
use crate::socket::Socket;
use cove_wire::{CHUNK_HEADER_LEN, Chunks, chunk_header};
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// Moves bytes both ways until both directions have ended, or until one side resets its connection, which the other
/// one's then is, too.
pub(crate) async fn relay(host: &Socket, inner: &Socket) -> io::Result<()> {
    // A connection says once that it was reset, to whichever direction asks first.
    let deaf = AtomicBool::new(false);
    let input = unpack(host, inner, &deaf);
    let output = pack(inner, host, &deaf);
    // What the receiver said before it was reset is still to be passed on.
    let joined = join(host, input, output, || deaf.load(Ordering::Relaxed)).await;
    if joined.is_err() {
        inner.reset_when_closed();
    }
    joined
}

/// Moves bytes to the host until `inner` ends, and then tells so.
async fn pack(inner: &Socket, host: &Socket, deaf: &AtomicBool) -> io::Result<()> {
    loop {
        match BUFFER.with_borrow_mut(|buffer| pack_some(inner, host, buffer)) {
            Ok(Moved::Everything) => tokio::task::coop::consume_budget().await,
            Ok(Moved::LeftOver(rest)) => send_all(host, &rest).await?,
            Ok(Moved::End) if deaf.load(Ordering::Relaxed) => {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Ok(Moved::End) => {
                send_all(host, &chunk_header(0)).await?;
                return host.end();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => inner.recv_ready().await?,
            Err(error) => return Err(error),
        }
    }
}

fn pack_some(inner: &Socket, host: &Socket, buffer: &mut [u8]) -> io::Result<Moved> {
    let (header, room) = buffer.split_at_mut(CHUNK_HEADER_LEN);
    let received = inner.try_recv(room)?;
    if received == 0 {
        return Ok(Moved::End);
    }
    // The buffer is smaller than a length can say.
    let length = u32::try_from(received).map_err(io::Error::other)?;
    header.copy_from_slice(&chunk_header(length));
    pass(host, &buffer[..CHUNK_HEADER_LEN + received])
}

/// Moves bytes from the host until it says that there are no more, then ends `inner`. Notes in `deaf` that `inner`
/// takes nothing.
async fn unpack(host: &Socket, inner: &Socket, deaf: &AtomicBool) -> io::Result<()> {
    let mut chunks = Chunks::default();
    let failed = |_: &io::Error| deaf.store(true, Ordering::Relaxed);
    while !chunks.ended() {
        let received = BUFFER.with_borrow_mut(|buffer| {
            let received = host.try_recv(buffer)?;
            if received == 0 {
                return Ok(Moved::End);
            }
            let count = chunks.take(&mut buffer[..received]).map_err(io::Error::other)?;
            if count == 0 {
                return Ok(Moved::Everything);
            }
            pass(inner, &buffer[..count]).inspect_err(failed)
        });
        match received {
            Ok(Moved::Everything) => tokio::task::coop::consume_budget().await,
            Ok(Moved::LeftOver(rest)) => send_all(inner, &rest).await.inspect_err(failed)?,
            // The host did not get to its end.
            Ok(Moved::End) => return Err(io::ErrorKind::ConnectionReset.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => host.recv_ready().await?,
            Err(error) => return Err(error),
        }
    }
    inner.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    /// The host's end of a stream, the server behind it, and a relay between them.
    async fn joined() -> (Socket, TcpStream, JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let inner = Socket::new(OwnedFd::from(dialled.into_std().unwrap())).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (host, stream) = Socket::pair();
        let joined = tokio::spawn(async move { relay(&stream, &inner).await });
        (host, server, joined)
    }

    fn packed(data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        [chunk_header(length).as_slice(), data].concat()
    }

    /// Everything that comes, and whether it came to its end.
    async fn all(host: &mut Socket) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        // A socket pair may tell of a reset itself, after all that came before.
        let _ = host.read_to_end(&mut got).await;
        let mut chunks = Chunks::default();
        let count = chunks.take(&mut got).unwrap();
        got.truncate(count);
        (got, chunks.ended())
    }

    fn reset(server: TcpStream) {
        rustix::net::sockopt::set_socket_linger(&server, Some(std::time::Duration::ZERO)).unwrap();
        drop(server);
    }

    #[tokio::test]
    async fn more_than_the_sockets_hold_arrives_whole_both_ways() {
        let (mut host, mut server, joined) = joined().await;
        let sent: Vec<u8> = (0..4_000_000_u32)
            .map(|n| n.to_le_bytes()[(n % 3) as usize])
            .collect();
        let reply: Vec<u8> = sent.iter().rev().copied().collect();
        let at_server = async {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            server.write_all(&reply).await.unwrap();
            server.shutdown().await.unwrap();
            got
        };
        let at_host = async {
            for part in sent.chunks(100_001) {
                host.write_all(&packed(part)).await.unwrap();
            }
            host.write_all(&chunk_header(0)).await.unwrap();
            all(&mut host).await
        };
        let (request, response) = tokio::join!(at_server, at_host);
        assert!(request == sent && response == (reply, true));
        joined.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_server_that_resets_its_connection_leaves_no_end() {
        let (mut host, mut server, joined) = joined().await;
        server.write_all(b"half of").await.unwrap();
        // It has to be on its way before the reset, which takes with it what is not.
        let mut first = [0; CHUNK_HEADER_LEN + 7];
        host.read_exact(&mut first).await.unwrap();
        reset(server);
        assert_eq!(all(&mut host).await, (Vec::new(), false));
        assert!(joined.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn what_a_server_said_before_its_reset_arrives_though_it_takes_no_more() {
        for _ in 0..20 {
            let (mut host, mut server, joined) = joined().await;
            host.write_all(&packed(b"an upload")).await.unwrap();
            // It is there, and stays unread.
            assert_eq!(server.peek(&mut [0]).await.unwrap(), 1);
            server.write_all(b"too large").await.unwrap();
            // With input unread, this is a reset.
            drop(server);
            // Ends when the relay takes no more.
            while host.write_all(&packed(&[0; 4096])).await.is_ok() {
                tokio::task::yield_now().await;
            }
            assert_eq!(all(&mut host).await, (b"too large".to_vec(), false));
            assert!(joined.await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn a_host_that_is_gone_without_an_end_is_a_reset_for_the_server() {
        for said in [&b""[..], b"\0\0\0\x04ab"] {
            let (mut host, mut server, joined) = joined().await;
            host.write_all(said).await.unwrap();
            drop(host);
            assert!(joined.await.unwrap().is_err());
            let end = server.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn a_host_that_ends_its_output_still_gets_the_answer() {
        let (mut host, mut server, joined) = joined().await;
        host.write_all(&[packed(b"question"), chunk_header(0).to_vec()].concat())
            .await
            .unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        assert_eq!(all(&mut host).await, (b"answer".to_vec(), true));
        joined.await.unwrap().unwrap();
    }
}
