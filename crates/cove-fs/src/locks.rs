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
//!
//! To try, to open or to close may take for ever where a file is on a server that has gone away. None of that is done
//! under a lock of this module, or whoever ends a guest would wait for that server.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cove_confine::seccomp::{self, Thread};
use parking_lot::{Condvar, Mutex, MutexGuard};
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
    /// Whatever a test has in its place.
    #[cfg(test)]
    Test(fn() -> Result<(), Errno>),
}

impl Attempt {
    pub(crate) fn make(&self) -> Result<(), Errno> {
        match self {
            Self::Range(fd, lock) => sys::set_lock(fd.as_fd(), *lock),
            Self::Flock(fd, operation) => rustix::fs::flock(fd, *operation),
            #[cfg(test)]
            Self::Test(attempt) => attempt(),
        }
    }
}

type Deliver = Box<dyn FnOnce([u8; HEADER]) + Send>;

struct Waiter {
    /// Its own, where a guest may give two requests one number.
    id: u64,
    unique: u64,
    pid: u32,
    attempt: Arc<Attempt>,
    /// When to give up with `EAGAIN`.
    deadline: Option<Instant>,
    /// To give up with `EINTR`, once the attempt is over that is under way.
    interrupted: bool,
    deliver: Deliver,
}

#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they change independently, under one lock"
)]
struct Waiting {
    waiters: Vec<Waiter>,
    /// The id of the next one.
    next: u64,
    /// The id of the one whose attempt is under way. It stays until that is over, since it may have the lock by then.
    trying: Option<u64>,
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

/// What an interrupt met.
enum Met {
    /// One whose wait is to be ended.
    Waiter(Waiter),
    /// One that ends with the attempt that is under way.
    Trying,
    Nobody,
}

impl Waiting {
    fn interrupt(&mut self, unique: u64) -> Met {
        let Some(at) = self.waiters.iter().position(|waiter| waiter.unique == unique) else {
            return Met::Nobody;
        };
        if let Some(waiter) = self.waiters.get_mut(at)
            && Some(waiter.id) == self.trying
        {
            waiter.interrupted = true;
            return Met::Trying;
        }
        Met::Waiter(self.waiters.swap_remove(at))
    }

    /// Where the waiter of that id is, most likely at `guess`.
    fn find(&self, id: u64, guess: usize) -> Option<usize> {
        let is_it = |waiter: &Waiter| waiter.id == id;
        if self.waiters.get(guess).is_some_and(is_it) {
            return Some(guess);
        }
        self.waiters.iter().position(is_it)
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
            id: 0,
            unique,
            pid,
            attempt: Arc::new(attempt),
            deadline,
            interrupted: false,
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
        if let Some(fd) = self.descriptors.lock().get(&(node, owner)) {
            return Ok(Arc::clone(fd));
        }
        let opened = open()?;
        // Somebody else may have been quicker. What was opened here is closed once the lock is let go.
        let fd = Arc::clone(
            self.descriptors
                .lock()
                .entry((node, owner))
                .or_insert_with(|| Arc::clone(&opened)),
        );
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
        let released: Vec<_> = self
            .descriptors
            .lock()
            .extract_if(|(locked, _), _| *locked == node)
            .collect();
        drop(released);
        self.wake();
    }

