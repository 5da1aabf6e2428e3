//! A server in a container that knows what it was sent, and how it ended: `cove-peer PORT`, for TCP and UDP.
//!
//! Each TCP client says what it wants by one byte and, where a count is named, eight bytes, the greatest first:
//!
//! | byte | then |
//! | --- | --- |
//! | `e` | every byte comes back |
//! | `g` count | gives that many bytes of [`at`] |
//! | `t` count | takes that many, and answers `.` if they are those of [`at`], else `!` |
//! | `T` count | the same, after it has taken nothing for [`PAUSE`] |
//! | `r` count | gives that many, waits for a byte, and resets the connection |
//! | `w` | answers `.` and waits for the end, or for a reset |
//! | `l` | tells how the last client that said `w` ended: `end`, `reset`, or nothing yet |
//! | `p` | tells the client's address |
//!
//! Every datagram comes back.

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::Duration,
};

/// Bytes in one call.
const PIECE: usize = 32 << 10;
/// How long a slow reader does not read.
const PAUSE: Duration = Duration::from_secs(3);
/// A thread's stack: there may be a thousand.
const STACK: usize = 128 << 10;

/// How the last client that wanted to be waited for ended.
static LAST: Mutex<&str> = Mutex::new("");

fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        eprintln!("usage: cove-peer PORT");
        return ExitCode::FAILURE;
    };
    match serve(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cove-peer: serving port {port} failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16) -> io::Result<()> {
    // Both families.
    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    thread::spawn(move || {
        let mut datagram = vec![0; 1 << 16];
        loop {
            // What cannot be received or sent is lost, as datagrams may be.
            if let Ok((count, from)) = datagrams.recv_from(&mut datagram) {
                let _ = datagrams.send_to(&datagram[..count], from);
            }
        }
    });
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    loop {
        let (client, from) = listener.accept()?;
        // A client that breaks off fails its own test.
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || answer(client, from))?;
    }
}

fn answer(mut client: TcpStream, from: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut wanted = [0];
    client.read_exact(&mut wanted)?;
    match wanted[0] {
        b'e' => echo(&mut client),
        b'g' => {
            let count = count(&mut client)?;
            give(&mut client, count)
        }
        b't' => take(&mut client),
        b'T' => {
            thread::sleep(PAUSE);
            take(&mut client)
        }
        b'r' => {
            let count = count(&mut client)?;
            give(&mut client, count)?;
            client.read_exact(&mut wanted)?;
            reset(client)
        }
        b'w' => {
            set_last("");
            client.write_all(b".")?;
            let ended = client.read_to_end(&mut Vec::new());
            set_last(if ended.is_ok() { "end" } else { "reset" });
            Ok(())
        }
        b'l' => {
            let last = *LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            client.write_all(last.as_bytes())
        }
        b'p' => client.write_all(from.ip().to_canonical().to_string().as_bytes()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn set_last(how: &'static str) {
    *LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = how;
}

fn count(client: &mut TcpStream) -> io::Result<u64> {
    let mut count = [0; 8];
    client.read_exact(&mut count)?;
    Ok(u64::from_be_bytes(count))
}

/// The byte at a place of what is given and taken. No piece of any usual size is like the next.
fn at(place: u64) -> u8 {
    let [low, middle, high, ..] = place.to_le_bytes();
    low ^ middle.rotate_left(3) ^ high.rotate_left(5)
}

fn piece(from: u64, left: u64) -> Vec<u8> {
    let length = left.min(PIECE as u64);
    (from..from + length).map(at).collect()
}

fn echo(client: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            count => client.write_all(&buffer[..count])?,
        }
    }
}

fn give(client: &mut TcpStream, count: u64) -> io::Result<()> {
    let mut given = 0;
    while given < count {
        let piece = piece(given, count - given);
        client.write_all(&piece)?;
        given += piece.len() as u64;
    }
    Ok(())
}

fn take(client: &mut TcpStream) -> io::Result<()> {
    let count = count(client)?;
    let (mut taken, mut whole) = (0, true);
    while taken < count {
        let expected = piece(taken, count - taken);
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got)?;
        whole &= got == expected;
        taken += expected.len() as u64;
    }
    client.write_all(if whole { b"." } else { b"!" })
}

#[cfg(target_os = "linux")]
fn reset(client: TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
    drop(client);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn reset(_: TcpStream) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
