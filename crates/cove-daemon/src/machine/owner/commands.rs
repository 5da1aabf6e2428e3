//! What an owner does when it is asked to.

use super::{Ending, Owner, Phase, Waiters};
use crate::{
    machine::{
        Command,
        failure::{Failure, chain},
        operation::{Listening, Operation},
        session::Topic,
        start::{self, Job},
        stop::Stopped,
    },
    settings,
};
use cove_api::{ApiError, BackendReport, ErrorCode};
use cove_machine::MachineError;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a short call to the machine process may take.
const SHORT: Duration = Duration::from_secs(10);

/// How long processes that nobody holds may take to let go of a machine, and how often that is looked at.
const LAST_MOMENTS: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

impl Owner {
    /// Carries out a command; answers whether the owner is to end.
    pub(super) async fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Start(reply) => self.start(reply).await,
            Command::Stop(reply) => self.stop(reply, false, false),
            Command::Kill(reply) => self.stop(reply, false, true),
            Command::Restart(reply) => self.stop(reply, true, false),
            Command::Pause(reply) => answer(reply, self.pause().await),
            Command::Resume(reply) => answer(reply, self.resume().await),
            Command::Delete(reply) => {
                let outcome = self.delete().await;
                let gone = outcome.is_ok();
                answer(reply, outcome);
                return gone;
            }
            Command::Agent(reply) => {
                let link = match &self.phase {
                    Phase::Running(session) => Ok(session.link.clone()),
                    _ => Err(self.wrong_state("cannot be asked", "start it with `cove start`")),
                };
                answer(reply, link);
            }
            Command::Reconsider(reply) => {
                self.reconsider().await;
                self.provide_for(reply);
            }
            Command::Detach => {
                self.detach().await;
                return true;
            }
        }
        false
    }

    async fn start(&mut self, reply: oneshot::Sender<Listening>) {
        match &mut self.phase {
            Phase::Starting {
                operation, looking, ..
            } => {
                answer(reply, operation.listen());
                *looking = looking.map(|_| true);
                return;
            }
            Phase::Stopping { waiters, .. } => {
                let start = waiters.start.get_or_insert_with(Operation::new);
                answer(reply, start.listen());
                start.notice("waiting until the machine has stopped");
                return;
            }
            Phase::Stopped | Phase::Running(_) | Phase::Paused(_) | Phase::Failed { .. } => {}
        }
        let operation = Operation::new();
        answer(reply, operation.listen());
        if let Some(error) = self.out_of_reach() {
            operation.failed(error);
            return;
        }
        if let Phase::Running(_) = self.phase {
            self.done(operation);
            return;
        }
        if let Phase::Paused(_) = self.phase {
            match self.resume().await {
                Ok(()) => self.done(operation),
                Err(error) => operation.failed(error),
            }
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            // What is left of the failed machine has to go first, and nothing of it needs care.
            Phase::Failed {
                session: Some(session),
                ..
            } => {
                let kill = CancellationToken::new();
                kill.cancel();
                let waiters = Waiters {
                    start: Some(operation),
                    ..Waiters::default()
                };
                self.end(*session, false, kill, waiters);
            }
            _ => self.begin(operation, None, Job::start),
        }
    }

    /// Stops the machine, whatever it does, and starts it again for a restart.
    fn stop(&mut self, reply: oneshot::Sender<Listening>, restart: bool, kill_now: bool) {
        let operation = Operation::new();
        answer(reply, operation.listen());
        if !kill_now && let Some(error) = self.out_of_reach() {
            operation.failed(error);
            return;
        }
        let (stops, start) = if restart {
            (Vec::new(), Some(operation))
        } else {
            (vec![operation], None)
        };
        let mut waiters = Waiters { stops, start };
        let kill = CancellationToken::new();
        if kill_now {
            kill.cancel();
        }
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Stopped | Phase::Failed { session: None, .. } => self.see_off(kill, waiters),
            Phase::Failed {
                session: Some(session),
                ..
            }
            | Phase::Running(session) => self.end(*session, false, kill, waiters),
            Phase::Paused(session) => self.end(*session, true, kill, waiters),
            Phase::Starting {
                task,
                cancel,
                operation: starting,
                ..
            } => {
                cancel.cancel();
                starting.failed(Failure::Cancelled.report(false));
                self.phase = Phase::Stopping {
                    task: Ending::Start(task),
                    kill,
                    waiters,
                };
            }
            Phase::Stopping {
                task,
                kill,
                waiters: earlier,
            } => {
                if kill_now {
                    kill.cancel();
                }
                // The last word counts: a stop takes back the start that was to follow, a restart replaces it.
                if let Some(planned) = earlier.start {
                    planned.failed(Failure::Cancelled.report(false));
                }
                waiters.stops.extend(earlier.stops);
                self.phase = Phase::Stopping { task, kill, waiters };
            }
        }
    }

    /// Why nothing but force ends the machine: it goes on with its containers, and this daemon cannot ask it to stop.
    fn out_of_reach(&self) -> Option<ApiError> {
        match &self.phase {
            Phase::Failed { error, session, .. }
                if self.snapshot.out_of_reach && (session.is_some() || self.place.is_locked()) =>
            {
                Some(error.clone())
            }
            _ => None,
        }
    }

    /// Stops what this daemon has no hold of: nothing, as a rule. A machine that goes on all the same is given the time
    /// that one takes to end which has begun to, and is ended by force alone.
    pub(super) fn see_off(&mut self, kill: CancellationToken, waiters: Waiters) {
        if !self.place.is_locked() {
            return self.now_stopped(waiters);
        }
        let (platform, wanted) = (Arc::clone(&self.context.platform), self.snapshot.settings.backend);
        let (place, forced) = (self.place.clone(), kill.clone());
        let task = tokio::spawn(async move {
            let gone = async {
                while place.is_locked() {
                    sleep(LOOK).await;
                }
            };
            let went = tokio::select! {
                biased;
                () = forced.cancelled() => None,
                went = timeout(LAST_MOMENTS, gone) => Some(went.is_ok()),
            };
            let directory = place.directory().to_owned();
            match went {
                Some(true) => {}
                Some(false) => return Err(MachineError::Locked { directory }),
                None => {
                    let backend = platform.choose(wanted).backend;
                    backend.evict(&directory, place.runtime()).await?;
                }
            }
            Ok(Stopped { notice: None })
        });
        self.phase = Phase::Stopping {
            task: Ending::Stop(task),
            kill,
            waiters,
        };
    }

    async fn pause(&mut self) -> Result<(), ApiError> {
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Running(session) => {
                let paused = if session.machine.features().pause {
                    short("pausing the machine", session.machine.pause()).await
                } else {
                    let operation = "pausing";
                    let backend = session.machine.kind();
                    Err(Failure::from(MachineError::Unsupported { operation, backend }).report(false))
                };
                self.phase = match paused {
                    Ok(()) => Phase::Paused(session),
                    Err(_) => Phase::Running(session),
                };
                paused
            }
            other => {
                self.phase = other;
                match &self.phase {
                    Phase::Paused(session) => {
                        // One that is held does not go on by itself any more, since from now on somebody wants it so.
                        if session.machine.held() {
                            short("pausing the machine", session.machine.pause()).await?;
                            self.notices.remove(&Topic::Paused);
                        }
                        Ok(())
                    }
                    _ => Err(self.wrong_state("cannot be paused", "start it with `cove start`")),
                }
            }
        }
    }

    pub(super) async fn resume(&mut self) -> Result<(), ApiError> {
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Paused(session) => {
                let resumed = short("resuming the machine", session.machine.resume()).await;
                match resumed {
                    Ok(()) => self.resumed(session),
                    Err(_) => self.phase = Phase::Paused(session),
                }
                resumed
            }
            other => {
                self.phase = other;
                match self.phase {
                    Phase::Running(_) => Ok(()),
                    _ => Err(self.wrong_state("cannot be resumed", "start it with `cove start`")),
                }
            }
        }
    }

    async fn delete(&mut self) -> Result<(), ApiError> {
        // Right after it was made it is still being looked whether it runs, which takes a moment.
        if let Phase::Starting {
            looking: Some(false),
            task,
            ..
        } = &mut self.phase
            && let Ok(outcome) = timeout(SHORT, task).await
        {
            self.started(outcome).await;
        }
        match self.phase {
            Phase::Stopped | Phase::Failed { session: None, .. } => {}
            _ => return Err(self.wrong_state("cannot be deleted", "stop it first with `cove stop`")),
        }
        let place = self.place.clone();
        start::blocking(move || place.delete())
            .await
            .map_err(|failure| failure.report(false))?;
        if let Some(docker) = &self.context.docker
            && let Err(error) = docker.remove(&self.name, &self.context.docker_host(&self.name))
        {
            tracing::warn!("the Docker context stays: {error}");
        }
        if let Err(error) = self.context.settings.forget_machine(&self.name) {
            tracing::warn!("the machine's settings stay: {error}");
        }
        Ok(())
    }

    /// Looks at the settings and the backends anew, for the figures of a machine that does not run.
    pub(super) async fn reconsider(&mut self) {
        let values = self.context.settings.in_force().0;
        self.snapshot.settings = values.machine(&self.name, self.context.settings.host());
        if self.snapshot.machine.is_some() {
            return;
        }
        let platform = Arc::clone(&self.context.platform);
        let wanted: settings::Backend = self.snapshot.settings.backend;
        if let Ok(choice) = start::blocking(move || Ok(platform.choose(wanted))).await {
            self.snapshot.backend = BackendReport {
                kind: choice.backend.kind().to_string(),
                reason: choice.reason,
            };
        }
    }

    /// Lets go of the machine, so that the next daemon finds it as it is.
    pub(super) async fn detach(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            // The machine process, if there is one by now, is adopted by its record.
            Phase::Starting { task, .. }
            | Phase::Stopping {
                task: Ending::Start(task),
                ..
            } => task.abort(),
            Phase::Stopping {
                task: Ending::Stop(task),
                ..
            } => {
                let grace = self.stop_grace() + SHORT;
                if let Ok(Ok(Ok(_))) = timeout(grace, task).await {
                    self.place.forget();
                }
            }
            Phase::Stopped | Phase::Running(_) | Phase::Paused(_) | Phase::Failed { .. } => {}
        }
    }

    fn wrong_state(&self, what: &str, hint: &str) -> ApiError {
        let state = match &self.phase {
            Phase::Stopped => "is stopped",
            Phase::Starting { .. } => "is starting",
            Phase::Running(_) => "is running",
            Phase::Paused(_) => "is paused",
            Phase::Stopping { .. } => "is stopping",
            Phase::Failed { .. } => "has failed",
        };
        let message = format!("machine `{}` {state} and {what}", self.name);
        ApiError::new(ErrorCode::WrongState, message, hint)
    }
}

/// A short call to the machine process.
pub(super) async fn short(
    what: &'static str,
    call: impl Future<Output = Result<(), MachineError>>,
) -> Result<(), ApiError> {
    let Ok(result) = timeout(SHORT, call).await else {
        let message = format!("{what} took more than {} seconds", SHORT.as_secs());
        return Err(ApiError::new(
            ErrorCode::Timeout,
            message,
            "try again, or end it with `cove stop`",
        ));
    };
    result.map_err(|error| {
        let message = format!("{what} failed: {}", chain(&error));
        ApiError::new(ErrorCode::MachineFailed, message, "`cove logs machine` says more")
    })
}

/// Answers whoever asked, if they still wait.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}
