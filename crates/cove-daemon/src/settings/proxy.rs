//! The proxies that lead to the world where nothing else does: what the settings and the environment say, and what
//! programs in the machine are told.
//!
//! A proxy on this computer's own loopback has another address in the machine, the gateway's, and that is what they are
//! told. Names that never need a proxy are always among those that are reached without one.

use cove_wire::network;
use std::{collections::BTreeMap, net::IpAddr};

/// What may be said of proxies. An empty text says that there is none, whatever the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) http: Option<String>,
    pub(crate) https: Option<String>,
    pub(crate) no: Option<String>,
    /// Whether containers are told, too.
    pub(crate) containers: Option<bool>,
}

/// Names and addresses that mean this computer, or whoever asks.
const NEVER_PROXIED: [&str; 5] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "host.docker.internal",
    "gateway.docker.internal",
];

impl Proxy {
    /// What this process's environment says.
    pub(crate) fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// By the variables that programs go by, in either spelling; the small one counts first, as for curl.
    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let value = variable(&name.to_lowercase()).or_else(|| variable(name))?;
            Some(value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let url = |name: &str| {
            let value = either(name)?;
            let with_scheme = if value.contains("://") {
                value
            } else {
                format!("http://{value}")
            };
            // What cannot be passed on is left out; it may hold a password and is not shown.
            is_url(&with_scheme).then_some(with_scheme)
        };
        let all = url("ALL_PROXY");
        Self {
            http: url("HTTP_PROXY").or_else(|| all.clone()),
            https: url("HTTPS_PROXY").or(all),
            no: either("NO_PROXY").filter(|value| is_list(value)),
            containers: None,
        }
    }

    /// This where it says something, `other` elsewhere.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self {
            http: self.http.clone().or_else(|| other.http.clone()),
            https: self.https.clone().or_else(|| other.https.clone()),
            no: self.no.clone().or_else(|| other.no.clone()),
            containers: self.containers.or(other.containers),
        }
    }

    /// The variables that programs in the machine get, in both spellings; none where there is no proxy.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let url = |value: &Option<String>| value.as_deref().filter(|url| !url.is_empty()).map(as_seen_inside);
        let (http, https) = (url(&self.http), url(&self.https));
        let no = (http.is_some() || https.is_some()).then(|| {
            let own = self.no.as_deref().unwrap_or_default().split(',').map(str::trim);
            let mut names: Vec<&str> = own.filter(|name| !name.is_empty()).collect();
            names.extend(
                NEVER_PROXIED
                    .iter()
                    .filter(|near| !names.contains(near))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            names.join(",")
        });
        let all = for_all_else(http.as_deref(), https.as_deref());
        [
            ("ALL_PROXY", all),
            ("HTTP_PROXY", http),
            ("HTTPS_PROXY", https),
            ("NO_PROXY", no),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value)])
        .collect()
    }

    /// The same for the engine, whose HTTP client knows SOCKS as `socks5` only, and has the proxy resolve names by
    /// that, which elsewhere is what `socks5h` says.
    pub(crate) fn variables_of_the_engine(&self) -> BTreeMap<String, String> {
        let mut variables = self.variables();
        for value in variables.values_mut() {
            if let Some(place) = value.strip_prefix("socks5h://") {
                *value = format!("socks5://{place}");
            }
        }
        variables
    }
}

/// The proxy for what is neither http nor https: one of SOCKS carries any connection. Where only one of the two has a
/// proxy there is none, since programs would take it for the other, too.
fn for_all_else(http: Option<&str>, https: Option<&str>) -> Option<String> {
    [https?, http?]
        .into_iter()
        .find(|url| url.starts_with("socks5"))
        .map(str::to_owned)
}

