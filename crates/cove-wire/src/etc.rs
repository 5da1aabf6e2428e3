//! Files below `/etc` in which systems say what names mean: `hosts(5)` and `resolv.conf(5)`. Lines that make no sense
//! are left out, as C libraries do.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

const DNS: u16 = 53;
/// Name servers that are asked at most, as by C libraries.
const MAX_SERVERS: usize = 3;
/// Domains that a name is completed by at most, as by C libraries for most of their lives.
const MAX_DOMAINS: usize = 6;

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

/// The domains in the text of a `resolv.conf` by which names are completed, in their order. Of the lines that say any,
/// `search` with several and `domain` with one, the last counts.
pub fn search_domains(text: &str) -> impl Iterator<Item = &str> {
    let last = text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        let most = match words.next()? {
            "search" => MAX_DOMAINS,
            "domain" => 1,
            _ => return None,
        };
        let domains = words.take_while(|word| !word.starts_with(['#', ';']));
        Some(domains.take(most))
    });
    // The root completes nothing.
    last.into_iter()
        .flatten()
        .map(|domain| domain.trim_end_matches('.'))
        .filter(|domain| !domain.is_empty())
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

    #[test]
    fn the_last_line_of_search_domains_counts_and_the_first_six_of_it() {
        for (text, expected) in [
            (
                "search a.test b.test. # c.test\nnameserver 192.0.2.1\n",
                &["a.test", "b.test"][..],
            ),
            ("search a.test\n domain b.test c.test\n", &["b.test"]),
            (
                "domain a.test\nsearch b c d e f g h\n",
                &["b", "c", "d", "e", "f", "g"],
            ),
            ("search a.test\nsearch .\n", &[]),
            ("search\nsearching a.test\n#search a.test\n", &[]),
        ] {
            assert_eq!(search_domains(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "(nameserver|search|domain|[ -~%#\n\u{e9}])*") {
            hosts(&text).for_each(|(_, names)| names.for_each(drop));
            name_servers(&text, |_| None).for_each(drop);
            search_domains(&text).for_each(drop);
        }
    }
}
