//! Ending a shell in a container when its terminal is let go of, which the engine has no call for.
//!
//! ```text
//!  host ──runs──▶ cove-agent hangup PROCESS CONTAINER
//!       ◀─ HELD ─   it holds the shell from now on
//!       ─ hangs up ▶  and ends it
//! ```
//!
//! The host runs the agent beside the shell ([`Exec`](crate::Exec)), once for each terminal. However the host's end of
//! that stream goes, by a closed terminal or by the death of whoever showed it, the agent hangs up on the program, and
//! the program on the shell.

/// The agent's first argument when it is to hold a shell. The second is the number of the process, as the engine tells
/// it; the third is the container's whole id.
pub const HANGUP_ARGUMENT: &str = "hangup";
/// What it writes to its standard output once it holds the shell. When the shell has ended by itself, it ends, too.
pub const HELD: &str = "held\n";
