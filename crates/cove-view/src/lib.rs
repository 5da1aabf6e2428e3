//! View models: what the window shows of machines and of the engine's objects, and the words that it asks with.
//!
//! The front end's TypeScript types are made from these ([`typescript::module`]), so that a field which changes here and
//! not there fails a check. Nothing in this crate does I/O.
//!
//! Times are milliseconds since 1970, as JavaScript has them; sizes are bytes.

mod container;
mod engine;
mod folder;
mod inside;
mod log;
mod machine;
mod pull;
mod run;
mod time;
pub mod typescript;
mod usage;

pub use container::{ContainerRow, ContainerState, Health, PortBinding, Protocol};
pub use engine::{ImageRow, NetworkRow, VolumeRow};
pub use folder::{Dropped, Sharing};
pub use inside::{MountRow, ProcessTable};
pub use log::{LogLine, LogReader, LogStream};
pub use machine::{CheckView, Failure, MachineNews, MachinePhase, MachineView, StageView, Step};
pub use pull::PullProgress;
pub use run::{Mount, Publish, Restart, RunSpec, Variable};
pub use usage::Usage;
