//! Frames on a byte stream, each after its length as a 32-bit big-endian number, as passt and QEMU's stream netdev
//! speak.

use rustix::buffer::spare_capacity;

/// Bytes of the number before each frame.
pub(super) const PREFIX: usize = 4;
/// An Ethernet header: what is shorter is no frame.
pub(super) const MIN_FRAME: usize = 14;
/// The longest frame that any program puts on such a stream: a packet of 64 KiB with room for headers, as QEMU has it.
/// A greater number is no length, and the stream is out of step.
pub(super) const LONGEST: usize = 4096 + 65536;

/// Bytes that are read ahead.
const READ_AHEAD: usize = 2 * (PREFIX + LONGEST);
/// With so many bytes waiting to be sent, no more are added.
const ENOUGH: usize = 64 * 1024;

/// The stream says a length that no frame can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream announces a frame of {0} bytes")]
pub(super) struct OutOfStep(pub(super) u32);

/// What came from the stream and has not been delivered.
pub(super) struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    /// Bytes still to come of a frame that is not for the guest.
    skip: usize,
    longest: usize,
}

impl Incoming {
    /// Nothing yet. Frames longer than `longest` are left out.
    pub(super) fn new(longest: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(READ_AHEAD),
            start: 0,
            skip: 0,
            longest: longest.min(LONGEST),
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        (self.start, self.skip) = (0, 0);
    }

    /// Takes what `read` puts behind what is there, for which there is room whenever [`Incoming::front`] found nothing.
    pub(super) fn fill(
        &mut self,
        mut read: impl FnMut(rustix::buffer::SpareCapacity<'_, u8>) -> rustix::io::Result<usize>,
    ) -> rustix::io::Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        read(spare_capacity(&mut self.buffer))
    }

    /// The frame at the front, once it is there whole.
    pub(super) fn front(&mut self) -> Result<Option<&[u8]>, OutOfStep> {
        loop {
            let skipped = self.skip.min(self.buffer.len() - self.start);
            self.start += skipped;
            self.skip -= skipped;
            let rest = &self.buffer[self.start..];
            let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else {
                return Ok(None);
            };
            let announced = u32::from_be_bytes(*prefix);
            let len = usize::try_from(announced).unwrap_or(usize::MAX);
            if len > LONGEST {
                return Err(OutOfStep(announced));
            }
            if !(MIN_FRAME..=self.longest).contains(&len) {
                tracing::debug!(len, "left out a frame that the guest cannot be sent");
                self.skip = PREFIX + len;
                continue;
            }
            if rest.len() < len {
                return Ok(None);
            }
            let begin = self.start + PREFIX;
            return Ok(Some(&self.buffer[begin..begin + len]));
        }
    }

    /// Removes the frame that [`Incoming::front`] found.
    pub(super) fn pop(&mut self) {
        if let Ok(Some(frame)) = self.front() {
            self.start += PREFIX + frame.len();
        }
    }
}

/// What the guest sent and the stream has not taken. Bounded by [`ENOUGH`] and a frame.
#[derive(Default)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    start: usize,
}

impl Outgoing {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }

    /// Whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether the stream has to take some first.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() - self.start >= ENOUGH
    }

    /// Adds a frame of `len` bytes, which `fill` puts into the place for it.
    pub(super) fn push(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        let Ok(announced) = u32::try_from(len) else { return };
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(&announced.to_be_bytes());
        let begin = self.buffer.len();
        self.buffer.resize(begin + len, 0);
        fill(&mut self.buffer[begin..]);
    }

    /// The bytes to send next.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The stream took `count` bytes.
    pub(super) fn sent(&mut self, count: usize) {
        self.start = self.buffer.len().min(self.start + count);
        if self.start == self.buffer.len() {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1514;

    /// Feeds `bytes` in pieces of the given lengths, again and again, and collects the frames.
    fn frames(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, OutOfStep> {
        let mut incoming = Incoming::new(LIMIT);
        let mut rest = bytes;
        let mut found = Vec::new();
        let mut pieces = pieces.iter().cycle();
        loop {
            while let Some(frame) = incoming.front()? {
                found.push(frame.to_vec());
                incoming.pop();
            }
            if rest.is_empty() {
                return Ok(found);
            }
            let count = rest.len().min(*pieces.next().unwrap());
            let piece = file(&rest[..count]);
            let read = incoming.fill(|space| rustix::io::read(&piece, space)).unwrap();
            assert!(read > 0, "there is no room for what a frame lacks");
            rest = &rest[read..];
        }
    }

    /// A file that holds `bytes`.
    fn file(bytes: &[u8]) -> std::fs::File {
        use std::io::{Seek, Write};
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut outgoing = Outgoing::default();
        for frame in frames {
            outgoing.push(frame.len(), |place| place.copy_from_slice(frame));
        }
        outgoing.rest().to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_arrive_whole_and_in_order_however_the_stream_is_cut(
            lengths in prop::collection::vec(0usize..3000, 0..12),
            pieces in prop::collection::vec(1usize..4000, 1..8),
        ) {
            let sent: Vec<Vec<u8>> = (0u8..).zip(&lengths).map(|(fill, len)| vec![fill; *len]).collect();
            let expected: Vec<_> = sent.iter().filter(|frame| (MIN_FRAME..=LIMIT).contains(&frame.len())).cloned().collect();
            prop_assert_eq!(frames(&framed(&sent), &pieces), Ok(expected));
        }

        #[test]
        fn any_bytes_are_survived(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            pieces in prop::collection::vec(1usize..700, 1..8),
        ) {
            if let Ok(found) = frames(&bytes, &pieces) {
                prop_assert!(found.iter().all(|frame| (MIN_FRAME..=LIMIT).contains(&frame.len())));
            }
        }
    }

    #[test]
    fn what_is_too_long_for_the_guest_is_left_out_and_what_no_frame_can_be_ends_the_stream() {
        let good = vec![7; 60];
        let sent = [vec![1; LONGEST], good.clone()];
        assert_eq!(frames(&framed(&sent), &[5000]), Ok(vec![good]));
        let len = u32::try_from(LONGEST + 1).unwrap();
        assert_eq!(frames(&len.to_be_bytes(), &[1]), Err(OutOfStep(len)));
        assert_eq!(frames(&[0xff; 4], &[3]), Err(OutOfStep(u32::MAX)));
    }

    #[test]
    fn what_the_stream_took_is_not_sent_again() {
        let mut outgoing = Outgoing::default();
        outgoing.push(3, |place| place.copy_from_slice(b"abc"));
        outgoing.sent(5);
        outgoing.push(2, |place| place.copy_from_slice(b"de"));
        assert_eq!(outgoing.rest(), b"bc\0\0\0\x02de");
        outgoing.sent(8);
        assert!(outgoing.is_empty() && !outgoing.is_full());
    }
}
