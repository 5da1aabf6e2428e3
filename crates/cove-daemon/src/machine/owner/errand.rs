//! What is carried to a guest while it runs: the folders, certificates and disk space that the settings say by now.
//!
//! ```text
//!              something has changed              the task ends
//!   no errand ───────────────────────▶ under way ───────────────▶ no errand, or the next one for whoever asked meanwhile
//! ```
//!
//! The guest may take its time, and a folder on a server that is away takes for ever, so that an errand is a task of
//! its own: the owner stays free to stop the machine. There is one at a time; it ends with the session that holds it.
//! What it could not bring because the agent did not answer is tried again with the next tick.

use super::{Owner, Phase};
use crate::{
    machine::{
        agent::{AgentLink, CallError},
        disk::Place,
        failure::chain,
        session::Topic,
        shares::{self, FailedShare},
        start::{self, distrusted},
    },
    settings::Share,
};
use cove_machine::{Disk, Machine};
use cove_wire::Call;
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::task::AbortOnDropHandle;

/// How long the agent may take for one folder, or to grow its file system.
const SHORT: Duration = Duration::from_secs(10);
/// How long the agent may take to have an engine that trusts what it should, which means that it starts another one.
const ENGINE_ANEW: Duration = Duration::from_mins(1);

/// An errand that is under way.
pub(in crate::machine) struct Errand {
    task: AbortOnDropHandle<Brought>,
    /// Who waits for its end.
    asked: Vec<oneshot::Sender<()>>,
    /// Who has asked since, for whom another one may have to go.
    asked_since: Vec<oneshot::Sender<()>>,
}

impl Errand {
    /// Waits for its end; for ever where there is none.
    pub(super) async fn finished(errand: &mut Option<Self>) -> Brought {
        match errand {
            // A task that panicked has said so in the log, and brought nothing.
            Some(errand) => (&mut errand.task).await.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }
}

/// What there is to bring.
#[derive(Default)]
struct Load {
    shares: Option<Vec<Share>>,
    certificates: Option<Vec<String>>,
    /// The data disk's new size, in bytes.
    disk: Option<u64>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Brought {
    shares: Option<(Vec<Share>, Result<shares::Outcome, CallError>)>,
    certificates: Option<(Vec<String>, Result<(), CallError>)>,
    disk: Option<(u64, Result<(), String>)>,
}

impl Load {
    fn is_empty(&self) -> bool {
        self.shares.is_none() && self.certificates.is_none() && self.disk.is_none()
    }

    async fn bring(self, machine: Arc<dyn Machine>, link: AgentLink, place: Place) -> Brought {
        let mut brought = Brought::default();
        if let Some(wanted) = self.shares {
            let outcome = shares::apply(&*machine, &link, &wanted, SHORT).await;
            brought.shares = Some((wanted, outcome));
        }
        if let Some(certificates) = self.certificates {
            let call = Call::Trust {
                certificates: certificates.clone(),
            };
            let outcome = link.call(call, ENGINE_ANEW).await.map(drop);
            brought.certificates = Some((certificates, outcome));
        }
        if let Some(size) = self.disk {
            brought.disk = Some((size, grow(&*machine, &link, place, size).await));
        }
        brought
    }
}

async fn grow(machine: &dyn Machine, link: &AgentLink, place: Place, size: u64) -> Result<(), String> {
    start::blocking(move || place.prepare_disk(size))
        .await
        .map_err(|failure| failure.to_string())?;
    let told = timeout(SHORT, machine.grow_disk(Disk::Data, size)).await;
    told.map_err(|_| format!("the machine did not take it within {} seconds", SHORT.as_secs()))?
        .map_err(|error| chain(&error))?;
    let grown = link.call(Call::GrowData, SHORT).await;
    grown.map(drop).map_err(|error| error.to_string())
}

impl Owner {
    /// Brings the guest what it lacks, if it lacks anything and nothing is under way to it.
    pub(super) fn provide(&mut self) {
        let load = self.lacking(false);
        self.set_out(load, Vec::new());
    }

