//! How the process that faces a guest is locked down, layer by layer, and what each layer covers.
//!
//! ```text
//!  porter (outside, starts the cell)                cell (faces the guest)
//!  ───────────────────────────────                  ──────────────────────────────────────────────────────
//!  namespaces::separate ── starts ────────────────▶ View::enter      a root of its own, with what it may see
//!                                                   landlock::restrict
//!  Door::mount, Door::unmount ── folders come ────▶ ring::of_disk    a ring for each queue of a disk, for its file only
//!                                and go             limits::give_up  no capability, no core, not to be traced
//!                                                   seccomp::arm     the whole process
//!                                                   seccomp::enter   each thread, by what it does
//! ```
//!
//! | layer | what it keeps an intruder from |
//! | --- | --- |
//! | user namespace | being anybody but the user; every other user's files are nobody's |
//! | mount namespace | seeing a file that the machine is not made of and that nobody shared |
//! | pid, ipc, network, UTS, cgroup namespaces | seeing or signalling a process, and any network, the host's loopback included |
//! | capabilities | what the user namespace would give it power over |
//! | Landlock | executing, making devices, leaving the folders; the only layer for files where there are no namespaces |
//! | seccomp | the kernel's system calls, but for those that its thread makes |
//! | restricted rings | what the lists of system calls would not see: a ring takes a disk's operations on its file only |
//! | limits | core dumps with the guest's memory, being traced |
//!
//! Every function says of its layer how it went ([`Layer`]). A layer that the host lacks is no error: it is told.
//! What is on its way into the cell can be locked no further than this: threads of one process share its memory, so the
//! lists of system calls of each thread slow an intruder down, and the process's own list is the boundary.

mod layer;

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
pub mod door;
#[cfg(target_os = "linux")]
mod error;
#[cfg(target_os = "linux")]
pub mod landlock;
#[cfg(target_os = "linux")]
pub mod limits;
#[cfg(target_os = "linux")]
pub mod namespaces;
#[cfg(target_os = "linux")]
pub mod ring;
#[cfg(target_os = "linux")]
pub mod seccomp;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
pub mod view;

#[cfg(target_os = "linux")]
pub use error::ConfineError;
pub use layer::{Hold, Layer};
