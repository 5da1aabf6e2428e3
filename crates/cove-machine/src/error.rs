//! Why an operation on a machine failed.

use crate::BackendKind;
use std::path::PathBuf;

/// Why an operation on a machine failed.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The backend cannot do this at all.
    #[error("{operation} is not supported by the {backend} backend")]
    Unsupported {
        /// What was asked for.
        operation: &'static str,
        /// The backend that was asked.
        backend: BackendKind,
    },
    /// Something that the host must have is missing.
    #[error("{what} is missing; {hint}")]
    Missing {
        /// The program or device.
        what: String,
        /// How to get it.
        hint: String,
    },
    /// Another machine process holds this machine's lock.
    #[error("a machine is already running on {}", directory.display())]
    Locked {
        /// The machine's directory.
        directory: PathBuf,
    },
    /// A socket's path does not fit into a socket address.
    #[error("the path {} is {length} bytes long, and a socket's path may have at most {limit}", path.display())]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The longest that fits.
        limit: usize,
    },
    /// The specification describes a machine that cannot be.
    #[error("the machine cannot be set up like this: {0}")]
    InvalidSpec(String),
    /// The machine process or the hypervisor did not come up.
    #[error("the machine did not start: {why}")]
    StartFailed {
        /// What it said.
        why: String,
    },
    /// The hypervisor came down by a fault of its own before its guest was known to run; another try may not meet it.
    #[error("the machine did not start: {why}")]
    Crashed {
        /// How it ended, and what it said.
        why: String,
    },
    /// The guest does not listen on the port, or not yet.
    #[error("the guest does not listen on vsock port {port}")]
    Refused {
        /// The port.
        port: u32,
    },
    /// The machine has ended.
    #[error("the machine has ended")]
    Ended,
    /// The host failed an operation on a file or a process.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// The operation, as an infinitive.
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// The machine process or the hypervisor refused an operation.
    #[error("the machine refused to {operation}: {why}")]
    Failed {
        /// The operation, as an infinitive.
        operation: &'static str,
        /// What it said.
        why: String,
    },
    /// Another release of Cove started the machine, which goes on and cannot be talked to.
    #[error("another release of Cove started this machine: {why}")]
    Foreign {
        /// What tells, and its process.
        why: String,
    },
    /// The machine process answered something that it should not.
    #[error("the machine process broke its protocol: {0}")]
    Protocol(String),
}
