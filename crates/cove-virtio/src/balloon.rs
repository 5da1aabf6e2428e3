//! The balloon device (virtio 1.2, section 5.5), as far as it makes a machine light: the guest reports pages that it
//! does not use, and the host has them back until the guest touches them again.
//!
//! ```text
//!  guest's allocator ── free pages, 2 MiB and more at once ──▶ reporting queue ──▶ the host's memory
//! ```
//!
//! The other half of the device, by which a host takes memory that the guest does use, is not driven: the size that is
//! asked for is always zero. Its two queues must be there all the same, and what arrives on them is returned. A guest
//! that has pages in it, whoever asked it to, may have them back before it kills a program for want of memory.
//!
//! What a guest reports is discarded whatever is in it. A guest that reports pages that it uses loses what was there,
//! which is its own. A guest that fills its free pages with a pattern says so, and with which: pages that come back
//! from the host are zeroes, so nothing is discarded for a guest that expects anything else. Linux reports nothing to a
//! device that it cannot tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cove_confine::seccomp::Thread;

use crate::device::{
    Activation, Device, DeviceError, DeviceType, FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_VERSION_1,
    GuestMemory, QueueSpec, read_config_space,
};
use crate::discard::{Mapping, discard};
use crate::one_thread::{Served, Service, Session};
use crate::queue::{Chain, DeviceQueue, Direction, gather};
use vm_memory::{GuestMemory as _, GuestMemoryRegion as _, VolatileSlice};

/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`: the guest takes pages back without being told to when it has no others.
const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;
/// `VIRTIO_BALLOON_F_REPORTING`: the guest reports free pages.
const FEATURE_REPORTING: u64 = 1 << 5;
/// `VIRTIO_BALLOON_F_PAGE_POISON`: the guest tells what it expects in its free pages.
const FEATURE_PAGE_POISON: u64 = 1 << 4;

/// Where the configuration space (section 5.5.4) has the pattern, as four bytes.
const POISON: usize = 12;
const CONFIG_LEN: usize = POISON + size_of::<u32>();

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
    session: Session,
    /// The pattern in the guest's free pages, as it was written.
    poison: Arc<Poison>,
}

/// The bytes of the pattern. The guest may write them one by one, and while the device works.
#[derive(Default)]
struct Poison([AtomicU8; 4]);

impl Poison {
    fn bytes(&self) -> [u8; 4] {
        self.0.each_ref().map(|byte| byte.load(Ordering::Acquire))
    }
}

/// Takes reports.
struct Serving {
    mapping: Mapping,
    /// Whether the driver said that it reports.
    reporting: bool,
    poison: Arc<Poison>,
}

impl Balloon {
    /// A balloon that nobody inflates.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Device for Balloon {
    fn device_type(&self) -> DeviceType {
        DeviceType::Balloon
    }

    fn features(&self) -> u64 {
        FEATURE_VERSION_1
            | FEATURE_INDIRECT_DESC
            | FEATURE_EVENT_IDX
            | FEATURE_DEFLATE_ON_OOM
            | FEATURE_REPORTING
            | FEATURE_PAGE_POISON
    }

    fn queues(&self) -> &'static [QueueSpec] {
        QUEUES
    }

    /// No pages are asked for, and none are there.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; CONFIG_LEN];
        config[POISON..].copy_from_slice(&self.poison.bytes());
        read_config_space(&config, offset, data);
    }

    /// Only the pattern is the guest's to write.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let place = usize::try_from(at).ok().and_then(|at| at.checked_sub(POISON));
            if let Some(slot) = place.and_then(|place| self.poison.0.get(place)) {
                slot.store(*byte, Ordering::Release);
            }
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let regions = activation.memory.iter();
        let shared = regions.map(|region| region.file_offset().is_some()).next();
        let mapping = if shared == Some(true) {
            Mapping::Shared
        } else {
            Mapping::Anonymous
        };
        let reporting = activation.features & FEATURE_REPORTING != 0;
        let poison = Arc::clone(&self.poison);
        let serving = Serving {
            mapping,
            reporting,
            poison,
        };
        self.session.begin(activation, QUEUES, serving)
    }

    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.session.end()
    }

    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.poison = Arc::default();
        self.session.end()
    }
}

impl Service for Serving {
    const NAME: &'static str = "balloon";
    const KIND: Thread = Thread::Balloon;

    fn serve(&mut self, queue: u16, memory: &GuestMemory, chain: Chain<'_>) -> Served {
        if self.reporting && queue >= REPORTING && self.poison.bytes() == [0; 4] {
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
