//! What a machine is made of.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Everything that a backend needs to start a machine. Written to the machine's directory, so that an adopting
/// daemon and the machine process read the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Its name: `[a-z0-9][a-z0-9-]*`, at most 32 bytes.
    pub name: String,
    /// Where its lock, console log and account of its end live. Persistent.
    pub directory: PathBuf,
    /// Where its sockets live; a directory of mode 0700, with a path short enough for a socket's address.
    pub runtime: PathBuf,
    /// The kernel, an ELF file.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initramfs: PathBuf,
    /// The read-only root file system; the guest's first disk.
    pub rootfs: PathBuf,
    /// The data disk, a raw sparse file that exists; the guest's second disk.
    pub data_disk: PathBuf,
    /// Virtual CPUs, at least 1.
    pub cpus: u32,
    /// Memory in MiB, at least 256.
    pub memory_mib: u32,
    /// Added to the kernel's command line.
    pub kernel_arguments: Vec<String>,
    /// Cove's own directories. Where they are in a folder that the guest may reach, changes in them are not watched
    /// for: the machine's own disk changes with whatever it does.
    #[serde(default)]
    pub own: Vec<PathBuf>,
}

/// A host folder that a guest may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// What the guest knows it by: one path component, unique among the machine's shares.
    pub name: String,
    /// The folder on the host, absolute.
    pub path: PathBuf,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// How the file server of a machine's folders is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a finding of its own, none a state"
)]
pub struct FolderHealth {
    /// Whether this computer can tell of changes in folders at all.
    pub watching: bool,
    /// Whether the guest's agent is there to repeat them.
    pub repeating: bool,
    /// Directories that are watched.
    pub watched: u64,
    /// Whether others are not, because there were too many.
    pub exhausted: bool,
    /// Folders with a file system in them that does not tell of changes.
    #[serde(default)]
    pub untold: Vec<PathBuf>,
    /// Whether the guest knows as many files as it may, and is shown no others.
    #[serde(default)]
    pub full: bool,
    /// Folders on file systems that keep no attributes, where owners that containers set last until the machine stops.
    pub without_attributes: Vec<PathBuf>,
}

/// The socket in `runtime` that the guest's connections to `port` of the host arrive at.
pub(crate) fn host_port(runtime: &Path, port: u32) -> PathBuf {
    runtime.join(format!("vsock.sock_{port}"))
}

/// The socket with the longest path of those that a machine has in `runtime`. The ports that the guest reaches have
/// four digits.
pub fn longest_socket(runtime: &Path) -> PathBuf {
    host_port(runtime, 9_999)
}

/// One of a machine's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disk {
    /// The data disk.
    Data,
}

#[cfg(test)]
impl MachineSpec {
    /// A machine whose paths hold what has a meaning to QEMU.
    pub(crate) fn example() -> Self {
        Self {
            name: "default".into(),
            directory: "/state/default".into(),
            runtime: "/run/a,b".into(),
            kernel: "/image/kernel".into(),
            initramfs: "/image/initramfs".into(),
            rootfs: "/image/root,fs \"x\".erofs".into(),
            data_disk: "/state/default/data.raw".into(),
            cpus: 4,
            memory_mib: 2048,
            kernel_arguments: vec!["cove.trace=1".into()],
            own: Vec::new(),
        }
    }
}
