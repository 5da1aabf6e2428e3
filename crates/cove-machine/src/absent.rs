//! Backends that this release names and does not have, or that another platform has.

use crate::{Availability, Backend, BackendKind, Features, Machine, MachineError, MachineSpec};
use async_trait::async_trait;

/// A backend that runs nothing and says why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Absent {
    kind: BackendKind,
    why: &'static str,
    hint: &'static str,
}

impl Absent {
    /// Apple's Virtualization.framework.
    #[cfg(target_os = "macos")]
    pub(crate) const VZ: Self = Self {
        kind: BackendKind::Vz,
        why: "machines on Virtualization.framework are not part of this release",
        hint: "run Cove on Linux for now",
    };

    /// The Host Compute System.
    #[cfg(windows)]
    pub(crate) const HYPER_V: Self = Self {
        kind: BackendKind::HyperV,
        why: "machines on the Host Compute System are not part of this release",
        hint: "run Cove on Linux for now",
    };

    /// QEMU on a system that the machine process does not support.
    #[cfg(not(target_os = "linux"))]
    pub(crate) const EMULATED: Self = Self {
        kind: BackendKind::Emulated,
        why: "emulated machines need Linux in this release",
        hint: "run Cove on Linux for now",
    };
}

#[async_trait]
impl Backend for Absent {
    fn kind(&self) -> BackendKind {
        self.kind
    }

    fn probe(&self) -> Availability {
        Availability::unavailable(self.why, self.hint)
    }

    fn features(&self) -> Features {
        Features::default()
    }

    async fn start(&self, _: &MachineSpec) -> Result<Box<dyn Machine>, MachineError> {
        Err(MachineError::Unsupported {
            operation: "starting a machine",
            backend: self.kind,
        })
    }

    /// There is nothing to adopt where nothing can have been started.
    async fn adopt(&self, _: &MachineSpec) -> Result<Option<Box<dyn Machine>>, MachineError> {
        Ok(None)
    }
}
