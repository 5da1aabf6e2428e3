//! One supervised program.
//!
//! ```text
//!         start            ends by itself
//!  Down ────────▶ Running ────────────────▶ Pausing
//!   ▲  ▲ stopped     │  ▲     pause over       │
//!   │  └─────────────┘  └──────────────────────┤
//!   └──────────────────────────────────────────┘ stopped
//! ```
//!
//! The supervisor owns it and is told when something happened by [`Program::event`].

use super::backoff::Backoff;
use crate::{
    logs::Log,
    process::{Child, Exit},
};
use rustix::process::Signal;
use std::{
    io,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// Last lines of a program's log that say why it ended.
const WHY_LINES: u64 = 5;

/// How long the reader of an ended program's output may take. Its own children may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A program that is started again when it ends.
pub(crate) struct Program {
    name: &'static str,
    log: Log,
    state: State,
    backoff: Backoff,
}

enum State {
    Down,
    Running(Running),
    Pausing { until: Instant, failure: Failure },
}

struct Running {
    child: Child,
    since: Instant,
    readers: Vec<JoinHandle<io::Result<()>>>,
}

/// How a program failed, and what follows.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) attempt: u32,
    pub(crate) pause: Duration,
    pub(crate) why: String,
}

/// What happened to a program.
#[derive(Debug)]
pub(crate) enum Happened {
    /// It ended by itself.
    Ended,
    /// The pause before its next start is over.
    PauseOver,
}

impl Program {
    pub(crate) fn new(name: &'static str, log: Log) -> Self {
        Self {
            name,
            log,
            state: State::Down,
            backoff: Backoff::default(),
        }
    }

    /// Starts the program, or pauses when that fails.
    pub(crate) fn start(&mut self, command: io::Result<Command>) {
        let started = command.and_then(|mut command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            Child::spawn(&mut command)
        });
        match started {
            Ok(mut child) => {
                tracing::info!(program = self.name, pid = %child.process(), "started");
                let pipes = [child.stdout.take(), child.stderr.take()].into_iter().flatten();
                let readers = pipes
                    .map(|pipe| tokio::spawn(self.log.clone().fill_from(pipe)))
                    .collect();
                let since = Instant::now();
                self.state = State::Running(Running {
                    child,
                    since,
                    readers,
                });
            }
            Err(error) => self.pause(
                Duration::ZERO,
                format!("{} could not be started: {error}", self.name),
            ),
        }
    }

    /// Waits for the program to end, or for its pause to be over; for ever when it is down.
    pub(crate) async fn event(&mut self) -> Happened {
        match &mut self.state {
            State::Down => std::future::pending().await,
            State::Pausing { until, .. } => {
                sleep_until(*until).await;
                Happened::PauseOver
            }
            State::Running(running) => {
                running.child.wait().await;
                Happened::Ended
            }
        }
    }

    /// Notes that the program ended by itself, and pauses.
    pub(crate) async fn ended(&mut self) {
        if let State::Running(mut running) = std::mem::replace(&mut self.state, State::Down) {
            let ran = running.since.elapsed();
            let exit = running.close().await;
            let said = self.log.last_lines(WHY_LINES);
            self.pause(
                ran,
                format!("{} ended with {exit}; its last lines:\n{said}", self.name),
            );
        }
    }

    /// Asks the program to end and waits. One that has not ended after `patience` is killed.
    pub(crate) async fn stop(&mut self, patience: Duration) {
        if let State::Running(mut running) = std::mem::replace(&mut self.state, State::Down) {
            running.child.process().signal(Signal::TERM);
            if timeout(patience, running.child.wait()).await.is_err() {
                tracing::warn!(
                    program = self.name,
                    ?patience,
                    "did not end in time and is killed"
                );
                running.child.process().signal(Signal::KILL);
            }
            let exit = running.close().await;
            tracing::info!(program = self.name, %exit, "stopped");
        }
    }

    /// Sends `signal` when the program runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let State::Running(running) = &self.state {
            running.child.process().signal(signal);
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// How it failed, while it pauses for it.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match &self.state {
            State::Pausing { failure, .. } => Some(failure),
            State::Down | State::Running(_) => None,
        }
    }

    fn pause(&mut self, ran: Duration, why: String) {
        let (attempt, pause) = self.backoff.failed(ran);
        tracing::warn!(program = self.name, attempt, ?pause, "{why}");
        self.state = State::Pausing {
            until: Instant::now() + pause,
            failure: Failure { attempt, pause, why },
        };
    }
}

impl Running {
    /// Waits for the exit, and for the output to be in the log.
    async fn close(&mut self) -> Exit {
        let exit = self.child.wait().await;
        for reader in &mut self.readers {
            if timeout(LAST_WORDS, &mut *reader).await.is_err() {
                reader.abort();
            }
        }
        exit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::reap;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_program_that_ends_says_why_with_its_last_lines() {
        let reaper = tokio::spawn(reap());
        let mut program = Program::new("dockerd", Log::default());
        program.start(Ok(sh("echo starting; echo no space left >&2; exit 3")));
        assert!(matches!(program.event().await, Happened::Ended));
        program.ended().await;
        let failure = program.failure().unwrap().clone();
        assert_eq!(failure.attempt, 1);
        for part in ["dockerd ended with exit status 3", "starting", "no space left"] {
            assert!(failure.why.contains(part), "{part} is missing in {}", failure.why);
        }
        assert!(matches!(program.event().await, Happened::PauseOver));
        reaper.abort();
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_pauses_too() {
        let mut program = Program::new("dockerd", Log::default());
        program.start(Ok(Command::new("/nonexistent")));
        assert!(!program.is_running());
        assert!(program.failure().unwrap().why.contains("could not be started"));
    }

    #[tokio::test]
    async fn a_program_that_ignores_the_request_to_end_is_killed() {
        let reaper = tokio::spawn(reap());
        let log = Log::default();
        let mut follower = log.follow(None);
        let mut program = Program::new("dockerd", log);
        program.start(Ok(sh("trap '' TERM; echo trapped; while :; do sleep 1; done")));
        follower.more().await;
        timeout(Duration::from_secs(10), program.stop(Duration::from_millis(50)))
            .await
            .unwrap();
        assert!(!program.is_running() && program.failure().is_none());
        reaper.abort();
    }
}
