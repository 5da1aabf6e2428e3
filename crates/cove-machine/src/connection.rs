//! A byte stream to or from the guest, whatever carries it on this platform.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(unix)]
type Inner = tokio::net::UnixStream;
#[cfg(windows)]
type Inner = tokio::net::TcpStream;

/// A connection to a vsock port. `shutdown` half-closes it.
#[derive(Debug)]
pub struct Connection(Inner);

impl From<Inner> for Connection {
    fn from(inner: Inner) -> Self {
        Self(inner)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Accepts connections from the guest on one vsock port. Dropping it turns later ones away.
#[derive(Debug)]
pub struct Listener {
    #[cfg(unix)]
    inner: tokio::net::UnixListener,
    #[cfg(unix)]
    path: std::path::PathBuf,
}

#[cfg(unix)]
impl Listener {
    /// Accepts on `inner`, and removes its file at `path` in the end.
    pub(crate) fn new(inner: tokio::net::UnixListener, path: std::path::PathBuf) -> Self {
        Self { inner, path }
    }

    /// Waits for the guest's next connection.
    pub async fn accept(&self) -> io::Result<Connection> {
        self.inner.accept().await.map(|(stream, _)| stream.into())
    }
}

#[cfg(unix)]
impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

#[cfg(not(unix))]
impl Listener {
    /// Waits for the guest's next connection.
    pub async fn accept(&self) -> io::Result<Connection> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
