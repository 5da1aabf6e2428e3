//! A split virtqueue as a device uses it.
//!
//! [`DeviceQueue`] adds to `virtio_queue::Queue` what every device here needs and the crate leaves open: errors told
//! apart from an empty ring, chains turned into bounds-checked slices of guest memory, and the driver's wish not to
//! be interrupted when `EVENT_IDX` is off. Whoever holds the value owns the queue.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Address as _, Bytes, GuestAddress, GuestMemory as _, VolatileSlice};

use crate::device::{GuestMemory, Interrupt};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;

/// Bytes of the used ring before its elements, and of each of these (virtio 1.2, section 2.7.8). `avail_event` follows.
const USED_RING_HEADER: u64 = 4;
const USED_ELEMENT: u64 = 8;

/// The driver broke the queue itself, not just one buffer: nothing more can be done with it before a reset.
#[derive(Debug, thiserror::Error)]
#[error("queue {queue} is broken")]
pub struct BrokenQueue {
    /// Its index.
    pub queue: u16,
    /// What was wrong.
    pub source: virtio_queue::Error,
}

/// What is wrong with one chain. The queue itself is fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A buffer reaches outside of guest memory.
    #[error("a descriptor at {address:#x} of {len} bytes does not lie in guest memory")]
    OutOfBounds {
        /// Its guest-physical address.
        address: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// A buffer for the device to read stands where one to write belongs, or the other way round.
    #[error("a descriptor at {address:#x} has the wrong direction")]
    WrongDirection {
        /// Its guest-physical address.
        address: u64,
    },
}

/// A chain of buffers that the driver made available.
pub type Chain<'m> = DescriptorChain<&'m GuestMemory>;

/// Which way the bytes of a chain go, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads what the driver wrote.
    Readable,
    /// The device writes.
    Writable,
}

/// A queue in the hands of its device.
#[derive(Debug)]
pub struct DeviceQueue {
    /// Its place among the device's queues.
    pub index: u16,
    /// The ring's state.
    pub queue: Queue,
    /// The eventfd that the driver's notifications arrive on.
    pub kick: OwnedFd,
    /// Chains completed since the driver's wish for a signal was last looked at.
    unsignalled: u16,
}

impl DeviceQueue {
    /// Puts together what a transport set up.
    pub fn new(index: u16, queue: Queue, kick: OwnedFd) -> Self {
        Self {
            index,
            queue,
            kick,
            unsignalled: 0,
        }
    }

