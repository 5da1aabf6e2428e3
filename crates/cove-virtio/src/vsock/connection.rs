//! One connection between a port of the guest and a unix stream on the host.
//!
//! ```text
//!   host program connects                     guest sends REQUEST
//!           │                                         │
//!       Greeting                                  Dialling (again while the listener's backlog is full)
//!           │ CONNECT <port>                          │ connected; RESPONSE is sent
//!       Requested ──── guest sends RESPONSE ──► Established
//!                                                │       │
//!              guest is done both ways, we RST   │       │  host is done both ways, we SHUTDOWN
//!                                        Draining         Closing
//!                  host took the last bytes  └──► gone ◄──┘  guest sends RST, or 2 s have passed
//! ```
//!
//! A RST from the guest, a protocol error or a reset of the device leads from anywhere to gone. The muxer owns the
//! connection and its state; nothing here touches a queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendFlags, Shutdown};
use vm_memory::VolatileSlice;

use super::credit::{FromGuest, ToGuest};
use super::packet::{HOST_CID, Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use crate::{scatter, socket};

/// Bytes read from the host in one visit, at least and at most. Within the bounds a connection's appetite doubles
/// while the host keeps its socket full, so that one system call fills many of the guest's buffers, and shrinks when
/// it does not, so that a chat does not cost more buffers than it needs.
pub(super) const APPETITE: std::ops::RangeInclusive<usize> = 2048..=64 * 1024;

/// How long the first question for credit waits; each further one waits twice as long.
const FIRST_CREDIT_PROBE: Duration = Duration::from_millis(20);
const LAST_CREDIT_PROBE: Duration = Duration::from_secs(5);

/// The two ports that name a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// Where a connection stands; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Greeting,
    Dialling,
    Requested,
    Established,
    Closing,
    Draining,
}

/// What the host's side of the stream did when bytes were written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Everything the guest sent has been passed on.
    Empty,
    /// The host has to read first.
    Waiting,
}

/// A wait for the guest's credit.
#[derive(Clone, Copy, Debug)]
struct Stall {
    /// When the guest is to be asked for credit.
    due: Instant,
    /// How long the wait up to then is.
    wait: Duration,
}

/// A connection.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "conditions that hold independently; what excludes is in `State`"
)]
pub(super) struct Connection {
    pub(super) ports: Ports,
    pub(super) state: State,
    stream: Option<OwnedFd>,
    pub(super) to_guest: ToGuest,
    pub(super) from_guest: FromGuest,
    /// What the guest sent and the host has not taken yet; credit bounds it to the receive buffer.
    backlog: VecDeque<u8>,
    /// REQUEST or RESPONSE, before it is sent.
    pub(super) opening: Option<Op>,
    /// The guest asked how much room it has.
    pub(super) credit_asked: bool,
    /// The guest is to be asked for credit.
    pub(super) ask_credit: bool,
    /// The host's socket may have something to read, be it the end.
    pub(super) readable: bool,
    /// The host will not send any more, though what it sent may not be read yet.
    pub(super) ended: bool,
    /// Neither the host nor we can send on the stream any more.
    pub(super) hung_up: bool,
    /// What the host sent has been read to its end.
    pub(super) host_sent_all: bool,
    /// The host no longer reads: what the guest sends goes nowhere.
    host_deaf: bool,
    /// The guest's SHUTDOWN flags so far.
    guest_shutdown: u32,
    /// Our SHUTDOWN flags so far.
    announced: u32,
    /// The connection stands in the muxer's queue of those with something to do.
    pub(super) queued: bool,
    /// Reading from the host waits for the guest's credit.
    stall: Option<Stall>,
    /// A timer runs that will look at the stall.
    stall_timer: bool,
    /// How many bytes to read from the host in the next visit.
    pub(super) appetite: usize,
    /// Epoll watches for room to write.
    pub(super) watched: bool,
}

impl Connection {
    /// With a receive buffer of `window` bytes.
    pub(super) fn new(ports: Ports, state: State, stream: Option<OwnedFd>, window: u32) -> Self {
        Self {
            ports,
            state,
            stream,
            to_guest: ToGuest::default(),
            from_guest: FromGuest::new(window),
            backlog: VecDeque::new(),
            opening: None,
            credit_asked: false,
            ask_credit: false,
            readable: false,
            ended: false,
            hung_up: false,
            host_sent_all: false,
            host_deaf: false,
            guest_shutdown: 0,
            announced: 0,
            queued: false,
            stall: None,
            stall_timer: false,
            appetite: *APPETITE.start(),
            watched: false,
        }
    }

