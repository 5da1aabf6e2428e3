//! A container's log: from the engine's bytes to lines with a time and a stream.
//!
//! Without a terminal the engine sends frames, each a header of eight bytes (stream, three zeroes, length as big-endian
//! 32 bits) and a payload; with one it sends the bytes as they are. Each line begins with its time, because it is asked
//! to (`timestamps=true`). A container writes what it likes, so a line that does not end is cut rather than gathered.

mod shown;

pub use shown::ShownLog;

use crate::time;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Longest line that is shown, in bytes; what is longer goes on in another line.
const LONGEST: usize = 32 * 1024;
const HEADER: usize = 8;

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When the engine received it; zero where the engine did not say.
    #[ts(type = "number")]
    pub at_ms: i64,
    /// Where it was written to.
    pub stream: LogStream,
    /// Its text, with the escape sequences that it came with, without its end.
    pub text: String,
}

/// Makes lines of the engine's bytes, however these are cut.
#[derive(Debug, Default)]
pub struct LogReader {
    framed: bool,
    header: Vec<u8>,
    /// What of the present frame is still to come, and whether it is standard error.
    frame: (usize, bool),
    /// The beginnings of lines whose ends are still to come: of standard output and of standard error.
    open: [Vec<u8>; 2],
}

impl LogReader {
    /// A reader of frames, or of a terminal's plain bytes.
    pub fn new(framed: bool) -> Self {
        Self {
            framed,
            ..Self::default()
        }
    }

    /// Takes what came and adds the lines that ended to `lines`.
    pub fn take(&mut self, mut bytes: &[u8], lines: &mut Vec<LogLine>) {
        while !bytes.is_empty() {
            if !self.framed {
                return self.payload(bytes, false, lines);
            }
            if self.frame.0 == 0 {
                let (head, rest) = bytes.split_at(bytes.len().min(HEADER - self.header.len()));
                self.header.extend_from_slice(head);
                bytes = rest;
                if let [stream, _, _, _, length @ ..] = self.header.as_slice()
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    self.frame = (u32::from_be_bytes(length) as usize, *stream == 2);
                    self.header.clear();
                }
                continue;
            }
            let (payload, rest) = bytes.split_at(bytes.len().min(self.frame.0));
            self.frame.0 -= payload.len();
            self.payload(payload, self.frame.1, lines);
            bytes = rest;
        }
    }

    /// The last lines, which nothing ended.
    pub fn finish(&mut self, lines: &mut Vec<LogLine>) {
        for (open, stream) in self.open.iter_mut().zip([LogStream::Stdout, LogStream::Stderr]) {
            if !open.is_empty() {
                lines.push(line(&std::mem::take(open), stream));
            }
        }
    }

    fn payload(&mut self, mut bytes: &[u8], is_error: bool, lines: &mut Vec<LogLine>) {
        let stream = if is_error {
            LogStream::Stderr
        } else {
            LogStream::Stdout
        };
        let open = &mut self.open[usize::from(is_error)];
        while !bytes.is_empty() {
            let room = LONGEST.saturating_sub(open.len()).max(1);
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|&byte| byte == b'\n') {
                open.extend_from_slice(&bytes[..end]);
                lines.push(line(open, stream));
                open.clear();
                bytes = &bytes[end + 1..];
            } else {
                open.extend_from_slice(window);
                bytes = &bytes[window.len()..];
                if open.len() >= LONGEST {
                    lines.push(line(open, stream));
                    open.clear();
                }
            }
        }
    }
}

fn line(bytes: &[u8], stream: LogStream) -> LogLine {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\r');
    let stamped = text
        .split_once(' ')
        .or(Some((text, "")))
        .and_then(|(stamp, rest)| Some((time::read_ms(stamp)?, rest)));
    let (at_ms, text) = stamped.unwrap_or((0, text));
    LogLine {
        at_ms,
        stream,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&[stream, 0, 0, 0][..], &length.to_be_bytes(), payload].concat()
    }

    fn read(framed: bool, parts: &[&[u8]]) -> Vec<LogLine> {
        let mut reader = LogReader::new(framed);
        let mut lines = Vec::new();
        for part in parts {
            reader.take(part, &mut lines);
        }
        reader.finish(&mut lines);
        lines
    }

    #[test]
    fn frames_become_lines_with_their_time_and_stream() {
        let bytes = [
            frame(1, b"2026-03-01T12:00:00.250000000Z GET / 200\n"),
            frame(2, b"2026-03-01T12:00:01Z it burns\n"),
        ]
        .concat();
        let lines = read(true, &[&bytes]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].text, "GET / 200");
        assert_eq!(lines[0].at_ms, 1_772_366_400_250);
        assert_eq!(lines[1].stream, LogStream::Stderr);
    }

    #[test]
    fn a_terminals_bytes_have_no_frames_and_may_begin_with_any_byte() {
        let lines = read(false, &[b"\x01\x00one\r\ntwo"]);
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["\u{1}\0one", "two"]);
    }

    #[test]
    fn an_empty_line_keeps_its_time() {
        let lines = read(true, &[&frame(1, b"2026-03-01T12:00:00Z \n")]);
        assert_eq!((lines[0].at_ms, lines[0].text.as_str()), (1_772_366_400_000, ""));
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let lines = read(false, &[&vec![b'x'; LONGEST * 3 + 5]]);
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.text.len() <= LONGEST));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(
            parts in prop::collection::vec((1u8..3, "[a-z\n ]{0,40}"), 0..8),
            cut in 1usize..24,
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(|(stream, text)| frame(*stream, text.as_bytes())).collect();
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(read(true, &pieces), read(true, &[&bytes]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), framed: bool) {
            let _ = read(framed, &[&bytes]);
        }
    }
}
