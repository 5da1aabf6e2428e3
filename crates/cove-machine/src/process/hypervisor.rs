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
    net::{Net, NetConfig},
    vhost_user,
    vsock::{Vsock, VsockConfig},
};
use cove_wire::network;
use std::{io, path::Path};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Threads that answer the guest's file requests: one may wait for the host's disk while the other goes on.
const FS_WORKERS: usize = 2;

/// What runs a guest, and the guest's way out.
pub(super) struct Hypervisor {
    kind: Kind,
    /// Keeps the way out.
    network: JoinHandle<()>,
    /// Whether that leads anywhere.
    plugged: watch::Receiver<bool>,
    notices: Vec<String>,
}

enum Kind {
    /// QEMU, a child of this process, which serves it its devices.
    Emulated(Box<Emulated>),
    /// The monitor, in this process.
    Kvm(Box<kvm::Monitor>),
}

/// QEMU, and what it needs of this process.
struct Emulated {
    qemu: emulated::Hypervisor,
    console: Console,
    devices: [vhost_user::Server; 2],
}

/// What supervision is told, of either kind.
pub(crate) struct Input {
    /// What the daemon asks.
    pub(crate) requests: mpsc::Receiver<Asked>,
    /// Whether the guest's network leads anywhere.
    pub(crate) plugged: watch::Receiver<bool>,
}

impl Hypervisor {
    /// Sets the machine up. Its guest does not run yet. To be called on the main thread, with whose end QEMU ends, and so
    /// does the program that the guest's way out leads through.
    pub(super) fn new(
        launch: &Launch,
        locks: [&Lock; 2],
        folders: &Folders,
        console: Console,
    ) -> Result<Self, MachineError> {
        let spec = &launch.spec;
        let runtime = &spec.runtime;
        let directories = system::program_directories();
        let mut notices = nat::notices(&directories);
        let (plugged_sender, plugged) = watch::channel(false);
        // It listens before there is anybody who connects.
        let network = nat::keep(
            sockets::bind(&sockets::net(runtime))?,
            directories,
            plugged_sender,
        );
        let kind = match &launch.hypervisor {
            record::Hypervisor::Emulated { qemu } => {
                let emulated = Emulated::new(spec, qemu, locks, folders, console)?;
                notices.extend_from_slice(emulated.qemu.notices());
                Kind::Emulated(Box::new(emulated))
            }
            record::Hypervisor::Kvm => {
                let devices = kvm::Shared {
                    vsock: socket_device(runtime)?,
                    fs: file_system_device(folders)?,
                    net: network_device(runtime)?,
                };
                Kind::Kvm(Box::new(kvm::Monitor::new(spec, devices, console)?))
            }
        };
        Ok(Self {
            kind,
            network: tokio::spawn(network),
            plugged,
            notices,
        })
    }

    /// Its process, if that is another one.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Emulated(emulated) => Some(emulated.qemu.pid()),
            Kind::Kvm(_) => None,
        }
    }

    pub(super) fn kind(&self) -> BackendKind {
        match &self.kind {
            Kind::Emulated(_) => BackendKind::Emulated,
            Kind::Kvm(_) => BackendKind::Kvm,
        }
    }

    pub(super) fn features(&self) -> Features {
        match &self.kind {
            Kind::Emulated(_) => emulated::FEATURES,
            Kind::Kvm(_) => kvm::FEATURES,
        }
    }

    /// What the user should know about how it was set up.
    pub(super) fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }

    /// Has the guest run.
    pub(super) async fn begin(&mut self) -> Result<(), MachineError> {
        match &mut self.kind {
            Kind::Emulated(emulated) => emulated.qemu.begin().await,
            Kind::Kvm(monitor) => monitor.begin(),
        }
    }

    /// Sees the guest, which runs, to its end.
    pub(super) async fn supervise(
        self,
        requests: mpsc::Receiver<Asked>,
        spec: &MachineSpec,
        audience: Audience,
    ) -> io::Result<Exit> {
        let input = Input {
            requests,
            plugged: self.plugged,
        };
        let exit = match self.kind {
            Kind::Emulated(emulated) => emulated.supervise(input, spec, audience).await,
            Kind::Kvm(monitor) => monitor.supervise(input, audience).await,
        };
        self.network.abort();
        exit
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
        let qemu = emulated::Hypervisor::start(spec, qemu, locks)?;
        Ok(Self {
            qemu,
            console,
            devices,
        })
    }

    async fn supervise(self, input: Input, spec: &MachineSpec, audience: Audience) -> io::Result<Exit> {
        let exit = emulated::supervise(self.qemu, self.console, input, spec, audience).await?;
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

/// The guest's network device, whose frames go to the socket in `runtime` that the way out begins at.
fn network_device(runtime: &Path) -> Result<Net, MachineError> {
    let config = NetConfig {
        mac: nat::GUEST_MAC,
        mtu: u16::try_from(network::MTU).unwrap_or(u16::MAX),
        socket: sockets::net(runtime),
    };
    Net::new(config).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> MachineError {
    MachineError::StartFailed { why: chain(error) }
}
