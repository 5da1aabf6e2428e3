//! One driver's time with the device: the queues, and the threads that answer what is in them.
//!
//! ```text
//!            ┌────────────────────────────── looks again ◀───────────────────────────────┐
//!            ▼                                                                           │
//!  takes one chain ──▶ more? wakes another thread ──▶ asks the server ──▶ completes the chain, signals
//!     ▲      │
//!     │      └─ none ──▶ lingers ──▶ asks for notifications ──▶ sleeps
//!     └──────────────────────┴───────────────────────────────── a kick
//! ```
//!
//! So a request is answered by the thread that found it, without being handed over, and a slow one keeps only its own
//! thread from the rest. A kick wakes one thread, always the first of those that sleep: with one request at a time the
//! same thread answers all of them, and nobody else is woken. [`Shared`] owns the queues; a thread holds their lock
//! only while it moves an index.
//!
//! A guest that walks a tree asks its next question a few microseconds after the last answer, while a thread that slept
//! takes tens of them to wake, and each kick costs the guest an exit. So where requests follow each other that fast and
//! are answered as fast, which is called brisk here, the driver is asked for no notifications: one thread answers, and
//! lingers before it sleeps ([`LINGER`]). One fruitless wait, or one slow request, ends that. A guest that is idle costs
//! nothing.
//!
//! Where as many threads answer as are to be ([`AT_ONCE`]; one where requests are brisk), another one guards: asleep, it
//! looks every now and then whether they are stuck with requests that are not like the others ([`GUARD`]), as with a
//! file on a server that has gone away. Then it answers what is left, and the next one guards.
//!
//! Threads leave between two requests, so one that is stuck does not. Whoever wants the session to end waits for a while,
//! and then has those that have left come back ([`Session::go_on`]), or lets go of those that have not
//! ([`Session::leave_behind`]). Which have left is decided under the lock of the queues, as everything is that others
//! go by.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cove_confine::seccomp::{self, Thread};
use cove_fs::Answer;
use rustix::event::{EventfdFlags, Timespec, epoll};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{Bytes, VolatileSlice};

use super::late::{Late, LateAnswer};
use super::{Files, QUEUES};
use crate::device::{Activation, DeviceError, GuestMemory, Interrupt};
use crate::queue::{BrokenQueue, DeviceQueue, split};

/// How long a thread looks for the next request before it sleeps, where the last ones followed each other within this.
/// About as long as it takes the guest's processor to wake for an answer, and to ask again.
const LINGER: Duration = Duration::from_micros(100);

/// How often one that guards looks whether a request was taken since. One that came behind a slow one waits for up to
/// twice as long, once, before another thread takes it.
const GUARD: Duration = Duration::from_millis(1);

/// How many threads answer at once while none of them is stuck. The guest's own are to have processors as well.
const AT_ONCE: usize = 2;

/// From how much room for an answer on another thread is woken for the next request, since copying takes longer than
/// that.
const LARGE: usize = 64 << 10;

/// The session as the device holds it.
pub(super) struct Session {
    shared: Arc<Shared>,
    files: Arc<dyn Files>,
    /// By their numbers; those that have left as well.
    threads: Vec<Option<JoinHandle<()>>>,
}

/// What the threads have in common, and those who answer requests that waited.
pub(super) struct Shared {
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    queues: Mutex<Queues>,
    /// A thread has left.
    left: Condvar,
    /// Rung for a thread that sleeps, when there is more to do than for one.
    more: OwnedFd,
    /// The threads are to end; `stop` is readable then, for those that sleep.
    ending: AtomicBool,
    stop: OwnedFd,
    /// The way of answers to requests that wait for locks. It leads here from the session's begin to its end, and so
    /// neither holds the other for longer than that.
    late: Arc<Late>,
    /// [`LINGER`], or nothing where there is no processor to spare.
    linger: Duration,
    /// The driver broke a queue: nothing is done before a reset.
    broken: AtomicBool,
    /// Nobody waits any more for those that have not left.
    left_behind: AtomicBool,
}

/// The queues, and who waits for them.
struct Queues {
    list: Vec<DeviceQueue>,
    /// Which to look at first: in turn, so that neither keeps the other waiting.
    first: usize,
    /// Threads that sleep, or have found nothing to do and are about to.
    asleep: usize,
    /// All threads that have not left.
    threads: usize,
    /// Which have.
    left: Vec<bool>,
    /// When each thread has begun with the request that it is at.
    began: Vec<Option<Instant>>,
    /// When a request was answered last, and how long that had taken.
    answered: Instant,
    took: Duration,
    /// Requests are few microseconds apart, and the driver does not notify: whoever is awake looks for them.
    brisk: bool,
    /// A thread that sleeps is to look after those that are awake.
    guarded: bool,
    /// How many requests were taken; wraps around.
    taken: u64,
}

