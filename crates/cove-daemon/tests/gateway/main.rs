//! The gateway between real sockets: the tests hold both ends, a Docker client's and the engine's, and look at the
//! very bytes. Most of what is promised here concerns bytes and the ends of streams, which an HTTP library would hide.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its set-up included"
)]

mod exchanges;
mod hostile;
mod load;
mod mounts;
mod setup;
mod streams;
mod waiting;
