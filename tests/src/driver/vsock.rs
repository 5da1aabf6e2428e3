//! A driver for the socket device, packet by packet; [`super::stream`] has connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cove_virtio::device::{FEATURE_EVENT_IDX, FEATURE_VERSION_1};
use cove_virtio::vsock::packet::{HEADER_SIZE, HOST_CID, Header, Op, TYPE_STREAM};
use vm_memory::{Bytes, GuestAddress};

use super::event::{self, Event};
use super::memory::SharedMemory;
use super::queue::{Buffer, DriverQueue};
use super::transport::Transport;

/// The size of a receive buffer that Linux posts.
const LINUX_RECEIVE_BUFFER: u32 = 4096 - 320;

/// The largest payload of a packet that Linux sends, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// The receive buffer that Linux grants a connection, in bytes.
pub const BUF_ALLOC: u32 = 256 * 1024;

/// How long anything may take before a test or bench gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(10);

const HEADER_LEN: u32 = 44;
const _: () = assert!(HEADER_LEN as usize == HEADER_SIZE);

/// How a guest is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The guest's context id.
    pub cid: u64,
    /// Entries of the receive and transmit queues.
    pub queue_size: u16,
    /// Receive buffers to post, at most `queue_size`.
    pub receive_buffers: u16,
    /// Bytes of each.
    pub receive_buffer: u32,
    /// Whether to use `EVENT_IDX` if it is offered.
    pub event_idx: bool,
    /// Whether the device gets its event queue.
    pub event_queue: bool,
}

impl Options {
    /// What Linux does.
    pub fn linux(cid: u64) -> Self {
        Self {
            cid,
            queue_size: 128,
            receive_buffers: 128,
            receive_buffer: LINUX_RECEIVE_BUFFER,
            event_idx: true,
            event_queue: false,
        }
    }
}

/// A packet from the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Whether its operation is `op`.
    pub fn is(&self, op: Op) -> bool {
        self.header.op == op as u16
    }
}

/// The two ports of a connection, as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The guest's port.
    pub guest: u32,
    /// The host's port.
    pub host: u32,
}

/// A guest with a socket device.
pub struct Guest {
    transport: Box<dyn Transport>,
    /// Its memory.
    pub memory: SharedMemory,
    /// Queue 0, device to driver.
    pub receive: DriverQueue,
    /// Queue 1, driver to device.
    pub transmit: DriverQueue,
    /// Queue 2, if the device gets it.
    pub event: Option<DriverQueue>,
    options: Options,
    features: u64,
    /// The buffer of each receive chain, by its head.
    posted: Vec<u64>,
    receive_area: u64,
    /// Places for packets to be sent from, and those in use by the head of their chain.
    free_slots: Vec<u64>,
    busy_slots: Vec<Option<u64>>,
    inbox: VecDeque<Packet>,
}

impl Guest {
    /// Boots: negotiates features, posts receive buffers, starts the queues.
    pub fn boot(transport: impl Transport + 'static, options: Options) -> Result<Self> {
        let mut transport: Box<dyn Transport> = Box::new(transport);
        let slot = u64::from(HEADER_LEN) + MAX_PAYLOAD as u64;
        let (queue_size, slots) = (u64::from(options.queue_size), u64::from(options.queue_size / 2));
        let per_queue = 64 * 1024 + 26 * queue_size;
        let receive_bytes = u64::from(options.receive_buffers) * u64::from(options.receive_buffer);
        let size = 3 * per_queue + receive_bytes + slots * (slot + 4096) + 1024 * 1024;
        let mut memory = SharedMemory::new(size.next_multiple_of(4096))?;
        let offered = transport.features()?;
        ensure!(offered & FEATURE_VERSION_1 != 0, "the device is not a modern one");
        let wanted = FEATURE_VERSION_1 | if options.event_idx { FEATURE_EVENT_IDX } else { 0 };
        let receive = DriverQueue::new(&mut memory, 0, options.queue_size)?;
        let transmit = DriverQueue::new(&mut memory, 1, options.queue_size)?;
        let event = options
            .event_queue
            .then(|| DriverQueue::new(&mut memory, 2, 16))
            .transpose()?;
        let receive_area = memory.allocate(receive_bytes)?;
        let mut free_slots = Vec::new();
        for _ in 0..slots {
            free_slots.push(memory.allocate(slot)?);
        }
        let mut guest = Self {
            transport,
            memory,
            receive,
            transmit,
            event,
            options,
            features: offered & wanted,
            posted: vec![0; usize::from(options.queue_size)],
            receive_area,
            free_slots,
            busy_slots: vec![None; usize::from(options.queue_size)],
            inbox: VecDeque::new(),
        };
        guest.bring_up()?;
        Ok(guest)
    }

