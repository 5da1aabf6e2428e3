//! A driver for the network device, frame by frame, and the program at the end of its stream.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cove_virtio::device::{FEATURE_EVENT_IDX, FEATURE_VERSION_1};
use vm_memory::{Bytes, GuestAddress};

use super::block::buffer;
use super::memory::SharedMemory;
use super::queue::{Buffer, DriverQueue, Used};
use super::transport::Transport;
use super::vsock::PATIENCE;

/// Entries of each queue.
pub const QUEUE_SIZE: u16 = 64;
/// Most bytes of a receive buffer.
pub const SLOT: u32 = 4096;
/// Bytes of the place for what is sent.
const SEND: u32 = 128 * 1024;
/// Bytes of the header before each frame.
pub const HEADER: usize = 12;
/// `VIRTIO_NET_F_MRG_RXBUF`.
pub const FEATURE_MERGEABLE: u64 = 1 << 15;

/// A guest with a network device.
pub struct NetGuest {
    transport: Box<dyn Transport>,
    /// Its memory.
    pub memory: SharedMemory,
    /// Queue 0, for frames to the guest.
    pub receive: DriverQueue,
    /// Queue 1, for frames of the guest.
    pub transmit: DriverQueue,
    /// What driver and device agreed on.
    pub features: u64,
    /// Where receive buffers lie, [`QUEUE_SIZE`] of [`SLOT`] bytes.
    pub slots: u64,
    /// Where frames to send lie.
    pub place: u64,
    posted: HashMap<u16, u64>,
    free: Vec<u64>,
}

impl NetGuest {
    /// Agrees on all that the device offers apart from `unknown`, and starts the queues, without receive buffers.
    pub fn boot(transport: impl Transport + 'static, unknown: u64) -> Result<Self> {
        let mut transport: Box<dyn Transport> = Box::new(transport);
        let mut memory = SharedMemory::new(2 << 20)?;
        let features = transport.features()? & !unknown;
        ensure!(
            features & FEATURE_VERSION_1 != 0,
            "the device is not a modern one"
        );
        let mut receive = DriverQueue::new(&mut memory, 0, QUEUE_SIZE)?;
        let mut transmit = DriverQueue::new(&mut memory, 1, QUEUE_SIZE)?;
        for queue in [&mut receive, &mut transmit] {
            queue.clear(features & FEATURE_EVENT_IDX != 0)?;
        }
        let slots = memory.allocate(u64::from(QUEUE_SIZE) * u64::from(SLOT))?;
        let place = memory.allocate(u64::from(SEND))?;
        transport.start(features, &memory, &[&receive, &transmit])?;
        let mut guest = Self {
            transport,
            memory,
            receive,
            transmit,
            features,
            slots,
            place,
            posted: HashMap::new(),
            free: Vec::new(),
        };
        guest.free_all();
        Ok(guest)
    }

    fn free_all(&mut self) {
        self.posted.clear();
        let slots = (0..u64::from(QUEUE_SIZE)).map(|slot| self.slots + slot * u64::from(SLOT));
        self.free = slots.collect();
    }

    /// `len` bytes of the configuration space.
    pub fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>> {
        self.transport.config(offset, len)
    }

    /// Whether the link is up.
    pub fn link(&mut self) -> Result<bool> {
        Ok(self.config(6, 2)? == [1, 0])
    }

