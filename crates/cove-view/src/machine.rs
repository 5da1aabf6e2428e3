//! A machine as the window shows it, made from the control API's [`MachineStatus`].

use cove_api::{ApiError, Check, CheckState, ErrorCode, MachineState, MachineStatus};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Everything that the window shows about one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct MachineView {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub phase: MachinePhase,
    /// The stage of a start, in words.
    pub stage: Option<String>,
    /// Why it failed, and what to do.
    pub failure: Option<Failure>,
    /// Last lines of its console, where they explain the failure.
    pub console_tail: Vec<String>,
    /// `kvm`, `emulated`, `vz` or `hyperv`.
    pub backend: String,
    /// Why this backend.
    pub backend_reason: String,
    /// The value for `DOCKER_HOST`.
    pub docker_host: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Bytes of the guest's memory.
    #[ts(type = "number")]
    pub memory: u64,
    /// Bytes that it takes of this computer's memory.
    #[ts(type = "number | null")]
    pub memory_on_host: Option<u64>,
    /// Bytes that the data disk may grow to.
    #[ts(type = "number")]
    pub disk_size: u64,
    /// Bytes that the data disk takes on this computer.
    #[ts(type = "number")]
    pub disk_on_host: u64,
    /// Seconds since its engine answered.
    #[ts(type = "number | null")]
    pub uptime_s: Option<u64>,
    /// The engine's version.
    pub engine_version: Option<String>,
    /// Stages of the present or last start, by their beginning.
    pub timings: Vec<StageView>,
    /// What a person should know although nothing failed.
    pub notices: Vec<String>,
}

/// What a machine that runs uses, as its guest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct MachineUsage {
    /// Bytes that its data disk takes on this computer.
    #[ts(type = "number")]
    pub disk_on_host: u64,
    /// Bytes that it uses of that disk, without the file system's own tables.
    #[ts(type = "number")]
    pub disk_used: u64,
    /// Bytes that it uses of its memory, without what its caches would give up.
    #[ts(type = "number")]
    pub memory_used: u64,
    /// What its processors have done, where it says that.
    pub cpu: Option<CpuTime>,
}

/// What a machine's processors have done since its start, all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct CpuTime {
    /// Ticks in which they worked.
    #[ts(type = "number")]
    pub busy: u64,
    /// All ticks.
    #[ts(type = "number")]
    pub all: u64,
}

/// What came of reclaiming.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Reclaimed {
    /// Bytes that the data disk took on this computer before.
    #[ts(type = "number")]
    pub before: u64,
    /// Bytes that it takes now.
    #[ts(type = "number")]
    pub after: u64,
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum MachinePhase {
    /// Not running.
    Stopped,
    /// On its way to running.
    Starting,
    /// Its engine answers.
    Running,
    /// Its vCPUs are stopped.
    Paused,
    /// On its way to stopped.
    Stopping,
    /// Ended in a way that nobody asked for.
    Failed,
}

/// What went wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Failure {
    /// What happened and why.
    pub message: String,
    /// What to do next; empty when there is nothing sensible to say.
    pub hint: String,
    /// The registry to sign in to, where that may help; as `sign_in` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub registry: Option<String>,
    /// What kind of failure it is, where that is known: the window has words of its own for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub kind: Option<FailureKind>,
}

/// Kinds of failures that the window says in its own language, before what the program says that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The daemon does not answer.
    DaemonAway,
    /// The engine does not answer.
    EngineAway,
    /// The engine said no.
    EngineRefused,
    /// A registry said no, or something on the way to it went wrong.
    Registry,
    /// What was asked for makes no sense, or is not a setting's value.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// Something else is in the way.
    Conflict,
    /// It cannot be done in this state.
    WrongState,
    /// What destroys was not confirmed.
    NotConfirmed,
    /// The machine's image is missing, damaged or of another version.
    BadImage,
    /// Something that this computer must have is missing.
    MissingDependency,
    /// There is no space on a disk.
    DiskFull,
    /// The machine did not start or has failed.
    MachineFailed,
    /// It did not answer in time.
    Timeout,
    /// It cannot be done here.
    Unsupported,
    /// Something went wrong in the daemon.
    Internal,
}

