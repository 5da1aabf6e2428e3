//! The file system device (virtio 1.2, section 5.11): carries the requests of the guest's virtio-fs driver to a
//! [`cove_fs::Server`], and its answers back.
//!
//! The server, with the folders that it shares, belongs to whoever made it and outlives every driver: shares come and
//! go while the device runs, without the device knowing. What a driver set up is a [`session`], which owns the queues
//! and the threads that serve them from activation until suspension or reset; requests that wait for file locks outlast
//! a suspension ([`late`]).
//!
//! A request may be stuck: the folder is on a server that has gone away, and the kernel breaks nothing off that waits
//! for that. It may write to the guest's memory whenever it comes back. So nothing that takes the memory to be left alone
//! is done then: a suspension fails and the device goes on, a reset is not over. Only with a machine that is no more it
//! is left behind, together with that machine's memory.
//!
//! Not offered: a window of shared memory for mapped files (DAX), since the guest's kernel cannot use it, and
//! notifications of the device to the driver.

mod late;
mod session;

use std::sync::Arc;
use std::time::Duration;

use cove_fs::{Answer, Server};
use vm_memory::VolatileSlice;

use self::late::Late;
use self::session::Session;
use crate::device::{
    Activation, Device, DeviceError, DeviceType, FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_VERSION_1,
    QueueSpec, read_config_space,
};
use crate::queue::DeviceQueue;

/// Bytes of a tag in the configuration space (virtio 1.2, section 5.11.4).
const TAG_LEN: usize = 36;

/// The first carries what must not wait behind other requests, such as FORGET; the second all others.
const QUEUES: &[QueueSpec] = &[
    QueueSpec {
        max_size: 1024,
        required: true,
    },
    QueueSpec {
        max_size: 1024,
        required: true,
    },
];

/// Most threads that answer requests.
const MAX_WORKERS: usize = 16;

/// How long requests may take to be over before a suspension is given up. The guest stands still meanwhile, and whoever
/// asked for that waits for ten seconds.
const SUSPENSION: Duration = Duration::from_secs(5);
/// The same of a reset. The driver's vCPU stands still meanwhile; as a guest restarts or ends, it leaves next.
const RESET: Duration = Duration::from_secs(2);
/// The same before requests are left behind.
const LEAVE: Duration = Duration::from_millis(500);

/// What answers the requests: a [`Server`], or what a test has in its place. Each is what the server's is.
pub trait Files: Send + Sync {
    /// [`Server::serve`].
    fn serve(&self, readable: &[VolatileSlice<'_>], writable: &[VolatileSlice<'_>]) -> Answer;

    /// [`Server::waiting`].
    fn waiting(&self) -> Vec<(u64, u32)>;

    /// [`Server::interrupt`].
    fn interrupt(&self, unique: u64);

    /// [`Server::reset`]. Called while requests that were left behind are still being answered.
    fn reset(&self);
}

impl Files for Server {
    fn serve(&self, readable: &[VolatileSlice<'_>], writable: &[VolatileSlice<'_>]) -> Answer {
        Server::serve(self, readable, writable)
    }

    fn waiting(&self) -> Vec<(u64, u32)> {
        Server::waiting(self)
    }

    fn interrupt(&self, unique: u64) {
        Server::interrupt(self, unique);
    }

    fn reset(&self) {
        Server::reset(self);
    }
}

/// Why there is no file system device.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The name does not fit the configuration space.
    #[error("{0:?} cannot be a file system's tag: use 1 to 36 bytes without a zero")]
    Tag(String),
}

/// The file system device. Dropping it ends its threads; the server stays with whoever else holds it.
pub struct Fs {
    config: [u8; TAG_LEN + 4],
    files: Arc<dyn Files>,
    workers: usize,
    session: Option<Session>,
    late: Arc<Late>,
}

impl Fs {
    /// A device that the guest mounts by the name `tag`, with `workers` threads to answer requests in parallel, at
    /// least one and at most 16.
    pub fn new(tag: &str, server: Arc<Server>, workers: usize) -> Result<Self, FsError> {
        Self::with_files(tag, server, workers)
    }

