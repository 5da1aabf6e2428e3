//! The disks of a machine on KVM.

use crate::{MachineError, MachineSpec};
use cove_confine::Layer;
use cove_virtio::block::{Access, Block};
use cove_wire::with_causes;
use std::{fs::OpenOptions, path::Path};

/// The disks, with a queue for each vCPU.
pub(crate) struct Disks {
    pub(super) root: Block,
    pub(super) data: Block,
}

impl Disks {
    /// Opens the disks of `spec`, and makes their rings: to be called before the process has no locked memory, and
    /// before the lists of system calls are in force.
    pub(crate) fn open(spec: &MachineSpec) -> Result<Self, MachineError> {
        // More than the device has are as good as all of those.
        let queues = usize::try_from(spec.cpus).unwrap_or(usize::MAX);
        let root = disk(&spec.rootfs, Access::ReadOnly, "root")?;
        let data = disk(&spec.data_disk, Access::ReadWrite, "data")?;
        Ok(Self {
            root: root.with_queues(queues).with_rings(),
            data: data.with_queues(queues).with_rings(),
        })
    }

    /// What holds the rings in, which no list of system calls looks into.
    pub(crate) fn layer(&self) -> Layer {
        let evidence = if self.root.has_rings() || self.data.has_rings() {
            "takes what is done to disks, on their files alone"
        } else {
            "not used"
        };
        Layer::whole("io_uring", evidence)
    }
}

fn disk(path: &Path, access: Access, id: &str) -> Result<Block, MachineError> {
    let file = OpenOptions::new()
        .read(true)
        .write(access == Access::ReadWrite)
        .open(path)
        .map_err(|source| MachineError::Io {
            operation: "open the disk",
            path: path.to_owned(),
            source,
        })?;
    Block::new(file, access, id).map_err(|error| MachineError::StartFailed {
        why: format!(
            "the disk {} cannot be used: {}",
            path.display(),
            with_causes(&error)
        ),
    })
}
