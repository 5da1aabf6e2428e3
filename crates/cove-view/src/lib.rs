//! View models: what the window shows of machines and of the engine's objects, and the words that it asks with.
//!
//! The front end's TypeScript types are made from these ([`typescript::module`]), so that a field which changes here
//! and not there fails a check. Nothing in this crate does I/O.
//!
//! Times are milliseconds since 1970, as JavaScript has them; sizes are bytes.

mod build;
mod build_progress;
mod compose;
mod container;
mod engine;
mod files;
mod folder;
mod image;
mod inside;
mod label;
mod layers;
mod log;
mod machine;
mod network;
mod registry;
mod removal;
mod run;
mod run_line;
mod settings;
mod task;
mod time;
mod transfer;
pub mod typescript;
mod usage;

pub use build::{BuildDetails, BuildHistory, BuildOutcome, BuildRow, BuildSpec, BuildStep, BuildStepState};
pub use build_progress::BuildProgress;
pub use compose::{
    ComposeAction, ComposeProgress, ProjectRow, ServiceRow, is_project_name, line_of_project, words_of_files,
};
pub use container::{
    ContainerRow, ContainerState, HELPER_LABEL, HELPER_NAME, Health, PortBinding, Protocol, is_helper,
    page_at,
};
pub use engine::{ImageRow, NetworkRow, Pruned, ThingKind, VolumeRow};
pub use files::{
    Changes, FileChange, FileRow, FileRowKind, FileText, FilesOf, FilesView, Outside, OutsideKind, Saved,
    Upload, files_root, volume_root,
};
pub use folder::{Dropped, Sharing};
pub use image::{ImageDetails, Label, LayerRow};
pub use inside::{MountRow, ProcessTable};
pub use layers::{Below, LayerEntry, LayerFileRow, LayerFiles, LayerRows, LayerView};
pub use log::{LogLine, LogReader, LogStream, ShownLog};
pub use machine::{
    CheckView, CpuTime, Failure, FailureKind, MachineNews, MachinePhase, MachineUsage, MachineView,
    Reclaimed, StageView, Step,
};
pub use network::{Member, NetworkDetails, NewNetwork, Subnet};
pub use registry::{RegistriesView, RegistryRow};
pub use removal::Removal;
pub use run::{Mount, PortObstacle, PortObstacleKind, Publish, Restart, RunSpec, Variable};
pub use run_line::run_line;
pub use settings::{
    DiffLine, DiffSign, SettingField, SettingRow, SettingsDiff, SettingsView, ShareRow, TrustRow,
};
pub use task::TaskStep;
pub use transfer::Transfer;
pub use usage::Usage;
