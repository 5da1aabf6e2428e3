//! A published port on the machine's own addresses, as Docker's own proxy has it. On the loopback the engine looks for
//! a registry that is called `localhost:5000`, and a container on the machine's network for the ports of others. At the
//! gateways of the engine's networks containers do, such as 172.17.0.1, since the engine's rules pass over what comes
//! from its bridges. None of them passes this computer. A reset on one side is one on the other, as it is for clients of
//! this computer's: an answer that was cut off is not to look whole.
//!
//! Listening on all addresses opens nothing to the world: into the machine's network device passt forwards no
//! connection, and one that came there the engine's rules would lead to the container already.

use cove_wire::{Protocol, Publish};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, send, socket_with,
    sockopt::{set_ipv6_v6only, set_socket_linger, set_socket_reuseaddr},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, scope, sleep},
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
            // The client learns of it by the reset of its connection.
            let _ = carry(client, container);
            drop(one);
        });
        if begun.is_err() {
            sleep(PAUSE);
        }
    }
}

/// Carries a client to the container until both have ended what they send, or until one resets its connection, which the
/// other one's then is, too.
fn carry(client: TcpStream, container: SocketAddr) -> io::Result<()> {
    let client = Side::of(client);
    let server = Side::of(TcpStream::connect_timeout(&container, ANSWER)?);
    scope(|threads| {
        Builder::new()
            .stack_size(STACK)
            .spawn_scoped(threads, || pass(&client, &server))?;
        pass(&server, &client);
        Ok(())
    })
}

/// Passes on what comes, and then its end. Whichever breaks off, both are reset once the other direction, too, has come
/// to where it cannot go on.
fn pass(from: &Side, to: &Side) {
    let copied = io::copy(&mut &from.connection, &mut &to.connection);
    if copied.is_ok() && !from.was_reset() {
        to.end();
        return;
    }
    for side in [from, to] {
        side.reset_when_closed(true);
    }
    // Whoever waits for its next word would wait for ever. The peer hears nothing of this.
    let _ = to.connection.shutdown(Shutdown::Read);
}

/// One of the two that are joined. It is reset when it is closed, until it was told of the other one's end.
struct Side {
    connection: TcpStream,
    /// It was told.
    ended: AtomicBool,
}

impl Side {
    fn of(connection: TcpStream) -> Self {
        let side = Self {
            connection,
            ended: AtomicBool::new(false),
        };
        side.reset_when_closed(true);
        side
    }

    fn reset_when_closed(&self, reset: bool) {
        // What cannot be set on a connection that is gone need not be.
        let _ = set_socket_linger(&self.connection, reset.then_some(Duration::ZERO));
    }

    /// Tells it that nothing more comes.
    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.reset_when_closed(false);
        // One that is gone need not be told.
        let _ = self.connection.shutdown(Shutdown::Write);
    }

    /// Whether its end, which has been read, was none. A connection says once that it was reset, to whichever direction
    /// asks first; from then on it reads as ended, but nothing, not even of no bytes, can be sent on it any more.
    fn was_reset(&self) -> bool {
        let deaf = send(&self.connection, &[], SendFlags::NOSIGNAL).is_err();
        // The other direction notes an end before it makes one, so that an end is never taken for a reset.
        deaf && !self.ended.load(Ordering::SeqCst)
    }
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

    /// A client, and the server that it is carried to.
    fn carried() -> (TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = client_of(server.local_addr().unwrap());
        (client, patient(server.accept().unwrap().0))
    }

    /// A client that is carried to a container at that address.
    fn client_of(container: SocketAddr) -> TcpStream {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(proxy.local_addr().unwrap()).unwrap();
        let (accepted, _) = proxy.accept().unwrap();
        thread::spawn(move || carry(accepted, container));
        patient(client)
    }

    /// The same one, for which nobody waits for ever.
    fn patient(connection: TcpStream) -> TcpStream {
        connection.set_read_timeout(Some(ANSWER)).unwrap();
        connection
    }

    fn reset(connection: TcpStream) {
        set_socket_linger(&connection, Some(Duration::ZERO)).unwrap();
        drop(connection);
    }

    fn end_of(mut connection: &TcpStream) -> Result<usize, io::ErrorKind> {
        connection.read(&mut [0]).map_err(|error| error.kind())
    }

    const RESET: Result<usize, io::ErrorKind> = Err(io::ErrorKind::ConnectionReset);

    #[test]
    fn a_reset_on_one_side_is_a_reset_on_the_other() {
        for by_server in [true, false] {
            let (client, server) = carried();
            let (mut one, mut other) = if by_server {
                (server, client)
            } else {
                (client, server)
            };
            one.write_all(b"half of").unwrap();
            // It has to be there before the reset, which takes with it what is not.
            other.read_exact(&mut [0; 7]).unwrap();
            reset(one);
            assert_eq!(end_of(&other), RESET, "by the server: {by_server}");
        }
    }

    #[test]
    fn a_reset_after_the_other_sides_end_is_one_too() {
        for by_server in [true, false] {
            let (client, server) = carried();
            let (one, other) = if by_server {
                (server, client)
            } else {
                (client, server)
            };
            other.shutdown(Shutdown::Write).unwrap();
            assert_eq!(end_of(&one), Ok(0));
            reset(one);
            assert_eq!(end_of(&other), RESET, "by the server: {by_server}");
        }
    }

    #[test]
    fn a_client_that_takes_no_more_is_a_reset_for_a_server_that_goes_on() {
        let (client, mut server) = carried();
        reset(client);
        let refused = loop {
            if let Err(error) = server.write_all(&[0; 4096]) {
                break error.kind();
            }
        };
        // Which of the two it is depends on whether it had seen the reset.
        assert!(
            matches!(
                refused,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn a_container_where_nobody_listens_gives_no_empty_answer() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(end_of(&client_of(nobody)), RESET);
    }
}
