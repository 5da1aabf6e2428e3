//! Cutting a program's output into lines.

use bytes::{Bytes, BytesMut};

/// Longest line, in bytes without its end; longer ones are cut in pieces.
pub(crate) const MAX_LINE: usize = 16 * 1024;

/// Output that has not yet come to the end of its line.
#[derive(Default)]
pub(crate) struct Lines(BytesMut);

impl Lines {
    /// Takes `data` and gives the lines that it completes, each with its newline, to `line`.
    pub(crate) fn feed(&mut self, data: &[u8], mut line: impl FnMut(Bytes)) {
        self.0.extend_from_slice(data);
        loop {
            match self.0.iter().take(MAX_LINE).position(|&byte| byte == b'\n') {
                Some(end) => line(Bytes::copy_from_slice(&self.0.split_to(end + 1))),
                None if self.0.len() >= MAX_LINE => line(ended(&self.0.split_to(MAX_LINE))),
                None => return,
            }
        }
    }

    /// Gives what is left when the output has ended.
    pub(crate) fn finish(self, line: impl FnOnce(Bytes)) {
        if !self.0.is_empty() {
            line(ended(&self.0));
        }
    }
}

fn ended(text: &[u8]) -> Bytes {
    [text, b"\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(pieces: &[&[u8]]) -> Vec<Bytes> {
        let mut got = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.feed(piece, |line| got.push(line));
        }
        lines.finish(|line| got.push(line));
        got
    }

    #[test]
    fn a_line_may_come_in_pieces_and_the_last_one_without_an_end() {
        assert_eq!(
            cut(&[b"on", b"e\ntw", b"o\n\nrest"]),
            ["one\n", "two\n", "\n", "rest\n"]
        );
    }

    #[test]
    fn a_line_without_end_is_cut_rather_than_kept() {
        let got = cut(&[&vec![b'x'; 2 * MAX_LINE + 5]]);
        assert_eq!(
            got.iter().map(Bytes::len).collect::<Vec<_>>(),
            [MAX_LINE + 1, MAX_LINE + 1, 6]
        );
    }

    proptest! {
        #[test]
        fn how_the_output_is_cut_in_pieces_does_not_matter(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            at in any::<prop::sample::Index>(),
        ) {
            let at = at.index(bytes.len() + 1);
            let whole = cut(&[&bytes]);
            prop_assert_eq!(&cut(&[&bytes[..at], &bytes[at..]]), &whole);
            let mut joined = whole.concat();
            if bytes.last() != Some(&b'\n') {
                joined.pop();
            }
            prop_assert_eq!(joined, bytes);
        }
    }
}