    /// Reboots: resets the device and starts anew, all connections forgotten.
    pub fn reboot(&mut self) -> Result<()> {
        self.transport.reset()?;
        self.inbox.clear();
        self.free_slots
            .extend(self.busy_slots.iter_mut().filter_map(Option::take));
        self.bring_up()
    }

    /// Pauses the machine; returns the queues' indices as the device left them.
    pub fn pause(&mut self) -> Result<Vec<u16>> {
        self.transport.stop()
    }

    /// Goes on after a pause.
    pub fn resume(&mut self) -> Result<()> {
        self.start()
    }

    /// Goes on after a pause with another device, as a migrated machine does: `bases` is what the pause returned.
    pub fn resume_on(&mut self, transport: impl Transport + 'static, bases: &[u16]) -> Result<()> {
        self.transport = Box::new(transport);
        self.transport.set_bases(bases);
        self.start()
    }

    /// The way to the device.
    pub fn transport(&mut self) -> &mut dyn Transport {
        self.transport.as_mut()
    }

    fn bring_up(&mut self) -> Result<()> {
        let event_idx = self.features & FEATURE_EVENT_IDX != 0;
        self.receive.clear(event_idx)?;
        self.transmit.clear(event_idx)?;
        if let Some(event) = &mut self.event {
            event.clear(event_idx)?;
        }
        for index in 0..u64::from(self.options.receive_buffers) {
            self.post(self.receive_area + index * u64::from(self.options.receive_buffer))?;
        }
        self.start()?;
        self.receive.publish()
    }

    fn start(&mut self) -> Result<()> {
        let mut queues = vec![&self.receive, &self.transmit];
        queues.extend(&self.event);
        self.transport.start(self.features, &self.memory, &queues)
    }

    fn post(&mut self, address: u64) -> Result<()> {
        let buffer = Buffer {
            address,
            len: self.options.receive_buffer,
            writable: true,
        };
        let head = self
            .receive
            .add(&[buffer])?
            .context("the receive queue is full")?;
        self.posted[usize::from(head)] = address;
        Ok(())
    }

    /// A header from this guest to the host, with the credit that a fresh connection has.
    pub fn header(&self, ports: Ports, op: Op) -> Header {
        Header {
            src_cid: self.options.cid,
            dst_cid: HOST_CID,
            src_port: ports.guest,
            dst_port: ports.host,
            kind: TYPE_STREAM,
            op: op as u16,
            buf_alloc: BUF_ALLOC,
            ..Header::default()
        }
    }

    /// Sends a packet in two descriptors, as Linux does, waiting for room in the queue.
    pub fn send(&mut self, header: &Header, payload: &[u8]) -> Result<()> {
        let slot = self.slot()?;
        self.write_packet(slot, header, payload)?;
        self.submit(slot, payload.len())?;
        self.transmit.publish()
    }

    /// Sends a packet without payload whose notification is late.
    pub fn send_unannounced(&mut self, header: &Header) -> Result<()> {
        let slot = self.slot()?;
        self.write_packet(slot, header, &[])?;
        self.submit(slot, 0)?;
        self.transmit.show()
    }

    /// Sends a packet spread over descriptors of `cuts` bytes each, the last of which takes the rest.
    pub fn send_cut(&mut self, header: &Header, payload: &[u8], cuts: &[u32]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let slot = self.slot()?;
        self.write_packet(slot, header, payload)?;
        let (mut address, mut left) = (slot, HEADER_LEN + u32::try_from(payload.len())?);
        let mut buffers = Vec::new();
        for &cut in cuts.iter().filter(|cut| **cut > 0) {
            let len = cut.min(left);
            if len == 0 {
                break;
            }
            buffers.push(Buffer {
                address,
                len,
                writable: false,
            });
            address += u64::from(len);
            left -= len;
        }
        if left > 0 {
            buffers.push(Buffer {
                address,
                len: left,
                writable: false,
            });
        }
        let head = loop {
            if let Some(head) = self.transmit.add(&buffers)? {
                break head;
            }
            self.wait_for_transmitted(deadline)?;
            self.reclaim()?;
        };
        self.busy_slots[usize::from(head)] = Some(slot);
        self.transmit.publish()
    }

