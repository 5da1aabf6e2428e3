//! One driver's time with the device: the thread that carries frames between the queues and the peer.
//!
//! ```text
//!         ┌──────── a kick, the stream, or time to connect again ────────┐
//!         ▼                                                              │
//!  ┌──────────────┐      neither direction can go on              ┌──────┴──┐   stop, or a queue is broken
//!  │ transmitting │ ────────────────────────────────────────────▶ │ waiting │ ─────────────────────────────▶ ends
//!  │ and receiving│                                               └─────────┘
//!  └──────────────┘
//! ```
//!
//! Whoever cannot keep up holds the other end up, and no frame is lost: while the driver has no buffers the stream is
//! not read, and while the stream takes nothing the driver's frames stay in its queue. Without a stream they are
//! dropped, as by a cable that is out. The thread owns the queues, and holds the peer's lock; the device gets both back
//! by joining it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use cove_confine::seccomp::{self, Thread};
use rustix::event::{PollFd, PollFlags, Timespec};
use virtio_queue::QueueT;

use super::buffers::{Delivery, collect, deliver};
use super::peer::Peer;
use super::{FEATURE_MERGEABLE, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use crate::device::{Activation, DeviceError, GuestMemory, Interrupt};
use crate::queue::{BrokenQueue, DeviceQueue};
use crate::stop::Stop;

/// Frames that one direction moves before the other has its turn and the driver is signalled.
const TURN: usize = 64;

/// The session as the device holds it.
pub(super) struct Session {
    stop: Arc<Stop>,
    thread: JoinHandle<Vec<DeviceQueue>>,
}

/// What the thread owns.
struct Worker {
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    stop: Arc<Stop>,
    receive: DeviceQueue,
    transmit: DeviceQueue,
    /// The driver can take a frame in several chains.
    mergeable: bool,
    /// The longest frame that is carried, in bytes.
    longest: usize,
    /// The driver may have frames to send.
    transmit_ready: bool,
    /// The driver has too few buffers for the frame that is due, and notifies when it has more.
    starved: bool,
}

impl Session {
    /// Begins one, with frames of at most `longest` bytes.
    pub(super) fn begin(
        activation: Activation,
        peer: Arc<Mutex<Peer>>,
        longest: usize,
    ) -> Result<Self, DeviceError> {
        let Activation {
            memory,
            features,
            queues,
            interrupt,
        } = activation;
        let (mut receive, mut transmit) = (None, None);
        for queue in queues {
            if !queue.queue.is_valid(memory.as_ref()) {
                return Err(DeviceError::QueueInvalid { queue: queue.index });
            }
            match queue.index {
                RECEIVE_QUEUE => receive = Some(queue),
                _ => transmit = Some(queue),
            }
        }
        let missing = |queue| DeviceError::QueueMissing { queue };
        let stop = Arc::new(Stop::new()?);
        let mut worker = Worker {
            memory,
            interrupt,
            stop: Arc::clone(&stop),
            receive: receive.ok_or_else(|| missing(RECEIVE_QUEUE))?,
            transmit: transmit.ok_or_else(|| missing(TRANSMIT_QUEUE))?,
            mergeable: features & FEATURE_MERGEABLE != 0,
            longest,
            // Notifications from before the activation are lost, so it looks at once.
            transmit_ready: true,
            starved: false,
        };
        let thread = std::thread::Builder::new()
            .name("net".to_owned())
            .spawn(move || {
                seccomp::enter(Thread::Connections);
                // Only a thread that panicked can have left it locked, and its half frames with it.
                let mut peer = peer.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = worker.work(&mut peer) {
                    peer.hang_up();
                    worker.give_up(&error);
                }
                vec![worker.receive, worker.transmit]
            })
            .map_err(|source| DeviceError::Os {
                operation: "start a thread",
                source,
            })?;
        Ok(Self { stop, thread })
    }

    /// Ends it with every chain that was taken returned, and hands the queues back.
    pub(super) fn end(self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.stop.request();
        self.thread.join().map_err(|_| {
            tracing::error!("the thread of the network device panicked");
            DeviceError::WorkerGone
        })
    }
}

impl Worker {
    /// Carries frames until told to stop.
    fn work(&mut self, peer: &mut Peer) -> Result<(), BrokenQueue> {
        let memory = Arc::clone(&self.memory);
        self.receive.disarm(&memory)?;
        self.transmit.disarm(&memory)?;
        while !self.stop.is_requested() {
            peer.connect();
            self.transmit(peer, &memory)?;
            let more_to_receive = self.receive(peer, &memory)?;
            self.signal(peer, &memory)?;
            let more_to_transmit = self.transmit_ready && !peer.outgoing.is_full();
            if !more_to_receive && !more_to_transmit && !self.wait(peer, &memory)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes frames from the guest as far as the stream takes them.
    fn transmit(&mut self, peer: &mut Peer, memory: &GuestMemory) -> Result<(), BrokenQueue> {
        let mut left = TURN;
        while self.transmit_ready && left > 0 {
            if peer.outgoing.is_full() {
                peer.flush();
                if peer.outgoing.is_full() {
                    break;
                }
            }
            let Some(chain) = self.transmit.next_chain(memory)? else {
                self.transmit_ready = self.transmit.arm(memory)?;
                continue;
            };
            left -= 1;
            let head = chain.head_index();
            if peer.stream().is_some() {
                collect(memory, chain, self.longest, &mut peer.outgoing);
            }
            self.transmit.complete(memory, head, 0)?;
        }
        peer.flush();
        Ok(())
    }

    /// Gives the guest what the stream has; true when there may be more than one turn allows.
    fn receive(&mut self, peer: &mut Peer, memory: &GuestMemory) -> Result<bool, BrokenQueue> {
        if self.starved {
            return Ok(false);
        }
        for _ in 0..TURN {
            match peer.incoming.front() {
                Ok(Some(frame)) => match deliver(&mut self.receive, memory, self.mergeable, frame)? {
                    Delivery::Done => peer.incoming.pop(),
                    Delivery::Starved => {
                        self.starved = true;
                        return Ok(false);
                    }
                },
                Ok(None) => {
                    if !peer.fill() {
                        return Ok(false);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the network's stream makes no sense, and is begun anew");
                    peer.hang_up();
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Tells the driver of what was done.
    fn signal(&mut self, peer: &mut Peer, memory: &GuestMemory) -> Result<(), BrokenQueue> {
        for queue in [&mut self.receive, &mut self.transmit] {
            queue.signal(memory, &*self.interrupt, "network")?;
        }
        if peer.take_change()
            && let Err(error) = self.interrupt.signal_config()
        {
            // It finds out when it looks.
            tracing::debug!(%error, "cannot tell the driver of its link");
        }
        Ok(())
    }

    /// Waits until there may be something to do; false when the thread is to end.
    fn wait(&mut self, peer: &mut Peer, memory: &GuestMemory) -> Result<bool, BrokenQueue> {
        let mut interest = PollFlags::empty();
        // A hang-up is reported whatever is asked for.
        interest.set(PollFlags::IN, !self.starved);
        interest.set(PollFlags::OUT, !peer.outgoing.is_empty());
        let mut fds = vec![
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::new(&self.receive.kick, PollFlags::IN),
            PollFd::new(&self.transmit.kick, PollFlags::IN),
        ];
        fds.extend(peer.stream().map(|stream| PollFd::new(stream, interest)));
        // A pause is far below what a timespec can hold.
        let timeout = peer.pause().and_then(|pause| Timespec::try_from(pause).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the network device cannot wait for frames, and stops");
                return Ok(false);
            }
        }
        let happened: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let happened = |place: usize| happened.get(place).copied().unwrap_or(PollFlags::empty());
        if happened(0).contains(PollFlags::IN) {
            return Ok(false);
        }
        if silence(&self.receive, happened(1)) {
            self.starved = false;
            self.receive.disarm(memory)?;
        }
        if silence(&self.transmit, happened(2)) {
            self.transmit_ready = true;
            self.transmit.disarm(memory)?;
        }
        if self.starved && happened(3).intersects(PollFlags::HUP | PollFlags::ERR) {
            // What it sent last can wait no longer for a driver without buffers.
            peer.hang_up();
        }
        Ok(true)
    }

    /// The driver broke a queue: nothing is done before a reset.
    fn give_up(&self, error: &BrokenQueue) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "the guest broke its network device, which waits for a reset"
        );
        if let Err(error) = self.interrupt.signal_broken(error.queue) {
            tracing::warn!(%error, "cannot tell the guest that its network device is broken");
        }
    }
}

/// Takes the driver's notification of a queue, if there is one.
fn silence(queue: &DeviceQueue, happened: PollFlags) -> bool {
    let rung = happened.contains(PollFlags::IN);
    if rung {
        // Only this thread reads it, so this cannot block.
        let _ = rustix::io::read(&queue.kick, &mut [0; 8]);
    }
    rung
}
