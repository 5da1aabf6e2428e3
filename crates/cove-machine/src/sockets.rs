//! The unix sockets in a machine's runtime directory: where they are, who may connect, and how the host reaches a
//! guest's port through them.
//!
//! | file | who listens | what for |
//! | --- | --- | --- |
//! | `control.sock` | machine process | the daemon's requests |
//! | `vsock.sock` | cell | host programs that connect to a port of the guest |
//! | `vsock.sock_PORT` | whoever wants it, such as the daemon | connections from the guest to a port of the host |
//! | `vhost.sock` | cell, beside QEMU | QEMU, for the socket device |
//! | `fs.sock` | cell, beside QEMU | QEMU, for the file system device |
//! | `net.sock` | machine process | the network device: QEMU's, or the cell's |

use crate::{
    Connection, Listener, MachineError,
    spec::{host_port, longest_socket},
};
use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketAddrUnix, SocketType},
};
use std::{
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

/// Bytes that a path may have to fit a socket's address, without its terminating zero: `sizeof sun_path` is 108 on
/// Linux and 104 on macOS and the BSDs.
const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// The longest answer to `CONNECT`: `OK 4294967295` and a newline, with room to spare.
const MAX_ANSWER: usize = 32;

/// The socket that the machine process answers the daemon on.
pub(crate) fn control(runtime: &Path) -> PathBuf {
    runtime.join("control.sock")
}

/// The socket that leads to the guest's ports.
pub(crate) fn vsock(runtime: &Path) -> PathBuf {
    runtime.join("vsock.sock")
}

/// The socket that the hypervisor finds the socket device at.
pub(crate) fn vhost(runtime: &Path) -> PathBuf {
    runtime.join("vhost.sock")
}

/// The socket that the hypervisor finds the file system device at.
pub(crate) fn fs(runtime: &Path) -> PathBuf {
    runtime.join("fs.sock")
}

/// The socket that the hypervisor finds the network at.
pub(crate) fn net(runtime: &Path) -> PathBuf {
    runtime.join("net.sock")
}

/// Checks that every socket that a machine may have in `runtime` can have an address.
pub(crate) fn check_lengths(runtime: &Path) -> Result<(), MachineError> {
    check_length(&longest_socket(runtime))
}

fn check_length(path: &Path) -> Result<(), MachineError> {
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        return Err(MachineError::SocketPathTooLong {
            path: path.to_owned(),
            length,
            limit: MAX_PATH,
        });
    }
    Ok(())
}

/// Listens at `path` for the owner alone. A socket that a process left behind is replaced; one that is alive is not.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, MachineError> {
    check_length(path)?;
    let failed = |operation| {
        move |source: io::Error| MachineError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    remove_stale(path).map_err(failed("replace the socket"))?;
    let listener = listen(path).map_err(failed("listen on"))?;
    UnixListener::from_std(listener).map_err(failed("listen on"))
}

fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    // On Linux the file takes its mode from the socket, so that there is no moment at which others could connect.
    // Elsewhere this fails, and the directory's mode of 0700 is what keeps them out.
    let _ = rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR);
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes the socket at `path` if there is one and nobody listens on it.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        // A connection to what is no socket is refused just like one that nobody listens on.
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Removes the sockets that an ended machine left in `runtime`: its processes' own, and those of the guest's ports on
/// which nobody listens. What is not a socket stays. Only for whoever holds the machine's lock.
pub(crate) fn remove_left_over(runtime: &Path) {
    let changes = |runtime: &Path| host_port(runtime, cove_wire::port::CHANGES);
    for socket in [control, vsock, vhost, fs, net, changes] {
        let path = socket(runtime);
        // Nobody is asked whether they still listen: a killed process may be done with the lock, and not yet with its
        // sockets.
        if std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.file_type().is_socket())
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the socket");
        }
    }
    let Ok(entries) = std::fs::read_dir(runtime) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let of_a_port = name
            .to_string_lossy()
            .strip_prefix("vsock.sock_")
            .is_some_and(|port| port.parse::<u32>().is_ok());
        if of_a_port {
            // What cannot be removed is reported when the next machine wants to listen there.
            let _ = remove_stale(&entry.path());
        }
    }
}

/// Listens for the guest's connections to `port` of the host.
pub(crate) fn listen_to_guest(runtime: &Path, port: u32) -> Result<Listener, MachineError> {
    let path = host_port(runtime, port);
    Ok(Listener::new(bind(&path)?, path))
}

