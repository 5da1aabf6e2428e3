//! What is packed by Zstandard (RFC 8878), unpacked as it is read.
//!
//! ```text
//!  Frames ─── header ──▶ Blocks ──▶ raw, repeated or packed (block) ──▶ the last window of what came, and the next
//!    ▲  └ skippable: passed over        │                                bytes to be read
//!    └───────────── the last one ───────┘
//! ```
//!
//! Whatever the bytes say, no more is kept than [`MOST_WINDOW`] twice and a block, and that only once so much was
//! unpacked: a block that would become more is refused before it does. Checksums are passed over: who reads a layer's
//! headers has those of the archive's own. Dictionaries are not known; no builder of images uses any.

mod bits;
mod block;
mod fse;
mod huffman;

use block::Blocks;
use std::io::{self, Read};

/// What a frame begins with.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What one begins with that is to be passed over, but for the lowest four bits.
const SKIPPABLE: u32 = 0x184d_2a50;
/// How far back a frame may refer, in bytes: as far as the best level of the encoder that builders use.
const MOST_WINDOW: u64 = 32 << 20;
/// Bytes that a block holds at most, packed and unpacked (section 3.1.1.2.3).
const MOST_BLOCK: usize = 128 << 10;

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault(&'static str);

impl From<Fault> for io::Error {
    fn from(Fault(what): Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, what)
    }
}

/// Frames one after the other, unpacked.
pub(super) struct Unpacked<R> {
    source: R,
    /// The frame that is being read, as long as a block follows.
    frame: Option<Frame>,
    /// What was unpacked of it, from one window before what was not read yet on.
    out: Vec<u8>,
    /// How much of `out` was read.
    read: usize,
}

/// A frame between two blocks.
struct Frame {
    window: usize,
    checksum: bool,
    blocks: Blocks,
}

impl<R: Read> Unpacked<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            frame: None,
            out: Vec::new(),
            read: 0,
        }
    }

    /// Goes on by a header or a block, once all was read that is there; false at the end.
    fn step(&mut self) -> io::Result<bool> {
        let Some(mut frame) = self.frame.take() else {
            return self.begin();
        };
        // Moved seldom, and not for each block.
        if self.out.len() > 2 * frame.window.max(MOST_BLOCK) {
            self.out.drain(..self.out.len() - frame.window);
            self.read = self.out.len();
        }
        let [low, middle, high] = self.array()?;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let (last, kind, size) = (header & 1 == 1, (header >> 1) & 3, (header >> 3) as usize);
        let most = frame.window.min(MOST_BLOCK);
        if size > most {
            return Err(Fault("a block that is larger than any").into());
        }
        match kind {
            0 => self.append(size)?,
            1 => {
                let [byte] = self.array()?;
                self.out.resize(self.out.len() + size, byte);
            }
            2 => {
                let mut packed = vec![0; size];
                self.source.read_exact(&mut packed)?;
                frame.blocks.unpack(&packed, most, &mut self.out)?;
            }
            _ => return Err(Fault("a block of no known kind").into()),
        }
        if !last {
            self.frame = Some(frame);
        } else if frame.checksum {
            let _: [u8; 4] = self.array()?;
        }
        Ok(true)
    }

    /// Reads a frame's header, or passes over a frame that is to be; false where nothing follows.
    fn begin(&mut self) -> io::Result<bool> {
        self.out.clear();
        self.read = 0;
        let mut magic = [0; 4];
        let first = self.source.read(&mut magic[..1])?;
        if first == 0 {
            return Ok(false);
        }
        self.source.read_exact(&mut magic[1..])?;
        if u32::from_le_bytes(magic) & !0xf == SKIPPABLE {
            let size = u64::from(u32::from_le_bytes(self.array()?));
            let passed = io::copy(&mut self.source.by_ref().take(size), &mut io::sink())?;
            return if passed == size {
                Ok(true)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        if magic != MAGIC {
            return Err(Fault("something else behind a frame").into());
        }
        let [descriptor] = self.array()?;
        if descriptor & 8 != 0 {
            return Err(Fault("a frame of a later format").into());
        }
        let single = descriptor & 0x20 != 0;
        let mut window = 0;
        if !single {
            let [exponent] = self.array()?;
            let base = 1_u64 << (10 + (exponent >> 3));
            window = base + base / 8 * u64::from(exponent & 7);
        }
        let dictionary = self.number([0, 1, 2, 4][usize::from(descriptor & 3)])?;
        if dictionary != 0 {
            return Err(Fault("a frame that needs a dictionary").into());
        }
        let size = match descriptor >> 6 {
            0 => self.number(usize::from(single))?,
            1 => self.number(2)? + 256,
            2 => self.number(4)?,
            _ => self.number(8)?,
        };
        if single {
            window = size;
        }
        let known = usize::try_from(window).ok().filter(|_| window <= MOST_WINDOW);
        self.frame = Some(Frame {
            window: known.ok_or(Fault("a frame that refers further back than is kept"))?,
            checksum: descriptor & 4 != 0,
            blocks: Blocks::default(),
        });
        Ok(true)
    }

    /// So many bytes as they are.
    fn append(&mut self, size: usize) -> io::Result<()> {
        let before = self.out.len();
        self.source
            .by_ref()
            .take(size as u64)
            .read_to_end(&mut self.out)?;
        if self.out.len() - before == size {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A number of so many bytes, eight at most, the lowest first.
    fn number(&mut self, bytes: usize) -> io::Result<u64> {
        let mut number = [0; 8];
        self.source.read_exact(&mut number[..bytes])?;
        Ok(u64::from_le_bytes(number))
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.out.len() {
            if !self.step()? {
                return Ok(0);
            }
        }
        let there = &self.out[self.read..];
        let count = buffer.len().min(there.len());
        buffer[..count].copy_from_slice(&there[..count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
