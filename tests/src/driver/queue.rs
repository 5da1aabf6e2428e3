//! A split virtqueue from the driver's side (virtio 1.2, section 2.7).

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use anyhow::{Result, ensure};
use cove_virtio::device::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::event::{self, Event};
use super::memory::SharedMemory;
use super::vsock::PATIENCE;

/// `VIRTQ_DESC_F_NEXT`: the chain goes on at `next`.
pub const DESC_NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`: the device writes the buffer.
pub const DESC_WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`: the buffer is a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;

/// A buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Where it lies in guest memory.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

/// An entry of a descriptor table, as it lies in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    /// Where the buffer lies in guest memory.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
    /// `DESC_*`.
    pub flags: u16,
    /// The next entry of the chain.
    pub next: u16,
}

impl Descriptor {
    /// The entry's sixteen bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A buffer that the device reads, and the last of its chain.
pub fn readable(address: u64, len: u32) -> Descriptor {
    Descriptor {
        address,
        len,
        flags: 0,
        next: 0,
    }
}

/// A buffer that the device writes, and the last of its chain.
pub fn writable(address: u64, len: u32) -> Descriptor {
    Descriptor {
        flags: DESC_WRITE,
        ..readable(address, len)
    }
}

/// The same with another entry behind it.
pub fn followed(descriptor: Descriptor, next: u16) -> Descriptor {
    Descriptor {
        flags: descriptor.flags | DESC_NEXT,
        next,
        ..descriptor
    }
}

/// A chain from the table's first entry on: each is followed by the next one but the last.
pub fn linked(chain: &[Descriptor]) -> Vec<Descriptor> {
    let last = chain.len().saturating_sub(1);
    let entries = (1..).zip(chain).enumerate();
    entries
        .map(|(at, (next, descriptor))| {
            if at < last {
                followed(*descriptor, next)
            } else {
                *descriptor
            }
        })
        .collect()
}

/// A request's chain, from the table's first entry on: the address and the length of what the device reads, and of the
/// room for its answer. There is no buffer of no bytes.
pub fn request_chain(given: (u64, u32), answer: (u64, u32)) -> Vec<Descriptor> {
    let mut chain = Vec::new();
    if given.1 > 0 {
        chain.push(readable(given.0, given.1));
    }
    if answer.1 > 0 {
        chain.push(writable(answer.0, answer.1));
    }
    linked(&chain)
}

/// A chain that the device returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain's first descriptor.
    pub head: u16,
    /// Bytes that the device says it wrote.
    pub written: u32,
}

/// A queue in the hands of its driver.
pub struct DriverQueue {
    memory: Arc<GuestMemory>,
    /// Its place among the device's queues.
    pub index: u16,
    /// Number of entries.
    pub size: u16,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
    /// Rung to notify the device.
    pub kick: Event,
    /// Rung by the device.
    pub call: Event,
    /// Rung by the device when the queue is broken.
    pub broken: Event,
    event_idx: bool,
    free: Vec<u16>,
    /// The descriptors of each chain in flight, by its head.
    chains: Vec<Vec<u16>>,
    next_available: u16,
    announced: u16,
    taken: u16,
}

impl DriverQueue {
    /// Lays out a queue of `size` entries in fresh memory.
    pub fn new(memory: &mut SharedMemory, index: u16, size: u16) -> Result<Self> {
        let entries = u64::from(size);
        let mut queue = Self {
            descriptors: memory.allocate(16 * entries)?,
            available: memory.allocate(6 + 2 * entries)?,
            used: memory.allocate(6 + 8 * entries)?,
            memory: Arc::clone(&memory.memory),
            index,
            size,
            kick: Event::new()?,
            call: Event::new()?,
            broken: Event::new()?,
            event_idx: false,
            free: Vec::new(),
            chains: Vec::new(),
            next_available: 0,
            announced: 0,
            taken: 0,
        };
        queue.clear(false)?;
        Ok(queue)
    }

    /// Makes the queue as new, as a driver does after a reset.
    pub fn clear(&mut self, event_idx: bool) -> Result<()> {
        self.event_idx = event_idx;
        self.free = (0..self.size).rev().collect();
        self.chains = vec![Vec::new(); usize::from(self.size)];
        (self.next_available, self.announced, self.taken) = (0, 0, 0);
        let entries = usize::from(self.size);
        for (address, len) in [
            (self.descriptors, 16 * entries),
            (self.available, 6 + 2 * entries),
            (self.used, 6 + 8 * entries),
        ] {
            self.memory.write_slice(&vec![0; len], GuestAddress(address))?;
        }
        Ok(())
    }

