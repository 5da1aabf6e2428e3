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
//! | [`balloon`] | the device by which a guest says which memory it does not use |
//! | `discard` | memory given back to the host |
//! | `one_thread` | the thread behind devices whose queues need no more than one |
//! | `stop` | how a device's thread is told to end |
//! | [`vhost_user`] | serves any `Device` on a unix socket |
//!
//! The crate is for Linux hosts only and is empty elsewhere.

#![cfg(target_os = "linux")]

pub mod balloon;
pub mod block;
pub mod device;
mod discard;
pub mod fs;
pub mod net;
mod one_thread;
pub mod queue;
pub mod rng;
mod scatter;
pub mod socket;
mod stop;
pub mod vhost_user;
pub mod vsock;
