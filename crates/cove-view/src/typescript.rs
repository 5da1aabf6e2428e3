//! The front end's types, made from this crate's.

use crate::{
    BuildDetails, BuildHistory, BuildOutcome, BuildRow, BuildSpec, BuildStep, BuildStepState, CheckView,
    ComposeAction, ContainerRow, ContainerState, CpuTime, DiffLine, DiffSign, Dropped, Failure, FailureKind,
    FileChange, FileRow, FileRowKind, FileText, FilesOf, FilesView, Health, ImageDetails, ImageRow, Label,
    LayerFileRow, LayerRow, LayerRows, LayerView, LogLine, LogStream, MachineNews, MachinePhase,
    MachineUsage, MachineView, Member, Mount, MountRow, NetworkDetails, NetworkRow, NewNetwork, Outside,
    OutsideKind, PortBinding, PortObstacle, PortObstacleKind, ProcessTable, ProjectRow, Protocol, Pruned,
    Publish, Reclaimed, RegistriesView, RegistryRow, Removal, Restart, RunSpec, Saved, ServiceRow,
    SettingField, SettingRow, SettingsDiff, SettingsView, ShareRow, Sharing, StageView, Step, Subnet,
    TaskStep, ThingKind, TrustRow, Upload, Usage, Variable, VolumeRow,
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
        BuildDetails,
        BuildHistory,
        BuildOutcome,
        BuildRow,
        BuildSpec,
        BuildStep,
        BuildStepState,
        CheckView,
        ComposeAction,
        ContainerRow,
        ContainerState,
        CpuTime,
        DiffLine,
        DiffSign,
        Dropped,
        Failure,
        FailureKind,
        FileChange,
        FileRow,
        FileRowKind,
        FileText,
        FilesOf,
        FilesView,
        Health,
        ImageDetails,
        ImageRow,
        Label,
        LayerFileRow,
        LayerRow,
        LayerRows,
        LayerView,
        LogLine,
        LogStream,
        MachineNews,
        MachinePhase,
        MachineUsage,
        MachineView,
        Member,
        Mount,
        MountRow,
        NetworkDetails,
        NetworkRow,
        NewNetwork,
        Outside,
        OutsideKind,
        PortBinding,
        PortObstacle,
        PortObstacleKind,
        ProcessTable,
        ProjectRow,
        Protocol,
        Pruned,
        Publish,
        Reclaimed,
        RegistriesView,
        RegistryRow,
        Removal,
        Restart,
        RunSpec,
        Saved,
        ServiceRow,
        SettingField,
        SettingRow,
        SettingsDiff,
        SettingsView,
        ShareRow,
        Sharing,
        StageView,
        Step,
        Subnet,
        TaskStep,
        ThingKind,
        TrustRow,
        Upload,
        Usage,
        Variable,
        VolumeRow,
    );
    text
}
