//! Frames: a 32-bit big-endian length, then that many bytes of JSON.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use tokio_util::codec::{Decoder, Encoder};

/// Bytes of a frame's length prefix.
pub const HEADER_LEN: usize = 4;

/// Largest body of a frame, in bytes. A container's configuration or a page of log lines fits many times over.
pub const MAX_FRAME: usize = 1 << 20;

/// Why a frame was refused.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The length prefix exceeds [`MAX_FRAME`].
    #[error("frame of {len} bytes exceeds the limit of {MAX_FRAME}")]
    Oversized {
        /// The length that was announced or reached.
        len: usize,
    },
    /// The body is not the JSON of the expected message.
    #[error("malformed {expected} frame")]
    Malformed {
        /// Name of the Rust type that was expected.
        expected: &'static str,
        /// What the JSON parser said.
        source: serde_json::Error,
    },
    /// The stream ended within a frame.
    #[error("stream ended within a frame")]
    Truncated,
    /// An exec packet's kind or body is unknown.
    #[error("malformed exec packet of kind {kind}")]
    BadPacket {
        /// The kind byte that was received.
        kind: u8,
    },
    /// Something follows the end of a [`Chunks`](crate::Chunks) direction.
    #[error("bytes after the end of a stream")]
    AfterEnd,
    /// The transport failed.
    #[error("connection failed")]
    Io(#[from] std::io::Error),
}

/// The body length that a frame's header announces, or an error when it is over the limit.
pub fn body_len(header: [u8; HEADER_LEN]) -> Result<usize, WireError> {
    let len = u32::from_be_bytes(header) as usize;
    if len > MAX_FRAME {
        Err(WireError::Oversized { len })
    } else {
        Ok(len)
    }
}

/// One whole frame, header included.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, WireError> {
    let mut out = BytesMut::new();
    encode_into(message, &mut out)?;
    Ok(out.freeze())
}

/// The message in a frame's body, without its header.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(body).map_err(|source| WireError::Malformed {
        expected: std::any::type_name::<T>(),
        source,
    })
}

fn encode_into<T: Serialize>(message: &T, out: &mut BytesMut) -> Result<(), WireError> {
    let body = serde_json::to_vec(message).map_err(|source| WireError::Malformed {
        expected: std::any::type_name::<T>(),
        source,
    })?;
    let len = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_FRAME)
        .ok_or(WireError::Oversized { len: body.len() })?;
    out.reserve(HEADER_LEN + body.len());
    out.put_u32(len);
    out.put_slice(&body);
    Ok(())
}

/// Frames for `tokio_util::codec::Framed`: decodes `In`, encodes `Out`.
pub struct Codec<In, Out>(PhantomData<fn(Out) -> In>);

impl<In, Out> Default for Codec<In, Out> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<In: DeserializeOwned, Out> Decoder for Codec<In, Out> {
    type Item = In;
    type Error = WireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<In>, WireError> {
        let Some(header) = src.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let len = body_len(*header)?;
        if src.len() < HEADER_LEN + len {
            src.reserve(HEADER_LEN + len - src.len());
            return Ok(None);
        }
        src.advance(HEADER_LEN);
        decode(&src.split_to(len)).map(Some)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<In>, WireError> {
        match self.decode(src)? {
            Some(message) => Ok(Some(message)),
            None if src.is_empty() => Ok(None),
            None => Err(WireError::Truncated),
        }
    }
}

impl<In, Out: Serialize> Encoder<Out> for Codec<In, Out> {
    type Error = WireError;

    fn encode(&mut self, message: Out, dst: &mut BytesMut) -> Result<(), WireError> {
        encode_into(&message, dst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, FromGuest, FromHost, Hello};
    use proptest::prelude::*;

    type HostCodec = Codec<FromHost, FromGuest>;

    #[test]
    fn a_message_survives_being_cut_at_every_byte() {
        let message = FromHost::Request {
            id: 7,
            call: Call::Status,
        };
        let whole = encode(&message).unwrap();
        for cut in 0..whole.len() {
            let mut codec = HostCodec::default();
            let mut buffer = BytesMut::from(&whole[..cut]);
            assert!(
                codec.decode(&mut buffer).unwrap().is_none(),
                "complete after {cut} bytes"
            );
            buffer.extend_from_slice(&whole[cut..]);
            assert_eq!(codec.decode(&mut buffer).unwrap(), Some(message.clone()));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn an_oversized_length_is_refused_before_its_body_arrives() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(
            HostCodec::default().decode(&mut buffer),
            Err(WireError::Oversized { .. })
        ));
    }

    #[test]
    fn an_oversized_message_is_not_sent() {
        let hello = FromHost::Hello(Hello {
            version: 1,
            build: "x".repeat(MAX_FRAME),
        });
        assert!(matches!(encode(&hello), Err(WireError::Oversized { .. })));
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_truncated() {
        let whole = encode(&FromHost::Request {
            id: 1,
            call: Call::Status,
        })
        .unwrap();
        let mut buffer = BytesMut::from(&whole[..whole.len() - 1]);
        assert!(matches!(
            HostCodec::default().decode_eof(&mut buffer),
            Err(WireError::Truncated)
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut codec = HostCodec::default();
            let mut buffer = BytesMut::from(&bytes[..]);
            for _ in 0..64 {
                match codec.decode(&mut buffer) {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }
}
