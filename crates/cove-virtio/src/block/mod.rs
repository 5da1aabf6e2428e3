//! The disk device (virtio 1.2, section 5.2): a raw file, or a host's block device, as a disk of the guest.
//!
//! What is written goes through the host's page cache; a flush is `fdatasync`, and a driver that does not know of
//! flushes gets one after each write. Discarded ranges become holes in the file, so that a sparse disk stays sparse.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`disk`] | the file, and the bounds of what may be done to it |
//! | [`request`] | one request: what its buffers mean, and the answer |
//! | [`serving`] | the disk as one driver negotiated it |
//!
//! There is one queue, served by one thread, a request at a time: the page cache answers most of them at once. A request
//! for which the host has no space waits in the queue until there is some, since a guest that is told of an error gives
//! its file system up.

mod disk;
mod request;
mod serving;

use std::fs::File;
use std::sync::Arc;

use self::disk::Disk;
use self::serving::Serving;
use crate::device::{
    Activation, Device, DeviceError, DeviceType, FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_VERSION_1,
    QueueSpec, read_config_space,
};
use crate::one_thread::Session;
use crate::queue::DeviceQueue;

/// Bytes of a sector, whatever the disk's own blocks are (section 5.2.4).
pub const SECTOR: u64 = 512;
/// Bytes of the name that the guest can ask for (section 5.2.6).
pub const ID_LEN: usize = 20;

/// `VIRTIO_BLK_F_SIZE_MAX`: a buffer has at most so many bytes.
const FEATURE_SIZE_MAX: u64 = 1 << 1;
/// `VIRTIO_BLK_F_SEG_MAX`: a request has at most so many buffers.
const FEATURE_SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`: the disk cannot be written to.
const FEATURE_READ_ONLY: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`: the configuration space tells the size of a logical block.
const FEATURE_BLOCK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`.
const FEATURE_FLUSH: u64 = 1 << 9;
/// `VIRTIO_BLK_F_TOPOLOGY`: the configuration space tells which blocks are good to write.
const FEATURE_TOPOLOGY: u64 = 1 << 10;
/// `VIRTIO_BLK_F_DISCARD`.
const FEATURE_DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`.
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

const QUEUE_SIZE: u16 = 256;
/// Most buffers of a request: the queue's size, less header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Most bytes of a buffer. With [`SEG_MAX`] it bounds the work that one request can ask for, and so the time that a
/// suspension waits. Linux makes no buffer nearly as large.
const SIZE_MAX: u32 = 1 << 20;
/// Most sectors that one range of a discard may have: 4 GiB.
const MAX_DISCARD_SECTORS: u32 = 1 << 23;
/// Most ranges that one discard may have.
const MAX_DISCARD_RANGES: u32 = 64;
/// Most sectors that can be zeroed at a time: 64 MiB, since they may have to be written.
const MAX_ZERO_SECTORS: u32 = 1 << 17;
/// Blocks of 4 KiB are good to write, being what host file systems use: 2³ sectors.
const PHYSICAL_BLOCK_EXP: u8 = 3;

const QUEUES: &[QueueSpec] = &[QueueSpec {
    max_size: QUEUE_SIZE,
    required: true,
}];

/// Whether the guest may change a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may only read.
    ReadOnly,
    /// It may read and write.
    ReadWrite,
}

/// Why there is no disk device.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The name does not fit.
    #[error("{0:?} cannot be a disk's name: use 1 to 20 bytes of ASCII")]
    Id(String),
    /// What lies past the last whole sector would be out of the guest's reach.
    #[error("a disk of {0} bytes is not possible: use a multiple of 512, and at most 8 EiB")]
    Size(u64),
    /// The file was opened for reading only.
    #[error("the disk is to be writable, but its file was not opened for writing")]
    NotWritable,
    /// The system refused.
    #[error("cannot {operation}")]
    Os {
        /// What was attempted, as an infinitive.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The disk device. Dropping it ends its thread and closes the file, without a flush.
pub struct Block {
    disk: Arc<Disk>,
    on_full: Option<OnFull>,
    session: Session,
}

/// Hears that a request waits for space on the host. Called from the device's thread; must not block.
type OnFull = Arc<dyn Fn() + Send + Sync>;

impl Block {
    /// A disk on `file`, which the guest knows by the name `id`. Its size is the file's, until [`Gauge::measure`]
    /// finds that it has grown. Who holds the file otherwise, and by which locks, is for the caller to see to.
    pub fn new(file: File, access: Access, id: &str) -> Result<Self, BlockError> {
        Ok(Self {
            disk: Arc::new(Disk::new(file, access, id)?),
            on_full: None,
            session: Session::default(),
        })
    }

    /// Has `tell` called when a request begins to wait for space on the host, and now and then while it waits.
    pub fn on_full(&mut self, tell: impl Fn() + Send + Sync + 'static) {
        self.on_full = Some(Arc::new(tell));
    }

    /// Measures the disk while the device is in the hands of its transport.
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.disk))
    }

    /// The configuration space (section 5.2.4).
    fn config(&self) -> [u8; 60] {
        let mut config = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.disk.sectors().to_le_bytes());
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &512u32.to_le_bytes());
        put(24, &[PHYSICAL_BLOCK_EXP, 0]);
        put(26, &(1u16 << PHYSICAL_BLOCK_EXP).to_le_bytes());
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &MAX_DISCARD_RANGES.to_le_bytes());
        put(44, &(1u32 << PHYSICAL_BLOCK_EXP).to_le_bytes());
        put(48, &MAX_ZERO_SECTORS.to_le_bytes());
        // One range at a time.
        put(52, &1u32.to_le_bytes());
        // Zeroes may become a hole.
        put(56, &[1]);
        config
    }
}

/// Finds out that a disk's file has grown.
#[derive(Clone)]
pub struct Gauge(Arc<Disk>);

impl Gauge {
    /// Looks at the file and returns the disk's size in bytes, which never shrinks. The driver learns of it when the
    /// transport tells it that the configuration has changed.
    pub fn measure(&self) -> Result<u64, BlockError> {
        Ok(self.0.measure()? * SECTOR)
    }
}

impl Device for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        let access = match self.disk.access() {
            Access::ReadOnly => FEATURE_READ_ONLY,
            Access::ReadWrite => FEATURE_FLUSH | FEATURE_DISCARD | FEATURE_WRITE_ZEROES,
        };
        FEATURE_VERSION_1
            | FEATURE_INDIRECT_DESC
            | FEATURE_EVENT_IDX
            | FEATURE_SIZE_MAX
            | FEATURE_SEG_MAX
            | FEATURE_BLOCK_SIZE
            | FEATURE_TOPOLOGY
            | access
    }

    fn queues(&self) -> &'static [QueueSpec] {
        QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let serving = Serving {
            disk: Arc::clone(&self.disk),
            features: activation.features,
            complained: false,
            on_full: self.on_full.clone(),
            starved: 0,
        };
        self.session.begin(activation, QUEUES, serving)
    }

    /// Ends the request being served first; those not taken yet stay in the queue.
    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.session.end()
    }

    /// The same as a suspension, for a disk knows nothing of its drivers.
    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.session.end()
    }
}
