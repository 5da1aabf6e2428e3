//! A TCP connection to an address within a machine.
//!
//! It is carried by a stream to the guest's agent, in chunks (see [`Chunks`]): whoever reads from it gets an error
//! where the other side reset the connection, and an end only where it ended. Likewise the other side's connection is
//! reset unless [`shutdown`](tokio::io::AsyncWriteExt::shutdown) ended this one.

use cove_wire::{Chunks, chunk_header};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection, over a stream of type `S`.
#[derive(Debug)]
pub struct Dialled<S> {
    stream: S,
    incoming: Chunks,
    outgoing: Outgoing,
}

/// What of the last chunk has been sent.
#[derive(Debug, Clone, Copy)]
enum Outgoing {
    /// All of it: another one may begin.
    Between,
    /// So many bytes of its header. A chunk of no bytes is the end.
    Header { length: u32, sent: usize },
    /// All but so many bytes.
    Chunk { left: u32 },
    /// It was the end.
    Ended,
}

impl<S> Dialled<S> {
    /// The connection that `stream` carries, of which nothing has been read or written yet.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            incoming: Chunks::default(),
            outgoing: Outgoing::Between,
        }
    }
}

impl<S: AsyncWrite + Unpin> Dialled<S> {
    /// Sends what is missing of a chunk's header, and as much of `data` as goes with it. Returns how much of `data`
    /// was sent, which may be none of it.
    fn poll_header(
        &mut self,
        cx: &mut Context<'_>,
        length: u32,
        sent: usize,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let header = chunk_header(length);
        let missing = &header[sent..];
        let data = &data[..data.len().min(length as usize)];
        let slices = [IoSlice::new(missing), IoSlice::new(data)];
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_data = written.saturating_sub(missing.len());
        self.outgoing = if written < missing.len() {
            Outgoing::Header {
                length,
                sent: sent + written,
            }
        } else if length == 0 {
            Outgoing::Ended
        } else {
            remaining(length, of_data)
        };
        Poll::Ready(Ok(of_data))
    }
}

/// What of a chunk remains of which `left` bytes were to be sent, after `sent` of them.
fn remaining(left: u32, sent: usize) -> Outgoing {
    // Never more than were left.
    match left.saturating_sub(u32::try_from(sent).unwrap_or(left)) {
        0 => Outgoing::Between,
        left => Outgoing::Chunk { left },
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Dialled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.incoming.ended() && buf.remaining() > 0 {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let received = &mut buf.filled_mut()[before..];
            if received.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let count = this.incoming.take(received).map_err(io::Error::other)?;
            buf.set_filled(before + count);
            if count > 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Dialled<S> {
    /// What is given again after `Pending` may be something else, and of another length.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match this.outgoing {
                Outgoing::Between => {
                    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    this.outgoing = Outgoing::Header { length, sent: 0 };
                }
                // Nothing is written after a shutdown that has begun.
                Outgoing::Ended | Outgoing::Header { length: 0, .. } => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Outgoing::Header { length, sent } => {
                    let written = ready!(this.poll_header(cx, length, sent, data))?;
                    if written > 0 {
                        return Poll::Ready(Ok(written));
                    }
                }
                Outgoing::Chunk { left } => {
                    let data = &data[..data.len().min(left as usize)];
                    let written = ready!(Pin::new(&mut this.stream).poll_write(cx, data))?;
                    this.outgoing = remaining(left, written);
                    return Poll::Ready(Ok(written));
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.outgoing {
                Outgoing::Between => this.outgoing = Outgoing::Header { length: 0, sent: 0 },
                Outgoing::Header { length: 0, sent } => {
                    ready!(this.poll_header(cx, 0, sent, &[]))?;
                }
                // A chunk was promised that nobody finished: this is no end.
                Outgoing::Header { .. } | Outgoing::Chunk { .. } => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Outgoing::Ended => return Pin::new(&mut this.stream).poll_shutdown(cx),
            }
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, split},
        net::UnixStream,
    };

    fn pair() -> (Dialled<UnixStream>, UnixStream) {
        let (ours, guest) = UnixStream::pair().unwrap();
        (Dialled::new(ours), guest)
    }

    fn packed(data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        [chunk_header(length).as_slice(), data].concat()
    }

    #[tokio::test]
    async fn more_than_the_sockets_hold_arrives_whole_both_ways() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (Dialled::new(one), Dialled::new(other));
        let ((mut from_one, mut to_one), (mut from_other, mut to_other)) = (split(one), split(other));
        let data: Vec<u8> = (0..4_000_000_u32)
            .map(|n| n.to_le_bytes()[(n % 3) as usize])
            .collect();
        let sending = async {
            for part in data.chunks(77_777) {
                to_one.write_all(part).await.unwrap();
                to_other.write_all(part).await.unwrap();
            }
            to_one.shutdown().await.unwrap();
            to_other.shutdown().await.unwrap();
        };
        let (mut at_one, mut at_other) = (Vec::new(), Vec::new());
        let receiving = async {
            tokio::join!(
                from_one.read_to_end(&mut at_one),
                from_other.read_to_end(&mut at_other)
            )
        };
        let ((), (first, second)) = tokio::join!(sending, receiving);
        assert_eq!((first.unwrap(), second.unwrap()), (data.len(), data.len()));
        assert!(at_one == data && at_other == data);
    }

    #[tokio::test]
    async fn an_end_is_an_end_and_anything_less_is_a_reset() {
        let (mut dialled, mut guest) = pair();
        guest.write_all(&packed(b"whole")).await.unwrap();
        guest.write_all(&chunk_header(0)).await.unwrap();
        let mut got = Vec::new();
        dialled.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"whole");

        for cut in [&packed(b"half")[..], &packed(b"half of it")[..8]] {
            let (mut dialled, mut guest) = pair();
            guest.write_all(cut).await.unwrap();
            drop(guest);
            let mut got = Vec::new();
            let end = dialled.read_to_end(&mut got).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(got, b"half");
        }
    }

    #[tokio::test]
    async fn only_a_shutdown_tells_of_the_end() {
        for ends in [true, false] {
            let (mut dialled, mut guest) = pair();
            dialled.write_all(b"question").await.unwrap();
            if ends {
                dialled.shutdown().await.unwrap();
            }
            drop(dialled);
            let mut got = Vec::new();
            guest.read_to_end(&mut got).await.unwrap();
            let mut chunks = Chunks::default();
            let count = chunks.take(&mut got).unwrap();
            assert_eq!((&got[..count], chunks.ended()), (&b"question"[..], ends));
        }
    }
}
