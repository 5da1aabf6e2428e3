//! logs: of the daemon, the console, the machine process, the agent, the engine, containerd, the kernel.

use super::Session;
use crate::{args::Log, daemon_link, exit::Exit, output};
use anyhow::Context as _;
use cove_api::{Client, LogQuery, LogSource};
use std::{fs, io, process::ExitCode};

pub(super) async fn run(
    session: &Session,
    source: Log,
    follow: bool,
    tail: Option<u32>,
) -> anyhow::Result<ExitCode> {
    // A daemon that does not start, or hangs, is when its log is wanted most, so that one is also read without it.
    if source == Log::Daemon {
        match daemon_link::running(&Client::of(&session.dirs)).await {
            Ok(Some(_)) => {}
            Ok(None) => return from_file(session, tail, "the daemon is not running"),
            Err(error) => return from_file(session, tail, &error.to_string()),
        }
    }
    let wanted = LogQuery {
        source: source.into(),
        follow,
        tail,
    };
    let mut log = session.daemon().await?.logs(&session.machine, wanted).await?;
    while let Some(data) = log.next().await? {
        output::bytes(&data)?;
    }
    Ok(Exit::Done.into())
}

/// Prints the daemon's log without the daemon, which is not there for the reason `why`.
fn from_file(session: &Session, tail: Option<u32>, why: &str) -> anyhow::Result<ExitCode> {
    let path = session.dirs.logs().join("daemon.log");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let lines = tail.map_or(usize::MAX, |tail| usize::try_from(tail).unwrap_or(usize::MAX));
    output::bytes(last_lines(&text, lines))?;
    session.say(&format!("note: {why}"));
    Ok(Exit::Done.into())
}

fn last_lines(text: &[u8], count: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut begin = body.len();
    for _ in 0..count {
        match body[..begin].iter().rposition(|&byte| byte == b'\n') {
            Some(newline) => begin = newline,
            None => return text,
        }
    }
    // `begin` is at the newline before the first wanted line, or at the end when none is wanted.
    text.get(begin + 1..).unwrap_or_default()
}

impl From<Log> for LogSource {
    fn from(log: Log) -> Self {
        match log {
            Log::Daemon => Self::Daemon,
            Log::Console => Self::Console,
            Log::Machine => Self::Machine,
            Log::Agent => Self::Agent,
            Log::Engine => Self::Engine,
            Log::Containerd => Self::Containerd,
            Log::Kernel => Self::Kernel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_the_last_lines() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a\nb\n", 9), b"a\nb\n");
        assert_eq!(last_lines(b"a\nb\n", 0), b"");
        assert_eq!(last_lines(b"", 3), b"");
    }
}
