//! File locks that hold against the host as well as between containers.
//!
//! `flock` locks belong to the open file, as on the host: the handle's own descriptor carries them. POSIX locks belong
//! to a process, whichever of its descriptors set them; each pair of file and owner has an open file description of
//! its own that carries them all (`F_OFD_SETLK`), and closing it releases them all.
//!
//! ```text
//!  SETLKW ──▶ free? ──yes──▶ answered
//!               │no
//!               ▼         released here: at once; on the host: within RETRY_MAX
//!            waiting ──────────────────────────────▶ answered
//!               │ INTERRUPT
//!               └────────────▶ EINTR
//! ```
//!
//! The guest's kernel closes files behind the closer's back: its RELEASE may still be on its way when the next
//! process asks for the lock. So a request that does not want to wait is still given a moment ([`GRACE`]) where the
//! file is open more than once.
//!
//! virtio-fs carries no INTERRUPT: to a task that waits a signal, be it SIGKILL, would mean nothing. So whoever can ask
//! the guest is told who waits ([`Locks::await_waiting`]), and ends the wait of those that were interrupted.
//!
//! One thread makes the attempts of all who wait, so none keeps a worker. The kernel cannot look for deadlocks among
//! such locks: `EDEADLK` is never given.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cove_confine::seccomp::{self, Thread};
use parking_lot::{Condvar, Mutex};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::descriptor::Descriptor;
use crate::memory::{HEADER, answer};
use crate::sys::{self, RangeLock};

/// Most requests that wait at once.
const MAX_WAITING: usize = 4096;
/// Unmatched interrupts that are kept for a request still on its way.
const MAX_INTERRUPTS: usize = 64;
/// How long a lock may be held by a file that is being closed.
pub(crate) const GRACE: Duration = Duration::from_millis(5);
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(20);

/// One try at a lock.
#[derive(Debug)]
pub(crate) enum Attempt {
    Range(Arc<Descriptor>, RangeLock),
    Flock(Arc<Descriptor>, FlockOperation),
}

impl Attempt {
    pub(crate) fn make(&self) -> Result<(), Errno> {
        match self {
            Self::Range(fd, lock) => sys::set_lock(fd.as_fd(), *lock),
            Self::Flock(fd, operation) => rustix::fs::flock(fd, *operation),
        }
    }
}

type Deliver = Box<dyn FnOnce([u8; HEADER]) + Send>;

struct Waiter {
    unique: u64,
    pid: u32,
    attempt: Attempt,
    /// When to give up with `EAGAIN`.
    deadline: Option<Instant>,
    deliver: Deliver,
}

#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they change independently, under one lock"
)]
struct Waiting {
    waiters: Vec<Waiter>,
    /// Interrupts for which nobody waited yet.
    interrupts: VecDeque<u64>,
    thread_runs: bool,
    ended: bool,
    /// Something was released since the last round.
    news: bool,
    /// Nobody is told any more who waits.
    untold: bool,
}

impl Waiter {
    /// Ends the wait with `EINTR`.
    fn interrupt(self) {
        (self.deliver)(answer(self.unique, -Errno::INTR.raw_os_error()));
    }
}

impl Waiting {
    fn take(&mut self, unique: u64) -> Option<Waiter> {
        let at = self.waiters.iter().position(|waiter| waiter.unique == unique)?;
        Some(self.waiters.swap_remove(at))
    }
}

/// All locks. See the module's header.
pub(crate) struct Locks {
    descriptors: Mutex<HashMap<(u64, u64), Arc<Descriptor>>>,
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// There is one more who waits, or nobody is told any more.
    arrived: Condvar,
}

/// A lock request that waits. Its answer comes through [`Pending::deliver`].
pub struct Pending {
    locks: Arc<Locks>,
    unique: u64,
    pid: u32,
    attempt: Attempt,
    deadline: Option<Instant>,
}

