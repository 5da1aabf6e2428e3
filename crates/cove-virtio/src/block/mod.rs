//! The disk device (virtio 1.2, section 5.2): a raw file, or a host's block device, as a disk of the guest.
//!
//! What is written goes through the host's page cache; a flush is `fdatasync`, and a driver that does not know of
//! flushes gets one after each write. Once a flush has failed, every further one fails for as long as the device is
//! there, and so does one that was under way with it: the host forgets what it could not write, and says so once, to
//! any of them. Discarded ranges become holes in the file, so that a sparse disk stays sparse.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`disk`] | the file, and the bounds of what may be done to it |
//! | [`request`] | one request: what its buffers mean, and the answer |
//! | [`flushes`] | which flushes are under way, and what one awaits that succeeded |
//! | [`serving`] | the disk as one driver negotiated it, and a queue served a request at a time |
//! | [`in_flight`] | a queue whose requests are in flight together |
//! | [`ring`] | what they are in flight through |
//!
//! There is one queue, or as many as were asked for, so that a guest has one for each vCPU. Each is served by a thread
//! of its own, which has the requests of its queue in flight together where it has a ring ([`Block::with_rings`]).
//! Without one it serves a request at a time: the page cache answers most of them at once, and one that the host's
//! disk has to answer keeps no other queue waiting. A request for which the host has no space waits in its queue until
//! there is some, since a guest that is told of an error gives its file system up.

mod disk;
mod flushes;
mod in_flight;
mod request;
mod ring;
mod serving;

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use virtio_queue::QueueT as _;

use self::disk::Disk;
use self::ring::Ring;
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
/// `VIRTIO_BLK_F_MQ`: the configuration space tells how many queues there are.
const FEATURE_QUEUES: u64 = 1 << 12;
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

/// Most queues of a disk.
pub const MAX_QUEUES: usize = 16;

/// A driver that has fewer vCPUs than there are queues leaves the last ones alone.
static QUEUES: [QueueSpec; MAX_QUEUES] = {
    let mut queues = [FURTHER; MAX_QUEUES];
    queues[0] = FIRST;
    queues
};

const FIRST: QueueSpec = QueueSpec {
    max_size: QUEUE_SIZE,
    required: true,
};

const FURTHER: QueueSpec = QueueSpec {
    required: false,
    ..FIRST
};

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

/// The disk device. Dropping it ends its threads and closes the file, without a flush.
pub struct Block {
    disk: Arc<Disk>,
    on_full: Option<OnFull>,
    /// How many the driver may have.
    queues: usize,
    /// One for each of them, by index; a queue without one is served a request at a time.
    rings: Vec<Arc<Mutex<Ring>>>,
    /// How long a thread stays in one of them without anything to do.
    rest: Duration,
    /// One for each queue that it has.
    sessions: Vec<Session>,
}

/// Hears that a request waits for space on the host. Called from any of the device's threads; must not block.
type OnFull = Arc<dyn Fn() + Send + Sync>;

impl Block {
    /// A disk on `file`, which the guest knows by the name `id`, with one queue and no ring. Its size is the file's,
    /// until [`Gauge::measure`] finds that it has grown. Who holds the file otherwise, and by which locks, is for the
    /// caller to see to.
    pub fn new(file: File, access: Access, id: &str) -> Result<Self, BlockError> {
        Ok(Self {
            disk: Arc::new(Disk::new(file, access, id)?),
            on_full: None,
            queues: 1,
            rings: Vec::new(),
            rest: in_flight::REST,
            sessions: Vec::new(),
        })
    }

    /// Lets the driver have `count` queues, at least one and at most [`MAX_QUEUES`]. So many requests are carried out
    /// at a time; what order they are in is the driver's to see to.
    #[must_use]
    pub fn with_queues(mut self, count: usize) -> Self {
        self.queues = count.clamp(1, MAX_QUEUES);
        self
    }

