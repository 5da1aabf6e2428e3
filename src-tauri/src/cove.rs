//! The Cove that this window shows: where it is, and what was last heard of it.

use crate::{
    alive::Alive,
    failure::{Answer, Refusal},
};
use cove_api::{Client, DEFAULT_MACHINE, Dirs, launch};
use cove_engine::Engine;
use cove_view::{ContainerRow, Failure, MachineNews, MachinePhase, ThingKind};
use std::{
    env,
    path::PathBuf,
    sync::{Mutex, PoisonError, atomic::AtomicUsize},
};
use tokio::sync::{Notify, broadcast, watch};

/// Choices that did not work and may wait for a page that is slow.
const MISSED: usize = 16;
/// Changes that may wait for a page that is slow; one that misses some is told that everything changed.
const CHANGES: usize = 256;

/// Something that was chosen outside of the window and did not work.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Missed {
    /// What was chosen, in the session's language.
    pub(crate) title: String,
    pub(crate) failure: Failure,
}

/// One daemon, and the machine of it that the window shows. [`crate::follow`] owns what is in `news`, `rows`
/// and `lost`.
#[derive(Debug)]
pub(crate) struct Cove {
    pub(crate) dirs: Dirs,
    /// The machine that is shown, by its name. What has begun goes on with the machine that it began with.
    chosen: watch::Sender<String>,
    /// The `cove` program, which the daemon is started with.
    program: PathBuf,
    /// What the machine does; nothing until the daemon was asked.
    pub(crate) news: watch::Sender<Option<MachineNews>>,
    /// The engine's containers as they were last told; nothing while no machine runs that could have any.
    pub(crate) rows: watch::Sender<Option<Vec<ContainerRow>>>,
    /// Why the engine of a machine that runs does not answer; nothing while it does. What was last heard of it stays.
    pub(crate) lost: watch::Sender<Option<Failure>>,
    /// What of the engine's things changed, as its events say.
    pub(crate) changes: broadcast::Sender<ThingKind>,
    /// What was chosen in the tray's menu and did not work, for the window to tell.
    pub(crate) missed: broadcast::Sender<Missed>,
    /// How often a page was told something of the machine that it makes a task of.
    pub(crate) tasks: AtomicUsize,
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
            chosen: watch::Sender::new(machine),
            program: program(),
            news: watch::Sender::new(None),
            rows: watch::Sender::new(None),
            lost: watch::Sender::new(None),
            changes: broadcast::Sender::new(CHANGES),
            missed: broadcast::Sender::new(MISSED),
            tasks: AtomicUsize::new(0),
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

    /// The name of the machine that is shown.
    pub(crate) fn machine(&self) -> String {
        self.chosen.borrow().clone()
    }

    /// Shows another machine from now on, which there has to be. Nothing is known of it before it is asked.
    pub(crate) fn choose(&self, machine: String) {
        self.chosen.send_replace(machine);
        self.news.send_replace(None);
        self.rows.send_replace(None);
        self.lost.send_replace(None);
    }

    /// Tells whenever another machine is chosen.
    pub(crate) fn choices(&self) -> watch::Receiver<String> {
        self.chosen.subscribe()
    }

    /// The engine of the machine that is shown, behind its gateway.
    pub(crate) fn engine(&self) -> Engine {
        self.engine_of(&self.machine())
    }

    /// The engine of the machine of this name.
    pub(crate) fn engine_of(&self, machine: &str) -> Engine {
        Engine::at(self.dirs.docker_socket(machine))
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

    /// Waits until the machine runs. A request to a gateway whose machine does not run would only be refused.
    pub(crate) async fn engine_answers(&self) -> Engine {
        self.engine_of(&self.running().await)
    }

    /// Waits until the machine that is shown runs, and returns its name.
    pub(crate) async fn running(&self) -> String {
        let mut news = self.news.subscribe();
        let name = match news.wait_for(|news| runs(news.as_ref()).is_some()).await {
            Ok(news) => runs(news.as_ref()).map(str::to_owned),
            // The sender is ours, so that it cannot be gone.
            Err(_) => None,
        };
        name.unwrap_or_else(|| self.machine())
    }
}

/// The name of the machine that was heard of, if it runs.
pub(crate) fn runs(news: Option<&MachineNews>) -> Option<&str> {
    match news {
        Some(MachineNews::Seen { machine }) if machine.phase == MachinePhase::Running => Some(&machine.name),
        _ => None,
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;
    use tokio::time::timeout;

    /// News of a machine of this name that runs.
    pub(crate) fn running(name: &str) -> MachineNews {
        let news = json!({"kind": "seen", "machine": {
            "name": name, "phase": "running", "stage": null, "failure": null, "consoleTail": [], "backend": "kvm",
            "backendReason": "", "dockerHost": "", "cpus": 1, "memory": 1, "memoryOnHost": null, "diskSize": 1,
            "diskOnHost": 1, "uptimeS": null, "engineVersion": null, "timings": [], "notices": [],
        }});
        serde_json::from_value(news).unwrap()
    }

    #[tokio::test]
    async fn a_machine_that_runs_is_not_taken_for_another_that_was_chosen_since() {
        let directory = tempfile::tempdir().unwrap();
        let cove = Cove::of(Dirs::below(directory.path()), "first".to_owned());
        cove.news.send_replace(Some(running("first")));
        cove.rows.send_replace(Some(Vec::new()));
        assert_eq!(cove.running().await, "first");
        let choices = cove.choices();
        cove.choose("second".to_owned());
        assert_eq!(cove.machine(), "second");
        assert!(choices.has_changed().unwrap());
        assert!(
            cove.rows.borrow().is_none(),
            "the first one's containers are shown"
        );
        let waiting = timeout(Duration::from_millis(50), cove.running()).await;
        assert!(waiting.is_err(), "{waiting:?} runs");
        cove.news.send_replace(Some(running("second")));
        assert_eq!(cove.running().await, "second");
    }
}
