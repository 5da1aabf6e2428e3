//! Where a message's body ends: a counter that reads along with the bytes and keeps none of them.
//!
//! Stricter than many servers on purpose. A chunk size is hexadecimal digits and nothing else, lines end in CR LF and
//! nothing else, so that no server behind the gateway can see another boundary than the gateway does.

/// Longest chunk-size line, extensions included.
const MAX_CHUNK_LINE: u16 = 4096;

/// Most bytes of trailer fields.
const MAX_TRAILERS: u32 = 64 * 1024;

/// How the length of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There are so many bytes, perhaps none.
    Length(u64),
    /// Each chunk says its own length (RFC 9112, section 7.1).
    Chunked,
    /// The end of the connection is the end of the body. Answers only.
    UntilClose,
}

/// A body does not follow its framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    #[error("a chunk's size is not a hexadecimal number of at most 16 digits")]
    ChunkSize,
    #[error("a chunk's size line is longer than {MAX_CHUNK_LINE} bytes")]
    ChunkLineTooLong,
    #[error("a chunk's line or data does not end in CR LF")]
    LineEnd,
    #[error("the trailer is longer than {MAX_TRAILERS} bytes")]
    TrailerTooLong,
}

/// Some bytes at the front of the input that belong to the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many.
    pub(super) length: usize,
    /// Whether they are content; framing otherwise.
    pub(super) content: bool,
}

/// How far a body has been read.
#[derive(Debug)]
pub(super) struct Body {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes of a body of known length are left.
    Sized(u64),
    /// Ends with the connection.
    Unbounded,
    // The parts of a chunked body, in their order.
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
        length: u16,
    },
    SizeLf {
        value: u64,
    },
    /// So many bytes of the chunk are left.
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    TrailerStart {
        seen: u32,
    },
    Trailer {
        seen: u32,
    },
    TrailerLf {
        seen: u32,
    },
    LastLf,
    /// Whatever follows belongs to something else.
    Complete,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Complete,
            Framing::Length(length) => State::Sized(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::Unbounded,
        };
        Self { state }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Reads over as much of `input` as belongs to the body and says how much that is. Everything, unless the body
    /// ends within it.
    pub(super) fn skim(&mut self, input: &[u8]) -> Result<usize, FramingError> {
        let mut total = 0;
        while let Some(piece) = self.next(&input[total..])? {
            total += piece.length;
        }
        Ok(total)
    }

    /// Reads over the next piece at the front of `input`; nothing when the body is complete or there is no input.
    pub(super) fn next(&mut self, input: &[u8]) -> Result<Option<Piece>, FramingError> {
        let Some(&byte) = input.first() else {
            return Ok(None);
        };
        let piece = match self.state {
            State::Complete => return Ok(None),
            State::Unbounded => content(input.len()),
            State::Sized(left) => {
                let (length, left) = clamp(input.len(), left);
                self.state = if left == 0 {
                    State::Complete
                } else {
                    State::Sized(left)
                };
                content(length)
            }
            State::Chunk(left) => {
                let (length, left) = clamp(input.len(), left);
                self.state = if left == 0 {
                    State::ChunkCr
                } else {
                    State::Chunk(left)
                };
                content(length)
            }
            framing => {
                self.state = framing.after(byte)?;
                Piece {
                    length: 1,
                    content: false,
                }
            }
        };
        Ok(Some(piece))
    }
}