    /// Forgets everything, the interrupts for which nobody waited as well. Returns the descriptors that carry locks,
    /// which are released when these are closed; [`Locks::wake`] is to be called then.
    pub(crate) fn take_all(&self) -> Vec<Arc<Descriptor>> {
        self.waiting.lock().interrupts.clear();
        let taken = std::mem::take(&mut *self.descriptors.lock());
        taken.into_values().collect()
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

    fn add(self: &Arc<Self>, mut waiter: Waiter) {
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
        waiter.id = waiting.next;
        waiting.next += 1;
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
        match waiting.interrupt(unique) {
            Met::Waiter(waiter) => {
                drop(waiting);
                waiter.interrupt();
            }
            Met::Trying => {}
            Met::Nobody => {
                if waiting.interrupts.len() >= MAX_INTERRUPTS {
                    waiting.interrupts.pop_front();
                }
                waiting.interrupts.push_back(unique);
            }
        }
    }

    /// Ends the wait of a request that was seen to wait. One that waits no more has been answered: kept for later, its
    /// interrupt would meet a request of a guest that restarted and numbers its own anew.
    pub(crate) fn end_wait(&self, unique: u64) {
        let met = self.waiting.lock().interrupt(unique);
        if let Met::Waiter(waiter) = met {
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
            // What was said meanwhile was said to nobody who sleeps.
            if try_each(&mut waiting) || waiting.news || waiting.ended {
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

/// One attempt of each who waits; whether any was answered. `waiting` is let go meanwhile, and who waits may change.
fn try_each(waiting: &mut MutexGuard<'_, Waiting>) -> bool {
    let mut answered = false;
    let mut at = 0;
    while let Some(waiter) = waiting.waiters.get(at) {
        let (id, attempt) = (waiter.id, Arc::clone(&waiter.attempt));
        waiting.trying = Some(id);
        let result = MutexGuard::unlocked(waiting, || attempt.make());
        waiting.trying = None;
        let place = waiting.find(id, at);
        let Some((place, waiter)) = place.and_then(|place| Some((place, waiting.waiters.get(place)?))) else {
            // The server has ended, and nobody is answered any more.
            return answered;
        };
        let result = match result {
            Err(Errno::AGAIN | Errno::ACCESS) if waiter.interrupted => Err(Errno::INTR),
            Err(Errno::AGAIN | Errno::ACCESS)
                if waiter.deadline.is_none_or(|deadline| Instant::now() < deadline) =>
            {
                at = place + 1;
                continue;
            }
            result => result,
        };
        let Waiter {
            unique,
            attempt: same,
            deliver,
            ..
        } = waiting.waiters.remove(place);
        at = place;
        answered = true;
        let error = result.err().map_or(0, |errno| -errno.raw_os_error());
        MutexGuard::unlocked(waiting, || {
            deliver(answer(unique, error));
            // Its descriptor may have been let go by its owner meanwhile, and is closed then.
            drop((attempt, same));
        });
    }
    answered
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex as StdMutex, PoisonError, mpsc};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Held for as long as the server is away.
    static AWAY: StdMutex<()> = StdMutex::new(());
    static TRIED: AtomicBool = AtomicBool::new(false);

    fn on_a_server_that_is_away() -> Result<(), Errno> {
        TRIED.store(true, Ordering::SeqCst);
        drop(AWAY.lock().unwrap_or_else(PoisonError::into_inner));
        Err(Errno::AGAIN)
    }

    fn of_somebody_else() -> Result<(), Errno> {
        Err(Errno::AGAIN)
    }

    /// An attempt was made under the lock of all who wait, so that nobody's wait could be ended, nor a guest.
    #[test]
    fn an_attempt_that_does_not_return_keeps_nobody_else() {
        let locks = Locks::new();
        let (sender, answers) = mpsc::channel();
        let wait = |unique, attempt| {
            let sender = sender.clone();
            let pending = locks.wait(unique, 7, attempt, None).unwrap();
            pending.deliver(move |answer| sender.send(answer).unwrap());
        };
        let away = AWAY.lock().unwrap();
        wait(1, Attempt::Test(on_a_server_that_is_away));
        let deadline = Instant::now() + PATIENCE;
        while !TRIED.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "nobody tries");
            std::thread::sleep(Duration::from_millis(1));
        }
        wait(2, Attempt::Test(of_somebody_else));
        assert_eq!(locks.waiting(), [(1, 7), (2, 7)]);
        let interrupted = |unique| answer(unique, -Errno::INTR.raw_os_error());
        locks.end_wait(2);
        assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), interrupted(2));
        assert!(locks.take_all().is_empty());
        // It may have the lock by the time that the attempt is over.
        locks.end_wait(1);
        assert!(answers.try_recv().is_err());
        drop(away);
        assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), interrupted(1));
        assert!(locks.waiting().is_empty());
        locks.end();
    }
}
