//! All machines of this daemon: an owner and a Docker socket for each.
//!
//! A machine is there when it has a directory; the default one always is. Its Docker socket is there for as long as
//! the daemon runs, whatever the machine does, so that a client of a stopped machine is told so instead of finding
//! nothing.

use crate::{
    daemon::DaemonError,
    gateway,
    instance::Instance,
    machine::{Command, Context, Handle, Listening, MachineEngine},
    name::MachineName,
    settings::{Field, Key},
};
use cove_api::{ApiError, ErrorCode, Event, NewMachine, Progress, transport};
use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long the owners and the Docker sockets may take to end with the daemon.
const FAREWELL: Duration = Duration::from_mins(1);

/// All machines.
pub(crate) struct Machines {
    context: Arc<Context>,
    instance: Instance,
    capacity: gateway::Capacity,
    present: Mutex<BTreeMap<MachineName, Present>>,
    /// Held while a machine is made, so that two requests for one name do not make two owners.
    creating: Mutex<()>,
}

struct Present {
    handle: Handle,
    owner: JoinHandle<()>,
    gateway: JoinHandle<()>,
    close_gateway: CancellationToken,
}

impl Machines {
    /// Opens every machine that has a directory, and the default one. Each looks for a machine process that an
    /// earlier daemon left running.
    pub(crate) fn open(context: Arc<Context>, instance: Instance) -> Result<Self, DaemonError> {
        let machines = Self {
            instance,
            capacity: gateway::Capacity::of_this_process(),
            present: Mutex::default(),
            creating: Mutex::default(),
            context,
        };
        machines.add(MachineName::default())?;
        let directory = machines.context.dirs.machines();
        let entries = fs::read_dir(&directory).map_err(|source| DaemonError::Io {
            operation: "list the machines in",
            path: directory,
            source,
        })?;
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if name == MachineName::default() || !entry.path().is_dir() {
                continue;
            }
            // One machine that cannot be opened does not take the others with it.
            if let Err(error) = machines.add(name) {
                tracing::error!(machine = ?entry.file_name(), "cannot open a machine: {error}");
            }
        }
        Ok(machines)
    }

    fn add(&self, name: MachineName) -> Result<Handle, DaemonError> {
        let dirs = &self.context.dirs;
        crate::instance::make_private(&dirs.machine(name.as_str()))?;
        crate::instance::make_private(&dirs.machine_runtime(name.as_str()))?;
        let listener = self.instance.listen(&dirs.docker_socket(name.as_str()))?;
        let (handle, owner) = Handle::spawn(Arc::clone(&self.context), name.clone());
        let close_gateway = CancellationToken::new();
        let gateway = tokio::spawn(gateway::serve(
            listener,
            Arc::new(MachineEngine(handle.clone())),
            self.capacity.clone(),
            close_gateway.clone(),
        ));
        let present = Present {
            handle: handle.clone(),
            owner,
            gateway,
            close_gateway,
        };
        self.present().insert(name, present);
        Ok(handle)
    }

    /// The listener for the control API.
    pub(crate) fn listen_for_clients(&self) -> Result<transport::Listener, DaemonError> {
        self.instance.listen(&self.context.dirs.daemon_socket())
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<Handle> {
        self.present()
            .values()
            .map(|present| present.handle.clone())
            .collect()
    }

    /// The machine of that name.
    pub(crate) fn get(&self, name: &str) -> Result<Handle, ApiError> {
        match self.present().get(name) {
            Some(present) => Ok(present.handle.clone()),
            None => Err(ApiError::new(
                ErrorCode::NotFound,
                format!("there is no machine `{}`", crate::machine::clean(name)),
                "`cove machine list` shows those that are there, `cove machine create` makes one",
            )),
        }
    }

    /// Makes a machine, without starting it. What the request says of it goes into the settings.
    pub(crate) fn create(&self, wanted: &NewMachine) -> Result<Handle, ApiError> {
        let invalid = |what: String| ApiError::new(ErrorCode::InvalidRequest, what, "");
        let name: MachineName = wanted
            .name
            .parse()
            .map_err(|bad: crate::name::BadName| invalid(bad.to_string()))?;
        let _alone = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if self.present().contains_key(&name) {
            return Err(ApiError::new(
                ErrorCode::WrongState,
                format!("machine `{name}` is there already"),
                "choose another name, or delete it first with `cove machine delete`",
            ));
        }
        let values = [
            (Field::Cpus, wanted.cpus.map(serde_json::Value::from)),
            (
                Field::Memory,
                wanted.memory_mib.map(|mib| format!("{mib} MiB").into()),
            ),
            (
                Field::Disk,
                wanted.disk_gib.map(|gib| format!("{gib} GiB").into()),
            ),
        ];
        for (field, value) in values {
            if let Some(value) = value {
                let key = Key::Override(name.clone(), field).to_string();
                let set = self.context.settings.set(&key, Some(&value));
                set.inspect_err(|_| {
                    // All of the request, or nothing of it.
                    if let Err(error) = self.context.settings.forget_machine(&name) {
                        tracing::warn!("what was set of a machine that is not created stays: {error}");
                    }
                })?;
            }
        }
        let handle = self.add(name).map_err(|error| {
            let hint = "`cove doctor` checks the directories";
            ApiError::new(ErrorCode::Internal, crate::machine::chain(&error), hint)
        })?;
        self.context.emit(Event::Settings);
        Ok(handle)
    }

    /// Deletes a stopped machine with its data. The default one is there again at once, empty.
    pub(crate) async fn delete(&self, name: &str, confirm: Option<&str>) -> Result<(), ApiError> {
        let handle = self.get(name)?;
        if confirm != Some(name) {
            return Err(ApiError::new(
                ErrorCode::NotConfirmed,
                format!("deleting machine `{name}` destroys its containers, images and volumes"),
                format!("confirm it by the machine's name: confirm={name}"),
            ));
        }
        handle.perform(Command::Delete).await?;
        let present = self.present().remove(name);
        if let Some(present) = present {
            present.close_gateway.cancel();
            // It has nothing to serve; what it holds is dropped with the runtime if it does not end.
            let _ = timeout(FAREWELL, present.gateway).await;
        }
        self.context.emit(Event::Deleted {
            name: name.to_owned(),
        });
        if name == MachineName::default().as_str()
            && let Err(error) = self.add(MachineName::default())
        {
            tracing::error!("the default machine is not there any more: {error}");
        }
        Ok(())
    }

    /// Has every owner look at the settings anew.
    pub(crate) async fn reconsider(&self) {
        for handle in self.all() {
            handle.reconsider().await;
        }
    }

    /// Stops every machine in order and waits until they have stopped.
    pub(crate) async fn stop(&self) -> Result<(), ApiError> {
        let mut stopping: Vec<Listening> = Vec::new();
        for handle in self.all() {
            stopping.push(handle.begin(Command::Stop).await?);
        }
        let mut outcome = Ok(());
        for mut listening in stopping {
            while let Some(progress) = listening.next().await {
                if let Progress::Failed { error } = progress {
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    /// Lets go of every machine and closes the Docker sockets. Machines that run go on running.
    pub(crate) async fn close(&self) {
        let present = std::mem::take(&mut *self.present());
        for one in present.values() {
            one.close_gateway.cancel();
            one.handle.detach().await;
        }
        let farewell = async {
            for (name, one) in present {
                // A task that panicked has said so in the log.
                let _ = one.owner.await;
                let _ = one.gateway.await;
                let socket = self.context.dirs.docker_socket(name.as_str());
                drop(fs::remove_file(socket));
            }
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            tracing::warn!("some machines did not let go in time");
        }
        drop(fs::remove_file(self.context.dirs.daemon_socket()));
    }

    fn present(&self) -> MutexGuard<'_, BTreeMap<MachineName, Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
