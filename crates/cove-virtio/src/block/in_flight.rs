//! A queue of the disk whose requests are in flight together.
//!
//! ```text
//!        ┌── kick, an operation ends, or a second later ──┐
//!        ▼                                                │
//!  ┌─────────┐ nothing more can be taken, nothing has ┌───┴─────┐   stop, or the queue is broken
//!  │ serving │ ─────────────── ended ───────────────▶ │ waiting │ ─────────────────────────────▶ what is in flight
//!  └─────────┘ or a request waits for space           └─────────┘                                ends, then the thread
//! ```
//!
//! Requests end in any order, as virtio lets them: a driver that wants one after the other waits for the first. A flush
//! begins when it is taken, and covers what the driver had been told of by then.
//!
//! A request for which the host has no space goes back into its queue, and can do so only with all that were taken
//! after it. So what was taken after a write stays with the device until the write cannot come to wait for space any
//! more, and is done again where it does: that changes nothing, since the driver has been told of none of it. But for a
//! flush that failed: the next would succeed, and what was lost would seem to be safe. So nothing before such a flush
//! waits for space. It fails too, and the driver is told of both.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags};

use super::ring::{Flights, Ring, State};
use super::serving::Serving;
use crate::device::{DeviceError, GuestMemory, Interrupt};
use crate::one_thread::{self, AGAIN, Service, Session};
use crate::queue::{BrokenQueue, DeviceQueue};
use crate::stop::Stop;

/// What the thread has.
struct Worker<'a> {
    memory: &'a GuestMemory,
    queue: &'a mut DeviceQueue,
    interrupt: &'a dyn Interrupt,
    serving: Serving,
    stop: &'a Stop,
    flights: Flights<'a, 'a>,
}

/// Why a session ends before it is told to.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// It is the guest's.
    #[error(transparent)]
    Queue(#[from] BrokenQueue),
    /// It is the kernel's.
    #[error("cannot use the ring")]
    Ring(#[from] io::Error),
}

/// Begins a session, which has the ring for itself.
pub(super) fn begin(
    memory: Arc<GuestMemory>,
    mut queue: DeviceQueue,
    interrupt: Arc<dyn Interrupt>,
    serving: Serving,
    ring: Arc<Mutex<Ring>>,
) -> Result<Session, DeviceError> {
    let mut session = Session::default();
    session.run(Serving::NAME, Serving::KIND, move |stop| {
        // A session that panicked has waited for what it had in flight.
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worker = Worker {
            memory: &memory,
            queue: &mut queue,
            interrupt: &*interrupt,
            serving,
            stop: &stop,
            flights: Flights::new(&mut ring),
        };
        let worked = worker.work();
        // Nobody is told of an end while anything is in flight.
        drop(worker);
        match worked {
            Ok(()) => {}
            Err(Trouble::Queue(error)) => one_thread::give_up(Serving::NAME, &*interrupt, &error),
            Err(Trouble::Ring(error)) => {
                tracing::error!(%error, "a disk cannot use its ring, and waits for a reset");
                if let Err(error) = interrupt.signal_broken(queue.index) {
                    tracing::warn!(%error, "cannot tell the guest that its disk is broken");
                }
            }
        }
        vec![queue]
    })?;
    Ok(session)
}

impl Worker<'_> {
    /// Serves requests until told to stop, and ends with none taken that is not given back.
    fn work(&mut self) -> Result<(), Trouble> {
        loop {
            self.queue.disarm(self.memory)?;
            let mut more = true;
            while more && !self.stop.is_requested() {
                more = self.take()?;
                self.flights.submit()?;
                more |= self.reap()?;
            }
            if self.stop.is_requested() {
                return self.finish();
            }
            if self.put_back() {
                self.rest();
                continue;
            }
            let more = self.queue.arm(self.memory)?;
            if !(more && self.flights.have_room()) {
                self.wait()?;
            }
        }
    }

    /// Takes requests for as long as there are any, and room for them. True if there was one.
    fn take(&mut self) -> Result<bool, Trouble> {
        let mut any = false;
        while self.flights.have_room()
            && let Some(chain) = self.queue.next_chain(self.memory)?
        {
            let head = chain.head_index();
            let state = match self.serving.begin(self.memory, chain) {
                // Nothing has to be done for it, as when the disk's name was asked for.
                Some(request) if request.call().is_none() => State::Over(request.confirm()),
                Some(request) => State::UnderWay(request),
                None => State::Over(0),
            };
            self.flights.add(head, state)?;
            any = true;
        }
        Ok(any)
    }

    /// Takes what has ended, and gives back what can be. True if anything had ended.
    fn reap(&mut self) -> Result<bool, Trouble> {
        let serving = &mut self.serving;
        let any = self.flights.reap(|request, done| serving.end(request, done))?;
        self.give_back()?;
        Ok(any)
    }

    /// Gives the driver back what is over, but for what was taken after a request that may yet go back into the queue.
    fn give_back(&mut self) -> Result<(), BrokenQueue> {
        while let Some((head, written)) = self.flights.next_over() {
            self.queue.complete(self.memory, head, written)?;
            self.serving.starved = 0;
        }
        self.queue.signal(self.memory, self.interrupt, Serving::NAME)
    }

    /// Puts everything back into the queue once only what waits for space is left, and what was taken after it. False
    /// when nothing waits, or something is still under way.
    fn put_back(&mut self) -> bool {
        let Some((refusal, count)) = self.flights.go_back() else {
            return false;
        };
        self.serving.starve(&refusal);
        // They are never more than the ring holds.
        self.queue.put_back(u16::try_from(count).unwrap_or(u16::MAX));
        true
    }

    /// Ends everything that is in flight.
    fn finish(&mut self) -> Result<(), Trouble> {
        while self.flights.are_under_way() {
            self.flights.wait()?;
            self.reap()?;
        }
        self.give_back()?;
        self.put_back();
        Ok(())
    }

    /// Waits before requests are tried again, or until the thread is to end.
    fn rest(&self) {
        let mut stop = [PollFd::new(self.stop, PollFlags::IN)];
        // Interrupted or not, whoever calls this looks again.
        let _ = rustix::event::poll(&mut stop, Some(&AGAIN));
    }

    /// Waits until there is something to do, or the thread is to end.
    fn wait(&self) -> Result<(), Trouble> {
        let ended = self.flights.ended();
        let mut fds = vec![
            PollFd::new(self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
        ];
        // Without room a notification would only wake it in vain.
        if self.flights.have_room() {
            fds.push(PollFd::new(&self.queue.kick, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Trouble::Ring(error.into())),
        }
        if fds.get(2).is_some_and(|kick| !kick.revents().is_empty()) {
            // Only this thread reads it, so this cannot block.
            let _ = rustix::io::read(&self.queue.kick, &mut [0; 8]);
        }
        Ok(())
    }
}
