//! The end-to-end harness: real machines, driven by the real `cove` and an unmodified Docker client.
//!
//! ```text
//!  suite::run ──▶ Cove (directories of its own below /tmp, its daemon, its machines)
//!                  ├─ cove(…)    the command under test
//!                  ├─ docker(…)  the client, pointed at the forwarded socket
//!                  ├─ webdriver  the desktop application, on a display that nobody looks at
//!                  └─ drop: logs are kept if a test failed; everything that was started is ended
//! ```
//!
//! A suite is a program of its own ([`run`]) that boots one machine for all its tests, since a boot
//! takes longer than most tests. A [`Cove`] owns everything that runs for it and leaves nothing behind.

#![expect(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic is how a test fails, and the harness fails tests on their behalf"
)]

mod command;
mod cove;
mod http;
mod kit;
mod running;
mod suite;
mod times;
mod wait;
pub mod webdriver;

pub use command::{Cmd, Finished};
pub use cove::Cove;
pub(crate) use cove::{number_in_stat, stat};
pub use http::{Response, Wire};
pub use kit::Kit;
pub use running::Running;
pub use suite::{Pace, Test, all, if_all, run, words_of};
pub use times::Times;
pub use wait::{eventually, free_port, within, within_telling};
