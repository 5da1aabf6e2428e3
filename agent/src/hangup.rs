//! `cove-agent hangup PROCESS CONTAINER`: ends a shell that the engine started in a container when the host lets go of
//! its terminal. The engine has no call for that, and its own end of the terminal stays open.
//!
//! ```text
//!  start ─▶ held ──the host hangs up: SIGHUP──▶ the shell gets SIGHUP, later SIGKILL ─▶ end
//!            └────the shell ends by itself──────────────────────────────────────────────▶ end
//! ```
//!
//! What gets signals is the very process that was held when the terminal was opened, and no other that has its number
//! since. What runs in the shell is hung up on by the kernel, once the shell has ended that leads its session.

use crate::descriptor::awaited;
use cove_wire::{HANGUP_ARGUMENT, HELD};
use rustix::process::{Pid, PidfdFlags, Signal, getsid, pidfd_open, pidfd_send_signal};
use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::fd::OwnedFd,
    process::ExitCode,
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

/// How long a shell may take to end before it is killed: less than this process is given itself when the host has hung
/// up (`serve/exec.rs`).
const FAREWELL: Duration = Duration::from_secs(3);
/// The engine's ids are as long as this, in hexadecimal digits.
const ID_LENGTH: usize = 64;

/// Why a shell is not held.
#[derive(Debug, thiserror::Error)]
enum HangupError {
    #[error("`{0}` is not the number of a process")]
    Process(String),
    #[error("`{0}` is not the id of a container")]
    Container(String),
    #[error("process {0} has ended, or leads no session in that container")]
    Other(i32),
    #[error("cannot hold the process: {0}")]
    Io(#[from] io::Error),
}

/// The number of the process and the container's id, if this process was started to hold one.
pub(crate) fn wanted() -> Option<[OsString; 2]> {
    // Its own name comes first.
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == HANGUP_ARGUMENT).then(|| [(); 2].map(|()| arguments.next().unwrap_or_default()))
}

/// Holds it until either it has ended or the host has hung up.
pub(crate) fn run([process, container]: &[OsString; 2]) -> ExitCode {
    let held = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(HangupError::from)
        .and_then(|runtime| runtime.block_on(keep(&process.to_string_lossy(), &container.to_string_lossy())));
    match held {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the shell is not held: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn keep(process: &str, container: &str) -> Result<(), HangupError> {
    // Before the host is told, which may hang up at once.
    let mut hangups = signal(SignalKind::hangup())?;
    let shell = hold(process, container)?;
    io::stdout().write_all(HELD.as_bytes())?;
    io::stdout().flush()?;
    let done = tokio::select! {
        _ = hangups.recv() => hang_up(&shell).await,
        ended = shell.readable() => ended.map(drop),
    };
    Ok(done?)
}

/// Takes hold of a process that leads a session of this container.
fn hold(process: &str, container: &str) -> Result<AsyncFd<OwnedFd>, HangupError> {
    let number: Option<i32> = process.parse().ok();
    // The guest's first process is not in a container, and numbers below are not of one process.
    let pid = number.filter(|number| *number > 1).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| HangupError::Process(process.to_owned()))?;
    if container.len() != ID_LENGTH || !container.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(HangupError::Container(container.to_owned()));
    }
    let other = HangupError::Other(pid.as_raw_pid());
    let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Err(other);
    };
    // Asked of what is held already: another process that has its number by then would not get the signals.
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_pid())).unwrap_or_default();
    if !cgroup.contains(container) || getsid(Some(pid)) != Ok(pid) {
        return Err(other);
    }
    Ok(awaited(held)?)
}

/// Ends a process as the end of its terminal would, and one that does not mind is killed.
async fn hang_up(process: &AsyncFd<OwnedFd>) -> io::Result<()> {
    // A process that has ended takes no signal, which is what is wanted.
    let send = |signal| {
        let _ = pidfd_send_signal(process, signal);
    };
    send(Signal::HUP);
    // One that was stopped would not get to it.
    send(Signal::CONT);
    if let Ok(ended) = timeout(FAREWELL, process.readable()).await {
        return ended.map(drop);
    }
    send(Signal::KILL);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Child, Exit, reap};
    use std::process::{Command, Stdio};
    use tokio::task::JoinHandle;

    /// A shell that runs this once it has said so, and who collects its exit.
    async fn shell(script: &str) -> (Child, AsyncFd<OwnedFd>, JoinHandle<io::Result<()>>) {
        let reaper = tokio::spawn(reap());
        let script = format!("{script}; echo up; while :; do sleep 0.05; done");
        // Who runs the tests may ignore hang-ups, and what a shell is started to ignore it cannot trap.
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=HUP", "/bin/sh", "-c", &script]);
        command.stdout(Stdio::piped());
        let mut child = Child::spawn(&mut command).unwrap();
        let said = child.stdout.take().unwrap();
        rustix::io::ioctl_fionbio(&said, true).unwrap();
        let said = awaited(said).unwrap();
        drop(said.readable().await.unwrap());
        let pid = Pid::from_raw(child.process().to_string().parse().unwrap()).unwrap();
        let held = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        (child, awaited(held).unwrap(), reaper)
    }

    #[tokio::test]
    async fn a_shell_hears_that_its_terminal_is_gone() {
        let (mut child, held, reaper) = shell("trap 'exit 7' HUP").await;
        hang_up(&held).await.unwrap();
        assert_eq!(child.wait().await, Exit::Status(7));
        reaper.abort();
    }

    #[tokio::test]
    async fn a_shell_that_does_not_mind_is_killed() {
        let (mut child, held, reaper) = shell("trap '' HUP").await;
        hang_up(&held).await.unwrap();
        assert_eq!(child.wait().await, Exit::Signal(Signal::KILL.as_raw()));
        // To one that has ended nothing happens.
        hang_up(&held).await.unwrap();
        reaper.abort();
    }

    #[tokio::test]
    async fn only_a_process_of_that_container_is_held() {
        let container = "0123456789abcdef".repeat(4);
        for process in ["", "0", "1", "-1", "1x", "99999999999"] {
            let refused = hold(process, &container);
            assert!(matches!(refused, Err(HangupError::Process(_))), "{process}");
        }
        let ours = std::process::id().to_string();
        for id in ["", "0123", &"../".repeat(22)[..ID_LENGTH]] {
            assert!(matches!(hold(&ours, id), Err(HangupError::Container(_))), "{id}");
        }
        assert!(matches!(hold(&ours, &container), Err(HangupError::Other(_))));
    }
}
