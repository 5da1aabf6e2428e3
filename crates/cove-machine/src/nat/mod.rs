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
mod ping;

pub(crate) use keep::keep;

use self::passt::{Passt, install_command, install_hint};
use crate::{Availability, Caveat};
use std::{os::fd::BorrowedFd, path::PathBuf, process::Command};

/// The guest's address on its network of two; locally administered.
pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0xc0, 0x7e, 0x02];

/// What a person is told where there is no program.
const MISSING: &str = "passt is missing, so that machines and containers cannot reach the network; everything \
                                  else works";

/// Whether there is a program in `directories`, for whoever looks before a machine is started. Blocks for a moment.
pub(crate) fn availability(directories: &[PathBuf]) -> Availability {
    match Passt::find(directories) {
        Ok(passt) => Availability::Available {
            evidence: format!("{} connects machines to the network", passt.path().display()),
            caveat: caveat(&passt),
        },
        Err(_) => Availability::Unavailable {
            why: MISSING.into(),
            hint: install_hint().into(),
            command: install_command().map(str::to_owned),
        },
    }
}

/// What is short of the promise here, all of it as one.
fn caveat(passt: &Passt) -> Option<Caveat> {
    [passt.caveat(), ping::caveat()]
        .into_iter()
        .flatten()
        .reduce(|one, other| Caveat {
            what: format!("{}; {}", one.what, other.what),
            hint: format!("{}; {}", one.hint, other.hint),
            command: one
                .command
                .zip(other.command)
                .map(|(one, other)| format!("{one} && {other}")),
        })
}

/// What the user of a machine should know about its way out through a program in `directories`. Blocks for a moment.
pub(crate) fn notices(directories: &[PathBuf]) -> Vec<String> {
    match Passt::find(directories) {
        Ok(passt) => {
            let caveat = passt.caveat().into_iter();
            caveat
                .map(|Caveat { what, hint, .. }| format!("{what}; {hint}"))
                .collect()
        }
        Err(_) => vec![format!("{MISSING}: {}", install_hint())],
    }
}

/// A program that carries a guest's frames into the host's network. The frames come on a stream, each after its length
/// as a 32-bit big-endian number.
pub(crate) trait Nat: Send {
    /// The program's name, for messages.
    fn name(&self) -> &'static str;

    /// The program with its arguments, to be started on a connection that it inherits. It must confine itself, must
    /// serve the addresses of [`cove_wire::network`], and must end when the connection ends.
    fn command(&self, connection: BorrowedFd<'_>) -> Command;
}
