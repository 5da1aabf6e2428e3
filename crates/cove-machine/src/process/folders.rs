//! The host folders that the guest may reach.
//!
//! [`Folders`] owns the list; the file server behind it has the folders open. Nothing of it is kept on disk: a daemon
//! that adopts the machine learns the list from the greeting.

use crate::{FolderHealth, MachineError, Share, error::chain};
use cove_fs::{Config, Server, ShareOptions};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most folders: each holds a descriptor, and the greeting names all of them in one line.
const MAX_SHARES: usize = 256;

/// The folders, and their file server.
#[derive(Debug)]
pub(crate) struct Folders {
    server: Arc<Server>,
    list: Mutex<Vec<Share>>,
}

impl Folders {
    /// A file server without a folder.
    pub(crate) fn new() -> Result<Self, MachineError> {
        let config = Config {
            replay_uid: cove_wire::REPEATER_UID,
            ..Config::default()
        };
        let server = Server::new(config).map_err(|error| MachineError::StartFailed {
            why: format!("the file server did not start: {error}"),
        })?;
        Ok(Self {
            server: Arc::new(server),
            list: Mutex::default(),
        })
    }

    /// The file server, for the device.
    pub(crate) fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server)
    }

    /// The folders, in order of their addition.
    pub(crate) fn list(&self) -> Vec<Share> {
        self.held().clone()
    }

    /// How the file server is doing.
    pub(crate) fn health(&self) -> FolderHealth {
        let health = self.server.health();
        let lacking = |share: &&Share| health.shares_without_attributes.contains(&share.name);
        FolderHealth {
            watching: health.watching,
            repeating: health.repeating,
            watched: health.watched as u64,
            exhausted: health.watches_exhausted,
            without_attributes: self
                .held()
                .iter()
                .filter(lacking)
                .map(|share| share.path.clone())
                .collect(),
        }
    }

    /// Adds a folder, unless it is there already. Blocks while the folder is opened.
    pub(crate) fn add(&self, share: Share) -> Result<(), String> {
        let mut list = self.held();
        if list.contains(&share) {
            return Ok(());
        }
        if list.len() >= MAX_SHARES {
            return Err(format!(
                "{MAX_SHARES} folders are shared already, which is the most"
            ));
        }
        let options = ShareOptions {
            name: share.name.clone(),
            read_only: share.read_only,
        };
        self.server
            .add_share(&share.path, options)
            .map_err(|error| chain(&error))?;
        list.push(share);
        Ok(())
    }

    /// Takes a folder away, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), String> {
        let mut list = self.held();
        let Some(at) = list.iter().position(|share| share.name == name) else {
            return Ok(());
        };
        self.server.remove_share(name).map_err(|error| chain(&error))?;
        list.remove(at);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Vec<Share>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
