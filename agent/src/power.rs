//! The end of the guest: power off, restart, and what happens when the agent itself fails.

use rustix::system::{RebootCommand, reboot};
use std::process::ExitCode;

/// How the guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The machine goes away.
    PowerOff,
    /// The machine starts again.
    Restart,
}

/// Ends the guest. File systems were unmounted before.
pub(crate) fn end(ending: Ending) -> ExitCode {
    rustix::fs::sync();
    let command = match ending {
        Ending::PowerOff => RebootCommand::PowerOff,
        Ending::Restart => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        tracing::error!("ending the guest failed: {error}");
    }
    // The kernel panics when its first process returns, which is the one way left to end the machine.
    ExitCode::FAILURE
}

/// Makes a panic, on whichever thread, power the guest off after it was logged: the kernel would otherwise panic
/// because its first process ended, and the reason would be lost. The data disk's journal keeps it consistent.
pub(crate) fn off_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("cove-agent: {panic}; powering off");
        if let Err(error) = reboot(RebootCommand::PowerOff) {
            eprintln!("cove-agent: powering off failed: {error}");
        }
    }));
}
