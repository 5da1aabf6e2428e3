//! The server asked directly, without a kernel: what no well-behaved kernel would ask, and what is easier to see so.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up fails"
)]

mod changes;
mod client;
mod hostile;
mod owners;
mod sharing;
mod successors;
