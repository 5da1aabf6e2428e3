//! Where machines come from: the backends of this computer, or a test's.

use crate::settings::Backend as Wanted;
use cove_machine::{Backend, BackendKind, Choice, Preference};
use std::{path::PathBuf, sync::Arc};

/// Chooses backends. Both calls may look at files and run `qemu --version`, so they take milliseconds.
pub(crate) trait Platform: Send + Sync {
    /// The backend for a machine that is to be started.
    fn choose(&self, wanted: Wanted) -> Choice;

    /// The backend of a machine that was started earlier.
    fn backend(&self, kind: BackendKind) -> Arc<dyn Backend>;
}

/// This computer.
#[derive(Debug)]
pub(crate) struct Host {
    /// The program that becomes a machine process.
    pub(crate) program: PathBuf,
}

impl Platform for Host {
    fn choose(&self, wanted: Wanted) -> Choice {
        let preference = match wanted {
            Wanted::Auto => Preference::Auto,
            Wanted::Kvm => Preference::Kvm,
            Wanted::Emulated => Preference::Emulated,
        };
        cove_machine::choose(preference, Some(self.program.clone()))
    }

    fn backend(&self, kind: BackendKind) -> Arc<dyn Backend> {
        let wanted = match kind {
            BackendKind::Kvm => Wanted::Kvm,
            BackendKind::Emulated => Wanted::Emulated,
            // Where one of these was started, it is the only one.
            BackendKind::Vz | BackendKind::HyperV => Wanted::Auto,
        };
        self.choose(wanted).backend
    }
}
