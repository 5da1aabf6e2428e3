//! What has been shown of a log, so that it goes on after a break without a line that comes twice.
//!
//! The engine says again what was written since some time, and lines may have the same one. So the last lines are
//! remembered with how often they were shown, and so often they are passed over when they are said again.

use super::LogLine;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

/// So many of the last lines are remembered. Several containers' lines come in no order, so that one may still be to
/// come that is older than the last.
const REMEMBERED: usize = 1000;

/// The lines that were shown last of a log.
#[derive(Debug, Default)]
pub struct ShownLog {
    /// What was shown of this millisecond and of later ones is remembered. None as long as nothing was shown.
    from_ms: Option<i64>,
    /// How often each line was shown, by its time and a hash of the rest.
    shown: BTreeMap<(i64, u64), u32>,
    /// How often each of them is still to be said again.
    again: BTreeMap<(i64, u64), u32>,
}

impl ShownLog {
    /// Begins a reading. Returns since when the log is to be read, in seconds as the engine takes them; none where
    /// nothing of it was shown.
    pub fn begin_reading(&mut self) -> Option<String> {
        self.again.clone_from(&self.shown);
        self.from_ms.map(|ms| format!("{}.{:03}", ms / 1000, ms % 1000))
    }

    /// Takes what an earlier reading has shown out of `lines`, and remembers the others as shown. A line without a time
    /// is always a new one.
    pub fn keep_new(&mut self, lines: &mut Vec<LogLine>) {
        lines.retain(|line| line.at_ms <= 0 || self.is_new(line));
    }

    fn is_new(&mut self, line: &LogLine) -> bool {
        let key = (line.at_ms, hash(line));
        if let Some(left) = self.again.get_mut(&key).filter(|left| **left > 0) {
            *left -= 1;
            return false;
        }
        // What is older is not said again.
        if line.at_ms >= *self.from_ms.get_or_insert(line.at_ms) {
            *self.shown.entry(key).or_default() += 1;
        }
        if self.shown.len() > REMEMBERED {
            self.forget_oldest();
        }
        true
    }

    /// Forgets the lines of the oldest millisecond: all of them, since the engine says all of them again or none.
    fn forget_oldest(&mut self) {
        let Some(((oldest, _), _)) = self.shown.pop_first() else {
            return;
        };
        while self
            .shown
            .first_key_value()
            .is_some_and(|((at_ms, _), _)| *at_ms == oldest)
        {
            self.shown.pop_first();
        }
        self.from_ms = Some(oldest + 1);
    }
}

/// The same for the same line. Compose fills a container's name up with spaces to the longest one that it knows, which
/// may be another one in the next reading.
fn hash(line: &LogLine) -> u64 {
    let (name, text) = line.text.split_once(" | ").unwrap_or(("", &line.text));
    let mut hasher = DefaultHasher::new();
    (line.stream, name.trim_end(), text).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogStream;
    use proptest::prelude::*;

    const NOON: i64 = 1_772_366_400_250;

    fn line(at_ms: i64, text: &str) -> LogLine {
        LogLine {
            at_ms,
            stream: LogStream::Stdout,
            text: text.to_owned(),
        }
    }

    /// What is shown of a reading in which the engine has `written`.
    fn read(shown: &mut ShownLog, written: &[LogLine]) -> Vec<LogLine> {
        let since = shown.begin_reading();
        let since: i64 = since.map_or(0, |since| since.replace('.', "").parse().unwrap());
        let mut lines: Vec<LogLine> = written.to_vec();
        lines.retain(|line| line.at_ms >= since);
        shown.keep_new(&mut lines);
        lines
    }

    #[test]
    fn a_line_that_was_shown_is_passed_over_and_its_twin_of_the_same_moment_is_not() {
        let mut shown = ShownLog::default();
        assert_eq!(shown.begin_reading(), None);
        let mut lines = vec![line(NOON, "ready"), line(NOON, "ready")];
        shown.keep_new(&mut lines);
        assert_eq!(lines.len(), 2);
        assert_eq!(shown.begin_reading().as_deref(), Some("1772366400.250"));
        let mut again = vec![line(NOON, "ready"); 3];
        again.push(line(NOON, "steady"));
        shown.keep_new(&mut again);
        assert_eq!(again, [line(NOON, "ready"), line(NOON, "steady")]);
    }

    #[test]
    fn a_late_line_of_another_container_is_shown_and_shown_once() {
        let mut shown = ShownLog::default();
        let mut written = vec![line(NOON, "web-1 | a"), line(NOON + 90, "web-1 | b")];
        assert_eq!(read(&mut shown, &written), written);
        // The name is filled up to that of the container which has come.
        written = vec![
            line(NOON, "web-1    | a"),
            line(NOON + 90, "web-1    | b"),
            line(NOON + 40, "worker-1 | c"),
        ];
        assert_eq!(read(&mut shown, &written), written[2..]);
        assert!(read(&mut shown, &written).is_empty());
    }

    #[test]
    fn more_lines_than_are_remembered_are_not_shown_again_however_close_they_are() {
        for per_ms in [1, 3, 5000] {
            let mut shown = ShownLog::default();
            let mut written: Vec<LogLine> = (0..5000)
                .map(|count| line(NOON + count / per_ms, &count.to_string()))
                .collect();
            assert_eq!(read(&mut shown, &written), written);
            assert!(shown.shown.len() <= REMEMBERED);
            written.push(line(NOON + 5000, "new"));
            assert_eq!(read(&mut shown, &written), written[5000..]);
        }
    }

    #[test]
    fn lines_without_a_time_cannot_be_told_apart() {
        let mut shown = ShownLog::default();
        let mut lines = vec![line(0, "web-1 exited with code 0")];
        for _ in 0..2 {
            shown.keep_new(&mut lines);
            assert_eq!(lines.len(), 1);
            assert_eq!(shown.begin_reading(), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_breaks_come_each_line_is_shown_once(
            steps in prop::collection::vec((0_i64..3, "[ab]"), 0..60),
            mut breaks in prop::collection::vec(0_usize..60, 0..5),
        ) {
            let mut at_ms = NOON;
            let written: Vec<LogLine> = steps
                .iter()
                .map(|(later, text)| {
                    at_ms += later;
                    line(at_ms, text)
                })
                .collect();
            breaks.push(written.len());
            let mut shown = ShownLog::default();
            let mut seen = Vec::new();
            for end in breaks {
                seen.extend(read(&mut shown, &written[..end.min(written.len())]));
            }
            prop_assert_eq!(seen, written);
        }
    }
}
