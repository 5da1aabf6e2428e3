//! Measurements: each prints a table and writes its figures as JSON.

pub mod boot;
pub mod events;
pub mod fs;
pub mod net;
mod peer;
mod table;
pub mod vsock;
