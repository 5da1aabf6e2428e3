//! Which flushes of a disk are under way.
//!
//! The system tells an error of writeback once to all who share an open file, as all queues of a disk do: to the first
//! flush that asks. Any other that is under way then is told that it succeeded, and is there first, if whoever waits
//! for the one that failed comes to it later. So a flush that succeeded is confirmed only when the outcome is known of
//! every one that began before it ended. One that begins later can have been told of nothing that concerns it.
//!
//! ```text
//!            begin                end, in any order             none is left that began before that
//!  the call is made ──▶ under way ────────────────▶ awaits others ─────────────────────────────────▶ is confirmed,
//!                                                                                              unless one failed
//! ```
//!
//! Whoever has one that failed says so ([`Disk::lose`](super::disk::Disk::lose)) before it ends here.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

/// The flushes of a disk.
#[derive(Default)]
pub(super) struct Flushes {
    state: Mutex<State>,
    /// One has ended, for those who sleep.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// How many have begun, and so the number of the next.
    begun: u64,
    /// Those under way, in the order in which they began.
    under_way: VecDeque<u64>,
    /// How many threads sleep until one ends.
    asleep: usize,
    /// What is rung when one ends.
    bells: Vec<Arc<Bell>>,
}

/// A flush that is under way. All others that end later wait for it to be handed to [`Flushes::end`].
pub(super) struct Flush(u64);

/// What a flush that has ended awaits: the end of all that had begun by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Others {
    before: u64,
}

impl State {
    fn have_ended(&self, others: Others) -> bool {
        self.under_way.front().is_none_or(|first| *first >= others.before)
    }
}

impl Flushes {
    /// Takes note of a flush, before the system is asked for it.
    pub(super) fn begin(&self) -> Flush {
        let mut state = self.hold();
        let number = state.begun;
        state.begun += 1;
        state.under_way.push_back(number);
        Flush(number)
    }

    /// Takes note that one has ended, and wakes whoever awaits that. Returns what it awaits itself before it may be
    /// confirmed.
    pub(super) fn end(&self, Flush(number): Flush) -> Others {
        let mut state = self.hold();
        if let Ok(at) = state.under_way.binary_search(&number) {
            state.under_way.remove(at);
        }
        let others = Others { before: state.begun };
        let (asleep, bells) = (state.asleep > 0, mem::take(&mut state.bells));
        drop(state);
        if asleep {
            self.ended.notify_all();
        }
        for bell in bells {
            bell.ring();
        }
        others
    }

    /// Whether they have ended. If not, `bell` is rung once one of them may have.
    pub(super) fn have_ended(&self, others: Others, bell: &Arc<Bell>) -> bool {
        let mut state = self.hold();
        let ended = state.have_ended(others);
        if !ended && !state.bells.iter().any(|other| Arc::ptr_eq(other, bell)) {
            state.bells.push(Arc::clone(bell));
        }
        ended
    }

    /// Waits until they have ended. Not for a thread that has a flush under way itself: two could wait for each other.
    pub(super) fn wait_for(&self, others: Others) {
        let mut state = self.hold();
        while !state.have_ended(others) {
            state.asleep += 1;
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep -= 1;
        }
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        // Nothing panics that holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes a thread that waits for more than flushes.
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(event))
    }

    /// Makes it silent again.
    pub(super) fn hush(&self) {
        // It fails only where it has not rung.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    fn ring(&self) {
        // An eventfd only refuses when its counter is about to overflow, and then it is readable.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Readable once it has rung.
impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_rung(bell: &Bell) -> bool {
        rustix::io::read(&bell.0, &mut [0; 8]).is_ok()
    }

    #[test]
    fn a_flush_awaits_those_that_began_before_its_end_and_no_later_ones() {
        let (flushes, bell) = (Flushes::default(), Arc::new(Bell::new().unwrap()));
        let [earlier, flush, later] = [(); 3].map(|()| flushes.begin());
        let others = flushes.end(flush);
        let _after = flushes.begin();
        assert!(!flushes.have_ended(others, &bell));
        flushes.end(later);
        assert!(has_rung(&bell) && !flushes.have_ended(others, &bell));
        flushes.end(earlier);
        assert!(has_rung(&bell) && flushes.have_ended(others, &bell));
        flushes.wait_for(others);
    }

    #[test]
    fn a_flush_alone_awaits_nothing() {
        let (flushes, bell) = (Flushes::default(), Arc::new(Bell::new().unwrap()));
        for _ in 0..3 {
            let others = flushes.end(flushes.begin());
            assert!(flushes.have_ended(others, &bell));
            flushes.wait_for(others);
        }
        assert!(!has_rung(&bell));
    }
}
