//! From the guest: the transmit queue.
//!
//! Consecutive packets of one connection are passed to its host stream with one system call, straight out of guest
//! memory. A packet's header is copied once and only the copy is looked at; its payload is never looked at.

use virtio_queue::DescriptorChain;
use vm_memory::VolatileSlice;

use super::connection::{Ports, State};
use super::credit::BUF_ALLOC;
use super::muxer::{ConnectionId, Muxer};
use super::packet::{HEADER_SIZE, HOST_CID, Header, Op, SHUTDOWN_BOTH, TYPE_STREAM};
use crate::device::GuestMemory;
use crate::queue::{BrokenQueue, DeviceQueue, Direction, gather};
use crate::scatter;

/// How far the transmit queue was worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transmitted {
    /// To its end; the driver will notify us of more.
    All,
    /// As far as one turn goes, or as our answers find room.
    Some,
}

/// Packets of one connection on their way to its host stream.
#[derive(Default)]
struct Batch<'m> {
    connection: Option<ConnectionId>,
    payload: Vec<VolatileSlice<'m>>,
    len: usize,
    heads: Vec<u16>,
}

/// A packet that is well-formed as far as its chain goes.
struct Packet<'m> {
    header: Header,
    payload: Vec<VolatileSlice<'m>>,
}

/// Where a packet goes.
enum Route {
    /// To the host stream of a connection.
    Payload(ConnectionId),
    /// To whoever looks at its operation.
    Other,
    /// Nowhere: it was its connection's last.
    Done,
}

impl Muxer {
    /// Works off packets that the guest sent, at most a queue's worth, so that the other direction gets its turn.
    pub(super) fn transmit(
        &mut self,
        queue: &mut DeviceQueue,
        memory: &GuestMemory,
    ) -> Result<Transmitted, BrokenQueue> {
        let mut batch = Batch::default();
        let mut progress = Transmitted::Some;
        for _ in 0..virtio_queue::QueueT::size(&queue.queue) {
            if self.replies_full() {
                break;
            }
            let Some(chain) = queue.next_chain(memory)? else {
                self.pass_on(&mut batch, queue, memory)?;
                if queue.arm(memory)? {
                    continue;
                }
                progress = Transmitted::All;
                break;
            };
            let head = chain.head_index();
            match read_packet(memory, chain) {
                Ok(mut packet) => match self.route(&packet.header) {
                    Route::Payload(id) => {
                        if batch.connection != Some(id) || batch.is_full() {
                            self.pass_on(&mut batch, queue, memory)?;
                            batch.connection = Some(id);
                        }
                        batch.payload.append(&mut packet.payload);
                        batch.len += packet.header.len as usize;
                    }
                    Route::Other => {
                        self.pass_on(&mut batch, queue, memory)?;
                        self.handle(&packet.header);
                    }
                    Route::Done => {}
                },
                Err(malformed) => {
                    self.pass_on(&mut batch, queue, memory)?;
                    self.reject(malformed);
                }
            }
            batch.heads.push(head);
        }
        self.pass_on(&mut batch, queue, memory)?;
        Ok(progress)
    }

    /// Where a packet goes. Payload counts as received from here on.
    fn route(&mut self, header: &Header) -> Route {
        if header.op != Op::Rw as u16 || header.kind != TYPE_STREAM || !self.is_for_us(header) {
            return Route::Other;
        }
        let Some(id) = self.find(ports(header)) else {
            return Route::Other;
        };
        if !self.take_credit(id, header) {
            return Route::Done;
        }
        let received = self.table.get_mut(id).is_some_and(|connection| {
            connection.guest_may_send() && connection.from_guest.receive(header.len).is_ok()
        });
        if received {
            Route::Payload(id)
        } else {
            Route::Other
        }
    }

    /// Any packet that is not payload for an open connection.
    fn handle(&mut self, header: &Header) {
        if !self.is_for_us(header) {
            tracing::debug!(
                src = header.src_cid,
                dst = header.dst_cid,
                "vsock packet for another address dropped"
            );
            return;
        }
        let ports = ports(header);
        let op = Op::try_from(header.op)
            .ok()
            .filter(|_| header.kind == TYPE_STREAM);
        let Some(id) = self.find(ports) else {
            match op {
                Some(Op::Request) => self.requested(ports, header.buf_alloc, header.fwd_cnt),
                Some(Op::Rst) => {}
                _ => self.reply_rst(ports),
            }
            return;
        };
        let Some(state) = self.table.get(id).map(|connection| connection.state) else {
            return;
        };
        match (op, state) {
            (Some(Op::Rst), State::Established | State::Closing) => self.detach(id),
            (Some(Op::Rst), _) => self.remove(id),
            (Some(Op::Response), State::Requested) => {
                if self.take_credit(id, header) {
                    self.accepted(id);
                }
            }
            (Some(Op::Shutdown), State::Established | State::Closing) => {
                if self.take_credit(id, header) {
                    self.shut_down(id, header.flags);
                }
            }
            (Some(Op::CreditUpdate), State::Established | State::Closing) => {
                self.take_credit(id, header);
            }
            (Some(Op::CreditRequest), State::Established) => {
                if self.take_credit(id, header)
                    && let Some(connection) = self.table.get_mut(id)
                {
                    connection.credit_asked = true;
                    self.wake(id);
                }
            }
            // Sent before the guest knew that the host is gone: its RST or SHUTDOWN follows.
            (Some(Op::Rw | Op::CreditRequest), State::Closing) => {}
            _ => {
                tracing::debug!(
                    ?header,
                    ?state,
                    connection = id.label(),
                    "vsock packet out of order"
                );
                self.reset(id);
            }
        }
    }

