//! File locks: the requests. See the module `locks` for how they are kept.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::Caller;
use crate::abi::{self, FileLock};
use crate::body::Body;
use crate::descriptor::Descriptor;
use crate::handle::{Handle, Open};
use crate::locks::{Attempt, GRACE, Pending};
use crate::memory::Sink;
use crate::sys::{self, RangeLock};
use crate::tree::{ProcPath, Tree};

const F_RDLCK: u32 = 0;
const F_WRLCK: u32 = 1;
const F_UNLCK: u32 = 2;

/// What became of a lock request.
pub(crate) enum Locking {
    Answered(usize),
    /// Somebody else has the lock and the caller wants to wait.
    Waits(Pending),
}

impl Tree {
    pub(crate) fn getlk(&self, node: u64, mut body: Body<'_>, sink: Sink<'_>) -> Result<usize, Errno> {
        let request: abi::LkIn = body.take()?;
        let handle = self.file(request.fh, node)?;
        let wanted = range(&request.lock)?;
        let fd = self.lock_descriptor(&handle, request.owner)?;
        let found = sys::get_lock(fd.as_fd(), wanted)?;
        let lock = FileLock {
            start: found.start.cast_unsigned(),
            end: if found.len == 0 {
                i64::MAX.cast_unsigned()
            } else {
                found.start.saturating_add(found.len - 1).cast_unsigned()
            },
            kind: u32::try_from(found.kind).unwrap_or(F_UNLCK),
            // Whoever has it may be a process of the host or of any container: there is no number to give.
            pid: 0,
        };
        sink.value(&abi::LkOut { lock })
    }

    pub(crate) fn setlk(
        &self,
        caller: &Caller,
        node: u64,
        mut body: Body<'_>,
        wait: bool,
        sink: Sink<'_>,
    ) -> Result<Locking, Errno> {
        let request: abi::LkIn = body.take()?;
        let handle = self.file(request.fh, node)?;
        let attempt = if request.flags & abi::LK_FLOCK != 0 {
            let operation = match request.lock.kind {
                F_RDLCK => FlockOperation::NonBlockingLockShared,
                F_WRLCK => FlockOperation::NonBlockingLockExclusive,
                F_UNLCK => FlockOperation::NonBlockingUnlock,
                _ => return Err(Errno::INVAL),
            };
            Attempt::Flock(Arc::clone(handle.file()?.1), operation)
        } else {
            let wanted = range(&request.lock)?;
            Attempt::Range(self.lock_descriptor(&handle, request.owner)?, wanted)
        };
        match attempt.make() {
            Ok(()) => {
                if request.lock.kind == F_UNLCK {
                    self.locks.wake();
                }
                sink.done().map(Locking::Answered)
            }
            Err(errno @ (Errno::AGAIN | Errno::ACCESS)) => {
                let shared = handle.file()?.0.state.lock().open.len() > 1;
                let grace = if wait {
                    None
                } else if shared {
                    Some(GRACE)
                } else {
                    return Err(errno);
                };
                let pending = self.locks.wait(caller.unique, caller.pid, attempt, grace)?;
                Ok(Locking::Waits(pending))
            }
            Err(errno) => Err(errno),
        }
    }

    /// The open file description that carries the POSIX locks of `owner` on this file.
    fn lock_descriptor(&self, handle: &Handle, owner: u64) -> Result<Arc<Descriptor>, Errno> {
        let Open::File {
            node,
            fd,
            lock_owners,
        } = &handle.open
        else {
            return Err(Errno::BADF);
        };
        let fd = self.locks.descriptor(node.id, owner, || {
            let place = self.open_budget.reserve()?;
            let path = ProcPath::new(fd);
            let open = |access| {
                rustix::fs::open(
                    path.as_c_str(),
                    access | OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )
            };
            let read_only = node.share.read_only;
            let both = if read_only {
                Err(Errno::ROFS)
            } else {
                open(OFlags::RDWR)
            };
            let opened = both
                .or_else(|_| open(OFlags::RDONLY))
                .or_else(|_| open(OFlags::WRONLY))?;
            Ok(place.hold(opened))
        })?;
        let mut owners = lock_owners.lock();
        if !owners.contains(&owner) {
            owners.push(owner);
        }
        Ok(fd)
    }
}

/// FUSE gives first and last byte, `fcntl` takes first byte and length.
fn range(lock: &FileLock) -> Result<RangeLock, Errno> {
    let start = i64::try_from(lock.start).map_err(|_| Errno::INVAL)?;
    let len = if lock.end >= i64::MAX.cast_unsigned() {
        0
    } else {
        let end = i64::try_from(lock.end).map_err(|_| Errno::INVAL)?;
        end.checked_sub(start)
            .filter(|len| *len >= 0)
            .ok_or(Errno::INVAL)?
            + 1
    };
    let kind = match lock.kind {
        F_RDLCK => 0,
        F_WRLCK => 1,
        F_UNLCK => 2,
        _ => return Err(Errno::INVAL),
    };
    Ok(RangeLock { kind, start, len })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lock_to_the_end_has_no_length() {
        let whole = FileLock {
            start: 0,
            end: i64::MAX.cast_unsigned(),
            kind: F_WRLCK,
            pid: 0,
        };
        assert_eq!(
            range(&whole),
            Ok(RangeLock {
                kind: 1,
                start: 0,
                len: 0
            })
        );
        let byte = FileLock {
            start: 7,
            end: 7,
            kind: F_RDLCK,
            pid: 0,
        };
        assert_eq!(
            range(&byte),
            Ok(RangeLock {
                kind: 0,
                start: 7,
                len: 1
            })
        );
    }

    proptest! {
        #[test]
        fn any_range_is_valid_or_refused(start: u64, end: u64, kind: u32) {
            if let Ok(lock) = range(&FileLock { start, end, kind, pid: 0 }) {
                prop_assert!(lock.start >= 0 && lock.len >= 0);
                prop_assert!(lock.start.checked_add(lock.len).is_some());
            }
        }
    }
}
