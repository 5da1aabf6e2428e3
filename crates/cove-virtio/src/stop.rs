//! How the thread behind a device is told to end: a flag for when it works, an eventfd for when it waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::EventfdFlags;

use crate::device::DeviceError;

/// Shared by the thread and whoever ends it.
pub(crate) struct Stop {
    flag: AtomicBool,
    event: OwnedFd,
}

impl Stop {
    /// Nobody has asked yet.
    pub(crate) fn new() -> Result<Self, DeviceError> {
        let event =
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
                DeviceError::Os {
                    operation: "create an eventfd",
                    source: error.into(),
                }
            })?;
        Ok(Self {
            flag: AtomicBool::new(false),
            event,
        })
    }

    /// Asks the thread to end.
    pub(crate) fn request(&self) {
        self.flag.store(true, Ordering::Release);
        // An eventfd only refuses when its counter is about to overflow, and then it is readable.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Whether somebody has asked.
    pub(crate) fn is_requested(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

/// Readable from the request on.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
