//! What the API says of host folders that containers may mount.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A folder to be shared with every machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewShare {
    /// The folder, absolute; in the guest it has the same path.
    pub path: PathBuf,
    /// Whether containers may only read.
    #[serde(default)]
    pub read_only: bool,
}

/// A shared folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The folder.
    pub path: PathBuf,
    /// Whether containers may only read.
    pub read_only: bool,
    /// The running machines that have it.
    pub machines: Vec<String>,
    /// The running machines that should have it and do not.
    pub missing: Vec<MissingShare>,
}

/// A machine that does not have a folder that it should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingShare {
    /// The machine.
    pub machine: String,
    /// Why not, for a person.
    pub why: String,
}
