//! A published port on the machine's own loopback, as Docker's own proxy has it: there the engine looks for a registry
//! that is called `localhost:5000`, and a container on the machine's network for the ports of others. Neither passes
//! this computer.

use cove_wire::{Protocol, Publish};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{Builder, sleep},
    time::Duration,
};

/// Clients of a port that are carried at once. Each takes two threads.
const MOST: usize = 128;
/// How long a container may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after a client that could not be taken, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves the port for as long as this process lives. Where the machine's loopback has another one of its number, that
/// goes first: on this computer the port is published all the same.
pub(super) fn serve(publish: Publish) -> io::Result<()> {
    if publish.protocol != Protocol::Tcp {
        return Ok(());
    }
    let Some(address) = loopback(publish.host) else {
        return Ok(());
    };
    let listener = TcpListener::bind(address)?;
    Builder::new()
        .spawn(move || accept(&listener, publish.container))
        .map(drop)
}

/// Where a port of that address is on the machine's loopback; nowhere if it is for one address of this computer.
fn loopback(host: SocketAddr) -> Option<SocketAddr> {
    let address = match host.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, host.port()))
}

fn accept(listener: &TcpListener, container: SocketAddr) {
    let all = Arc::new(());
    loop {
        let Ok((client, _)) = listener.accept() else {
            sleep(PAUSE);
            continue;
        };
        let one = Arc::clone(&all);
        if Arc::strong_count(&all) > MOST + 1 {
            continue;
        }
        let begun = Builder::new().spawn(move || {
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
    let there = Builder::new().spawn(move || pass(from, to))?;
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

    #[test]
    fn a_port_of_one_address_of_this_computer_is_not_the_machines() {
        for (host, inside) in [
            ("0.0.0.0:80", Some("127.0.0.1:80")),
            ("127.0.0.2:80", Some("127.0.0.2:80")),
            ("[::]:80", Some("[::1]:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("192.0.2.1:80", None),
            ("[2001:db8::1]:80", None),
        ] {
            let inside = inside.map(|address| address.parse().unwrap());
            assert_eq!(loopback(host.parse().unwrap()), inside, "{host}");
        }
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
