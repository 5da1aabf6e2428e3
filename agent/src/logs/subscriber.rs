//! Where the agent's own spans and events go: all of them from `info` on to its log, warnings to the console too.

use super::Log;
use crate::clock::uptime_us;
use bytes::Bytes;
use std::{fmt, io};
use tracing::{Level, Subscriber};
use tracing_subscriber::{
    fmt::{MakeWriter, format::Writer, time::FormatTime},
    util::SubscriberInitExt,
};

/// Sends events to `log` from now on.
pub(crate) fn install(log: &Log) {
    let installed = subscriber(log.clone(), Console::Shown).try_init();
    if let Err(error) = installed {
        eprintln!("cove-agent: keeping a log failed: {error}");
    }
}

fn subscriber(log: Log, console: Console) -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt()
        .with_max_level(Level::INFO)
        .with_ansi(false)
        .with_timer(SinceBoot)
        .with_writer(Destination { log, console })
        .finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Console {
    Shown,
    #[cfg(test)]
    Silent,
}

/// Seconds since the kernel started, as the kernel's own messages have them.
struct SinceBoot;

impl FormatTime for SinceBoot {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = uptime_us();
        write!(writer, "[{:5}.{:06}]", now / 1_000_000, now % 1_000_000)
    }
}

struct Destination {
    log: Log,
    console: Console,
}

impl<'a> MakeWriter<'a> for Destination {
    type Writer = EventWriter<'a>;

    fn make_writer(&'a self) -> EventWriter<'a> {
        EventWriter {
            log: &self.log,
            console: false,
        }
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> EventWriter<'a> {
        EventWriter {
            log: &self.log,
            console: self.console == Console::Shown && *metadata.level() <= Level::WARN,
        }
    }
}

struct EventWriter<'a> {
    log: &'a Log,
    console: bool,
}

impl io::Write for EventWriter<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if self.console {
            // A console that fails must not cost the log its line.
            let _ = io::stderr().write_all(event);
        }
        self.log.push(Bytes::copy_from_slice(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_becomes_one_line_with_its_spans_and_fields() {
        let log = Log::default();
        tracing::subscriber::with_default(subscriber(log.clone(), Console::Silent), || {
            let _span = tracing::info_span!("boot", attempt = 2).entered();
            tracing::warn!(disk = "/dev/vdb", "not clean");
            tracing::debug!("not kept");
        });
        let text = log.last_lines(10);
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in ["WARN", "boot{attempt=2}", "not clean", "disk=\"/dev/vdb\""] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
