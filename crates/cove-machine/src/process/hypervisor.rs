//! What runs the guest, of whichever kind: QEMU ([`crate::emulated`]), or the monitor in the cell ([`crate::kvm`]).
//!
//! Both follow the same course: `new` sets everything up, `begin` has the guest run, `supervise` sees it to its end.
//! The cell is there for both.

use super::{
    cell::{
        client::Cell,
        supervise::{self, died},
        words::Ask,
    },
    console::{self, Console},
    control::{Asked, Audience},
    folders::Folders,
    left_over::console_path,
    lock::Lock,
    record::{self, Launch},
};
use crate::{BackendKind, Exit, Features, MachineError, MachineSpec, emulated, kvm, nat, sockets, system};
use cove_confine::Layer;
use std::path::Path;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// What runs a guest, and the guest's way out.
pub(super) struct Hypervisor {
    kind: Kind,
    cell: Cell,
    console: Console,
    /// Keeps the way out.
    network: JoinHandle<()>,
    /// Whether that leads anywhere.
    plugged: watch::Receiver<bool>,
    notices: Vec<String>,
}

enum Kind {
    /// QEMU, another child of this process, which the cell serves its devices.
    Emulated(Box<emulated::Hypervisor>),
    /// The monitor, in the cell.
    Kvm,
}

/// What supervision is told, of either kind.
pub(crate) struct Input {
    /// What the daemon asks.
    pub(crate) requests: mpsc::Receiver<Asked>,
    /// Whether the guest's network leads anywhere.
    pub(crate) plugged: watch::Receiver<bool>,
}

impl Hypervisor {
    /// Sets the machine up. Its guest does not run yet. To be called on the main thread, with whose end the cell and
    /// QEMU end, and so does the program that the guest's way out leads through.
    pub(super) async fn new(
        launch: &Launch,
        directory: &Path,
        locks: [&Lock; 2],
        console: Console,
    ) -> Result<Self, MachineError> {
        let spec = &launch.spec;
        let directories = system::program_directories();
        let mut notices = nat::notices(&directories);
        let (plugged_sender, plugged) = watch::channel(false);
        // It listens before there is anybody who connects.
        let network = nat::keep(
            sockets::bind(&sockets::net(&spec.runtime))?,
            directories,
            plugged_sender,
        );
        let its_own = match &launch.hypervisor {
            // QEMU has the disk, and the locks with it.
            record::Hypervisor::Emulated { .. } => &[][..],
            record::Hypervisor::Kvm => &locks[..],
        };
        let cell = Cell::start(directory, its_own).await?;
        let kind = match &launch.hypervisor {
            record::Hypervisor::Emulated { qemu } => {
                let qemu = match emulated::Hypervisor::start(spec, qemu, locks) {
                    Ok(qemu) => qemu,
                    Err(error) => {
                        cell.end().await;
                        return Err(error);
                    }
                };
                notices.extend_from_slice(qemu.notices());
                Kind::Emulated(Box::new(qemu))
            }
            record::Hypervisor::Kvm => Kind::Kvm,
        };
        Ok(Self {
            kind,
            cell,
            console,
            network: tokio::spawn(network),
            plugged,
            notices,
        })
    }

    /// The process that the guest runs in.
    pub(super) fn pid(&self) -> u32 {
        match &self.kind {
            Kind::Emulated(qemu) => qemu.pid(),
            Kind::Kvm => self.cell.pid,
        }
    }

    /// The process that the guest runs in, and that of its devices where this is another.
    pub(super) fn processes(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Emulated(qemu) => vec![qemu.pid(), self.cell.pid],
            Kind::Kvm => vec![self.cell.pid],
        }
    }

    pub(super) fn kind(&self) -> BackendKind {
        match &self.kind {
            Kind::Emulated(_) => BackendKind::Emulated,
            Kind::Kvm => BackendKind::Kvm,
        }
    }

    pub(super) fn features(&self) -> Features {
        match &self.kind {
            Kind::Emulated(_) => emulated::FEATURES,
            Kind::Kvm => kvm::FEATURES,
        }
    }

    /// What the user should know about how it was set up.
    pub(super) fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }

    /// How the process that faces the guest is confined.
    pub(super) fn confinement(&self) -> Vec<Layer> {
        self.cell.layers.clone()
    }

    /// The folders that the guest may reach: none yet. To be called once.
    pub(super) fn folders(&mut self) -> Folders {
        let porter = self.cell.errands().filter(|_| self.cell.has_view());
        Folders::new(self.cell.handle.clone(), porter)
    }

    /// Has the guest run.
    pub(super) async fn begin(&mut self) -> Result<(), MachineError> {
        match &mut self.kind {
            Kind::Emulated(qemu) => qemu.begin().await,
            Kind::Kvm => match self.cell.handle.ask(Ask::Begin).await {
                Ok(_) => Ok(()),
                Err(why) => Err(MachineError::StartFailed { why }),
            },
        }
    }

    /// Ends it, whose guest does not run.
    pub(super) async fn end(self) {
        self.network.abort();
        self.cell.end().await;
    }

    /// Sees the guest, which runs, to its end.
    pub(super) async fn supervise(
        self,
        requests: mpsc::Receiver<Asked>,
        spec: &MachineSpec,
        audience: Audience,
    ) -> Exit {
        let input = Input {
            requests,
            plugged: self.plugged,
        };
        let exit = match self.kind {
            Kind::Emulated(qemu) => {
                let mut cell = self.cell;
                tokio::select! {
                    exit = emulated::supervise(*qemu, self.console, input, spec, audience) => {
                        cell.end().await;
                        exit
                    }
                    // QEMU does not get over the end of its devices.
                    () = cell.ended() => Exit {
                        cause: died(cell).await,
                        // The console went with QEMU's supervision.
                        console_tail: console::tail_of_file(&console_path(&spec.directory)),
                    },
                }
            }
            Kind::Kvm => supervise::supervise(self.cell, self.console, input, audience).await,
        };
        self.network.abort();
        exit
    }
}
