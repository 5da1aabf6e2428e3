//! What is packed by Zstandard (RFC 8878), unpacked as it is read: one frame after the other, by `ruzstd`.
//!
//! Checksums are passed over: who reads a layer's headers has those of the archive's own. Dictionaries are not known;
//! no builder of images uses any.

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};
use std::io::{self, Read};

/// What a frame begins with.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How far back a frame may refer, in bytes: as far as the best level of the encoder that builders use. So much of what
/// was unpacked is kept, besides a block, which is a mebibyte at most.
const MAX_WINDOW: u64 = 32 << 20;

/// Frames one after the other, unpacked.
pub(super) struct Unpacked<R> {
    source: R,
    frame: FrameDecoder,
}

impl<R: Read> Unpacked<R> {
    pub(super) fn new(source: R) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(MAX_WINDOW);
        Self { source, frame }
    }

    /// Begins the next frame, or passes over one that is to be; false where nothing follows.
    fn begin(&mut self) -> io::Result<bool> {
        let mut first = [0];
        if self.source.read(&mut first)? == 0 {
            return Ok(false);
        }
        let begun = self.frame.init(first.chain(&mut self.source));
        let Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) =
            begun
        else {
            return begun.map(|()| true).map_err(malformed);
        };
        let length = u64::from(length);
        if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? == length {
            Ok(true)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.frame.can_collect() == 0 {
            if !self.frame.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.frame
                    .decode_blocks(&mut self.source, one)
                    .map_err(malformed)?;
            } else if !self.begin()? {
                return Ok(0);
            }
        }
        self.frame.read(buffer)
    }
}

fn malformed(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
