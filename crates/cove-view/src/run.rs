//! What a person asks for in the form that runs a container.

use crate::Protocol;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A container to create and start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// What it is made from.
    pub image: String,
    /// Empty: the engine invents one.
    pub name: String,
    /// The command's words; empty: the image's own.
    pub command: Vec<String>,
    /// Environment.
    pub environment: Vec<Variable>,
    /// Ports to publish.
    pub ports: Vec<Publish>,
    /// Folders and volumes.
    pub mounts: Vec<Mount>,
    /// What happens when it ends.
    pub restart: Restart,
    /// Whether it is removed when it ends.
    pub remove: bool,
}

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A port to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Publish {
    /// On this computer.
    pub host: u16,
    /// In the container.
    pub container: u16,
    /// Which protocol.
    pub protocol: Protocol,
}

/// A folder of this computer (an absolute path) or a volume (a name) in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// The folder's path or the volume's name.
    pub source: String,
    /// Where it appears in the container.
    pub target: String,
    /// Whether the container may not write.
    pub read_only: bool,
}

/// What the engine does when a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Nothing.
    No,
    /// Starts it anew unless it ended well.
    OnFailure,
    /// Starts it anew until a person stops it.
    UnlessStopped,
    /// Starts it anew, even after the engine's own restart.
    Always,
}
