//! A TCP connection on a stream between host and guest: chunks, so that a reset is told from an end.
//!
//! ```text
//!  each direction:   length, bytes   length, bytes   …   0        the sender has ended its output
//!                    length, bytes   length, by│                  the stream ends first: the connection was reset
//! ```
//!
//! A length is a 32-bit big-endian number. What carries the stream tells of its end and of nothing else: a stream
//! that ended without its last chunk is one whose sender did not finish, be it that its peer reset the connection or
//! that whoever carried it is gone.

use crate::WireError;

/// Bytes of a chunk's length.
pub const CHUNK_HEADER_LEN: usize = 4;

/// What stands before `length` bytes of a direction; before none it is the direction's end.
pub fn chunk_header(length: u32) -> [u8; CHUNK_HEADER_LEN] {
    length.to_be_bytes()
}

/// Takes a direction's chunks apart, however they arrive.
#[derive(Debug, Default)]
pub struct Chunks {
    /// Bytes that are still to come of the chunk.
    left: u32,
    header: [u8; CHUNK_HEADER_LEN],
    /// How many bytes of the header are there.
    known: usize,
    ended: bool,
}

impl Chunks {
    /// Takes in what was received: moves the bytes that were sent to its front, and returns how many there are. An
    /// error when something follows the end.
    pub fn take(&mut self, received: &mut [u8]) -> Result<usize, WireError> {
        let (mut at, mut kept) = (0, 0);
        while at < received.len() {
            if self.ended {
                return Err(WireError::AfterEnd);
            }
            let rest = received.len() - at;
            if self.left > 0 {
                let count = rest.min(self.left as usize);
                received.copy_within(at..at + count, kept);
                // No more than `left`, which fits.
                self.left -= u32::try_from(count).unwrap_or(self.left);
                (at, kept) = (at + count, kept + count);
            } else {
                let count = rest.min(CHUNK_HEADER_LEN - self.known);
                self.header[self.known..self.known + count].copy_from_slice(&received[at..at + count]);
                (at, self.known) = (at + count, self.known + count);
                if self.known == CHUNK_HEADER_LEN {
                    self.known = 0;
                    self.left = u32::from_be_bytes(self.header);
                    self.ended = self.left == 0;
                }
            }
        }
        Ok(kept)
    }

    /// Whether the sender has ended this direction.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for chunk in chunks {
            stream.extend(chunk_header(u32::try_from(chunk.len()).unwrap()));
            stream.extend(chunk);
        }
        stream
    }

    #[test]
    fn a_direction_that_was_cut_off_has_not_ended() {
        let mut chunks = Chunks::default();
        let mut stream = packed(&[b"half".to_vec()]);
        assert_eq!(chunks.take(&mut stream).unwrap(), 4);
        assert!(stream.starts_with(b"half") && !chunks.ended());
        assert_eq!(chunks.take(&mut chunk_header(0)).unwrap(), 0);
        assert!(chunks.ended());
    }

    #[test]
    fn nothing_follows_the_end() {
        let mut chunks = Chunks::default();
        let mut stream = [chunk_header(0), chunk_header(0)].concat();
        assert!(matches!(chunks.take(&mut stream), Err(WireError::AfterEnd)));
    }

    proptest! {
        #[test]
        fn chunks_come_apart_however_they_arrive(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..12),
            cuts in proptest::collection::vec(1usize..50, 1..60),
        ) {
            let stream = [packed(&sent), chunk_header(0).to_vec()].concat();
            let mut chunks = Chunks::default();
            let (mut got, mut rest) = (Vec::new(), stream.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                prop_assert!(!chunks.ended());
                let (part, further) = rest.split_at((*cut).min(rest.len()));
                let mut part = part.to_vec();
                let kept = chunks.take(&mut part).unwrap();
                got.extend_from_slice(&part[..kept]);
                rest = further;
            }
            prop_assert!(chunks.ended());
            prop_assert_eq!(got, sent.concat());
        }

        #[test]
        fn no_bytes_make_it_panic_or_claim_more_than_there_are(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..8)
        ) {
            let mut chunks = Chunks::default();
            for mut part in parts {
                if let Ok(kept) = chunks.take(&mut part) {
                    prop_assert!(kept <= part.len());
                }
            }
        }
    }
}