/// Why a thread no longer sleeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// There may be something to do.
    Rung,
    /// Its time is over.
    Late,
    /// It cannot sleep.
    Failed,
}

/// A thread's place in the session, which it leaves however it ends.
struct Place<'s> {
    shared: &'s Shared,
    thread: usize,
    /// It has already, and another thread may have it by now.
    has_left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.has_left {
            self.shared.leave(self.shared.queues(), self.thread);
        }
    }
}

/// A chain and the queue that it belongs to.
struct Request<'m> {
    queue: usize,
    chain: DescriptorChain<&'m GuestMemory>,
}

impl Session {
    pub(super) fn begin(
        activation: Activation,
        files: &Arc<dyn Files>,
        workers: usize,
        late: &Arc<Late>,
    ) -> Result<Self, DeviceError> {
        let os = |operation| move |source| DeviceError::Os { operation, source };
        let Activation {
            memory,
            queues,
            interrupt,
            ..
        } = activation;
        for (index, _) in (0u16..).zip(QUEUES) {
            let queue = queues
                .iter()
                .find(|queue| queue.index == index)
                .ok_or(DeviceError::QueueMissing { queue: index })?;
            if !queue.queue.is_valid(memory.as_ref()) {
                return Err(DeviceError::QueueInvalid { queue: index });
            }
        }
        let eventfd = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let failed = |error: rustix::io::Errno| os("create an eventfd")(error.into());
        let (more, stop) = (eventfd().map_err(failed)?, eventfd().map_err(failed)?);
        let mut session = Self {
            shared: Arc::new(Shared {
                memory,
                interrupt,
                queues: Mutex::new(Queues {
                    list: queues,
                    first: 0,
                    asleep: 0,
                    threads: 0,
                    left: vec![true; workers],
                    began: vec![None; workers],
                    answered: Instant::now(),
                    took: Duration::ZERO,
                    brisk: false,
                    guarded: false,
                    taken: 0,
                }),
                left: Condvar::new(),
                more,
                ending: AtomicBool::new(false),
                stop,
                late: Arc::clone(late),
                linger: if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
                    LINGER
                } else {
                    Duration::ZERO
                },
                broken: AtomicBool::new(false),
                left_behind: AtomicBool::new(false),
            }),
            files: Arc::clone(files),
            threads: (0..workers).map(|_| None).collect(),
        };
        let started = session.start();
        if session.shared.queues().threads == 0 {
            started.map_err(os("start a thread"))?;
        }
        late.begin(&session.shared);
        Ok(session)
    }

    /// Starts the threads that are not there, and tells of the last that could not be. Fewer serve as well, only not as
    /// fast.
    fn start(&mut self) -> io::Result<()> {
        let numbers = self.shared.queues().call_in();
        let mut result = Ok(());
        for number in numbers {
            if let Err(error) = self.start_one(number) {
                tracing::warn!(%error, "one thread less for shared folders");
                self.shared.leave(self.shared.queues(), number);
                result = Err(error);
            }
        }
        result
    }

    fn start_one(&mut self, number: usize) -> io::Result<()> {
        let (shared, files) = (Arc::clone(&self.shared), Arc::clone(&self.files));
        let sleeper = sleeper(&shared.queues().list, &shared.more, &shared.stop)?;
        let thread = std::thread::Builder::new()
            .name(format!("fs{number}"))
            .spawn(move || {
                seccomp::enter(Thread::Files);
                shared.work(number, &*files, &sleeper);
            })?;
        let before = self
            .threads
            .get_mut(number)
            .and_then(|place| place.replace(thread));
        join(before);
        Ok(())
    }

    /// Ends it, and hands the queues back with every chain returned but those of requests that wait for locks. Where
    /// requests are not over after `patience`, no other is taken until it goes on.
    pub(super) fn end(&mut self, patience: Duration) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.shared.request_stop();
        let requests = self.shared.await_all(patience);
        if requests > 0 {
            return Err(DeviceError::Stuck {
                requests,
                waited: patience,
            });
        }
        join(self.threads.drain(..).flatten());
        self.shared.late.end();
        Ok(std::mem::take(&mut self.shared.queues().list))
    }

    /// Goes on after an end that failed, as if it had not been asked for.
    pub(super) fn go_on(&mut self) {
        if self.shared.call_back() {
            // It logs what goes wrong.
            let _ = self.start();
        }
    }

    /// Leaves the threads to themselves that have not left. Their requests are answered to the memory that they are
    /// from, which they hold, and to nobody else.
    pub(super) fn leave_behind(self) {
        self.shared.left_behind.store(true, Ordering::Release);
        self.shared.late.end();
    }
}

