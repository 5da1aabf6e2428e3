//! Host folders as a FUSE tree: answers the requests of a guest's virtio-fs driver. Knows nothing of virtio.
//!
//! ```text
//!              serve(readable, writable)                              take_changes()
//!  device ─────────────┐                                ┌─────────────────▶ machine process ─▶ agent
//!                      ▼                                │                                        │
//!  dispatch ─▶ ops::{entries, names, files, …} ─▶ tree  │        requests under a reserved uid   │
//!                 │             │                  │    │                     ┌──────────────────┘
//!             ownership      locks        nodes, pins   change ◀─ watch    replay
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`abi`] | wire structures; `body` and `memory` cut them out of guest memory; `negotiate` answers INIT |
//! | `tree`, `table`, `node`, `handle` | the server's state, and every way to reach a host file |
//! | `ops` | the operations |
//! | `ownership`, `status`, `xattrs` | whose a file is, as containers set it; how long an answer may be believed |
//! | `watch`, `change`, `replay` | what the host changed, and the server's part in telling the guest |
//! | `locks` | file locks, coherent with the host |
//!
//! **Why its own server** and not `virtiofsd::passthrough` or `fuse-backend-rs` as a library. What sets this one
//! apart runs through every operation: shares that come and go under one root, ownership without privilege, answers
//! whose lifetime depends on a watch, requests without effect. Both libraries keep a descriptor for each file that
//! the guest knows (or need `CAP_DAC_READ_SEARCH` for handles instead), which at half a million files exhausts the
//! host, and pay for it with three or four system calls for each lookup; here it is one, or two the first time.
//!
//! **Permission checks are the guest kernel's** (`default_permissions`, which virtio-fs always sets): the server
//! tells owner and mode, and enforces only what protects the host.
//!
//! **Differences from a native directory** that a container can see:
//! - Owners of symlinks, pipes and sockets are kept in memory (see `ownership`).
//! - `security.*`, `trusted.*` and ACL attributes are not supported.
//! - A file that the host's user may not read or write is closed to the container's root, too.
//! - The host's inner mounts show as ordinary directories of one file system; hard links and renames across them
//!   fail with `EXDEV` as they do natively.
//! - POSIX locks set through a descriptor that was opened for reading only go when its last copy is closed, not at
//!   the first close of any; `F_GETLK` names no process; `EDEADLK` is never given.
//! - `renameat2` with `RENAME_WHITEOUT` is refused.
//! - A file mounted by itself follows its name when it is replaced (see `node`).

#![cfg(target_os = "linux")]

pub mod abi;
mod body;
mod change;
mod config;
mod descriptor;
mod dispatch;
mod fuzz;
mod handle;
mod locks;
mod memory;
mod negotiate;
mod node;
mod ops;
mod ownership;
mod replay;
mod server;
mod share;
mod status;
mod sys;
mod table;
mod tree;
mod watch;
mod xattrs;

pub use change::{ChangeKind, EntryKind, HostChange};
pub use config::{Config, REPLAY_UID};
pub use dispatch::Answer;
pub use fuzz::fuzz_one;
pub use locks::Pending;
pub use server::{Health, Server, ShareError};
pub use share::ShareOptions;
