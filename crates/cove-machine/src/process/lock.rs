//! The locks on a machine's directory and on its disk, which every process that may write to the disk holds.

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
    time::{Duration, Instant},
};

/// How long a disk may stay locked after its machine is gone. Longer than a host takes to write what it was given.
const DISK_TIMEOUT: Duration = Duration::from_secs(10);

/// The lock, held until this and every descriptor made by [`Lock::share`] is closed, in whichever process.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock of `directory`, if it is free.
    pub(crate) fn take(directory: &Path) -> Result<Self, MachineError> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).mode(0o600);
        Self::on(&directory.join("lock"), options)?.ok_or_else(|| MachineError::Locked {
            directory: directory.to_owned(),
        })
    }

    /// Takes the lock of a disk, which keeps machines with other directories away from it. Waits for a moment: a
    /// process that was killed lets go of its locks one by one, of that of its directory perhaps before that of its
    /// disk.
    pub(crate) async fn take_disk(disk: &Path) -> Result<Self, MachineError> {
        let deadline = Instant::now() + DISK_TIMEOUT;
        loop {
            if let Some(lock) = Self::on(disk, OpenOptions::new())? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                let why = format!("another machine uses the disk {}", disk.display());
                return Err(MachineError::StartFailed { why });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes the lock of a file; nothing if somebody else has it.
    fn on(path: &Path, mut options: OpenOptions) -> Result<Option<Self>, MachineError> {
        let failed = |operation| {
            move |source: io::Error| MachineError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        let file = options
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
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
    use std::{
        thread::sleep,
        time::{Duration, Instant},
    };

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
        // A child of another test has a copy until it has become another program.
        let deadline = Instant::now() + Duration::from_secs(20);
        while Lock::take(directory.path()).is_err() {
            assert!(Instant::now() < deadline, "it is still held");
            sleep(Duration::from_millis(5));
        }
    }
}
