//! Heads of requests and answers: where they end, and what of them the gateway has to know.
//!
//! Everything else in a head is the business of the two ends and travels on as it came.

use super::framing::Framing;
use std::mem::MaybeUninit;

/// Longest head; what Go's HTTP server, and so the engine, takes.
pub(super) const MAX_HEAD: usize = 1024 * 1024;

/// Most fields of a head.
const MAX_FIELDS: usize = 256;

/// What the gateway has to know of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestHead {
    /// Bytes of the head, its empty line included.
    pub(super) length: usize,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) framing: Framing,
    /// It asks for another protocol on this connection.
    pub(super) upgrade: bool,
    /// It holds its body back until it is told to go on.
    pub(super) expects_continue: bool,
    /// The client wants the connection to end with the answer.
    pub(super) last: bool,
}

/// What the gateway has to know of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResponseHead {
    /// Bytes of the head, its empty line included.
    pub(super) length: usize,
    pub(super) status: u16,
    pub(super) framing: Framing,
}

/// A head that cannot be passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("the head is not HTTP/1.1: {0}")]
    Malformed(httparse::Error),
    #[error("a line of the head does not end in CR LF")]
    BareLineFeed,
    #[error("the head is longer than {MAX_HEAD} bytes or has more than {MAX_FIELDS} fields")]
    TooLarge,
    #[error("the head gives the body's length twice")]
    AmbiguousLength,
    #[error("Content-Length is not a number")]
    BadLength,
    #[error("Transfer-Encoding is something other than chunked")]
    UnknownCoding,
    #[error("Transfer-Encoding does not exist in HTTP/1.0")]
    CodingInOldVersion,
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    #[error("the Docker API has no CONNECT")]
    Connect,
}

impl HeadError {
    /// The HTTP status that tells a client about it.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::TooLarge => 431,
            Self::UnknownCoding => 501,
            Self::Version => 505,
            Self::Connect => 405,
            _ => 400,
        }
    }
}

/// Looks for the end of a head in a buffer that grows, each byte once.
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    seen: usize,
}

impl HeadEnd {
    /// The length of the head at the front of `buffer` once it is complete.
    pub(super) fn find(&mut self, buffer: &[u8]) -> Result<Option<usize>, HeadError> {
        while let Some(found) = buffer[self.seen..].iter().position(|&byte| byte == b'\n') {
            let line_feed = self.seen + found;
            self.seen = line_feed + 1;
            let before = &buffer[..line_feed];
            if !before.ends_with(b"\r") {
                return Err(HeadError::BareLineFeed);
            }
            if before.ends_with(b"\r\n\r") {
                return if self.seen > MAX_HEAD {
                    Err(HeadError::TooLarge)
                } else {
                    Ok(Some(self.seen))
                };
            }
        }
        self.seen = buffer.len();
        if self.seen > MAX_HEAD {
            return Err(HeadError::TooLarge);
        }
        Ok(None)
    }
}

impl RequestHead {
    /// Reads a complete head: `bytes` ends with its empty line.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        if bytes.starts_with(b"PRI * HTTP/2") {
            return Err(HeadError::Version);
        }
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let length = complete(
            httparse::ParserConfig::default().parse_request_with_uninit_headers(
                &mut request,
                bytes,
                &mut fields,
            ),
            bytes,
        )?;
        let method = request.method.unwrap_or_default();
        if method == "CONNECT" {
            return Err(HeadError::Connect);
        }
        let old = request.version == Some(0);
        let fields = Fields::read(request.headers)?;
        let framing = match (fields.length, fields.coding) {
            (None, None) => Framing::Length(0),
            (Some(length), None) => Framing::Length(length),
            (Some(_), Some(_)) => return Err(HeadError::AmbiguousLength),
            (None, Some(_)) if old => return Err(HeadError::CodingInOldVersion),
            (None, Some(Coding::Chunked)) => Framing::Chunked,
            (None, Some(Coding::Other)) => return Err(HeadError::UnknownCoding),
        };
        Ok(Self {
            length,
            method: method.to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            framing,
            upgrade: fields.upgrade,
            expects_continue: fields.expects_continue && !old,
            last: fields.close || old,
        })
    }

    /// The target without its query, which may hold secrets, and not at any length: for logs.
    pub(super) fn path(&self) -> &str {
        let path = self.target.split('?').next().unwrap_or_default();
        &path[..path.floor_char_boundary(200)]
    }
}

impl ResponseHead {
    /// Reads a complete head, the answer to a request with `method`: `bytes` ends with its empty line.
    pub(super) fn parse(bytes: &[u8], method: &str) -> Result<Self, HeadError> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let length = complete(
            httparse::ParserConfig::default().parse_response_with_uninit_headers(
                &mut response,
                bytes,
                &mut fields,
            ),
            bytes,
        )?;
        let status = response.code.unwrap_or_default();
        if !(100..=999).contains(&status) {
            return Err(HeadError::Malformed(httparse::Error::Status));
        }
        let fields = Fields::read(response.headers)?;
        let framing = match (fields.length, fields.coding) {
            // These have no body whatever their fields say (RFC 9112, section 6.3).
            _ if method == "HEAD" || status < 200 || status == 204 || status == 304 => Framing::Length(0),
            (Some(_), Some(_)) => return Err(HeadError::AmbiguousLength),
            (Some(length), None) => Framing::Length(length),
            (None, Some(Coding::Chunked)) => Framing::Chunked,
            (None, Some(Coding::Other) | None) => Framing::UntilClose,
        };
        Ok(Self {
            length,
            status,
            framing,
        })
    }
}

