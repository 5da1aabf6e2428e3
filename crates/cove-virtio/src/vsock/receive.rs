//! To the guest: the receive queue.
//!
//! Connections with something to say are served in turn, each with a bounded number of bytes. Bytes are read from the
//! host's stream straight into the guest's buffers, as many of them as the connection's appetite fills, with one
//! system call; buffers that stay empty go back to the ring.

use std::io;
use std::ops::Range;

use vm_memory::VolatileSlice;

use super::connection::{APPETITE, Connection, State};
use super::credit::Plan;
use super::muxer::{ConnectionId, Muxer};
use super::packet::{HEADER_SIZE, Header, Op};
use crate::device::GuestMemory;
use crate::queue::{BrokenQueue, DeviceQueue, Direction, gather};
use crate::scatter;

/// [`HEADER_SIZE`] as the used ring counts.
const HEADER_LEN: u32 = 44;
const _: () = assert!(HEADER_LEN as usize == HEADER_SIZE);

/// With more connections than this in line, a turn is short: what a big one saves in system calls, the others would
/// wait for.
const LONG_TURNS_UP_TO: usize = 8;
const SHORT_TURN: usize = 16 * 1024;

/// How far the guest could be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// Everybody in line had a turn; some may be in line again.
    Round,
    /// The guest posted no more buffers; the driver will notify us of new ones.
    Starved,
}

/// What became of one attempt to read from a host.
enum Pumped {
    /// Read as far as this turn goes.
    Read,
    /// The guest has no buffers.
    Starved,
    /// The guest has no room in the connection's receive buffer.
    Blocked,
    /// The stream failed.
    Failed(io::Error),
}

/// One of the guest's buffers, on its way to be filled.
struct Target {
    head: u16,
    /// Where its slices lie among those of all targets.
    slices: Range<usize>,
    /// The payload it may take.
    len: u32,
}

impl Muxer {
    /// Gives everybody in line one turn.
    pub(super) fn receive(
        &mut self,
        queue: &mut DeviceQueue,
        memory: &GuestMemory,
    ) -> Result<Served, BrokenQueue> {
        while let Some(header) = self.replies.front() {
            if !send(queue, memory, header)? {
                return Ok(Served::Starved);
            }
            self.replies.pop_front();
        }
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { break };
            if let Some(connection) = self.table.get_mut(id) {
                connection.queued = false;
            }
            match self.serve(id, queue, memory)? {
                Served::Round => self.wake(id),
                Served::Starved => {
                    // It keeps its place in line.
                    if let Some(connection) = self.table.get_mut(id) {
                        connection.queued = true;
                        self.ready.push_front(id);
                    }
                    return Ok(Served::Starved);
                }
            }
        }
        Ok(Served::Round)
    }

    /// One connection's turn.
    fn serve(
        &mut self,
        id: ConnectionId,
        queue: &mut DeviceQueue,
        memory: &GuestMemory,
    ) -> Result<Served, BrokenQueue> {
        let cid = self.guest_cid;
        let turn = if self.ready.len() > LONG_TURNS_UP_TO {
            SHORT_TURN
        } else {
            *APPETITE.end()
        };
        let Some(connection) = self.table.get_mut(id) else {
            return Ok(Served::Round);
        };
        if let Some(op) = connection.opening {
            if !send(queue, memory, &connection.header(cid, op, 0, 0))? {
                return Ok(Served::Starved);
            }
            connection.credit_told();
            connection.opening = None;
            if op == Op::Response {
                connection.state = State::Established;
                connection.readable = true;
            }
        }
        if connection.may_read() {
            match pump(connection, turn, cid, queue, memory)? {
                Pumped::Read => {}
                Pumped::Starved => return Ok(Served::Starved),
                Pumped::Blocked => self.stall(id),
                Pumped::Failed(error) => {
                    tracing::debug!(%error, connection = id.label(), "a host stream failed");
                    self.reset(id);
                    return Ok(Served::Round);
                }
            }
        }
        let Some(connection) = self.table.get_mut(id) else {
            return Ok(Served::Round);
        };
        if let Some(flags) = connection.shutdown_due() {
            if !send(queue, memory, &connection.header(cid, Op::Shutdown, flags, 0))? {
                return Ok(Served::Starved);
            }
            connection.credit_told();
            connection.shutdown_sent(flags);
            if connection.state == State::Closing {
                self.expect_rst(id);
                return Ok(Served::Round);
            }
        }
        if connection.credit_update_due() {
            if !send(queue, memory, &connection.header(cid, Op::CreditUpdate, 0, 0))? {
                return Ok(Served::Starved);
            }
            connection.credit_told();
        }
        if connection.ask_credit {
            if !send(queue, memory, &connection.header(cid, Op::CreditRequest, 0, 0))? {
                return Ok(Served::Starved);
            }
            connection.credit_told();
            connection.ask_credit = false;
        }
        Ok(Served::Round)
    }
}

/// Sends a packet without payload; false when the guest posted no buffer for it.
fn send(queue: &mut DeviceQueue, memory: &GuestMemory, header: &Header) -> Result<bool, BrokenQueue> {
    let mut slices = Vec::new();
    // A guest that posts nothing but useless buffers gets each of them back once, not for ever.
    while let Some(chain) = queue.next_chain(memory)? {
        let head = chain.head_index();
        match gather(memory, chain, Direction::Writable, &mut slices) {
            Ok(capacity) if capacity >= HEADER_SIZE => {
                write_header(&slices, header);
                queue.complete(memory, head, written(0))?;
                return Ok(true);
            }
            result => {
                tracing::debug!(?result, "useless vsock receive buffer");
                slices.clear();
                queue.complete(memory, head, 0)?;
            }
        }
    }
    Ok(false)
}

