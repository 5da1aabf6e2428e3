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
use std::{future::Future, process::ExitCode, time::Duration};

/// How long the daemon's process may take to end once it answers nobody: longer than the minute for which it waits for
/// others itself.
#[cfg(target_os = "linux")]
const END_TIMEOUT: rustix::event::Timespec = rustix::event::Timespec {
    tv_sec: 70,
    tv_nsec: 0,
};

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
    // Looked for while the number is sure to be the daemon's.
    let end = end_of(daemon.pid);
    client.shutdown().await?;
    // Answered once the machines have stopped; the process itself ends a moment later, and may have a successor then.
    while daemon_link::running(&client)
        .await
        .is_ok_and(|version| version.is_some_and(|version| version.pid == daemon.pid))
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Whoever removes the directories next finds nobody writing to them.
    if !end.await {
        let process = daemon.pid;
        return Err(Failure::new(
            Exit::Timeout,
            format!("the machines have stopped, but the daemon, process {process}, does not end"),
            format!("end it with: kill -9 {process}"),
        )
        .into());
    }
    progress.done("stopped the daemon");
    Ok(Exit::Done.into())
}

/// Waits for the end of a process, and returns whether it came. Where it cannot be seen from here, it is not waited for.
#[cfg(target_os = "linux")]
fn end_of(process: u32) -> impl Future<Output = bool> {
    use rustix::{
        event::{PollFd, PollFlags, poll},
        io::retry_on_intr,
        process::{Pid, PidfdFlags, pidfd_open},
    };

    let number = i32::try_from(process).ok().and_then(Pid::from_raw);
    let life = number.and_then(|number| pidfd_open(number, PidfdFlags::empty()).ok());
    async move {
        let Some(life) = life else { return true };
        let ending = tokio::task::spawn_blocking(move || {
            // Readable once the process has ended.
            let mut ends = [PollFd::new(&life, PollFlags::IN)];
            retry_on_intr(|| poll(&mut ends, Some(&END_TIMEOUT)))
        });
        // Nothing was ready when the time was over.
        !matches!(ending.await, Ok(Ok(0)))
    }
}

/// Elsewhere that it answers no more has to do.
#[cfg(not(target_os = "linux"))]
fn end_of(_: u32) -> impl Future<Output = bool> {
    std::future::ready(true)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::{process::Command, time::Instant};

    #[tokio::test]
    async fn the_end_of_a_process_is_waited_for() {
        let mut sleeper = Command::new("sleep").arg("0.3").spawn().unwrap();
        let began = Instant::now();
        assert!(end_of(sleeper.id()).await);
        assert!(began.elapsed() >= Duration::from_millis(250));
        sleeper.wait().unwrap();
        // Gone before anybody looked.
        assert!(end_of(sleeper.id()).await);
    }
}
