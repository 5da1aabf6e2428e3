//! The seam between a device and whatever carries it.
//!
//! ```text
//!              activate               suspend
//!  ┌──────────┐ ──────► ┌────────┐ ──────────► ┌───────────┐
//!  │ Inactive │         │ Active │             │ Suspended │
//!  └──────────┘ ◄────── └────────┘ ◄────────── └───────────┘
//!        ▲       reset              activate         │
//!        └───────────────────────────────────────────┘
//!                            reset
//! ```
//!
//! The transport (virtio-mmio, virtio-pci or vhost-user) owns the state and drives it; the device follows.
//! Between `activate` and the next `suspend` or `reset` the queues belong to the device alone, so no transport can
//! change an address or a size under it: that is how "frozen after `DRIVER_OK`" is kept, by ownership and not by a
//! check.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::queue::DeviceQueue;

/// The guest's memory as devices see it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// `VIRTIO_F_VERSION_1`: every device here is a modern one (virtio 1.2, section 6).
pub const FEATURE_VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_INDIRECT_DESC`: a chain may live in a table of its own (section 2.7.5.3).
pub const FEATURE_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`: each side says at which index it wants to be woken (section 2.7.10).
pub const FEATURE_EVENT_IDX: u64 = 1 << 29;

/// What kind of device a driver should bind (virtio 1.2, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceType {
    /// Networks.
    Network = 1,
    /// Disks.
    Block = 2,
    /// Random numbers.
    Entropy = 4,
    /// Memory that the guest does not use.
    Balloon = 5,
    /// Sockets between guest and host.
    Vsock = 19,
    /// Shared folders.
    Fs = 26,
}

/// What a device asks of one of its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Most entries the queue may have, a power of two.
    pub max_size: u16,
    /// Whether the device cannot be activated without it.
    ///
    /// Transports such as vhost-user hand over only some queues (QEMU keeps a socket device's event queue to
    /// itself), so a device says which it can do without.
    pub required: bool,
}

/// How a device reaches the driver's attention.
///
/// Called from the device's own thread; implementations must not block.
pub trait Interrupt: Send + Sync {
    /// The queue has used buffers that the driver asked to hear of.
    fn signal_queue(&self, queue: u16) -> io::Result<()>;

    /// The configuration space changed.
    fn signal_config(&self) -> io::Result<()>;

    /// The driver broke a queue beyond repair: sets `DEVICE_NEEDS_RESET` or what the transport has in its place.
    /// `queue` is the one at fault.
    fn signal_broken(&self, queue: u16) -> io::Result<()>;
}

/// All that a device gets when the driver is ready.
pub struct Activation {
    /// The guest's memory; stays mapped for as long as the device holds it.
    pub memory: Arc<GuestMemory>,
    /// The features that driver and device agreed on.
    pub features: u64,
    /// The queues that the driver enabled, in ascending order of index.
    pub queues: Vec<DeviceQueue>,
    /// How to reach the driver.
    pub interrupt: Arc<dyn Interrupt>,
}

/// Why a device could not be activated, or did not hand back its queues.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A queue that the device cannot do without is missing.
    #[error("queue {queue} is required but was not enabled by the driver")]
    QueueMissing {
        /// Its index.
        queue: u16,
    },
    /// The driver placed a queue outside of its memory, or did not finish it.
    #[error("queue {queue} does not lie in guest memory")]
    QueueInvalid {
        /// Its index.
        queue: u16,
    },
    /// `activate` on an active device: the transport's mistake.
    #[error("the device is active already")]
    AlreadyActive,
    /// A system call failed while the device was set up.
    #[error("cannot {operation}")]
    Os {
        /// What was attempted, as an infinitive.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Requests that nobody can break off are not over, such as those for a folder on a server that has gone away.
    #[error(
        "{requests} of its requests were not over within {} seconds; what they are for may be on a server that does not \
         answer",
        .waited.as_secs()
    )]
    Stuck {
        /// How many.
        requests: usize,
        /// How long they were waited for.
        waited: Duration,
    },
    /// The device's thread is gone; only dropping the device is left.
    #[error("the device's worker thread has ended")]
    WorkerGone,
}

/// A virtio device without a transport.
///
/// **Order.** `activate` is called on an inactive or suspended device, `suspend` on an active one, `reset` at any
/// time, `leave` when the machine is no more. **Threads.** A device does its work on a thread of its own; these calls
/// come from one transport thread and return when the change has taken effect, or within seconds with
/// [`DeviceError::Stuck`]. **Failure.** After an error from `activate` the device is as it was before, and after `Stuck`
/// from `suspend` it goes on. After `Stuck` from `reset` it takes no further request, but those that are under way have
/// the guest's memory yet: the reset is not done, and only `reset` and `leave` may follow. A device that the guest broke
/// drops what it was doing, signals it and waits for `reset`.
pub trait Device: Send {
    /// What kind of device this is.
    fn device_type(&self) -> DeviceType;

    /// The features that the device offers.
    fn features(&self) -> u64;

    /// The device's queues, by index.
    fn queues(&self) -> &'static [QueueSpec];

    /// Fills `data` from the configuration space at `offset`; what lies past its end reads as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Takes a write to the configuration space. Most devices have nothing to write to, and ignore it.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Starts the device, or continues it after `suspend`, with everything that the guest can see unchanged.
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError>;

    /// Stops the queues and hands them back with nothing in flight: each chain taken has been given back as used, and
    /// guest memory is not written to. Only the chains of requests that may wait for ever, such as for a file lock, stay
    /// with the device, which returns them after the next `activate`, or never after a `reset`. What the device knows
    /// beyond its queues (open connections, say) stays, until `activate` or `reset`.
    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError>;

    /// Stops the queues, hands them back and forgets everything that the old driver set up.
    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError>;

    /// The same where the machine is no more, and its memory nobody's but the device's: requests that nobody can break
    /// off are left behind with that memory, and end there. The device is fit for another machine.
    fn leave(&mut self) {
        if let Err(error) = self.reset() {
            tracing::error!(%error, "a device cannot be reset");
        }
    }
}

/// Reads `data.len()` bytes at `offset` of a configuration space, zero past its end.
pub(crate) fn read_config_space(config: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| config.get(offset..))
        .unwrap_or_default();
    let count = rest.len().min(data.len());
    data[..count].copy_from_slice(&rest[..count]);
}
