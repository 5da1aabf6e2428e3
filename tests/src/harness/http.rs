//! HTTP over the forwarded socket, byte by byte, for what a Docker client would hide: upgraded connections, half-close,
//! many connections at once.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// An answer that is waited for longer than this does not come.
const LIMIT: Duration = Duration::from_mins(2);

/// A connection to the engine's API.
#[derive(Debug)]
pub struct Wire(BufReader<UnixStream>);

/// An answer's status and body.
#[derive(Debug)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// All of it.
    pub body: String,
}

impl Wire {
    /// Connects.
    #[track_caller]
    pub fn connect(socket: &Path) -> Self {
        let stream = match UnixStream::connect(socket) {
            Ok(stream) => stream,
            Err(error) => panic!("cannot connect to {}: {error}", socket.display()),
        };
        assert!(stream.set_read_timeout(Some(LIMIT)).is_ok());
        Self(BufReader::new(stream))
    }

    /// Sends a request whose connection stays open.
    #[track_caller]
    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        );
        self.write(request.as_bytes());
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        if let Err(error) = self.0.get_mut().write_all(bytes) {
            panic!("the connection takes no bytes: {error}");
        }
    }

    /// Ends our direction; the other goes on.
    #[track_caller]
    pub fn half_close(&mut self) {
        assert!(
            self.0.get_ref().shutdown(Shutdown::Write).is_ok(),
            "cannot half-close"
        );
    }

    /// Reads an answer's status and headers; its body, or the upgraded stream, follows.
    #[track_caller]
    pub fn head(&mut self) -> (u16, Vec<String>) {
        let status = self.line();
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let Some(code) = code else {
            panic!("no status line: {status:?}");
        };
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return (code, headers);
            }
            headers.push(line.to_ascii_lowercase());
        }
    }

    /// Reads a whole answer; the connection can be used again.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let (status, headers) = self.head();
        let value = |name: &str| {
            headers
                .iter()
                .find_map(|header| header.strip_prefix(name).map(|value| value.trim().to_owned()))
        };
        let body = if value("transfer-encoding:").as_deref() == Some("chunked") {
            self.chunks()
        } else {
            let length = value("content-length:")
                .and_then(|length| length.parse().ok())
                .unwrap_or(0);
            self.exactly(length)
        };
        Response {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// Reads until the other side ends.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut rest) {
            panic!("the connection broke after {} bytes: {error}", rest.len());
        }
        rest
    }

    /// Reads some bytes, at least one; nothing at the end.
    #[track_caller]
    pub fn some(&mut self) -> Vec<u8> {
        match self.0.fill_buf() {
            Ok(bytes) => {
                let bytes = bytes.to_vec();
                self.0.consume(bytes.len());
                bytes
            }
            Err(error) => panic!("the connection broke: {error}"),
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let Ok(length) = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16) else {
                panic!("no chunk size: {line:?}");
            };
            body.extend(self.exactly(length));
            assert_eq!(self.line(), "", "a chunk is longer than it said");
            if length == 0 {
                return body;
            }
        }
    }

    /// Reads as many bytes.
    #[track_caller]
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        if let Err(error) = self.0.read_exact(&mut bytes) {
            panic!("the connection ended within an answer: {error}");
        }
        bytes
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        if let Err(error) = self.0.read_line(&mut line) {
            panic!("the connection broke within a line: {error}");
        }
        line.trim_end_matches(['\r', '\n']).to_owned()
    }
}
