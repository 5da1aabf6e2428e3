//! Virtio devices, free of any transport, and the vhost-user adapter.
//!
//! A device implements [`device::Device`]: it is given guest memory, its queues and a way to signal, and knows
//! nothing of how they reached it. The same device runs inside a monitor, which maps its registers over
//! virtio-mmio or PCI, and behind [`vhost_user`], which serves it to a front end such as QEMU.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`device`] | the seam: `Device`, `Activation`, `Interrupt` |
//! | [`queue`] | a virtqueue on the device's side: chains in, used entries out, signals when wanted |
//! | [`socket`] | unix sockets that only their owner may connect to |
//! | [`block`] | the disk device |
//! | [`vsock`] | the socket device |
//! | [`fs`] | the device for shared folders, in front of the file server `cove-fs` |
//! | [`net`] | the network device |
//! | [`rng`] | the entropy device |
//! | `one_queue` | the thread behind devices that have one queue |
//! | `stop` | how a device's thread is told to end |
//! | [`vhost_user`] | serves any `Device` on a unix socket |
//!
//! The crate is for Linux hosts only and is empty elsewhere.

#![cfg(target_os = "linux")]

pub mod block;
pub mod device;
pub mod fs;
pub mod net;
mod one_queue;
pub mod queue;
pub mod rng;
mod scatter;
pub mod socket;
mod stop;
pub mod vhost_user;
pub mod vsock;
