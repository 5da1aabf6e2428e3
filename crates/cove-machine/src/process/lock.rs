//! The lock on a machine's directory, which every process that may write to its disk holds.

use crate::MachineError;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

/// The lock, held until this and every descriptor made by [`Lock::share`] is closed, in whichever process.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock of `directory`, if it is free.
    pub(crate) fn take(directory: &Path) -> Result<Self, MachineError> {
        let path = directory.join("lock");
        let failed = |operation| {
            let path = path.clone();
            move |source: io::Error| MachineError::Io {
                operation,
                path,
                source,
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(MachineError::Locked {
                directory: directory.to_owned(),
            }),
            Err(error) => Err(failed("lock")(error.into())),
        }
    }

    /// A descriptor that holds the lock too, for a child to inherit.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_held_by_one_and_until_its_last_share_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path()).unwrap();
        assert!(matches!(
            Lock::take(directory.path()),
            Err(MachineError::Locked { .. })
        ));
        let share = lock.share().unwrap();
        drop(lock);
        assert!(Lock::take(directory.path()).is_err());
        drop(share);
        assert!(Lock::take(directory.path()).is_ok());
    }
}
