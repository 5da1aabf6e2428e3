//! A stream socket of any family: vsock to the host, unix to the engine, TCP to a container.

use crate::descriptor::awaited;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
        addr::SocketAddrArg,
        connect, recv, send, shutdown, socket_with,
        sockopt::{set_socket_linger, socket_error},
    },
};
use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

/// A connected stream socket. Every operation first tries and then waits, so that none depends on what another one
/// knew about readiness.
pub(crate) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Takes over a connected socket that does not block.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(awaited(socket)?))
    }

    /// Two sockets that are connected to each other.
    #[cfg(test)]
    pub(crate) fn pair() -> (Self, Self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (one, other) = pair.expect("the test's process has descriptors");
        (
            Self::new(one).expect("a runtime"),
            Self::new(other).expect("a runtime"),
        )
    }

    /// Connects to a unix socket.
    pub(crate) async fn connect_unix(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            match connect(&socket, &address) {
                Ok(()) => return Self::new(socket),
                // The listener's backlog is full, and the kernel has no way to say when it no longer is.
                Err(Errno::AGAIN) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Connects `socket`, which does not block, to `address`.
    pub(crate) async fn connect(socket: OwnedFd, address: &impl SocketAddrArg) -> io::Result<Self> {
        match connect(&socket, address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = Self::new(socket)?;
        let _ready = socket.0.writable().await?;
        socket_error(&socket.0)??;
        Ok(socket)
    }

    /// Receives what there is, or says `WouldBlock`.
    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.0, buffer, RecvFlags::empty())?.0)
    }

    /// Sends what fits, or says `WouldBlock`.
    pub(crate) fn try_send(&self, data: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, data, SendFlags::NOSIGNAL)?)
    }

    /// Waits after [`try_recv`](Self::try_recv) said `WouldBlock`.
    pub(crate) async fn recv_ready(&self) -> io::Result<()> {
        self.wait(Interest::READABLE).await
    }

    /// Waits after [`try_send`](Self::try_send) said `WouldBlock`.
    pub(crate) async fn send_ready(&self) -> io::Result<()> {
        self.wait(Interest::WRITABLE).await
    }

    /// Says to the peer that nothing more comes from here.
    pub(crate) fn end(&self) -> io::Result<()> {
        match shutdown(&self.0, Shutdown::Write) {
            // The peer is gone: there is nobody to tell.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has a TCP connection be reset when it is closed, instead of ended.
    pub(crate) fn reset_when_closed(&self) {
        // What cannot be set on a connection that is gone need not be.
        let _ = set_socket_linger(&self.0, Some(Duration::ZERO));
    }

    /// Returns when the peer has closed the connection in both directions.
    ///
    /// The end of the peer's input alone does not show it, and neither does `epoll` on a vsock; a send of nothing
    /// does, on every family, because the kernel looks at the connection before it looks at the length. What wakes
    /// this up is that every change of the connection is reported together with its being writable. (Its being
    /// readable would not do: once the input has ended the runtime reports that for ever.)
    pub(crate) async fn hung_up(&self) {
        while self.try_send(&[]).is_ok() {
            if self.send_ready().await.is_err() {
                return;
            }
        }
    }

    async fn wait(&self, interest: Interest) -> io::Result<()> {
        self.0.ready(interest).await?.clear_ready();
        Ok(())
    }
}

impl AsyncRead for &Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.try_recv(buffer.initialize_unfilled()) {
                Ok(received) => {
                    buffer.advance(received);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.0.poll_read_ready(cx))?.clear_ready();
        }
    }
}

impl AsyncWrite for &Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_send(data) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(self.0.poll_write_ready(cx))?.clear_ready();
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_shutdown(cx)
    }
}