impl From<ErrorCode> for FailureKind {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidRequest | ErrorCode::InvalidSetting => Self::Invalid,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::WrongState => Self::WrongState,
            ErrorCode::NotConfirmed => Self::NotConfirmed,
            ErrorCode::BadImage => Self::BadImage,
            ErrorCode::MissingDependency => Self::MissingDependency,
            ErrorCode::DiskFull => Self::DiskFull,
            ErrorCode::MachineFailed => Self::MachineFailed,
            ErrorCode::Timeout => Self::Timeout,
            ErrorCode::Unsupported => Self::Unsupported,
            ErrorCode::Internal => Self::Internal,
        }
    }
}

/// What the window hears of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum MachineNews {
    /// The daemon tells how it is.
    Seen {
        /// How it is.
        machine: Box<MachineView>,
    },
    /// The daemon does not answer, so that nobody knows.
    Away {
        /// Why not, and what to do.
        failure: Failure,
    },
}

/// How far something that takes its time has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Step {
    /// What is being done, in words.
    pub message: String,
    /// How far the whole is, from 0 to 1; absent where nobody knows.
    pub fraction: Option<f32>,
}

/// A stage of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct StageView {
    /// Its name, in `lower-case-words`.
    pub name: String,
    /// When it began, in microseconds since the start was asked for.
    #[ts(type = "number")]
    pub start_us: u64,
    /// When it ended.
    #[ts(type = "number")]
    pub end_us: u64,
}

/// Something that the doctor looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct CheckView {
    /// What was looked at.
    pub name: String,
    /// `ok`, `warning` or `failed`.
    #[ts(type = "\"ok\" | \"warning\" | \"failed\"")]
    pub state: String,
    /// What was seen.
    pub evidence: String,
    /// What to do about it; empty when nothing.
    pub fix: String,
    /// The command line that does it, where one does.
    pub command: Option<String>,
}

impl From<MachineStatus> for MachineView {
    fn from(status: MachineStatus) -> Self {
        let (phase, stage, failure, console_tail) = match status.state {
            MachineState::Stopped => (MachinePhase::Stopped, None, None, Vec::new()),
            MachineState::Starting { stage } => (MachinePhase::Starting, Some(stage), None, Vec::new()),
            MachineState::Running => (MachinePhase::Running, None, None, Vec::new()),
            MachineState::Paused => (MachinePhase::Paused, None, None, Vec::new()),
            MachineState::Stopping => (MachinePhase::Stopping, None, None, Vec::new()),
            MachineState::Failed { error, console_tail } => {
                (MachinePhase::Failed, None, Some(error.into()), console_tail)
            }
        };
        let mut timings: Vec<StageView> = status
            .timings
            .into_iter()
            .map(|stage| StageView {
                name: stage.name,
                start_us: stage.start_us,
                end_us: stage.end_us,
            })
            .collect();
        timings.sort_by_key(|stage| stage.start_us);
        Self {
            name: status.name,
            phase,
            stage,
            failure,
            console_tail,
            backend: status.backend.kind,
            backend_reason: status.backend.reason,
            docker_host: status.endpoint.docker_host,
            cpus: status.cpus,
            memory: u64::from(status.memory_mib) << 20,
            memory_on_host: status.memory_on_host,
            disk_size: status.disk_size,
            disk_on_host: status.disk_on_host,
            uptime_s: status.uptime_s,
            engine_version: status.engine_version,
            timings,
            notices: status.notices,
        }
    }
}

impl From<cove_api::MachineUsage> for MachineUsage {
    fn from(found: cove_api::MachineUsage) -> Self {
        Self {
            disk_on_host: found.disk_on_host,
            disk_used: found.disk_used,
            memory_used: found.memory_used,
            cpu: found.cpu.map(|time| CpuTime {
                busy: time.busy,
                all: time.all,
            }),
        }
    }
}

impl From<cove_api::Reclaimed> for Reclaimed {
    fn from(reclaimed: cove_api::Reclaimed) -> Self {
        Self {
            before: reclaimed.before,
            after: reclaimed.after,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            message: error.message,
            hint: error.hint,
            registry: None,
            kind: Some(error.code.into()),
        }
    }
}

impl From<Check> for CheckView {
    fn from(check: Check) -> Self {
        let state = match check.state {
            CheckState::Ok => "ok",
            CheckState::Warning => "warning",
            CheckState::Failed => "failed",
        };
        Self {
            name: check.name,
            state: state.to_owned(),
            evidence: check.evidence,
            fix: check.fix,
            command: check.command,
        }
    }
}
