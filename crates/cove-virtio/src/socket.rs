//! Unix sockets that only their owner may connect to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

/// Bytes that a path may have to fit a socket address, without its terminating zero (unix(7)).
const MAX_PATH: usize = 107;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why no socket listens at a path.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system's limit on socket paths.
    #[error(
        "the socket path {path} is {len} bytes long, the system allows {MAX_PATH}; use a shorter directory"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// Somebody answers there.
    #[error("another process is listening at {path}; stop it or choose another path")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is not a socket stands there.
    #[error("{path} exists and is not a socket; move it away or choose another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {operation} {path}")]
    Os {
        /// What was attempted, as an infinitive that takes a path.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening unix socket with mode 0600, removed from the file system on drop. Non-blocking.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`. A socket left behind by a process that is gone is replaced.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let fail = |operation| {
            move |error: Errno| ListenError::Os {
                operation,
                path: path.to_owned(),
                source: error.into(),
            }
        };
        let address = address(path)?;
        let socket = stream_socket().map_err(fail("create a socket for"))?;
        // The node in the file system takes its mode from the socket: with this before the bind there is no moment
        // at which others could connect.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(fail("restrict the socket at"))?;
        match rustix::net::bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                rustix::net::bind(&socket, &address).map_err(fail("bind a socket at"))?;
            }
            result => result.map_err(fail("bind a socket at"))?,
        }
        let listener = Self {
            socket,
            path: path.to_owned(),
        };
        rustix::net::listen(&listener.socket, BACKLOG).map_err(fail("listen at"))?;
        Ok(listener)
    }

    /// Takes the next connection, if there is one. The stream is non-blocking.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(stream) => return Ok(Some(stream)),
                Err(Errno::AGAIN) => return Ok(None),
                // The client changed its mind, or a signal came: the next one may be fine.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Connects to the unix socket at `path` without blocking; `WouldBlock` when its backlog is full. The stream is
/// non-blocking.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = stream_socket()?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Closes a stream so that a peer which reads sees a clean end.
pub(crate) fn close(stream: OwnedFd) {
    // Fails only when the peer is gone, and then nobody reads.
    let _ = rustix::net::shutdown(&stream, Shutdown::Both);
    // Closing a unix socket with unread bytes makes the peer's next read fail with ECONNRESET instead of returning the
    // end of the stream. After the shutdown no more can come, so this ends.
    let mut discarded = [0; 4096];
    while let Ok((1.., _)) = rustix::net::recv(&stream, &mut discarded[..], RecvFlags::DONTWAIT) {}
    drop(stream);
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

fn address(path: &Path) -> Result<SocketAddrUnix, ListenError> {
    let len = path.as_os_str().len();
    if len > MAX_PATH {
        return Err(ListenError::PathTooLong {
            path: path.to_owned(),
            len,
        });
    }
    SocketAddrUnix::new(path).map_err(|error| ListenError::Os {
        operation: "make a socket address of",
        path: path.to_owned(),
        source: error.into(),
    })
}

fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let os = |operation| {
        move |source| ListenError::Os {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let metadata = std::fs::symlink_metadata(path).map_err(os("look at"))?;
    if !std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) {
        return Err(ListenError::NotASocket {
            path: path.to_owned(),
        });
    }
    let probe = stream_socket().map_err(|error| os("create a socket to probe")(error.into()))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(os("remove the stale socket")),
        _ => Err(ListenError::InUse {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_owner_may_connect_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Listener::bind(&path), Err(ListenError::InUse { .. })));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_whose_process_is_gone_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Listener::bind(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Listener::bind(&path),
            Err(ListenError::NotASocket { .. })
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_beyond_the_limit_says_so() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let error = Listener::bind(&path).unwrap_err();
        assert!(error.to_string().contains("125 bytes long"), "{error}");
    }
}
