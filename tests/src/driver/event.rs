//! Eventfds, as the vhost-user library takes them and as poll(2) wants them.

// UNSAFETY: the library's `EventFd` gives out its descriptor only as a number.
#![expect(unsafe_code, reason = "borrowing the descriptor of a foreign EventFd type")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// An eventfd.
pub struct Event(pub EventFd);

impl Event {
    /// One that is not rung.
    pub fn new() -> Result<Self> {
        Ok(Self(
            EventFd::new(EFD_NONBLOCK).context("cannot create an eventfd")?,
        ))
    }

    /// Rings it.
    pub fn ring(&self) -> Result<()> {
        self.0.write(1).context("cannot ring an eventfd")
    }

    /// Silences it; true when it was rung.
    pub fn silence(&self) -> bool {
        self.0.read().is_ok()
    }

    /// Another descriptor for the same eventfd.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        Ok(self.as_fd().try_clone_to_owned()?)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.0`, which stays open for as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// Waits until one of `events` is rung, and silences them all; false when `timeout` passes first.
pub fn wait(events: &[&Event], timeout: Duration) -> Result<bool> {
    let mut fds: Vec<PollFd<'_>> = events
        .iter()
        .map(|event| PollFd::new(*event, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(timeout)?;
    loop {
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for event in events {
        event.silence();
    }
    Ok(true)
}
