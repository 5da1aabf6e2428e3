//! The device's thread: waits for the guest, the host and the transport, and lets the muxer do what is due.
//!
//! ```text
//!               Activate                      Suspend
//!   Inactive ─────────────► Active ─────────────────────► Suspended
//!      ▲  ▲                  │  ▲                            │  │
//!      │  └──── Reset ───────┤  └────────── Activate ────────┘  │
//!      │                     │ broken queue                     │
//!      │                     ▼                                  │
//!      └──── Reset ─────── Broken                Reset ─────────┘
//! ```
//!
//! The thread owns this state, and with it the queues and all connections. Without a guest (`Inactive`, `Broken`) host
//! programs are turned away; while suspended they wait.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use rustix::event::epoll::Event;

use super::muxer::Muxer;
use super::poll::{Readiness, Source};
use super::receive::Served;
use super::transmit::Transmitted;
use super::{EVENT_QUEUE, RECEIVE_QUEUE, TRANSMIT_QUEUE};
use crate::device::{Activation, DeviceError, GuestMemory, Interrupt};
use crate::queue::{BrokenQueue, DeviceQueue, Direction, gather};

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.2, section 5.10.6.7).
const EVENT_TRANSPORT_RESET: u32 = 0;

/// With this many buffers filled the guest is woken in the middle of a turn, so that both work at the same time.
const SIGNAL_EVERY: u16 = 16;

/// The device's name in the log.
const DEVICE: &str = "vsock";

/// What the transport asks of the worker. Each is answered when it has taken effect.
pub(super) enum Command {
    Activate(Activation, Sender<Result<(), DeviceError>>),
    Suspend(Sender<Vec<DeviceQueue>>),
    Reset(Sender<Vec<DeviceQueue>>),
    Stop,
}

enum State {
    Inactive,
    Active(Box<Active>),
    Suspended { since: Instant },
    Broken(Box<Active>),
}

/// What the device holds while a driver runs it.
struct Active {
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    receive: DeviceQueue,
    transmit: DeviceQueue,
    /// Some transports keep it to themselves.
    event: Option<DeviceQueue>,
    /// The driver may have sent something.
    transmit_ready: bool,
}

pub(super) struct Worker {
    muxer: Muxer,
    commands: Receiver<Command>,
    state: State,
    /// More is to be done than one turn allowed.
    busy: bool,
}

impl Worker {
    /// `wake` becomes readable when a command was sent.
    pub(super) fn new(muxer: Muxer, commands: Receiver<Command>, wake: &OwnedFd) -> io::Result<Self> {
        muxer.poll.add(wake, Source::Wake)?;
        muxer.poll.add(&muxer.listener, Source::Listener)?;
        Ok(Self {
            muxer,
            commands,
            state: State::Inactive,
            busy: false,
        })
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        let mut events: Vec<(Source, Readiness)> = Vec::new();
        let mut buffer: Vec<Event> = Vec::new();
        loop {
            if let Err(error) = self.muxer.poll.wait(&mut events, &mut buffer, self.timeout()) {
                tracing::error!(%error, "the vsock device cannot wait for events and stops");
                return;
            }
            let mut accept = false;
            let mut wake = false;
            for (source, readiness) in events.drain(..) {
                match (source, &mut self.state) {
                    (Source::Wake, _) => wake = true,
                    (Source::Listener, _) => accept = true,
                    (Source::Queue(TRANSMIT_QUEUE), State::Active(active)) => active.transmit_ready = true,
                    // Being awake is enough: a turn looks whether there are buffers.
                    (Source::Queue(_), _) => {}
                    (Source::Connection(id), _) => self.muxer.host_event(id, readiness),
                }
            }
            if wake && !self.obey() {
                self.muxer.clear();
                return;
            }
            accept |= self.run_timers();
            if accept {
                self.welcome();
            }
            self.turn();
        }
    }

    /// How long to wait for events.
    fn timeout(&self) -> Option<Duration> {
        match self.state {
            State::Active(_) if self.busy => Some(Duration::ZERO),
            State::Active(_) => self.muxer.next_timer(),
            _ => None,
        }
    }

