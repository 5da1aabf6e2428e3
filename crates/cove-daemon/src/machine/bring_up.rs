//! From a machine process to an engine that answers, whether the guest begins to boot or has long been up.
//!
//! ```text
//!  waiting ──the agent greets──▶ booting: folders, certificates, boot ──answered──▶ waiting for the engine ──▶ up
//!     ▲                             │ lost: the call is made again with the next greeting
//!     └──── the guest restarts ─────┴───────────────────────────────────────────────────────┘
//! ```
//!
//! Each stage has its own patience. Whatever ends it otherwise is a [`Setback`], with the machine where it is of use.

use super::{
    agent::{CallError, Happening},
    disk::LEAST_FREE,
    failure::Failure,
    logs,
    session::{Session, Setback, Topic, Update},
    shares::{self, FailedShare},
    start::{Job, distrusted, unix_nanos},
    stop,
    words::clean,
};
use crate::{host, settings::Share};
use cove_machine::{Exit, Machine};
use cove_wire::{BootConfig, Call, EngineState, FaultCode};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a guest may take until its agent answers. Emulated ones take seconds, on a busy computer many.
const GREETING: Duration = Duration::from_mins(3);
/// How long the guest may take to finish its boot: a large file system may have to be checked.
const BOOT: Duration = Duration::from_mins(15);
/// How long the engine may take after that.
const ENGINE: Duration = Duration::from_mins(5);
/// After so many failures in a row the engine is not waited for any more: what it does not take it will not take the next
/// time. The agent goes on to start it, and the machine recovers should it come up.
const HOPELESS: u32 = 5;
/// How long a machine that stood for want of space rests before it goes on.
const REST: Duration = Duration::from_secs(1);
/// About as many stages as a guest reports, for the progress bar.
const USUAL_STAGES: u8 = 12;

/// How far a guest is.
struct Progress {
    /// Since when its agent is waited for.
    since: Instant,
    /// When its kernel started, once its agent has greeted.
    kernel_started: Option<Instant>,
    /// The call that has it finish its boot, while that is under way.
    call: Option<BootCall>,
    /// Whether it has.
    booted: bool,
    /// Whether the engine answers.
    ready: bool,
    /// Whether it has ended by itself meanwhile.
    engine_failed: bool,
    /// Why that did not come about the last time.
    why_not: Option<String>,
    /// Stages that it has reported, [`USUAL_STAGES`] at most.
    stages: u8,
    /// How long what is waited for now may take, and when that is over.
    patience: Duration,
    deadline: Instant,
}

impl Progress {
    fn new(greeted: Option<Instant>) -> Self {
        let now = Instant::now();
        let patience = if greeted.is_some() { BOOT } else { GREETING };
        Self {
            since: now,
            kernel_started: greeted,
            call: None,
            booted: false,
            ready: false,
            engine_failed: false,
            why_not: None,
            stages: 0,
            patience,
            deadline: now + patience,
        }
    }

    fn wait_for_at_most(&mut self, patience: Duration) {
        self.patience = patience;
        self.deadline = Instant::now() + patience;
    }

    /// What it means that the deadline has passed.
    fn overdue(&mut self) -> Failure {
        let after = self.patience;
        match (self.kernel_started, self.booted) {
            (None, _) => Failure::Silent {
                after,
                why: self.why_not.take(),
            },
            (Some(_), false) => Failure::Boot(CallError::Timeout(after)),
            (Some(_), true) => Failure::EngineSilent {
                after,
                why: self.why_not.take(),
            },
        }
    }
}

/// What follows from something that happened.
enum Next {
    Wait,
    /// The machine stands for want of space and has run before: it is held until there is some.
    Hold,
    Fail(Failure),
    Exited(Exit),
}

