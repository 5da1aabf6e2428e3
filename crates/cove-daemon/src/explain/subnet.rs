//! Addresses that the engine's networks have taken. Packets to them never leave the machine, whoever else has them
//! outside of it: the engine, which looks for free ones, sees nothing of this computer's networks and VPN.

use crate::machine::clean;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A part of the engine's addresses, in words that can be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    /// The network that has it.
    pub(super) network: String,
    /// As `172.17.0.0/16`.
    pub(super) range: String,
    /// Whether the address that was looked for is the machine's own in that network.
    pub(super) is_gateway: bool,
}

impl Subnet {
    /// The one that `address` is in, of the engine's list of networks. Only bridges count: the machine itself has no
    /// way into the others.
    pub(super) fn with(list: &Value, address: IpAddr) -> Option<Self> {
        let networks = list.as_array().into_iter().flatten();
        let mut bridges = networks.filter(|network| network["Driver"] == "bridge");
        bridges.find_map(|network| {
            let parts = network["IPAM"]["Config"].as_array().into_iter().flatten();
            let mut ranges =
                parts.filter_map(|part| Some((part["Subnet"].as_str()?, part["Gateway"].as_str())));
            let (range, gateway) = ranges.find(|(range, _)| covers(range, address))?;
            Some(Self {
                network: clean(network["Name"].as_str()?),
                range: clean(range),
                is_gateway: gateway_of(range, gateway) == Some(address),
            })
        })
    }
}

/// The machine's own address in a range. Where the engine was not told which, it does not tell either, and takes the
/// first.
fn gateway_of(range: &str, told: Option<&str>) -> Option<IpAddr> {
    // One of IPv6 may have its network's bits behind it.
    let address = |text: &str| text.split('/').next()?.parse::<IpAddr>().ok();
    if let Some(told) = told.filter(|told| !told.is_empty()) {
        return address(told);
    }
    Some(match address(range)? {
        IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits().checked_add(1)?).into(),
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits().checked_add(1)?).into(),
    })
}

/// Whether `range`, an address and a number of bits, has `address` in it.
fn covers(range: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = range.split_once('/') else {
        return false;
    };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            (base.to_bits() ^ address.to_bits()).leading_zeros() >= bits && bits <= u32::BITS
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            (base.to_bits() ^ address.to_bits()).leading_zeros() >= bits && bits <= u128::BITS
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_address_is_found_in_the_bridge_that_has_it() {
        let list = json!([
            {"Name": "host", "Driver": "host", "IPAM": {"Config": null}},
            {"Name": "lan", "Driver": "macvlan", "IPAM": {"Config": [{"Subnet": "192.168.1.0/24"}]}},
            {"Name": "shop", "Driver": "bridge",
                "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.9"}, {"Subnet": "fd00:7::/64"}]}},
        ]);
        let found = |address: &str| {
            let found = Subnet::with(&list, address.parse().unwrap());
            found.map(|subnet| format!("{} {}", subnet.network, subnet.range))
        };
        assert_eq!(found("172.18.255.1").as_deref(), Some("shop 172.18.0.0/16"));
        assert_eq!(found("fd00:7::9").as_deref(), Some("shop fd00:7::/64"));
        let is_gateway = |address: &str| Subnet::with(&list, address.parse().unwrap()).unwrap().is_gateway;
        assert!(is_gateway("172.18.0.9") && is_gateway("fd00:7::1"));
        assert!(!is_gateway("172.18.0.1") && !is_gateway("fd00:7::9"));
        let told = gateway_of("fd00:7::/64", Some("fd00:7::5/64"));
        assert_eq!(told, Some("fd00:7::5".parse().unwrap()));
        for outside in ["172.19.0.1", "fd00:7:0:1::9", "192.168.1.7"] {
            assert_eq!(found(outside), None, "{outside}");
        }
        assert_eq!(
            Subnet::with(&json!({"message": "no"}), [10, 0, 0, 1].into()),
            None
        );
    }

    #[test]
    fn ranges_of_all_and_of_one_address_are_ranges() {
        let covered = |range: &str, address: &str| covers(range, address.parse().unwrap());
        assert!(covered("0.0.0.0/0", "192.0.2.1") && covered("::/0", "::1"));
        assert!(covered("192.0.2.1/32", "192.0.2.1") && !covered("192.0.2.1/32", "192.0.2.0"));
        assert!(!covered("192.0.2.1/33", "192.0.2.1") && !covered("0.0.0.0/0", "::1"));
    }

    proptest! {
        #[test]
        fn no_range_makes_it_panic(range in "[0-9a-f.:/]{0,20}") {
            let _ = covers(&range, [192, 0, 2, 1].into());
            let _ = (gateway_of(&range, None), gateway_of("192.0.2.0/24", Some(&range)));
        }
    }
}
