//! The Cove that this window shows: where it is, and what was last heard of it.

use crate::{
    alive::Alive,
    failure::{Answer, Refusal},
};
use cove_api::{Client, DEFAULT_MACHINE, Dirs, launch};
use cove_engine::Engine;
use cove_view::{ContainerRow, MachineNews, MachinePhase, ThingKind};
use std::{
    env,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};
use tokio::sync::{Notify, broadcast, watch};

/// Changes that may wait for a page that is slow; one that misses some is told that everything changed.
const CHANGES: usize = 256;

/// One machine of one daemon. [`crate::follow`] owns what is in the two watched values.
#[derive(Debug)]
pub(crate) struct Cove {
    pub(crate) dirs: Dirs,
    pub(crate) machine: String,
    /// The `cove` program, which the daemon is started with.
    program: PathBuf,
    /// What the machine does; nothing until the daemon was asked.
    pub(crate) news: watch::Sender<Option<MachineNews>>,
    /// The engine's containers; nothing while no engine answers.
    pub(crate) rows: watch::Sender<Option<Vec<ContainerRow>>>,
    /// What of the engine's things changed, as its events say.
    pub(crate) changes: broadcast::Sender<ThingKind>,
    /// Asks the follower to look for the daemon at once.
    pub(crate) look: Notify,
    /// That this window lives, from when somebody may want to know.
    alive: Mutex<Option<Alive>>,
}

impl Cove {
    /// The Cove of this user's directories.
    pub(crate) fn from_environment() -> Result<Self, Refusal> {
        let dirs = Dirs::from_env().map_err(|error| Refusal::new(error.to_string(), ""))?;
        let machine = env::var("COVE_MACHINE").ok().filter(|name| !name.is_empty());
        Ok(Self::of(
            dirs,
            machine.unwrap_or_else(|| DEFAULT_MACHINE.to_owned()),
        ))
    }

    /// This machine of the Cove of these directories.
    pub(crate) fn of(dirs: Dirs, machine: String) -> Self {
        Self {
            dirs,
            machine,
            program: program(),
            news: watch::Sender::new(None),
            rows: watch::Sender::new(None),
            changes: broadcast::Sender::new(CHANGES),
            look: Notify::new(),
            alive: Mutex::default(),
        }
    }

    /// A client of the daemon, whether it runs or not.
    pub(crate) fn client(&self) -> Client {
        Client::of(&self.dirs)
    }

    /// A client of the daemon, which is started if need be.
    pub(crate) async fn daemon(&self) -> Result<Client, Refusal> {
        let client = launch::ensure(&self.dirs, &self.program, || {}).await?;
        self.look.notify_one();
        Ok(client)
    }

    /// The engine behind the gateway.
    pub(crate) fn engine(&self) -> Engine {
        Engine::at(self.dirs.docker_socket(&self.machine))
    }

    /// The name of this window, by which others can find out whether it lives.
    pub(crate) fn window(&self) -> Answer<String> {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alive) = &*alive {
            return Ok(alive.name().to_owned());
        }
        let claimed = Alive::claim(&self.dirs).map_err(|error| {
            Refusal::new(
                format!("cannot write to {}: {error}", self.dirs.runtime().display()),
                "Check the directory's owner and permissions.",
            )
        })?;
        Ok(alive.insert(claimed).name().to_owned())
    }

    /// What the machine does, as far as is known.
    pub(crate) fn phase(&self) -> Option<MachinePhase> {
        match &*self.news.borrow() {
            Some(MachineNews::Seen { machine }) => Some(machine.phase),
            _ => None,
        }
    }

    /// Waits until the machine runs. A request to a gateway whose machine does not run would only be refused.
    pub(crate) async fn engine_answers(&self) -> Engine {
        let mut news = self.news.subscribe();
        let runs = |news: &Option<MachineNews>| matches!(news, Some(MachineNews::Seen { machine }) if machine.phase == MachinePhase::Running);
        // The sender is ours, so that it cannot be gone.
        let _ = news.wait_for(runs).await;
        self.engine()
    }
}

/// `cove` beside this program, as it is installed; else whichever the shell would find.
fn program() -> PathBuf {
    let name = if cfg!(windows) { "cove.exe" } else { "cove" };
    env::current_exe()
        .ok()
        .and_then(|this| Some(this.parent()?.join(name)))
        .filter(|beside| beside.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}
