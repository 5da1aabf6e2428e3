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
use cove_wire::{BootConfig, Call, EngineState, FaultCode};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

/// How long a guest may take until its agent answers. Emulated ones take seconds, on a busy computer many.
const GREETING: Duration = Duration::from_mins(3);
/// How long the guest may take to finish its boot: a large file system may have to be checked.
const BOOT: Duration = Duration::from_mins(15);
/// How long the engine may take after that.
const ENGINE: Duration = Duration::from_mins(5);
/// How long a machine that stood for want of space rests before it goes on.
const REST: Duration = Duration::from_secs(1);
/// About as many stages as a guest reports, for the progress bar.
const USUAL_STAGES: u8 = 12;

impl Job {
    /// From a machine process to an engine that answers.
    pub(super) async fn bring_up(
        &mut self,
        mut session: Session,
        greeted: Option<Instant>,
    ) -> Result<Session, Setback> {
        // A boot brings everything.
        session.errand = None;
        let mut kernel_started = greeted;
        let mut ready = false;
        let mut why_not = None;
        let mut boot = kernel_started.map(|_| self.boot_call(&session));
        let mut booted = false;
        let mut stages: u8 = 0;
        let mut patience = if greeted.is_some() { BOOT } else { GREETING };
        let mut deadline = Instant::now() + patience;
        let waiting_since = Instant::now();
        self.stage("Waiting for the guest", 0.1).await;
        while !(ready && booted) {
            let failure = tokio::select! {
                () = self.cancel.cancelled() => Failure::Cancelled,
                () = sleep_until(deadline) => match (kernel_started, booted) {
                    (None, _) => Failure::Silent { after: patience, why: why_not },
                    (Some(_), false) => Failure::Boot(CallError::Timeout(patience)),
                    (Some(_), true) => Failure::EngineSilent { after: patience, why: why_not },
                },
                result = finished(&mut boot) => {
                    boot = None;
                    match result {
                        Ok(Booted { wanted, outcome, trusted, failed_trust }) => {
                            session.trusted = Some(trusted);
                            if let Some(why) = &failed_trust {
                                self.notice(Topic::Trust, distrusted(why)).await;
                            }
                            session.failed_trust = failed_trust;
                            session.wanted = Some(wanted);
                            session.shares = outcome.served;
                            if !outcome.failures.is_empty() {
                                let notice = FailedShare::notice(&outcome.failures);
                                self.notice(Topic::Shares, notice).await;
                            }
                            session.failed_shares = outcome.failures;
                            booted = true;
                            patience = ENGINE;
                            deadline = Instant::now() + patience;
                            self.stage("Waiting for the Docker engine", 0.7).await;
                            continue;
                        }
                        // It is made again when the agent has greeted anew.
                        Err(CallError::Lost) => continue,
                        // An earlier daemon has asked for it; what is left to do is to see it off.
                        Err(CallError::Fault(fault)) if fault.code == FaultCode::ShuttingDown => {
                            patience = self.settings().stop_grace + stop::ENGINE + stop::POWER_OFF;
                            deadline = Instant::now() + patience;
                            self.stage("Waiting until the guest has shut down", 0.2).await;
                            continue;
                        }
                        Err(error) => Failure::Boot(error),
                    }
                }
                happening = session.happenings.recv() => match happening {
                    Some(Happening::Greeted { status, kernel_started: started }) => {
                        session.greeted = true;
                        if kernel_started.is_none() {
                            self.timeline.host("greet", waiting_since);
                            patience = BOOT;
                            deadline = Instant::now() + patience;
                        }
                        kernel_started = Some(started);
                        ready = status.engine == EngineState::Ready;
                        if !booted {
                            boot = Some(self.boot_call(&session));
                        }
                        continue;
                    }
                    Some(Happening::Stage(stage)) => {
                        // The stages of a start that is over are told again, but they are on record.
                        if let Some(started) = kernel_started
                            && session.record.ready_unix_s.is_none()
                        {
                            self.timeline.guest(&stage, started);
                            self.tell(Update::Timings(self.timeline.stages())).await;
                            stages = stages.saturating_add(1).min(USUAL_STAGES);
                            let fraction = 0.15 + 0.65 * f32::from(stages) / f32::from(USUAL_STAGES);
                            self.stage(format!("Booting: {} is ready", stage.name), fraction).await;
                        }
                        continue;
                    }
                    Some(Happening::Engine(state)) => {
                        ready = state == EngineState::Ready;
                        if let EngineState::Restarting { why, .. } = state {
                            self.notice(Topic::Engine, format!("the Docker engine failed and is started again: {why}"))
                                .await;
                            why_not = Some(why);
                        }
                        continue;
                    }
                    Some(Happening::Warning(message)) => {
                        self.notice(Topic::Guest, message).await;
                        continue;
                    }
                    Some(Happening::Lost { why }) => {
                        tracing::debug!(machine = %self.name, why, "lost the agent during the boot");
                        why_not = Some(why);
                        continue;
                    }
                    Some(Happening::Rebooted) => {
                        self.inhabited = false;
                        (booted, ready, boot, kernel_started) = (false, false, None, None);
                        patience = GREETING;
                        deadline = Instant::now() + patience;
                        continue;
                    }
                    Some(Happening::Turned) => match host::free_space(self.place.directory()) {
                        Some(free) if session.machine.paused() && free < LEAST_FREE => {
                            if session.record.ready_unix_s.is_some() {
                                // It has run, and its containers with it: it is held until there is space.
                                return Ok(session);
                            }
                            Failure::NoSpace {
                                path: self.place.data_disk(),
                                free,
                            }
                        }
                        _ if session.machine.paused() => {
                            // There was no space in that moment, and there is some by now; or what is free may not be
                            // used, which is no reason to try without a rest.
                            sleep(REST).await;
                            match session.machine.resume().await {
                                Ok(()) => continue,
                                Err(error) => Failure::Backend(error),
                            }
                        }
                        _ => continue,
                    },
                    Some(Happening::Refused(mismatch)) => Failure::Protocol(mismatch),
                    Some(Happening::Exited(exit)) => {
                        return Err(Setback {
                            failure: Failure::Exited(exit.cause),
                            console_tail: exit.console_tail,
                            session: None,
                        });
                    }
                    None => Failure::Unforeseen("the conversation with the agent ended".into()),
                },
            };
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
            return Err(Setback {
                failure,
                console_tail,
                session: left,
            });
        }
        Ok(session)
    }

    /// Gives the guest its folders and certificates and asks it to finish its boot, in this order: containers that start
    /// with the engine find what they mount. A task of its own, since happenings have to be listened to meanwhile.
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
