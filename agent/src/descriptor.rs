//! File descriptors that the runtime waits for.

#![expect(
    unsafe_code,
    reason = "tokio cannot know by type that a descriptor stays what it is"
)]
// UNSAFETY: the one unsafe call asks for a descriptor that stays open and the same; an `OwnedFd` is nothing else.

use std::{io, os::fd::OwnedFd};
use tokio::io::unix::AsyncFd;

/// Has the runtime wait for `descriptor`, which does not block.
pub(crate) fn awaited(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, cannot be exchanged through a shared reference, and
    // `AsyncFd` gives out no other one to anything in this crate.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