    /// Does what is due, after a look at what the guest has sent: an answer that is there came in time, even if its
    /// notification is still under way. Returns whether to look for new host connections.
    fn run_timers(&mut self) -> bool {
        let State::Active(active) = &mut self.state else {
            return false;
        };
        let now = Instant::now();
        if !self.muxer.has_timer_due(now) {
            return false;
        }
        active.transmit_ready = true;
        self.turn();
        // The guest may just have broken its device, and there is nothing left to end.
        matches!(self.state, State::Active(_)) && self.muxer.run_timers(now)
    }

    /// Host programs want to connect.
    fn welcome(&mut self) {
        match self.state {
            State::Active(_) => self.muxer.accept(),
            // They are asked in when the machine goes on.
            State::Suspended { .. } => {}
            State::Inactive | State::Broken(_) => self.muxer.refuse(),
        }
    }

    /// Serves both directions once.
    fn turn(&mut self) {
        let State::Active(active) = &mut self.state else {
            self.busy = false;
            return;
        };
        match active.turn(&mut self.muxer) {
            Ok(busy) => self.busy = busy,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the guest broke its vsock device, which waits for a reset"
                );
                if let Err(error) = active.interrupt.signal_broken(error.queue) {
                    tracing::warn!(%error, "cannot tell the guest that its vsock device is broken");
                }
                active.ignore_kicks(&self.muxer);
                self.muxer.clear();
                self.muxer.refuse();
                self.state = match std::mem::replace(&mut self.state, State::Inactive) {
                    State::Active(active) => State::Broken(active),
                    other => other,
                };
            }
        }
    }

    /// Carries out what the transport asked for; false when it asked to stop.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            // Whoever asked and went away before the answer has no use for it.
            match command {
                Command::Activate(activation, answer) => {
                    let _ = answer.send(self.activate(activation));
                }
                Command::Suspend(answer) => {
                    let _ = answer.send(self.suspend());
                }
                Command::Reset(answer) => {
                    let _ = answer.send(self.reset());
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let fresh = match &self.state {
            State::Inactive => true,
            State::Suspended { since } => {
                self.muxer.postpone_timers(since.elapsed());
                false
            }
            State::Active(_) | State::Broken(_) => return Err(DeviceError::AlreadyActive),
        };
        let mut active = Active::new(activation)?;
        active.watch_kicks(&self.muxer)?;
        if fresh && virtio_queue::QueueT::next_avail(&active.receive.queue) != 0 {
            // The driver has been running with a device that knew connections which this one does not.
            active.announce_reset();
        }
        self.state = State::Active(Box::new(active));
        self.busy = true;
        // Those who came while the device was suspended are waiting.
        self.muxer.accept();
        Ok(())
    }

    /// Every chain taken in a turn is returned in it, so there is nothing to drain.
    fn suspend(&mut self) -> Vec<DeviceQueue> {
        match std::mem::replace(&mut self.state, State::Inactive) {
            State::Active(active) => {
                active.ignore_kicks(&self.muxer);
                self.state = State::Suspended {
                    since: Instant::now(),
                };
                active.into_queues()
            }
            // Nothing is left of a broken device that could go on.
            State::Broken(active) => active.into_queues(),
            other => {
                self.state = other;
                Vec::new()
            }
        }
    }

    fn reset(&mut self) -> Vec<DeviceQueue> {
        self.muxer.clear();
        self.muxer.refuse();
        match std::mem::replace(&mut self.state, State::Inactive) {
            State::Active(active) => {
                active.ignore_kicks(&self.muxer);
                active.into_queues()
            }
            State::Broken(active) => active.into_queues(),
            State::Inactive | State::Suspended { .. } => Vec::new(),
        }
    }
}