impl State {
    /// The state after one byte of framing.
    fn after(self, byte: u8) -> Result<Self, FramingError> {
        Ok(match (self, byte) {
            (Self::Extension { .. } | Self::TrailerStart { .. } | Self::Trailer { .. }, b'\n') => {
                return Err(FramingError::LineEnd);
            }
            (Self::Size { value, digits }, b'\r') if digits > 0 => Self::SizeLf { value },
            (Self::Size { value, digits }, b';') if digits > 0 => Self::Extension { value, length: 0 },
            (Self::Size { value, digits }, _) => {
                let digit = char::from(byte).to_digit(16).filter(|_| digits < 16);
                let digit = digit.ok_or(FramingError::ChunkSize)?;
                Self::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (Self::Extension { value, .. }, b'\r') => Self::SizeLf { value },
            (Self::Extension { length, .. }, _) if length >= MAX_CHUNK_LINE => {
                return Err(FramingError::ChunkLineTooLong);
            }
            (Self::Extension { value, length }, _) => Self::Extension {
                value,
                length: length + 1,
            },
            (Self::SizeLf { value: 0 }, b'\n') => Self::TrailerStart { seen: 0 },
            (Self::SizeLf { value }, b'\n') => Self::Chunk(value),
            (Self::ChunkCr, b'\r') => Self::ChunkLf,
            (Self::ChunkLf, b'\n') => Self::Size { value: 0, digits: 0 },
            (Self::TrailerStart { .. }, b'\r') => Self::LastLf,
            (Self::Trailer { seen }, b'\r') => Self::TrailerLf { seen },
            (Self::TrailerStart { seen } | Self::Trailer { seen }, _) if seen < MAX_TRAILERS => {
                Self::Trailer { seen: seen + 1 }
            }
            (Self::TrailerStart { .. } | Self::Trailer { .. }, _) => {
                return Err(FramingError::TrailerTooLong);
            }
            (Self::TrailerLf { seen }, b'\n') => Self::TrailerStart { seen },
            (Self::LastLf, b'\n') => Self::Complete,
            _ => return Err(FramingError::LineEnd),
        })
    }
}

fn content(length: usize) -> Piece {
    Piece {
        length,
        content: true,
    }
}

/// How much of `available` belongs to what is `left`, and how much is left then.
fn clamp(available: usize, left: u64) -> (usize, u64) {
    let length = usize::try_from(left).map_or(available, |left| left.min(available));
    (length, left - length as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `wire` in steps and answers content, length in all and whether the body was complete.
    fn read(framing: Framing, wire: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), FramingError> {
        let mut body = Body::new(framing);
        let mut decoded = Vec::new();
        let mut total = 0;
        for part in wire.chunks(step.max(1)) {
            let mut at = 0;
            while let Some(piece) = body.next(&part[at..])? {
                if piece.content {
                    decoded.extend_from_slice(&part[at..at + piece.length]);
                }
                at += piece.length;
            }
            total += at;
            if at < part.len() {
                break;
            }
        }
        Ok((decoded, total, body.is_complete()))
    }

    fn encode(chunks: &[Vec<u8>], extension: &str, trailers: &[String]) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            wire.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n");
        for trailer in trailers {
            wire.extend_from_slice(format!("{trailer}\r\n").as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire
    }

    #[test]
    fn an_empty_body_is_complete_at_once() {
        assert!(Body::new(Framing::Length(0)).is_complete());
    }

    #[test]
    fn a_body_of_known_length_leaves_the_next_request_alone() {
        assert_eq!(
            read(Framing::Length(3), b"abcGET /", 100).unwrap(),
            (b"abc".to_vec(), 3, true)
        );
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        for (wire, why) in [
            (&b"\r\n"[..], FramingError::ChunkSize),
            (b"g\r\n", FramingError::ChunkSize),
            (b"-1\r\n", FramingError::ChunkSize),
            (b"0x1\r\n", FramingError::ChunkSize),
            (b" 1\r\n", FramingError::ChunkSize),
            (b"1 \r\n", FramingError::ChunkSize),
            (b"1\n", FramingError::ChunkSize),
            (b"00000000000000001\r\n", FramingError::ChunkSize),
            (b"1\rx", FramingError::LineEnd),
            (b"1;a\nx", FramingError::LineEnd),
            (b"1;a\rx", FramingError::LineEnd),
            (b"1\r\nab", FramingError::LineEnd),
            (b"1\r\na\n", FramingError::LineEnd),
            (b"0\r\n\n", FramingError::LineEnd),
            (b"0\r\nA: b\n\r\n", FramingError::LineEnd),
            (b"0\r\nA: b\r\r\n", FramingError::LineEnd),
        ] {
            assert_eq!(
                read(Framing::Chunked, wire, 1),
                Err(why),
                "{}",
                wire.escape_ascii()
            );
        }
    }

    #[test]
    fn the_largest_chunk_size_does_not_overflow() {
        let (content, total, complete) = read(Framing::Chunked, b"ffffffffffffffff\r\nabc", 100).unwrap();
        assert_eq!((content.as_slice(), total, complete), (&b"abc"[..], 21, false));
    }

    #[test]
    fn endless_lines_are_refused() {
        let long = [b"1;".to_vec(), vec![b'x'; usize::from(MAX_CHUNK_LINE) + 1]].concat();
        assert_eq!(
            read(Framing::Chunked, &long, 4096),
            Err(FramingError::ChunkLineTooLong)
        );
        let trailers = [b"0\r\n".to_vec(), b"A: b\r\n".repeat(MAX_TRAILERS as usize)].concat();
        assert_eq!(
            read(Framing::Chunked, &trailers, 4096),
            Err(FramingError::TrailerTooLong)
        );
    }

    proptest! {
        #[test]
        fn a_chunked_body_ends_where_it_ends_however_it_arrives(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            extension in prop::option::of("[a-z]{1,5}(=\"[a-z ]{0,5}\")?"),
            trailers in prop::collection::vec("[A-Za-z-]{1,8}: [ -~]{0,20}", 0..3),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            step in 1_usize..700,
        ) {
            let extension = extension.map(|text| format!(";{text}")).unwrap_or_default();
            let wire = encode(&chunks, &extension, &trailers);
            let end = wire.len();
            let (content, total, complete) =
                read(Framing::Chunked, &[wire, rest].concat(), step).unwrap();
            prop_assert!(complete);
            prop_assert_eq!(total, end);
            prop_assert_eq!(content, chunks.concat());
        }

        #[test]
        fn arbitrary_bytes_never_take_more_than_they_are(
            wire in prop::collection::vec(prop_oneof![Just(b'0'), Just(b'1'), Just(b'\r'), Just(b'\n'), Just(b';'), any::<u8>()], 0..200),
        ) {
            let mut body = Body::new(Framing::Chunked);
            if let Ok(taken) = body.skim(&wire) {
                prop_assert!(taken <= wire.len());
                prop_assert!(taken == wire.len() || body.is_complete());
            }
        }
    }
}
