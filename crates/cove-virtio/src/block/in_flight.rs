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
//! begins when it is taken, and covers what the driver had been told of by then. It is confirmed once the outcome is
//! known of those that it overlaps, in whichever queue ([`Flushes`](super::flushes::Flushes)).
//!
//! A request for which the host has no space goes back into its queue, and can do so only with all that were taken
//! after it. So what was taken after a write stays with the device until the write cannot come to wait for space any
//! more, and is done again where it does: that changes nothing, since the driver has been told of none of it. But for a
//! flush that failed: the driver is to hear of that at once, and not when there is space. So nothing before such a
//! flush waits for space. It fails too, and the driver is told of both.
//!
//! The kernel does what would have to wait by workers of its own, which belong to the thread that entered the ring. One
//! of them stays for as long as that thread does, and wakes every five seconds. So the ring is entered by a thread that
//! ends where it has nothing to do for a while, usually [`REST`], and the session's own waits for the notification upon
//! which there is another:
//!
//! ```text
//!  session's thread:  waits for a kick ──▶ waits for the other's end ──┐    stop: ends
//!           ▲                    │               nothing for a while   │
//!           └────────────────────┼─────────────────────────────────────┘
//!  ring's thread:                └── serving ⇄ waiting ──▶ ends
//! ```

use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::ring::{Flights, Ring, State};
use super::serving::Serving;
use crate::device::{DeviceError, GuestMemory, Interrupt};
use crate::one_thread::{self, AGAIN, Service, Session};
use crate::queue::{BrokenQueue, DeviceQueue};
use crate::stop::Stop;

/// How long the thread that enters the ring stays without anything to do: less than the kernel's workers sleep at a
/// time, and far longer than it takes to start another.
pub(super) const REST: Duration = Duration::from_secs(2);

/// What the thread that enters the ring is called.
const RING: &str = "disk-ring";

/// What the thread has.
struct Worker<'a> {
    memory: &'a GuestMemory,
    queue: &'a mut DeviceQueue,
    interrupt: &'a dyn Interrupt,
    serving: &'a mut Serving,
    stop: &'a Stop,
    flights: Flights<'a, 'a>,
    /// How long it stays without anything to do.
    rest: Duration,
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

/// Why a thread has nothing more to do with the ring, and nothing in flight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was told to stop.
    Told,
    /// There has been nothing to do for a while.
    Idle,
}

/// Begins a session, which has the ring for itself, and leaves it after `rest` without anything to do.
pub(super) fn begin(
    memory: Arc<GuestMemory>,
    mut queue: DeviceQueue,
    interrupt: Arc<dyn Interrupt>,
    serving: Serving,
    ring: Arc<Mutex<Ring>>,
    rest: Duration,
) -> Result<Session, DeviceError> {
    let mut session = Session::default();
    session.run(Serving::NAME, Serving::KIND, move |stop| {
        // A session that panicked has waited for what it had in flight.
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut serving = serving;
        let worked = loop {
            let worked = serve(
                &memory,
                &mut queue,
                &*interrupt,
                &mut serving,
                &stop,
                &mut ring,
                rest,
            );
            let goes_on = worked.and_then(|ended| match ended {
                Ended::Told => Ok(false),
                Ended::Idle => await_kick(&queue, &stop).map_err(Trouble::from),
            });
            match goes_on {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(trouble) => break Err(trouble),
            }
        };
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

/// Serves requests on a thread that is there for nothing else, until told to stop, or until there is nothing to do.
fn serve(
    memory: &GuestMemory,
    queue: &mut DeviceQueue,
    interrupt: &dyn Interrupt,
    serving: &mut Serving,
    stop: &Stop,
    ring: &mut Ring,
    rest: Duration,
) -> Result<Ended, Trouble> {
    // Nobody is told of an end while anything is in flight: the worker is dropped with its flights before.
    let mut work = || {
        let flights = Flights::new(&mut *ring, Arc::clone(&serving.disk));
        let mut worker = Worker {
            memory,
            queue: &mut *queue,
            interrupt,
            serving: &mut *serving,
            stop,
            flights,
            rest,
        };
        worker.work()
    };
    let worked = thread::scope(|scope| {
        // It inherits what this one may do.
        let thread = thread::Builder::new()
            .name(RING.to_owned())
            .spawn_scoped(scope, &mut work)
            .inspect_err(|error| tracing::debug!(%error, "no thread can be started for a disk's ring"))
            .ok()?;
        Some(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    // Where there is no other thread to be had this one serves as well, and keeps a worker of the kernel's.
    worked.unwrap_or_else(work)
}

/// Waits until the driver notifies; false when the thread is to end.
fn await_kick(queue: &DeviceQueue, stop: &Stop) -> io::Result<bool> {
    let mut fds = [
        PollFd::new(stop, PollFlags::IN),
        PollFd::new(&queue.kick, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    let [stop, kick] = fds.map(|fd| !fd.revents().is_empty());
    if kick {
        // Nobody else reads it now, so this cannot block.
        let _ = rustix::io::read(&queue.kick, &mut [0; 8]);
    }
    Ok(!stop)
}

impl Worker<'_> {
    /// Serves requests until told to stop, or until there is nothing to do, and ends with none taken that is not given
    /// back.
    fn work(&mut self) -> Result<Ended, Trouble> {
        loop {
            self.queue.disarm(self.memory)?;
            let mut more = true;
            while more && !self.stop.is_requested() {
                more = self.take()?;
                self.flights.submit()?;
                more |= self.reap()?;
            }
            if self.stop.is_requested() {
                return self.finish().map(|()| Ended::Told);
            }
            if self.put_back() {
                self.rest();
                continue;
            }
            let can_take_more = self.queue.arm(self.memory)? && self.flights.have_room();
            if !can_take_more && !self.wait()? {
                return Ok(Ended::Idle);
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
                // A flush, among others: the driver is to hear of that at once.
                None if self.serving.disk.check_kept().is_err() => State::Lost,
                None => State::Over(0),
            };
            self.flights.add(head, state)?;
            any = true;
        }
        Ok(any)
    }

    /// Takes what has ended, and gives back what can be. True if anything had ended.
    fn reap(&mut self) -> Result<bool, Trouble> {
        let serving = &mut *self.serving;
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
        self.flights.wait_for_others();
        self.reap()?;
        self.put_back();
        Ok(())
    }

    /// Waits before requests are tried again, or until the thread is to end.
    fn rest(&self) {
        let mut stop = [PollFd::new(self.stop, PollFlags::IN)];
        // Interrupted or not, whoever calls this looks again.
        let _ = rustix::event::poll(&mut stop, Some(&AGAIN));
    }

    /// Waits until there is something to do, or the thread is to end. False when nothing is in flight and nothing comes
    /// for a while.
    fn wait(&self) -> Result<bool, Trouble> {
        // What is too long to be told the system is as good as for ever.
        let rest = Timespec::try_from(self.rest).ok();
        let patience = rest.as_ref().filter(|_| !self.flights.are_pending());
        let (ended, bell) = (self.flights.ended(), self.flights.bell());
        let mut fds = vec![
            PollFd::new(self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
            PollFd::new(bell, PollFlags::IN),
        ];
        // Without room a notification would only wake it in vain.
        if self.flights.have_room() {
            fds.push(PollFd::new(&self.queue.kick, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, patience) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Trouble::Ring(error.into())),
        }
        let is_readable = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if is_readable(2) {
            bell.hush();
        }
        if is_readable(3) {
            // Only this thread reads it, so this cannot block.
            let _ = rustix::io::read(&self.queue.kick, &mut [0; 8]);
        }
        Ok(true)
    }
}
