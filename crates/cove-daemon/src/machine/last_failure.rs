//! How a machine failed last, where another backend might not have: for `cove doctor`, and also for whoever has it run
//! by another backend meanwhile. It is remembered until a machine comes up by the same one.

use super::{disk::Place, start::unix_seconds};
use crate::file;
use serde::{Deserialize, Serialize};
use std::{fs, path::PathBuf, time::Duration};

/// A failure that may be the backend's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastFailure {
    /// What ran the machine, by the name that settings have for it.
    pub(crate) backend: String,
    /// What happened.
    pub(crate) message: String,
    /// What could be done about it.
    pub(crate) hint: String,
    /// When, in seconds since the Unix epoch.
    pub(crate) unix_s: u64,
}

impl LastFailure {
    /// How long ago it was.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_secs(unix_seconds().saturating_sub(self.unix_s))
    }
}

impl Place {
    fn last_failure_file(&self) -> PathBuf {
        self.directory().join("last-failure.json")
    }

    /// The failure that is remembered, if there is one.
    pub(crate) fn last_failure(&self) -> Option<LastFailure> {
        let text = fs::read(self.last_failure_file()).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(%error, "the record of a machine's failure cannot be read"))
            .ok()
    }

    /// Remembers a failure in the place of an earlier one.
    pub(super) fn remember_failure(&self, failure: &LastFailure) {
        let path = self.last_failure_file();
        let json = serde_json::to_vec(failure).map_err(std::io::Error::from);
        if let Err(error) = json.and_then(|json| file::replace(&path, &json, 0o600)) {
            // It was told already; only a later look suffers.
            tracing::warn!(%error, "the machine's failure is not remembered");
        }
    }

    /// A machine came up by this backend.
    pub(super) fn forget_failure(&self, backend: &str) {
        if self
            .last_failure()
            .is_some_and(|failure| failure.backend == backend)
            && let Err(error) = fs::remove_file(self.last_failure_file())
        {
            tracing::warn!(%error, "the machine's earlier failure stays remembered");
        }
    }
}
