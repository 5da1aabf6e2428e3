//! The signals that end the daemon.

use std::io;

/// Listens for them from the moment that it is made.
#[cfg(unix)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Listens for them from the moment that it is made.
#[cfg(windows)]
pub(crate) struct Signals(
    tokio::signal::windows::CtrlC,
    tokio::signal::windows::CtrlShutdown,
);

#[cfg(windows)]
impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self(
            tokio::signal::windows::ctrl_c()?,
            tokio::signal::windows::ctrl_shutdown()?,
        ))
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.0.recv() => "Ctrl-C",
            _ = self.1.recv() => "system shutdown",
        }
    }
}