    /// The host's stream; none while dialling.
    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Dialling succeeded.
    pub(super) fn dialled(&mut self, stream: OwnedFd) {
        self.stream = Some(stream);
        self.opening = Some(Op::Response);
    }

    /// A packet's header to the guest, with the credit that is current now.
    pub(super) fn header(&self, guest_cid: u64, op: Op, flags: u32, len: u32) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len,
            kind: TYPE_STREAM,
            op: op as u16,
            flags,
            buf_alloc: self.from_guest.window(),
            fwd_cnt: self.from_guest.forwarded(),
        }
    }

    /// A packet with the credit that is current now was sent.
    pub(super) fn credit_told(&mut self) {
        self.credit_asked = false;
        self.from_guest.advertised();
    }

    /// Whether the host's stream should be read now.
    pub(super) fn may_read(&self) -> bool {
        self.state == State::Established
            && self.readable
            && self.stall.is_none()
            && !self.host_sent_all
            && self.guest_shutdown & SHUTDOWN_RECEIVE == 0
    }

    /// Whether the host's stream holds bytes to read.
    pub(super) fn has_unread(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|stream| rustix::io::ioctl_fionread(stream).is_ok_and(|bytes| bytes > 0))
    }

    /// The host's stream has been read to its end.
    pub(super) fn read_to_end(&mut self) {
        self.host_sent_all = true;
        self.readable = false;
        // The end may be read before the event that says whether the host still listens; knowing it now saves the
        // guest a SHUTDOWN in two steps.
        if let Some(stream) = &self.stream {
            let mut fds = [PollFd::new(stream, PollFlags::empty())];
            let polled = rustix::event::poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                }),
            );
            self.hung_up |= polled.is_ok() && fds[0].revents().contains(PollFlags::HUP);
        }
    }

    /// Whether the guest may still send.
    pub(super) fn guest_may_send(&self) -> bool {
        self.state == State::Established && self.guest_shutdown & SHUTDOWN_SEND == 0
    }

    /// Whether there is anything to tell the guest.
    pub(super) fn has_news(&self) -> bool {
        self.opening.is_some()
            || self.may_read()
            || self.shutdown_due().is_some()
            || self.credit_update_due()
            || self.ask_credit
    }

    /// Whether the guest should be told of its credit.
    pub(super) fn credit_update_due(&self) -> bool {
        self.state == State::Established && (self.credit_asked || self.from_guest.update_due())
    }

    /// The flags of a SHUTDOWN to be sent, all that hold so far, when there is a new one.
    pub(super) fn shutdown_due(&self) -> Option<u32> {
        if self.state != State::Established {
            return None;
        }
        let mut flags = self.announced;
        // Once the guest is done receiving, nobody reads the stream to its end any more.
        let sent_all = self.host_sent_all || (self.ended && self.guest_shutdown & SHUTDOWN_RECEIVE != 0);
        if sent_all {
            flags |= SHUTDOWN_SEND;
        }
        // A host that is gone is told of after what it sent, unless the guest, asked for credit, does not take that.
        let stuck = self.stall.is_some_and(|stall| stall.wait > FIRST_CREDIT_PROBE);
        if self.host_deaf || (self.hung_up && (sent_all || stuck)) {
            flags |= SHUTDOWN_RECEIVE;
        }
        (flags != self.announced).then_some(flags)
    }

    /// A SHUTDOWN with `flags` was sent.
    pub(super) fn shutdown_sent(&mut self, flags: u32) {
        self.announced = flags;
        if flags == SHUTDOWN_BOTH {
            self.state = State::Closing;
        }
    }

    /// The guest announced that it is done receiving, sending or both.
    pub(super) fn guest_shutdown(&mut self, flags: u32) {
        let new = flags & SHUTDOWN_BOTH & !self.guest_shutdown;
        self.guest_shutdown |= new;
        if self.guest_shutdown == SHUTDOWN_BOTH {
            self.state = State::Draining;
        }
        if new & SHUTDOWN_RECEIVE != 0 {
            // The host's next write fails, as it would on a socket whose peer is gone.
            self.shut(Shutdown::Read);
        }
        if new & SHUTDOWN_SEND != 0 && self.backlog.is_empty() {
            self.shut(Shutdown::Write);
        }
    }

    /// Passes `slices` of `len` bytes on to the host; what it does not take now is kept.
    pub(super) fn deliver(&mut self, slices: &mut Vec<VolatileSlice<'_>>, len: usize) -> Flushed {
        let mut left = len;
        if self.backlog.is_empty() {
            while left > 0 && !self.host_deaf {
                let Some(stream) = &self.stream else { break };
                match scatter::send(stream.as_fd(), slices) {
                    Ok(sent) => {
                        scatter::advance(slices, sent);
                        self.forward(sent);
                        left -= sent;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => self.host_deaf = true,
                }
            }
        }
        if self.host_deaf {
            self.forward(left);
            return Flushed::Empty;
        }
        if left > 0 {
            self.keep(slices);
        }
        self.flushed()
    }

    /// Passes on what was kept, now that the host may take more.
    pub(super) fn flush(&mut self) -> Flushed {
        while !self.backlog.is_empty() && !self.host_deaf {
            let Some(stream) = &self.stream else { break };
            let (first, _) = self.backlog.as_slices();
            match rustix::net::send(stream, first, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.backlog.drain(..sent);
                    self.forward(sent);
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => self.host_deaf = true,
            }
        }
        if self.host_deaf {
            self.forward(self.backlog.len());
            self.backlog.clear();
        }
        if self.backlog.is_empty() {
            // A connection that was slow once does not keep its buffer for ever.
            self.backlog = VecDeque::new();
            if self.guest_shutdown & SHUTDOWN_SEND != 0 {
                self.shut(Shutdown::Write);
            }
        }
        self.flushed()
    }

    /// Whether something the guest sent still waits for the host.
    pub(super) fn flushed(&self) -> Flushed {
        if self.backlog.is_empty() {
            Flushed::Empty
        } else {
            Flushed::Waiting
        }
    }

    /// Reading from the host has to wait for credit. Returns when to look after it, if nobody does yet.
    pub(super) fn stall(&mut self) -> Option<Instant> {
        let due = Instant::now() + FIRST_CREDIT_PROBE;
        self.stall = Some(Stall {
            due,
            wait: FIRST_CREDIT_PROBE,
        });
        // A steady stream stalls thousands of times a second, so there is one timer for all of them.
        (!std::mem::replace(&mut self.stall_timer, true)).then_some(due)
    }

    /// The timer went off: the guest is to be asked if the stall has lasted. Returns when to look again.
    pub(super) fn look_after_stall(&mut self, now: Instant) -> Option<Instant> {
        self.stall_timer = false;
        let waits = self.state == State::Established && self.guest_shutdown & SHUTDOWN_RECEIVE == 0;
        let stall = self.stall.as_mut().filter(|_| waits)?;
        if stall.due <= now {
            self.ask_credit = true;
            stall.wait = (stall.wait * 2).min(LAST_CREDIT_PROBE);
            stall.due = now + stall.wait;
        }
        self.stall_timer = true;
        Some(stall.due)
    }

    /// Goes on if credit came; true if it did.
    pub(super) fn end_stall(&mut self) -> bool {
        if self.stall.is_none() || self.to_guest.plan().is_blocked() {
            return false;
        }
        self.stall = None;
        self.ask_credit = false;
        true
    }

    /// The guest knows the connection no longer: there is nothing to tell it.
    pub(super) fn drain(&mut self) -> Flushed {
        self.state = State::Draining;
        self.ask_credit = false;
        self.opening = None;
        self.flush()
    }

    /// Closes the host's stream.
    pub(super) fn close(self) {
        if let Some(stream) = self.stream {
            socket::close(stream);
        }
    }

    fn shut(&self, how: Shutdown) {
        if let Some(stream) = &self.stream {
            // Only fails when the peer is gone already, which says the same.
            let _ = rustix::net::shutdown(stream, how);
        }
    }

    fn forward(&mut self, bytes: usize) {
        // At most the receive buffer at a time, which fits.
        self.from_guest.forward(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn keep(&mut self, slices: &[VolatileSlice<'_>]) {
        let mut chunk = [0u8; 4096];
        for slice in slices {
            let mut rest = *slice;
            while !rest.is_empty() {
                let copied = rest.copy_to(&mut chunk[..]);
                self.backlog.extend(&chunk[..copied]);
                let Ok(next) = rest.offset(copied) else { break };
                rest = next;
            }
        }
    }
}
