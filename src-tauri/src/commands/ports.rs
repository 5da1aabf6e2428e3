//! Ports of this computer, before a container asks for them: whether they could be published at this moment.
//!
//! Each is bound as the daemon would bind it, for as long as that takes, and never listened on. Another program may
//! take it right after, so that the engine has the last word; this only tells what would fail while it is being typed.

use crate::{
    failure::{Answer, Refusal},
    local,
};
use cove_view::{PortObstacle, PortObstacleKind, Protocol, Publish};
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Ports that are asked about at once, at most.
const MOST: usize = 256;
/// Ports that are tried, at most, to find a free one in place of another.
const TRIED: u16 = 64;
/// The first that needs no privilege.
const UNPRIVILEGED: u16 = 1024;
/// In place of a port that needs one, that which is so much higher is tried first: 8080 for 80.
const RAISED: u16 = 8000;

/// What would keep each of these ports from being published now; nothing where nothing would.
#[tauri::command]
pub(crate) async fn ports_free(ports: Vec<Publish>) -> Answer<Vec<Option<PortObstacle>>> {
    if ports.len() > MOST {
        return Err(Refusal::new(
            format!("these are {} ports; at once it may be {MOST}", ports.len()),
            "Publish a range of them in a terminal.",
        ));
    }
    local::blocking(move || ports.iter().map(|port| obstacle(port, &ports)).collect()).await
}

fn obstacle(wanted: &Publish, all: &[Publish]) -> Option<PortObstacle> {
    // The engine chooses a free one.
    if wanted.host == 0 {
        return None;
    }
    let addresses = addresses(&wanted.address)?;
    let kind = refused(wanted.protocol, &addresses, wanted.host)?;
    let named = |port: u16| {
        all.iter()
            .any(|other| other.host == port && other.protocol == wanted.protocol)
    };
    let free = match kind {
        PortObstacleKind::Elsewhere => None,
        PortObstacleKind::Taken | PortObstacleKind::Denied => instead_of(wanted.host)
            .find(|port| !named(*port) && refused(wanted.protocol, &addresses, *port).is_none()),
    };
    Some(PortObstacle { kind, free })
}

/// Where a port is bound that is asked for at this address, as the engine does it. What is none the engine will refuse.
fn addresses(address: &str) -> Option<Vec<IpAddr>> {
    if address.is_empty() {
        return Some(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
    }
    address.parse().ok().map(|address| vec![address])
}

/// The ports to try in place of one.
fn instead_of(port: u16) -> impl Iterator<Item = u16> {
    let first = if port < UNPRIVILEGED {
        port + RAISED
    } else {
        port.saturating_add(1)
    };
    (first..=u16::MAX).take(TRIED.into())
}

/// Why a port cannot be bound at one of these addresses. What else may go wrong, such as an address of a family that
/// this computer lacks, keeps nobody from asking the engine.
fn refused(protocol: Protocol, addresses: &[IpAddr], port: u16) -> Option<PortObstacleKind> {
    addresses.iter().find_map(|address| {
        let error = bind(protocol, SocketAddr::new(*address, port)).err()?;
        match error.kind() {
            io::ErrorKind::AddrInUse => Some(PortObstacleKind::Taken),
            io::ErrorKind::PermissionDenied => Some(PortObstacleKind::Denied),
            io::ErrorKind::AddrNotAvailable if !address.is_unspecified() => Some(PortObstacleKind::Elsewhere),
            _ => None,
        }
    })
}

/// Binds as `cove-daemon`'s `ports/bind.rs` does.
fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        // No machine publishes it, which the engine says.
        Protocol::Sctp => return Ok(()),
    };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    if protocol == Protocol::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn wanted(address: &str, host: u16, protocol: Protocol) -> Publish {
        Publish {
            address: address.to_owned(),
            host,
            container: 80,
            protocol,
        }
    }

    fn kind(wanted: &Publish) -> Option<PortObstacleKind> {
        obstacle(wanted, &[]).map(|obstacle| obstacle.kind)
    }

    #[test]
    fn a_port_that_another_program_listens_on_is_told_with_one_that_can_be_had() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", ""] {
            let wanted = wanted(address, port, Protocol::Tcp);
            let found = obstacle(&wanted, &[]).unwrap();
            assert_eq!(found.kind, PortObstacleKind::Taken, "{address:?}");
            if let Some(free) = found.free {
                assert!(free > port);
                let typed = Publish {
                    host: free,
                    ..wanted.clone()
                };
                let other = obstacle(&wanted, &[wanted.clone(), typed]).unwrap();
                assert_ne!(other.free, Some(free), "it is named already");
            }
        }
        assert_eq!(kind(&wanted("127.0.0.1", port, Protocol::Udp)), None);
        drop(listener);
        assert_eq!(kind(&wanted("127.0.0.1", port, Protocol::Tcp)), None);
    }

    #[test]
    fn a_datagram_port_is_told_as_well() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(
            kind(&wanted("127.0.0.1", port, Protocol::Udp)),
            Some(PortObstacleKind::Taken)
        );
    }

    #[test]
    fn an_address_of_another_computer_is_told_and_what_is_none_is_left_to_the_engine() {
        // Of a network for documentation, RFC 5737.
        assert_eq!(
            kind(&wanted("192.0.2.1", 8080, Protocol::Tcp)),
            Some(PortObstacleKind::Elsewhere)
        );
        for address in ["localhost", "127.0.0.1; true", "256.0.0.1"] {
            assert_eq!(kind(&wanted(address, 8080, Protocol::Tcp)), None, "{address}");
        }
        assert_eq!(kind(&wanted("", 0, Protocol::Tcp)), None);
    }

    #[test]
    fn in_place_of_a_port_that_needs_a_privilege_a_familiar_one_is_tried() {
        assert_eq!(instead_of(80).next(), Some(8080));
        assert_eq!(instead_of(8080).next(), Some(8081));
        assert_eq!(instead_of(u16::MAX).collect::<Vec<_>>(), [u16::MAX]);
    }
}
