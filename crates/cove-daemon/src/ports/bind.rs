//! Binding a port of this computer, and saying why not in the words that Docker's users know.

use super::{Ledger, endpoint::Endpoint, network};
use cove_wire::{Fault, FaultCode, Protocol, Publish};
use socket2::{Domain, Socket, Type};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a port in use is tried again. An engine that restarts asks for a container's ports while the end of its
/// last lease may still be on its way.
const OVERLAP: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(20);
/// How often a port that is waited for is tried.
const AGAIN: Duration = Duration::from_secs(2);

/// What listens on a published port.
#[derive(Debug)]
pub(super) enum Bound {
    Streams(TcpListener),
    Datagrams(Endpoint),
    /// Nothing, because this computer has no IPv6 and so nobody who could come by it. The engine asks for both
    /// families wherever a user names no address, and gives up both if it is refused one.
    Nothing,
}

impl Bound {
    /// Whether somebody can connect.
    pub(super) fn listens(&self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

/// Binds the port on this address and no other.
pub(super) async fn bind(protocol: Protocol, address: SocketAddr) -> Result<Bound, Fault> {
    bind_by(open, protocol, address).await
}

/// Binds the port as soon as it can be had: another program may give it back. Until then the ledger says why it is not.
pub(super) async fn wait_for(publish: &Publish, ledger: &Ledger) -> Bound {
    let mut missed = None;
    loop {
        match bind(publish.protocol, publish.host).await {
            Ok(bound) => return bound,
            Err(fault) if missed.is_none() => {
                tracing::warn!("not published, and tried again until it is: {fault}");
                missed = Some(ledger.miss(*publish, fault.message));
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

async fn bind_by(
    open: impl Fn(Protocol, SocketAddr) -> io::Result<Bound>,
    protocol: Protocol,
    address: SocketAddr,
) -> Result<Bound, Fault> {
    if address.port() == 0 {
        return Err(Fault::new(FaultCode::Invalid, "port 0 cannot be published"));
    }
    let give_up = Instant::now() + OVERLAP;
    loop {
        match open(protocol, address) {
            Ok(bound) => return Ok(bound),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                sleep(RETRY).await;
            }
            Err(error) if address.ip().is_unspecified() && lacks_ipv6(&error) => return Ok(Bound::Nothing),
            Err(error) => return Err(refusal(protocol, address, &error)),
        }
    }
}

fn open(protocol: Protocol, address: SocketAddr) -> io::Result<Bound> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // The engine asks for both families, each by itself.
        socket.set_only_v6(true)?;
    }
    Ok(match protocol {
        Protocol::Tcp => {
            // Connections that linger from the last time must not keep the port. (On Windows it would mean something
            // else.)
            #[cfg(unix)]
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Bound::Streams(TcpListener::from_std(socket.into())?)
        }
        Protocol::Udp => Bound::Datagrams(Endpoint::bind(socket, address)?),
    })
}

/// Whether a socket could not be made because this computer has no IPv6 at all, as after `ipv6.disable=1`.
fn lacks_ipv6(error: &io::Error) -> bool {
    #[cfg(unix)]
    const NO_SUCH_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    // WSAEAFNOSUPPORT
    #[cfg(windows)]
    const NO_SUCH_FAMILY: i32 = 10_047;
    // IPv4 is everywhere.
    error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

fn refusal(protocol: Protocol, address: SocketAddr, error: &io::Error) -> Fault {
    let network = network(protocol, &address);
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            "cannot assign requested address: this computer has no such address".to_owned()
        }
        io::ErrorKind::PermissionDenied if cfg!(target_os = "linux") && address.port() < 1024 => format!(
            "permission denied: a user may not bind ports below 1024 on this computer; publish a higher port, or allow \
             it with: sudo sysctl net.ipv4.ip_unprivileged_port_start={}",
            address.port()
        ),
        _ if lacks_ipv6(error) => "this computer has no IPv6".to_owned(),
        _ => error.to_string(),
    };
    Fault::new(
        FaultCode::Failed,
        format!("listen {network} {address}: bind: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_refused_in_the_engines_words() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let fault = bind(Protocol::Tcp, address).await.unwrap_err();
        assert_eq!(
            fault.message,
            format!("listen tcp4 {address}: bind: address already in use")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_becomes_free_meanwhile_is_bound() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let binding = tokio::spawn(bind(Protocol::Tcp, address));
        sleep(2 * RETRY).await;
        drop(taken);
        assert!(matches!(binding.await.unwrap(), Ok(Bound::Streams(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_is_waited_for_is_listed_with_the_reason_and_bound_once_it_is_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let publish = Publish {
            protocol: Protocol::Tcp,
            host: taken.local_addr().unwrap(),
            container: ([172, 17, 0, 2], 80).into(),
            patient: true,
        };
        let ledger = Ledger::default();
        let waiting = tokio::spawn({
            let ledger = ledger.clone();
            async move { wait_for(&publish, &ledger).await }
        });
        sleep(3 * AGAIN).await;
        let refused = ledger.refused();
        assert_eq!(refused.len(), 1);
        assert!(
            refused[0].1.ends_with("address already in use"),
            "{}",
            refused[0].1
        );
        drop(taken);
        assert!(waiting.await.unwrap().listens());
        assert!(ledger.refused().is_empty());
    }

    #[tokio::test]
    async fn both_families_and_both_protocols_fit_on_one_port() {
        let first = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = first.local_addr().unwrap().port();
        drop(first);
        let mut bound = Vec::new();
        for host in ["0.0.0.0", "::"] {
            let address = SocketAddr::new(host.parse().unwrap(), port);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                bound.push(bind(protocol, address).await.unwrap());
            }
        }
        assert_eq!(bound.len(), 4);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn without_ipv6_all_its_addresses_are_nobodys_and_one_of_them_is_refused() {
        let without = |_: Protocol, address: SocketAddr| -> io::Result<Bound> {
            assert!(address.is_ipv6());
            Err(rustix::io::Errno::AFNOSUPPORT.into())
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let every = bind_by(without, protocol, "[::]:8080".parse().unwrap()).await;
            assert!(!every.unwrap().listens());
            let one = bind_by(without, protocol, "[::1]:8080".parse().unwrap()).await;
            let fault = one.unwrap_err();
            assert!(
                fault.message.ends_with("this computer has no IPv6"),
                "{}",
                fault.message
            );
        }
    }

    #[test]
    fn a_low_port_is_refused_with_what_to_do() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let fault = refusal(Protocol::Tcp, ([0, 0, 0, 0], 80).into(), &denied);
        if cfg!(target_os = "linux") {
            assert!(
                fault.message.contains("ip_unprivileged_port_start=80"),
                "{}",
                fault.message
            );
        }
    }
}
