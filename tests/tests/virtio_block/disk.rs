//! A guest before its disk, by each way to it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use cove_tests::driver::block::{Answer, BlockGuest, Status, op};
use cove_tests::driver::rig;
use cove_tests::driver::transport::{InProcess, VhostUser};
use cove_virtio::block::{Access, Block};
use cove_virtio::vhost_user;
use tempfile::TempDir;

pub(crate) const SECTOR: usize = 512;
/// Sectors of the disk.
pub(crate) const SECTORS: u64 = 2048;
/// Bytes of the disk.
pub(crate) const DISK: usize = 2048 * SECTOR;

/// A way to the disk, and on to its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// How the driver reaches the device.
    device: rig::Way,
    /// Whether the requests of a queue are in flight together.
    together: bool,
}

/// All of them.
pub(crate) const WAYS: [Way; 4] = [
    Way::new(rig::Way::InProcess, false),
    Way::new(rig::Way::InProcess, true),
    Way::new(rig::Way::VhostUser, false),
    Way::new(rig::Way::VhostUser, true),
];

impl Way {
    pub(crate) const fn new(device: rig::Way, together: bool) -> Self {
        Self { device, together }
    }

    /// A disk that serves its queue so.
    pub(crate) fn disk(self, file: File, access: Access) -> Result<Block> {
        let disk = Block::new(file, access, "the-disk")?;
        Ok(if self.together { disk.with_rings() } else { disk })
    }
}

/// A guest before its disk. Fields are dropped in order.
pub(crate) struct Rig {
    pub(crate) guest: BlockGuest,
    _service: Option<vhost_user::Server>,
    pub(crate) file: File,
    _dir: TempDir,
}

impl Rig {
    pub(crate) fn new(way: Way) -> Result<Self> {
        Self::with(way, Access::ReadWrite, 0)
    }

    /// A disk of random-looking content, and a driver that does not know the features `unknown`.
    pub(crate) fn with(way: Way, access: Access, unknown: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("disk");
        std::fs::write(&path, content(0, DISK))?;
        let file = File::options().read(true).write(true).open(&path)?;
        let device = way.disk(file.try_clone()?, access)?;
        Self::before(way, device, file, dir, unknown)
    }

    /// A driver before a disk on `file`.
    pub(crate) fn before(way: Way, device: Block, file: File, dir: TempDir, unknown: u64) -> Result<Self> {
        let (guest, service) = match way.device {
            rig::Way::InProcess => (BlockGuest::boot(InProcess::new(device), unknown)?, None),
            rig::Way::VhostUser => {
                let socket = dir.path().join("vhost-user");
                let service = vhost_user::serve(device, &socket)?;
                (
                    BlockGuest::boot(VhostUser::connect(&socket, 1)?, unknown)?,
                    Some(service),
                )
            }
        };
        Ok(Self {
            guest,
            _service: service,
            file,
            _dir: dir,
        })
    }

    /// What the file holds.
    pub(crate) fn file(&self, sector: u64, len: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; len];
        self.file.read_exact_at(&mut data, sector * SECTOR as u64)?;
        Ok(data)
    }

    /// That the disk holds what it held at first, and still answers.
    pub(crate) fn check_untouched(&mut self) -> Result<()> {
        ensure!(self.file(0, DISK)? == content(0, DISK), "the disk was written to");
        let answer = self.guest.ask(op::READ, 1, &[], 512)?;
        ensure!(answer == done(content(1, 512)), "the device does not go on");
        Ok(())
    }
}

/// What the disk holds at first, from `sector` on.
pub(crate) fn content(sector: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (sector * 512 + at).wrapping_mul(2_654_435_761).to_le_bytes()[2] | 1)
        .collect()
}

pub(crate) fn done(data: Vec<u8>) -> Answer {
    Answer {
        status: Status::Ok,
        data,
    }
}

pub(crate) fn refused(status: Status) -> Answer {
    Answer {
        status,
        data: Vec::new(),
    }
}