/// Connects to `port` of the guest: the socket is told the port in a line, and answers with a line of its own or
/// hangs up.
pub(crate) async fn connect_to_guest(runtime: &Path, port: u32) -> Result<Connection, MachineError> {
    let path = vsock(runtime);
    let failed = |source| MachineError::Io {
        operation: "reach the guest through",
        path: path.clone(),
        source,
    };
    let mut stream = open(&path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => MachineError::Ended,
        _ => failed(error),
    })?;
    match ask_for(&mut stream, port).await {
        Ok(()) => Ok(stream.into()),
        Err(error) if hung_up(&error) => Err(MachineError::Refused { port }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(MachineError::Protocol(format!("CONNECT {port}: {error}")))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Connects to the socket at `path`, and waits a little when its backlog is full.
pub(crate) async fn open(path: &Path) -> io::Result<UnixStream> {
    let mut patience = 200;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience > 0 => {
                patience -= 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            result => return result,
        }
    }
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Says `CONNECT port` and reads the answer, and no byte more: what follows is the guest's.
async fn ask_for(stream: &mut UnixStream, port: u32) -> io::Result<()> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = [0; MAX_ANSWER];
    for length in 0..MAX_ANSWER {
        answer[length] = stream.read_u8().await?;
        if answer[length] == b'\n' {
            return check_answer(&answer[..length]);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the answer does not end",
    ))
}

/// Accepts `OK` and the number that the device chose for the host's end.
fn check_answer(line: &[u8]) -> io::Result<()> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix("OK "))
        .and_then(|port| port.parse::<u32>().ok())
        .map(|_| ())
        .ok_or_else(|| {
            let line = line.escape_ascii();
            io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer `{line}`"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::PermissionsExt,
        time::{Duration, Instant},
    };

    /// A socket device of one connection that answers `answer` to whatever line comes, then sends `more`.
    fn device(runtime: &Path, answer: &'static [u8]) -> tokio::task::JoinHandle<String> {
        let listener = bind(&vsock(runtime)).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                line.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(line).unwrap()
        })
    }

    #[tokio::test]
    async fn bytes_that_follow_the_answer_are_the_guests() {
        let runtime = tempfile::tempdir().unwrap();
        let device = device(runtime.path(), b"OK 1073741824\nhello\n");
        let mut connection = connect_to_guest(runtime.path(), 1024).await.unwrap();
        let mut greeting = String::new();
        connection.read_to_string(&mut greeting).await.unwrap();
        assert_eq!(greeting, "hello\n");
        assert_eq!(device.await.unwrap(), "CONNECT 1024\n");
    }

    #[tokio::test]
    async fn a_hang_up_means_that_the_guest_refused() {
        let runtime = tempfile::tempdir().unwrap();
        let _device = device(runtime.path(), b"");
        let error = connect_to_guest(runtime.path(), 9).await.unwrap_err();
        assert!(matches!(error, MachineError::Refused { port: 9 }), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_is_not_the_conventions_is_an_error() {
        for answer in [
            &b"NO\n"[..],
            b"OK \xff\n",
            b"OK 123456789012345678901234567890123456789\n",
        ] {
            let runtime = tempfile::tempdir().unwrap();
            let _device = device(runtime.path(), answer);
            let error = connect_to_guest(runtime.path(), 9).await.unwrap_err();
            assert!(matches!(error, MachineError::Protocol(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn no_device_means_that_the_machine_has_ended() {
        let runtime = tempfile::tempdir().unwrap();
        let error = connect_to_guest(runtime.path(), 9).await.unwrap_err();
        assert!(matches!(error, MachineError::Ended), "{error}");
    }

    #[tokio::test]
    async fn a_listener_is_its_owners_alone_and_leaves_nothing_behind() {
        let runtime = tempfile::tempdir().unwrap();
        let listener = listen_to_guest(runtime.path(), 7).unwrap();
        let path = host_port(runtime.path(), 7);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(listen_to_guest(runtime.path(), 7).is_err(), "one listener a port");
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn left_over_sockets_go_and_everything_else_stays() {
        let runtime = tempfile::tempdir().unwrap();
        let at = |name: &str| runtime.path().join(name);
        for name in [
            "control.sock",
            "fs.sock",
            "vsock.sock_80",
            "docker.sock",
            "vsock.sock_x",
        ] {
            drop(std::os::unix::net::UnixListener::bind(at(name)).unwrap());
        }
        std::fs::write(at("vhost.sock"), "not a socket").unwrap();
        let alive = bind(&at("vsock.sock_81")).unwrap();
        let dying = ["vsock.sock", "vsock.sock_1028"].map(|name| bind(&at(name)).unwrap());
        // A child of another test has copies of what was just closed until it has become another program.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            remove_left_over(runtime.path());
            let mut left: Vec<_> = std::fs::read_dir(runtime.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            if left == ["docker.sock", "vhost.sock", "vsock.sock_81", "vsock.sock_x"] {
                break;
            }
            assert!(Instant::now() < deadline, "{left:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop((alive, dying));
    }

    #[test]
    fn a_runtime_directory_too_deep_for_sockets_is_refused_with_its_length() {
        let deep = PathBuf::from(format!("/run/{}", "x".repeat(100)));
        let error = check_lengths(&deep).unwrap_err();
        assert!(error.to_string().contains("121 bytes long"), "{error}");
        assert!(check_lengths(Path::new("/run/user/1000/cove/default")).is_ok());
    }
}
