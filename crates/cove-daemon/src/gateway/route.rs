//! Which requests can ask for a bind mount, start what was made with one, or are told of proxies.
//!
//! The engine's router matches the decoded path, with or without a version in front, and redirects a path that is not
//! in its cleaned form; here a path is cleaned first, so that no spelling of it goes unnoticed.

/// A request that is not passed on unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// `POST /containers/create`
    Container,
    /// `POST /services/create` and `POST /services/{id}/update`
    Service,
    /// `POST /volumes/create`
    Volume,
    /// `POST /build`
    Build,
    /// `POST /containers/{id}/start` and `POST /containers/{id}/restart`
    Start,
}

impl Checked {
    /// What a request with this method and target asks for, if it is to be checked.
    pub(super) fn of(method: &str, target: &str) -> Option<Self> {
        if method != "POST" {
            return None;
        }
        let path = decode(path_of(target));
        match segments(&path)[..] {
            ["containers", "create"] => Some(Self::Container),
            ["services", "create"] | ["services", _, "update"] => Some(Self::Service),
            ["volumes", "create"] => Some(Self::Volume),
            ["build"] => Some(Self::Build),
            ["containers", _, "start" | "restart"] => Some(Self::Start),
            _ => None,
        }
    }
}

/// The name or identifier of the container that a request is about. None that the engine gives has other characters
/// than these, which have to be encoded nowhere.
pub(super) fn container(target: &str) -> Option<String> {
    let path = decode(path_of(target));
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    match segments(&path)[..] {
        ["containers", name, ..] => Some(name.to_owned()).filter(|name| name.chars().all(plain)),
        _ => None,
    }
}

/// A path's segments as the engine's router sees them, without the version.
fn segments(path: &str) -> Vec<&str> {
    let mut segments = cleaned(path);
    if segments.first().is_some_and(|first| is_version(first)) {
        segments.remove(0);
    }
    segments
}

/// A path's segments without `.`, `..` and double slashes.
pub(super) fn cleaned(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments
}

/// The path of a target in origin form (`/path?query`) or absolute form (`http://host/path?query`).
fn path_of(target: &str) -> &str {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    match path.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("", |start| &rest[start..]),
        _ => path,
    }
}

fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// Undoes percent-encoding; what is not properly encoded stays as it is.
fn decode(path: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2)));
        if let (b'%', (Some(high), Some(low))) = (bytes[at], pair) {
            decoded.extend(u8::try_from(high << 4 | low));
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_create_is_recognised() {
        for target in [
            "/containers/create",
            "/v1.24/containers/create",
            "/v1.47/containers/create?name=x&platform=",
            "/v1.41/containers/cre%61te",
            "/v1.41/%63ontainers/create/",
            "//v1.41//containers/./create",
            "/v1.41/x/../containers/create",
            "http://docker/v1.41/containers/create",
            "http+docker://localhost/containers/create",
        ] {
            assert_eq!(Checked::of("POST", target), Some(Checked::Container), "{target}");
        }
        assert_eq!(
            Checked::of("POST", "/v1.41/services/create"),
            Some(Checked::Service)
        );
        assert_eq!(
            Checked::of("POST", "/services/abc/update?version=1"),
            Some(Checked::Service)
        );
        assert_eq!(Checked::of("POST", "/v1.45/build?t=x"), Some(Checked::Build));
        assert_eq!(
            Checked::of("POST", "/v1.41/volumes/create"),
            Some(Checked::Volume)
        );
    }

    #[test]
    fn everything_else_streams_through_unseen() {
        for (method, target) in [
            ("GET", "/containers/create"),
            ("POST", "/containers/abc/stop"),
            ("POST", "/containers/start"),
            ("GET", "/containers/abc/start"),
            ("POST", "/containers/create/exec"),
            ("POST", "/images/create?fromImage=/containers/create"),
            ("POST", "/x/containers/create"),
            ("POST", "/v1.41x/containers/create"),
            ("POST", "*"),
            ("POST", "http://docker"),
            ("POST", "%"),
        ] {
            assert_eq!(Checked::of(method, target), None, "{method} {target}");
        }
    }

    #[test]
    fn a_start_and_a_restart_name_their_container() {
        for target in [
            "/containers/my_db-1.x/start",
            "/v1.47/containers/my_db-1.x/restart?t=3",
            "//v1.47/containers//my_db%2D1.x/st%61rt/",
        ] {
            assert_eq!(Checked::of("POST", target), Some(Checked::Start), "{target}");
            assert_eq!(container(target).as_deref(), Some("my_db-1.x"), "{target}");
        }
        // The engine has no such container, and words for it.
        for target in [
            "/containers/a%20b/start",
            "/containers/a%3Fb/start",
            "/containers",
            "*",
        ] {
            assert_eq!(container(target), None, "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_percent_encoding_hides_a_create(mask in any::<u32>()) {
            let target: String = "/v1.41/containers/create".bytes().enumerate().map(|(at, byte)| {
                if mask >> at & 1 == 1 { format!("%{byte:02X}") } else { char::from(byte).to_string() }
            }).collect();
            prop_assert_eq!(Checked::of("POST", &target), Some(Checked::Container));
        }

        #[test]
        fn arbitrary_targets_do_no_harm(target in "\\PC{0,60}") {
            let _ = Checked::of("POST", &target);
            let _ = container(&target);
        }
    }
}
