//! What a request carries.

use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::Value;
use std::io;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

/// Bytes of a stream that are sent together.
const CHUNK: usize = 64 << 10;

/// The content of a request.
pub(crate) type Content = UnsyncBoxBody<bytes::Bytes, io::Error>;

/// A request's content and its kind.
pub(crate) struct Body {
    pub(crate) kind: &'static str,
    pub(crate) content: Content,
}

impl Body {
    /// What requests without a body carry.
    pub(crate) fn nothing() -> Content {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    }

    pub(crate) fn json(value: &Value) -> Self {
        let text = Full::from(value.to_string());
        Self {
            kind: "application/json",
            content: text.map_err(|never| match never {}).boxed_unsync(),
        }
    }

    pub(crate) fn archive<R: AsyncRead + Send + 'static>(archive: R) -> Self {
        let frames = ReaderStream::with_capacity(archive, CHUNK).map_ok(Frame::data);
        Self {
            kind: "application/x-tar",
            content: BodyExt::boxed_unsync(StreamBody::new(frames)),
        }
    }
}
