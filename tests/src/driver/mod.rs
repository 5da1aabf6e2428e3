//! The driver's side of virtio, in userspace: what a guest kernel does, without a guest.
//!
//! It drives a device over either [`transport`]: called in-process, or over vhost-user, where it can drive anybody's
//! device alike. It serves tests of devices, hostile guests among them, and benches.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`block`] | a driver for the disk device |
//! | [`event`] | eventfds |
//! | [`fs`] | a driver for the file system device |
//! | [`kind`] | every kind of device, and something that a good driver asks of it |
//! | [`memory`] | guest memory in a memfd, and where things lie in it |
//! | [`net`] | a driver for the network device, and the program at the end of its stream |
//! | [`queue`] | a split virtqueue from the driver's side |
//! | [`rig`] | a socket device between a guest and host programs |
//! | [`transport`] | how queues and features reach a device |
//! | [`vsock`] | a driver for the socket device |
//! | [`stream`] | its connections |

pub mod block;
pub mod event;
pub mod fs;
pub mod kind;
pub mod memory;
pub mod net;
pub mod queue;
pub mod rig;
pub mod stream;
pub mod transport;
pub mod vsock;
