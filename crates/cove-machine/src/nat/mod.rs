//! The way out of a machine: a program beside the hypervisor takes the guest's frames and speaks for the guest through
//! ordinary sockets, so that its traffic follows the host's routes and VPN and needs no privilege.
//!
//! ```text
//!  guest ─ virtio-net ─ hypervisor ──▶ net.sock ──▶ machine process ─ hands the connection to ─▶ NAT program ──▶ world
//!                           ▲                            │ starts one for each connection            │
//!                           └── connects again ◀─────────┴────────────── its end hangs up ◀──────────┘
//! ```
//!
//! The machine process listens itself and gives a new program each connection ready-made. A program therefore
//! needs no path and no name that it could lose to its own confinement, none outlives its hypervisor, and one that
//! dies is followed by another as soon as the hypervisor connects again. [`keep`] owns all of this.
//!
//! What differs from platform to platform is behind [`Nat`].

mod keep;
mod passt;

pub(crate) use keep::keep;
pub(crate) use passt::{Passt, install_hint};

use std::{os::fd::BorrowedFd, process::Command};

/// What a person is told where there is no program.
pub(crate) const MISSING: &str = "passt is missing, so that machines and containers cannot reach the network; everything \
                                  else works";

/// A program that carries a guest's frames into the host's network. The frames come on a stream, each after its length
/// as a 32-bit big-endian number.
pub(crate) trait Nat: Send {
    /// The program's name, for messages.
    fn name(&self) -> &'static str;

    /// The program with its arguments, to be started on a connection that it inherits. It must confine itself, must
    /// serve the addresses of [`cove_wire::network`], and must end when the connection ends.
    fn command(&self, connection: BorrowedFd<'_>) -> Command;
}
