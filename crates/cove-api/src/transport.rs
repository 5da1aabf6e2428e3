//! The local socket between a client and the daemon: a unix socket, or a named pipe on Windows.
//!
//! Everything above it names the socket by a path and sees byte streams. On Windows the pipe's name is derived from
//! the path; a pipe refuses clients from other computers, and its default access list lets only its owner write.

use std::{io, path::Path};

/// The longest path that fits into a socket's address, in bytes, without the terminating zero.
#[cfg(target_os = "macos")]
pub const MAX_SOCKET_PATH: usize = 103;
/// The longest path that fits into a socket's address, in bytes, without the terminating zero.
#[cfg(not(target_os = "macos"))]
pub const MAX_SOCKET_PATH: usize = 107;

#[cfg(unix)]
mod platform {
    use std::{io, path::Path};

    /// One end of a connection; `shutdown` half-closes it.
    pub type Stream = tokio::net::UnixStream;

    pub(super) fn address(path: &Path) -> String {
        path.display().to_string()
    }

    pub(super) async fn connect(path: &Path) -> io::Result<Stream> {
        tokio::net::UnixStream::connect(path).await
    }

    /// Accepts clients.
    #[derive(Debug)]
    pub struct Listener(tokio::net::UnixListener);

    impl Listener {
        /// Listens at `path`, which must not exist. The socket gets mode 0600.
        pub fn bind(path: &Path) -> io::Result<Self> {
            use std::os::unix::fs::PermissionsExt;
            let listener = tokio::net::UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(Self(listener))
        }

        /// Waits for the next client.
        pub async fn accept(&mut self) -> io::Result<Stream> {
            self.0.accept().await.map(|(stream, _)| stream)
        }
    }
}

#[cfg(windows)]
mod platform {
    use std::{
        io,
        path::Path,
        pin::Pin,
        task::{Context, Poll},
        time::Duration,
    };
    use tokio::{
        io::{AsyncRead, AsyncWrite, ReadBuf},
        net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions},
    };

    /// `ERROR_PIPE_BUSY`: every instance of the pipe has a client.
    const PIPE_BUSY: i32 = 231;

    /// One end of a connection.
    #[derive(Debug)]
    pub enum Stream {
        /// The daemon's end.
        Server(NamedPipeServer),
        /// The client's end.
        Client(NamedPipeClient),
    }

    pub(super) fn address(path: &Path) -> String {
        let flat: String = path
            .to_string_lossy()
            .chars()
            .map(|c| {
                if c.is_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        format!(r"\\.\pipe\cove-{flat}")
    }

    pub(super) async fn connect(path: &Path) -> io::Result<Stream> {
        let name = address(path);
        loop {
            match ClientOptions::new().open(&name) {
                Ok(client) => return Ok(Stream::Client(client)),
                Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Accepts clients.
    #[derive(Debug)]
    pub struct Listener {
        name: String,
        next: NamedPipeServer,
    }

    impl Listener {
        /// Listens at the pipe that belongs to `path`.
        pub fn bind(path: &Path) -> io::Result<Self> {
            let name = address(path);
            let next = ServerOptions::new().first_pipe_instance(true).create(&name)?;
            Ok(Self { name, next })
        }

        /// Waits for the next client.
        pub async fn accept(&mut self) -> io::Result<Stream> {
            self.next.connect().await?;
            let fresh = ServerOptions::new().create(&self.name)?;
            Ok(Stream::Server(std::mem::replace(&mut self.next, fresh)))
        }
    }

    impl AsyncRead for Stream {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Server(pipe) => Pin::new(pipe).poll_read(cx, buf),
                Self::Client(pipe) => Pin::new(pipe).poll_read(cx, buf),
            }
        }
    }

    impl AsyncWrite for Stream {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            match self.get_mut() {
                Self::Server(pipe) => Pin::new(pipe).poll_write(cx, buf),
                Self::Client(pipe) => Pin::new(pipe).poll_write(cx, buf),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Server(pipe) => Pin::new(pipe).poll_flush(cx),
                Self::Client(pipe) => Pin::new(pipe).poll_flush(cx),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Server(pipe) => Pin::new(pipe).poll_shutdown(cx),
                Self::Client(pipe) => Pin::new(pipe).poll_shutdown(cx),
            }
        }
    }
}

pub use platform::{Listener, Stream};

/// Connects to the daemon that listens at `path`.
pub async fn connect(path: &Path) -> io::Result<Stream> {
    platform::connect(path).await
}

/// Whether a socket at `path` can be reached by its address at all; always, where sockets are named pipes.
pub fn path_fits(path: &Path) -> bool {
    cfg!(windows) || path.as_os_str().len() <= MAX_SOCKET_PATH
}

/// What the system calls the socket at `path`: the path itself, or the pipe's name.
pub fn address(path: &Path) -> String {
    platform::address(path)
}

/// The value of `DOCKER_HOST` for an engine whose API is at the socket at `path`.
pub fn docker_host(path: &Path) -> String {
    in_dockers_words(&address(path), cfg!(windows))
}

/// A pipe's name has forward slashes in it, where Docker is told of it.
fn in_dockers_words(address: &str, is_pipe: bool) -> String {
    if is_pipe {
        format!("npipe://{}", address.replace('\\', "/"))
    } else {
        format!("unix://{address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_finds_sockets_by_their_path_and_pipes_by_their_name() {
        let socket = "/run/user/7/cove/default/docker.sock";
        assert_eq!(in_dockers_words(socket, false), format!("unix://{socket}"));
        assert_eq!(
            in_dockers_words(r"\\.\pipe\cove-c--users-me-docker-sock", true),
            "npipe:////./pipe/cove-c--users-me-docker-sock"
        );
    }
}
