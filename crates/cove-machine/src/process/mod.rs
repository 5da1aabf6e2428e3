//! The machine process: the process that a machine lives in, which outlives the daemon that started it.
//!
//! ```text
//!  daemon                        machine process                       cell (and QEMU)
//!    │ spawn, own session ─────▶ │ takes the lock                           │
//!    │                           │ serves control.sock, starts passt        │
//!    │                           │ spawn, dies with its parent ───────────▶ │ inherits the lock
//!    │ ◀─── one line on stdout ─ │ ◀─────────────── guest runs ──────────── │
//!    │ ◀═══ control.sock ══════▶ │ ◀═══ asks, console, standard error ════▶ │
//!    │                           │ writes exit.json, ends                   ▪
//! ```
//!
//! The cell ([`cell`]) is the confined process that faces the guest. On KVM it is the monitor, with the devices; an
//! emulated machine's QEMU is another child of the machine process, to which the cell serves two devices by vhost-user.
//!
//! Of all these the machine process alone takes signals, and has the machine end in order when one tells it to
//! ([`ending`]).
//!
//! | file in the machine's directory | what it holds | who writes it |
//! | --- | --- | --- |
//! | `lock` | nothing; `flock`ed by every process that may write to the disk | |
//! | `spec.json` | what is to run ([`record::Launch`]) | daemon, before the start |
//! | `processes.json` | who runs it ([`record::Processes`]), while it runs | machine process |
//! | `exit.json` | how it ended ([`crate::Exit`]), until the next start | machine process, or who found it dead |
//! | `console.log`, `.1` | the guest's console | machine process |
//! | `process.log`, `.1` | the machine process's own log | machine process |
//!
//! Whoever may have to clean up takes the lock first ([`left_over`]), so that cleaning up and starting exclude each
//! other, and so that two machines never share a disk: the lock is free only once the last process that inherited it
//! is gone, however each of them died.

#[cfg(target_os = "linux")]
pub(crate) mod ansi;
#[cfg(target_os = "linux")]
pub(crate) mod cell;
#[cfg(target_os = "linux")]
mod changes;
#[cfg(target_os = "linux")]
pub(crate) mod check;
#[cfg(target_os = "linux")]
pub(crate) mod console;
#[cfg(target_os = "linux")]
pub(crate) mod control;
#[cfg(target_os = "linux")]
mod ending;
#[cfg(target_os = "linux")]
mod entry;
#[cfg(target_os = "linux")]
pub(crate) mod folders;
#[cfg(target_os = "linux")]
pub(crate) mod hypervisor;
#[cfg(target_os = "linux")]
mod identity;
#[cfg(target_os = "linux")]
pub(crate) mod left_over;
#[cfg(target_os = "linux")]
pub(crate) mod lock;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
pub(crate) mod protocol;
#[cfg(target_os = "linux")]
pub(crate) mod record;
#[cfg(target_os = "linux")]
mod remote;
#[cfg(target_os = "linux")]
pub(crate) mod restarts;
#[cfg(target_os = "linux")]
pub(crate) mod spawn;
#[cfg(target_os = "linux")]
pub(crate) mod start;

#[cfg(target_os = "linux")]
pub use entry::run;

/// Runs the machine whose specification is in `directory`, to its end.
#[cfg(not(target_os = "linux"))]
pub fn run(_directory: &std::path::Path, _part: Option<&str>) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