    /// The next chain that the driver made available, if any.
    pub fn next_chain<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<Chain<'m>>, BrokenQueue> {
        match self.queue.iter(memory) {
            Ok(mut available) => Ok(available.next()),
            Err(source) => Err(self.broken(source)),
        }
    }

    /// Gives the `count` chains taken last back to the ring, as if they had not been taken.
    pub fn put_back(&mut self, count: u16) {
        self.queue
            .set_next_avail(self.queue.next_avail().wrapping_sub(count));
    }

    /// Returns a chain to the driver with `written` bytes filled in.
    pub fn complete(&mut self, memory: &GuestMemory, head: u16, written: u32) -> Result<(), BrokenQueue> {
        self.queue
            .add_used(memory, head, written)
            .map_err(|source| self.broken(source))?;
        self.unsignalled = self.unsignalled.saturating_add(1);
        Ok(())
    }

    /// How many chains have been completed since [`DeviceQueue::wants_signal`] was last asked.
    pub fn unsignalled(&self) -> u16 {
        self.unsignalled
    }

    /// Asks for a notification when the driver adds a chain. True when one has been added meanwhile, for which no
    /// notification may come.
    pub fn arm(&mut self, memory: &GuestMemory) -> Result<bool, BrokenQueue> {
        self.queue
            .enable_notification(memory)
            .map_err(|source| self.broken(source))
    }

    /// Tells the driver not to notify.
    pub fn disarm(&mut self, memory: &GuestMemory) -> Result<(), BrokenQueue> {
        if !self.queue.event_idx_enabled() {
            return self
                .queue
                .disable_notification(memory)
                .map_err(|source| self.broken(source));
        }
        // The crate lets a wish that was never fulfilled stand. An index that is past is one that no chain has.
        let past = self.queue.next_avail().wrapping_sub(1);
        let avail_event = GuestAddress(self.queue.used_ring())
            .unchecked_add(USED_RING_HEADER + USED_ELEMENT * u64::from(self.queue.size()));
        memory
            .store(past.to_le(), avail_event, Ordering::Relaxed)
            .map_err(|source| self.broken(virtio_queue::Error::GuestMemory(source)))
    }

    /// Whether the driver has made chains available that were not taken.
    pub fn has_chains(&self, memory: &GuestMemory) -> Result<bool, BrokenQueue> {
        let made = self
            .queue
            .avail_idx(memory, Ordering::Acquire)
            .map_err(|source| self.broken(source))?;
        Ok(made.0 != self.queue.next_avail())
    }

    /// Whether the driver wants to hear of what was completed since this was last asked.
    pub fn wants_signal(&mut self, memory: &GuestMemory) -> Result<bool, BrokenQueue> {
        if std::mem::take(&mut self.unsignalled) == 0 {
            return Ok(false);
        }
        let wanted = self
            .queue
            .needs_notification(memory)
            .map_err(|source| self.broken(source))?;
        if !wanted || self.queue.event_idx_enabled() {
            return Ok(wanted);
        }
        let flags: u16 = memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(|source| self.broken(virtio_queue::Error::GuestMemory(source)))?;
        Ok(u16::from_le(flags) & NO_INTERRUPT == 0)
    }

    /// Tells the driver of what was completed, if it wants to hear of it. One that cannot be told finds out when it
    /// looks; `device` is the name that the log has then.
    pub(crate) fn signal(
        &mut self,
        memory: &GuestMemory,
        interrupt: &dyn Interrupt,
        device: &str,
    ) -> Result<(), BrokenQueue> {
        if self.wants_signal(memory)?
            && let Err(error) = interrupt.signal_queue(self.index)
        {
            tracing::warn!(device, queue = self.index, %error, "cannot signal the driver");
        }
        Ok(())
    }

    fn broken(&self, source: virtio_queue::Error) -> BrokenQueue {
        BrokenQueue {
            queue: self.index,
            source,
        }
    }
}

/// Appends the buffers of a chain to `slices` and returns how many bytes they hold together.
///
/// A descriptor loop ends where the queue's size says that no chain can be longer, and the 2³² bytes that the
/// specification allows a chain bound the sum.
pub fn gather<'m>(
    memory: &'m GuestMemory,
    chain: Chain<'m>,
    direction: Direction,
    slices: &mut Vec<VolatileSlice<'m>>,
) -> Result<usize, ChainError> {
    let mut total = 0;
    for descriptor in chain {
        if descriptor.is_write_only() != (direction == Direction::Writable) {
            return Err(ChainError::WrongDirection {
                address: descriptor.addr().0,
            });
        }
        total += append(memory, descriptor, slices)?;
    }
    Ok(total)
}

/// Appends the buffers of a chain that has both kinds: first those for the device to read, then those to write (virtio
/// 1.2, section 2.7.4.2). Bounded as in [`gather`].
pub fn split<'m>(
    memory: &'m GuestMemory,
    chain: Chain<'m>,
    readable: &mut Vec<VolatileSlice<'m>>,
    writable: &mut Vec<VolatileSlice<'m>>,
) -> Result<(), ChainError> {
    for descriptor in chain {
        if descriptor.is_write_only() {
            append(memory, descriptor, writable)?;
        } else if writable.is_empty() {
            append(memory, descriptor, readable)?;
        } else {
            return Err(ChainError::WrongDirection {
                address: descriptor.addr().0,
            });
        }
    }
    Ok(())
}

/// Appends one buffer, and returns how many bytes it holds.
fn append<'m>(
    memory: &'m GuestMemory,
    descriptor: Descriptor,
    slices: &mut Vec<VolatileSlice<'m>>,
) -> Result<usize, ChainError> {
    let address = descriptor.addr();
    let out_of_bounds = || ChainError::OutOfBounds {
        address: address.0,
        len: descriptor.len(),
    };
    let len = usize::try_from(descriptor.len()).map_err(|_| out_of_bounds())?;
    if len == 0 {
        return Ok(0);
    }
    // Nearly every buffer lies in one region; one that spans two becomes two slices.
    if let Ok(slice) = memory.get_slice(address, len) {
        slices.push(slice);
    } else {
        for slice in memory.get_slices(address, len) {
            slices.push(slice.map_err(|_| out_of_bounds())?);
        }
    }
    Ok(len)
}
