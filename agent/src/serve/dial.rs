//! Connecting to a TCP address from within the guest, or from within a network namespace.

use super::namespace::within;
use crate::socket::Socket;
use cove_wire::{Dial, Fault, FaultCode};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt::set_tcp_nodelay};
use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};
use tokio::time::timeout;

/// How long a connection may take to be made. Within the guest nothing is far away.
const CONNECTING: Duration = Duration::from_secs(15);

/// Connects to the address.
pub(super) async fn connect(dial: Dial) -> Result<Socket, Fault> {
    let Dial { address, namespace } = dial;
    let made = match namespace {
        None => make(address),
        // A socket stays in the namespace that it was made in.
        Some(_) => within(namespace, move || make(address)).await?,
    };
    let socket = made.map_err(|error| unreachable(address, &error))?;
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
