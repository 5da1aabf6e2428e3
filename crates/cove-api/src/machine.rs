//! What the API says of machines, and what is said while something goes on.

use crate::ApiError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The machine that is there without having been created.
pub const DEFAULT_MACHINE: &str = "default";

/// The daemon's program and protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Release of the daemon, such as `0.1.0`.
    pub version: String,
    /// Version of the host-guest protocol.
    pub protocol: u32,
    /// The daemon's process id.
    pub pid: u32,
}

/// A request for a new machine; what is absent comes from the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMachine {
    /// `[a-z0-9][a-z0-9-]*`, at most 32 bytes.
    pub name: String,
    /// Virtual CPUs.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory in MiB.
    #[serde(default)]
    pub memory_mib: Option<u32>,
    /// Size of the data disk in GiB; sparse, so that only what is used takes space.
    #[serde(default)]
    pub disk_gib: Option<u32>,
}

/// A machine's state, as its owner task sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum MachineState {
    /// Not running.
    Stopped,
    /// On its way to running.
    Starting {
        /// The stage it is in, in words.
        stage: String,
    },
    /// The engine answers.
    Running,
    /// Its vCPUs are stopped.
    Paused,
    /// On its way to stopped.
    Stopping,
    /// It ended, or did not start, in a way that nobody asked for.
    Failed {
        /// Why, and what to do.
        error: ApiError,
        /// Last lines of the guest's console, where they help.
        console_tail: Vec<String>,
    },
}

impl MachineState {
    /// The stage of a daemon that has just begun and does not know yet whether its machine runs.
    pub const LOOKING: &str = "Looking for a machine that runs";

    /// Whether the daemon does not know yet how the machine is.
    pub fn is_looking(&self) -> bool {
        matches!(self, Self::Starting { stage } if stage == Self::LOOKING)
    }
}

/// Everything about one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// Its state.
    #[serde(flatten)]
    pub state: MachineState,
    /// What runs it, or would.
    pub backend: BackendReport,
    /// Where its engine is reached.
    pub endpoint: Endpoint,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Largest size of the data disk, in bytes.
    pub disk_size: u64,
    /// What the data disk takes on the host, in bytes.
    pub disk_on_host: u64,
    /// Seconds since the engine answered; absent when it does not.
    #[serde(default)]
    pub uptime_s: Option<u64>,
    /// The engine's version by the image's manifest.
    #[serde(default)]
    pub engine_version: Option<String>,
    /// Memory that the machine takes on the host, in bytes; absent when it does not run.
    #[serde(default)]
    pub memory_on_host: Option<u64>,
    /// Stages of the present or last start, host and guest, on one clock that began with the request.
    #[serde(default)]
    pub timings: Vec<Stage>,
    /// What a person should know although nothing failed.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// What a machine that runs uses, memory and disk in bytes, as its guest counts; what it takes of the host's memory is
/// in its [`MachineStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineUsage {
    /// What the data disk takes on the host.
    pub disk_on_host: u64,
    /// Of the guest's file system on it, without the file system's own tables.
    pub disk_used: u64,
    /// Of the guest's memory, without what its caches would give up.
    pub memory_used: u64,
    /// What its processors have done; the agent of an older image does not say.
    #[serde(default)]
    pub cpu: Option<CpuTime>,
}

/// What a guest's processors have done since its start, all of them together, in ticks of 10 ms. How busy they are tells
/// the difference of two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    /// Ticks in which they worked.
    pub busy: u64,
    /// All ticks.
    pub all: u64,
}

/// What came of having the guest discard what it does not use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaimed {
    /// What the data disk took on the host before.
    pub before: u64,
    /// What it takes now.
    pub after: u64,
}

/// Which backend runs a machine, and why that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    /// `kvm`, `emulated`, `vz` or `hyperv`.
    pub kind: String,
    /// Why it was chosen.
    pub reason: String,
}

/// Where an engine is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The value for `DOCKER_HOST`.
    pub docker_host: String,
    /// The socket's path.
    pub socket: PathBuf,
    /// Name of the Docker context.
    pub context: String,
}

/// A Docker context: how Docker clients reach a machine by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerContext {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: ContextState,
    /// Whether Docker clients use it when they are told nothing.
    pub current: bool,
}

/// How a machine's Docker context is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextState {
    /// There is none.
    Absent,
    /// It leads to the machine.
    Good,
    /// It is Cove's and leads to where nothing is any more.
    Stale,
    /// It leads to a machine of another home of Cove's.
    Elsewhere {
        /// Where it leads.
        host: String,
    },
    /// Somebody else has made it.
    Foreign,
}

/// A stage of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name, in `lower-case-words`.
    pub name: String,
    /// When it began, in microseconds since the start was asked for.
    pub start_us: u64,
    /// When it ended, in microseconds since the start was asked for.
    pub end_us: u64,
}

/// A line of the stream that a long request answers with; the last one is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "progress")]
pub enum Progress {
    /// A stage began.
    Stage {
        /// What is being done, in words.
        message: String,
        /// How far the whole is, from 0 to 1.
        fraction: f32,
    },
    /// Something that a person should know.
    Notice {
        /// What, and what to do.
        message: String,
    },
    /// It is done.
    Done {
        /// The machine as it is now.
        status: Box<MachineStatus>,
    },
    /// It failed.
    Failed {
        /// Why, and what to do.
        error: ApiError,
    },
}

/// Whose log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// The daemon's own.
    Daemon,
    /// The guest's console.
    Console,
    /// The machine process's.
    Machine,
    /// The guest agent's.
    Agent,
    /// dockerd's.
    Engine,
    /// containerd's.
    Containerd,
    /// The guest kernel's.
    Kernel,
}

/// Something that `cove doctor` looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, in a few words.
    pub name: String,
    /// How it is.
    pub state: CheckState,
    /// What was seen.
    pub evidence: String,
    /// What to do about it; empty when nothing.
    #[serde(default)]
    pub fix: String,
    /// The command line that does it, where one does.
    #[serde(default)]
    pub command: Option<String>,
}

impl Check {
    /// The command, unless the fix says it already.
    pub fn unsaid_command(&self) -> Option<&str> {
        self.command
            .as_deref()
            .filter(|command| !self.fix.contains(command))
    }
}

/// How a [`Check`] came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could.
    Warning,
    /// Does not work until it is mended.
    Failed,
}

/// A line of the event stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A machine's state changed, or it was created.
    Machine {
        /// The machine as it is now.
        status: Box<MachineStatus>,
    },
    /// A machine was deleted.
    Deleted {
        /// Its name.
        name: String,
    },
    /// The settings changed.
    Settings,
    /// The receiver was too slow and has missed events: it should ask for everything anew.
    Missed,
}
