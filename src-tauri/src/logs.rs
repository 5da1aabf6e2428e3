//! Logs on their way to the page, across breaks.
//!
//! ```text
//!          ┌─────────── once something runs again ────────────┐
//!          ▼                                                  │
//!  Log::read ──Source──▶ lines of a moment ──Page──▶ channel ─┴▶ end: nobody wants it, or nothing is left of it
//! ```
//!
//! A reading ends with the containers that it is of, or because the engine is gone. The next one begins a little before
//! its end, and what was told already is told no more ([`ShownLog`]).

use crate::{cove::Cove, stream::Allowance};
use cove_view::{ContainerRow, LogLine, LogStream, ShownLog};
use std::{future::Future, sync::Arc, time::Duration};
use tauri::ipc::Channel;
use tokio::time::{Instant, sleep, timeout_at};

/// Batches that may be under way to the page.
pub(crate) const BATCHES: usize = 8;
/// Lines that are sent together at most.
pub(crate) const BATCH: usize = 2000;
/// Bytes of lines that are sent together at most, but for what comes with the last of them: lines may be long.
const HEAVY: usize = 1 << 20;
/// Lines that come within this time are sent together.
const GATHER: Duration = Duration::from_millis(30);
/// How long between the end of a reading and the next.
const AGAIN: Duration = Duration::from_millis(500);
/// A log that was followed for so long was there, even if nobody wrote.
const A_WHILE: Duration = Duration::from_secs(5);

/// A log that can be read again.
pub(crate) trait Log: Send + Sync + 'static {
    /// How long the pause between readings becomes where they lead to nothing.
    const AT_LAST: Duration;

    /// Tells the page what there is, and what comes, until it ends.
    fn read(&self, cove: &Cove, page: &mut Page) -> impl Future<Output = Reading> + Send;

    /// What follows a reading, as the containers are.
    fn after(&self, rows: &[ContainerRow]) -> After;
}

/// How a reading ended.
pub(crate) enum Reading {
    /// Nobody wants the log any more.
    Unwanted,
    /// It came to its end, or broke off.
    Ended,
    /// It could not be read, for a reason that the page is told.
    Failed(String),
}

/// What follows a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Another one.
    Reading,
    /// Nothing before the containers have changed.
    Waiting,
    /// Nothing: what wrote the log is gone.
    Nothing,
}

/// What a reading takes its lines from.
pub(crate) trait Source: Send {
    /// Adds the lines that come next, if any; false at the end, with the last of them. May be dropped and asked again.
    fn next(&mut self, lines: &mut Vec<LogLine>) -> impl Future<Output = bool> + Send;
}

/// Where a log is shown.
pub(crate) struct Page {
    seen: Channel<Vec<LogLine>>,
    allowance: Allowance,
    shown: ShownLog,
    /// Whether the reading has brought a line that was not told before.
    grown: bool,
}

impl Page {
    pub(crate) fn new(seen: Channel<Vec<LogLine>>, allowance: Allowance) -> Self {
        Self {
            seen,
            allowance,
            shown: ShownLog::default(),
            grown: false,
        }
    }

    /// Begins a reading. Returns since when the log is to be read, in seconds; none where all of it is new.
    pub(crate) fn since(&mut self) -> Option<String> {
        self.shown.begin_reading()
    }

    /// Tells what comes from a source until that ends, the lines of a moment together.
    pub(crate) async fn tell_all(&mut self, source: &mut impl Source) -> Reading {
        let mut lines = Vec::new();
        let mut weight = 0;
        let mut due = None;
        loop {
            let known = lines.len();
            let more = match due {
                Some(due) => timeout_at(due, source.next(&mut lines)).await,
                None => Ok(source.next(&mut lines).await),
            };
            if more == Ok(true) {
                if lines.is_empty() {
                    continue;
                }
                let due = *due.get_or_insert_with(|| Instant::now() + GATHER);
                weight += lines[known..].iter().map(|line| line.text.len()).sum::<usize>();
                if lines.len() < BATCH && weight < HEAVY && Instant::now() < due {
                    continue;
                }
            }
            (due, weight) = (None, 0);
            if !self.tell(std::mem::take(&mut lines)).await {
                return Reading::Unwanted;
            }
            if more == Ok(false) {
                return Reading::Ended;
            }
        }
    }

    /// Tells those of the lines that were not told before; false when nobody wants them any more.
    async fn tell(&mut self, mut lines: Vec<LogLine>) -> bool {
        self.shown.keep_new(&mut lines);
        if lines.is_empty() {
            return true;
        }
        self.grown |= lines.iter().any(|line| line.at_ms > 0);
        self.allowance.spend(1).await;
        self.seen.send(lines).is_ok()
    }
}