/// The same head for a body of another length, which it gives as `Content-Length`.
pub(super) fn rewrite_length(head: &[u8], length: usize) -> Vec<u8> {
    let mut rewritten = Vec::with_capacity(head.len() + 32);
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        let framing = ["content-length", "transfer-encoding", "trailer"];
        if line == b"\r\n" && !rewritten.is_empty() {
            rewritten.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        } else if !framing
            .iter()
            .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
        {
            rewritten.extend_from_slice(line);
        }
    }
    rewritten
}

/// A request's head with another target.
pub(super) fn rewrite_target(head: &[u8], from: &str, to: &str) -> Option<Vec<u8>> {
    let line = head.iter().position(|&byte| byte == b'\n')?;
    let at = head[..line]
        .windows(from.len() + 1)
        .position(|window| window[0] == b' ' && &window[1..] == from.as_bytes())?;
    let (before, after) = (&head[..=at], &head[at + 1 + from.len()..]);
    Some([before, to.as_bytes(), after].concat())
}

/// The length of a head that was found complete; one that the parser would end elsewhere is malformed.
fn complete(parsed: httparse::Result<usize>, bytes: &[u8]) -> Result<usize, HeadError> {
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => Ok(length),
        Ok(_) => Err(HeadError::Malformed(httparse::Error::NewLine)),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => Err(HeadError::Version),
        Err(error) => Err(HeadError::Malformed(error)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

/// The fields that concern the connection.
#[derive(Debug, Default)]
struct Fields {
    length: Option<u64>,
    coding: Option<Coding>,
    upgrade: bool,
    expects_continue: bool,
    close: bool,
}

impl Fields {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, HeadError> {
        let mut read = Self::default();
        for field in fields {
            let value = field.value.trim_ascii();
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                if read.length.replace(parse_length(value)?).is_some() {
                    return Err(HeadError::AmbiguousLength);
                }
            } else if is("transfer-encoding") {
                let chunked = value.eq_ignore_ascii_case(b"chunked");
                let coding = if chunked { Coding::Chunked } else { Coding::Other };
                if read.coding.replace(coding).is_some() {
                    return Err(HeadError::UnknownCoding);
                }
            } else if is("upgrade") {
                read.upgrade = true;
            } else if is("expect") {
                read.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            } else if is("connection") {
                read.close |= value
                    .split(|&byte| byte == b',')
                    .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
            }
        }
        Ok(read)
    }
}

/// Digits and nothing else: no sign, no list.
fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or(HeadError::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(head: &str) -> Result<RequestHead, HeadError> {
        let end = HeadEnd::default()
            .find(head.as_bytes())?
            .expect("a complete head");
        RequestHead::parse(&head.as_bytes()[..end])
    }

    fn response(head: &str, method: &str) -> Result<ResponseHead, HeadError> {
        let end = HeadEnd::default()
            .find(head.as_bytes())?
            .expect("a complete head");
        ResponseHead::parse(&head.as_bytes()[..end], method)
    }

    #[test]
    fn a_request_says_how_long_it_is_and_what_it_wants() {
        let head = request("POST /v1.41/exec/1/start?token=secret HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\ncontent-length:  12 \r\nExpect: 100-Continue\r\n\r\nrest").unwrap();
        assert_eq!(head.framing, Framing::Length(12));
        assert!(head.upgrade && head.expects_continue && !head.last);
        assert_eq!(head.path(), "/v1.41/exec/1/start");
    }

    #[test]
    fn a_request_without_a_length_has_no_body() {
        assert_eq!(
            request("GET / HTTP/1.1\r\n\r\n").unwrap().framing,
            Framing::Length(0)
        );
        assert!(request("GET / HTTP/1.0\r\n\r\n").unwrap().last);
        assert!(
            request("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n")
                .unwrap()
                .last
        );
    }

    #[test]
    fn a_request_whose_end_could_be_read_in_two_ways_is_refused() {
        for (fields, error) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                HeadError::AmbiguousLength,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 0",
                HeadError::AmbiguousLength,
            ),
            (
                "Content-Length: 5\r\nContent-Length: 6",
                HeadError::AmbiguousLength,
            ),
            (
                "Content-Length: 5\r\nContent-Length: 5",
                HeadError::AmbiguousLength,
            ),
            ("Content-Length: 5, 5", HeadError::BadLength),
            ("Content-Length: +5", HeadError::BadLength),
            ("Content-Length: -1", HeadError::BadLength),
            ("Content-Length: 0x5", HeadError::BadLength),
            ("Content-Length:", HeadError::BadLength),
            ("Content-Length: 99999999999999999999", HeadError::BadLength),
            ("Transfer-Encoding: gzip, chunked", HeadError::UnknownCoding),
            ("Transfer-Encoding: identity", HeadError::UnknownCoding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                HeadError::UnknownCoding,
            ),
            ("Transfer-Encoding: \"chunked\"", HeadError::UnknownCoding),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(request(&head).unwrap_err(), error, "{fields}");
        }
        for fields in [
            "Content-Length : 5",
            "Content-Length: 5\r\n folded",
            "Content-Length\0: 5",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding: chun\rked",
            "no colon",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(request(&head).unwrap_err().status(), 400, "{fields:?}");
        }
        assert_eq!(
            request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(HeadError::CodingInOldVersion)
        );
        assert_eq!(
            request("POST / HTTP/1.1\nContent-Length: 5\r\n\r\n"),
            Err(HeadError::BareLineFeed)
        );
    }

    #[test]
    fn what_is_not_spoken_here_is_told_apart() {
        assert_eq!(request("PRI * HTTP/2.0\r\n\r\n").unwrap_err().status(), 505);
        assert_eq!(request("GET / HTTP/3.0\r\n\r\n").unwrap_err().status(), 505);
        assert_eq!(request("CONNECT a:1 HTTP/1.1\r\n\r\n").unwrap_err().status(), 405);
        assert_eq!(request("\x16\x03\x01\r\n\r\n").unwrap_err().status(), 400);
    }

    #[test]
    fn a_head_is_rewritten_for_a_body_of_another_length() {
        let head = b"POST /x HTTP/1.1\r\nHost: d\r\ntransfer-Encoding: chunked\r\nA: content-length\r\n\r\n";
        let rewritten = rewrite_length(head, 42);
        assert_eq!(
            rewritten,
            b"POST /x HTTP/1.1\r\nHost: d\r\nA: content-length\r\nContent-Length: 42\r\n\r\n"
        );
        assert_eq!(
            RequestHead::parse(&rewritten).unwrap().framing,
            Framing::Length(42)
        );
    }

    #[test]
    fn heads_are_bounded() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD));
        assert_eq!(request(&long), Err(HeadError::TooLarge));
        assert_eq!(
            HeadEnd::default().find(&vec![b'x'; MAX_HEAD + 1]),
            Err(HeadError::TooLarge)
        );
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(request(&many), Err(HeadError::TooLarge));
    }

    #[test]
    fn an_answer_ends_as_its_request_and_status_say() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(response(chunked, "GET").unwrap().framing, Framing::Chunked);
        assert_eq!(response(chunked, "HEAD").unwrap().framing, Framing::Length(0));
        let hijacked = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
        assert_eq!(response(hijacked, "POST").unwrap().framing, Framing::UntilClose);
        for status in [100, 101, 204, 304] {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 7\r\n\r\n");
            assert_eq!(
                response(&head, "GET").unwrap().framing,
                Framing::Length(0),
                "{status}"
            );
        }
        assert!(
            response(
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "GET"
            )
            .is_err()
        );
        assert!(response("HTTP/1.1 099 X\r\n\r\n", "GET").is_err());
    }

    proptest! {
        #[test]
        fn the_end_of_a_head_does_not_depend_on_how_it_arrives(
            fields in prop::collection::vec("[A-Za-z-]{1,10}: [ -~]{0,30}", 0..6),
            rest in prop::collection::vec(any::<u8>(), 0..50),
            step in 1_usize..100,
        ) {
            let fields: Vec<u8> = fields.iter().flat_map(|field| [field.as_bytes(), b"\r\n"].concat()).collect();
            let mut wire = [b"GET /x HTTP/1.1\r\n", fields.as_slice(), b"\r\n"].concat();
            let end = wire.len();
            wire.extend_from_slice(&rest);
            let mut finder = HeadEnd::default();
            let mut arrived = 0;
            let found = loop {
                arrived = (arrived + step).min(wire.len());
                if let Some(found) = finder.find(&wire[..arrived]).unwrap() {
                    break found;
                }
            };
            prop_assert_eq!(found, end);
        }

        #[test]
        fn arbitrary_heads_are_parsed_or_refused(
            wire in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), b'0'..b'z', any::<u8>()], 0..300),
            prefix in prop::sample::select(vec!["", "GET / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n"]),
        ) {
            let wire = [prefix.as_bytes(), &wire, b"\r\n\r\n"].concat();
            if let Ok(Some(end)) = HeadEnd::default().find(&wire) {
                if let Ok(head) = RequestHead::parse(&wire[..end]) {
                    prop_assert_eq!(head.length, end);
                }
                if let Ok(head) = ResponseHead::parse(&wire[..end], "GET") {
                    prop_assert_eq!(head.length, end);
                    prop_assert!((100..=999).contains(&head.status));
                }
            }
        }
    }
}
