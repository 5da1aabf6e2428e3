//! The balloon device (virtio 1.2, section 5.5), as far as it makes a machine light: the guest reports pages that it does
//! not use, and the host has them back until the guest touches them again.
//!
//! ```text
//!  guest's allocator ── free pages, 2 MiB and more at once ──▶ reporting queue ──▶ the host's memory
//! ```
//!
//! The other half of the device, by which a host takes memory that the guest does use, is not driven: the size that is
//! asked for is always zero. Its two queues must be there all the same, and what arrives on them is returned.
//!
//! No machine has it yet: under nested KVM a guest was not seen to give memory back through it. Emulated machines have
//! QEMU's own.
//!
//! What a guest reports is discarded whatever is in it. A guest that reports pages that it uses loses what was there,
//! which is its own.

use cove_confine::seccomp::Thread;

use crate::device::{
    Activation, Device, DeviceError, DeviceType, FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_VERSION_1,
    GuestMemory, QueueSpec,
};
use crate::discard::{Mapping, discard};
use crate::one_thread::{Served, Service, Session};
use crate::queue::{Chain, DeviceQueue, Direction, gather};
use vm_memory::{GuestMemory as _, GuestMemoryRegion as _, VolatileSlice};

/// `VIRTIO_BALLOON_F_REPORTING`: the guest reports free pages.
const FEATURE_REPORTING: u64 = 1 << 5;

/// The first queue that may be the one of reports. The specification gives it the index 4 (section 5.5.2); Linux counts
/// only queues of features that are offered, and so has it follow the first two. No other feature here has a queue.
const REPORTING: u16 = 2;

const QUEUES: &[QueueSpec] = &[MUST, MUST, MAY, MAY, MAY];

/// Those for inflating and deflating.
const MUST: QueueSpec = QueueSpec {
    max_size: 64,
    required: true,
};

const MAY: QueueSpec = QueueSpec {
    required: false,
    ..MUST
};

/// The balloon device.
#[derive(Default)]
pub struct Balloon {
    session: Option<Session>,
}

/// Takes reports.
struct Serving {
    mapping: Mapping,
    /// Whether the driver said that it reports.
    reporting: bool,
}

impl Balloon {
    /// A balloon that nobody inflates.
    pub fn new() -> Self {
        Self::default()
    }

    fn end_session(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.session.take().map_or(Ok(Vec::new()), Session::end)
    }
}

impl Device for Balloon {
    fn device_type(&self) -> DeviceType {
        DeviceType::Balloon
    }

    fn features(&self) -> u64 {
        FEATURE_VERSION_1 | FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX | FEATURE_REPORTING
    }

    fn queues(&self) -> &'static [QueueSpec] {
        QUEUES
    }

    /// No pages are asked for, and none are there.
    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        if self.session.is_some() {
            return Err(DeviceError::AlreadyActive);
        }
        let regions = activation.memory.iter();
        let shared = regions.map(|region| region.file_offset().is_some()).next();
        let mapping = if shared == Some(true) {
            Mapping::Shared
        } else {
            Mapping::Anonymous
        };
        let reporting = activation.features & FEATURE_REPORTING != 0;
        let serving = Serving { mapping, reporting };
        self.session = Some(Session::begin(activation, QUEUES, serving)?);
        Ok(())
    }

    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.end_session()
    }

    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.end_session()
    }
}

impl Drop for Balloon {
    fn drop(&mut self) {
        // It logs what goes wrong.
        let _ = self.end_session();
    }
}

impl Service for Serving {
    const NAME: &'static str = "balloon";
    const KIND: Thread = Thread::Balloon;

    fn serve(&mut self, queue: u16, memory: &GuestMemory, chain: Chain<'_>) -> Served {
        if self.reporting && queue >= REPORTING {
            let mut slices = Vec::new();
            match gather(memory, chain, Direction::Writable, &mut slices) {
                Ok(_) => self.discard(&slices),
                Err(error) => tracing::debug!(%error, "a report of free pages is malformed"),
            }
        }
        Served::Done(0)
    }
}

impl Serving {
    fn discard(&self, slices: &[VolatileSlice<'_>]) {
        for slice in slices {
            if let Err(error) = discard(slice, self.mapping) {
                // The guest loses nothing: the pages stay where they are.
                tracing::debug!(%error, "free pages cannot be given back");
            }
        }
    }
}
