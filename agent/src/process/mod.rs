//! Child processes, and the orphans that every first process inherits.
//!
//! The kernel hands the exit of every child, adopted orphans included, to whoever waits for "any child". So exactly
//! one place waits: [`reap`], which gives the exit to the [`Child`] that it belongs to and drops the others. The
//! table below is locked while a process is started and while one is reaped or signalled. That is what makes this
//! free of races: no exit is collected before its owner is in the table, and no process id is signalled after it was
//! collected, when it might already belong to another process.
//!
//! ```text
//!  spawn ─▶ running (in the table) ─▶ reaped: removed from the table, exit sent to the Child
//! ```

pub(crate) mod cgroup;
pub(crate) mod confine;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::OwnedFd,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// Children that are alive, and where their exit is to go. A process has one set of children, hence one table.
static RUNNING: Mutex<Running> = Mutex::new(Running {
    children: BTreeMap::new(),
    started: 0,
});

struct Running {
    children: BTreeMap<i32, Entry>,
    /// Processes started so far, which numbers them: process ids come again.
    started: u64,
}

struct Entry {
    number: u64,
    exit: oneshot::Sender<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With an exit status.
    Status(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// The exit code that a shell would report.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A process that the agent started. Dropping it leaves the process alone, and it is still reaped.
pub(crate) struct Child {
    process: Process,
    exit: oneshot::Receiver<Exit>,
    ended: Option<Exit>,
    /// The write end of its standard input, when that is a pipe.
    pub(crate) stdin: Option<OwnedFd>,
    /// The read end of its standard output, when that is a pipe.
    pub(crate) stdout: Option<OwnedFd>,
    /// The read end of its standard error, when that is a pipe.
    pub(crate) stderr: Option<OwnedFd>,
}

impl Child {
    /// Starts `command`. Nothing else in the agent may wait for a child.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut running = running();
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::Unsupported)?;
        let (sender, exit) = oneshot::channel();
        running.started += 1;
        let number = running.started;
        running
            .children
            .insert(pid.as_raw_pid(), Entry { number, exit: sender });
        Ok(Self {
            process: Process { pid, number },
            exit,
            ended: None,
            stdin: child.stdin.take().map(Into::into),
            stdout: child.stdout.take().map(Into::into),
            stderr: child.stderr.take().map(Into::into),
        })
    }

    /// The process, to signal it.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// How the process ended, when it has. May be cancelled and asked again.
    pub(crate) async fn wait(&mut self) -> Exit {
        if let Some(exit) = self.ended {
            return exit;
        }
        // The sender leaves the table only with an exit; without a reaper it would wait for ever.
        let exit = (&mut self.exit)
            .await
            .unwrap_or(Exit::Signal(Signal::KILL.as_raw()));
        *self.ended.insert(exit)
    }
}

/// A process that the agent started and that may have ended. It is signalled only while it has not been collected, so
/// that no other process is ever hit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pid: Pid,
    number: u64,
}

impl Process {
    /// Sends `signal` to the process, unless it has ended.
    pub(crate) fn signal(self, signal: Signal) {
        self.send(signal, kill_process);
    }

    /// Sends `signal` to the process group that the process leads, unless it has ended.
    pub(crate) fn signal_group(self, signal: Signal) {
        self.send(signal, kill_process_group);
    }

    /// Whether the process has not been collected yet.
    #[cfg(test)]
    pub(crate) fn is_running(self) -> bool {
        let running = running();
        running
            .children
            .get(&self.pid.as_raw_pid())
            .is_some_and(|entry| entry.number == self.number)
    }

    fn send(self, signal: Signal, kill: fn(Pid, Signal) -> rustix::io::Result<()>) {
        let running = running();
        let alive = running
            .children
            .get(&self.pid.as_raw_pid())
            .is_some_and(|entry| entry.number == self.number);
        if alive && let Err(error) = kill(self.pid, signal) {
            tracing::warn!(process = %self, ?signal, "signalling failed: {error}");
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid.as_raw_nonzero())
    }
}

/// Collects the exits of all children, for ever.
pub(crate) async fn reap() -> io::Result<()> {
    let mut exits = signal(SignalKind::child())?;
    loop {
        // First, for those that ended before the signal was listened to.
        while reap_one() {}
        exits.recv().await;
    }
}

fn reap_one() -> bool {
    let mut running = running();
    match wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            if let Some(entry) = running.children.remove(&pid.as_raw_pid()) {
                // An error says that nobody wants to know.
                let _ = entry.exit.send(exit_of(status));
            }
            true
        }
        Ok(None) => false,
        Err(error) => error == rustix::io::Errno::INTR,
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Status(status.exit_status().unwrap_or(-1)),
    }
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Child {
        Child::spawn(Command::new("/bin/sh").args(["-c", script])).unwrap()
    }

    #[tokio::test]
    async fn each_of_many_children_gets_its_own_exit() {
        let reaper = tokio::spawn(reap());
        let mut children: Vec<_> = (0..30).map(|code| (code, sh(&format!("exit {code}")))).collect();
        for (code, child) in &mut children {
            assert_eq!(child.wait().await, Exit::Status(*code));
            assert_eq!(child.wait().await, Exit::Status(*code), "asked again");
        }
        reaper.abort();
    }

    #[tokio::test]
    async fn a_signalled_child_says_so_and_leaves_the_table() {
        let reaper = tokio::spawn(reap());
        let mut child = sh("sleep 60");
        child.process().signal(Signal::TERM);
        assert_eq!(child.wait().await, Exit::Signal(Signal::TERM.as_raw()));
        assert_eq!(child.wait().await.code(), 143);
        assert!(!running().children.contains_key(&child.process().pid.as_raw_pid()));
        reaper.abort();
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_of_the_spawn() {
        let error = Child::spawn(&mut Command::new("/nonexistent")).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