    /// Sends whatever lies in `buffers`.
    pub fn send_raw(&mut self, buffers: &[Buffer]) -> Result<()> {
        self.transmit
            .add(buffers)?
            .context("the transmit queue is full")?;
        self.transmit.publish()
    }

    /// Sends a packet without copying its payload: it is what the slot held before. For benches.
    pub fn send_stale(&mut self, header: &Header) -> Result<bool> {
        self.reclaim()?;
        let Some(slot) = self.free_slots.pop() else {
            return Ok(false);
        };
        self.memory
            .memory
            .write_slice(&header.to_bytes(), GuestAddress(slot))?;
        self.submit(slot, header.len as usize)?;
        Ok(true)
    }

    fn write_packet(&self, slot: u64, header: &Header, payload: &[u8]) -> Result<()> {
        ensure!(payload.len() <= MAX_PAYLOAD, "the payload is too long");
        self.memory
            .memory
            .write_slice(&header.to_bytes(), GuestAddress(slot))?;
        Ok(self
            .memory
            .memory
            .write_slice(payload, GuestAddress(slot + u64::from(HEADER_LEN)))?)
    }

    fn submit(&mut self, slot: u64, payload: usize) -> Result<()> {
        let header = Buffer {
            address: slot,
            len: HEADER_LEN,
            writable: false,
        };
        let payload = Buffer {
            address: slot + u64::from(HEADER_LEN),
            len: u32::try_from(payload)?,
            writable: false,
        };
        let both = [header, payload];
        let buffers = if payload.len == 0 { &both[..1] } else { &both[..] };
        let head = self
            .transmit
            .add(buffers)?
            .context("the transmit queue is full")?;
        self.busy_slots[usize::from(head)] = Some(slot);
        Ok(())
    }

