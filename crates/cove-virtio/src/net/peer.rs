//! The stream to the program that carries the guest's frames on, and the link that stands for it.
//!
//! ```text
//!        connected                    the stream ends, or is out of step
//!  Away ───────────▶ Connected ────────────────────────────────────────▶ Away, for RETRY at least
//! ```
//!
//! [`Peer`] owns the stream and both directions' buffers. It outlives a suspension of the device, with whatever is in
//! them, and forgets everything at a reset.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::frames::{Incoming, Outgoing};

/// The pause before a connection is tried again: what QEMU is told, too.
const RETRY: Duration = Duration::from_millis(250);

/// Whether the guest's cable leads anywhere.
#[derive(Debug)]
pub(super) struct Link {
    connected: AtomicBool,
    plugged: AtomicBool,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            connected: AtomicBool::new(false),
            plugged: AtomicBool::new(true),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.connected.load(Ordering::Acquire) && self.plugged.load(Ordering::Acquire)
    }

    pub(super) fn plug(&self, plugged: bool) {
        self.plugged.store(plugged, Ordering::Release);
    }
}

/// The far end of the guest's cable.
pub(super) struct Peer {
    address: SocketAddrUnix,
    link: Arc<Link>,
    stream: Option<OwnedFd>,
    /// Before this no connection is tried.
    pause_until: Option<Instant>,
    /// The driver has not been told of the link's last change.
    changed: bool,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
}

impl Peer {
    pub(super) fn new(address: SocketAddrUnix, link: Arc<Link>, longest: usize) -> Self {
        Self {
            address,
            link,
            stream: None,
            pause_until: None,
            changed: false,
            incoming: Incoming::new(longest),
            outgoing: Outgoing::default(),
        }
    }

    /// The stream, while there is one.
    pub(super) fn stream(&self) -> Option<&OwnedFd> {
        self.stream.as_ref()
    }

    /// Whether the link has changed since this was last asked.
    pub(super) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Connects if there is no stream, and it is time.
    pub(super) fn connect(&mut self) {
        let now = Instant::now();
        if self.stream.is_some() || self.pause_until.is_some_and(|until| now < until) {
            return;
        }
        match connect(&self.address) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.set_connected(true);
            }
            Err(error) => {
                tracing::trace!(%error, "nobody takes the guest's frames");
                self.pause_until = Some(now + RETRY);
            }
        }
    }

    /// How long until [`Peer::connect`] is worth calling again; none while connected.
    pub(super) fn pause(&self) -> Option<Duration> {
        match (&self.stream, self.pause_until) {
            (Some(_), _) => None,
            (None, Some(until)) => Some(until.saturating_duration_since(Instant::now())),
            (None, None) => Some(Duration::ZERO),
        }
    }

    /// Ends the stream, with all that was under way.
    pub(super) fn hang_up(&mut self) {
        self.incoming.clear();
        self.outgoing.clear();
        if self.stream.take().is_some() {
            self.pause_until = Some(Instant::now() + RETRY);
            self.set_connected(false);
        }
    }

    /// The same for a driver that knows nothing of it.
    pub(super) fn forget(&mut self) {
        self.hang_up();
        self.pause_until = None;
        self.changed = false;
    }

    /// Reads what there is; false when that is nothing.
    pub(super) fn fill(&mut self) -> bool {
        let Some(stream) = &self.stream else { return false };
        loop {
            match self.incoming.fill(|space| rustix::io::read(stream, space)) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Ok(1..) => return true,
                Ok(0) | Err(_) => {
                    self.hang_up();
                    return false;
                }
            }
        }
    }

    /// Sends what the stream takes.
    pub(super) fn flush(&mut self) {
        let Some(stream) = &self.stream else { return };
        while !self.outgoing.is_empty() {
            match rustix::net::send(
                stream,
                self.outgoing.rest(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(count) => self.outgoing.sent(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.hang_up(),
            }
        }
    }

    fn set_connected(&mut self, connected: bool) {
        self.link.connected.store(connected, Ordering::Release);
        self.changed = true;
    }
}

/// Fails, rather than waits, where somebody listens but has too much to do.
fn connect(address: &SocketAddrUnix) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, address)?;
    Ok(socket)
}
