//! A published port on the machine's own addresses, as Docker's own proxy has it. On the loopback the engine looks for
//! a registry that is called `localhost:5000`, and a container on the machine's network for the ports of others. At the
//! gateways of the engine's networks containers do, such as 172.17.0.1, since the engine's rules pass over what comes
//! from its bridges. None of them passes this computer.
//!
//! Listening on all addresses opens nothing to the world: into the machine's network device passt forwards no
//! connection, and one that came there the engine's rules would lead to the container already.

use cove_wire::{Protocol, Publish};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, socket_with,
    sockopt::{set_ipv6_v6only, set_socket_reuseaddr},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{Builder, sleep},
    time::Duration,
};

/// Clients that may wait to be accepted, as many as the standard library has wait.
const BACKLOG: i32 = 128;
/// Clients of a port that are carried at once. Each takes two threads.
const MOST: usize = 1024;
/// What each thread has: they copy, and call little.
const STACK: usize = 128 << 10;
/// How long a container may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after a client that could not be taken, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves the port for as long as this process lives. What listens in the machine at its number already goes first: of
/// all addresses the loopback is then served, if that is free, and on this computer the port is published all the same.
pub(super) fn serve(publish: Publish) -> io::Result<()> {
    if publish.protocol != Protocol::Tcp {
        return Ok(());
    }
    let mut places = places(publish.host).into_iter();
    let Some(first) = places.next() else {
        return Ok(());
    };
    let listener = places.fold(listen(first), |listener, next| listener.or_else(|_| listen(next)))?;
    Builder::new()
        .spawn(move || accept(&listener, publish.container))
        .map(drop)
}

/// Where a port of that address is in the machine, the widest place first; nowhere if it is for one address of this
/// computer.
fn places(host: SocketAddr) -> Vec<SocketAddr> {
    let loopback = match host.ip() {
        ip if ip.is_loopback() => return vec![host],
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        _ => return Vec::new(),
    };
    vec![host, SocketAddr::new(loopback, host.port())]
}

/// Listens as the standard library would, but on all addresses of IPv6 for IPv6 alone, since IPv4 has a proxy of its
/// own.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A proxy that follows another does not wait for the other's last connections.
    set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn accept(listener: &TcpListener, container: SocketAddr) {
    let all = Arc::new(());
    loop {
        // Further ones wait in the backlog.
        if Arc::strong_count(&all) > MOST {
            sleep(PAUSE);
            continue;
        }
        let Ok((client, _)) = listener.accept() else {
            sleep(PAUSE);
            continue;
        };
        let one = Arc::clone(&all);
        let begun = Builder::new().stack_size(STACK).spawn(move || {
            // The client learns of it by the end of its connection.
            let _ = carry(client, container);
            drop(one);
        });
        if begun.is_err() {
            sleep(PAUSE);
        }
    }
}

/// Carries a client to the container until both have ended what they send.
fn carry(client: TcpStream, container: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&container, ANSWER)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let there = Builder::new().stack_size(STACK).spawn(move || pass(from, to))?;
    pass(server, client);
    // What it has to say was said to both ends.
    let _ = there.join();
    Ok(())
}

/// Passes on what comes, and then its end.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    // Whichever broke off, neither is waited for any longer.
    let _ = io::copy(&mut from, &mut to);
    let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        thread,
    };

    fn at(port: u16, address: [u8; 4]) -> SocketAddr {
        SocketAddr::from((address, port))
    }

    #[test]
    fn a_port_of_one_address_of_this_computer_is_not_the_machines() {
        let known: [(&str, &[&str]); 6] = [
            ("0.0.0.0:80", &["0.0.0.0:80", "127.0.0.1:80"]),
            ("127.0.0.2:80", &["127.0.0.2:80"]),
            ("[::]:80", &["[::]:80", "[::1]:80"]),
            ("[::1]:80", &["[::1]:80"]),
            ("192.0.2.1:80", &[]),
            ("[2001:db8::1]:80", &[]),
        ];
        for (host, inside) in known {
            let inside: Vec<SocketAddr> = inside.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(places(host.parse().unwrap()), inside, "{host}");
        }
    }

    #[test]
    fn each_family_has_all_its_addresses_for_itself() {
        let ipv4 = listen(at(0, [0, 0, 0, 0])).unwrap();
        let port = ipv4.local_addr().unwrap().port();
        assert!(
            listen(at(port, [127, 0, 0, 1])).is_err(),
            "not all addresses are taken"
        );
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            println!("this computer has no IPv6");
            return;
        }
        listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    }

    #[test]
    fn what_listens_at_an_address_already_goes_first_and_the_loopback_is_served() {
        let other = TcpListener::bind(at(0, [127, 0, 0, 2])).unwrap();
        let port = other.local_addr().unwrap().port();
        let publish = Publish {
            protocol: Protocol::Tcp,
            host: at(port, [0, 0, 0, 0]),
            container: at(1, [127, 0, 0, 1]),
            patient: false,
        };
        serve(publish).unwrap();
        TcpStream::connect(at(port, [127, 0, 0, 1])).unwrap();
        assert!(TcpStream::connect(at(port, [127, 0, 0, 3])).is_err());
        assert!(serve(publish).is_err(), "the port is served twice");
    }

    #[test]
    fn a_client_is_carried_both_ways_and_its_end_is_passed_on_before_the_answer() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let publish = Publish {
            protocol: Protocol::Tcp,
            host: free,
            container: server.local_addr().unwrap(),
            patient: false,
        };
        serve(publish).unwrap();
        assert!(serve(publish).is_err(), "the port is served twice");
        let answering = thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut asked = String::new();
            client.read_to_string(&mut asked).unwrap();
            client.write_all(asked.to_uppercase().as_bytes()).unwrap();
        });
        let mut client = TcpStream::connect(free).unwrap();
        client.write_all(b"anybody there").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "ANYBODY THERE");
        answering.join().unwrap();
    }
}
