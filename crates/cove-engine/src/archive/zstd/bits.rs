//! The two orders in which bits are kept: from the front where tables are described, from the back where something is
//! coded by them.

use super::Fault;

/// Bits from the lowest one of the first byte on.
pub(super) struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Forward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits as a number, 16 at most.
    pub(super) fn read(&mut self, count: u32) -> Result<u32, Fault> {
        let mut value = 0;
        for place in 0..count {
            let byte = self
                .bytes
                .get(self.at / 8)
                .ok_or(Fault("a table that breaks off"))?;
            value |= u32::from((byte >> (self.at % 8)) & 1) << place;
            self.at += 1;
        }
        Ok(value)
    }

    /// Bytes of which a bit was read.
    pub(super) fn bytes_read(&self) -> usize {
        self.at.div_ceil(8)
    }
}

/// Bits from the highest one of the last byte on that follows the mark of their end. Beyond the first byte there are
/// zeros.
pub(super) struct Backward<'a> {
    bytes: &'a [u8],
    left: usize,
    over: bool,
}

impl<'a> Backward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mark = bytes.last().and_then(|last| last.checked_ilog2());
        let mark = mark.ok_or(Fault("bits without a mark of their end"))?;
        Ok(Self {
            bytes,
            left: (bytes.len() - 1) * 8 + mark as usize,
            over: false,
        })
    }

    /// The next bits as a number, 32 at most.
    pub(super) fn peek(&self, count: u32) -> u32 {
        let there = self.left.min(count as usize);
        let lowest = self.left - there;
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(self.bytes.iter().skip(lowest / 8)) {
            *to = *from;
        }
        let value = (u64::from_le_bytes(word) >> (lowest % 8)) & ((1 << there) - 1);
        // Of at most 32 bits.
        u32::try_from(value << (count as usize - there)).unwrap_or_default()
    }

    /// Goes on by so many bits.
    pub(super) fn consume(&mut self, count: u32) {
        let left = self.left.checked_sub(count as usize);
        self.over |= left.is_none();
        self.left = left.unwrap_or_default();
    }

    pub(super) fn read(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.consume(count);
        value
    }

    /// Whether more was read than there is.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether just as much was read as there is.
    pub(super) fn is_at_its_end(&self) -> bool {
        self.left == 0 && !self.over
    }
}
