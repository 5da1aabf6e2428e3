//! What an owner does when something has come out, or has happened.

use super::{Owner, Phase, Waiters, commands::short};
use crate::{
    host,
    machine::{
        agent::Happening,
        clean,
        disk::{LEAST_FREE, LOW_FREE},
        failure::Failure,
        last_failure::LastFailure,
        operation::Operation,
        session::{Outcome, Session, Setback, Topic, Update},
        start::{Job, unix_nanos, unix_seconds},
        stop::Stopped,
    },
};
use cove_api::{ApiError, BackendReport, MachineState};
use cove_machine::{BackendKind, Exit, ExitCause, MachineError};
use cove_wire::{Call, EngineState};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{task::JoinError, time::Instant};

/// So many ticks make up a minute, after which the guest's clock is set in any case.
const TICKS_A_MINUTE: u32 = 6;
/// A difference between the clocks that only sleep, or somebody who sets the clock, explains.
const JUMP: Duration = Duration::from_secs(2);
/// How long setting the clock may take.
const SET_CLOCK: Duration = Duration::from_secs(10);

impl Owner {
    /// A job tells how far it is.
    pub(super) fn heed(&mut self, update: Update) {
        let Phase::Starting { operation, .. } = &mut self.phase else {
            return;
        };
        match update {
            Update::Stage { message, fraction } => {
                operation.stage(message.clone(), fraction);
                self.set_stage(message);
            }
            Update::Notice { topic, message } => {
                // A second try finds what the first one found.
                if self.notices.get(&topic) != Some(&message) {
                    operation.notice(message.clone());
                    tracing::warn!("{message}");
                    self.notices.insert(topic, message);
                }
            }
            Update::Machine { machine, record } => {
                self.snapshot.backend = BackendReport {
                    kind: record.kind.to_string(),
                    reason: record.reason.clone(),
                };
                self.snapshot.engine_version = Some(record.engine_version.clone());
                self.snapshot.timings.clone_from(&record.timings);
                self.snapshot.record = Some(Arc::from(record));
                self.snapshot.machine = Some(machine);
            }
            Update::Crashed => {
                self.snapshot.machine = None;
                self.snapshot.record = None;
            }
            Update::Timings(timings) => self.snapshot.timings = timings,
        }
    }

    pub(super) fn set_stage(&mut self, stage: String) {
        self.snapshot.state = MachineState::Starting { stage };
    }

