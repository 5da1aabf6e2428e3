//! The last lines of a log, within a bound of bytes.

use bytes::Bytes;
use std::collections::VecDeque;

/// Bookkeeping that a line costs beside its text, so that many empty lines are bounded too.
const LINE_OVERHEAD: usize = 32;

/// Lines in the order of their arrival; the oldest make room for new ones. Lines are numbered from 0 on, and keep
/// their numbers when older ones go.
pub(crate) struct Ring {
    lines: VecDeque<Bytes>,
    /// Number of the first line that is kept.
    first: u64,
    size: usize,
    limit: usize,
}

impl Ring {
    /// An empty ring that keeps at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            first: 0,
            size: 0,
            limit,
        }
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, line: Bytes) {
        self.size += line.len() + LINE_OVERHEAD;
        self.lines.push_back(line);
        while self.size > self.limit
            && let Some(oldest) = self.lines.pop_front()
        {
            self.size -= oldest.len() + LINE_OVERHEAD;
            self.first += 1;
        }
    }

    /// The number that the next line will get.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    /// The number of the first of the last `count` lines that are kept.
    pub(crate) fn tail(&self, count: u64) -> u64 {
        self.end().saturating_sub(count).max(self.first)
    }

    /// The lines from number `from` on, and how many of those wanted are gone.
    pub(crate) fn since(&self, from: u64) -> (impl Iterator<Item = &Bytes>, u64) {
        let lost = self.first.saturating_sub(from);
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (self.lines.iter().skip(skip), lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(limit: usize, lines: impl IntoIterator<Item = &'static str>) -> Ring {
        let mut ring = Ring::new(limit);
        for line in lines {
            ring.push(Bytes::from_static(line.as_bytes()));
        }
        ring
    }

    fn text(ring: &Ring, from: u64) -> Vec<&[u8]> {
        ring.since(from).0.map(AsRef::as_ref).collect()
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_is_new() {
        let mut ring = ring(1000, ["a", "b"]);
        let seen = ring.end();
        ring.push(Bytes::from_static(b"c"));
        assert_eq!(text(&ring, seen), [b"c"]);
        assert_eq!(text(&ring, ring.end()), Vec::<&[u8]>::new());
    }

    #[test]
    fn a_reader_that_falls_behind_is_told_how_much_it_lost() {
        let ring = ring(2 * (LINE_OVERHEAD + 1), ["a", "b", "c", "d", "e"]);
        assert_eq!(ring.since(1).1, 2);
        assert_eq!(text(&ring, 1), [b"d", b"e"]);
    }

    #[test]
    fn a_tail_longer_than_the_log_is_the_whole_log() {
        let ring = ring(1000, ["a", "b", "c"]);
        assert_eq!(text(&ring, ring.tail(2)), [b"b", b"c"]);
        assert_eq!(text(&ring, ring.tail(u64::MAX)).len(), 3);
        assert!(text(&ring, ring.tail(0)).is_empty());
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_the_newest_lines_stay(lengths in proptest::collection::vec(0_usize..200, 0..200)) {
            let mut ring = Ring::new(1000);
            for (n, length) in lengths.iter().enumerate() {
                ring.push(Bytes::from(vec![0; *length]));
                prop_assert_eq!(ring.end(), n as u64 + 1);
                let kept: usize = ring.since(0).0.map(|line| line.len() + LINE_OVERHEAD).sum();
                prop_assert!(kept <= 1000 && kept == ring.size);
                prop_assert_eq!(ring.since(ring.end() - 1).0.map(Bytes::len).collect::<Vec<_>>(), vec![*length]);
            }
        }
    }
}
