//! Machines: one owner task for each, and the handle through which everything else talks to it.
//!
//! The owner ([`owner`]) alone holds a machine's state and changes it; its module draws the state diagram. It
//! publishes a [`Snapshot`] after each change, which may be read at any time, and it is sent [`Command`]s through a
//! [`Handle`].

pub(crate) mod agent;
mod bring_up;
mod disk;
mod engine;
mod engine_api;
mod failure;
mod inner_clients;
mod last_failure;
mod logs;
pub(crate) mod mounted;
mod operation;
mod owner;
mod platform;
mod session;
mod shares;
mod space;
mod start;
mod starter;
mod stop;
mod timeline;
mod words;

#[cfg(test)]
#[cfg(unix)]
pub(crate) mod fake;
#[cfg(test)]
#[cfg(unix)]
mod tests;

pub(crate) use disk::Place;
pub(crate) use engine::MachineEngine;
pub(crate) use engine_api::{
    MOST_LENDERS, ask_engine, engine_events, lender, names_by_address, network_namespace, running_containers,
};
pub(crate) use failure::chain;
pub(crate) use inner_clients::InnerClients;
pub(crate) use last_failure::LastFailure;
pub(crate) use operation::Listening;
pub(crate) use platform::{Host, Platform};
pub(crate) use shares::FailedShare;
pub(crate) use words::clean;

use crate::{
    context::DockerConfig,
    host,
    name::MachineName,
    ports::Ledger,
    settings::{MachineSettings, SettingsFile, Share, Values},
    trust::TrustStore,
};
use agent::AgentLink;
use cove_api::{
    ApiError, BackendReport, Dirs, Endpoint, ErrorCode, Event, MachineState, MachineStatus, Stage,
};
use cove_machine::Machine;
use disk::Record;
use owner::Owner;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::timeout,
};

/// How long a daemon may look for a machine before whoever needs it is answered.
const ADOPTION: Duration = Duration::from_secs(10);

/// What all owners share.
pub(crate) struct Context {
    pub(crate) dirs: Dirs,
    pub(crate) settings: Arc<SettingsFile>,
    pub(crate) trust: TrustStore,
    pub(crate) platform: Arc<dyn Platform>,
    /// Every change of any machine.
    pub(crate) events: broadcast::Sender<Event>,
    /// The Docker client's configuration, if there is a place for one.
    pub(crate) docker: Option<DockerConfig>,
}

impl Context {
    /// The value of `DOCKER_HOST` for a machine.
    pub(crate) fn docker_host(&self, name: &MachineName) -> String {
        cove_api::transport::docker_host(&self.dirs.docker_socket(name.as_str()))
    }

    pub(crate) fn emit(&self, event: Event) {
        // Nobody need be listening.
        let _ = self.events.send(event);
    }
}

/// A machine as its owner published it last.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) state: MachineState,
    /// Whether a machine that is stopping is started again once it has stopped.
    pub(crate) start_follows: bool,
    /// Whether the machine goes on although it has failed, and can only be ended by force.
    pub(crate) out_of_reach: bool,
    backend: BackendReport,
    settings: MachineSettings,
    engine_version: Option<String>,
    timings: Vec<Stage>,
    notices: Vec<String>,
    /// The machine while one runs, whatever the state.
    pub(crate) machine: Option<Arc<dyn Machine>>,
    /// The folders that its guest has, while the engine answers.
    pub(crate) shares: Vec<Share>,
    /// What its containers publish, while the engine answers.
    pub(crate) ports: Ledger,
    /// The folders that it should have and does not, and why.
    pub(crate) failed_shares: Vec<FailedShare>,
    /// Why its engine does not trust the certificates that it should.
    pub(crate) failed_trust: Option<String>,
    record: Option<Arc<Record>>,
}

/// What an owner is asked to do. The answer to a long one is the stream of its progress.
pub(crate) enum Command {
    Start(oneshot::Sender<Listening>),
    Stop(oneshot::Sender<Listening>),
    Restart(oneshot::Sender<Listening>),
    Kill(oneshot::Sender<Listening>),
    Pause(oneshot::Sender<Result<(), ApiError>>),
    Resume(oneshot::Sender<Result<(), ApiError>>),
    Delete(oneshot::Sender<Result<(), ApiError>>),
    /// Ways to ask the agent of a machine that runs: what takes long is not waited for here.
    Agent(oneshot::Sender<Result<AgentLink, ApiError>>),
    /// The settings have changed; answered when they have been heeded.
    Reconsider(oneshot::Sender<()>),
    /// The daemon ends: leave a running machine running.
    Detach,
}

