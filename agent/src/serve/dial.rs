//! Connecting to a TCP address from within the guest, or from within a network namespace.

use crate::socket::Socket;
use cove_wire::{Dial, Fault, FaultCode};
use rustix::{
    fs::{Mode, OFlags, open},
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt::set_tcp_nodelay},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// How long a connection may take to be made. Within the guest nothing is far away.
const CONNECTING: Duration = Duration::from_secs(15);

/// Connects to the address.
pub(super) async fn connect(dial: Dial) -> Result<Socket, Fault> {
    let Dial { address, namespace } = dial;
    let socket = match &namespace {
        None => make(address).map_err(|error| unreachable(address, &error))?,
        Some(path) => make_in(path.clone(), address).await?,
    };
    let connected = timeout(CONNECTING, Socket::connect(socket, &address)).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| unreachable(address, &error))
}

fn make(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// Makes a socket in the namespace. A socket stays in the one that it was made in; the thread that was moved there
/// ends, so that nothing else is ever done from it.
async fn make_in(path: String, address: SocketAddr) -> Result<OwnedFd, Fault> {
    let (sender, made) = oneshot::channel();
    let enter = move || {
        // Without O_NONBLOCK a path to a pipe would block here.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let result = open(&path, flags, Mode::empty())
            .and_then(|namespace| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            })
            .map_err(|error| {
                let code = if error == rustix::io::Errno::NOENT {
                    FaultCode::NotFound
                } else {
                    FaultCode::Failed
                };
                Fault::new(
                    code,
                    format!("entering the network namespace {path} failed: {error}"),
                )
            })
            .and_then(|()| make(address).map_err(|error| unreachable(address, &error)));
        // An error says that the host hung up meanwhile.
        let _ = sender.send(result);
    };
    let failed = |error: &dyn std::fmt::Display| {
        Fault::new(FaultCode::Failed, format!("starting a thread failed: {error}"))
    };
    thread::Builder::new()
        .name("netns".into())
        .spawn(enter)
        .map_err(|error| failed(&error))?;
    made.await.map_err(|error| failed(&error))?
}

fn unreachable(address: SocketAddr, error: &io::Error) -> Fault {
    Fault::new(
        FaultCode::Unreachable,
        format!("connecting to {address} failed: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn dial(address: SocketAddr, namespace: Option<&str>) -> Dial {
        Dial {
            address,
            namespace: namespace.map(Into::into),
        }
    }

    #[tokio::test]
    async fn a_listener_is_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = connect(dial(listener.local_addr().unwrap(), None)).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        ours.write_all(b"hello").await.unwrap();
        ours.end().unwrap();
        let mut got = String::new();
        theirs.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "hello");
    }

    #[tokio::test]
    async fn a_refused_connection_names_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let fault = connect(dial(address, None)).await.err().unwrap();
        assert_eq!(fault.code, FaultCode::Unreachable);
        assert!(fault.message.contains(&address.to_string()), "{}", fault.message);
    }

    #[tokio::test]
    async fn a_namespace_that_is_not_there_or_is_none_is_refused() {
        let address = ([127, 0, 0, 1], 1).into();
        let missing = connect(dial(address, Some("/nonexistent"))).await.err().unwrap();
        assert_eq!(missing.code, FaultCode::NotFound);
        let file = tempfile::NamedTempFile::new().unwrap();
        let wrong = connect(dial(address, file.path().to_str())).await.err().unwrap();
        assert_eq!(wrong.code, FaultCode::Failed);
    }
}