    /// Has the requests of each queue in flight together, through a ring of its own, where the host lets this process
    /// have rings: any Linux since 5.10, unless it was forbidden (`kernel.io_uring_disabled`, a container's list of
    /// system calls). Otherwise nothing changes. To be called after [`Block::with_queues`], and before
    /// the process is confined: rings are locked memory, and from [`cove_confine::seccomp::arm`] on it kills to set one
    /// up.
    #[must_use]
    pub fn with_rings(mut self) -> Self {
        let rings = (0..self.queues).map(|_| Ring::new(&self.disk).map(Mutex::new).map(Arc::new));
        match rings.collect::<Result<_, _>>() {
            Ok(rings) => {
                self.rings = rings;
                tracing::debug!(disk = self.disk.name(), "its requests are in flight together");
            }
            Err(error) => {
                let disk = self.disk.name();
                tracing::debug!(disk, %error, "there is no io_uring, and it serves a request at a time");
            }
        }
        self
    }

    /// Has a queue without requests give up the thread in its ring after `rest`, and not after two seconds.
    #[must_use]
    pub fn with_rest(mut self, rest: Duration) -> Self {
        self.rest = rest;
        self
    }

    /// Whether its queues have rings.
    pub fn has_rings(&self) -> bool {
        !self.rings.is_empty()
    }

    /// Ends every session, and hands all queues back.
    fn end(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        let (mut queues, mut result) = (Vec::new(), Ok(()));
        for mut session in self.sessions.drain(..) {
            match session.end() {
                Ok(mut ended) => queues.append(&mut ended),
                Err(error) => result = Err(error),
            }
        }
        result.map(|()| queues)
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
        if let Some(queues) = u16::try_from(self.queues).ok().filter(|queues| *queues > 1) {
            put(34, &queues.to_le_bytes());
        }
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
        let queues = if self.queues > 1 { FEATURE_QUEUES } else { 0 };
        FEATURE_VERSION_1
            | FEATURE_INDIRECT_DESC
            | FEATURE_EVENT_IDX
            | FEATURE_SIZE_MAX
            | FEATURE_SEG_MAX
            | FEATURE_BLOCK_SIZE
            | FEATURE_TOPOLOGY
            | access
            | queues
    }

    fn queues(&self) -> &'static [QueueSpec] {
        &QUEUES[..self.queues]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        if !self.sessions.is_empty() {
            return Err(DeviceError::AlreadyActive);
        }
        let Activation {
            memory,
            features,
            queues,
            interrupt,
        } = activation;
        if !queues.iter().any(|queue| queue.index == 0) {
            return Err(DeviceError::QueueMissing { queue: 0 });
        }
        // Before any of them is served.
        if let Some(invalid) = queues.iter().find(|queue| !queue.queue.is_valid(memory.as_ref())) {
            return Err(DeviceError::QueueInvalid { queue: invalid.index });
        }
        let mut sessions = Vec::new();
        for queue in queues {
            let (memory, interrupt) = (Arc::clone(&memory), Arc::clone(&interrupt));
            let serving = Serving {
                disk: Arc::clone(&self.disk),
                features,
                complained: false,
                on_full: self.on_full.clone(),
                starved: 0,
            };
            // When one cannot begin, those that have end with the list.
            let session = if let Some(ring) = self.rings.get(usize::from(queue.index)) {
                in_flight::begin(memory, queue, interrupt, serving, Arc::clone(ring), self.rest)?
            } else {
                let activation = Activation {
                    memory,
                    features,
                    queues: vec![queue],
                    interrupt,
                };
                let mut session = Session::default();
                session.begin(activation, &[], serving)?;
                session
            };
            sessions.push(session);
        }
        self.sessions = sessions;
        Ok(())
    }

    /// Ends the requests being served first; those not taken yet stay in their queues.
    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.end()
    }

    /// The same as a suspension, for a disk knows nothing of its drivers.
    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.end()
    }
}
