//! Takes a machine down: in order where the guest can be asked, else as if the power were cut.

use super::{
    agent::{CallError, Happening},
    disk::LEAST_FREE,
    session::Session,
};
use crate::host;
use cove_machine::{Exit, ExitCause, Machine, MachineError};
use cove_wire::{Call, VersionMismatch};
use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long the engine may take beyond the grace that containers have.
pub(super) const ENGINE: Duration = Duration::from_secs(30);
/// How long the guest may take to unmount and power off after that.
pub(super) const POWER_OFF: Duration = Duration::from_secs(30);
/// How long the machine process may take to let the guest go on.
pub(super) const RESUME: Duration = Duration::from_secs(10);

/// How often a machine that stands still on its way down is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How far a stop is. It is over when the guest has powered off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The guest was asked.
    Asked,
    /// Its containers and its engine have stopped.
    EngineStopped,
    /// It was not up yet, or does not do what it was asked to.
    GivenUp,
}

impl Step {
    /// Most steps of a stop.
    pub(super) const MAX_STEPS: usize = 3;

    /// What is being done now, in words, and how far the whole is, from 0 to 1.
    pub(super) fn stage(self) -> (&'static str, f32) {
        match self {
            Self::Asked => ("Stopping containers and the engine", 0.1),
            Self::EngineStopped => ("Powering the guest off", 0.7),
            Self::GivenUp => ("Ending the machine without its guest", 0.9),
        }
    }
}

/// How a machine was taken down.
#[derive(Debug)]
pub(super) struct Stopped {
    /// What a person should know, when it was not in order.
    pub(super) notice: Option<String>,
}

/// Stops the machine, and tells `steps`, which has room for [`Step::MAX_STEPS`], how far it is. `kill` cuts it short at
/// any time.
pub(super) async fn stop(
    mut session: Session,
    paused: bool,
    grace: Duration,
    kill: CancellationToken,
    steps: mpsc::Sender<Step>,
) -> Result<Stopped, MachineError> {
    let tell = |step| {
        // There is room, and whoever does not listen need not know.
        let _ = steps.try_send(step);
    };
    session.errand = None;
    let (machine, disk) = (
        Arc::clone(&session.machine),
        session.record.spec.data_disk.clone(),
    );
    let orderly = async {
        if paused {
            resume(&*session.machine).await?;
        }
        if session.greeted {
            tell(Step::Asked);
        }
        let asked = ask(&mut session, grace).await;
        let exit = match &asked {
            Ok(()) => {
                tell(Step::EngineStopped);
                session.machine.stop(POWER_OFF).await?
            }
            // Another release's machine loses its power for nobody who has not asked for that.
            Err(NotAsked::Refused(mismatch)) => {
                return Err(MachineError::Foreign {
                    why: mismatch.to_string(),
                });
            }
            Err(NotAsked::NotUp | NotAsked::Failed(_)) => {
                tell(Step::GivenUp);
                session.machine.kill().await?
            }
        };
        Ok::<_, MachineError>(judge(asked, &exit))
    };
    let notice = tokio::select! {
        notice = orderly => notice,
        never = keep_going(machine, &disk) => match never {},
        () = kill.cancelled() => session.machine.kill().await.map(|_| None),
    };
    match notice {
        Ok(notice) => Ok(Stopped { notice }),
        // That is what was wanted.
        Err(MachineError::Ended) => Ok(Stopped { notice: None }),
        Err(error @ MachineError::Foreign { .. }) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "stopping the machine in order failed");
            match session.machine.kill().await {
                Ok(_) | Err(MachineError::Ended) => Ok(Stopped {
                    notice: Some(format!(
                        "the machine was killed, because stopping it failed: {error}"
                    )),
                }),
                Err(error) => Err(error),
            }
        }
    }
}

/// Lets a machine go on that stands still since the host had no space for what it wrote, once there is some: it has
/// more to write before it can power off.
async fn keep_going(machine: Arc<dyn Machine>, disk: &Path) -> Infallible {
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        let space = disk.parent().and_then(host::free_space);
        if machine.paused()
            && space.is_some_and(|free| free >= LEAST_FREE)
            && let Err(error) = resume(&*machine).await
        {
            tracing::debug!(%error, "the machine does not go on");
        }
    }
}

/// Lets a machine go on; a machine process that hangs is not waited for.
async fn resume(machine: &dyn Machine) -> Result<(), MachineError> {
    let resumed = timeout(RESUME, machine.resume()).await;
    resumed.unwrap_or_else(|_| {
        Err(MachineError::Failed {
            operation: "resume",
            why: format!("no answer within {} seconds", RESUME.as_secs()),
        })
    })
}

/// Why the guest was not asked to its end.
enum NotAsked {
    /// It was not up yet.
    NotUp,
    /// It speaks another release's protocol.
    Refused(VersionMismatch),
    /// It did not do it.
    Failed(CallError),
}

async fn ask(session: &mut Session, grace: Duration) -> Result<(), NotAsked> {
    if !session.greeted {
        return Err(NotAsked::NotUp);
    }
    let shutdown = Call::Shutdown {
        grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        reboot: false,
    };
    let call = session.link.call(shutdown, grace + ENGINE);
    tokio::pin!(call);
    loop {
        tokio::select! {
            answer = &mut call => return match answer {
                // A connection that is lost now was most likely lost to the power-off.
                Ok(_) | Err(CallError::Lost) => Ok(()),
                // The guest is on its way down already.
                Err(CallError::Fault(fault)) if fault.code == cove_wire::FaultCode::ShuttingDown => Ok(()),
                Err(error) => Err(NotAsked::Failed(error)),
            },
            happening = session.happenings.recv() => match happening {
                Some(Happening::Exited(_)) | None => return Ok(()),
                Some(Happening::Refused(mismatch)) => return Err(NotAsked::Refused(mismatch)),
                Some(_) => {}
            },
        }
    }
}

fn judge(asked: Result<(), NotAsked>, exit: &Exit) -> Option<String> {
    match (asked, &exit.cause) {
        (Ok(()), ExitCause::Killed) => Some("the guest did not power off in time and was killed".to_owned()),
        (Err(NotAsked::Failed(error)), _) => Some(format!("the machine was killed, because {error}")),
        (Ok(()) | Err(NotAsked::NotUp | NotAsked::Refused(_)), _) => None,
    }
}
