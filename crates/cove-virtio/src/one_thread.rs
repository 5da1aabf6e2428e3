//! One driver's time with a device whose queues one thread serves, a request at a time.
//!
//! ```text
//!        ┌── kick, or a second later ──┐
//!        ▼                             │
//!  ┌─────────┐ queues are empty,   ┌───┴─────┐   stop, or a queue is broken
//!  │ serving │ ──────────────────▶ │ waiting │ ──────────────────────────────▶ ends, and hands the queues back
//!  └─────────┘ or a request waits  └─────────┘
//! ```
//!
//! What a request is, the device's [`Service`] knows. The thread owns the queues; the device gets them back by joining
//! the thread. It takes one request of each queue in turn, and looks for `stop` between two requests, so none is in
//! flight when it ends. A request that cannot be done yet stays in its queue, and the whole device rests with it.

use std::sync::Arc;
use std::thread::JoinHandle;

use cove_confine::seccomp::{self, Thread};
use rustix::event::{PollFd, PollFlags, Timespec};
use virtio_queue::QueueT;

use crate::device::{Activation, DeviceError, GuestMemory, Interrupt, QueueSpec};
use crate::queue::{BrokenQueue, Chain, DeviceQueue};
use crate::stop::Stop;

/// After how long a request that could not be done is tried again.
pub(crate) const AGAIN: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It is over, with so many bytes written to its buffers.
    Done(u32),
    /// It cannot be done yet, and nobody has been told anything of it.
    Later,
}

/// What a device does with a request.
pub(crate) trait Service: Send + 'static {
    /// What the device is called in logs, and its thread.
    const NAME: &'static str;
    /// What its thread does, which decides what it may do.
    const KIND: Thread;

    /// Serves one request of the queue of that index. Whatever is wrong with it is told to the driver in the device's
    /// own way, or not at all.
    fn serve(&mut self, queue: u16, memory: &GuestMemory, chain: Chain<'_>) -> Served;
}

/// A device's session, while a driver has the device. Dropping it ends the session.
#[derive(Default)]
pub(crate) struct Session {
    running: Option<Running>,
}

struct Running {
    stop: Arc<Stop>,
    thread: JoinHandle<Vec<DeviceQueue>>,
}

/// What the thread owns.
struct Worker<S> {
    memory: Arc<GuestMemory>,
    queues: Vec<DeviceQueue>,
    interrupt: Arc<dyn Interrupt>,
    service: S,
    stop: Arc<Stop>,
}

impl Session {
    /// Begins, with `service` answering on the queues that the device has by `specs`.
    pub(crate) fn begin<S: Service>(
        &mut self,
        activation: Activation,
        specs: &[QueueSpec],
        service: S,
    ) -> Result<(), DeviceError> {
        if self.running.is_some() {
            return Err(DeviceError::AlreadyActive);
        }
        let Activation {
            memory,
            features: _,
            queues,
            interrupt,
        } = activation;
        for (spec, index) in specs.iter().zip(0..) {
            if spec.required && !queues.iter().any(|queue| queue.index == index) {
                return Err(DeviceError::QueueMissing { queue: index });
            }
        }
        if let Some(invalid) = queues.iter().find(|queue| !queue.queue.is_valid(memory.as_ref())) {
            return Err(DeviceError::QueueInvalid { queue: invalid.index });
        }
        self.run(S::NAME, S::KIND, move |stop| {
            let mut worker = Worker {
                memory,
                queues,
                interrupt,
                service,
                stop,
            };
            if let Err(error) = worker.work() {
                give_up(S::NAME, &*worker.interrupt, &error);
            }
            worker.queues
        })
    }

    /// Begins with a thread of that name and kind that does `work`. That has to end once it is told to stop, and hands
    /// the queues back. No session may be under way.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        kind: Thread,
        work: impl FnOnce(Arc<Stop>) -> Vec<DeviceQueue> + Send + 'static,
    ) -> Result<(), DeviceError> {
        let stop = Arc::new(Stop::new()?);
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                seccomp::enter(kind);
                work(told)
            })
            .map_err(|source| DeviceError::Os {
                operation: "start a thread",
                source,
            })?;
        self.running = Some(Running { stop, thread });
        Ok(())
    }

    /// Ends with every chain that was taken returned, and hands the queues back: none if no session was under way.
    pub(crate) fn end(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        let Some(Running { stop, thread }) = self.running.take() else {
            return Ok(Vec::new());
        };
        stop.request();
        thread.join().map_err(|_| {
            tracing::error!("the thread of a device panicked");
            DeviceError::WorkerGone
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It logs what goes wrong.
        let _ = self.end();
    }
}

impl<S: Service> Worker<S> {
    /// Serves requests until told to stop.
    fn work(&mut self) -> Result<(), BrokenQueue> {
        loop {
            for queue in &mut self.queues {
                queue.disarm(&self.memory)?;
            }
            let mut more = true;
            while more {
                more = false;
                for at in 0..self.queues.len() {
                    if self.stop.is_requested() {
                        return Ok(());
                    }
                    match self.serve_next(at)? {
                        None => {}
                        Some(Served::Done(_)) => more = true,
                        Some(Served::Later) => {
                            more = true;
                            self.rest();
                        }
                    }
                }
            }
            for queue in &mut self.queues {
                more |= queue.arm(&self.memory)?;
            }
            if !more && !self.wait() {
                return Ok(());
            }
        }
    }

    /// Serves one request of the queue at that place, if there is one.
    fn serve_next(&mut self, at: usize) -> Result<Option<Served>, BrokenQueue> {
        let queue = &mut self.queues[at];
        let Some(chain) = queue.next_chain(&self.memory)? else {
            return Ok(None);
        };
        let head = chain.head_index();
        let served = self.service.serve(queue.index, &self.memory, chain);
        let Served::Done(written) = served else {
            queue.put_back(1);
            return Ok(Some(served));
        };
        queue.complete(&self.memory, head, written)?;
        queue.signal(&self.memory, &*self.interrupt, S::NAME)?;
        Ok(Some(served))
    }

    /// Waits before a request is tried again, or until the thread is to end.
    fn rest(&self) {
        let mut stop = [PollFd::new(&*self.stop, PollFlags::IN)];
        // Interrupted or not, whoever calls this looks again.
        let _ = rustix::event::poll(&mut stop, Some(&AGAIN));
    }

    /// Waits for a notification; false when the thread is to end.
    fn wait(&self) -> bool {
        let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        let kicks = self.queues.iter().map(|queue| &queue.kick);
        fds.extend(kicks.map(|kick| PollFd::new(kick, PollFlags::IN)));
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
        for (queue, fd) in self.queues.iter().zip(&fds[1..]) {
            if !fd.revents().is_empty() {
                // Only this thread reads it, so this cannot block.
                let _ = rustix::io::read(&queue.kick, &mut [0; 8]);
            }
        }
        fds[0].revents().is_empty()
    }
}

/// The driver broke a queue of the device of that name: nothing is done before a reset.
pub(crate) fn give_up(device: &str, interrupt: &dyn Interrupt, error: &BrokenQueue) {
    tracing::warn!(
        device,
        error = error as &dyn std::error::Error,
        "the guest broke the device, which waits for a reset"
    );
    if let Err(error) = interrupt.signal_broken(error.queue) {
        tracing::warn!(device, %error, "cannot tell the guest that it is broken");
    }
}
