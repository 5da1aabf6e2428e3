//! logs: of the daemon, the console, the machine process, the agent, the engine, containerd, the kernel.

use super::Session;
use crate::{args::Log, daemon_link, exit::Exit, output};
use anyhow::Context as _;
use cove_api::{Client, LogQuery, LogSource};
use cove_daemon::LogFile;
use std::{io, process::ExitCode, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often a log that does not exist yet is looked for.
const LOOK: Duration = Duration::from_millis(250);

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
            Ok(None) => return from_file(session, follow, tail, "the daemon is not running").await,
            Err(error) => return from_file(session, follow, tail, &error.to_string()).await,
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

/// Prints the daemon's log without the daemon, which is not there for the reason `why`. Whoever follows it waits for what
/// the next one writes.
async fn from_file(
    session: &Session,
    follow: bool,
    tail: Option<u32>,
    why: &str,
) -> anyhow::Result<ExitCode> {
    let path = session.dirs.logs().join("daemon.log");
    if follow {
        session.say(&format!("note: {why}; what it writes once it does follows"));
    }
    let end = CancellationToken::new();
    let log = loop {
        match LogFile::open(path.clone(), tail, follow, end.clone()).await {
            Ok(log) => break Some(log),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            Err(_) if follow => sleep(LOOK).await,
            Err(_) => break None,
        }
    };
    if let Some(mut log) = log {
        while let Some(data) = log.next().await? {
            output::bytes(&data)?;
        }
    }
    session.say(&format!("note: {why}"));
    Ok(Exit::Done.into())
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