/// Tells a log, and goes on when there is more of it, until nobody wants it or nothing is left of it.
pub(crate) async fn follow<L: Log>(cove: Arc<Cove>, log: L, mut page: Page) {
    let mut pause = AGAIN;
    let mut complained = String::new();
    loop {
        let began = Instant::now();
        page.grown = false;
        let complaint = match log.read(&cove, &mut page).await {
            Reading::Unwanted => return,
            Reading::Ended => String::new(),
            Reading::Failed(complaint) => complaint,
        };
        // The same words again would only push the log out of sight.
        if !complaint.is_empty() && complaint != complained {
            if !page.tell(said(&complaint)).await {
                return;
            }
            complained = complaint;
        }
        if page.grown || began.elapsed() >= A_WHILE {
            (pause, complained) = (AGAIN, String::new());
        } else {
            pause = (pause * 2).min(L::AT_LAST);
        }
        // What ended has not always been told of yet.
        sleep(pause).await;
        let mut rows = cove.rows.subscribe();
        let changed = rows.wait_for(|rows| {
            rows.as_deref()
                .is_some_and(|rows| log.after(rows) != After::Waiting)
        });
        let goes_on = match changed.await {
            Ok(rows) => rows
                .as_deref()
                .is_some_and(|rows| log.after(rows) == After::Reading),
            Err(_) => false,
        };
        if !goes_on {
            return;
        }
    }
}

/// Lines that no container wrote.
pub(crate) fn said(text: &str) -> Vec<LogLine> {
    let lines = text.lines().map(|line| LogLine {
        at_ms: 0,
        stream: LogStream::Stderr,
        text: line.to_owned(),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Streams;
    use cove_view::LogReader;
    use std::{collections::VecDeque, sync::Mutex};
    use tauri::ipc::InvokeResponseBody;

    /// Says one text after another.
    struct Script(VecDeque<&'static str>, LogReader);

    impl Script {
        fn of(texts: &[&'static str]) -> Self {
            Self(texts.iter().copied().collect(), LogReader::new(false))
        }
    }

    impl Source for Script {
        async fn next(&mut self, lines: &mut Vec<LogLine>) -> bool {
            match self.0.pop_front() {
                Some(text) => self.1.take(text.as_bytes(), lines),
                None => self.1.finish(lines),
            }
            !self.0.is_empty()
        }
    }

    /// The lines of each batch.
    type Batches = Arc<Mutex<Vec<Vec<String>>>>;

    /// What comes over a channel.
    fn channel() -> (Channel<Vec<LogLine>>, Batches) {
        let batches = Batches::default();
        let told = Arc::clone(&batches);
        let channel = Channel::new(move |body| {
            let InvokeResponseBody::Json(json) = body else {
                panic!("a log is JSON");
            };
            let lines: Vec<LogLine> = serde_json::from_str(&json).unwrap();
            let texts = lines.into_iter().map(|line| line.text).collect();
            told.lock().unwrap().push(texts);
            Ok(())
        });
        (channel, batches)
    }

    #[test]
    fn what_an_earlier_reading_has_told_is_not_told_again() {
        let (seen, batches) = channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        Streams::default().start(BATCHES, |allowance| async move {
            let mut page = Page::new(seen, allowance);
            assert_eq!(page.since(), None);
            let first = ["2026-03-01T12:00:00.25Z a\n2026-03-01T12:", "00:01Z b\n"];
            page.tell_all(&mut Script::of(&first)).await;
            let since = page.since();
            let second = ["2026-03-01T12:00:00.25Z a\n2026-03-01T12:00:01Z b\n2026-03-01T12:00:01Z c\n"];
            page.tell_all(&mut Script::of(&second)).await;
            sender.send(since).unwrap();
        });
        let since = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(since.as_deref(), Some("1772366400.250"));
        assert_eq!(batches.lock().unwrap().concat(), ["a", "b", "c"]);
    }

    #[test]
    fn long_lines_are_not_gathered_into_one_batch() {
        const LINES: usize = 41;
        let (seen, batches) = channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        let line = format!("2026-03-01T12:00:00Z {}\n", "x".repeat(HEAVY / (LINES - 1)));
        let text: &'static str = line.repeat(LINES).leak();
        Streams::default().start(BATCHES, |allowance| async move {
            let mut page = Page::new(seen, allowance);
            assert_eq!(page.since(), None);
            page.tell_all(&mut Script::of(&[text; 3])).await;
            sender.send(()).unwrap();
        });
        receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        let lengths: Vec<usize> = batches.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(lengths, [LINES; 3]);
    }
}
