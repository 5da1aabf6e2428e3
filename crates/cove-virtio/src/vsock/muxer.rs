//! The table of connections, and what is due on which.
//!
//! The muxer belongs to the worker thread and is touched by nothing else. What arrives from the guest is in
//! [`super::transmit`], what goes to it in [`super::receive`], what happens on the host's side in [`super::host`];
//! this module holds what they share.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use slotmap::{Key as _, SlotMap};

use super::connection::{Connection, Flushed, Ports, State};
use super::credit;
use super::packet::{HOST_CID, Header, Op, TYPE_STREAM};
use super::poll::{Poll, Source};
use crate::socket::Listener;

slotmap::new_key_type! {
    /// Names a connection; never names another one that took its place.
    pub(super) struct ConnectionId;
}

/// How long a connection that both sides are done with waits for the guest's RST before it is forgotten; what Linux
/// guests and hosts call the close timeout is longer, but they have applications to wait for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a host program has to say which port it wants.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the guest has to answer a request for a connection.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// RSTs to ports without a connection that may wait for the guest to post buffers. When as many wait, packets from
/// the guest do, too: it cannot make us remember more by asking faster than it listens.
const MAX_REPLIES: usize = 256;

/// Host ports for connections from the host start here, far from those that programs listen on.
const FIRST_EPHEMERAL_PORT: u32 = 1 << 30;

/// Something that is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The host program must have greeted.
    Greeting(ConnectionId),
    /// The guest must have answered.
    Response(ConnectionId),
    /// The guest must have sent its RST.
    Close(ConnectionId),
    /// The host's listener may have room in its backlog now; after the second time it must.
    Dial(ConnectionId, Instant),
    /// Ask the guest for credit if the connection still waits for it.
    Credit(ConnectionId),
    /// File descriptors may be free again to accept with.
    Accept,
}

/// All connections of a device.
pub(super) struct Muxer {
    pub(super) guest_cid: u64,
    pub(super) host_socket: PathBuf,
    max_connections: usize,
    pub(super) listener: Listener,
    pub(super) poll: Poll,
    pub(super) table: SlotMap<ConnectionId, Connection>,
    /// Connections by their ports, for as long as the guest may send packets for them.
    by_ports: HashMap<Ports, ConnectionId>,
    /// Connections with something for the guest, in the order in which they are served.
    pub(super) ready: VecDeque<ConnectionId>,
    /// RSTs for ports without a connection.
    pub(super) replies: VecDeque<Header>,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    next_port: u32,
}

impl Muxer {
    pub(super) fn new(
        guest_cid: u64,
        host_socket: PathBuf,
        max_connections: usize,
        listener: Listener,
        poll: Poll,
    ) -> Self {
        Self {
            guest_cid,
            host_socket,
            max_connections,
            listener,
            poll,
            table: SlotMap::with_key(),
            by_ports: HashMap::new(),
            ready: VecDeque::new(),
            replies: VecDeque::new(),
            timers: BinaryHeap::new(),
            next_port: FIRST_EPHEMERAL_PORT,
        }
    }

    /// Whether the limit on connections is reached.
    pub(super) fn is_full(&self) -> bool {
        self.table.len() >= self.max_connections
    }

    /// The receive buffer of the next connection.
    pub(super) fn window(&self) -> u32 {
        credit::window(self.table.len())
    }

    /// Whether packets from the guest must wait until it has taken our answers.
    pub(super) fn replies_full(&self) -> bool {
        self.replies.len() >= MAX_REPLIES
    }

    /// Whether anything waits to be sent to the guest.
    pub(super) fn has_news(&self) -> bool {
        !self.replies.is_empty() || !self.ready.is_empty()
    }

    /// The connection that a packet with these ports belongs to.
    pub(super) fn find(&self, ports: Ports) -> Option<ConnectionId> {
        self.by_ports.get(&ports).copied()
    }

    /// Adds a connection and starts the timer for its first step.
    pub(super) fn insert(&mut self, connection: Connection) -> ConnectionId {
        let (ports, state) = (connection.ports, connection.state);
        let id = self.table.insert(connection);
        if state == State::Greeting {
            self.after(GREETING_TIMEOUT, Timer::Greeting(id));
        } else {
            self.by_ports.insert(ports, id);
        }
        id
    }

    /// A greeted connection gets its place among those that the guest knows, and its REQUEST is due.
    pub(super) fn request(&mut self, id: ConnectionId, guest_port: u32) {
        let host_port = self.free_port(guest_port);
        let Some(connection) = self.table.get_mut(id) else {
            return;
        };
        connection.ports = Ports {
            host: host_port,
            guest: guest_port,
        };
        connection.state = State::Requested;
        connection.opening = Some(Op::Request);
        self.by_ports.insert(connection.ports, id);
        self.after(RESPONSE_TIMEOUT, Timer::Response(id));
        self.wake(id);
    }