impl Pending {
    /// Hands over what takes the answer: the 16 bytes of an answer's header, for the request's writable half.
    /// `deliver` is called once, on another thread, or on this one before the call returns; unless the server is
    /// dropped first.
    pub fn deliver(self, deliver: impl FnOnce([u8; HEADER]) + Send + 'static) {
        let Self {
            locks,
            unique,
            pid,
            attempt,
            deadline,
        } = self;
        locks.add(Waiter {
            unique,
            pid,
            attempt,
            deadline,
            deliver: Box::new(deliver),
        });
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending")
            .field("unique", &self.unique)
            .finish_non_exhaustive()
    }
}

impl Locks {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            descriptors: Mutex::default(),
            waiting: Mutex::default(),
            wake: Condvar::new(),
            arrived: Condvar::new(),
        })
    }

    /// The descriptor that carries the locks of `owner` on `node`.
    pub(crate) fn descriptor(
        &self,
        node: u64,
        owner: u64,
        open: impl FnOnce() -> Result<Arc<Descriptor>, Errno>,
    ) -> Result<Arc<Descriptor>, Errno> {
        let mut descriptors = self.descriptors.lock();
        if let Some(fd) = descriptors.get(&(node, owner)) {
            return Ok(Arc::clone(fd));
        }
        let fd = open()?;
        descriptors.insert((node, owner), Arc::clone(&fd));
        Ok(fd)
    }

    /// Releases all POSIX locks of `owner` on `node`.
    pub(crate) fn release(&self, node: u64, owner: u64) {
        let released = {
            let mut descriptors = self.descriptors.lock();
            if descriptors.is_empty() {
                return;
            }
            descriptors.remove(&(node, owner))
        };
        if let Some(fd) = released {
            // An attempt of the same owner may still hold the descriptor; the locks go all the same.
            let whole = RangeLock {
                kind: 2,
                start: 0,
                len: 0,
            };
            if let Err(errno) = sys::set_lock(fd.as_fd(), whole) {
                tracing::debug!(%errno, "cannot release a file lock");
            }
            self.wake();
        }
    }

    /// Closes the descriptors that carry locks on `node`.
    pub(crate) fn release_node(&self, node: u64) {
        self.descriptors.lock().retain(|(locked, _), _| *locked != node);
        self.wake();
    }

    /// Releases everything, and forgets the interrupts for which nobody waited.
    pub(crate) fn release_all(&self) {
        self.descriptors.lock().clear();
        self.waiting.lock().interrupts.clear();
        self.wake();
    }

    /// A request that is to wait for `attempt`, for ever or for `grace`.
    pub(crate) fn wait(
        self: &Arc<Self>,
        unique: u64,
        pid: u32,
        attempt: Attempt,
        grace: Option<Duration>,
    ) -> Result<Pending, Errno> {
        if self.waiting.lock().waiters.len() >= MAX_WAITING {
            return Err(Errno::NOLCK);
        }
        Ok(Pending {
            locks: Arc::clone(self),
            unique,
            pid,
            attempt,
            deadline: grace.map(|grace| Instant::now() + grace),
        })
    }

    fn add(self: &Arc<Self>, waiter: Waiter) {
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting
            .interrupts
            .iter()
            .position(|unique| *unique == waiter.unique)
        {
            waiting.interrupts.remove(at);
            drop(waiting);
            return waiter.interrupt();
        }
        waiting.waiters.push(waiter);
        waiting.news = true;
        if !waiting.thread_runs {
            let locks = Arc::clone(self);
            let spawned = std::thread::Builder::new()
                .name("cove-fs-locks".into())
                .spawn(move || {
                    seccomp::enter(Thread::Files);
                    locks.run();
                });
            waiting.thread_runs = spawned.is_ok();
            if spawned.is_err()
                && let Some(waiter) = waiting.waiters.pop()
            {
                drop(waiting);
                return (waiter.deliver)(answer(waiter.unique, -Errno::NOLCK.raw_os_error()));
            }
        }
        drop(waiting);
        self.wake.notify_one();
        self.arrived.notify_all();
    }

    /// Those who wait, once there are any and after `patience`, in which most get what they wait for. Nobody after
    /// [`Locks::end_awaiting`].
    pub(crate) fn await_waiting(&self, patience: Duration) -> Vec<(u64, u32)> {
        let mut waiting = self.waiting.lock();
        loop {
            while waiting.waiters.is_empty() && !waiting.untold {
                self.arrived.wait(&mut waiting);
            }
            let until = Instant::now() + patience;
            while !waiting.untold && !self.arrived.wait_until(&mut waiting, until).timed_out() {}
            if waiting.untold {
                return Vec::new();
            }
            if !waiting.waiters.is_empty() {
                return waiting
                    .waiters
                    .iter()
                    .map(|waiter| (waiter.unique, waiter.pid))
                    .collect();
            }
        }
    }

    /// Ends [`Locks::await_waiting`], now and later.
    pub(crate) fn end_awaiting(&self) {
        self.waiting.lock().untold = true;
        self.arrived.notify_all();
    }

    /// Those who wait: the request and the guest's process.
    pub(crate) fn waiting(&self) -> Vec<(u64, u32)> {
        self.waiting
            .lock()
            .waiters
            .iter()
            .map(|waiter| (waiter.unique, waiter.pid))
            .collect()
    }

    /// Ends the wait of a request with `EINTR`; of one that is still on its way, as soon as it comes.
    pub(crate) fn interrupt(&self, unique: u64) {
        let mut waiting = self.waiting.lock();
        if let Some(waiter) = waiting.take(unique) {
            drop(waiting);
            waiter.interrupt();
        } else {
            if waiting.interrupts.len() >= MAX_INTERRUPTS {
                waiting.interrupts.pop_front();
            }
            waiting.interrupts.push_back(unique);
        }
    }

    /// Ends the wait of a request that was seen to wait. One that waits no more has been answered: kept for later, its
    /// interrupt would meet a request of a guest that restarted and numbers its own anew.
    pub(crate) fn end_wait(&self, unique: u64) {
        let waiter = self.waiting.lock().take(unique);
        if let Some(waiter) = waiter {
            waiter.interrupt();
        }
    }

    /// A lock was released, as far as the server knows: those who wait should try.
    pub(crate) fn wake(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.waiters.is_empty() {
            waiting.news = true;
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// Ends the thread. Those who still wait are never answered.
    pub(crate) fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.ended = true;
        waiting.waiters.clear();
        drop(waiting);
        self.wake.notify_one();
    }

    fn run(&self) {
        let mut pause = RETRY_MIN;
        let mut waiting = self.waiting.lock();
        while !waiting.ended {
            if std::mem::take(&mut waiting.news) {
                pause = RETRY_MIN;
            }
            let mut ready = Vec::new();
            let mut at = 0;
            while at < waiting.waiters.len() {
                match waiting.waiters[at].attempt.make() {
                    Err(Errno::AGAIN | Errno::ACCESS)
                        if waiting.waiters[at]
                            .deadline
                            .is_none_or(|deadline| Instant::now() < deadline) =>
                    {
                        at += 1;
                    }
                    result => {
                        let waiter = waiting.waiters.remove(at);
                        let error = result.err().map_or(0, |errno| -errno.raw_os_error());
                        ready.push((waiter.deliver, answer(waiter.unique, error)));
                    }
                }
            }
            if !ready.is_empty() {
                drop(waiting);
                for (deliver, answer) in ready {
                    deliver(answer);
                }
                waiting = self.waiting.lock();
                continue;
            }
            if waiting.waiters.is_empty() {
                self.wake.wait(&mut waiting);
            } else {
                self.wake.wait_for(&mut waiting, pause);
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}
