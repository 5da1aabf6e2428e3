//! `BuildKit`'s connections: gRPC over HTTP/2, on what was an upgraded request (`POST /grpc`).
//!
//! ```text
//!  client ══ HTTP/2 ══▶ here ══ HTTP/2 ══▶ engine
//!                        └── Solve: build arguments for proxies, in front of the client's own
//! ```
//!
//! Clients such as buildx ask for a build in here, so that this is the one place in which a build can be told of
//! proxies without its client's doing. It is gone through only where there are some to tell of; otherwise the
//! connection is carried as it is. Streams, their messages and trailers pass unread but for the one message that asks
//! for a build, and of that only the entries' names are looked for: those of a map that the client does not have are
//! put before it (protocol buffers' encoding, "maps").

use super::proxies::{Variables, has_its_way};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::{Request, Response, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Largest message that asks for a build, in bytes: as much as the engine takes.
const MAX_SOLVE: usize = 16 << 20;
/// Most bytes of headers or trailers: a build that fails has the Dockerfile in its trailers.
const MAX_HEADERS: u32 = 1 << 20;
/// A gRPC message follows a byte that says whether it is compressed, and its length as four bytes.
const PREFIX: usize = 5;

/// The calls that ask for a build, and the number of the field that holds a frontend's options: `FrontendAttrs` of
/// `moby.buildkit.v1.SolveRequest`, `FrontendOpt` of `moby.buildkit.v1.frontend.SolveRequest`.
const SOLVES: [(&str, u8); 2] = [
    ("/moby.buildkit.v1.Control/Solve", 7),
    ("/moby.buildkit.v1.frontend.LLBBridge/Solve", 3),
];

/// Why a call was not passed on. Its stream is reset, which the client sees as a failed call.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the call broke off")]
    Broken(#[from] hyper::Error),
    #[error("reading the message that asks for a build failed: {0}")]
    Message(String),
}

/// Whether the upgraded request leads here.
pub(super) fn is_meant(path: &str) -> bool {
    path.trim_end_matches('/').ends_with("/grpc")
}

/// Carries a connection until either end ends it.
pub(super) async fn carry<C, E>(client: C, engine: E, variables: Variables) -> Result<(), hyper::Error>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MAX_HEADERS)
        .handshake(TokioIo::new(engine))
        .await?;
    let variables = Arc::new(variables);
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut sender, variables) = (sender.clone(), Arc::clone(&variables));
        async move {
            let request = prepare(request, &variables).await?;
            let response: Response<Incoming> = sender.send_request(request).await?;
            Ok::<_, Failure>(response)
        }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(client), service);
    tokio::select! {
        served = served => served,
        ended = connection => ended,
    }
}

/// The request as the engine gets it.
async fn prepare(
    request: Request<Incoming>,
    variables: &Variables,
) -> Result<Request<Either<Incoming, Full<Bytes>>>, Failure> {
    let path = request.uri().path();
    let Some((_, field)) = SOLVES.into_iter().find(|(solve, _)| *solve == path) else {
        return Ok(request.map(Either::Left));
    };
    let (mut parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_SOLVE).collect().await;
    let body = body
        .map_err(|error| Failure::Message(error.to_string()))?
        .to_bytes();
    let body = amend(field, &body, variables).unwrap_or(body);
    // gRPC does without; where somebody says it, it has to be true.
    if parts.headers.remove(header::CONTENT_LENGTH).is_some() {
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    Ok(Request::from_parts(parts, Either::Right(Full::new(body))))
}

/// The one message of a request with the variables as build arguments before it; nothing if it is compressed or of
/// another form.
fn amend(field: u8, body: &Bytes, variables: &Variables) -> Option<Bytes> {
    let prefix: [u8; PREFIX] = body.get(..PREFIX)?.try_into().ok()?;
    let message = &body[PREFIX..];
    let announced = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(announced).ok()? != message.len() {
        return None;
    }
    // An argument in another spelling is another entry, and would not take the place of this one. With its tag and
    // length the name is a whole one, and not the beginning of a longer one; lengths below `A` have no case.
    let lower = message.to_ascii_lowercase();
    let has = |name: &str| {
        let mut wanted = BytesMut::new();
        put_text(&mut wanted, 1, &argument(name).to_ascii_lowercase());
        lower.windows(wanted.len()).any(|window| *window == *wanted)
    };
    let mut entries = BytesMut::new();
    for (name, value) in variables.iter().filter(|(name, _)| !has_its_way(name, has)) {
        let mut entry = BytesMut::new();
        put_text(&mut entry, 1, &argument(name));
        put_text(&mut entry, 2, value);
        entries.put_u8(field << 3 | 2);
        put_length(&mut entries, entry.len());
        entries.extend_from_slice(&entry);
    }
    let mut amended = BytesMut::with_capacity(PREFIX + entries.len() + message.len());
    amended.put_u8(0);
    amended.put_u32(u32::try_from(entries.len() + message.len()).ok()?);
    amended.extend_from_slice(&entries);
    amended.extend_from_slice(message);
    Some(amended.freeze())
}

/// The name of a build argument among a frontend's options.
fn argument(name: &str) -> String {
    format!("build-arg:{name}")
}

/// A field of text (wire type 2).
fn put_text(out: &mut BytesMut, field: u8, text: &str) {
    out.put_u8(field << 3 | 2);
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// A number in base 128, the least first.
fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.put_u8(length.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(message: &[u8]) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.extend_from_slice(message);
        body.freeze()
    }

    fn variables(value: &str) -> Variables {
        [("HTTP_PROXY".to_owned(), value.to_owned())].into()
    }

    #[test]
    fn build_arguments_are_put_before_the_clients_message_and_its_own_count() {
        let amended = amend(7, &framed(b"rest"), &variables("http://p")).unwrap();
        let entry = b"\x0a\x14build-arg:HTTP_PROXY\x12\x08http://p";
        let mut expected = vec![7 << 3 | 2, u8::try_from(entry.len()).unwrap()];
        expected.extend_from_slice(entry);
        expected.extend_from_slice(b"rest");
        assert_eq!(amended, framed(&expected));
        let own = framed(b"...\x0a\x14build-arg:http_proxy...");
        assert_eq!(amend(7, &own, &variables("http://p")).unwrap(), own);
        let all: Variables = [("all_proxy".to_owned(), "socks5h://p".to_owned())].into();
        assert_eq!(amend(7, &own, &all).unwrap(), own);
        assert_ne!(amend(7, &framed(b"rest"), &all).unwrap(), framed(b"rest"));
        let longer = framed(b"...\x0a\x19build-arg:HTTP_PROXY_HOST...");
        assert_ne!(amend(7, &longer, &variables("http://p")).unwrap(), longer);
        let long = amend(3, &framed(b""), &variables(&"x".repeat(200))).unwrap();
        assert_eq!(&long[PREFIX..PREFIX + 3], [3 << 3 | 2, 0xe1, 0x01]);
    }

    #[test]
    fn what_is_compressed_or_odd_is_left_alone() {
        let mut compressed = framed(b"x").to_vec();
        compressed[0] = 1;
        for body in [&compressed[..], b"", b"\0\0\0\0\x09x"] {
            assert_eq!(amend(7, &Bytes::copy_from_slice(body), &variables("p")), None);
        }
        assert!(is_meant("/grpc") && is_meant("/v1.45/grpc") && !is_meant("/session"));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = amend(7, &Bytes::from(body), &variables("p"));
        }
    }
}
