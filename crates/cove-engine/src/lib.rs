//! A small client of the Docker Engine API, through the gateway's socket.
//!
//! It knows HTTP and no more of the engine than its paths: answers are JSON values, which `cove-view` reads with
//! patience for engines of other versions. What the guest answers is bounded before it is kept, since the guest is not
//! trusted; that and plain bytes for logs and terminals are why it is not one of the ready-made clients.
//!
//! Each request makes a connection of its own, so that a stream never holds up another request.

mod answer;
pub mod archive;
mod body;

pub use answer::{Bytes, Lines, Terminal};

use body::Body;
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderName},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::io::AsyncRead;

/// Largest answer that is not a stream, in bytes. A thousand inspected containers are a tenth of it.
const LARGEST: usize = 64 << 20;

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing listens at the socket.
    #[error("cannot reach the engine at {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or HTTP went wrong.
    #[error("the connection to the engine broke during {request}")]
    Http {
        /// Method and path of the request.
        request: String,
        /// What HTTP said.
        source: hyper::Error,
    },
    /// The engine said no.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// The answer makes no sense, or is larger than it may be.
    #[error("the engine gave an unexpected answer to {request}: {what}")]
    Unexpected {
        /// Method and path of the request.
        request: String,
        /// What is unexpected.
        what: String,
    },
}

impl EngineError {
    /// Whether no engine answers. The gateway says so of one that it cannot reach (503), or that broke off (502).
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Http { .. }
                | Self::Refused {
                    status: 502 | 503,
                    ..
                }
        )
    }

    /// Whether the engine said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the engine said that something else is in the way, such as a container that uses it.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }
}

/// A path of the API, of segments that are encoded one by one, so that no name can reach another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// The path of these segments: `/containers/web/json`.
    pub fn of(segments: &[&str]) -> Self {
        let encoded = segments.iter().map(|segment| match *segment {
            // Encoded dots still mean what they mean to some who read paths.
            "." | ".." => "%20".to_owned(),
            segment => cove_api::query::encode(segment),
        });
        Self(encoded.fold(String::new(), |path, segment| path + "/" + &segment))
    }

    /// The same with one more pair in its query.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&cove_api::query::encode(value));
        self
    }
}

