//! A server in a container that knows what it was sent and how it ended: see `cove-peer`.

use cove_tests::harness::Cove;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    time::Duration,
};

/// Where it listens within its container.
pub(crate) const PORT: u16 = 7070;
/// Nothing takes longer than this unless it has stopped.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// How often a datagram is sent that may be lost, and how long its answer may take.
const TRIES: u32 = 20;
const ANSWER: Duration = Duration::from_secs(2);
/// Bytes in one call.
const PIECE: usize = 64 << 10;

/// The container, until this is dropped.
pub(crate) struct Peer<'c> {
    cove: &'c Cove,
    name: &'static str,
}

impl<'c> Peer<'c> {
    /// Runs one with options of `docker run`.
    #[track_caller]
    pub(crate) fn run(cove: &'c Cove, name: &'static str, options: &[&str]) -> Self {
        cove.docker(["run", "-d", "--name", name, "-v"])
            .arg(format!("{}:/peer:ro", folder(cove).display()))
            .args(options)
            .args(["alpine", "/peer/cove-peer"])
            .arg(PORT.to_string())
            .ok();
        Self { cove, name }
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        self.cove.docker(["rm", "-f", self.name]).run();
    }
}

/// A folder that containers can mount, with the program in it.
#[track_caller]
pub(crate) fn folder(cove: &Cove) -> PathBuf {
    let folder = cove.scratch().join("peer");
    if !folder.exists() {
        let program = cove.kit().peer.as_ref().unwrap();
        fs::create_dir(&folder).unwrap();
        fs::copy(program, folder.join("cove-peer")).unwrap();
    }
    folder
}

/// The byte at a place of what it gives and takes, as `cove-peer` has it.
fn at(place: u64) -> u8 {
    let [low, middle, high, ..] = place.to_le_bytes();
    low ^ middle.rotate_left(3) ^ high.rotate_left(5)
}

fn piece(from: u64, left: u64) -> Vec<u8> {
    let length = left.min(PIECE as u64);
    (from..from + length).map(at).collect()
}

/// A connection on which it has been told what is wanted.
pub(crate) fn ask(address: SocketAddr, what: u8, count: Option<u64>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut request = vec![what];
    request.extend(count.into_iter().flat_map(u64::to_be_bytes));
    stream.write_all(&request)?;
    Ok(stream)
}

/// What it answers to a question without a count.
pub(crate) fn told(address: SocketAddr, what: u8) -> io::Result<String> {
    let mut answer = String::new();
    ask(address, what, None)?.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Reads as many bytes, and looks whether they are those that it gives.
pub(crate) fn receive(stream: &mut TcpStream, count: u64) -> io::Result<()> {
    let mut got = 0;
    while got < count {
        let expected = piece(got, count - got);
        let mut read = vec![0; expected.len()];
        stream.read_exact(&mut read)?;
        if read != expected {
            let why = format!("the {} bytes from {got} on are damaged", read.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        got += expected.len() as u64;
    }
    Ok(())
}

/// Sends as many bytes as were announced, and hears whether they arrived as they were.
pub(crate) fn send(stream: &mut TcpStream, count: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < count {
        let piece = piece(sent, count - sent);
        stream.write_all(&piece)?;
        sent += piece.len() as u64;
    }
    let mut verdict = [0];
    stream.read_exact(&mut verdict)?;
    if verdict == *b"." {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the container got something else",
        ))
    }
}

/// Whether a datagram of so many bytes comes back as it was, from the address that it was sent to: the usual one of the
/// loopback device sends it.
pub(crate) fn datagram_comes_back(address: SocketAddr, length: usize) -> io::Result<bool> {
    let from: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(ANSWER))?;
    let sent: Vec<u8> = piece(0, length as u64);
    let mut got = vec![0; 1 << 16];
    // The server may not listen yet, and a datagram may be lost.
    for _ in 0..TRIES {
        socket.send(&sent)?;
        if let Ok(count) = socket.recv(&mut got) {
            return Ok(got[..count] == sent);
        }
    }
    Ok(false)
}
