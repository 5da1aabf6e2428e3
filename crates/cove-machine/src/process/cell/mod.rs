//! The cell: the confined process that faces the guest, with the devices, the file server of shared folders and, on
//! KVM, the monitor.
//!
//! ```text
//!  machine process                        porter                           cell
//!  (locks, records, control socket,       (alone in its namespaces,        (devices, folders, vCPUs)
//!   QEMU, passt)                           one thread, faces nobody)
//!    │ spawn ─────────────────────────────▶ │ spawn ───────────────────────▶ │ takes its view, then every layer
//!    │ ◀──────────────── asks and words (`words`), a socket ══════════════▶ │
//!    │ ══ errands: folders come and go ═══▶ │ ── mounts into the cell's view ▶ │
//!    │ ◀──────────────── the guest's console, a pipe ─────────────────────── │
//!    │ ◀──────────────── both their logs, a pipe ─────────────────────────── │
//! ```
//!
//! A folder is opened by nobody but the porter, and only because the machine process was asked to by its daemon: a
//! guest that took the cell over cannot ask for one. Nothing that the cell says is believed beyond what it is asked: it
//! answers, tells of pauses, and says how its guest ended.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`words`] | what the three say to each other |
//! | [`client`], [`supervise`] | the machine process's end |
//! | [`porter`] | the process in between |
//! | [`inside`] | the cell itself; `confine`, how it locks itself in; `panics`, what ends it |
//!
//! All three are the same program, told apart by [`words::Part`].

pub(super) mod client;
mod confine;
pub(super) mod inside;
mod panics;
pub(super) mod porter;
pub(super) mod supervise;
pub(crate) mod words;

use crate::process::protocol;
use std::{os::unix::process::CommandExt, path::Path, process::Command};

/// The running program once more, even where another has taken its place on the disk, to play `part` for the machine in
/// `directory`.
fn again(directory: &Path, part: &words::Part) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("cove")
        .arg("machine-process")
        .arg("--directory")
        .arg(directory)
        .arg("--part")
        .arg(protocol::encode(part));
    command
}
