//! The daemon as a process.

use cove_api::{Dirs, transport};
use std::path::PathBuf;

/// How to run the daemon.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that becomes a machine process when called with `machine-process --directory DIR`.
    pub program: PathBuf,
    /// Write the log to standard error as well.
    pub log_to_stderr: bool,
}

/// Why the daemon did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another daemon serves these directories: nothing is wrong, talk to that one.
    #[error("a Cove daemon is already running (process {pid})")]
    AlreadyRunning {
        /// Its process id, 0 when it has not written it yet.
        pid: u32,
    },
    /// Another daemon has the same machines, and its sockets elsewhere.
    #[error(
        "a Cove daemon with its sockets in {} already has these machines (process {pid}); \
         end it, or use the XDG_RUNTIME_DIR that it has", runtime.display()
    )]
    RunsElsewhere {
        /// Its process id, 0 when it has not written it yet.
        pid: u32,
        /// Its runtime directory.
        runtime: PathBuf,
    },
    /// A socket's path does not fit into a socket's address.
    #[error(
        "the socket's path {} is {} bytes long, and {} are the most that work; \
         set XDG_RUNTIME_DIR or COVE_HOME to a shorter directory",
        path.display(), path.as_os_str().len(), transport::MAX_SOCKET_PATH
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The directory for the sockets is one that other users could reach into.
    #[error("{} cannot hold Cove's sockets: {why}", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The host failed an operation on a file.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// The operation, as an infinitive.
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Runs the daemon until SIGTERM, SIGINT or a shutdown request. Makes its own async runtime and blocks.
pub fn run(dirs: &Dirs, options: &Options) -> Result<(), DaemonError> {
    let _ = (dirs, options);
    todo!("in the next commits")
}
