//! Machines on hardware virtualisation, in Cove's own monitor (`cove-vmm`).
//!
//! The daemon's side ([`Kvm`]) looks whether this computer's KVM will do ([`probe`]) and starts the machine process,
//! whose cell is the monitor: the vCPUs are threads of it, and so are the devices. [`Monitor`] sees the machine to its
//! end there.

mod disks;
mod guest;
#[cfg(target_arch = "x86_64")]
mod monitor;
#[cfg(not(target_arch = "x86_64"))]
mod nowhere;
mod probe;

pub(crate) use disks::Disks;
#[cfg(target_arch = "x86_64")]
pub(crate) use monitor::Monitor;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use nowhere::Monitor;

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
use cove_virtio::{fs::Fs, net::Net, vsock::Vsock};
use std::path::{Path, PathBuf};

/// What every machine on KVM can do.
pub(crate) const FEATURES: Features = Features {
    pause: true,
    guest_connections: true,
    online_grow: true,
    shares: true,
    hardware: true,
};

/// Most vCPUs, as many as the ACPI tables can list.
const MAX_CPUS: u32 = 254;

/// The devices that reach beyond the machine, and are made by whoever knows what is there.
pub(crate) struct Shared {
    pub(crate) disks: Disks,
    pub(crate) vsock: Vsock,
    pub(crate) fs: Fs,
    pub(crate) net: Net,
}

/// Cove's own monitor on KVM.
#[derive(Debug, Clone)]
pub struct Kvm {
    program: Option<PathBuf>,
    device: PathBuf,
    cpuinfo: PathBuf,
}

impl Kvm {
    /// Starts machine processes as `program machine-process --directory DIR`, which has to call
    /// [`crate::process::run`]; the running executable when absent.
    pub fn new(program: Option<PathBuf>) -> Self {
        Self {
            program: program.or_else(|| std::env::current_exe().ok()),
            device: "/dev/kvm".into(),
            cpuinfo: "/proc/cpuinfo".into(),
        }
    }
}

#[async_trait]
impl Backend for Kvm {
    fn kind(&self) -> BackendKind {
        BackendKind::Kvm
    }

    fn probe(&self) -> Availability {
        probe::probe(&self.device, &self.cpuinfo)
    }

    fn features(&self) -> Features {
        FEATURES
    }

    fn outbound(&self) -> Availability {
        nat::availability(&system::program_directories())
    }

    async fn start(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, MachineError> {
        check(spec)?;
        if spec.cpus > MAX_CPUS {
            return Err(MachineError::InvalidSpec(format!(
                "{} vCPUs are too many, it may have at most {MAX_CPUS}",
                spec.cpus
            )));
        }
        if let Availability::Unavailable { why, hint, .. } = self.probe() {
            return Err(MachineError::Missing {
                what: format!("hardware virtualisation ({why})"),
                hint,
            });
        }
        let program = self.program.clone().ok_or_else(|| MachineError::StartFailed {
            why: "the path of the running program is unknown".into(),
        })?;
        let launch = Launch {
            spec: spec.clone(),
            hypervisor: record::Hypervisor::Kvm,
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
