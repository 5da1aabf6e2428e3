//! The front end's types, made from this crate's.

use crate::{
    CheckView, ContainerRow, ContainerState, Dropped, Failure, Health, ImageRow, LogLine, LogStream,
    MachineNews, MachinePhase, MachineView, Mount, MountRow, NetworkRow, PortBinding, ProcessTable, Protocol,
    Publish, Restart, RunSpec, Sharing, StageView, Step, Usage, Variable, VolumeRow,
};
use std::fmt::Write as _;
use ts_rs::{Config, TS};

/// The text of `ui/src/lib/host/types.gen.ts`.
pub fn module() -> String {
    let config = Config::default();
    let mut text = String::from(
        "// Made from crates/cove-view. Do not edit: COVE_UPDATE_TYPES=1 cargo test -p cove-view\n",
    );
    macro_rules! declare {
        ($($name:ty),+ $(,)?) => {$(
            // Writing to a string does not fail.
            let _ = writeln!(text, "\nexport {}", <$name as TS>::decl(&config));
        )+};
    }
    declare!(
        CheckView,
        ContainerRow,
        ContainerState,
        Dropped,
        Failure,
        Health,
        ImageRow,
        LogLine,
        LogStream,
        MachineNews,
        MachinePhase,
        MachineView,
        Mount,
        MountRow,
        NetworkRow,
        PortBinding,
        ProcessTable,
        Protocol,
        Publish,
        Restart,
        RunSpec,
        Sharing,
        StageView,
        Step,
        Usage,
        Variable,
        VolumeRow,
    );
    text
}