/// The way to one owner.
#[derive(Clone)]
pub(crate) struct Handle {
    name: MachineName,
    place: Place,
    context: Arc<Context>,
    commands: mpsc::Sender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Handle {
    /// Starts the owner of a machine, which first looks for one that still runs. The task ends when the machine is
    /// deleted or the daemon ends.
    pub(crate) fn spawn(context: Arc<Context>, name: MachineName) -> (Self, tokio::task::JoinHandle<()>) {
        let (commands, queue) = mpsc::channel(16);
        let place = Place::new(&context.dirs, &name);
        let (owner, snapshots) = Owner::new(Arc::clone(&context), name.clone(), place.clone(), queue);
        let task = tokio::spawn(owner.run());
        let handle = Self {
            name,
            place,
            context,
            commands,
            snapshots,
        };
        (handle, task)
    }

    pub(crate) fn name(&self) -> &MachineName {
        &self.name
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The machine as it was published last.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// The same, once a daemon that has just begun has looked for the machine that its predecessor left; though not for
    /// ever.
    pub(crate) async fn settled(&self) -> Arc<Snapshot> {
        let mut snapshots = self.watch();
        let settled = snapshots.wait_for(|snapshot| !snapshot.state.is_looking());
        // Whoever looks in vain for so long is to be told so.
        let _ = timeout(ADOPTION, settled).await;
        self.snapshot()
    }

    /// Follows what is published.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Everything about the machine, live numbers included.
    pub(crate) fn status(&self) -> MachineStatus {
        self.snapshot().status(&self.context, &self.name, &self.place)
    }

    /// Whether the machine runs and would be another one if it were started now.
    pub(crate) fn needs_restart(&self, values: &Values) -> bool {
        let snapshot = self.snapshot();
        let host = self.context.settings.host();
        let mut settings = values.machine(&self.name, host);
        settings.fit(host);
        let engine = start::engine_config(values);
        let same = |record: &Arc<Record>| record.matches(&settings, &engine);
        snapshot.machine.is_some() && !snapshot.record.as_ref().is_some_and(same)
    }

    /// Begins something long and listens to it.
    pub(crate) async fn begin(
        &self,
        command: impl FnOnce(oneshot::Sender<Listening>) -> Command,
    ) -> Result<Listening, ApiError> {
        self.ask(command).await
    }

    /// Has something short done.
    pub(crate) async fn perform(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), ApiError>>) -> Command,
    ) -> Result<(), ApiError> {
        self.ask(command).await?
    }

    /// Has the owner heed the settings anew.
    pub(crate) async fn reconsider(&self) {
        // An owner that is gone has nothing left to do about it.
        let _ = self.ask(Command::Reconsider).await;
    }

    /// Has the owner let go of the machine and end.
    pub(crate) async fn detach(&self) {
        let _ = self.commands.send(Command::Detach).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ApiError> {
        let gone = || {
            let message = format!("machine `{}` is gone", self.name);
            ApiError::new(
                ErrorCode::NotFound,
                message,
                "`cove machine list` shows those that are there",
            )
        };
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Snapshot {
    /// The folders that its machine process has, whether or not the guest mounted them.
    fn given_shares(&self) -> Vec<Share> {
        self.machine.as_deref().map(shares::given).unwrap_or_default()
    }

    fn status(&self, context: &Context, name: &MachineName, place: &Place) -> MachineStatus {
        let answers = matches!(self.state, MachineState::Running | MachineState::Paused);
        let disk = place.data_disk();
        let since = self
            .record
            .as_ref()
            .and_then(|record| record.ready_unix_s)
            .filter(|_| answers);
        let resident = self.machine.as_ref().map(|machine| {
            let processes = machine.processes();
            processes.into_iter().filter_map(host::resident).sum()
        });
        let (cpus, memory_mib) = match &self.record {
            Some(record) => (record.spec.cpus, record.spec.memory_mib),
            None => (self.settings.cpus, self.settings.memory_mib),
        };
        MachineStatus {
            name: name.to_string(),
            state: self.state.clone(),
            backend: self.backend.clone(),
            endpoint: Endpoint {
                docker_host: context.docker_host(name),
                socket: context.dirs.docker_socket(name.as_str()),
                context: name.context(),
            },
            cpus,
            memory_mib,
            disk_size: std::fs::metadata(&disk).map_or(self.settings.disk, |metadata| metadata.len()),
            disk_on_host: host::allocated(&disk),
            uptime_s: since.map(|since| start::unix_seconds().saturating_sub(since)),
            engine_version: self.engine_version.clone(),
            memory_on_host: resident.filter(|&bytes: &u64| bytes > 0),
            timings: self.timings.clone(),
            notices: self.notices.clone(),
        }
    }
}
