//! A device under measurement, in a process of its own.

use std::fmt;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cove_virtio::vhost_user;
use cove_virtio::vsock::{Vsock, VsockConfig};
use rustix::process::{Resource, Rlimit};
use tempfile::TempDir;

use crate::driver::rig::read_ok;
use crate::driver::stream::Stream;
use crate::driver::transport::VhostUser;
use crate::driver::vsock::{Guest, Options, PATIENCE, Ports};

const CID: u64 = 42;
const PEER: (&str, &str) = ("vhost-device-vsock", "0.3.0");

/// Whose device it is.
pub(super) enum Kind {
    /// Ours, served by this very program.
    Ours,
    /// The peer's program.
    Peer(PathBuf),
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ours => "our device",
            Self::Peer(_) => "the peer",
        })
    }
}

/// A running device with a guest. Dropping it ends its process.
pub(super) struct Subject {
    pub(super) guest: Guest,
    process: Child,
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
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {kind}"))?;
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            let ended = process.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "{kind} does not serve"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let guest =
            VhostUser::connect(&socket, 2).and_then(|front_end| Guest::boot(front_end, Options::linux(CID)));
        match guest {
            Ok(guest) => Ok(Self { guest, process, dir }),
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                Err(error.context(format!("cannot boot a guest on {kind}")))
            }
        }
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

impl Drop for Subject {
    fn drop(&mut self) {
        // Ended already, if these fail.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves our device until killed: what [`Kind::Ours`] starts.
pub fn serve(socket: &Path, host: &Path, cid: u64) -> Result<()> {
    let device = Vsock::new(VsockConfig::new(cid, host))?;
    Ok(vhost_user::serve(device, socket)?.wait()?)
}

/// The peer's program: what `COVE_BENCH_VSOCK_PEER` names, or else one that is installed below `tools`.
pub(super) fn peer_program(tools: &Path) -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("COVE_BENCH_VSOCK_PEER") {
        return Ok(program.into());
    }
    let (name, version) = PEER;
    let tools = std::path::absolute(tools).context("there is no current directory")?;
    let program = tools.join("bin").join(name);
    if !program.exists() {
        println!("installing {name} {version} to compare with");
        // Cargo tells the programs it runs which toolchain and target directory to use; the peer has its own.
        let status = Command::new("cargo")
            .args([
                "install",
                name,
                "--version",
                version,
                "--locked",
                "--quiet",
                "--root",
            ])
            .arg(&tools)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "cargo install {name} failed");
    }
    Ok(program)
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
