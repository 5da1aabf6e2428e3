//! A socket device with a guest on one side and host programs on the other, over either transport.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cove_virtio::vhost_user::{self, Server};
use cove_virtio::vsock::{Vsock, VsockConfig};
use tempfile::TempDir;

use super::stream::Stream;
use super::transport::{InProcess, VhostUser};
use super::vsock::{Guest, Options, PATIENCE, Ports};

/// The guest's context id.
pub const CID: u64 = 42;

/// How the driver reaches the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Called directly.
    InProcess,
    /// Over a vhost-user socket.
    VhostUser,
}

/// Both ways.
pub const WAYS: [Way; 2] = [Way::InProcess, Way::VhostUser];

/// A device, its guest and its host side. Fields are dropped in order: the guest before the device it drives.
pub struct Rig {
    /// The guest.
    pub guest: Guest,
    /// The vhost-user server, if that is the way.
    pub server: Option<Server>,
    /// Where the sockets lie.
    pub dir: TempDir,
}

impl Rig {
    /// A device with usual limits and a guest like Linux.
    pub fn new(way: Way) -> Result<Self> {
        Self::with(way, Options::linux(CID), |_| {})
    }

    /// A device and guest as told.
    pub fn with(way: Way, options: Options, configure: impl FnOnce(&mut VsockConfig)) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut config = VsockConfig::new(options.cid, dir.path().join("vsock"));
        configure(&mut config);
        let device = Vsock::new(config)?;
        let (guest, server) = match way {
            Way::InProcess => (Guest::boot(InProcess::new(device), options)?, None),
            Way::VhostUser => {
                let socket = dir.path().join("vhost-user");
                let server = vhost_user::serve(device, &socket)?;
                (
                    Guest::boot(VhostUser::connect(&socket, 3)?, options)?,
                    Some(server),
                )
            }
        };
        Ok(Self { guest, server, dir })
    }

    /// Where host programs connect.
    pub fn host_socket(&self) -> PathBuf {
        self.dir.path().join("vsock")
    }

    /// Listens for the guest's connections to a port of the host.
    pub fn listen(&self, port: u32) -> Result<UnixListener> {
        Ok(UnixListener::bind(self.dir.path().join(format!("vsock_{port}")))?)
    }

    /// A host program that has greeted, and no answer yet.
    pub fn greet(&self, port: u32) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(self.host_socket()).context("cannot connect to the device")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        writeln!(stream, "CONNECT {port}").context("cannot greet the device")?;
        Ok(stream)
    }

    /// A connection from a host program to a port of the guest, both ends.
    pub fn connect(&mut self, port: u32) -> Result<(UnixStream, Stream)> {
        let mut host = self.greet(port)?;
        let guest = Stream::accept(&mut self.guest)?;
        ensure!(guest.ports.guest == port, "the request is for another port");
        let assigned = read_ok(&mut host)?;
        ensure!(
            assigned == guest.ports.host,
            "the host was told another port than the guest"
        );
        Ok((host, guest))
    }

    /// A connection from the guest to a listener on the host, both ends.
    pub fn dial(&mut self, guest_port: u32, host_port: u32) -> Result<(UnixStream, Stream)> {
        let listener = self.listen(host_port)?;
        let guest = Stream::connect(
            &mut self.guest,
            Ports {
                guest: guest_port,
                host: host_port,
            },
        )?;
        let (host, _) = listener.accept()?;
        host.set_read_timeout(Some(PATIENCE))?;
        host.set_write_timeout(Some(PATIENCE))?;
        std::fs::remove_file(self.dir.path().join(format!("vsock_{host_port}")))?;
        Ok((host, guest))
    }

    /// A round trip over a fresh connection: the device works.
    pub fn prove_alive(&mut self) -> Result<()> {
        let (mut host, mut guest) = self.connect(7)?;
        host.write_all(b"ping")?;
        ensure!(
            guest.read_exact(&mut self.guest, 4)? == b"ping",
            "other bytes arrived at the guest"
        );
        guest.write_all(&mut self.guest, b"pong")?;
        let mut answer = [0; 4];
        host.read_exact(&mut answer)?;
        ensure!(&answer == b"pong", "other bytes arrived at the host");
        drop(host);
        while !guest.reset && guest.peer_shutdown != 3 {
            guest.take_in(&mut self.guest)?;
        }
        Ok(())
    }
}

/// Reads the device's answer to a greeting: the port that the host's end was assigned.
pub fn read_ok(stream: &mut UnixStream) -> Result<u32> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        ensure!(
            stream.read(&mut byte)? == 1,
            "the device closed the stream instead of an OK"
        );
        line.push(byte[0]);
    }
    let line = String::from_utf8(line)?;
    let port = line
        .strip_prefix("OK ")
        .with_context(|| format!("expected an OK, got {line:?}"))?;
    Ok(port.trim_end().parse()?)
}

/// Reads to the end of a stream that must end cleanly.
pub fn read_all(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    stream
        .read_to_end(&mut data)
        .context("the stream does not end cleanly")?;
    Ok(data)
}