    /// Waits until the link is up, or down. Front ends of vhost-user are not told, so it looks again and again.
    pub fn await_link(&mut self, up: bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.link()? != up {
            ensure!(Instant::now() < deadline, "the link does not become up: {up}");
            sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Gives the device `count` receive buffers of `len` bytes.
    pub fn post(&mut self, count: u16, len: u32) -> Result<()> {
        for _ in 0..count {
            let slot = self.free.pop().context("no receive buffers are left")?;
            let head = self.receive.add(&[buffer(slot, len, true)])?;
            self.posted.insert(head.context("the queue is full")?, slot);
        }
        self.receive.publish()
    }

    /// Waits for the next frame, however many buffers it takes.
    pub fn receive(&mut self) -> Result<Vec<u8>> {
        let first = self.next_buffer()?;
        ensure!(
            first.len() >= HEADER,
            "a buffer of {} bytes came back",
            first.len()
        );
        let (header, frame) = first.split_at(HEADER);
        ensure!(header[..10] == [0; 10], "the header says {header:?}");
        let mut frame = frame.to_vec();
        for _ in 1..u16::from_le_bytes([header[10], header[11]]) {
            frame.extend(self.next_buffer()?);
        }
        Ok(frame)
    }

    /// Waits for the next receive buffer, and frees it.
    pub fn next_buffer(&mut self) -> Result<Vec<u8>> {
        let used = self.receive.next_used()?;
        let slot = self
            .posted
            .remove(&used.head)
            .context("a buffer came back twice")?;
        ensure!(used.written <= SLOT, "the device claims to have written {used:?}");
        let mut bytes = vec![0; used.written as usize];
        self.memory.memory.read_slice(&mut bytes, GuestAddress(slot))?;
        self.free.push(slot);
        Ok(bytes)
    }

    /// Whether a receive buffer has come back.
    pub fn has_received(&self) -> Result<bool> {
        Ok(
            usize::from(self.receive.used_index()?.wrapping_add(self.outstanding()))
                != usize::from(self.receive.available_index()),
        )
    }

    fn outstanding(&self) -> u16 {
        u16::try_from(self.posted.len()).unwrap_or(u16::MAX)
    }

    /// Sends a frame and waits until its buffer comes back.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.send_behind([0; HEADER], frame)
    }

    /// The same behind a header of any content.
    pub fn send_behind(&mut self, header: [u8; HEADER], frame: &[u8]) -> Result<()> {
        let bytes = [&header[..], frame].concat();
        let len = u32::try_from(bytes.len())?;
        ensure!(len <= SEND, "too much for this driver");
        self.memory.memory.write_slice(&bytes, GuestAddress(self.place))?;
        self.submit(&[buffer(self.place, len, false)])?;
        Ok(())
    }

    /// Puts a chain into the transmit queue and waits for its return.
    pub fn submit(&mut self, chain: &[Buffer]) -> Result<Used> {
        let head = self.transmit.add(chain)?.context("the queue is full")?;
        self.transmit.publish()?;
        let used = self.transmit.next_used()?;
        ensure!(used.head == head, "another chain came back");
        ensure!(used.written == 0, "the device wrote to what it is to read");
        Ok(used)
    }

    /// Takes the queues from the device, as a machine that is paused. Returns how many chains the device has taken of
    /// each.
    pub fn pause(&mut self) -> Result<Vec<u16>> {
        self.transport.stop()
    }

    /// Gives the queues back.
    pub fn resume(&mut self) -> Result<()> {
        let queues = [&self.receive, &self.transmit];
        self.transport.start(self.features, &self.memory, &queues)
    }

    /// Reboots: the device is reset, and the queues made anew.
    pub fn reboot(&mut self) -> Result<()> {
        self.transport.reset()?;
        for queue in [&mut self.receive, &mut self.transmit] {
            queue.clear(self.features & FEATURE_EVENT_IDX != 0)?;
        }
        self.free_all();
        self.resume()
    }
}

/// The program at the end of the stream.
pub struct Wire(pub UnixStream);

impl Wire {
    /// Takes the device's next connection.
    pub fn accept(listener: &UnixListener) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        listener.set_nonblocking(true)?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    ensure!(Instant::now() < deadline, "the device does not connect");
                    sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(error.into()),
            }
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends a frame behind its length.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.0.write_all(&framed(frame)?)?;
        Ok(())
    }

    /// Waits for a frame of the guest.
    pub fn receive(&mut self) -> Result<Vec<u8>> {
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix).context("no frame comes")?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(prefix))?];
        self.0.read_exact(&mut frame).context("a frame ends early")?;
        Ok(frame)
    }

    /// Waits for the device to hang up; what it sends before that is dropped.
    pub fn await_end(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // What it had not read when it hung up.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error).context("the device does not hang up"),
            }
        }
    }
}

/// A frame behind its length.
pub fn framed(frame: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = u32::try_from(frame.len())?.to_be_bytes().to_vec();
    bytes.extend_from_slice(frame);
    Ok(bytes)
}
