//! How folders come into a cell's view while it runs, and go.
//!
//! A confined process cannot mount, and Landlock takes no further rules. So the porter does it: it copies the mount in
//! its own view, enters the cell's mount namespace for as long as it takes to put it into an empty slot, and comes
//! back. Landlock has a rule for the directory of the slots, and the kernel looks for rules on the way up across
//! mounts, so that it covers whatever is put there.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{file, os};
use crate::sys::{NO_DEVICES, NO_EXECUTION, NO_SUID, READ_ONLY};
use crate::view::{clone, is_directory, move_into, slot};
use crate::{ConfineError, sys};

/// The porter's way into the view of one cell. The process must have one thread, and must have made the cell's
/// namespaces.
#[derive(Debug)]
pub struct Door {
    home: OwnedFd,
    cell: OwnedFd,
}

impl Door {
    /// The way to the cell with this process number, which has made its view.
    pub fn to(cell: u32) -> Result<Self, ConfineError> {
        let namespace = |path: &str| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(file("open", path.as_ref()))
        };
        Ok(Self {
            home: namespace("/proc/self/ns/mnt")?,
            cell: namespace(&format!("/proc/{cell}/ns/mnt"))?,
        })
    }

    /// Brings the folder at `path` into slot `number`, with what is mounted beneath it.
    pub fn mount(&self, number: usize, path: &Path, read_only: bool) -> Result<(), ConfineError> {
        let taken = clone(path).map_err(file("take", path))?;
        if !is_directory(&taken).map_err(file("look at", path))? {
            return Err(file("share", path)(Errno::NOTDIR));
        }
        let mut attributes = NO_SUID | NO_DEVICES | NO_EXECUTION;
        if read_only {
            attributes |= READ_ONLY;
        }
        sys::mount_setattr(taken.as_fd(), attributes, true).map_err(file("restrict", path))?;
        self.within(|| move_into(&taken, &slot(number)))
    }

    /// Takes the folder out of slot `number`. What is open of it stays open.
    pub fn unmount(&self, number: usize) -> Result<(), ConfineError> {
        let path = slot(number);
        self.within(|| {
            unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(file("unmount", &path))
        })
    }

    /// Does something in the cell's view.
    fn within<T>(&self, what: impl FnOnce() -> Result<T, ConfineError>) -> Result<T, ConfineError> {
        let enter = |namespace: &OwnedFd| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        };
        enter(&self.cell).map_err(os("enter the cell's view"))?;
        let result = what();
        enter(&self.home).map_err(os("leave the cell's view"))?;
        result
    }
}