/// Buffers that were taken from the guest to be read into.
#[derive(Default)]
struct Taken<'m> {
    targets: Vec<Target>,
    /// All of the targets' slices, headers included.
    slices: Vec<VolatileSlice<'m>>,
    /// Where the payload goes.
    payload: Vec<VolatileSlice<'m>>,
}

impl<'m> Taken<'m> {
    /// Takes buffers for `appetite` bytes, cut as `plan` says; returns why there are none where there are none.
    fn take(
        &mut self,
        appetite: usize,
        mut plan: Plan,
        queue: &mut DeviceQueue,
        memory: &'m GuestMemory,
    ) -> Result<Pumped, BrokenQueue> {
        let mut planned = 0usize;
        while planned < appetite && self.payload.len() < scatter::MAX_SLICES {
            let Some(chain) = queue.next_chain(memory)? else {
                break;
            };
            let head = chain.head_index();
            let start = self.slices.len();
            let capacity = match gather(memory, chain, Direction::Writable, &mut self.slices) {
                Ok(capacity) if capacity > HEADER_SIZE => capacity - HEADER_SIZE,
                result => {
                    self.slices.truncate(start);
                    if self.targets.is_empty() {
                        tracing::debug!(?result, "useless vsock receive buffer");
                        queue.complete(memory, head, 0)?;
                        continue;
                    }
                    // Dealt with when it is the first: what is put back later must be what was taken last.
                    queue.put_back(1);
                    break;
                }
            };
            let Some(len) = plan.next(capacity) else {
                self.slices.truncate(start);
                queue.put_back(1);
                return Ok(Pumped::Blocked);
            };
            let mut rest = self.slices[start..].to_vec();
            scatter::advance(&mut rest, HEADER_SIZE);
            scatter::truncate(&mut rest, len as usize);
            self.payload.append(&mut rest);
            self.targets.push(Target {
                head,
                slices: start..self.slices.len(),
                len,
            });
            planned += len as usize;
        }
        Ok(Pumped::Starved)
    }

    /// Gives the guest the buffers that `read` bytes of payload fill, and returns how many those are.
    fn give(
        &self,
        read: usize,
        connection: &mut Connection,
        guest_cid: u64,
        queue: &mut DeviceQueue,
        memory: &GuestMemory,
    ) -> Result<u16, BrokenQueue> {
        let mut left = read;
        let mut used = 0;
        for target in &self.targets {
            if left == 0 {
                break;
            }
            let len = target.len.min(u32::try_from(left).unwrap_or(u32::MAX));
            left -= len as usize;
            used += 1;
            connection.to_guest.sent(len);
            let header = connection.header(guest_cid, Op::Rw, 0, len);
            write_header(&self.slices[target.slices.clone()], &header);
            queue.complete(memory, target.head, written(len))?;
        }
        Ok(used)
    }
}

/// Reads from the connection's host stream into as many of the guest's buffers as its appetite asks for, and `turn`
/// bytes allow.
fn pump(
    connection: &mut Connection,
    turn: usize,
    guest_cid: u64,
    queue: &mut DeviceQueue,
    memory: &GuestMemory,
) -> Result<Pumped, BrokenQueue> {
    let mut buffers = Taken::default();
    let appetite = connection.appetite.min(turn);
    let reason = buffers.take(appetite, connection.to_guest.plan(), queue, memory)?;
    if buffers.targets.is_empty() {
        return Ok(reason);
    }

    let taken = u16::try_from(buffers.targets.len()).unwrap_or(u16::MAX);
    let Some(stream) = connection.stream() else {
        queue.put_back(taken);
        return Ok(Pumped::Read);
    };
    // What does not fit into one system call is left for the next turn.
    let attempted: usize = buffers
        .payload
        .iter()
        .take(scatter::MAX_SLICES)
        .map(VolatileSlice::len)
        .sum();
    let read = match scatter::read(stream, &buffers.payload) {
        Ok(read) => read,
        Err(error) => {
            queue.put_back(taken);
            if error.kind() == io::ErrorKind::WouldBlock {
                connection.readable = false;
                return Ok(Pumped::Read);
            }
            return Ok(Pumped::Failed(error));
        }
    };
    let used = buffers.give(read, connection, guest_cid, queue, memory)?;
    queue.put_back(taken - used);

    if read == 0 {
        connection.read_to_end();
    } else if read == attempted {
        connection.credit_told();
        connection.appetite = (connection.appetite * 2).min(*APPETITE.end());
    } else {
        connection.credit_told();
        connection.appetite = read.clamp(*APPETITE.start(), *APPETITE.end());
        // Less than asked for means that the socket is empty, and the next bytes are a new event; unless the host
        // passed file descriptors along (they are dropped), where a read stops early. The end is no event either:
        // once announced, it must be read without one.
        connection.readable = connection.ended || connection.has_unread();
    }
    Ok(Pumped::Read)
}

/// Bytes of a buffer that a packet with `len` bytes of payload fills.
fn written(len: u32) -> u32 {
    // Payload is bounded by the credit window, so the sum fits.
    len.saturating_add(HEADER_LEN)
}

fn write_header(slices: &[VolatileSlice<'_>], header: &Header) {
    let bytes = header.to_bytes();
    let mut rest = bytes.as_slice();
    for slice in slices {
        let count = rest.len().min(slice.len());
        slice.copy_from(&rest[..count]);
        rest = &rest[count..];
        if rest.is_empty() {
            break;
        }
    }
}
