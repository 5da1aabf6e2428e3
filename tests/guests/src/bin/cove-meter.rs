//! The far end of network measurements, for containers: `cove-meter PORT`.
//!
//! Each client says what it wants by one byte and, but for an echo, a count as eight bytes, the greatest first:
//!
//! | byte | then |
//! | --- | --- |
//! | `e` | every byte comes back |
//! | `t` | takes that many bytes and answers with one |
//! | `g` | gives that many bytes and waits for one |
//! | `T`, `G` | the same, but on a connection that it makes to the address that follows, a line of text |
//!
//! Nothing is said by the end of a direction, so that every carrier can be measured, whatever it makes of half-closed
//! connections.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
};

/// Bytes in one call.
const PIECE: usize = 64 << 10;

fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        eprintln!("usage: cove-meter PORT");
        return ExitCode::FAILURE;
    };
    match serve(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cove-meter: serving port {port} failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    for client in listener.incoming() {
        let client = client?;
        // A client that breaks off measures nothing.
        thread::spawn(move || answer(client));
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut wanted = [0];
    client.read_exact(&mut wanted)?;
    if wanted == *b"e" {
        return echo(client);
    }
    let mut count = [0; 8];
    client.read_exact(&mut count)?;
    let count = u64::from_be_bytes(count);
    match wanted[0] {
        b't' => take(&mut client, count),
        b'g' => give(&mut client, count),
        b'T' | b'G' => {
            let mut address = String::new();
            BufReader::new(client.try_clone()?).read_line(&mut address)?;
            let mut other = TcpStream::connect(address.trim_end())?;
            other.set_nodelay(true)?;
            if wanted[0] == b'T' {
                take(&mut other, count)
            } else {
                give(&mut other, count)
            }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn echo(mut client: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            count => client.write_all(&buffer[..count])?,
        }
    }
}

fn take(stream: &mut TcpStream, count: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut left = count;
    while left > 0 {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => left = left.saturating_sub(got as u64),
        }
    }
    stream.write_all(b".")
}

fn give(stream: &mut TcpStream, count: u64) -> io::Result<()> {
    let buffer = vec![7; PIECE];
    let mut left = count;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        stream.write_all(&buffer[..piece])?;
        left -= piece as u64;
    }
    // Until the other end has it all.
    stream.read_exact(&mut [0])
}