impl Job {
    /// From a machine process to an engine that answers.
    pub(super) async fn bring_up(
        &mut self,
        mut session: Session,
        greeted: Option<Instant>,
    ) -> Result<Session, Setback> {
        // A boot brings everything.
        session.errand = None;
        let mut progress = Progress::new(greeted);
        progress.deadline = *self.greeting_due.get_or_insert(progress.deadline);
        progress.call = greeted.map(|_| self.boot_call(&session));
        self.stage("Waiting for the guest", 0.1).await;
        while !(progress.ready && progress.booted) {
            let next = tokio::select! {
                () = self.cancel.cancelled() => Next::Fail(Failure::Cancelled),
                () = sleep_until(progress.deadline) => Next::Fail(progress.overdue()),
                result = finished(&mut progress.call) => {
                    progress.call = None;
                    self.boot_ended(&mut progress, &mut session, result).await
                }
                happening = session.happenings.recv() => match happening {
                    Some(happening) => self.happened(&mut progress, &mut session, happening).await,
                    None => Next::Fail(Failure::Unforeseen("the conversation with the agent ended".into())),
                },
            };
            match next {
                Next::Wait => {}
                Next::Hold => return Ok(session),
                Next::Fail(failure) => return Err(self.set_back(failure, session).await),
                Next::Exited(exit) => {
                    return Err(Setback {
                        failure: Failure::Exited(exit.cause),
                        console_tail: exit.console_tail,
                        session: None,
                    });
                }
            }
        }
        Ok(session)
    }

    /// What came of [`Self::boot_call`].
    async fn boot_ended(
        &mut self,
        progress: &mut Progress,
        session: &mut Session,
        result: Result<Booted, CallError>,
    ) -> Next {
        let booted = match result {
            Ok(booted) => booted,
            // It is made again when the agent has greeted anew.
            Err(CallError::Lost) => return Next::Wait,
            // An earlier daemon has asked for it; what is left to do is to see it off.
            Err(CallError::Fault(fault)) if fault.code == FaultCode::ShuttingDown => {
                progress.wait_for_at_most(self.settings().stop_grace + stop::ENGINE + stop::POWER_OFF);
                self.stage("Waiting until the guest has shut down", 0.2).await;
                return Next::Wait;
            }
            Err(error) => return Next::Fail(Failure::Boot(error)),
        };
        if let Some(why) = &booted.failed_trust {
            self.notice(Topic::Trust, distrusted(why)).await;
        }
        if !booted.outcome.failures.is_empty() {
            let notice = FailedShare::notice(&booted.outcome.failures);
            self.notice(Topic::Shares, notice).await;
        }
        session.trusted = Some(booted.trusted);
        session.failed_trust = booted.failed_trust;
        session.wanted = Some(booted.wanted);
        session.shares = booted.outcome.served;
        session.failed_shares = booted.outcome.failures;
        progress.booted = true;
        progress.wait_for_at_most(ENGINE);
        self.stage("Waiting for the Docker engine", 0.7).await;
        Next::Wait
    }

    async fn happened(
        &mut self,
        progress: &mut Progress,
        session: &mut Session,
        happening: Happening,
    ) -> Next {
        match happening {
            Happening::Greeted {
                status,
                kernel_started,
            } => {
                session.greeted = true;
                self.greeted = true;
                if progress.kernel_started.is_none() {
                    self.timeline.host("greet", progress.since);
                    progress.wait_for_at_most(BOOT);
                }
                progress.kernel_started = Some(kernel_started);
                progress.ready = status.engine == EngineState::Ready;
                if !progress.booted {
                    progress.call = Some(self.boot_call(session));
                }
            }
            Happening::Stage(stage) => {
                // The stages of a start that is over are told again, but they are on record.
                if let Some(started) = progress.kernel_started
                    && session.record.ready_unix_s.is_none()
                {
                    self.timeline.guest(&stage, started);
                    self.tell(Update::Timings(self.timeline.stages())).await;
                    progress.stages = progress.stages.saturating_add(1).min(USUAL_STAGES);
                    let fraction = 0.15 + 0.65 * f32::from(progress.stages) / f32::from(USUAL_STAGES);
                    self.stage(format!("Booting: {} is ready", stage.name), fraction)
                        .await;
                }
            }
            Happening::Engine(state) => {
                progress.ready = state == EngineState::Ready;
                if let EngineState::Restarting { attempt, why, .. } = state {
                    if attempt >= HOPELESS {
                        return Next::Fail(Failure::EngineEnds { why });
                    }
                    // Its words have the time in them, so that they would be told with each attempt.
                    if !std::mem::replace(&mut progress.engine_failed, true) {
                        let message = format!("the Docker engine failed and is started again: {why}");
                        self.notice(Topic::Engine, message).await;
                    }
                    progress.why_not = Some(why);
                }
            }
            Happening::Warning(message) => self.notice(Topic::Guest, message).await,
            Happening::Lost { why } => {
                tracing::debug!(machine = %self.name, why, "lost the agent during the boot");
                progress.why_not = Some(why);
            }
            Happening::Rebooted => {
                self.inhabited = false;
                progress.booted = false;
                progress.ready = false;
                progress.call = None;
                progress.kernel_started = None;
                progress.wait_for_at_most(GREETING);
            }
            Happening::Turned => {
                let has_run = session.record.ready_unix_s.is_some();
                return self.turned(&*session.machine, has_run).await;
            }
            Happening::Refused(mismatch) => return Next::Fail(Failure::Protocol(mismatch)),
            Happening::Exited(exit) => return Next::Exited(exit),
        }
        Next::Wait
    }

