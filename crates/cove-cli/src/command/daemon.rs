//! daemon: the daemon itself, in this process; and its end.

use super::{Session, wait_for};
use crate::{
    args::{Daemon, DaemonAction},
    daemon_link,
    exit::Exit,
    failure::Failure,
    progress::Progress,
};
use anyhow::Context as _;
use cove_api::Client;
use cove_daemon::{DaemonError, Options};
use std::process::ExitCode;

pub(super) fn run(session: &Session, what: &Daemon) -> anyhow::Result<ExitCode> {
    match what.action {
        Some(DaemonAction::Stop) => wait_for(stop(session)),
        Some(DaemonAction::Run) | None => serve(session, what.detached),
    }
}

fn serve(session: &Session, detached: bool) -> anyhow::Result<ExitCode> {
    if detached {
        leave_session();
    }
    let options = Options {
        program: std::env::current_exe().context("cannot tell where this program is")?,
        log_to_stderr: !detached,
    };
    match cove_daemon::run(&session.dirs, &options) {
        Ok(()) => Ok(Exit::Done.into()),
        // Two commands started it at the same time: whoever started us reaches the other one.
        Err(DaemonError::AlreadyRunning { .. }) if detached => Ok(Exit::Done.into()),
        Err(error @ DaemonError::AlreadyRunning { .. }) => {
            Err(Failure::new(Exit::Failed, error.to_string(), "stop it with: cove daemon stop").into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Out of the session of the terminal that the first command came from, so that its end is not ours.
fn leave_session() {
    #[cfg(unix)]
    if let Err(error) = rustix::process::setsid() {
        crate::output::note(format_args!(
            "note: the daemon stays in the terminal's session: {error}"
        ));
    }
}

async fn stop(session: &Session) -> anyhow::Result<ExitCode> {
    let client = Client::of(&session.dirs);
    let Some(daemon) = daemon_link::running(&client).await? else {
        session.say("the daemon is not running");
        return Ok(Exit::Done.into());
    };
    let progress = Progress::new(session.quiet);
    progress.stage("Stopping the machines and the daemon", None);
    client.shutdown().await?;
    // Answered once the machines have stopped; the process itself ends a moment later, and may have a successor then.
    while daemon_link::running(&client)
        .await
        .is_ok_and(|version| version.is_some_and(|version| version.pid == daemon.pid))
    {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    progress.done("stopped the daemon");
    Ok(Exit::Done.into())
}
