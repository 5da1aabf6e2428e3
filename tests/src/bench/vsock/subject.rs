//! A device under measurement, in a process of its own.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use cove_virtio::vhost_user;
use cove_virtio::vsock::{Vsock, VsockConfig};
use rustix::process::{Resource, Rlimit};
use tempfile::TempDir;

use crate::bench::peer::{Kind, Peer};
use crate::driver::rig::read_ok;
use crate::driver::stream::Stream;
use crate::driver::transport::VhostUser;
use crate::driver::vsock::{Guest, Options, PATIENCE, Ports};
use crate::harness::Running;

const CID: u64 = 42;
pub(super) const PEER: Peer = Peer {
    name: "vhost-device-vsock",
    version: "0.3.0",
    variable: "COVE_BENCH_VSOCK_PEER",
};

/// A running device with a guest. Dropping it ends its process.
pub(super) struct Subject {
    pub(super) guest: Guest,
    _process: Running,
    dir: TempDir,
}

impl Subject {
    /// Starts a device and boots a guest like Linux on it.
    pub(super) fn start(kind: &Kind) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (socket, host) = (dir.path().join("vhost-user"), dir.path().join("vsock"));
        let mut command = match kind {
            Kind::Ours => {
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .arg("serve-vsock")
                    .arg(&socket)
                    .arg(&host)
                    .arg(CID.to_string());
                command
            }
            Kind::Peer(program) => {
                let mut command = Command::new(program);
                command.arg("--socket").arg(&socket).arg("--uds-path").arg(&host);
                command.arg("--guest-cid").arg(CID.to_string());
                command
            }
        };
        let process = kind.serve(&mut command, &socket)?;
        let guest = VhostUser::connect(&socket, 2)
            .and_then(|front_end| Guest::boot(front_end, Options::linux(CID)))
            .with_context(|| format!("cannot boot a guest on {kind}"))?;
        Ok(Self {
            guest,
            _process: process,
            dir,
        })
    }

    /// A connection from a host program, both ends.
    pub(super) fn connect(&mut self, port: u32) -> Result<(UnixStream, Stream)> {
        let mut host = UnixStream::connect(self.dir.path().join("vsock"))?;
        host.set_read_timeout(Some(PATIENCE))?;
        host.set_write_timeout(Some(PATIENCE))?;
        // In one piece: the peer gives up on a greeting that arrives in several.
        host.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let guest = Stream::accept(&mut self.guest)?;
        read_ok(&mut host)?;
        Ok((host, guest))
    }

    /// A connection from the guest, both ends.
    pub(super) fn dial(&mut self, host_port: u32) -> Result<(UnixStream, Stream)> {
        let listener = UnixListener::bind(self.dir.path().join(format!("vsock_{host_port}")))?;
        let guest = Stream::connect(
            &mut self.guest,
            Ports {
                guest: 1000,
                host: host_port,
            },
        )?;
        let (host, _) = listener.accept()?;
        host.set_read_timeout(Some(PATIENCE))?;
        Ok((host, guest))
    }
}

/// Serves our device until killed: what [`Kind::Ours`] starts.
pub fn serve(socket: &Path, host: &Path, cid: u64) -> Result<()> {
    let device = Vsock::new(VsockConfig::new(cid, host))?;
    Ok(vhost_user::serve(device, socket)?.wait()?)
}

/// A crowd of connections needs a crowd of descriptors, here and in the devices' processes, which inherit the limit.
pub(super) fn raise_descriptor_limit() -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("cannot raise the limit on open files")
}