    /// A chain that does not hold a packet. With a header there is a connection to blame.
    fn reject(&mut self, header: Option<Header>) {
        tracing::debug!(?header, "malformed vsock packet");
        let Some(header) = header.filter(|header| self.is_for_us(header)) else {
            return;
        };
        match self.find(ports(&header)) {
            Some(id) => self.reset(id),
            None if header.op == Op::Rst as u16 => {}
            None => self.reply_rst(ports(&header)),
        }
    }

    fn shut_down(&mut self, id: ConnectionId, flags: u32) {
        let Some(connection) = self.table.get_mut(id) else {
            return;
        };
        connection.guest_shutdown(flags & SHUTDOWN_BOTH);
        if connection.state == State::Draining {
            // The guest needs the RST to forget the connection, and waits no longer than seconds for it; a host that
            // reads slowly may take longer to read what the guest sent, and shall have it all.
            let ports = connection.ports;
            self.reply_rst(ports);
            self.detach(id);
        }
    }

    /// Takes in a packet's credit fields; false when they are impossible, and the connection reset.
    fn take_credit(&mut self, id: ConnectionId, header: &Header) -> bool {
        let Some(connection) = self.table.get_mut(id) else {
            return false;
        };
        if let Err(error) = connection.to_guest.update(header.buf_alloc, header.fwd_cnt) {
            tracing::debug!(%error, connection = id.label(), "vsock connection reset");
            self.reset(id);
            return false;
        }
        if connection.end_stall() {
            self.wake(id);
        }
        true
    }

    /// Passes a batch on to its host and returns its chains to the driver.
    fn pass_on(
        &mut self,
        batch: &mut Batch<'_>,
        queue: &mut DeviceQueue,
        memory: &GuestMemory,
    ) -> Result<(), BrokenQueue> {
        if let Some(id) = batch.connection.take() {
            if let Some(connection) = self.table.get_mut(id) {
                connection.deliver(&mut batch.payload, batch.len);
                self.watch(id);
                self.wake(id);
            }
            batch.payload.clear();
            batch.len = 0;
        }
        for head in batch.heads.drain(..) {
            queue.complete(memory, head, 0)?;
        }
        Ok(())
    }

    fn is_for_us(&self, header: &Header) -> bool {
        header.src_cid == self.guest_cid && header.dst_cid == HOST_CID
    }
}

impl Batch<'_> {
    /// More would not fit into one system call, or keep the guest waiting for its buffers.
    fn is_full(&self) -> bool {
        self.payload.len() >= scatter::MAX_SLICES / 2 || self.len >= BUF_ALLOC as usize / 2
    }
}

fn ports(header: &Header) -> Ports {
    Ports {
        host: header.dst_port,
        guest: header.src_port,
    }
}

/// Reads the packet in a chain. The error carries the header if there is one, so that its sender can be told.
fn read_packet<'m>(
    memory: &'m GuestMemory,
    chain: DescriptorChain<&'m GuestMemory>,
) -> Result<Packet<'m>, Option<Header>> {
    let mut slices = Vec::new();
    let total = gather(memory, chain, Direction::Readable, &mut slices).map_err(|error| {
        tracing::debug!(%error, "bad vsock buffer");
        None
    })?;
    let Some(capacity) = total.checked_sub(HEADER_SIZE) else {
        return Err(None);
    };
    let mut bytes = [0; HEADER_SIZE];
    let mut filled = 0;
    // Drivers may lay a header over several descriptors.
    for slice in &slices {
        filled += slice.copy_to(&mut bytes[filled..]);
    }
    let header = Header::from_bytes(&bytes);
    // Only payload packets carry any; a length on another is an error, like one beyond the chain's end.
    let len = header.len as usize;
    if len > capacity || (len > 0 && header.op != Op::Rw as u16) {
        return Err(Some(header));
    }
    scatter::advance(&mut slices, HEADER_SIZE);
    scatter::truncate(&mut slices, len);
    Ok(Packet {
        header,
        payload: slices,
    })
}
