//! The daemon as a process.

use cove_api::Dirs;
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