    /// The same in front of anything that answers.
    pub fn with_files(tag: &str, files: Arc<dyn Files>, workers: usize) -> Result<Self, FsError> {
        if tag.is_empty() || tag.len() > TAG_LEN || tag.contains('\0') {
            return Err(FsError::Tag(tag.to_owned()));
        }
        let mut config = [0; TAG_LEN + 4];
        config[..tag.len()].copy_from_slice(tag.as_bytes());
        // One queue of requests: several help only with as many interrupts, which a guest of few vCPUs has no use for.
        config[TAG_LEN..].copy_from_slice(&1u32.to_le_bytes());
        Ok(Self {
            config,
            files,
            workers: workers.clamp(1, MAX_WORKERS),
            session: None,
            late: Arc::default(),
        })
    }

    /// Ends the session, which stays where it cannot be ended within `patience`.
    fn end_session(&mut self, patience: Duration) -> Result<Vec<DeviceQueue>, DeviceError> {
        let Some(session) = &mut self.session else {
            return Ok(Vec::new());
        };
        let queues = session.end(patience)?;
        self.session = None;
        Ok(queues)
    }

    /// Ends the session, or leaves it behind with the memory that it has.
    fn leave_session(&mut self) {
        if let Err(error) = self.end_session(LEAVE)
            && let Some(session) = self.session.take()
        {
            tracing::warn!(%error, "requests for shared folders are left behind");
            session.leave_behind();
        }
    }

    /// Has every request that waits for a lock end, without an answer to anybody.
    fn end_waiting(&mut self) {
        self.late = Arc::default();
        for (unique, _) in self.files.waiting() {
            self.files.interrupt(unique);
        }
    }
}

impl Device for Fs {
    fn device_type(&self) -> DeviceType {
        DeviceType::Fs
    }

    fn features(&self) -> u64 {
        FEATURE_VERSION_1 | FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX
    }

    fn queues(&self) -> &'static [QueueSpec] {
        QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        if self.session.is_some() {
            return Err(DeviceError::AlreadyActive);
        }
        self.session = Some(Session::begin(activation, &self.files, self.workers, &self.late)?);
        Ok(())
    }

    /// Requests that wait for a file lock go on waiting.
    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        let ended = self.end_session(SUSPENSION);
        if ended.is_err()
            && let Some(session) = &mut self.session
        {
            session.go_on();
        }
        ended
    }

    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        let queues = self.end_session(RESET)?;
        self.end_waiting();
        self.files.reset();
        Ok(queues)
    }

    /// What a request that was left behind opens yet is the next guest's, which does not know of it, until that ends.
    fn leave(&mut self) {
        self.leave_session();
        self.end_waiting();
        self.files.reset();
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        self.leave_session();
        self.end_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_fs::Config;

    fn device(tag: &str) -> Result<Fs, FsError> {
        let config = Config {
            watch: false,
            ..Config::default()
        };
        Fs::new(tag, Arc::new(Server::new(config).unwrap()), 2)
    }

    #[test]
    fn the_configuration_space_tells_tag_and_queues_and_reads_as_zero_past_its_end() {
        let device = device("cove").unwrap();
        let mut data = [0xff; 48];
        device.read_config(0, &mut data);
        assert_eq!(&data[..5], b"cove\0");
        assert_eq!(&data[TAG_LEN..TAG_LEN + 4], &[1, 0, 0, 0]);
        assert_eq!(&data[40..], &[0; 8]);
    }

    #[test]
    fn a_tag_that_does_not_fit_is_refused() {
        assert!(device("").is_err() && device("a\0b").is_err());
        assert!(device(&"t".repeat(36)).is_ok());
        assert!(device(&"t".repeat(37)).is_err());
    }

    #[test]
    fn an_activation_without_its_queues_is_refused_and_leaves_the_device_inactive() {
        use std::io;
        struct Deaf;
        impl crate::device::Interrupt for Deaf {
            fn signal_queue(&self, _: u16) -> io::Result<()> {
                Ok(())
            }
            fn signal_config(&self) -> io::Result<()> {
                Ok(())
            }
            fn signal_broken(&self, _: u16) -> io::Result<()> {
                Ok(())
            }
        }
        let mut device = device("cove").unwrap();
        let memory = vm_memory::GuestMemoryMmap::from_ranges(&[(vm_memory::GuestAddress(0), 4096)]).unwrap();
        let error = device.activate(Activation {
            memory: Arc::new(memory),
            features: FEATURE_VERSION_1,
            queues: Vec::new(),
            interrupt: Arc::new(Deaf),
        });
        assert!(matches!(error, Err(DeviceError::QueueMissing { queue: 0 })));
        assert!(device.suspend().unwrap().is_empty());
    }
}
