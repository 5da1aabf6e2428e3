//! The daemon's control API: data types, error codes, directories, typed client, how the daemon is started, and the
//! diagnostics that a client gathers.
//!
//! HTTP/1.1 and JSON over a local socket (`<runtime>/daemon.sock`, mode 0600). The CLI, the desktop shell and scripts
//! speak it. It knows nothing of hypervisors.
//!
//! ```text
//! GET    /v1/version                        Version
//! GET    /v1/machines                       [MachineStatus]
//! POST   /v1/machines            NewMachine MachineStatus
//! GET    /v1/machines/NAME                  MachineStatus
//! DELETE /v1/machines/NAME?confirm=NAME     {}            destroys its data
//! POST   /v1/machines/NAME/start            Progress …    application/x-ndjson, ends with Done or Failed
//! POST   /v1/machines/NAME/stop             Progress …
//! POST   /v1/machines/NAME/restart          Progress …
//! POST   /v1/machines/NAME/kill             MachineStatus
//! POST   /v1/machines/NAME/pause, /resume   MachineStatus
//! GET    /v1/machines/NAME/usage            MachineUsage  while it runs
//! POST   /v1/machines/NAME/reclaim          Reclaimed     gives the host back what the guest does not use
//! POST   /v1/machines/NAME/exec  wire Exec  101, then wire exec packets both ways
//! POST   /v1/machines/NAME/dial  wire Dial  101, then raw bytes both ways, or wire chunks, as `Upgrade` asks:
//!                                           `tcp`, or `cove-tcp`, by which a reset is told from an end
//! GET    /v1/machines/NAME/context          DockerContext
//! POST   /v1/machines/NAME/context?current= {}            creates its Docker context
//! DELETE /v1/machines/NAME/context          {}            removes its Docker context
//! GET    /v1/machines/NAME/ports            [PublishedPort]
//! GET    /v1/machines/NAME/sites            [Site]
//! GET    /v1/machines/NAME/explain?target=&from=  Explanation
//! GET    /v1/machines/NAME/logs?source=&follow=&tail=      text/plain stream
//! GET    /v1/shares                         [Share]
//! POST   /v1/shares              NewShare   Share         also changes how a folder is shared
//! DELETE /v1/shares?path=                   {}
//! GET    /v1/certificates                   Trusted
//! POST   /v1/certificates  NewCertificates  Trusted       those that were added
//! DELETE /v1/certificates?fingerprint=      Trusted       the one that was removed; its first digits suffice
//! GET    /v1/settings                       Settings
//! POST   /v1/settings       SettingsChange  SettingsOutcome  several at once, or only what that would come to
//! GET    /v1/settings/KEY                   JSON value
//! PUT    /v1/settings/KEY        JSON value Applied
//! DELETE /v1/settings/KEY                   Applied       back to the default
//! GET    /v1/settings-file                  text/plain, the file as it is, or its template
//! PUT    /v1/settings-file       TOML       Applied       with `If-Match`: if the file is still that of this `ETag`
//! GET    /v1/doctor                         [Check]
//! GET    /v1/events                         Event …       application/x-ndjson
//! POST   /v1/shutdown                       {}            stops the machines, then the daemon
//! ```
//!
//! An error is `{"code", "message", "hint"}` ([`ApiError`]) with a fitting HTTP status.

mod carry;
mod client;
pub mod diagnostics;
mod dialled;
mod dirs;
mod error;
mod explain;
pub mod launch;
mod machine;
mod port;
pub mod query;
mod settings;
mod share;
pub mod size;
mod tcp;
pub mod transport;
mod trust;

pub use carry::{carry, carry_halves};
pub use client::{ByteStream, Client, ClientError, JsonLines, SettingsText, Upgraded};
pub use dialled::Dialled;
pub use dirs::{Dirs, DirsError, make_private};
pub use error::{ApiError, ErrorCode, hint_for};
pub use explain::{Explanation, Hop, Station, Verdict};
pub use launch::LaunchError;
pub use machine::{
    BackendReport, Check, CheckState, ContextState, CpuTime, DEFAULT_MACHINE, DockerContext, Endpoint, Event,
    LogSource, MachineState, MachineStatus, MachineUsage, NewMachine, Progress, Reclaimed, Stage, Version,
};
pub use port::{PublishedPort, Site};
pub use query::LogQuery;
pub use settings::{Applied, Setting, Settings, SettingsChange, SettingsOutcome};
pub use share::{MissingShare, NewShare, Share};
pub use tcp::carry_tcp;
pub use trust::{Certificate, MissingTrust, NewCertificates, Trusted};
