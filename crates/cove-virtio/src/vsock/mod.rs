//! The socket device (virtio 1.2, section 5.10): connections between guest and host without a network.
//!
//! Host programs reach the guest through one unix socket; the guest reaches listeners beside it. The convention is
//! described in [`host`]. One thread, the [`worker`], serves all connections of a device; it alone owns them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`packet`] | the header and its operations |
//! | [`credit`] | who may send how much |
//! | [`connection`] | one connection, its states and its host stream |
//! | [`muxer`] | the table of connections, timers, what is due |
//! | [`transmit`], [`receive`], [`host`] | the muxer's three sides: from the guest, to the guest, and the host's |
//! | [`poll`], [`worker`] | the thread and what it waits for |

mod connection;
mod credit;
mod host;
mod muxer;
pub mod packet;
mod poll;
mod receive;
mod transmit;
mod worker;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use cove_confine::seccomp::{self, Thread};
use rustix::event::EventfdFlags;

use self::muxer::Muxer;
use self::packet::HOST_CID;
use self::poll::Poll;
use self::worker::{Command, Worker};
use crate::device::{
    Activation, Device, DeviceError, DeviceType, FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_VERSION_1,
    QueueSpec, read_config_space,
};
use crate::queue::DeviceQueue;
use crate::socket::{ListenError, Listener};

pub use self::credit::BUF_ALLOC;

/// `VIRTIO_VSOCK_F_STREAM`: stream sockets. Others are not offered.
const FEATURE_STREAM: u64 = 1;

const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;
const EVENT_QUEUE: u16 = 2;

const QUEUES: &[QueueSpec] = &[
    QueueSpec {
        max_size: 1024,
        required: true,
    },
    QueueSpec {
        max_size: 1024,
        required: true,
    },
    // QEMU serves the event queue itself.
    QueueSpec {
        max_size: 64,
        required: false,
    },
];

/// How a socket device is set up.
#[derive(Clone, Debug)]
pub struct VsockConfig {
    /// The guest's context id: 3 or more, and below 2³² − 1.
    pub guest_cid: u64,
    /// Where host programs connect; the guest's connections to port P go to this path with `_P` appended.
    pub host_socket: PathBuf,
    /// Most connections at a time, in both directions together. Each takes a file descriptor, and up to [`BUF_ALLOC`]
    /// bytes while the host does not read what the guest sends; beyond 1024 connections a quarter of that, and beyond
    /// 4096 an eighth.
    pub max_connections: usize,
}

impl VsockConfig {
    /// The usual limits: room for the connections to published ports, and for those on which ports are published, of
    /// which the daemon bounds both, beside those of everybody else.
    pub fn new(guest_cid: u64, host_socket: impl Into<PathBuf>) -> Self {
        Self {
            guest_cid,
            host_socket: host_socket.into(),
            max_connections: 16 * 1024,
        }
    }
}

/// Why there is no socket device.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The specification reserves the number.
    #[error("{0} cannot be a guest's context id: use a number from 3 to 4294967294")]
    ReservedCid(u64),
    /// The host's side has no socket to listen on.
    #[error("cannot offer the guest's ports to the host")]
    Listen(#[from] ListenError),
    /// The system has no file descriptors or threads left, or the like.
    #[error("cannot {operation} for the vsock device")]
    Os {
        /// What was attempted, as an infinitive.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The socket device. Dropping it closes all connections and removes the host's socket.
pub struct Vsock {
    guest_cid: u64,
    commands: Sender<Command>,
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Vsock {
    /// Listens on the host's socket and starts the device's thread. Until the device is activated, host programs are
    /// turned away.
    pub fn new(config: VsockConfig) -> Result<Self, VsockError> {
        if !(HOST_CID + 1..u64::from(u32::MAX)).contains(&config.guest_cid) {
            return Err(VsockError::ReservedCid(config.guest_cid));
        }
        let os = |operation| move |source| VsockError::Os { operation, source };
        let listener = Listener::bind(&config.host_socket)?;
        let poll = Poll::new().map_err(|error| os("create an epoll instance")(error.into()))?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| os("create an eventfd")(error.into()))?;
        let (commands, receiver) = mpsc::channel();
        let muxer = Muxer::new(
            config.guest_cid,
            config.host_socket,
            config.max_connections,
            listener,
            poll,
        );
        let worker = Worker::new(muxer, receiver, &wake).map_err(os("watch descriptors"))?;
        let thread = std::thread::Builder::new()
            .name("vsock".to_owned())
            .spawn(move || {
                seccomp::enter(Thread::Connections);
                worker.run();
            })
            .map_err(os("start a thread"))?;
        Ok(Self {
            guest_cid: config.guest_cid,
            commands,
            wake,
            thread: Some(thread),
        })
    }

    /// Sends a command and waits until it has taken effect.
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, DeviceError> {
        let (answer, answered) = mpsc::channel();
        self.commands
            .send(command(answer))
            .map_err(|_| DeviceError::WorkerGone)?;
        self.wake();
        answered.recv().map_err(|_| DeviceError::WorkerGone)
    }

    fn wake(&self) {
        // An eventfd only refuses when its counter is about to overflow, and then the worker is awake.
        let _ = rustix::io::write(self.wake.as_fd(), &1u64.to_ne_bytes());
    }
}

impl Device for Vsock {
    fn device_type(&self) -> DeviceType {
        DeviceType::Vsock
    }

    fn features(&self) -> u64 {
        FEATURE_VERSION_1 | FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX | FEATURE_STREAM
    }

    fn queues(&self) -> &'static [QueueSpec] {
        QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.guest_cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        self.ask(|answer| Command::Activate(activation, answer))?
    }

    fn suspend(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.ask(Command::Suspend)
    }

    fn reset(&mut self) -> Result<Vec<DeviceQueue>, DeviceError> {
        self.ask(Command::Reset)
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        // The worker is gone already if this fails.
        if self.commands.send(Command::Stop).is_ok() {
            self.wake();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the vsock device's thread panicked");
        }
    }
}
