//! Looks at the guest's network: what a name means there, whether there is a way to an address, who listens. They
//! answer the question why something cannot be reached; nothing that carries data depends on them.
//!
//! ```text
//!  host (daemon)                                  guest (agent)
//!      │ Open::Look on a stream ────────────────────▶ │ looks, from within the network namespace
//!      │ ◀──────────────────────────── Opened, Seen   │
//! ```

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Listeners that are told of at most.
pub const MAX_LISTENERS: usize = 256;
/// Addresses of a name that are told of at most.
pub const MAX_ADDRESSES: usize = 32;

/// A look at the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The network namespace to look from, the path of its file; the guest's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What is looked for.
    pub sight: Sight,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// What a name means; answered by [`Seen::Name`].
    Name {
        /// The name.
        name: String,
        /// The path of the hosts file that programs there read.
        hosts: String,
        /// The path of the list of name servers that programs there read.
        resolvers: String,
    },
    /// Whether a TCP server answers at the address; answered by [`Seen::Address`].
    Address(SocketAddr),
    /// Who waits for TCP connections; answered by [`Seen::Listeners`].
    Listeners,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// What a name means.
    Name {
        /// Its addresses; at most [`MAX_ADDRESSES`].
        addresses: Vec<IpAddr>,
        /// Who said so.
        source: NameSource,
    },
    /// An attempt to connect.
    Address {
        /// The address that the way begins at; nothing without a route.
        route: Option<IpAddr>,
        /// How the attempt ended.
        attempt: Attempt,
        /// Whether the guest's way out has a network at its other end. Nothing if there is no such device.
        outward: Option<bool>,
    },
    /// Where TCP connections are waited for, at most [`MAX_LISTENERS`].
    Listeners(Vec<SocketAddr>),
}

/// Who said what a name means, or that it means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// The hosts file.
    Hosts,
    /// This name server.
    Server(IpAddr),
    /// This name server, which could not tell.
    Failed(IpAddr),
    /// None of the name servers answered.
    Silence,
    /// There is no name server.
    Nobody,
}

/// How an attempt to connect ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// Somebody took it.
    Taken,
    /// It was refused.
    Refused,
    /// There was no way, or somebody on the way said so; in the system's words.
    NoWay(String),
    /// The system itself forbade it, as for its firewall; in its words.
    Forbidden(String),
    /// There was no answer in time.
    Silence,
    /// Something else; in the system's words.
    Failed(String),
}

impl Attempt {
    /// From what the system said.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused | Kind::ConnectionReset => Self::Refused,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown | Kind::AddrNotAvailable => {
                Self::NoWay(error.to_string())
            }
            Kind::PermissionDenied => Self::Forbidden(error.to_string()),
            Kind::TimedOut | Kind::WouldBlock => Self::Silence,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// The listening sockets in the text of `/proc/net/tcp` or `/proc/net/tcp6` (`proc_pid_net(5)`). Lines that make no
/// sense are left out.
pub fn listeners(text: &str) -> impl Iterator<Item = SocketAddr> {
    // Below a line of headings, each begins with its number.
    text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, _peer, state) = (words.next()?, words.next()?, words.next()?);
        // TCP_LISTEN of linux/tcp_states.h.
        (state == "0A").then_some(())?;
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(SocketAddr::new(address_of(address)?, port))
    })
}

/// An address as the kernel prints it: its 32-bit words in its own order of bytes.
fn address_of(hex: &str) -> Option<IpAddr> {
    let mut octets = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    match octets.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_list_of_sockets_is_read() {
        let four = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                    0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   \
                    1: 020011AC:0050 010011AC:9C40 01 00000000:00000000\n";
        let six = "  sl  local_address remote_address st\n   \
                   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A x\n   \
                   1: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A x\n";
        assert_eq!(
            listeners(four).collect::<Vec<_>>(),
            ["127.0.0.1:8080".parse().unwrap()]
        );
        assert_eq!(
            listeners(six).collect::<Vec<_>>(),
            ["[::]:80".parse().unwrap(), "127.0.0.1:81".parse().unwrap()]
        );
    }

    #[test]
    fn a_firewalls_refusal_is_told_from_a_servers() {
        let of = |kind: std::io::ErrorKind| Attempt::of(&kind.into());
        assert_eq!(of(std::io::ErrorKind::ConnectionRefused), Attempt::Refused);
        assert_eq!(of(std::io::ErrorKind::TimedOut), Attempt::Silence);
        assert!(matches!(
            of(std::io::ErrorKind::PermissionDenied),
            Attempt::Forbidden(_)
        ));
        assert!(matches!(
            of(std::io::ErrorKind::NetworkUnreachable),
            Attempt::NoWay(_)
        ));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(.*\n){0,3}", local in "[0-9A-Fa-fé:]{0,40}") {
            listeners(&text).for_each(drop);
            listeners(&format!("head\n 0: {local} 0:0 0A\n")).for_each(drop);
        }
    }
}
