//! daemon: the daemon itself, in this process; and its end.

use super::{Session, wait_for};
use crate::{args::DaemonAction, daemon_link, exit::Exit, failure::Failure, progress::Progress};
use anyhow::Context as _;
use cove_api::Client;
use cove_daemon::{DaemonError, Options};
use std::{process::ExitCode, time::Duration};

/// How long the daemon's process may take to end once it answers nobody: longer than the minute for which it waits for
/// others itself.
#[cfg(target_os = "linux")]
const END_TIMEOUT: Duration = Duration::from_secs(70);

pub(super) fn run(session: &Session, action: Option<DaemonAction>) -> anyhow::Result<ExitCode> {
    match action {
        Some(DaemonAction::Stop) => wait_for(stop(session)),
        Some(DaemonAction::Run) | None => serve(session, false),
    }
}

/// As other commands start it: on its own, and its log is nobody's standard error.
pub(super) fn run_detached(session: &Session) -> anyhow::Result<ExitCode> {
    leave_session();
    serve(session, true)
}

fn serve(session: &Session, detached: bool) -> anyhow::Result<ExitCode> {
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
    #[cfg(target_os = "linux")]
    let process = process::Process::at(client.socket()).await;
    client.shutdown().await?;
    // Answered once the machines have stopped; the process itself ends a moment later, and may have a successor then.
    while daemon_link::running(&client)
        .await
        .is_ok_and(|version| version.is_some_and(|version| version.pid == daemon.pid))
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Whoever removes the directories next finds nobody writing to them. Elsewhere that it answers no more has to do.
    #[cfg(target_os = "linux")]
    if let Some(process) = process {
        let number = process.number();
        if !process.ends_within(END_TIMEOUT).await {
            return Err(Failure::new(
                Exit::Timeout,
                format!("the machines have stopped, but the daemon, process {number}, does not end"),
                format!("end it with: kill -9 {number}"),
            )
            .into());
        }
    }
    progress.done("stopped the daemon");
    Ok(Exit::Done.into())
}

#[cfg(target_os = "linux")]
mod process {
    use cove_api::transport;
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        io::retry_on_intr,
        process::{Pid, PidfdFlags, pidfd_open},
    };
    use std::{os::fd::OwnedFd, path::Path, time::Duration};
    use tokio::task::spawn_blocking;

    /// A process, and no other that has its number later.
    pub(super) struct Process {
        number: i32,
        life: OwnedFd,
    }

    impl Process {
        /// The one that listens at this socket, if it can be seen from here. Its number is ours for it: a daemon in
        /// another namespace has another one for itself.
        pub(super) async fn at(socket: &Path) -> Option<Self> {
            let number = transport::connect(socket).await.ok()?.peer_cred().ok()?.pid()?;
            Self::of(number)
        }

        fn of(number: i32) -> Option<Self> {
            let life = pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?;
            Some(Self { number, life })
        }

        pub(super) fn number(&self) -> i32 {
            self.number
        }

        /// Whether it ends in time. Where that cannot be told, it is taken for granted.
        pub(super) async fn ends_within(self, limit: Duration) -> bool {
            let Ok(limit) = Timespec::try_from(limit) else {
                return true;
            };
            let waiting = spawn_blocking(move || {
                // Readable once the process has ended.
                let mut ends = [PollFd::new(&self.life, PollFlags::IN)];
                retry_on_intr(|| poll(&mut ends, Some(&limit)))
            });
            // Nothing was ready when the time was over.
            !matches!(waiting.await, Ok(Ok(0)))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::process::Command;

        #[tokio::test]
        async fn the_process_at_a_socket_is_waited_for() {
            let place = std::env::temp_dir().join(format!("cove-cli-{}.sock", std::process::id()));
            let listener = tokio::net::UnixListener::bind(&place).unwrap();
            let ours = Process::at(&place).await;
            std::fs::remove_file(&place).unwrap();
            drop(listener);
            let ours = ours.unwrap();
            assert_eq!(u32::try_from(ours.number()).unwrap(), std::process::id());
            assert!(!ours.ends_within(Duration::from_millis(10)).await);
        }

        #[tokio::test]
        async fn a_process_that_ends_is_seen_to_end() {
            let mut sleeper = Command::new("sleep").arg("0.1").spawn().unwrap();
            let process = Process::of(i32::try_from(sleeper.id()).unwrap()).unwrap();
            assert!(process.ends_within(Duration::from_secs(20)).await);
            sleeper.wait().unwrap();
        }
    }
}
