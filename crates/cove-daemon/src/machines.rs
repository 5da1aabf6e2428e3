//! All machines of this daemon: an owner and a Docker socket for each.
//!
//! A machine is there when it has a directory; the default one always is. Its Docker socket is there for as long as
//! the daemon runs, whatever the machine does, so that a client of a stopped machine is told so instead of finding
//! nothing.

use crate::{
    daemon::DaemonError,
    gateway,
    instance::{Instance, make_private},
    machine::{Command, Context, Handle, InnerClients, Listening, MachineEngine},
    name::MachineName,
    settings::{Field, Key},
};
use cove_api::{ApiError, Dirs, ErrorCode, Event, NewMachine, Progress, transport};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
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

/// The directories of a machine that is being made; what was made of them goes again unless they are kept.
struct Home {
    /// Inner directories first.
    made: Vec<PathBuf>,
    socket: PathBuf,
}

impl Home {
    fn make(dirs: &Dirs, name: &MachineName) -> Result<Self, DaemonError> {
        let mut home = Self {
            made: Vec::new(),
            socket: dirs.docker_socket(name.as_str()),
        };
        for directory in [dirs.machine(name.as_str()), dirs.machine_runtime(name.as_str())] {
            if !directory.is_dir() {
                make_private(&directory)?;
                home.made.insert(0, directory);
            }
        }
        Ok(home)
    }

    fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for directory in &self.made {
            // The socket is in one of them; what else should be in there stays, and its directory with it.
            let _ = fs::remove_file(&self.socket);
            let _ = fs::remove_dir(directory);
        }
    }
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
        Home::make(&self.context.dirs, &name)?.keep();
        let listener = self
            .instance
            .listen(&self.context.dirs.docker_socket(name.as_str()))?;
        Ok(self.open_with(name, listener))
    }

    fn open_with(&self, name: MachineName, listener: transport::Listener) -> Handle {
        let (handle, owner) = Handle::spawn(Arc::clone(&self.context), name.clone());
        let close_gateway = CancellationToken::new();
        let gateway = tokio::spawn(gateway::serve(
            listener,
            Arc::new(MachineEngine::for_host(handle.clone())),
            self.capacity.clone(),
            close_gateway.clone(),
        ));
        tokio::spawn(gateway::serve(
            InnerClients(handle.clone()),
            Arc::new(MachineEngine::for_guest(handle.clone())),
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
        handle
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
        let longest = cove_machine::longest_socket(&self.context.dirs.machine_runtime(name.as_str()));
        if !transport::path_fits(&longest) {
            return Err(DaemonError::SocketPathTooLong { path: longest }.into());
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
        let said = values
            .into_iter()
            .filter_map(|(field, value)| Some((Key::Override(name.clone(), field), value?)));
        let said: Vec<_> = said.collect();
        // The settings come last, because they alone may hold something that is not of this request.
        let home = Home::make(&self.context.dirs, &name)?;
        let listener = self
            .instance
            .listen(&self.context.dirs.docker_socket(name.as_str()))?;
        self.context.settings.set_all(&said)?;
        home.keep();
        let handle = self.open_with(name, listener);
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

    /// Stops every machine in order and waits until they have stopped. Those that are out of this daemon's reach go on,
    /// as they would without it.
    pub(crate) async fn stop(&self) -> Result<(), ApiError> {
        let mut stopping: Vec<Listening> = Vec::new();
        for handle in self.all() {
            if !handle.snapshot().out_of_reach {
                stopping.push(handle.begin(Command::Stop).await?);
            }
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