impl Active {
    fn new(activation: Activation) -> Result<Self, DeviceError> {
        let Activation {
            memory,
            queues,
            interrupt,
            ..
        } = activation;
        let (mut receive, mut transmit, mut event) = (None, None, None);
        for queue in queues {
            if !virtio_queue::QueueT::is_valid(&queue.queue, memory.as_ref()) {
                return Err(DeviceError::QueueInvalid { queue: queue.index });
            }
            match queue.index {
                RECEIVE_QUEUE => receive = Some(queue),
                TRANSMIT_QUEUE => transmit = Some(queue),
                EVENT_QUEUE => event = Some(queue),
                // The device has no others.
                _ => {}
            }
        }
        Ok(Self {
            memory,
            interrupt,
            receive: receive.ok_or(DeviceError::QueueMissing { queue: RECEIVE_QUEUE })?,
            transmit: transmit.ok_or(DeviceError::QueueMissing {
                queue: TRANSMIT_QUEUE,
            })?,
            event,
            // Notifications from before the activation are lost, so look at once.
            transmit_ready: true,
        })
    }

    fn watch_kicks(&mut self, muxer: &Muxer) -> Result<(), DeviceError> {
        let os = |error: rustix::io::Errno| DeviceError::Os {
            operation: "watch for the driver's notifications",
            source: error.into(),
        };
        muxer
            .poll
            .add(&self.receive.kick, Source::Queue(RECEIVE_QUEUE))
            .map_err(os)?;
        if let Err(error) = muxer.poll.add(&self.transmit.kick, Source::Queue(TRANSMIT_QUEUE)) {
            self.ignore_kicks(muxer);
            return Err(os(error));
        }
        Ok(())
    }

    fn ignore_kicks(&self, muxer: &Muxer) {
        // What is not registered need not be removed.
        let _ = muxer.poll.remove(&self.receive.kick);
        let _ = muxer.poll.remove(&self.transmit.kick);
    }

    fn into_queues(self) -> Vec<DeviceQueue> {
        [Some(self.receive), Some(self.transmit), self.event]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Serves both directions once; true when there is more to do that need not wait for anybody.
    fn turn(&mut self, muxer: &mut Muxer) -> Result<bool, BrokenQueue> {
        let memory = Arc::clone(&self.memory);
        if self.transmit_ready {
            self.transmit_ready = muxer.transmit(&mut self.transmit, &memory)? == Transmitted::Some;
        }
        let mut starved = false;
        if muxer.has_news() {
            starved = muxer.receive(&mut self.receive, &memory)? == Served::Starved;
            // The driver may have posted buffers before it saw that we want to hear of them.
            if starved && self.receive.arm(&memory)? {
                starved = false;
            }
        }
        let more = (self.transmit_ready && !muxer.replies_full()) || (muxer.has_news() && !starved);
        if !more || self.receive.unsignalled() >= SIGNAL_EVERY {
            self.signal(&memory)?;
        }
        Ok(more)
    }

    fn signal(&mut self, memory: &GuestMemory) -> Result<(), BrokenQueue> {
        for queue in [&mut self.receive, &mut self.transmit] {
            queue.signal(memory, &*self.interrupt, DEVICE)?;
        }
        Ok(())
    }

    /// Tells the driver that all its connections are gone. A driver without a buffer for it learns it from the RST
    /// that each of its packets gets.
    fn announce_reset(&mut self) {
        let Some(queue) = &mut self.event else { return };
        let memory = Arc::clone(&self.memory);
        let mut announce = || -> Result<(), BrokenQueue> {
            let Some(chain) = queue.next_chain(&memory)? else {
                return Ok(());
            };
            let head = chain.head_index();
            let mut slices = Vec::new();
            let event = EVENT_TRANSPORT_RESET.to_le_bytes();
            let written = match gather(&memory, chain, Direction::Writable, &mut slices) {
                Ok(capacity) if capacity >= event.len() => {
                    let mut rest = event.as_slice();
                    for slice in &slices {
                        let count = rest.len().min(slice.len());
                        slice.copy_from(&rest[..count]);
                        rest = &rest[count..];
                    }
                    4
                }
                _ => 0,
            };
            queue.complete(&memory, head, written)?;
            queue.signal(&memory, &*self.interrupt, DEVICE)
        };
        if let Err(error) = announce() {
            tracing::warn!(%error, "cannot announce the reset of the vsock device");
        }
    }
}