/// Waits for threads that have left.
fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the file system device panicked");
        }
    }
}

/// What a thread sleeps on: kicks and `more`, each of which wakes one thread, and `stop`, which wakes all.
///
/// Kicks are taken by their edges and never read. Two threads that are woken by one could not both read it, and the
/// one left over would wait for the next; the counter overflows at 2⁶⁴ of them.
fn sleeper(queues: &[DeviceQueue], more: &OwnedFd, stop: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    use epoll::{EventData, EventFlags};
    let sleeper = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for event in queues.iter().map(|queue| &queue.kick).chain([more]) {
        let one_thread = EventFlags::IN | EventFlags::ET | EventFlags::EXCLUSIVE;
        epoll::add(&sleeper, event, EventData::new_u64(0), one_thread)?;
    }
    epoll::add(&sleeper, stop, EventData::new_u64(0), EventFlags::IN)?;
    Ok(sleeper)
}

impl Queues {
    fn take<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<Request<'m>>, BrokenQueue> {
        let count = self.list.len();
        for queue in (self.first..count).chain(0..self.first) {
            let Some(candidate) = self.list.get_mut(queue) else {
                continue;
            };
            if let Some(chain) = candidate.next_chain(memory)? {
                self.first = (queue + 1) % count;
                return Ok(Some(Request { queue, chain }));
            }
        }
        Ok(None)
    }

    /// Has the driver notify; true when there is something already.
    fn arm(&mut self, memory: &GuestMemory) -> Result<bool, BrokenQueue> {
        let mut more = false;
        for queue in &mut self.list {
            more |= queue.arm(memory)?;
        }
        Ok(more)
    }

    /// Counts those in that have left, and returns their numbers.
    fn call_in(&mut self) -> Vec<usize> {
        let left = self.left.iter().enumerate().filter(|(_, left)| **left);
        let numbers = left.map(|(number, _)| number).collect();
        self.left.fill(false);
        self.threads = self.left.len();
        numbers
    }

    /// A thread begins with a request.
    fn begin(&mut self, thread: usize) {
        if let Some(began) = self.began.get_mut(thread) {
            *began = Some(Instant::now());
        }
    }

    /// It has answered that, or has left the answer to another.
    fn end(&mut self, thread: usize) {
        self.answered = Instant::now();
        if let Some(began) = self.began.get_mut(thread).and_then(Option::take) {
            self.took = self.answered - began;
        }
    }

    /// How many threads are awake.
    fn awake(&self) -> usize {
        self.threads - self.asleep
    }

    /// How many of these are not stuck with a request.
    fn moving(&self) -> usize {
        if self.awake() < AT_ONCE {
            return self.awake();
        }
        let now = Instant::now();
        let is_stuck = |began: &&Option<Instant>| began.is_some_and(|began| now - began >= GUARD);
        self.awake() - self.began.iter().filter(is_stuck).count()
    }

    /// Whether there are as many as are to be, all being well.
    fn are_enough(&self) -> bool {
        self.brisk || self.moving() >= AT_ONCE
    }

    /// Has the driver not notify.
    fn disarm(&mut self, memory: &GuestMemory) -> Result<(), BrokenQueue> {
        self.list.iter_mut().try_for_each(|queue| queue.disarm(memory))
    }

    fn has_requests(&self, memory: &GuestMemory) -> Result<bool, BrokenQueue> {
        for queue in &self.list {
            if queue.has_chains(memory)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request_stop(&self) {
        self.ending.store(true, Ordering::Release);
        ring(&self.stop);
    }

    /// Takes that back; false where the driver broke a queue, and nothing goes on.
    fn call_back(&self) -> bool {
        if self.broken.load(Ordering::Acquire) {
            return false;
        }
        // A thread that looks whether it is to leave has the lock.
        let _queues = self.queues();
        self.ending.store(false, Ordering::Release);
        // It does not block, and what fails was not rung.
        let _ = rustix::io::read(&self.stop, &mut [0; 8]);
        true
    }

    /// A thread leaves.
    fn leave(&self, mut queues: MutexGuard<'_, Queues>, thread: usize) {
        if let Some(left) = queues.left.get_mut(thread)
            && !std::mem::replace(left, true)
        {
            queues.threads -= 1;
        }
        drop(queues);
        self.left.notify_all();
    }

    /// Waits for all threads to leave, and returns how many have not.
    fn await_all(&self, patience: Duration) -> usize {
        let waited = self
            .left
            .wait_timeout_while(self.queues(), patience, |queues| queues.threads > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.threads
    }

    /// Answers requests until told to stop.
    fn work(&self, thread: usize, files: &dyn Files, sleeper: &OwnedFd) {
        let mut place = Place {
            shared: self,
            thread,
            has_left: false,
        };
        let mut wanted = true;
        loop {
            match self.next(thread, sleeper, wanted) {
                Ok(Some(request)) => match self.serve(thread, files, request) {
                    Ok(large) => wanted = large,
                    Err(error) => return self.give_up(&error),
                },
                Ok(None) => {
                    place.has_left = true;
                    return;
                }
                Err(error) => return self.give_up(&error),
            }
        }
    }

    /// The next request, or nothing when the thread was to leave, and has. One that is not `wanted` leaves small requests
    /// that are brisk to another, in whose way it would be.
    fn next(
        &self,
        thread: usize,
        sleeper: &OwnedFd,
        mut wanted: bool,
    ) -> Result<Option<Request<'_>>, BrokenQueue> {
        loop {
            let mut queues = self.queues();
            if self.ending.load(Ordering::Acquire) {
                self.leave(queues, thread);
                return Ok(None);
            }
            let mut is_armed = false;
            let alone = queues.awake() == 1;
            let takes = if queues.brisk {
                wanted || alone
            } else {
                queues.moving() <= AT_ONCE
            };
            if takes {
                if let Some(request) = queues.take(&self.memory)? {
                    queues.taken = queues.taken.wrapping_add(1);
                    queues.begin(thread);
                    // While this one is answered another thread takes what is there, or is notified of what comes.
                    // Where there are enough, each looks again once it has answered, and one that sleeps guards them.
                    let idle = queues.asleep > 0;
                    let wake = if queues.are_enough() {
                        queues.disarm(&self.memory)?;
                        idle && !queues.guarded
                    } else {
                        queues.arm(&self.memory)? && idle
                    };
                    if wake {
                        drop(queues);
                        ring(&self.more);
                    }
                    return Ok(Some(request));
                }
                if queues.brisk && alone {
                    drop(queues);
                    let came = self.linger()?;
                    self.queues().brisk = came;
                    continue;
                }
                is_armed = !queues.brisk;
                if is_armed && queues.arm(&self.memory)? {
                    continue;
                }
            }
            if !self.rest(queues, sleeper, is_armed)? {
                self.leave(self.queues(), thread);
                return Ok(None);
            }
            wanted = true;
        }
    }

    /// Sleeps until there may be something to do, or until nobody has come for what there is; false when that cannot
    /// be. Where the driver does not notify, which it does if it `is_armed`, one of those that sleep guards.
    fn rest<'s>(
        &'s self,
        mut queues: MutexGuard<'s, Queues>,
        sleeper: &OwnedFd,
        is_armed: bool,
    ) -> Result<bool, BrokenQueue> {
        queues.asleep += 1;
        // The clock is not asked anew: a thread that was moving may be stuck by now.
        let guards = !queues.guarded && !is_armed;
        queues.guarded |= guards;
        let woken = loop {
            let taken = queues.taken;
            drop(queues);
            let woken = sleep(sleeper, guards.then_some(GUARD));
            queues = self.queues();
            if woken == Woken::Late {
                let stuck = queues.taken == taken && (queues.brisk || queues.has_requests(&self.memory)?);
                if stuck {
                    queues.brisk = false;
                } else if queues.are_enough() {
                    // All is well: a further thread would be in the way of the others.
                    continue;
                }
            }
            break woken;
        };
        queues.asleep -= 1;
        if guards {
            queues.guarded = false;
        } else if !queues.brisk
            && queues.awake() == 1
            && queues.took < self.linger
            && queues.answered.elapsed() < self.linger
        {
            queues.brisk = true;
            queues.disarm(&self.memory)?;
        }
        Ok(woken != Woken::Failed)
    }

    /// Looks for a request for a little while; whether one came.
    fn linger(&self) -> Result<bool, BrokenQueue> {
        let began = Instant::now();
        while began.elapsed() < self.linger && !self.ending.load(Ordering::Acquire) {
            if self.queues().has_requests(&self.memory)? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Answers a request; whether it is one of those for which another thread is woken.
    fn serve(&self, thread: usize, files: &dyn Files, request: Request<'_>) -> Result<bool, BrokenQueue> {
        let Request { queue, chain } = request;
        let head = chain.head_index();
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        if let Err(error) = split(&self.memory, chain.clone(), &mut readable, &mut writable) {
            tracing::debug!(%error, "a request to the file system device is malformed");
            self.queues().end(thread);
            self.complete(queue, head, 0)?;
            return Ok(false);
        }
        let large = writable.iter().map(VolatileSlice::len).sum::<usize>() >= LARGE;
        if large {
            self.call_help()?;
        }
        match files.serve(&readable, &writable) {
            Answer::Written(len) => {
                self.finish(thread, queue, head, u32::try_from(len).unwrap_or(u32::MAX))?;
            }
            Answer::Nothing => self.finish(thread, queue, head, 0)?,
            // Nobody is left to wait for it.
            Answer::Later(_) if self.left_behind.load(Ordering::Acquire) => self.queues().end(thread),
            Answer::Later(pending) => {
                let buffers: Vec<_> = chain
                    .writable()
                    .map(|buffer| (buffer.addr(), buffer.len()))
                    .collect();
                self.queues().end(thread);
                let late = Arc::clone(&self.late);
                pending.deliver(move |bytes| {
                    late.answer(LateAnswer {
                        queue,
                        head,
                        buffers,
                        bytes,
                    });
                });
            }
        }
        Ok(large)
    }

    /// Remembers how long an answer took, and completes its request.
    fn finish(&self, thread: usize, queue: usize, head: u16, written: u32) -> Result<(), BrokenQueue> {
        let mut queues = self.queues();
        queues.end(thread);
        queues.brisk &= queues.took < self.linger;
        self.give_back(queues, queue, head, written)
    }

    /// Wakes another thread for a request that waits, if there are both.
    fn call_help(&self) -> Result<(), BrokenQueue> {
        let queues = self.queues();
        if queues.brisk && queues.asleep > 0 && queues.has_requests(&self.memory)? {
            drop(queues);
            ring(&self.more);
        }
        Ok(())
    }

    /// Completes a request that waited.
    pub(super) fn answer_late(&self, answer: &LateAnswer) {
        let mut rest = &answer.bytes[..];
        for (address, len) in &answer.buffers {
            let (now, later) = rest.split_at(rest.len().min(*len as usize));
            if self.memory.write_slice(now, *address).is_err() {
                break;
            }
            rest = later;
        }
        let written = u32::try_from(answer.bytes.len() - rest.len()).unwrap_or(0);
        if let Err(error) = self.complete(answer.queue, answer.head, written) {
            self.give_up(&error);
        }
    }

    fn complete(&self, queue: usize, head: u16, written: u32) -> Result<(), BrokenQueue> {
        self.give_back(self.queues(), queue, head, written)
    }

    /// Gives the driver a chain back, and signals it once the queues are let go.
    fn give_back(
        &self,
        mut queues: MutexGuard<'_, Queues>,
        queue: usize,
        head: u16,
        written: u32,
    ) -> Result<(), BrokenQueue> {
        let signal = match queues.list.get_mut(queue) {
            Some(queue) => {
                queue.complete(&self.memory, head, written)?;
                queue.wants_signal(&self.memory)?.then_some(queue.index)
            }
            None => None,
        };
        drop(queues);
        if let Some(queue) = signal
            && let Err(error) = self.interrupt.signal_queue(queue)
        {
            tracing::warn!(%error, queue, "cannot signal the driver");
        }
        Ok(())
    }

    /// The driver broke a queue. Said once; the threads end.
    fn give_up(&self, error: &BrokenQueue) {
        if self.broken.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "the guest broke its file system device, which waits for a reset"
        );
        if let Err(error) = self.interrupt.signal_broken(error.queue) {
            tracing::warn!(%error, "cannot tell the guest that its file system device is broken");
        }
        self.request_stop();
    }
}

/// Sleeps until there may be something to do, or for `most`.
fn sleep(sleeper: &OwnedFd, most: Option<Duration>) -> Woken {
    let mut events = Vec::with_capacity(4);
    let most = most.and_then(|most| Timespec::try_from(most).ok());
    loop {
        match epoll::wait(
            sleeper,
            rustix::buffer::spare_capacity(&mut events),
            most.as_ref(),
        ) {
            Ok(0) => return Woken::Late,
            Ok(_) => return Woken::Rung,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the file system device cannot wait for requests and stops");
                return Woken::Failed;
            }
        }
    }
}

fn ring(event: &OwnedFd) {
    // An eventfd only refuses when its counter is about to overflow, and then it is readable.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}
