//! Bodies of requests and answers.

use bytes::Bytes;
use cove_api::{ApiError, ErrorCode};
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};
use std::io;

/// Largest body of a request, in bytes.
const MAX_REQUEST: usize = 2 << 20;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Answer = Response<Body>;

/// A whole body.
pub(super) fn whole(content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let body = Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    with_type(content_type, body)
}

/// A value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => whole("application/json", bytes),
        Err(error) => self::error(&ApiError::new(
            ErrorCode::Internal,
            format!("the answer cannot be written as JSON: {error}"),
            "",
        )),
    }
}

/// `{}`.
pub(super) fn nothing() -> Answer {
    whole("application/json", "{}")
}

/// An error with its status.
pub(super) fn error(error: &ApiError) -> Answer {
    // An error's own JSON consists of three strings and cannot fail.
    let bytes = serde_json::to_vec(error).unwrap_or_default();
    let mut answer = whole("application/json", bytes);
    *answer.status_mut() =
        StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

/// Values as they come, one to a line.
pub(super) fn lines<T: Serialize>(values: impl Stream<Item = T> + Send + 'static) -> Answer {
    let lines = values.map(|value| {
        let mut line = serde_json::to_vec(&value).map_err(io::Error::from)?;
        line.push(b'\n');
        Ok(Bytes::from(line))
    });
    stream("application/x-ndjson", lines)
}

/// Bytes as they come.
pub(super) fn stream(
    content_type: &'static str,
    bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Answer {
    let body = StreamBody::new(bytes.map(|chunk| chunk.map(Frame::data)));
    with_type(content_type, BodyExt::boxed_unsync(body))
}

fn with_type(content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A request's whole body.
pub(super) async fn read(request: &mut Request<Incoming>) -> Result<Bytes, ApiError> {
    match Limited::new(request.body_mut(), MAX_REQUEST).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(invalid(format!("the request's body cannot be read: {error}"))),
    }
}

/// A request's body as a value.
pub(super) async fn read_json<T: DeserializeOwned>(request: &mut Request<Incoming>) -> Result<T, ApiError> {
    let bytes = read(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        invalid(format!(
            "the request's body is not what is expected here: {error}"
        ))
    })
}

/// A request that is wrong in itself.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message, "")
}
