//! What a cell sees of the host's files.
//!
//! ```text
//!  /                 a file system in memory, read-only
//!  ├── proc          of the cell's own process namespace
//!  ├── .shares/0 …   empty directories, over which the porter mounts folders as they are shared
//!  └── …             each file that the machine is made of, at its own path
//! ```

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};

use crate::error::{file, os};
use crate::sys::{NO_DEVICES, NO_EXECUTION, NO_SUID, READ_ONLY};
use crate::{ConfineError, Layer, sys};

/// The directory of the folders that are shared.
pub const SHARES: &str = "/.shares";
/// How many folders there can be at a time.
pub const SLOTS: usize = 256;

/// What the cell may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Make sockets in it, a directory, and connect to those that are there.
    Sockets,
    /// Use it, a device.
    Device,
}

/// A file or directory of the host's that the cell needs, at its own path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it is, in the host's view and in the cell's.
    pub path: PathBuf,
    /// What for.
    pub access: Access,
}

/// What a cell is to see.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// What it needs.
    pub items: Vec<Item>,
    /// Files in one of the directories among them that it must not reach, such as the socket that commands it.
    pub hidden: Vec<PathBuf>,
}

/// Where the folder in a slot is, in the cell's view.
pub fn slot(number: usize) -> PathBuf {
    Path::new(SHARES).join(number.to_string())
}

impl View {
    /// Makes this the view of the calling process, which must have one thread and has to be the first process of its
    /// namespace. `site` is a directory of the host's that the view is built over; the host does not notice.
    pub fn enter(&self, site: &Path) -> Result<Layer, ConfineError> {
        sys::unshare(libc::CLONE_NEWNS).map_err(os("make a mount namespace"))?;
        let propagation = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
        mount_change("/", propagation).map_err(os("keep mounts from the host"))?;
        // Taken before the site covers any of them.
        let items = self
            .items
            .iter()
            .map(|item| Ok((item, take(item)?)))
            .collect::<Result<Vec<_>, ConfineError>>()?;
        let host_proc = clone(Path::new("/proc"));

        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", site, "tmpfs", flags, Some(c"mode=0755,size=1m"))
            .map_err(file("build the view over", site))?;
        for (item, taken) in items {
            let is_directory = item.access == Access::Sockets;
            place(&taken, &within(site, &item.path), is_directory)?;
        }
        for path in &self.hidden {
            hide(site, path)?;
        }
        let proc = site.join("proc");
        create_dir(&proc)?;
        let own_processes = mount("proc", &proc, "proc", flags, None);
        if own_processes.is_err() {
            // Where parts of the host's are covered, as in a container, the kernel gives out no other.
            let host_proc = host_proc.map_err(file("take", Path::new("/proc")))?;
            move_into(&host_proc, &proc)?;
        }
        for number in 0..SLOTS {
            create_dir(&within(site, &slot(number)))?;
        }
        turn(site)?;
        let evidence = format!(
            "{} of the host's files and directories are in view, and what is shared",
            self.items.len()
        );
        Ok(match own_processes {
            Ok(()) => Layer::whole("mount namespace", evidence),
            Err(error) => Layer::partial(
                "mount namespace",
                format!("{evidence}; its /proc is the host's ({error})"),
            ),
        })
    }
}

/// A copy of the mount at `path`, and of those beneath, that is nowhere yet.
pub(crate) fn clone(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
}

fn take(item: &Item) -> Result<OwnedFd, ConfineError> {
    let taken = clone(&item.path).map_err(file("take", &item.path))?;
    let mut attributes = NO_SUID | NO_EXECUTION;
    if item.access != Access::Device {
        attributes |= NO_DEVICES;
    }
    if item.access == Access::Read {
        attributes |= READ_ONLY;
    }
    sys::mount_setattr(taken.as_fd(), attributes, true).map_err(file("restrict", &item.path))?;
    Ok(taken)
}

/// Puts a mount at `target`, where nothing is yet.
fn place(taken: &OwnedFd, target: &Path, is_directory: bool) -> Result<(), ConfineError> {
    if is_directory {
        create_dir(target)?;
    } else {
        if let Some(parent) = target.parent() {
            create_dir(parent)?;
        }
        std::fs::File::create(target).map_err(file("make", target))?;
    }
    move_into(taken, target)
}

/// Puts an empty file that cannot be opened over `path`, if it is there.
fn hide(site: &Path, path: &Path) -> Result<(), ConfineError> {
    let target = within(site, path);
    if !target.try_exists().unwrap_or(true) {
        return Ok(());
    }
    let cover = site.join(".nothing");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(&cover, flags, Mode::empty()).map_err(file("make", &cover))?;
    let taken = clone(&cover).map_err(file("take", &cover))?;
    sys::mount_setattr(taken.as_fd(), READ_ONLY, false).map_err(file("restrict", &cover))?;
    move_into(&taken, &target)
}

pub(crate) fn move_into(taken: &OwnedFd, target: &Path) -> Result<(), ConfineError> {
    move_mount(taken, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(file("mount on", target))
}

/// Makes the file system at `site` the root, and lets go of the host's.
fn turn(site: &Path) -> Result<(), ConfineError> {
    rustix::process::chdir(site).map_err(file("enter", site))?;
    // The old root comes to lie over the new one, and is taken off there: so it needs no place of its own.
    rustix::process::pivot_root(".", ".").map_err(os("change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(os("let go of the host's root"))?;
    rustix::process::chdir("/").map_err(os("enter the root"))?;
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(os("open the root"))?;
    sys::mount_setattr(root.as_fd(), READ_ONLY, false).map_err(os("make the root read-only"))
}

/// Where an absolute path is below `site`.
fn within(site: &Path, path: &Path) -> PathBuf {
    site.join(path.strip_prefix("/").unwrap_or(path))
}

fn create_dir(path: &Path) -> Result<(), ConfineError> {
    let made = std::fs::create_dir_all(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(file("make", path)(error)),
        _ => Ok(()),
    }
}

/// Whether `fd` is a directory's.
pub(crate) fn is_directory(fd: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
