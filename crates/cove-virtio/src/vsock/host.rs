//! The host's side: programs that connect to the machine's socket, and listeners that the guest connects to.
//!
//! The convention is Firecracker's. A program connects to the machine's socket, writes `CONNECT <port>\n` and, once
//! the guest has accepted, reads `OK <host port>\n`; whatever follows either line belongs to the connection. When the
//! guest refuses, or no guest is there, the stream is closed. In the other direction a guest's connection to port
//! P of the host goes to the unix socket `<path>_<P>`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::connection::{Connection, Flushed, Ports, State};
use super::muxer::{ConnectionId, Muxer, Timer};
use super::poll::{Readiness, Source};
use crate::socket;

/// The longest greeting: `CONNECT 4294967295\r\n`, with some room.
const MAX_GREETING: usize = 32;

/// How long a guest's connection waits for room in a listener's backlog, and how often it tries.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
const DIAL_EVERY: Duration = Duration::from_millis(5);

/// How long to wait for file descriptors when there are none to accept with.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What a host program has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    /// Not all of it.
    Partial,
    /// The whole line, `len` bytes with its end.
    Port { port: u32, len: usize },
    /// Something else.
    Wrong,
}

impl Muxer {
    /// Takes all connections that wait on the machine's socket.
    pub(super) fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok(Some(stream)) if self.is_full() => {
                    tracing::warn!("too many vsock connections: a host program is turned away");
                    socket::close(stream);
                }
                Ok(Some(stream)) => self.greeted_by(stream),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a vsock connection from the host");
                    self.after(ACCEPT_AGAIN, Timer::Accept);
                    return;
                }
            }
        }
    }

    /// Turns away all connections that wait on the machine's socket: there is no guest to take them.
    pub(super) fn refuse(&mut self) {
        while let Ok(Some(stream)) = self.listener.accept() {
            socket::close(stream);
        }
    }

    /// Something happened on a connection's stream.
    pub(super) fn host_event(&mut self, id: ConnectionId, readiness: Readiness) {
        // The connection may have been removed after the event was fetched.
        let Some(connection) = self.table.get_mut(id) else {
            return;
        };
        connection.readable |= readiness.readable;
        connection.ended |= readiness.ended;
        connection.hung_up |= readiness.hung_up;
        let flushed = if readiness.writable || readiness.hung_up {
            connection.flush()
        } else {
            connection.flushed()
        };
        match connection.state {
            State::Greeting => self.greet(id),
            State::Draining if flushed == Flushed::Empty => self.remove(id),
            State::Requested if readiness.hung_up => self.reset(id),
            _ => {
                self.watch(id);
                self.wake(id);
            }
        }
    }

    /// The guest accepted: the host program learns of it, and what it wrote meanwhile is passed on.
    pub(super) fn accepted(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(id) else {
            return;
        };
        let line = format!("OK {}\n", connection.ports.host);
        let sent = connection.stream().map(|stream| send(stream, line.as_bytes()));
        // Nothing was written to the stream before, so a line that does not fit at once means that it is closed.
        if sent.is_none_or(|sent| sent != Ok(line.len())) {
            self.reset(id);
            return;
        }
        connection.state = State::Established;
        connection.readable = true;
        self.wake(id);
    }

    /// The guest wants to connect to a port of the host.
    pub(super) fn requested(&mut self, ports: Ports, buf_alloc: u32, fwd_cnt: u32) {
        if self.is_full() {
            tracing::warn!("too many vsock connections: the guest is turned away");
            self.reply_rst(ports);
            return;
        }
        let mut connection = Connection::new(ports, State::Dialling, None, self.window());
        if connection.to_guest.update(buf_alloc, fwd_cnt).is_err() {
            self.reply_rst(ports);
            return;
        }
        let id = self.insert(connection);
        self.dial(id, Instant::now() + DIAL_TIMEOUT);
    }

    /// Connects to the listener that the guest asked for.
    pub(super) fn dial(&mut self, id: ConnectionId, deadline: Instant) {
        let Some(connection) = self.table.get(id) else {
            return;
        };
        if connection.state != State::Dialling || connection.stream().is_some() {
            return;
        }
        let path = self.listener_path(connection.ports.host);
        match socket::connect(&path) {
            Ok(stream) => {
                if let Err(error) = self.poll.add(&stream, Source::Connection(id)) {
                    tracing::warn!(%error, "cannot watch a host stream");
                    self.reset(id);
                    return;
                }
                if let Some(connection) = self.table.get_mut(id) {
                    connection.dialled(stream);
                }
                self.wake(id);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                self.after(DIAL_EVERY, Timer::Dial(id, deadline));
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "a guest's connection found no listener");
                self.reset(id);
            }
        }
    }

    /// Where a host program listens for the guest's connections to `port`.
    fn listener_path(&self, port: u32) -> PathBuf {
        let mut path = self.host_socket.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }

    /// A host program connected.
    fn greeted_by(&mut self, stream: OwnedFd) {
        let nowhere = Ports { host: 0, guest: 0 };
        let id = self.insert(Connection::new(
            nowhere,
            State::Greeting,
            Some(stream),
            self.window(),
        ));
        let added = match self.table.get(id).and_then(Connection::stream) {
            Some(stream) => self.poll.add(stream, Source::Connection(id)),
            None => Err(Errno::BADF),
        };
        if let Err(error) = added {
            tracing::warn!(%error, "cannot watch a host stream");
            self.remove(id);
            return;
        }
        // The line is often there already, and then needs no event.
        self.greet(id);
    }

    /// Reads the greeting, and not a byte more: what follows stays in the socket until the guest has room for it.
    fn greet(&mut self, id: ConnectionId) {
        let Some(stream) = self.table.get(id).and_then(Connection::stream) else {
            return;
        };
        let mut line = [0; MAX_GREETING];
        let greeting = match rustix::net::recv(stream, &mut line[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => Greeting::Wrong,
            Ok((len, _)) => parse_greeting(&line[..len.min(MAX_GREETING)]),
            Err(Errno::AGAIN | Errno::INTR) => Greeting::Partial,
            Err(_) => Greeting::Wrong,
        };
        match greeting {
            Greeting::Partial => {}
            Greeting::Wrong => self.remove(id),
            Greeting::Port { port, len } => {
                // These bytes were peeked at a moment ago, and nobody else reads the stream.
                match rustix::net::recv(stream, &mut line[..len], RecvFlags::DONTWAIT) {
                    Ok((taken, _)) if taken == len => self.request(id, port),
                    _ => self.remove(id),
                }
            }
        }
    }
}

