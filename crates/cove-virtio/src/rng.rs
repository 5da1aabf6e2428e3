//! The entropy device (virtio 1.2, section 5.4): random bytes from the host's kernel.
//!
//! The guest gets what `getrandom(2)` gives, which never runs dry once the host has booted. What cannot be had is left
//! out, and never replaced by zeroes: a request that fails is returned with nothing written. A request gets at most
//! [`MAX_REQUEST`] bytes, whatever its buffers would hold, so that no guest can keep the thread busy with one.

use cove_confine::seccomp::Thread;
use rustix::rand::{GetRandomFlags, getrandom};
use vm_memory::VolatileSlice;

use crate::device::{
    Activation, Device, DeviceError, DeviceType, FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_VERSION_1,
    GuestMemory, QueueSpec,
};
use crate::one_thread::{Served, Service, Session};
use crate::queue::{Chain, DeviceQueue, Direction, gather};

/// Most bytes that one request gets. Linux asks for 64 at a time.
pub const MAX_REQUEST: usize = 4096;

const QUEUES: &[QueueSpec] = &[QueueSpec {
    max_size: 64,
    required: true,
}];

/// The entropy device.
#[derive(Default)]
pub struct Rng {
    session: Session,
}

/// Answers requests with random bytes.
struct Serving;

impl Rng {
    /// An entropy device.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Device for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        FEATURE_VERSION_1 | FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX
    }

    fn queues(&self) -> &'static [QueueSpec] {
        QUEUES
    }

    /// There is no configuration.
    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        self.session.begin(activation, QUEUES, Serving)
    }

    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.session.end()
    }

    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.session.end()
    }
}

impl Service for Serving {
    const NAME: &'static str = "entropy";
    const KIND: Thread = Thread::Entropy;

    fn serve(&mut self, _queue: u16, memory: &GuestMemory, chain: Chain<'_>) -> Served {
        let mut slices = Vec::new();
        Served::Done(match gather(memory, chain, Direction::Writable, &mut slices) {
            Ok(_) => fill(&slices),
            Err(error) => {
                tracing::debug!(%error, "a request for entropy is malformed");
                0
            }
        })
    }
}

/// Fills the buffers from their beginning, with at most [`MAX_REQUEST`] bytes; returns with how many.
fn fill(slices: &[VolatileSlice<'_>]) -> u32 {
    let mut bytes = [0; MAX_REQUEST];
    let wanted = slices
        .iter()
        .map(VolatileSlice::len)
        .sum::<usize>()
        .min(MAX_REQUEST);
    let got = match getrandom(&mut bytes[..wanted], GetRandomFlags::empty()) {
        Ok(got) => got,
        Err(error) => {
            tracing::debug!(%error, "the host gives no entropy");
            0
        }
    };
    let mut rest = &bytes[..got];
    for slice in slices {
        let (now, later) = rest.split_at(slice.len().min(rest.len()));
        slice.copy_from(now);
        rest = later;
    }
    u32::try_from(got).unwrap_or(0)
}
