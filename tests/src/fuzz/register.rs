//! The registers of a device (virtio 1.2, section 4.2.2), as a driver knows them.

use std::ops::Range;

/// `virt`, little-endian.
pub(super) const MAGIC: u32 = 0x7472_6976;

/// Which half of the driver's features is written next.
pub(super) const DRIVER_FEATURES_PAGE: u64 = 0x24;
/// That half.
pub(super) const DRIVER_FEATURES: u64 = 0x20;
/// Which queue the registers of queues mean.
pub(super) const QUEUE: u64 = 0x30;
/// The queue's entries.
pub(super) const QUEUE_SIZE: u64 = 0x38;
/// Whether the queue can be used.
pub(super) const QUEUE_READY: u64 = 0x44;
/// The low halves of the addresses of table, available ring and used ring; the high ones follow each.
pub(super) const QUEUE_ADDRESSES: [u64; 3] = [0x80, 0x90, 0xa0];
/// Where all of these are.
pub(super) const QUEUE_PLACES: Range<u64> = 0x80..0xa8;
/// How far driver and device are.
pub(super) const STATUS: u64 = 0x70;
/// The configuration space begins here.
pub(super) const CONFIG: u64 = 0x100;

/// Status: the driver has seen the device.
pub(super) const ACKNOWLEDGE: u32 = 1;
/// Status: the driver knows how to drive it.
pub(super) const DRIVER: u32 = 2;
/// Status: the device is in use.
pub(super) const DRIVER_OK: u32 = 4;
/// Status: features are agreed on.
pub(super) const FEATURES_OK: u32 = 8;
/// Status: only a reset helps.
pub(super) const NEEDS_RESET: u32 = 0x40;