    /// The vCPUs stopped, or go on. `has_run` is whether the machine was up before, and its containers with it.
    async fn turned(&self, machine: &dyn Machine, has_run: bool) -> Next {
        if !machine.paused() {
            return Next::Wait;
        }
        match host::free_space(self.place.directory()) {
            Some(free) if free < LEAST_FREE && has_run => Next::Hold,
            Some(free) if free < LEAST_FREE => Next::Fail(Failure::NoSpace {
                path: self.place.data_disk(),
                free,
            }),
            _ => {
                // There was no space in that moment, and there is some by now; or what is free may not be used, which
                // is no reason to try without a rest.
                sleep(REST).await;
                match timeout(stop::RESUME, machine.resume()).await {
                    Ok(Ok(())) => Next::Wait,
                    Ok(Err(error)) => Next::Fail(Failure::Backend(error)),
                    // What is waited for has a deadline of its own.
                    Err(_) => {
                        tracing::warn!(machine = %self.name, "the machine process does not let the guest go on");
                        Next::Wait
                    }
                }
            }
        }
    }

    /// What is left of a machine that did not come up; it is killed unless somebody may want to look into it.
    async fn set_back(&self, failure: Failure, session: Session) -> Setback {
        let failure = if self.inhabited && failure.is_of_the_conversation() {
            Failure::NotTakenOver(Box::new(failure))
        } else {
            failure
        };
        let console_tail = logs::last_lines(session.machine.console(), 20);
        let left = if failure.leaves_something_to_look_into() {
            Some(Box::new(session))
        } else {
            if let Err(error) = session.machine.kill().await {
                tracing::warn!(machine = %self.name, %error, "killing what was started failed");
            }
            None
        };
        Setback {
            failure,
            console_tail,
            session: left,
        }
    }

    /// Gives the guest its folders and certificates and asks it to finish its boot, in this order: containers that
    /// start with the engine find what they mount. A task of its own, since happenings have to be listened to
    /// meanwhile.
    fn boot_call(&self, session: &Session) -> BootCall {
        let (link, machine) = (session.link.clone(), Arc::clone(&session.machine));
        let config = BootConfig {
            unix_ns: unix_nanos(),
            ..session.record.boot.clone()
        };
        // While nobody knows what is wanted, the machine keeps what an earlier daemon gave it.
        let wanted = self.context.settings.shares();
        let wanted = wanted.unwrap_or_else(|| shares::given(&*machine));
        let trusted = self.context.trust.pem();
        tokio::spawn(async move {
            let outcome = shares::apply(&*machine, &link, &wanted, BOOT).await?;
            let certificates = trusted.clone();
            let failed_trust = match link.call(Call::Trust { certificates }, BOOT).await {
                Ok(_) => None,
                Err(CallError::Fault(fault)) if fault.code != FaultCode::ShuttingDown => {
                    Some(clean(&fault.message))
                }
                Err(error) => return Err(error),
            };
            link.call(Call::Boot(Box::new(config)), BOOT).await?;
            Ok(Booted {
                wanted,
                outcome,
                trusted,
                failed_trust,
            })
        })
    }
}

/// A guest that has finished its boot.
struct Booted {
    /// The folders that it was to have.
    wanted: Vec<Share>,
    /// What came of that.
    outcome: shares::Outcome,
    /// The certificates that its engine was to trust.
    trusted: Vec<String>,
    /// Why it does not.
    failed_trust: Option<String>,
}

type BootCall = tokio::task::JoinHandle<Result<Booted, CallError>>;

async fn finished(call: &mut Option<BootCall>) -> Result<Booted, CallError> {
    match call {
        Some(call) => call.await.unwrap_or(Err(CallError::Lost)),
        None => std::future::pending().await,
    }
}