    /// A place to send from; waits until the device has returned one.
    fn slot(&mut self) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.reclaim()?;
            if let Some(slot) = self.free_slots.pop() {
                return Ok(slot);
            }
            self.wait_for_transmitted(deadline)?;
        }
    }

    /// Waits until the device has returned something, or a moment has passed.
    fn wait_for_transmitted(&mut self, deadline: Instant) -> Result<()> {
        ensure!(
            Instant::now() < deadline,
            "the device does not return transmitted packets"
        );
        // A device that waits for receive buffers in the meantime gets them.
        while let Some(packet) = self.take_packet()? {
            self.inbox.push_back(packet);
        }
        if !self.transmit.arm()? {
            event::wait(
                &[&self.transmit.call, &self.receive.call],
                Duration::from_millis(100),
            )?;
        }
        Ok(())
    }

    /// Waits until the device has returned everything that was sent.
    pub fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.reclaim()?;
            if self.transmit.used_index()? == self.transmit.available_index() {
                return Ok(());
            }
            self.wait_for_transmitted(deadline)?;
        }
    }

    /// Takes back what the device has sent.
    pub fn reclaim(&mut self) -> Result<()> {
        while let Some(used) = self.transmit.take_used()? {
            ensure!(
                used.written == 0,
                "the device claims to have written to a transmitted packet"
            );
            let slot = self
                .busy_slots
                .get_mut(usize::from(used.head))
                .and_then(Option::take);
            self.free_slots.extend(slot);
        }
        Ok(())
    }

    /// Looks at each packet that has arrived, without copying its payload, and posts the buffers again. Returns how
    /// many there were. For benches.
    pub fn receive_each(&mut self, mut look: impl FnMut(&Header)) -> Result<usize> {
        let mut count = 0;
        while let Some(used) = self.receive.take_used()? {
            let address = self.posted[usize::from(used.head)];
            let header = self.read_header(address)?;
            look(&header);
            self.post(address)?;
            count += 1;
            if count % 32 == 0 {
                self.receive.publish()?;
            }
        }
        if count % 32 != 0 {
            self.receive.publish()?;
        }
        Ok(count)
    }

    /// The next packet, in order of arrival; none when none comes within `timeout`.
    pub fn receive_within(&mut self, timeout: Duration) -> Result<Option<Packet>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(packet) = self.inbox.pop_front() {
                return Ok(Some(packet));
            }
            if let Some(packet) = self.take_packet()? {
                return Ok(Some(packet));
            }
            if self.receive.arm()? {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !event::wait(&[&self.receive.call], left)? {
                return self.take_packet();
            }
        }
    }

    /// The next packet of a connection; packets of others are kept for later.
    pub fn receive_for(&mut self, ports: Ports) -> Result<Packet> {
        let deadline = Instant::now() + PATIENCE;
        let mut others = VecDeque::new();
        let found = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive_within(left)? {
                Some(packet)
                    if packet.header.dst_port == ports.guest && packet.header.src_port == ports.host =>
                {
                    break Some(packet);
                }
                Some(packet) => others.push_back(packet),
                None => break None,
            }
        };
        others.append(&mut self.inbox);
        self.inbox = others;
        found.with_context(|| format!("nothing came for {ports:?}"))
    }

    /// Waits until the device has dealt with everything that was sent, and takes what it said of it meanwhile.
    pub fn catch_up(&mut self) -> Result<Vec<Packet>> {
        // Answers come in order, and this one can be no other's.
        let nobody = Ports {
            guest: u32::MAX - 2,
            host: u32::MAX - 3,
        };
        self.send(&self.header(nobody, Op::Rw), &[])?;
        let mut said = Vec::new();
        loop {
            let packet = self
                .receive_within(PATIENCE)?
                .context("the device does not answer")?;
            if packet.header.dst_port == nobody.guest && packet.is(Op::Rst) {
                return Ok(said);
            }
            said.push(packet);
        }
    }

    /// The next packet of a connection, which must be `op`. What is said of credit is passed over unless asked for.
    pub fn expect(&mut self, ports: Ports, op: Op) -> Result<Packet> {
        loop {
            let packet = self.receive_for(ports)?;
            if packet.is(op) {
                return Ok(packet);
            }
            ensure!(
                packet.is(Op::CreditUpdate) || packet.is(Op::CreditRequest),
                "expected {op:?}, got {:?}",
                packet.header
            );
        }
    }

    fn take_packet(&mut self) -> Result<Option<Packet>> {
        let Some(used) = self.receive.take_used()? else {
            return Ok(None);
        };
        let address = self.posted[usize::from(used.head)];
        ensure!(
            used.written >= HEADER_LEN,
            "the device wrote {} bytes, no packet",
            used.written
        );
        let header = self.read_header(address)?;
        ensure!(
            used.written == HEADER_LEN + header.len,
            "a packet's length is not what was written: {header:?}"
        );
        ensure!(
            used.written <= self.options.receive_buffer,
            "the device wrote more than a buffer holds"
        );
        let mut payload = vec![0; header.len as usize];
        self.memory
            .memory
            .read_slice(&mut payload, GuestAddress(address + u64::from(HEADER_LEN)))?;
        self.post(address)?;
        self.receive.publish()?;
        ensure!(
            header.src_cid == HOST_CID && header.dst_cid == self.options.cid,
            "misaddressed: {header:?}"
        );
        Ok(Some(Packet { header, payload }))
    }

    fn read_header(&self, address: u64) -> Result<Header> {
        let mut bytes = [0; HEADER_SIZE];
        self.memory.memory.read_slice(&mut bytes, GuestAddress(address))?;
        Ok(Header::from_bytes(&bytes))
    }

    /// Waits until the device has a packet for us, or has returned transmitted ones if those are needed; false when
    /// `timeout` passes first.
    pub fn wait(&mut self, need_room: bool, timeout: Duration) -> Result<bool> {
        if self.receive.arm()? || (need_room && self.transmit.arm()?) {
            return Ok(true);
        }
        event::wait(&[&self.receive.call, &self.transmit.call], timeout)
    }

    /// The eventfd that the device rings when it broke over `queue`.
    pub fn broken(&self, queue: u16) -> Option<&Event> {
        match queue {
            0 => Some(&self.receive.broken),
            1 => Some(&self.transmit.broken),
            _ => self.event.as_ref().map(|event| &event.broken),
        }
    }
}
