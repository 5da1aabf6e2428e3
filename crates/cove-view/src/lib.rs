//! View models: what the window shows of machines and of the engine's objects, and the words that it asks with.
//!
//! The front end's TypeScript types are made from these ([`typescript::module`]), so that a field which changes here and
//! not there fails a check. Nothing in this crate does I/O.
//!
//! Times are milliseconds since 1970, as JavaScript has them; sizes are bytes.

mod container;
mod engine;
mod machine;
mod run;
pub mod typescript;

pub use container::{ContainerRow, ContainerState, Health, PortBinding, Protocol, Usage};
pub use engine::{ImageRow, NetworkRow, VolumeRow};
pub use machine::{CheckView, Failure, MachinePhase, MachineView, StageView};
pub use run::{Mount, Publish, Restart, RunSpec, Variable};
