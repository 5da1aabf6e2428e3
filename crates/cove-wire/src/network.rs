//! The machine's own network: one segment with the guest, the host's NAT and nobody else, so that fixed numbers serve
//! every machine. The guest sets them itself; nothing is asked for and nothing announced.
//!
//! Everything is reachable through the gateway, and the gateway's own address leads to the host's loopback.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The guest's name for its network device.
pub const INTERFACE: &str = "eth0";

/// Largest packet in bytes. The network is a memory copy away, and the host cuts what it sends on to size: 65535 less
/// an Ethernet header, in whole words.
pub const MTU: u32 = 65_520;

/// The guest.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 2);
/// The host's NAT, and the host's loopback behind it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
/// Bits of the network's part of an address.
pub const PREFIX_V4: u8 = 24;

/// The guest, in a unique local network (RFC 4193) whose global part spells the project's name.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd43, 0x6f76, 0x6500, 0, 0, 0, 0, 2);
/// The host's NAT, and the host's loopback behind it.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd43, 0x6f76, 0x6500, 0, 0, 0, 0, 1);
/// Bits of the network's part of an address.
pub const PREFIX_V6: u8 = 64;

/// Where the agent answers questions for names, from the guest and from containers. An address of the guest's
/// loopback device, so that it is there with or without a way out.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 53);