/// `scheme://something` of a proxy's scheme.
pub(super) fn is_url(text: &str) -> bool {
    ["http://", "https://", "socks5://", "socks5h://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Names with commas between them.
pub(super) fn is_list(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// The URL by which the machine reaches the proxy that this computer reaches by `url`.
fn as_seen_inside(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (format!("{user}@"), place),
        None => (String::new(), authority),
    };
    let (host, port) = match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
        Some((host, port)) => (host, port),
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let inside = match name.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.is_loopback() => format!("[{}]", network::GATEWAY_V6),
        Ok(address) if address.is_loopback() => network::GATEWAY_V4.to_string(),
        Err(_) if name == "localhost" || name.ends_with(".localhost") => network::GATEWAY_V4.to_string(),
        _ => return url.to_owned(),
    };
    format!("{scheme}://{user}{inside}{port}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_proxy_on_this_computers_loopback_has_the_address_that_the_machine_knows() {
        for (url, inside) in [
            ("http://localhost:3128", "http://192.168.127.1:3128"),
            ("http://u:p@127.0.0.1:3128/", "http://u:p@192.168.127.1:3128/"),
            ("socks5://[::1]:1080", "socks5://[fd43:6f76:6500::1]:1080"),
            ("https://Proxy.Localhost", "https://192.168.127.1"),
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
            ("http://localhost.example:1", "http://localhost.example:1"),
        ] {
            assert_eq!(as_seen_inside(url), inside);
        }
    }

    #[test]
    fn the_environment_counts_where_the_settings_say_nothing() {
        let environment = Proxy::from_variables(|name| {
            let value = match name {
                "https_proxy" => "proxy.example:3128",
                "HTTPS_PROXY" => "http://other.example",
                "ALL_PROXY" => "socks5h://socks.example:1080",
                "NO_PROXY" => ".corp.example",
                _ => return None,
            };
            Some(value.to_owned())
        });
        assert_eq!(environment.https.as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(environment.http.as_deref(), Some("socks5h://socks.example:1080"));
        assert_eq!(
            environment.variables()["http_proxy"],
            "socks5h://socks.example:1080"
        );
        let engine = environment.variables_of_the_engine();
        assert_eq!(engine["http_proxy"], "socks5://socks.example:1080");
        assert_eq!(engine["HTTPS_PROXY"], "http://proxy.example:3128");
        let settings = Proxy {
            http: Some(String::new()),
            ..Proxy::default()
        };
        let variables = settings.over(&environment).variables();
        assert!(
            !variables.contains_key("HTTP_PROXY"),
            "an empty setting says none: {variables:?}"
        );
        assert_eq!(variables["HTTPS_PROXY"], "http://proxy.example:3128");
        assert_eq!(variables["https_proxy"], variables["HTTPS_PROXY"]);
        assert!(
            variables["no_proxy"].starts_with(".corp.example,localhost,"),
            "{variables:?}"
        );
        assert!(Proxy::default().variables().is_empty());
    }

    #[test]
    fn a_proxy_of_socks_is_for_everything_where_nothing_is_to_do_without() {
        let all = |http: &str, https: &str| {
            let proxy = Proxy {
                http: Some(http.to_owned()),
                https: Some(https.to_owned()),
                ..Proxy::default()
            };
            let variables = proxy.variables();
            assert_eq!(variables.get("ALL_PROXY"), variables.get("all_proxy"));
            variables.get("ALL_PROXY").cloned()
        };
        let (plain, socks) = ("http://proxy.example:3128", "socks5h://localhost:1080");
        let inside = Some("socks5h://192.168.127.1:1080".to_owned());
        assert_eq!(all(socks, socks), inside);
        assert_eq!(all(socks, plain), inside);
        assert_eq!(all(plain, socks), inside);
        assert_eq!(all(plain, plain), None);
        assert_eq!(all(socks, ""), None);
        assert_eq!(all("", socks), None);
    }

    proptest! {
        #[test]
        fn no_url_makes_it_panic(url in "(http://)?\\PC{0,30}") {
            let _ = as_seen_inside(&url);
            let _ = Proxy::from_variables(|_| Some(url.clone())).variables();
        }
    }
}
