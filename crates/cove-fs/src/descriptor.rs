//! Descriptors held on behalf of the guest, counted against a bound so that no guest exhausts the host's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

/// How many descriptors there may be, and are.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// Reserves a place before a descriptor is opened. `NFILE` when there is none.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Place, Errno> {
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.used.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::NFILE);
        }
        Ok(Place(Arc::clone(self)))
    }

    /// How many are in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// A reserved place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Budget>);

impl Place {
    /// Puts `fd` in the place.
    pub(crate) fn hold(self, fd: OwnedFd) -> Arc<Descriptor> {
        Arc::new(Descriptor { fd, _place: self })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A counted descriptor.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    _place: Place,
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_refuses_until_a_descriptor_is_dropped() {
        let budget = Budget::new(2);
        let first = budget.reserve().unwrap();
        let _second = budget.reserve().unwrap();
        assert_eq!(budget.reserve().unwrap_err(), Errno::NFILE);
        drop(first);
        assert!(budget.reserve().is_ok());
        assert_eq!(budget.used(), 1);
    }
}
