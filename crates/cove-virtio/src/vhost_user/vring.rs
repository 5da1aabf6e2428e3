//! One virtqueue as the front end describes it, message by message, and the eventfds that go with it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::device::{GuestMemory, Interrupt};

/// Where the front end put a ring's parts, as addresses of its own process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Addresses {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// A ring's configuration. Frozen by the backend while the ring is started.
#[derive(Debug, Default)]
pub(super) struct Vring {
    pub(super) size: u16,
    pub(super) addresses: Addresses,
    /// The next entry of the available ring to take.
    pub(super) base: u16,
    /// What the base and the used ring's index were when the ring was last stopped; a driver that goes on where it was
    /// starts there again.
    pub(super) stopped_at: Option<(u16, u16)>,
    pub(super) kick: Option<OwnedFd>,
    /// A kick arrived, or will: the ring runs until its base is asked for.
    pub(super) started: bool,
    pub(super) enabled: bool,
}

impl Vring {
    /// Whether the device may work on the ring.
    pub(super) fn is_live(&self) -> bool {
        self.started && self.enabled && self.kick.is_some()
    }

    /// The queue that the configuration describes; `translate` turns the front end's addresses into the guest's.
    pub(super) fn build(
        &self,
        memory: &GuestMemory,
        max_size: u16,
        event_idx: bool,
        translate: impl Fn(u64) -> Option<u64>,
    ) -> Option<Queue> {
        let address = |address| translate(address).map(GuestAddress);
        let used = address(self.addresses.used)?;
        let mut queue = Queue::new(max_size).ok()?;
        queue.try_set_size(self.size).ok()?;
        queue
            .try_set_desc_table_address(address(self.addresses.descriptors)?)
            .ok()?;
        queue
            .try_set_avail_ring_address(address(self.addresses.available)?)
            .ok()?;
        queue.try_set_used_ring_address(used).ok()?;
        queue.set_next_avail(self.base);
        queue.set_next_used(used_index(memory, used)?);
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Some(queue)
    }
}

/// The used ring's index, which the message protocol does not carry (virtio 1.2, section 2.7.8).
fn used_index(memory: &GuestMemory, used: GuestAddress) -> Option<u16> {
    use vm_memory::Address;
    memory
        .load(used.checked_add(2)?, std::sync::atomic::Ordering::Acquire)
        .ok()
        .map(u16::from_le)
}

/// The eventfds on which the front end hears of its rings. They may be replaced at any time, as QEMU does when the
/// guest masks an interrupt.
#[derive(Debug)]
pub(super) struct Signals {
    rings: Vec<Mutex<RingSignals>>,
}

#[derive(Debug, Default)]
struct RingSignals {
    call: Option<File>,
    error: Option<File>,
}

impl Signals {
    pub(super) fn new(rings: usize) -> Self {
        Self {
            rings: std::iter::repeat_with(Mutex::default).take(rings).collect(),
        }
    }

    pub(super) fn set_call(&self, ring: usize, call: Option<File>) {
        self.with(ring, |signals| signals.call = call);
    }

    pub(super) fn set_error(&self, ring: usize, error: Option<File>) {
        self.with(ring, |signals| signals.error = error);
    }

    fn with<T>(&self, ring: usize, act: impl FnOnce(&mut RingSignals) -> T) -> Option<T> {
        let ring = self.rings.get(ring)?;
        Some(act(&mut ring.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Interrupt for Signals {
    fn signal_queue(&self, queue: u16) -> io::Result<()> {
        self.with(usize::from(queue), |signals| notify(signals.call.as_ref()))
            .unwrap_or(Ok(()))
    }

    /// Front ends hear of configuration changes over a channel that none of the devices here has needed so far.
    fn signal_config(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn signal_broken(&self, queue: u16) -> io::Result<()> {
        self.with(usize::from(queue), |signals| notify(signals.error.as_ref()))
            .unwrap_or(Ok(()))
    }
}

/// A front end that polls gives no eventfd.
fn notify(event: Option<&File>) -> io::Result<()> {
    match event.map(|event| rustix::io::write(event, &1u64.to_ne_bytes())) {
        // A counter about to overflow is a front end that has more signals waiting than it can count.
        None | Some(Ok(_) | Err(rustix::io::Errno::AGAIN)) => Ok(()),
        Some(Err(error)) => Err(error.into()),
    }
}
