//! The worker's epoll instance.
//!
//! Everything is registered edge-triggered: an event says that something changed, once, and the muxer remembers what
//! is still to be done. So no descriptor is registered anew for each packet, and eventfds need not be read.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use slotmap::{Key as _, KeyData};

use super::muxer::ConnectionId;

/// Events fetched in one go.
const BATCH: usize = 128;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Commands wait.
    Wake,
    /// Host programs want to connect.
    Listener,
    /// The driver notified us of the queue with this index.
    Queue(u16),
    /// A connection's host socket.
    Connection(ConnectionId),
}

impl Source {
    // Ids of connections have an odd version in their upper half, so they are never below 2³².
    const WAKE: u64 = 0;
    const LISTENER: u64 = 1;
    const QUEUES: u64 = 0x1_0000;

    fn to_data(self) -> EventData {
        EventData::new_u64(match self {
            Self::Wake => Self::WAKE,
            Self::Listener => Self::LISTENER,
            Self::Queue(index) => Self::QUEUES | u64::from(index),
            Self::Connection(id) => id.data().as_ffi(),
        })
    }

    fn from_data(data: EventData) -> Self {
        match data.u64() {
            Self::WAKE => Self::Wake,
            Self::LISTENER => Self::Listener,
            id if id >> 32 == 0 => Self::Queue((id & 0xffff) as u16),
            id => Self::Connection(KeyData::from_ffi(id).into()),
        }
    }
}

/// What happened to a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four conditions that hold independently of each other"
)]
pub(super) struct Readiness {
    /// There is something to read, be it the end.
    pub(super) readable: bool,
    /// There is room to write.
    pub(super) writable: bool,
    /// The peer will not send any more.
    pub(super) ended: bool,
    /// Neither side can send any more.
    pub(super) hung_up: bool,
}

impl From<EventFlags> for Readiness {
    fn from(flags: EventFlags) -> Self {
        let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        let ended = hung_up || flags.contains(EventFlags::RDHUP);
        Self {
            readable: ended || flags.contains(EventFlags::IN),
            writable: flags.contains(EventFlags::OUT),
            ended,
            hung_up,
        }
    }
}

/// The set of descriptors that the worker waits for.
pub(super) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(super) fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    /// Waits for reads on `fd`.
    pub(super) fn add(&self, fd: impl AsFd, source: Source) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, fd, source.to_data(), Self::flags(false))
    }

    /// Waits for room to write as well, or no longer.
    pub(super) fn want_writable(
        &self,
        fd: impl AsFd,
        source: Source,
        wanted: bool,
    ) -> rustix::io::Result<()> {
        epoll::modify(&self.epoll, fd, source.to_data(), Self::flags(wanted))
    }

    /// Waits for `fd` no longer.
    pub(super) fn remove(&self, fd: impl AsFd) -> rustix::io::Result<()> {
        epoll::delete(&self.epoll, fd)
    }

    /// Fills `events` with what has happened, waiting for up to `timeout` for the first.
    pub(super) fn wait(
        &self,
        events: &mut Vec<(Source, Readiness)>,
        buffer: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> rustix::io::Result<()> {
        events.clear();
        buffer.clear();
        buffer.reserve(BATCH);
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.epoll, spare_capacity(buffer), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        events.extend(
            buffer
                .iter()
                .map(|event| (Source::from_data(event.data), event.flags.into())),
        );
        Ok(())
    }

    fn flags(writable: bool) -> EventFlags {
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if writable { flags | EventFlags::OUT } else { flags }
    }
}
