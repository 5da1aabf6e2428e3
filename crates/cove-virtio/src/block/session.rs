//! One driver's time with a disk: the queue, and the thread that serves it.
//!
//! ```text
//!        ┌────────── kick ──────────┐
//!        ▼                          │
//!  ┌─────────┐  queue is empty  ┌───┴─────┐   stop, or the queue is broken
//!  │ serving │ ───────────────▶ │ waiting │ ───────────────────────────────▶ ends, and hands the queue back
//!  └─────────┘                  └─────────┘
//! ```
//!
//! The thread owns the queue; the device gets it back by joining the thread. It looks for `stop` between two requests,
//! so none is in flight when it ends.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use virtio_queue::QueueT;

use super::disk::{Disk, Refusal};
use super::request;
use crate::device::{Activation, DeviceError, GuestMemory, Interrupt};
use crate::queue::{BrokenQueue, DeviceQueue, split};

/// The session as the device holds it.
pub(super) struct Session {
    stop: Arc<Stop>,
    thread: JoinHandle<Vec<DeviceQueue>>,
}

/// How the thread is told to end: the flag for when it serves, the eventfd for when it waits.
struct Stop {
    flag: AtomicBool,
    event: OwnedFd,
}

/// What the thread owns.
struct Worker {
    memory: Arc<GuestMemory>,
    features: u64,
    queue: DeviceQueue,
    interrupt: Arc<dyn Interrupt>,
    disk: Arc<Disk>,
    stop: Arc<Stop>,
    /// A failure of the host's file has been reported, and is not again.
    complained: bool,
}

impl Session {
    pub(super) fn begin(activation: Activation, disk: &Arc<Disk>) -> Result<Self, DeviceError> {
        let os = |operation| move |source| DeviceError::Os { operation, source };
        let Activation {
            memory,
            features,
            queues,
            interrupt,
        } = activation;
        let queue = queues
            .into_iter()
            .find(|queue| queue.index == 0)
            .ok_or(DeviceError::QueueMissing { queue: 0 })?;
        if !queue.queue.is_valid(memory.as_ref()) {
            return Err(DeviceError::QueueInvalid { queue: 0 });
        }
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| os("create an eventfd")(error.into()))?;
        let stop = Arc::new(Stop {
            flag: AtomicBool::new(false),
            event,
        });
        let mut worker = Worker {
            memory,
            features,
            queue,
            interrupt,
            disk: Arc::clone(disk),
            stop: Arc::clone(&stop),
            complained: false,
        };
        let thread = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || {
                if let Err(error) = worker.work() {
                    worker.give_up(&error);
                }
                vec![worker.queue]
            })
            .map_err(os("start a thread"))?;
        Ok(Self { stop, thread })
    }

    /// Ends it with every chain that was taken returned, and hands the queue back.
    pub(super) fn end(self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.stop.flag.store(true, Ordering::Release);
        // An eventfd only refuses when its counter is about to overflow, and then it is readable.
        let _ = rustix::io::write(&self.stop.event, &1u64.to_ne_bytes());
        self.thread.join().map_err(|_| {
            tracing::error!("the thread of a disk panicked");
            DeviceError::WorkerGone
        })
    }
}

impl Worker {
    /// Serves requests until told to stop.
    fn work(&mut self) -> Result<(), BrokenQueue> {
        loop {
            self.queue.disarm(&self.memory)?;
            loop {
                if self.stop.flag.load(Ordering::Acquire) {
                    return Ok(());
                }
                if !self.serve_next()? {
                    break;
                }
            }
            if self.queue.arm(&self.memory)? {
                continue;
            }
            if !self.wait() {
                return Ok(());
            }
        }
    }

    /// Serves one request; false when there is none.
    fn serve_next(&mut self) -> Result<bool, BrokenQueue> {
        let memory = Arc::clone(&self.memory);
        let Some(chain) = self.queue.next_chain(&memory)? else {
            return Ok(false);
        };
        let head = chain.head_index();
        let (mut readable, mut writable) = (Vec::new(), Vec::new());
        let written = match split(&memory, chain, &mut readable, &mut writable) {
            Ok(()) => {
                let (written, done) = request::serve(&self.disk, self.features, readable, writable);
                if let Err(refusal) = done {
                    self.log(&refusal);
                }
                written
            }
            Err(error) => {
                tracing::debug!(%error, "a request to a disk is malformed");
                0
            }
        };
        self.queue.complete(&memory, head, written)?;
        if self.queue.wants_signal(&memory)?
            && let Err(error) = self.interrupt.signal_queue(self.queue.index)
        {
            tracing::warn!(%error, "cannot signal the driver of a disk");
        }
        Ok(true)
    }

    /// The guest can bring about most refusals as often as it likes; the host's own are said once.
    fn log(&mut self, refusal: &Refusal) {
        let error: &dyn std::error::Error = refusal;
        let disk = String::from_utf8_lossy(self.disk.id());
        let disk = disk.trim_end_matches('\0');
        if matches!(refusal, Refusal::Io { .. }) && !std::mem::replace(&mut self.complained, true) {
            tracing::error!(
                disk,
                error,
                "the host failed a disk; further failures are not reported"
            );
        } else {
            tracing::debug!(disk, error, "refused a request");
        }
    }

    /// Waits for a notification; false when the thread is to end.
    fn wait(&self) -> bool {
        let mut fds = [
            PollFd::new(&self.stop.event, PollFlags::IN),
            PollFd::new(&self.queue.kick, PollFlags::IN),
        ];
        loop {
            match rustix::event::poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "a disk cannot wait for requests and stops");
                    return false;
                }
            }
        }
        let [stop, kick] = fds.map(|fd| !fd.revents().is_empty());
        if kick {
            // Only this thread reads it, so this cannot block.
            let _ = rustix::io::read(&self.queue.kick, &mut [0; 8]);
        }
        !stop
    }

    /// The driver broke the queue: nothing is done before a reset.
    fn give_up(&self, error: &BrokenQueue) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "the guest broke its disk, which waits for a reset"
        );
        if let Err(error) = self.interrupt.signal_broken(error.queue) {
            tracing::warn!(%error, "cannot tell the guest that its disk is broken");
        }
    }
}
