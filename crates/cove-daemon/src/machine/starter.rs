//! Loads the image's starter image into a new engine, so that the first `docker run alpine` needs no registry.
//!
//! It is done once in a data disk's life, before the machine is said to run: a person who removes the image later
//! does not get it back, and one who has pulled a newer one keeps that.

use super::agent::{OpenError, open_stream};
use bytes::Bytes;
use cove_machine::{Connection, Machine};
use cove_wire::Open;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Empty, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, StatusCode, body::Frame, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{io, path::Path};
use tokio_util::io::ReaderStream;

/// The name that the starter image has.
const NAME: &str = "alpine:latest";

/// Largest answer of the engine that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Why the starter image was not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum StarterError {
    #[error("cannot reach the engine: {0}")]
    Open(#[from] OpenError),
    #[error("the conversation with the engine broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("cannot read {path}: {source}")]
    File { path: String, source: io::Error },
    #[error("the engine said {status}: {message}")]
    Refused { status: StatusCode, message: String },
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Loads the archive unless the engine has an image of that name.
pub(super) async fn load(machine: &dyn Machine, archive: &Path) -> Result<(), StarterError> {
    let connection = open_stream(machine, &Open::Engine).await?;
    load_over(connection, archive).await
}

async fn load_over(connection: Connection, archive: &Path) -> Result<(), StarterError> {
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(connection)).await?;
    let connection = tokio::spawn(connection);
    let outcome = async {
        let nothing = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let path = format!("/images/{NAME}/json");
        let present = exchange(&mut sender, request(Method::GET, &path, nothing, 0)).await;
        match present {
            Ok(()) => return Ok(()),
            Err(StarterError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
        let unreadable = |source| StarterError::File {
            path: archive.display().to_string(),
            source,
        };
        let file = tokio::fs::File::open(archive).await.map_err(unreadable)?;
        let length = file.metadata().await.map_err(unreadable)?.len();
        let body = StreamBody::new(ReaderStream::with_capacity(file, 256 << 10).map_ok(Frame::data));
        let body = BodyExt::boxed_unsync(body);
        exchange(
            &mut sender,
            request(Method::POST, "/images/load?quiet=1", body, length),
        )
        .await
    }
    .await;
    connection.abort();
    outcome
}

fn request(method: Method, path: &str, body: Body, length: u64) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(header::HOST, header::HeaderValue::from_static("docker"));
    if length > 0 {
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/x-tar"),
        );
    }
    request
}

/// One request, and whether the engine did it. An image is loaded when the answer has come to its end, and a
/// failure may stand in that answer under a status of 200.
async fn exchange(sender: &mut http1::SendRequest<Body>, request: Request<Body>) -> Result<(), StarterError> {
    sender.ready().await?;
    let response: Response<_> = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let refused = |message: String| StarterError::Refused {
        status,
        message: super::words::clean(&message),
    };
    let body = body.map_err(|error| refused(error.to_string()))?.to_bytes();
    let said = |key: &str| {
        body.split(|&byte| byte == b'\n').find_map(|line| {
            let value: serde_json::Value = serde_json::from_slice(line).ok()?;
            value.get(key)?.as_str().map(str::to_owned)
        })
    };
    if !status.is_success() {
        return Err(refused(said("message").unwrap_or_default()));
    }
    match said("error") {
        Some(error) => Err(refused(error)),
        None => Ok(()),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    /// An engine that answers each request in turn as it is told, and the bytes that it was sent.
    async fn engine(mut stream: UnixStream, answers: &[&str]) -> String {
        let mut seen = Vec::new();
        let mut answered = 0;
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return String::from_utf8_lossy(&seen).into_owned(),
                Ok(length) => seen.extend_from_slice(&buffer[..length]),
            }
            let text = String::from_utf8_lossy(&seen);
            // The archive in these tests ends with this word.
            let requests = text.matches("GET ").count() + text.matches("ARCHIVE-END").count();
            while answered < requests.min(answers.len()) {
                stream.write_all(answers[answered].as_bytes()).await.unwrap();
                answered += 1;
            }
        }
    }

    fn answer(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    async fn load_with(answers: &[&str]) -> (Result<(), StarterError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("starter.tar");
        std::fs::write(&archive, "ARCHIVE-END").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::join!(load_over(ours.into(), &archive), engine(theirs, answers))
    }

    #[tokio::test]
    async fn an_image_that_is_there_is_not_loaded_again() {
        let (outcome, seen) = load_with(&[&answer("200 OK", "{}")]).await;
        outcome.unwrap();
        assert!(!seen.contains("POST"), "{seen}");
    }

    #[tokio::test]
    async fn a_missing_image_is_loaded_from_the_archive() {
        let absent = answer("404 Not Found", r#"{"message":"No such image"}"#);
        let (outcome, seen) = load_with(&[&absent, &answer("200 OK", "{\"stream\":\"Loaded\"}\n")]).await;
        outcome.unwrap();
        assert!(seen.contains("POST /images/load?quiet=1"), "{seen}");
        assert!(seen.to_lowercase().contains("content-length: 11"), "{seen}");
    }

    #[tokio::test]
    async fn a_failure_within_an_answer_of_200_is_a_failure() {
        let absent = answer("404 Not Found", "{}");
        let (outcome, _) = load_with(&[&absent, &answer("200 OK", "{\"error\":\"no space\"}\n")]).await;
        assert!(outcome.unwrap_err().to_string().contains("no space"));
    }
}