    /// A start, or a cancelled one, has come to its end.
    pub(super) async fn started(&mut self, outcome: Result<Outcome, JoinError>) {
        let outcome = outcome
            .unwrap_or_else(|error| Outcome::Down(Setback::from(Failure::Unforeseen(error.to_string()))));
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Starting {
                operation, looking, ..
            } => match outcome {
                Outcome::Up(session) => {
                    self.place.forget_failure(&session.record.kind.to_string());
                    self.notices.remove(&Topic::Engine);
                    self.snapshot.record = Some(Arc::new(session.record.clone()));
                    // One that was found standing was told to, unless it is held.
                    if looking.is_some() && session.machine.paused() && !session.machine.held() {
                        self.phase = Phase::Paused(session);
                    } else {
                        self.phase = Phase::Running(session);
                        self.turned();
                    }
                    // Whoever asked for a start while it was being looked for wants it to run.
                    if looking == Some(true)
                        && matches!(self.phase, Phase::Paused(_))
                        && let Err(error) = self.resume().await
                    {
                        return operation.failed(error);
                    }
                    if let Phase::Running(_) = self.phase {
                        tracing::info!("the engine answers");
                        self.tend();
                    }
                    self.done(operation);
                }
                Outcome::Nothing { past } => {
                    if looking == Some(true) {
                        self.begin(operation, None, Job::start);
                    } else {
                        self.now_stopped(Waiters {
                            stops: vec![operation],
                            start: None,
                        });
                    }
                    if let Some(past) = past {
                        tracing::info!("{past}");
                        self.notices.insert(Topic::Past, past);
                    }
                }
                // Whoever asked for a start wants the machine, and not the end of the one before it; which has to have
                // ended.
                Outcome::Down(setback)
                    if looking == Some(true)
                        && setback.session.is_none()
                        && !setback.failure.leaves_it_out_of_reach() =>
                {
                    let past = self.fail(setback).message;
                    self.begin(operation, None, Job::start);
                    self.notices.insert(Topic::Past, format!("earlier: {past}"));
                }
                Outcome::Down(setback) => {
                    let error = self.fail(setback);
                    operation.failed(error);
                }
            },
            Phase::Stopping { kill, waiters, .. } => match outcome {
                Outcome::Down(setback)
                    if setback.failure.leaves_it_out_of_reach() && !kill.is_cancelled() =>
                {
                    let error = self.fail(setback);
                    waiters.fail(&error);
                }
                Outcome::Up(session)
                | Outcome::Down(Setback {
                    session: Some(session),
                    ..
                }) => self.end(*session, false, kill, waiters),
                Outcome::Down(Setback { session: None, .. }) | Outcome::Nothing { .. } => {
                    self.see_off(kill, waiters);
                }
            },
            other => self.phase = other,
        }
    }

    /// The machine was taken down, or could not be.
    pub(super) fn stopped(&mut self, stopped: Result<Result<Stopped, MachineError>, JoinError>) {
        let Phase::Stopping { mut waiters, .. } = std::mem::replace(&mut self.phase, Phase::Stopped) else {
            return;
        };
        let failure = match stopped {
            Ok(Ok(Stopped { notice })) => {
                if let Some(notice) = notice {
                    tracing::warn!("{notice}");
                    for operation in waiters.each() {
                        operation.notice(notice.clone());
                    }
                    self.notices.insert(Topic::Past, notice);
                }
                return self.now_stopped(waiters);
            }
            Ok(Err(error)) => Failure::Backend(error),
            Err(error) => Failure::Unforeseen(error.to_string()),
        };
        let error = self.fail(failure.into());
        waiters.fail(&error);
    }

    /// Something happened to the machine or in it.
    pub(super) fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Exited(exit) => self.exited(exit),
            Happening::Greeted {
                status,
                kernel_started,
            } => {
                self.notices.remove(&Topic::Agent);
                if status.engine == EngineState::Stopped {
                    self.boot_again(Some(kernel_started));
                }
            }
            Happening::Rebooted => self.boot_again(None),
            Happening::Turned => self.turned(),
            Happening::Engine(EngineState::Ready) => {
                self.notices.remove(&Topic::Engine);
                self.recovered();
            }
            Happening::Engine(EngineState::Restarting { why, attempt, .. }) => {
                tracing::warn!(attempt, why, "the engine failed and is started again");
                let message = format!("the Docker engine failed and is started again: {why}");
                self.notices.insert(Topic::Engine, message);
            }
            Happening::Lost { why } => {
                let message = format!("the guest's agent does not answer ({why}); Cove keeps trying");
                if self.notices.insert(Topic::Agent, message.clone()).as_ref() != Some(&message) {
                    tracing::warn!("{message}");
                }
            }
            Happening::Warning(message) => {
                tracing::warn!("the guest warns: {message}");
                self.notices.insert(Topic::Guest, message);
            }
            Happening::Refused(mismatch) => {
                self.notices.insert(Topic::Agent, mismatch.to_string());
            }
            Happening::Stage(_) | Happening::Engine(EngineState::Stopped | EngineState::Starting) => {}
        }
    }

    /// The machine ended, and nobody had asked for that.
    fn exited(&mut self, exit: Exit) {
        let powered_off = exit.cause == ExitCause::PoweredOff;
        match &mut self.phase {
            // Why it failed first is what matters.
            Phase::Failed { session, .. } => {
                *session = None;
                self.gone();
            }
            _ if powered_off => {
                tracing::info!("the guest powered itself off");
                self.notices
                    .insert(Topic::Past, "the guest powered itself off".into());
                self.gone();
                self.phase = Phase::Stopped;
            }
            _ => {
                self.fail(Setback {
                    failure: Failure::Exited(exit.cause),
                    console_tail: exit.console_tail,
                    session: None,
                });
            }
        }
    }

    /// The engine answers; a machine that had failed for the lack of it has not failed any more.
    fn recovered(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Failed {
                session: Some(session),
                ..
            } => {
                tracing::info!("the engine came up after all");
                self.phase = Phase::Running(session);
            }
            other => self.phase = other,
        }
    }

    /// The vCPUs stopped or go on. A guest is held in the very moment in which a write to a disk found no space on the
    /// host, so that it loses nothing.
    pub(super) fn turned(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Running(session) if session.machine.paused() => {
                if session.machine.held() {
                    // Space that is there again by now was not there in that moment.
                    let message = if self.is_full() {
                        "this computer's disk is full, so the machine stands still and loses nothing; free some space \
                         and it goes on by itself"
                    } else {
                        "the machine paused by itself, since a write found no space on this computer; it is about to \
                         go on"
                    };
                    tracing::warn!("{message}");
                    self.notices.insert(Topic::Paused, message.into());
                }
                self.phase = Phase::Paused(session);
            }
            Phase::Paused(session) if !session.machine.paused() => self.resumed(session),
            // One that is left to be looked into stays what it is, and is let go on all the same.
            other => self.phase = other,
        }
    }

    /// The vCPUs go on.
    pub(super) fn resumed(&mut self, session: Box<Session>) {
        self.notices.remove(&Topic::Paused);
        set_clock(&session);
        self.phase = Phase::Running(session);
    }

    /// Lets a machine go on that was held for the lack of space, once there is some. Answers whether it did.
    pub(super) async fn relieve(&mut self) -> bool {
        if self.is_full() {
            return false;
        }
        match &self.phase {
            Phase::Paused(session) if session.machine.held() => {}
            Phase::Failed {
                session: Some(session),
                ..
            } if session.machine.held() => {
                let resumed = short("resuming the machine", session.machine.resume()).await;
                if let Err(error) = resumed {
                    tracing::warn!("what is left of the machine could not go on: {}", error.message);
                }
                return false;
            }
            _ => return false,
        }
        tracing::info!("there is space again");
        if let Err(error) = self.resume().await {
            tracing::warn!("the machine could not go on: {}", error.message);
        }
        true
    }

    /// Whether the disk that the machine's data is on has too little space to go on.
    fn is_full(&self) -> bool {
        host::free_space(self.place.directory()).is_some_and(|free| free < LEAST_FREE)
    }

    /// The guest restarted itself, and has to be told anew how to boot.
    fn boot_again(&mut self, kernel_started: Option<Instant>) {
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Running(session)
            | Phase::Failed {
                session: Some(session),
                ..
            } => {
                tracing::info!("the guest restarted itself");
                self.begin(Operation::new(), None, |job| {
                    job.boot_again(*session, kernel_started)
                });
            }
            other => self.phase = other,
        }
    }

    fn fail(&mut self, setback: Setback) -> ApiError {
        let full = host::free_space(self.place.directory()).is_some_and(|free| free < LEAST_FREE / 4);
        let Setback {
            failure,
            console_tail,
            session,
        } = setback;
        if session.is_none() {
            self.gone();
        }
        let may_be_the_hypervisors = failure.may_be_the_hypervisors(full);
        let backend = self.snapshot.backend.kind.clone();
        let out_of_reach = failure.leaves_it_out_of_reach();
        let mut error = failure.report(full);
        // The monitor is younger than QEMU, which a person may prefer to a second try.
        if may_be_the_hypervisors && backend == BackendKind::Kvm.to_string() {
            error.hint.push_str(
                "; should it fail again, `cove config set machine.backend emulated` does without hardware virtualisation",
            );
        }
        if may_be_the_hypervisors {
            self.place.remember_failure(&LastFailure {
                backend,
                message: error.message.clone(),
                hint: error.hint.clone(),
                unix_s: unix_seconds(),
            });
        }
        self.snapshot.out_of_reach = out_of_reach;
        tracing::error!(code = ?error.code, "the machine failed: {}", error.message);
        self.phase = Phase::Failed {
            error: error.clone(),
            console_tail: console_tail.iter().map(|line| clean(line)).collect(),
            session,
        };
        error
    }

    /// There is no machine any more that this daemon has a hold of.
    fn gone(&mut self) {
        // One that goes on all the same is taken over by what is remembered of it.
        if !self.place.is_locked() {
            self.place.forget();
        }
        self.snapshot.machine = None;
        self.snapshot.record = None;
        self.notices.retain(|topic, _| *topic == Topic::Past);
    }

    /// Nothing runs. Goes on with a start where one is wanted.
    pub(super) fn now_stopped(&mut self, waiters: Waiters) {
        tracing::info!("stopped");
        self.gone();
        self.phase = Phase::Stopped;
        for operation in waiters.stops {
            self.done(operation);
        }
        if let Some(start) = waiters.start {
            self.begin(start, None, Job::start);
        }
    }

    /// What has to be looked at now and then while a machine runs.
    pub(super) fn tend(&mut self) {
        let now = (Instant::now(), SystemTime::now());
        let passed = now.0.duration_since(self.clocks.0);
        let by_the_wall = now.1.duration_since(self.clocks.1).unwrap_or_default();
        self.clocks = now;
        self.ticks = (self.ticks + 1) % TICKS_A_MINUTE;
        let Phase::Running(session) = &self.phase else {
            return;
        };
        // A clock that was set back counts as no time passed on the wall.
        if self.ticks == 0 || by_the_wall.abs_diff(passed) > JUMP {
            set_clock(session);
        }
        let low = host::free_space(self.place.directory()).filter(|&free| free < LOW_FREE);
        let message = low.map(|free| {
            format!(
                "only {} are free on the disk that holds the machine's data; when it is full, the machine stands still",
                cove_api::size::about(free)
            )
        });
        if self.notices.get(&Topic::Space) != message.as_ref() {
            match message {
                Some(message) => self.notices.insert(Topic::Space, message),
                None => self.notices.remove(&Topic::Space),
            };
            self.publish();
        }
    }
}

/// Sets the guest's clock to the host's. Nobody waits for it: the next time is in a minute.
fn set_clock(session: &Session) {
    let link = session.link.clone();
    tokio::spawn(async move {
        let call = Call::SetTime {
            unix_ns: unix_nanos(),
        };
        if let Err(error) = link.call(call, SET_CLOCK).await {
            tracing::debug!(%error, "the guest's clock was not set");
        }
    });
}
