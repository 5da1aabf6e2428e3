//! Measurements: each prints a table and writes its figures as JSON.

pub mod boot;
pub mod events;
pub mod fs;
mod initramfs;
pub mod net;
mod peer;
mod table;
pub mod ui;
#[cfg(target_arch = "x86_64")]
pub mod vmm;
pub mod vsock;
