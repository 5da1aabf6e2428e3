//! Why a layer could not be put in force.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why a layer could not be put in force, though the host seems to have it.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The system refused.
    #[error("cannot {operation}")]
    Os {
        /// What was attempted, as an infinitive.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something about a file.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was attempted, as an infinitive.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A list of system calls makes no program.
    #[error("cannot make a filter of the list of system calls: {0}")]
    Filter(String),
}

/// For `map_err`: names the operation.
pub(crate) fn os(operation: &'static str) -> impl FnOnce(Errno) -> ConfineError {
    move |errno| ConfineError::Os {
        operation,
        source: errno.into(),
    }
}

/// For `map_err`: names the operation and the file.
pub(crate) fn file<E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> ConfineError {
    let path = path.to_owned();
    move |error| ConfineError::File {
        operation,
        path,
        source: error.into(),
    }
}