fn send(stream: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    rustix::net::send(stream.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

fn parse_greeting(bytes: &[u8]) -> Greeting {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < MAX_GREETING {
            Greeting::Partial
        } else {
            Greeting::Wrong
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let port = line
        .strip_prefix(b"CONNECT ")
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok());
    match port {
        Some(port) => Greeting::Port { port, len: end + 1 },
        None => Greeting::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_follows_the_greeting_is_not_part_of_it() {
        assert_eq!(
            parse_greeting(b"CONNECT 2375\nGET / HTTP"),
            Greeting::Port { port: 2375, len: 13 }
        );
        assert_eq!(
            parse_greeting(b"CONNECT 2375\r\n"),
            Greeting::Port { port: 2375, len: 14 }
        );
    }

    #[test]
    fn anything_but_a_port_is_refused() {
        for wrong in [
            "\n",
            "CONNECT \n",
            "CONNECT +1\n",
            "CONNECT 4294967296\n",
            "connect 1\n",
            "CONNECT 1 2\n",
        ] {
            assert_eq!(parse_greeting(wrong.as_bytes()), Greeting::Wrong, "{wrong:?}");
        }
        assert_eq!(parse_greeting(&[b'x'; MAX_GREETING]), Greeting::Wrong);
    }

    proptest! {
        #[test]
        fn any_port_is_understood_however_it_arrives(port in any::<u32>(), cut in 0usize..19) {
            let line = format!("CONNECT {port}\n");
            let cut = cut.min(line.len() - 1);
            prop_assert_eq!(parse_greeting(&line.as_bytes()[..cut]), Greeting::Partial);
            prop_assert_eq!(parse_greeting(line.as_bytes()), Greeting::Port { port, len: line.len() });
        }

        #[test]
        fn no_bytes_make_the_parser_claim_more_than_it_was_given(bytes in proptest::collection::vec(any::<u8>(), 0..MAX_GREETING)) {
            if let Greeting::Port { len, .. } = parse_greeting(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
