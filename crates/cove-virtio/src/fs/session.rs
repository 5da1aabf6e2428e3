//! One driver's time with the device: the queues, and the threads that answer what is in them.
//!
//! ```text
//!            ┌───────── one thread has the turn ─────────┐
//!  kicks ──▶ │ waits, takes one chain, passes the turn on │──▶ asks the server ──▶ completes the chain ──▶ signals
//!            └──────────────────▲────────────────────────┘                                │
//!                               └──────────────────── waits for its turn ◀────────────────┘
//! ```
//!
//! So a request is answered by the thread that found it, without being handed over, and a slow one keeps only its own
//! thread from the rest. [`Shared`] owns the queues; a thread holds their lock only while it moves an index.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cove_confine::seccomp::{self, Thread};
use cove_fs::{Answer, Server};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::QUEUES;
use crate::device::{Activation, DeviceError, GuestMemory, Interrupt};
use crate::queue::{BrokenQueue, DeviceQueue, split};

/// How often requests that wait for locks are told to end, until they have.
const NUDGE: Duration = Duration::from_millis(10);

/// The session as the device holds it.
pub(super) struct Session {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads, and requests that wait for locks, have in common.
struct Shared {
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    queues: Mutex<Vec<DeviceQueue>>,
    /// The queues' notifications, to be waited for without their lock.
    kicks: Vec<OwnedFd>,
    /// The threads are to end; `stop` is readable then, for the one that waits.
    ending: AtomicBool,
    stop: OwnedFd,
    /// Who holds it waits for requests; the value says which queue to look at first.
    turn: Mutex<usize>,
    /// Requests that wait for file locks.
    waiting: Mutex<usize>,
    fewer_wait: Condvar,
    /// The driver broke a queue: nothing is done before a reset.
    broken: AtomicBool,
}

/// A chain and the queue that it belongs to.
struct Request<'m> {
    queue: usize,
    chain: DescriptorChain<&'m GuestMemory>,
}