/// A client of the engine at one socket. Connects only when asked something.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The engine behind `socket`.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET`; the answer as JSON.
    pub async fn get(&self, place: &Place) -> Result<Value, EngineError> {
        self.ask(Method::GET, place, None).await
    }

    /// `HEAD`: whether there is such a thing. What is no answer to that is an error.
    pub async fn has(&self, place: &Place) -> Result<bool, EngineError> {
        match self.send(Method::HEAD, place, None, &[]).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `POST`, with a body where there is one; the answer as JSON, null where it is empty.
    pub async fn post(&self, place: &Place, body: Option<&Value>) -> Result<Value, EngineError> {
        self.ask(Method::POST, place, body).await
    }

    /// `DELETE`; the answer as JSON, null where it is empty.
    pub async fn delete(&self, place: &Place) -> Result<Value, EngineError> {
        self.ask(Method::DELETE, place, None).await
    }

    /// An answer that comes a JSON value a line.
    pub async fn lines(&self, method: Method, place: &Place) -> Result<Lines, EngineError> {
        let (label, response) = self.send(method, place, None, &[]).await?;
        Ok(Lines::new(label, response.into_body()))
    }

    /// The same for what concerns a registry, which may want to know who asks: `credentials` is the value of the
    /// engine's header for that, JSON in base64.
    pub async fn lines_as(
        &self,
        method: Method,
        place: &Place,
        credentials: &str,
    ) -> Result<Lines, EngineError> {
        let headers = [(HeaderName::from_static("x-registry-auth"), credentials)];
        let (label, response) = self.send(method, place, None, &headers).await?;
        Ok(Lines::new(label, response.into_body()))
    }

    /// An answer that comes as plain bytes.
    pub async fn bytes(&self, place: &Place) -> Result<Bytes, EngineError> {
        let (label, response) = self.send(Method::GET, place, None, &[]).await?;
        Ok(Bytes::new(label, response.into_body()))
    }

    /// `PUT` of an archive that is made while it is sent. What the engine did not want is not read to its end.
    pub async fn put_archive<R>(&self, place: &Place, archive: R) -> Result<(), EngineError>
    where
        R: AsyncRead + Send + 'static,
    {
        let (label, response) = self
            .send_body(Method::PUT, place, Some(Body::archive(archive)), &[])
            .await?;
        collect(&label, response).await?;
        Ok(())
    }

    /// `POST` of an archive that is made while it is sent; the answer comes a JSON value a line.
    pub async fn post_archive<R>(&self, place: &Place, archive: R) -> Result<Lines, EngineError>
    where
        R: AsyncRead + Send + 'static,
    {
        let (label, response) = self
            .send_body(Method::POST, place, Some(Body::archive(archive)), &[])
            .await?;
        Ok(Lines::new(label, response.into_body()))
    }

    /// A connection that stops being HTTP: the terminal of an `exec`, or without a body of an `attach`.
    pub async fn terminal(&self, place: &Place, body: Option<&Value>) -> Result<Terminal, EngineError> {
        let upgrade = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp")];
        let (label, response) = self.send(Method::POST, place, body, &upgrade).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(EngineError::Unexpected {
                request: label,
                what: format!("status {} instead of a terminal", response.status()),
            });
        }
        match hyper::upgrade::on(response).await {
            Ok(upgraded) => Ok(Terminal::new(upgraded)),
            Err(source) => Err(EngineError::Http {
                request: label,
                source,
            }),
        }
    }

    async fn ask(&self, method: Method, place: &Place, body: Option<&Value>) -> Result<Value, EngineError> {
        let (label, response) = self.send(method, place, body, &[]).await?;
        let body = collect(&label, response).await?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|error| EngineError::Unexpected {
            request: label,
            what: error.to_string(),
        })
    }

    async fn send(
        &self,
        method: Method,
        place: &Place,
        body: Option<&Value>,
        headers: &[(HeaderName, &str)],
    ) -> Result<(String, Response<Incoming>), EngineError> {
        self.send_body(method, place, body.map(Body::json), headers).await
    }

    async fn send_body(
        &self,
        method: Method,
        place: &Place,
        body: Option<Body>,
        headers: &[(HeaderName, &str)],
    ) -> Result<(String, Response<Incoming>), EngineError> {
        let label = format!("{method} {}", place.0);
        let mut builder = Request::builder()
            .method(method)
            .uri(&place.0)
            .header(header::HOST, "docker");
        if let Some(body) = &body {
            builder = builder.header(header::CONTENT_TYPE, body.kind);
        }
        for (name, value) in headers {
            builder = builder.header(name, *value);
        }
        let request = builder
            .body(body.map_or_else(Body::nothing, |body| body.content))
            .map_err(|error| EngineError::Unexpected {
                request: label.clone(),
                what: format!("a request that is no HTTP ({error})"),
            })?;
        let stream = cove_api::transport::connect(&self.socket)
            .await
            .map_err(|source| EngineError::Unreachable {
                socket: self.socket.clone(),
                source,
            })?;
        let http = |source| EngineError::Http {
            request: label.clone(),
            source,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // Ends by itself when the answer has been read or dropped; its error reaches the reader as well.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let body = collect(&label, response).await?;
            return Err(EngineError::Refused {
                status: status.as_u16(),
                message: refusal(&body)
                    .unwrap_or_else(|| format!("the engine answered {label} with {status}")),
            });
        }
        Ok((label, response))
    }
}

async fn collect(label: &str, response: Response<Incoming>) -> Result<bytes::Bytes, EngineError> {
    match Limited::new(response.into_body(), LARGEST).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(EngineError::Unexpected {
            request: label.to_owned(),
            what: error.to_string(),
        }),
    }
}

/// The engine's own words, without the prefix that every one of them has.
fn refusal(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let message = answer["message"].as_str()?.trim();
    let message = message
        .strip_prefix("Error response from daemon: ")
        .unwrap_or(message);
    (!message.is_empty()).then(|| message.to_owned())
}

#[cfg(test)]
mod tests;
