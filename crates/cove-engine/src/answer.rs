//! Answers that come bit by bit.

use crate::EngineError;
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest line of JSON, in bytes.
const LONGEST: usize = 4 << 20;

/// Bytes as they come.
#[derive(Debug)]
pub struct Bytes {
    label: String,
    body: Incoming,
}

impl Bytes {
    pub(crate) fn new(label: String, body: Incoming) -> Self {
        Self { label, body }
    }

    /// The next bytes, or nothing at the end. May be dropped and asked again.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, EngineError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(source)) => {
                    return Err(EngineError::Http {
                        request: self.label.clone(),
                        source,
                    });
                }
            }
        }
    }
}

/// JSON values as they come. The engine ends each with a line's end, though not every one of its releases does.
#[derive(Debug)]
pub struct Lines {
    bytes: Bytes,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    seen: usize,
}

impl Lines {
    pub(crate) fn new(label: String, body: Incoming) -> Self {
        Self {
            bytes: Bytes::new(label, body),
            buffer: BytesMut::new(),
            seen: 0,
        }
    }

    /// The next value, or nothing at the end. May be dropped and asked again.
    pub async fn next(&mut self) -> Result<Option<Value>, EngineError> {
        loop {
            if let Some(end) = self.buffer[self.seen..].iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(self.seen + end);
                self.buffer.advance(1);
                self.seen = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return self.read(&line).map(Some);
            }
            self.seen = self.buffer.len();
            if self.seen > LONGEST {
                return Err(self.unexpected(format!("a line of more than {LONGEST} bytes")));
            }
            match self.bytes.next().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => {
                    let line = self.buffer.split();
                    self.seen = 0;
                    return self.read(&line).map(Some);
                }
            }
        }
    }

    fn read(&self, line: &[u8]) -> Result<Value, EngineError> {
        serde_json::from_slice(line).map_err(|error| self.unexpected(error.to_string()))
    }

    fn unexpected(&self, what: String) -> EngineError {
        EngineError::Unexpected {
            request: self.bytes.label.clone(),
            what,
        }
    }
}

/// A connection that stopped being HTTP: a terminal's bytes both ways.
#[derive(Debug)]
pub struct Terminal(TokioIo<Upgraded>);

impl Terminal {
    pub(crate) fn new(upgraded: Upgraded) -> Self {
        Self(TokioIo::new(upgraded))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