impl Session {
    pub(super) fn begin(
        activation: Activation,
        server: &Arc<Server>,
        workers: usize,
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
        let kicks = queues
            .iter()
            .map(|queue| queue.kick.try_clone())
            .collect::<Result<_, _>>()
            .map_err(os("watch for the driver's notifications"))?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| os("create an eventfd")(error.into()))?;
        let mut session = Self {
            shared: Arc::new(Shared {
                memory,
                interrupt,
                queues: Mutex::new(queues),
                kicks,
                ending: AtomicBool::new(false),
                stop,
                turn: Mutex::new(0),
                waiting: Mutex::new(0),
                fewer_wait: Condvar::new(),
                broken: AtomicBool::new(false),
            }),
            threads: Vec::new(),
        };
        for number in 0..workers {
            let (shared, server) = (Arc::clone(&session.shared), Arc::clone(server));
            let spawned = std::thread::Builder::new()
                .name(format!("fs{number}"))
                .spawn(move || {
                    seccomp::enter(Thread::Files);
                    shared.work(&server);
                });
            match spawned {
                Ok(thread) => session.threads.push(thread),
                // Fewer serve as well, only not as fast.
                Err(error) if number > 0 => {
                    tracing::warn!(%error, threads = number, "no more threads for shared folders");
                    break;
                }
                Err(error) => return Err(os("start a thread")(error)),
            }
        }
        Ok(session)
    }

    /// Ends it with every chain returned, and hands the queues back.
    pub(super) fn end(self, server: &Server) -> Vec<DeviceQueue> {
        self.shared.request_stop();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the file system device panicked");
            }
        }
        self.shared.end_waiting(server);
        std::mem::take(&mut *self.shared.queues())
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Vec<DeviceQueue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request_stop(&self) {
        self.ending.store(true, Ordering::Release);
        // An eventfd only refuses when its counter is about to overflow, and then it is readable.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }

    /// Answers requests until told to stop.
    fn work(self: &Arc<Self>, server: &Server) {
        loop {
            match self.next() {
                Ok(Some(request)) => {
                    if let Err(error) = self.serve(server, request) {
                        return self.give_up(&error);
                    }
                }
                Ok(None) => return,
                Err(error) => return self.give_up(&error),
            }
        }
    }

    /// The next request, or nothing when the threads are to end.
    fn next(&self) -> Result<Option<Request<'_>>, BrokenQueue> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.ending.load(Ordering::Acquire) {
                return Ok(None);
            }
            // In turn, so that neither queue keeps the other waiting.
            for offset in 0..self.kicks.len() {
                let queue = (*turn + offset) % self.kicks.len();
                if let Some(chain) = self.take(queue)? {
                    *turn = (queue + 1) % self.kicks.len();
                    return Ok(Some(Request { queue, chain }));
                }
            }
            let mut more = false;
            for queue in &mut *self.queues() {
                more |= queue.arm(&self.memory)?;
            }
            if more {
                continue;
            }
            if !self.wait() {
                return Ok(None);
            }
            for queue in &mut *self.queues() {
                queue.disarm(&self.memory)?;
            }
        }
    }

    fn take(&self, queue: usize) -> Result<Option<DescriptorChain<&GuestMemory>>, BrokenQueue> {
        match self.queues().get_mut(queue) {
            Some(queue) => queue.next_chain(&self.memory),
            None => Ok(None),
        }
    }

    /// Waits for a notification; false when the threads are to end.
    fn wait(&self) -> bool {
        let mut fds: Vec<_> = std::iter::once(&self.stop)
            .chain(self.kicks.iter())
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        loop {
            match rustix::event::poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the file system device cannot wait for requests and stops");
                    return false;
                }
            }
        }
        for (kick, fd) in self.kicks.iter().zip(fds.iter().skip(1)) {
            if fd.revents().contains(PollFlags::IN) {
                // Only who has the turn reads, so this cannot block.
                let _ = rustix::io::read(kick, &mut [0; 8]);
            }
        }
        fds.first().is_some_and(|stop| stop.revents().is_empty())
    }

    fn serve(self: &Arc<Self>, server: &Server, request: Request<'_>) -> Result<(), BrokenQueue> {
        let Request { queue, chain } = request;
        let head = chain.head_index();
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        if let Err(error) = split(&self.memory, chain.clone(), &mut readable, &mut writable) {
            tracing::debug!(%error, "a request to the file system device is malformed");
            return self.complete(queue, head, 0);
        }
        match server.serve(&readable, &writable) {
            Answer::Written(len) => self.complete(queue, head, u32::try_from(len).unwrap_or(u32::MAX)),
            Answer::Nothing => self.complete(queue, head, 0),
            Answer::Later(pending) => {
                let buffers: Vec<_> = chain
                    .writable()
                    .map(|buffer| (buffer.addr(), buffer.len()))
                    .collect();
                *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                let shared = Arc::clone(self);
                pending.deliver(move |answer| shared.answer_late(queue, head, &buffers, &answer));
                Ok(())
            }
        }
    }

    /// Completes a request that waited.
    fn answer_late(&self, queue: usize, head: u16, buffers: &[(GuestAddress, u32)], answer: &[u8]) {
        let mut rest = answer;
        for (address, len) in buffers {
            let (now, later) = rest.split_at(rest.len().min(*len as usize));
            if self.memory.write_slice(now, *address).is_err() {
                break;
            }
            rest = later;
        }
        let written = u32::try_from(answer.len() - rest.len()).unwrap_or(0);
        if let Err(error) = self.complete(queue, head, written) {
            self.give_up(&error);
        }
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.fewer_wait.notify_all();
    }

    fn complete(&self, queue: usize, head: u16, written: u32) -> Result<(), BrokenQueue> {
        let signal = match self.queues().get_mut(queue) {
            Some(queue) => {
                queue.complete(&self.memory, head, written)?;
                queue.wants_signal(&self.memory)?.then_some(queue.index)
            }
            None => None,
        };
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

    /// Has every request that waits for a lock end. No thread is left that could add one.
    fn end_waiting(&self, server: &Server) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while *waiting > 0 {
            drop(waiting);
            for (unique, _) in server.waiting() {
                server.interrupt(unique);
            }
            waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if *waiting > 0 {
                waiting = self
                    .fewer_wait
                    .wait_timeout(waiting, NUDGE)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
    }
}
