//! Looking at the network from within a namespace, for whoever wonders why something cannot be reached.

use super::namespace::within;
use cove_wire::{
    Attempt, Fault, Look, MAX_ADDRESSES, MAX_LISTENERS, NameSource, Seen, Sight,
    dns::{self, Query},
    etc, listeners, network,
};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

/// How long an attempt to connect may take: shorter than any program's patience, longer than the way to another
/// continent.
const CONNECTING: Duration = Duration::from_secs(6);
/// How long a name server may take, as C libraries have it. The resolver's own bound is below this.
const ASKING: Duration = Duration::from_secs(5);
/// Bytes of a file that are read.
const MAX_FILE: u64 = 1 << 20;

/// Looks, and tells what was seen.
pub(super) async fn look(look: Look) -> Result<Seen, Fault> {
    let Look { namespace, sight } = look;
    // Of the guest's own device, which only the guest's own namespace has.
    let outward = fs::read_to_string(
        Path::new("/sys/class/net")
            .join(network::INTERFACE)
            .join("carrier"),
    );
    let outward = outward.ok().map(|carrier| carrier.trim() == "1");
    within(namespace, move || match sight {
        Sight::Name {
            name,
            hosts,
            resolvers,
        } => name_of(&name, &read(&hosts), &read(&resolvers)),
        Sight::Address(address) => Seen::Address {
            route: route(address).ok(),
            attempt: attempt(address),
            outward,
        },
        Sight::Listeners => Seen::Listeners(waiting()),
    })
    .await
}

/// As much of a file as is looked at; one that cannot be read is an empty one, as it is for resolvers.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is what there is.
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn attempt(address: SocketAddr) -> Attempt {
    match TcpStream::connect_timeout(&address, CONNECTING) {
        Ok(_) => Attempt::Taken,
        Err(error) => Attempt::of(&error),
    }
}

/// The address that packets to `address` would come from.
fn route(address: SocketAddr) -> io::Result<IpAddr> {
    // Connecting sends nothing: it finds the route.
    Ok(connected(address)?.local_addr()?.ip())
}

/// A UDP socket whose other end is `address`.
fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket)
}

/// Who listens in the namespace of this thread.
fn waiting() -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
        .iter()
        .flat_map(|table| listeners(&read(table)).collect::<Vec<_>>())
        .take(MAX_LISTENERS)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn name_of(name: &str, hosts: &str, resolvers: &str) -> Seen {
    let seen = |addresses: Vec<IpAddr>, source| Seen::Name {
        addresses: addresses.into_iter().take(MAX_ADDRESSES).collect(),
        source,
    };
    let known: Vec<IpAddr> = etc::hosts(hosts)
        .filter_map(|(address, mut names)| {
            names
                .any(|known| known.eq_ignore_ascii_case(name))
                .then_some(address)
        })
        .collect();
    if !known.is_empty() {
        return seen(known, NameSource::Hosts);
    }
    let mut last = NameSource::Nobody;
    let number_of = |device: &str| nix::net::if_::if_nametoindex(device).ok();
    for socket in etc::name_servers(resolvers, number_of) {
        let server = socket.ip();
        match ask(socket, name) {
            Ok(Answer::Found(addresses)) => return seen(addresses, NameSource::Server(server)),
            Ok(Answer::Cannot) => last = NameSource::Failed(server),
            Err(error) => {
                tracing::debug!(%server, "a name server did not answer: {error}");
                if !matches!(last, NameSource::Failed(_)) {
                    last = NameSource::Silence;
                }
            }
        }
    }
    seen(Vec::new(), last)
}

enum Answer {
    /// The addresses; none if there is no such name.
    Found(Vec<IpAddr>),
    /// The server does not know whether there are any.
    Cannot,
}

/// Asks for both families at once.
fn ask(server: SocketAddr, name: &str) -> io::Result<Answer> {
    let socket = connected(server)?;
    socket.set_read_timeout(Some(ASKING))?;
    let mut found = Vec::new();
    let mut conclusive = false;
    for (id, kind) in [(1, dns::A), (2, dns::AAAA)] {
        let Some(message) = dns::question(id, name, kind) else {
            return Ok(Answer::Found(Vec::new()));
        };
        let query = Query::parse(&message).map_err(io::Error::other)?;
        socket.send(&message)?;
        let mut buffer = [0; 4096];
        // Others than the server cannot send to this socket; a late answer to the question before may come.
        for _ in 0..2 {
            let length = socket.recv(&mut buffer)?;
            let answer = &buffer[..length];
            if query.is_answered_by(answer) {
                conclusive |= dns::is_conclusive(answer);
                found.extend(dns::addresses(answer));
                break;
            }
        }
    }
    Ok(if conclusive || !found.is_empty() {
        Answer::Found(found)
    } else {
        Answer::Cannot
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;

    fn at(sight: Sight) -> Look {
        Look {
            namespace: None,
            sight,
        }
    }

    #[tokio::test]
    async fn a_listener_is_seen_and_one_that_is_gone_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let Seen::Listeners(listeners) = look(at(Sight::Listeners)).await.unwrap() else {
            panic!("another answer");
        };
        assert!(listeners.contains(&address) || listeners.len() == MAX_LISTENERS);
        let there = look(at(Sight::Address(address))).await.unwrap();
        assert!(
            matches!(&there, Seen::Address { attempt: Attempt::Taken, route: Some(route), .. } if route.is_loopback()),
            "{there:?}"
        );
        drop(listener);
        let gone = look(at(Sight::Address(address))).await.unwrap();
        assert!(
            matches!(
                gone,
                Seen::Address {
                    attempt: Attempt::Refused,
                    ..
                }
            ),
            "{gone:?}"
        );
    }

    #[test]
    fn the_hosts_file_comes_first_and_without_servers_nobody_is_asked() {
        let hosts = "10.0.0.7 Db db.test # the database\n::1 localhost\n";
        assert_eq!(
            name_of("db", hosts, ""),
            Seen::Name {
                addresses: vec!["10.0.0.7".parse().unwrap()],
                source: NameSource::Hosts
            }
        );
        assert_eq!(
            name_of("other", hosts, "search lan\n"),
            Seen::Name {
                addresses: vec![],
                source: NameSource::Nobody
            }
        );
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(hosts in ".*", name in ".{0,80}") {
            let _ = name_of(&name, &hosts, "");
            let _ = dns::question(1, &name, dns::A);
        }
    }
}
