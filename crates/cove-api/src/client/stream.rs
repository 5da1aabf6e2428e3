//! Answers that come bit by bit: lines of JSON, text, and upgraded connections.

use super::ClientError;
use crate::{MachineStatus, Progress};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{
    io::{self, IoSlice},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest line of JSON, in bytes.
const MAX_LINE: usize = 4 << 20;

/// Bytes of an answer as they come.
#[derive(Debug)]
pub struct ByteStream {
    label: String,
    body: Incoming,
}

impl ByteStream {
    pub(super) fn new(label: String, body: Incoming) -> Self {
        Self { label, body }
    }

    /// The next bytes, or nothing at the end. May be dropped and asked again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(source)) => {
                    return Err(ClientError::Http {
                        request: self.label.clone(),
                        source,
                    });
                }
            }
        }
    }
}

/// Values of an answer as they come, one to a line.
#[derive(Debug)]
pub struct JsonLines<T> {
    bytes: ByteStream,
    buffer: BytesMut,
    value: PhantomData<fn() -> T>,
}

impl<T> JsonLines<T> {
    pub(super) fn new(label: String, body: Incoming) -> Self {
        Self {
            bytes: ByteStream::new(label, body),
            buffer: BytesMut::new(),
            value: PhantomData,
        }
    }

    fn unexpected(&self, what: String) -> ClientError {
        ClientError::Unexpected {
            request: self.bytes.label.clone(),
            what,
        }
    }
}

impl<T: DeserializeOwned> JsonLines<T> {
    /// The next value, or nothing at the end. May be dropped and asked again.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if line.is_empty() {
                    continue;
                }
                return match serde_json::from_slice(&line) {
                    Ok(value) => Ok(Some(value)),
                    Err(error) => Err(self.unexpected(error.to_string())),
                };
            }
            if self.buffer.len() > MAX_LINE {
                return Err(self.unexpected(format!("a line of more than {MAX_LINE} bytes")));
            }
            match self.bytes.next().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.unexpected("an end within a line".into())),
            }
        }
    }
}

impl JsonLines<Progress> {
    /// Reads to the end, shows each step to `each`, and returns how it came out.
    pub async fn finish(mut self, mut each: impl FnMut(&Progress)) -> Result<MachineStatus, ClientError> {
        while let Some(progress) = self.next().await? {
            each(&progress);
            match progress {
                Progress::Done { status } => return Ok(*status),
                Progress::Failed { error } => return Err(error.into()),
                Progress::Stage { .. } | Progress::Notice { .. } => {}
            }
        }
        Err(self.unexpected("an end without an outcome".into()))
    }
}

/// A connection that stopped being HTTP. `shutdown` half-closes it.
#[derive(Debug)]
pub struct Upgraded(TokioIo<hyper::upgrade::Upgraded>);

impl Upgraded {
    pub(super) fn new(inner: hyper::upgrade::Upgraded) -> Self {
        Self(TokioIo::new(inner))
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
