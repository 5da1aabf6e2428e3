//! The two ends of a connection as the gateway handles them: an inbound half with what it has read and not yet passed
//! on, an outbound half, and the relay that moves one message between them.
//!
//! Every future here may be dropped at any of its awaits without losing or doubling a byte: what was read is in the
//! buffer, what was written is gone from it. The gateway counts on that whenever it stops relaying because the other
//! direction has decided something.

use super::{
    framing::{Body, Framing, FramingError},
    head::{HeadEnd, HeadError},
};
use bytes::{Buf, BytesMut};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

/// How much is asked for with one read, and read ahead of a decision.
pub(super) const READ_SIZE: usize = 64 * 1024;

/// One end of a connection, either the client or the engine.
#[derive(Debug)]
pub(super) struct Peer<S> {
    pub(super) inbound: Inbound<ReadHalf<S>>,
    pub(super) outbound: Outbound<WriteHalf<S>>,
}

impl<S: AsyncRead + AsyncWrite> Peer<S> {
    pub(super) fn new(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            inbound: Inbound {
                reader,
                buffer: BytesMut::new(),
                ended: false,
            },
            outbound: Outbound {
                writer,
                closed: false,
            },
        }
    }

    /// Both halves, as a raw stream.
    pub(super) fn halves(&mut self) -> (&mut Inbound<ReadHalf<S>>, &mut Outbound<WriteHalf<S>>) {
        (&mut self.inbound, &mut self.outbound)
    }
}

/// What comes from one end.
#[derive(Debug)]
pub(super) struct Inbound<R> {
    reader: R,
    /// Read and not yet passed on.
    pub(super) buffer: BytesMut,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Inbound<R> {
    /// Waits for bytes and puts them behind those in the buffer; false at the end of the stream.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        if !self.ended {
            if self.buffer.is_empty() && self.buffer.capacity() > 2 * READ_SIZE {
                // A large body went through; give its memory back before a wait that may last for days.
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(READ_SIZE);
            self.ended = self.reader.read_buf(&mut self.buffer).await? == 0;
        }
        Ok(!self.ended)
    }

    /// Takes `length` bytes off the front of the buffer.
    pub(super) fn skip(&mut self, length: usize) {
        self.buffer.advance(length);
    }

    /// Puts `bytes` in the place of the first `length` bytes of the buffer.
    pub(super) fn replace(&mut self, length: usize, bytes: &[u8]) {
        let rest = self.buffer.split_off(length);
        self.buffer = BytesMut::from(bytes);
        self.buffer.unsplit(rest);
    }

    /// Waits for bytes and throws them away; false at the end of the stream.
    pub(super) async fn discard(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        self.fill().await
    }

    /// Waits for a complete head at the front of the buffer and answers its length.
    pub(super) async fn head(&mut self) -> Result<usize, ReadHeadError> {
        let mut end = HeadEnd::default();
        loop {
            if let Some(length) = end.find(&self.buffer)? {
                return Ok(length);
            }
            if !self.fill().await.map_err(ReadHeadError::Failed)? {
                return Err(ReadHeadError::Ended);
            }
        }
    }

    /// Waits for the end of the stream, reading ahead until the buffer holds `limit` bytes; from then on it waits for
    /// ever, since the end cannot be seen past bytes that nobody takes.
    pub(super) async fn end(&mut self, limit: usize) -> io::Result<()> {
        while self.buffer.len() < limit || self.ended {
            if !self.fill().await? {
                return Ok(());
            }
        }
        std::future::pending().await
    }
}

/// For a raw stream: first what is in the buffer, then what comes.
impl<R: AsyncRead + Unpin> AsyncRead for Inbound<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() {
            let count = self.buffer.len().min(into.remaining());
            into.put_slice(&self.buffer[..count]);
            self.skip(count);
            return Poll::Ready(Ok(()));
        }
        // Nobody needs its memory while the stream lasts.
        self.buffer = BytesMut::new();
        if self.ended || into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.reader).poll_read(context, into))?;
        self.ended = into.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}

/// Why there is no complete head.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadHeadError {
    #[error("the connection failed")]
    Failed(#[source] io::Error),
    #[error("the connection ended within a head")]
    Ended,
    #[error(transparent)]
    Malformed(#[from] HeadError),
}

/// What goes to one end.
#[derive(Debug)]
pub(super) struct Outbound<W> {
    writer: W,
    closed: bool,
}

impl<W: AsyncWrite + Unpin> Outbound<W> {
    /// Writes the first `length` bytes of `buffer`, taking them out as they go.
    pub(super) async fn send(&mut self, buffer: &mut BytesMut, length: &mut usize) -> io::Result<()> {
        while *length > 0 {
            let written = self.writer.write(&buffer[..*length]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            buffer.advance(written);
            *length -= written;
        }
        Ok(())
    }

    /// Writes all of `bytes`.
    pub(super) async fn send_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Tells the other end that nothing more will come, once.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.shutdown().await
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Outbound<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            ready!(Pin::new(&mut self.writer).poll_shutdown(context))?;
            self.closed = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// How far one message has come on its way.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Bytes at the front of the source's buffer that belong to the message.
    approved: usize,
    /// What of the body follows behind them.
    body: Body,
}

/// Why a message did not get through.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error("its source failed")]
    Source(#[source] io::Error),
    #[error("its source ended within it")]
    SourceEnded,
    #[error("its destination failed")]
    Destination(#[source] io::Error),
    #[error("its body is malformed")]
    Framing(#[from] FramingError),
}

impl Transfer {
    /// A message whose first `approved` bytes are in the buffer, followed by a body of this framing.
    pub(super) fn new(approved: usize, framing: Framing) -> Self {
        Self {
            approved,
            body: Body::new(framing),
        }
    }

    /// A message that is in the buffer as a whole.
    pub(super) fn whole(length: usize) -> Self {
        Self::new(length, Framing::Length(0))
    }

    /// All of it has been passed on.
    pub(super) fn is_complete(&self) -> bool {
        self.approved == 0 && self.body.is_complete()
    }

    /// Passes the message on, up to its end and not a byte further.
    pub(super) async fn relay<R, W>(
        &mut self,
        from: &mut Inbound<R>,
        to: &mut Outbound<W>,
    ) -> Result<(), RelayError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            to.send(&mut from.buffer, &mut self.approved)
                .await
                .map_err(RelayError::Destination)?;
            if self.body.is_complete() {
                return Ok(());
            }
            if from.buffer.is_empty() && !from.fill().await.map_err(RelayError::Source)? {
                return Err(RelayError::SourceEnded);
            }
            self.approved = self.body.skim(&from.buffer)?;
        }
    }
}
