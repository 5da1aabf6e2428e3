//! What a person may name as a target: `HOST:PORT`, a URL, a port, a name.

use std::net::Ipv6Addr;

/// Where somebody wants to get to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// In lower case, an IPv6 address without brackets.
    pub(super) host: String,
    /// The port, where the target says or implies one.
    pub(super) port: Option<u16>,
}

/// The longest target: a name and more than enough of a path.
const LONGEST: usize = 2048;

impl Target {
    /// Reads what was typed. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(format!("a target has {LONGEST} bytes at most"));
        }
        let (implied, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (usual_port(scheme), rest),
            None => (None, text),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let (host, port) = split(rest)?;
        let port = match port {
            Some(port) => Some(
                port.parse()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| format!("`{port}` is not a port: a number from 1 to 65535"))?,
            ),
            None => implied,
        };
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if host.is_empty() || host.contains(odd) {
            return Err(format!(
                "`{text}` names no host; write HOST:PORT, a URL, a port or a container's name"
            ));
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        Ok(Self { host, port })
    }
}

/// Host and port as they stand there. A number alone is a port of this computer.
fn split(rest: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed
            .split_once(']')
            .ok_or_else(|| format!("`{rest}` lacks its closing bracket"))?;
        return Ok((host, after.strip_prefix(':')));
    }
    if rest.parse::<Ipv6Addr>().is_ok() {
        return Ok((rest, None));
    }
    Ok(match rest.rsplit_once(':') {
        Some(("", port)) => ("localhost", Some(port)),
        Some((host, port)) => (host, Some(port)),
        None if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) => {
            ("localhost", Some(rest))
        }
        None => (rest, None),
    })
}

fn usual_port(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "postgres" | "postgresql" => Some(5432),
        "mysql" => Some(3306),
        "redis" => Some(6379),
        "amqp" => Some(5672),
        "mongodb" => Some(27017),
        "ssh" => Some(22),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_way_to_write_a_target_is_understood() {
        for (text, host, port) in [
            ("localhost:8080", "localhost", Some(8080)),
            ("8080", "localhost", Some(8080)),
            (":8080", "localhost", Some(8080)),
            ("http://Localhost/page?q=a:b", "localhost", Some(80)),
            ("https://user:secret@db.test:8443/", "db.test", Some(8443)),
            ("[::1]:80", "::1", Some(80)),
            ("fd00::7", "fd00::7", None),
            ("web", "web", None),
            ("web.cove.localhost.", "web.cove.localhost", None),
            ("postgres://db/shop", "db", Some(5432)),
        ] {
            let parsed = Target::parse(text);
            assert_eq!(
                parsed,
                Ok(Target {
                    host: host.into(),
                    port
                }),
                "{text}"
            );
        }
        for text in ["", "http://", "web:0", "web:70000", "web:http", "[::1", "a b:80"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = Target::parse(&text);
        }
    }
}