    /// Puts a connection in line to be served, if it has something for the guest.
    pub(super) fn wake(&mut self, id: ConnectionId) {
        if let Some(connection) = self.table.get_mut(id)
            && !connection.queued
            && connection.has_news()
        {
            connection.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Forgets a connection and closes its stream. The guest is not told.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if let Some(connection) = self.table.remove(id) {
            if self.by_ports.get(&connection.ports) == Some(&id) {
                self.by_ports.remove(&connection.ports);
            }
            tracing::debug!(ports = ?connection.ports, "vsock connection closed");
            connection.close();
        }
    }

    /// Forgets a connection and tells the guest so.
    pub(super) fn reset(&mut self, id: ConnectionId) {
        if let Some(connection) = self.table.get(id) {
            self.reply_rst(connection.ports);
        }
        self.remove(id);
    }

    /// The guest is done with a connection: its ports are free, and what it sent is still passed on.
    pub(super) fn detach(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(id) else {
            return;
        };
        let (ports, flushed) = (connection.ports, connection.drain());
        self.by_ports.remove(&ports);
        match flushed {
            Flushed::Empty => self.remove(id),
            Flushed::Waiting => self.watch(id),
        }
    }

    /// Sends a RST for ports that no connection has.
    pub(super) fn reply_rst(&mut self, ports: Ports) {
        self.replies.push_back(Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            kind: TYPE_STREAM,
            op: Op::Rst as u16,
            ..Header::default()
        });
    }

    /// Has epoll watch for room in the host's socket exactly while something waits for it.
    pub(super) fn watch(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.get_mut(id) else {
            return;
        };
        let wanted = connection.flushed() == Flushed::Waiting;
        if wanted != connection.watched
            && let Some(stream) = connection.stream()
        {
            match self.poll.want_writable(stream, Source::Connection(id), wanted) {
                Ok(()) => connection.watched = wanted,
                Err(error) => {
                    tracing::warn!(%error, "cannot watch a host stream");
                    self.reset(id);
                }
            }
        }
    }

    /// The connection waits for credit: ask for it before long, since not every guest sends it unasked.
    pub(super) fn stall(&mut self, id: ConnectionId) {
        if let Some(due) = self.table.get_mut(id).and_then(Connection::stall) {
            self.timers.push(Reverse((due, Timer::Credit(id))));
        }
    }

    /// Both sides are done; the guest has to confirm.
    pub(super) fn expect_rst(&mut self, id: ConnectionId) {
        self.after(CLOSE_TIMEOUT, Timer::Close(id));
    }

    pub(super) fn after(&mut self, wait: Duration, timer: Timer) {
        self.timers.push(Reverse((Instant::now() + wait, timer)));
    }

    /// How long until the next timer, none without one.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.timers
            .peek()
            .map(|Reverse((due, _))| due.saturating_duration_since(Instant::now()))
    }

    /// Time stood still for the guest while its machine was paused, so its deadlines move.
    pub(super) fn postpone_timers(&mut self, by: Duration) {
        self.timers = self
            .timers
            .drain()
            .map(|Reverse((due, timer))| Reverse((due + by, timer)))
            .collect();
    }

    /// Whether something is due at `now`.
    pub(super) fn has_timer_due(&self, now: Instant) -> bool {
        self.timers.peek().is_some_and(|Reverse((due, _))| *due <= now)
    }

    /// Does what is due at `now`. Returns whether to look for new host connections.
    pub(super) fn run_timers(&mut self, now: Instant) -> bool {
        let mut accept = false;
        while let Some(&Reverse((due, timer))) = self.timers.peek() {
            if due > now {
                break;
            }
            self.timers.pop();
            match timer {
                Timer::Accept => accept = true,
                Timer::Dial(id, deadline) => self.dial(id, deadline),
                Timer::Greeting(id) => self.expire(id, State::Greeting),
                Timer::Response(id) => self.expire(id, State::Requested),
                Timer::Close(id) => self.expire(id, State::Closing),
                Timer::Credit(id) => {
                    let connection = self.table.get_mut(id);
                    if let Some(due) = connection.and_then(|connection| connection.look_after_stall(now)) {
                        self.timers.push(Reverse((due, timer)));
                        self.wake(id);
                    }
                }
            }
        }
        accept
    }

    /// Forgets everything about the guest that is gone. What it sent and the host has not read is lost.
    pub(super) fn clear(&mut self) {
        for (_, connection) in self.table.drain() {
            connection.close();
        }
        self.by_ports.clear();
        self.ready.clear();
        self.replies.clear();
        self.timers.clear();
    }

    /// The connection did not leave `state` in time.
    fn expire(&mut self, id: ConnectionId, state: State) {
        if self
            .table
            .get(id)
            .is_some_and(|connection| connection.state == state)
        {
            tracing::debug!(?state, "vsock connection timed out");
            if state == State::Greeting {
                self.remove(id);
            } else {
                self.reset(id);
            }
        }
    }

    /// A host port that no connection to this guest port has. There are more of them than connections are allowed,
    /// so the search ends.
    fn free_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
            if !self.by_ports.contains_key(&Ports {
                host,
                guest: guest_port,
            }) {
                return host;
            }
        }
    }
}

impl ConnectionId {
    /// A name for logs.
    pub(super) fn label(self) -> u64 {
        self.data().as_ffi()
    }
}