    /// Adds a chain; none when there are too few descriptors left. The device sees it after [`DriverQueue::publish`].
    pub fn add(&mut self, buffers: &[Buffer]) -> Result<Option<u16>> {
        if buffers.is_empty() || self.free.len() < buffers.len() {
            return Ok(None);
        }
        let taken = self.free.split_off(self.free.len() - buffers.len());
        for (place, buffer) in buffers.iter().enumerate() {
            let next = taken.get(place + 1).copied();
            let flags =
                if buffer.writable { DESC_WRITE } else { 0 } | if next.is_some() { DESC_NEXT } else { 0 };
            let descriptor = Descriptor {
                address: buffer.address,
                len: buffer.len,
                flags,
                next: next.unwrap_or_default(),
            };
            self.write_descriptor(taken[place], descriptor)?;
        }
        let head = taken[0];
        self.chains[usize::from(head)] = taken;
        self.offer(head)?;
        Ok(Some(head))
    }

    /// Writes an entry of the descriptor table, whatever it says.
    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<()> {
        let address = self.descriptors + 16 * u64::from(index);
        Ok(self
            .memory
            .write_slice(&descriptor.to_bytes(), GuestAddress(address))?)
    }

    /// Puts `head` into the available ring, whatever it is.
    pub fn offer(&mut self, head: u16) -> Result<()> {
        let address = self.available + 4 + 2 * u64::from(self.next_available % self.size);
        self.memory.write_obj(head.to_le(), GuestAddress(address))?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(())
    }

    /// Sets the available ring's index to something else than what was offered.
    pub fn forge_available_index(&mut self, index: u16) -> Result<()> {
        self.next_available = index;
        self.publish()
    }

    /// Shows the device what was added, and leaves it to the next [`DriverQueue::publish`] to notify it.
    pub fn show(&self) -> Result<()> {
        Ok(self.memory.store(
            self.next_available.to_le(),
            GuestAddress(self.available + 2),
            Ordering::Release,
        )?)
    }

    /// Shows the device what was added, and notifies it if it wants to know.
    pub fn publish(&mut self) -> Result<()> {
        self.show()?;
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.announced, self.next_available);
        if self.wants_kick(old)? {
            self.kick.ring()?;
        }
        Ok(())
    }

    fn wants_kick(&self, old: u16) -> Result<bool> {
        if !self.event_idx {
            let flags: u16 = self.memory.load(GuestAddress(self.used), Ordering::Relaxed)?;
            return Ok(u16::from_le(flags) & 1 == 0);
        }
        let address = self.used + 4 + 8 * u64::from(self.size);
        let event = u16::from_le(self.memory.load(GuestAddress(address), Ordering::Relaxed)?);
        let new = self.announced;
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    /// The next chain that the device returned, if any.
    pub fn take_used(&mut self) -> Result<Option<Used>> {
        let index: u16 = self.memory.load(GuestAddress(self.used + 2), Ordering::Acquire)?;
        if u16::from_le(index) == self.taken {
            return Ok(None);
        }
        let address = self.used + 4 + 8 * u64::from(self.taken % self.size);
        let entry: u64 = self.memory.read_obj(GuestAddress(address))?;
        let entry = u64::from_le(entry).to_le_bytes();
        let head = u16::from_le_bytes([entry[0], entry[1]]);
        let written = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        self.taken = self.taken.wrapping_add(1);
        if let Some(chain) = self.chains.get_mut(usize::from(head)) {
            self.free.append(chain);
        }
        Ok(Some(Used { head, written }))
    }

    /// Waits for a chain that the device returns, whatever it is.
    pub fn next_used(&mut self) -> Result<Used> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = self.take_used()? {
                return Ok(used);
            }
            if !self.arm()? {
                let rest = deadline.saturating_duration_since(Instant::now());
                ensure!(
                    event::wait(&[&self.call], rest)?,
                    "the device does not answer on queue {}",
                    self.index
                );
            }
        }
    }

    /// Asks to be signalled about the next chain returned; true when one has been returned meanwhile.
    pub fn arm(&self) -> Result<bool> {
        if self.event_idx {
            let address = self.available + 4 + 2 * u64::from(self.size);
            self.memory
                .store(self.taken.to_le(), GuestAddress(address), Ordering::Relaxed)?;
            fence(Ordering::SeqCst);
        }
        let index: u16 = self.memory.load(GuestAddress(self.used + 2), Ordering::Acquire)?;
        Ok(u16::from_le(index) != self.taken)
    }

    /// How many chains the device has been given in all, modulo 2¹⁶.
    pub fn available_index(&self) -> u16 {
        self.next_available
    }

    /// The device's used index as it lies in memory.
    pub fn used_index(&self) -> Result<u16> {
        Ok(u16::from_le(
            self.memory.load(GuestAddress(self.used + 2), Ordering::Acquire)?,
        ))
    }
}
