//! The guest's network devices. Addresses are fixed ([`cove_wire::network`]), so that nothing is waited for: the
//! network is as good as there when the boot goes on.

use crate::netlink::{Device, Netlink};
use cove_wire::network;
use std::{fs, io, path::Path};

/// Settings of the device that leads out, for each family, and why.
const SETTINGS: [(&str, &str); 4] = [
    // Without a network on the host the cable is out, and programs learn at once that there is no route.
    ("ipv4/conf/eth0/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/eth0/ignore_routes_with_linkdown", "1"),
    // Nobody announces routes here, and containers must not.
    ("ipv6/conf/eth0/accept_ra", "0"),
    // Taken down and up again, the device has its address still, as it has that of IPv4: nobody would give it back.
    ("ipv6/conf/eth0/keep_addr_on_down", "1"),
];

/// Brings up the loopback device, with the address that names are asked for at, and says so to programs.
pub(super) fn bring_up_loopback() -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let device = Device::named("lo").ok_or(io::ErrorKind::NotFound)?;
    // The kernel adds the usual addresses by itself.
    netlink.bring_up(device, None)?;
    netlink.add_address(device, network::RESOLVER.into(), 32)?;
    fs::write("/etc/resolv.conf", format!("nameserver {}\n", network::RESOLVER))
}

/// Brings up the device that leads out; a machine without one keeps to itself. Gives back what failed.
pub(super) fn bring_up_outward() -> Vec<String> {
    let Some(device) = Device::named(network::INTERFACE) else {
        tracing::info!("the machine has no network device");
        return Vec::new();
    };
    let mut failed = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            failed.push(format!("{what} failed: {error}"));
        }
    };
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return vec![format!("configuring the network failed: {error}")],
    };
    for (name, value) in SETTINGS {
        note(
            &format!("setting {name}"),
            fs::write(Path::new("/proc/sys/net").join(name), value),
        );
    }
    note(
        "bringing up the network device",
        netlink.bring_up(device, Some(network::MTU)),
    );
    for (address, prefix, gateway) in [
        (
            network::GUEST_V4.into(),
            network::PREFIX_V4,
            network::GATEWAY_V4.into(),
        ),
        (
            network::GUEST_V6.into(),
            network::PREFIX_V6,
            network::GATEWAY_V6.into(),
        ),
    ] {
        note(
            &format!("taking the address {address}"),
            netlink.add_address(device, address, prefix),
        );
        note(
            &format!("making {gateway} the gateway"),
            netlink.add_default_route(device, gateway),
        );
    }
    failed
}
