//! What this computer says: names, its own addresses, attempts to connect, who listens.

use cove_wire::Attempt;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// How long an attempt may take.
const CONNECTING: Duration = Duration::from_secs(6);
/// How long the system's resolver may take.
const RESOLVING: Duration = Duration::from_secs(10);

/// The addresses of a name, those of IPv4 first. Names below `localhost` are this computer, as browsers know
/// (RFC 6761), whether its resolver does or not.
pub(super) async fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    match timeout(RESOLVING, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.sort_by_key(IpAddr::is_ipv6);
            addresses.dedup();
            Ok(addresses)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {} s", RESOLVING.as_secs())),
    }
}

/// The first of the addresses that answers, as clients try them; the first of all if none does.
pub(super) async fn answering(addresses: &[IpAddr], port: u16) -> Option<IpAddr> {
    // There is nothing to choose from a single one.
    if let [_, _, ..] = addresses {
        for address in addresses {
            if attempt((*address, port).into()).await == Attempt::Taken {
                return Some(*address);
            }
        }
    }
    addresses.first().copied()
}

/// Whether this computer has the address.
pub(super) fn is_own(address: IpAddr) -> bool {
    // Only what it has can be bound.
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

pub(super) async fn attempt(address: SocketAddr) -> Attempt {
    match timeout(CONNECTING, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Attempt::Taken,
        Ok(Err(error)) => Attempt::of(&error),
        Err(_) => Attempt::Silence,
    }
}

/// Where programs of this computer wait for TCP connections; nothing where the system does not tell.
pub(super) async fn listeners() -> Option<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut told = false;
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        // There is no second one where IPv6 is switched off.
        if let Ok(text) = tokio::fs::read_to_string(table).await {
            found.extend(cove_wire::listeners(&text));
            told = true;
        }
    }
    found.sort_unstable();
    found.dedup();
    told.then_some(found)
}
