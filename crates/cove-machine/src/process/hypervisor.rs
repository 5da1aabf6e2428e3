//! What runs the guest, of whichever kind: [`crate::emulated`] or [`crate::kvm`].
//!
//! Both follow the same course: `new` sets everything up, `begin` has the guest run, `supervise` sees it to its end.

use super::{
    console::Console,
    control::{Asked, Audience},
    folders::Folders,
    lock::Lock,
    record::{self, Launch},
};
use crate::{
    BackendKind, Exit, Features, MachineError, MachineSpec,
    emulated::{self, Qemu},
    error::chain,
    kvm, nat, sockets, system,
};
use cove_virtio::{
    fs::Fs,
    vhost_user,
    vsock::{Vsock, VsockConfig},
};
use std::{io, path::Path};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Threads that answer the guest's file requests: one may wait for the host's disk while the other goes on.
const FS_WORKERS: usize = 2;

/// What runs a guest.
pub(super) enum Hypervisor {
    /// QEMU, a child of this process, which serves it its devices.
    Emulated(Box<Emulated>),
    /// The monitor, in this process.
    Kvm(Box<kvm::Monitor>),
}

/// QEMU, and what it needs of this process.
pub(super) struct Emulated {
    qemu: emulated::Hypervisor,
    console: Console,
    devices: [vhost_user::Server; 2],
    /// Keeps the way out of the guest.
    network: JoinHandle<()>,
    /// Whether that leads anywhere.
    plugged: watch::Receiver<bool>,
    notices: Vec<String>,
}

impl Hypervisor {
    /// Sets the machine up. Its guest does not run yet. To be called on the main thread, with whose end QEMU ends.
    pub(super) fn new(
        launch: &Launch,
        locks: [&Lock; 2],
        folders: &Folders,
        console: Console,
    ) -> Result<Self, MachineError> {
        let spec = &launch.spec;
        match &launch.hypervisor {
            record::Hypervisor::Emulated { qemu } => Emulated::new(spec, qemu, locks, folders, console)
                .map(|emulated| Self::Emulated(Box::new(emulated))),
            record::Hypervisor::Kvm => {
                let devices = kvm::Shared {
                    vsock: socket_device(&spec.runtime)?,
                    fs: file_system_device(folders)?,
                };
                kvm::Monitor::new(spec, devices, console).map(|monitor| Self::Kvm(Box::new(monitor)))
            }
        }
    }

    /// Its process, if that is another one.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Emulated(emulated) => Some(emulated.qemu.pid()),
            Self::Kvm(_) => None,
        }
    }

    pub(super) fn kind(&self) -> BackendKind {
        match self {
            Self::Emulated(_) => BackendKind::Emulated,
            Self::Kvm(_) => BackendKind::Kvm,
        }
    }

    pub(super) fn features(&self) -> Features {
        match self {
            Self::Emulated(_) => emulated::FEATURES,
            Self::Kvm(_) => kvm::FEATURES,
        }
    }

    /// What the user should know about how it was set up.
    pub(super) fn notices(&self) -> Vec<String> {
        match self {
            Self::Emulated(emulated) => emulated.notices.clone(),
            Self::Kvm(_) => Vec::new(),
        }
    }

    /// Has the guest run.
    pub(super) async fn begin(&mut self) -> Result<(), MachineError> {
        match self {
            Self::Emulated(emulated) => emulated.qemu.begin().await,
            Self::Kvm(monitor) => monitor.begin(),
        }
    }

    /// Sees the guest, which runs, to its end.
    pub(super) async fn supervise(
        self,
        requests: mpsc::Receiver<Asked>,
        spec: &MachineSpec,
        audience: Audience,
    ) -> io::Result<Exit> {
        match self {
            Self::Emulated(emulated) => emulated.supervise(requests, spec, audience).await,
            Self::Kvm(monitor) => monitor.supervise(requests, audience).await,
        }
    }
}

impl Emulated {
    fn new(
        spec: &MachineSpec,
        qemu: &Qemu,
        locks: [&Lock; 2],
        folders: &Folders,
        console: Console,
    ) -> Result<Self, MachineError> {
        let runtime = &spec.runtime;
        let serve = |served: Result<_, vhost_user::ServeError>| served.map_err(|error| failed(&error));
        let devices = [
            serve(vhost_user::serve(
                socket_device(runtime)?,
                &sockets::vhost(runtime),
            ))?,
            serve(vhost_user::serve(
                file_system_device(folders)?,
                &sockets::fs(runtime),
            ))?,
        ];
        let directories = system::program_directories();
        let mut notices: Vec<String> = match nat::Passt::find(&directories) {
            Ok(passt) => passt.flaw().into_iter().map(str::to_owned).collect(),
            Err(_) => vec![format!("{}: {}", nat::MISSING, nat::install_hint())],
        };
        let (plugged_sender, plugged) = watch::channel(false);
        let network = nat::keep(
            sockets::bind(&sockets::net(runtime))?,
            directories,
            plugged_sender,
        );
        let qemu = emulated::Hypervisor::start(spec, qemu, locks)?;
        notices.extend_from_slice(qemu.notices());
        Ok(Self {
            qemu,
            console,
            devices,
            network: tokio::spawn(network),
            plugged,
            notices,
        })
    }

    async fn supervise(
        self,
        requests: mpsc::Receiver<Asked>,
        spec: &MachineSpec,
        audience: Audience,
    ) -> io::Result<Exit> {
        let input = emulated::Input {
            requests,
            plugged: self.plugged,
        };
        let exit = emulated::supervise(self.qemu, self.console, input, spec, audience).await?;
        self.network.abort();
        for device in self.devices {
            if let Err(error) = device.stop() {
                tracing::warn!(why = chain(&error), "a device ended badly");
            }
        }
        Ok(exit)
    }
}

/// The guest's socket device, which host programs reach by a socket in `runtime`.
fn socket_device(runtime: &Path) -> Result<Vsock, MachineError> {
    let config = VsockConfig::new(cove_wire::GUEST_CID.into(), sockets::vsock(runtime));
    Vsock::new(config).map_err(|error| failed(&error))
}

/// The guest's file system device, for the host's folders.
fn file_system_device(folders: &Folders) -> Result<Fs, MachineError> {
    Fs::new(cove_wire::SHARES_TAG, folders.server(), FS_WORKERS).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> MachineError {
    MachineError::StartFailed { why: chain(error) }
}