    /// The same for somebody who changed something, who is answered once it was brought, and for whom what failed
    /// before is tried anew.
    pub(super) fn provide_for(&mut self, asked: oneshot::Sender<()>) {
        if let Phase::Running(session) = &mut self.phase {
            if let Some(errand) = &mut session.errand {
                errand.asked_since.push(asked);
                return;
            }
            if !session.failed_shares.is_empty() && self.context.settings.known().is_some() {
                session.wanted = None;
            }
        }
        let load = self.lacking(true);
        self.set_out(load, vec![asked]);
    }

    /// What the settings say and the guest does not have. The disk only grows for somebody who asks.
    fn lacking(&self, with_disk: bool) -> Load {
        let Phase::Running(session) = &self.phase else {
            return Load::default();
        };
        let settings = &self.context.settings;
        let certificates = self.context.trust.pem();
        Load {
            shares: settings
                .shares()
                .filter(|wanted| session.wanted.as_ref() != Some(wanted)),
            certificates: Some(certificates).filter(|wanted| session.trusted.as_ref() != Some(wanted)),
            // A default is no wish.
            disk: settings.known().filter(|_| with_disk).and_then(|values| {
                let wanted = values.machine(&self.name, settings.host()).disk;
                let present = std::fs::metadata(self.place.data_disk()).ok()?.len();
                (wanted > present && session.machine.features().online_grow).then_some(wanted)
            }),
        }
    }

    fn set_out(&mut self, load: Load, asked: Vec<oneshot::Sender<()>>) {
        let Phase::Running(session) = &mut self.phase else {
            return;
        };
        if load.is_empty() || session.errand.is_some() {
            // Whoever asked is answered by the end of their channel.
            return;
        }
        if let Some(wanted) = &load.shares {
            // Until it is known what came of it, the guest may have any of them: also what was asked for before is
            // then to be asked for again.
            session.wanted = None;
            // Nothing is to be mounted any more that is about to go.
            session.shares.retain(|share| wanted.contains(share));
        }
        let (machine, link) = (Arc::clone(&session.machine), session.link.clone());
        let task = tokio::spawn(load.bring(machine, link, self.place.clone()));
        session.errand = Some(Errand {
            task: AbortOnDropHandle::new(task),
            asked,
            asked_since: Vec::new(),
        });
        self.publish();
    }

    /// An errand has come to its end.
    pub(super) fn brought(&mut self, brought: Brought) {
        let Some(session) = self.phase.session() else {
            return;
        };
        let errand = session.errand.take();
        if let Some((wanted, outcome)) = brought.shares {
            match outcome {
                Ok(outcome) => {
                    tracing::info!(folders = outcome.served.len(), "shares have changed");
                    session.wanted = Some(wanted);
                    session.shares = outcome.served;
                    if outcome.failures.is_empty() {
                        self.notices.remove(&Topic::Shares);
                    } else {
                        let notice = FailedShare::notice(&outcome.failures);
                        tracing::warn!("{notice}");
                        self.notices.insert(Topic::Shares, notice);
                    }
                    session.failed_shares = outcome.failures;
                }
                // What the guest had of them it still has.
                Err(error) => tracing::warn!("the shares are not as they should be yet: {error}"),
            }
        }
        if let Some((certificates, outcome)) = brought.certificates {
            let failed = outcome.as_ref().err().map(ToString::to_string);
            match outcome {
                // An agent that has not answered is asked again.
                Err(CallError::Lost | CallError::Timeout(_)) => {}
                Ok(()) | Err(CallError::Fault(_)) => {
                    tracing::info!(certificates = certificates.len(), "what is trusted has changed");
                    session.trusted = Some(certificates);
                }
            }
            session.failed_trust.clone_from(&failed);
            match failed {
                None => self.notices.remove(&Topic::Trust),
                Some(why) => self.notices.insert(Topic::Trust, distrusted(&why)),
            };
        }
        match brought.disk {
            None => {}
            Some((size, Ok(()))) => tracing::info!(bytes = size, "the data disk has grown"),
            Some((_, Err(why))) => {
                tracing::warn!("growing the data disk while the machine runs failed: {why}");
                let message =
                    format!("the data disk grows at the next start, since growing it now failed: {why}");
                self.notices.insert(Topic::Space, message);
            }
        }
        self.publish();
        if let Some(errand) = errand {
            for asked in errand.asked {
                super::commands::answer(asked, ());
            }
            if !errand.asked_since.is_empty() {
                let load = self.lacking(true);
                self.set_out(load, errand.asked_since);
            }
        }
    }
}
