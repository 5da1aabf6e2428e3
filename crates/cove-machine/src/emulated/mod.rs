//! Machines on QEMU without hardware virtualisation: they run wherever QEMU does, at a fraction of the speed.
//!
//! The daemon's side ([`Emulated`]) finds QEMU and starts the machine process, within which [`hypervisor`] starts QEMU
//! and [`supervisor`] watches it. QEMU gets its socket device and its file system device from the cell, over
//! vhost-user.

mod command;
mod guest;
mod hypervisor;
mod qemu;
mod qmp;
mod supervisor;

pub(crate) use hypervisor::Hypervisor;
pub(crate) use qemu::Qemu;
pub(crate) use supervisor::supervise;

use crate::{
    Availability, Backend, BackendKind, Exit, Features, Machine, MachineError, MachineSpec, nat,
    process::{
        check::check,
        record::{self, Launch},
        start,
    },
    system,
};
use async_trait::async_trait;
use std::path::{Path, PathBuf};

/// What every emulated machine can do.
pub(crate) const FEATURES: Features = Features {
    pause: true,
    guest_connections: true,
    online_grow: true,
    shares: true,
    hardware: false,
};

/// QEMU without hardware virtualisation.
#[derive(Debug, Clone)]
pub struct Emulated {
    program: Option<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Emulated {
    /// Starts machine processes as `program machine-process --directory DIR`, which has to call
    /// [`crate::process::run`]; the running executable when absent.
    pub fn new(program: Option<PathBuf>) -> Self {
        Self {
            program: program.or_else(|| std::env::current_exe().ok()),
            directories: system::program_directories(),
        }
    }

    /// Looks for QEMU in `directories` instead of `PATH` and the usual places.
    #[must_use]
    pub fn with_search_path(mut self, directories: Vec<PathBuf>) -> Self {
        self.directories = directories;
        self
    }

    /// Finds QEMU without blocking the calling thread: the first time, it is asked for its version.
    async fn qemu(&self) -> Result<Qemu, MachineError> {
        let directories = self.directories.clone();
        blocking(move || Qemu::find(&directories)).await
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MachineError> + Send + 'static,
) -> Result<T, MachineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(MachineError::StartFailed {
            why: error.to_string(),
        }),
    }
}

#[async_trait]
impl Backend for Emulated {
    fn kind(&self) -> BackendKind {
        BackendKind::Emulated
    }

    fn probe(&self) -> Availability {
        match Qemu::find(&self.directories) {
            Ok(qemu) => Availability::Available {
                evidence: format!("QEMU {}", qemu.version),
                caveat: qemu.version.caveat(),
            },
            Err(MachineError::Missing { what, hint }) => Availability::Unavailable {
                why: format!("{what} is missing"),
                hint,
                command: qemu::install_command().map(str::to_owned),
            },
            Err(error) => Availability::Unavailable {
                why: cove_wire::with_causes(&error),
                hint: "check that QEMU starts: qemu-system-x86_64 --version".into(),
                command: Some("qemu-system-x86_64 --version".into()),
            },
        }
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn outbound(&self) -> Availability {
        nat::availability(&self.directories)
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, MachineError> {
        check(spec)?;
        let program = self.program.clone().ok_or_else(|| MachineError::StartFailed {
            why: "the path of the running program is unknown".into(),
        })?;
        let launch = Launch {
            spec: spec.clone(),
            hypervisor: record::Hypervisor::Emulated {
                qemu: self.qemu().await?,
            },
        };
        let machine = start::start(&program, &launch).await?;
        Ok(Box::new(machine))
    }

    async fn adopt(&self, spec: &MachineSpec) -> Result<Option<Box<dyn Machine>>, MachineError> {
        let machine = start::adopt(spec).await?;
        Ok(machine.map(|machine| Box::new(machine) as Box<dyn Machine>))
    }

    async fn evict(&self, directory: &Path, runtime: &Path) -> Result<(), MachineError> {
        start::evict(directory, runtime).await
    }

    fn last_exit(&self, spec: &MachineSpec) -> Option<Exit> {
        record::read(&spec.directory).ok().flatten()
    }
}
