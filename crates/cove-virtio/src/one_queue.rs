//! One driver's time with a device that has one queue: the thread that serves it, a request at a time.
//!
//! ```text
//!        ┌────────── kick ──────────┐
//!        ▼                          │
//!  ┌─────────┐  queue is empty  ┌───┴─────┐   stop, or the queue is broken
//!  │ serving │ ───────────────▶ │ waiting │ ───────────────────────────────▶ ends, and hands the queue back
//!  └─────────┘                  └─────────┘
//! ```
//!
//! What a request is, the device's [`Service`] knows. The thread owns the queue; the device gets it back by joining the
//! thread. It looks for `stop` between two requests,
//! so none is in flight when it ends.

use std::sync::Arc;
use std::thread::JoinHandle;

use cove_confine::seccomp::{self, Thread};
use rustix::event::{PollFd, PollFlags};
use virtio_queue::QueueT;

use crate::device::{Activation, DeviceError, GuestMemory, Interrupt};
use crate::queue::{BrokenQueue, Chain, DeviceQueue};
use crate::stop::Stop;

/// What a device does with a request.
pub(crate) trait Service: Send + 'static {
    /// What the device is called in logs, and its thread.
    const NAME: &'static str;
    /// What its thread does, which decides what it may do.
    const KIND: Thread;

    /// Serves one request, and returns how many bytes it wrote to the chain's buffers. Whatever is wrong with the request
    /// is told to the driver in the device's own way, or not at all.
    fn serve(&mut self, memory: &GuestMemory, chain: Chain<'_>) -> u32;
}

/// The session as the device holds it.
pub(crate) struct Session {
    stop: Arc<Stop>,
    thread: JoinHandle<Vec<DeviceQueue>>,
}

/// What the thread owns.
struct Worker<S> {
    memory: Arc<GuestMemory>,
    queue: DeviceQueue,
    interrupt: Arc<dyn Interrupt>,
    service: S,
    stop: Arc<Stop>,
}

impl Session {
    /// Begins one, in which `service` answers.
    pub(crate) fn begin<S: Service>(activation: Activation, service: S) -> Result<Self, DeviceError> {
        let os = |operation| move |source| DeviceError::Os { operation, source };
        let Activation {
            memory,
            features: _,
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
        let stop = Arc::new(Stop::new()?);
        let mut worker = Worker {
            memory,
            queue,
            interrupt,
            service,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name(S::NAME.to_owned())
            .spawn(move || {
                seccomp::enter(S::KIND);
                if let Err(error) = worker.work() {
                    worker.give_up(&error);
                }
                vec![worker.queue]
            })
            .map_err(os("start a thread"))?;
        Ok(Self { stop, thread })
    }

    /// Ends it with every chain that was taken returned, and hands the queue back.
    pub(crate) fn end(self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.stop.request();
        self.thread.join().map_err(|_| {
            tracing::error!("the thread of a device panicked");
            DeviceError::WorkerGone
        })
    }
}

impl<S: Service> Worker<S> {
    /// Serves requests until told to stop.
    fn work(&mut self) -> Result<(), BrokenQueue> {
        loop {
            self.queue.disarm(&self.memory)?;
            loop {
                if self.stop.is_requested() {
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
        let written = self.service.serve(&memory, chain);
        self.queue.complete(&memory, head, written)?;
        if self.queue.wants_signal(&memory)?
            && let Err(error) = self.interrupt.signal_queue(self.queue.index)
        {
            tracing::warn!(device = S::NAME, %error, "cannot signal the driver");
        }
        Ok(true)
    }

    /// Waits for a notification; false when the thread is to end.
    fn wait(&self) -> bool {
        let mut fds = [
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::new(&self.queue.kick, PollFlags::IN),
        ];
        loop {
            match rustix::event::poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(device = S::NAME, %error, "cannot wait for requests, and stops");
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
            device = S::NAME,
            error = error as &dyn std::error::Error,
            "the guest broke the device, which waits for a reset"
        );
        if let Err(error) = self.interrupt.signal_broken(error.queue) {
            tracing::warn!(device = S::NAME, %error, "cannot tell the guest that it is broken");
        }
    }
}
