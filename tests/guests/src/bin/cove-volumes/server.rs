//! HTTP/1.1 as the engine speaks it to plugins: POST, a JSON body with its length, connections that are kept.

use crate::volumes::Volumes;
use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
};

/// Longest body and longest line that are read, in bytes. The engine's are a few hundred.
const MAX_BODY: u64 = 64 << 10;
const MAX_LINE: u64 = 4 << 10;

/// Serves until the listener fails.
pub(crate) fn serve(socket: &Path, volumes: &Volumes) -> io::Result<()> {
    // One that an earlier plugin left is in the way.
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    loop {
        let (connection, _) = listener.accept()?;
        let volumes = volumes.clone();
        thread::spawn(move || {
            if let Err(error) = converse(connection, &volumes) {
                eprintln!("a connection broke: {error}");
            }
        });
    }
}

fn converse(mut connection: UnixStream, volumes: &Volumes) -> io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    while let Some((path, body)) = request(&mut reader)? {
        let call = path.trim_start_matches('/');
        let answer = volumes
            .answer(call, &serde_json::from_slice(&body).unwrap_or_default())
            .to_string();
        eprintln!("{call} {} -> {answer}", String::from_utf8_lossy(&body).trim());
        write!(
            connection,
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
    Ok(())
}

/// A request's path and body; nothing at the end of the connection.
fn request(reader: &mut BufReader<UnixStream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let first = line(reader)?;
    let Some(path) = first.split(' ').nth(1).map(str::to_owned) else {
        return Ok(None);
    };
    let mut length = 0;
    loop {
        let header = line(reader)?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse::<u64>().map_err(io::Error::other)?;
        }
    }
    if length > MAX_BODY {
        return Err(io::Error::other("the request is too long"));
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok(Some((path, body)))
}

fn line(reader: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    reader.take(MAX_LINE).read_line(&mut line)?;
    line.truncate(line.trim_end().len());
    Ok(line)
}
