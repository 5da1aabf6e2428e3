//! Files below `/etc` in which systems say what names mean: `hosts(5)` and `resolv.conf(5)`. Lines that make no sense
//! are left out, as C libraries do.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

const DNS: u16 = 53;
/// Name servers that are asked at most, as by C libraries.
const MAX_SERVERS: usize = 3;

/// The addresses in the text of a hosts file, each with the names that its line gives it.
pub fn hosts(text: &str) -> impl Iterator<Item = (IpAddr, impl Iterator<Item = &str>)> {
    text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        // What follows `%` names a device of the computer.
        let address = words.next()?.split('%').next()?;
        Some((address.parse().ok()?, words))
    })
}

/// The name servers in the text of a `resolv.conf`, in their order. `number_of` knows the numbers of the computer's
/// devices by their names, since a link-local address means nothing without.
pub fn name_servers(text: &str, number_of: impl Fn(&str) -> Option<u32>) -> impl Iterator<Item = SocketAddr> {
    let servers = text.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        let address = words.next()?;
        let (address, device) = match address.split_once('%') {
            Some((address, device)) => (address, device.parse().ok().or_else(|| number_of(device))),
            None => (address, None),
        };
        Some(match address.parse().ok()? {
            IpAddr::V4(address) => SocketAddr::from((address, DNS)),
            IpAddr::V6(address) => SocketAddrV6::new(address, DNS, 0, device.unwrap_or(0)).into(),
        })
    });
    servers.take(MAX_SERVERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hosts_file_gives_names_to_addresses() {
        let text = "127.0.0.1 localhost # one's own\n\n::1\tlocalhost ip6\nfe80::1%eth0 near\nnonsense x\n# 10.0.0.1 no\n";
        let lines: Vec<(String, Vec<&str>)> = hosts(text)
            .map(|(address, names)| (address.to_string(), names.collect()))
            .collect();
        let line = |address: &str, names: &[&'static str]| (address.to_owned(), names.to_vec());
        assert_eq!(
            lines,
            [
                line("127.0.0.1", &["localhost"]),
                line("::1", &["localhost", "ip6"]),
                line("fe80::1", &["near"])
            ]
        );
    }

    #[test]
    fn the_first_three_name_servers_count_and_other_lines_do_not() {
        let text = "search a.test\nnameserver\nnameserver x\nnameserver fe80::1%2\n nameserver 192.0.2.1 # one\n\
                    nameserver fe80::2%eth0\nnameserver 192.0.2.2\n";
        let servers = |number_of: fn(&str) -> Option<u32>| -> Vec<String> {
            let servers = name_servers(text, number_of);
            servers.map(|server| server.to_string()).collect()
        };
        let known = servers(|device| (device == "eth0").then_some(7));
        assert_eq!(known, ["[fe80::1%2]:53", "192.0.2.1:53", "[fe80::2%7]:53"]);
        assert_eq!(servers(|_| None)[2], "[fe80::2]:53");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "(nameserver|[ -~%#\n\u{e9}])*") {
            hosts(&text).for_each(|(_, names)| names.for_each(drop));
            name_servers(&text, |_| None).for_each(drop);
        }
    }
}
