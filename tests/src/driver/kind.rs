//! Every kind of device, and something that a good driver asks of it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use cove_fs::{Config, Server, ShareOptions};
use cove_virtio::balloon::Balloon;
use cove_virtio::block::{Access, Block};
use cove_virtio::device::Device;
use cove_virtio::fs::Fs;
use cove_virtio::net::{Net, NetConfig};
use cove_virtio::rng::Rng;
use cove_virtio::vhost_user;
use cove_virtio::vsock::packet::{HOST_CID, Header, Op, TYPE_STREAM};
use cove_virtio::vsock::{Vsock, VsockConfig};

use super::fs::greeting;
use super::queue::{Descriptor, request_chain};
use super::rig::{CID, Way};
use super::transport::{InProcess, Transport, VhostUser};

/// Bytes of the disk.
pub const DISK: u64 = 64 * 1024;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A disk of [`DISK`] bytes, served a request at a time.
    Block,
    /// The same, with its requests in flight together where this computer has rings.
    BlockInFlight,
    /// Sockets, those of the host beside the path `vsock`.
    Vsock,
    /// A shared folder.
    Fs,
    /// A network whose stream is at the path `net`.
    Net,
    /// Random numbers.
    Rng,
    /// Memory that the guest does not use.
    Balloon,
}

/// All of them.
pub const KINDS: [Kind; 7] = [
    Kind::Block,
    Kind::BlockInFlight,
    Kind::Vsock,
    Kind::Fs,
    Kind::Net,
    Kind::Rng,
    Kind::Balloon,
];

/// Something that a good driver asks of a device which was just reset: it is answered at once.
#[derive(Clone, Debug)]
pub struct Request {
    /// The queue that it is put into.
    pub queue: u16,
    /// What the device reads.
    pub given: Vec<u8>,
    /// How many bytes it may write.
    pub room: u32,
    /// How many of them it says that it wrote, at least.
    pub least: u32,
}

impl Request {
    /// Its chain, from the table's first entry on: what is given lies at `given`, and the answer goes to `answer`.
    pub fn chain(&self, given: u64, answer: u64) -> Result<Vec<Descriptor>> {
        let len = u32::try_from(self.given.len())?;
        Ok(request_chain((given, len), (answer, self.room)))
    }
}

impl Kind {
    /// How many queues it has.
    pub fn queues(self) -> u16 {
        match self {
            Self::Block | Self::BlockInFlight | Self::Rng => 1,
            Self::Fs | Self::Net => 2,
            Self::Vsock => 3,
            Self::Balloon => 5,
        }
    }

    /// What a good driver asks of it.
    pub fn request(self) -> Request {
        let request = |queue, given, room, least| Request {
            queue,
            given,
            room,
            least,
        };
        match self {
            // The first sector, and the status, which is counted only if all went well.
            Self::Block | Self::BlockInFlight => request(0, vec![0; 16], 513, 513),
            Self::Vsock => request(1, farewell().to_bytes().to_vec(), 0, 0),
            // More than a header is an answer that is no failure.
            Self::Fs => request(1, greeting(), 256, 17),
            Self::Net => request(1, vec![0; 12 + 60], 0, 0),
            Self::Rng => request(0, Vec::new(), 64, 64),
            Self::Balloon => request(0, vec![0; 4], 0, 0),
        }
    }

    /// A device whose files and sockets lie in `dir`.
    pub fn device(self, dir: &Path) -> Result<Box<dyn Device>> {
        Ok(match self {
            Self::Block => Box::new(block(dir, Access::ReadWrite)?),
            Self::BlockInFlight => Box::new(block(dir, Access::ReadWrite)?.with_rings()),
            Self::Vsock => Box::new(vsock(dir)?),
            Self::Fs => Box::new(fs(share(dir)?)?),
            Self::Net => Box::new(net(dir)?),
            Self::Rng => Box::new(Rng::new()),
            Self::Balloon => Box::new(Balloon::new()),
        })
    }

    /// The same, reached that way. What serves it goes on for as long as the second value is kept.
    pub fn connect(self, way: Way, dir: &Path) -> Result<(Box<dyn Transport>, Option<vhost_user::Server>)> {
        match self {
            Self::Block => connect(way, block(dir, Access::ReadWrite)?, dir),
            Self::BlockInFlight => connect(way, block(dir, Access::ReadWrite)?.with_rings(), dir),
            Self::Vsock => connect(way, vsock(dir)?, dir),
            Self::Fs => connect(way, fs(share(dir)?)?, dir),
            Self::Net => connect(way, net(dir)?, dir),
            Self::Rng => connect(way, Rng::new(), dir),
            Self::Balloon => connect(way, Balloon::new(), dir),
        }
    }
}

fn connect(
    way: Way,
    device: impl Device + 'static,
    dir: &Path,
) -> Result<(Box<dyn Transport>, Option<vhost_user::Server>)> {
    let queues = u16::try_from(device.queues().len())?;
    Ok(match way {
        Way::InProcess => (Box::new(InProcess::new(device)), None),
        Way::VhostUser => {
            let socket = dir.join("vhost-user");
            let server = vhost_user::serve(device, &socket)?;
            (Box::new(VhostUser::connect(&socket, queues)?), Some(server))
        }
    })
}

/// A disk that holds [`disk_content`], in the file `disk` of `dir`.
pub fn block(dir: &Path, access: Access) -> Result<Block> {
    let path = dir.join("disk");
    std::fs::write(&path, disk_content())?;
    disk(File::options().read(true).write(true).open(path)?, access)
}

/// A disk on `file`.
pub fn disk(file: File, access: Access) -> Result<Block> {
    Ok(Block::new(file, access, "the-disk")?)
}

/// What the disk holds at first.
pub fn disk_content() -> Vec<u8> {
    (0..DISK)
        .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2] | 1)
        .collect()
}

/// A socket device whose guest is [`CID`].
pub fn vsock(dir: &Path) -> Result<Vsock> {
    Ok(Vsock::new(VsockConfig::new(CID, dir.join("vsock")))?)
}

/// A file server for the folder `share` of `dir`, which is made.
pub fn share(dir: &Path) -> Result<Arc<Server>> {
    let folder = dir.join("share");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("f"), b"mine")?;
    serve_folder(&folder)
}

/// A file server for one folder, which the guest knows as `share`. It watches nothing.
pub fn serve_folder(folder: &Path) -> Result<Arc<Server>> {
    let server = Server::new(Config {
        watch: false,
        ..Config::default()
    })?;
    let options = ShareOptions {
        name: "share".to_owned(),
        read_only: false,
    };
    server.add_share(folder, options)?;
    Ok(Arc::new(server))
}

/// A file system device in front of `server`.
pub fn fs(server: Arc<Server>) -> Result<Fs> {
    Ok(Fs::new("cove", server, 2)?)
}

/// A network device.
pub fn net(dir: &Path) -> Result<Net> {
    Ok(Net::new(NetConfig {
        mac: [0x52, 0, 0, 0, 0, 1],
        mtu: 1500,
        socket: dir.join("net"),
    })?)
}

/// The end of a connection that is not there, which nobody answers.
fn farewell() -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: 11,
        dst_port: 12,
        kind: TYPE_STREAM,
        op: Op::Rst as u16,
        ..Header::default()
    }
}
