//! By which name a registry's account is kept, whatever a person or an image calls the registry.

/// The name that Docker Hub's account is kept under.
pub const HUB: &str = "https://index.docker.io/v1/";

/// What people call Docker Hub where they sign in.
const HUB_NAMES: [&str; 4] = [
    "docker.io",
    "index.docker.io",
    "registry-1.docker.io",
    "hub.docker.com",
];
/// What images call it.
const HUB_DOMAINS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// Longest host with its port, in bytes: a name of the DNS holds 253.
const LONGEST: usize = 260;

/// What is no registry's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the address of a registry")]
pub struct AddressError(pub String);

/// The key of the registry at an address that a person typed: `HUB` for nothing at all and for each of its names,
/// else the host with its port, in lower case as images have it. Scheme and path are left out, as `docker login` does.
///
/// ```
/// # use cove_credentials::{HUB, key_of_address};
/// assert_eq!(key_of_address(" ").as_deref(), Ok(HUB));
/// assert_eq!(key_of_address("https://ghcr.io/v2/").as_deref(), Ok("ghcr.io"));
/// assert!(key_of_address("two words").is_err());
/// ```
pub fn key_of_address(typed: &str) -> Result<String, AddressError> {
    let typed = typed.trim();
    let rest = without_scheme(typed);
    let host = rest.split('/').next().unwrap_or(rest);
    if typed.is_empty() || HUB_NAMES.iter().any(|name| host.eq_ignore_ascii_case(name)) {
        return Ok(HUB.to_owned());
    }
    let known = |letter: char| letter.is_ascii_alphanumeric() || "-._:[]".contains(letter);
    let begins = host.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '[');
    if begins && host.len() <= LONGEST && host.chars().all(known) {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(AddressError(typed.to_owned()))
    }
}

/// The key of the registry that an image comes from, by its name: what stands before the first slash, where that can
/// be a host, else Docker Hub's.
///
/// ```
/// # use cove_credentials::{HUB, key_of_image};
/// assert_eq!(key_of_image("shop/api:1"), HUB);
/// assert_eq!(key_of_image("localhost/api"), "localhost");
/// ```
pub fn key_of_image(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((domain, _)) if is_domain(domain) && !HUB_DOMAINS.contains(&domain) => domain,
        _ => HUB,
    }
}

/// The rule of the engine's own parser (`splitDockerDomain` of distribution/reference).
fn is_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase)
}

/// A key as a person reads it: without scheme and without the API's version behind it.
pub fn bare(key: &str) -> &str {
    let rest = without_scheme(key).trim_end_matches('/');
    let host = rest.strip_suffix("/v1").or_else(|| rest.strip_suffix("/v2"));
    host.unwrap_or(rest)
}

/// Whether two keys are of one registry. Docker's clients have written the scheme and the API's version at times.
pub fn same_registry(one: &str, other: &str) -> bool {
    bare(one) == bare(other)
}

/// Whether what is kept under `other` is of the registry `key`: its account in whatever spelling, or one of the tokens
/// that the Docker client keeps beside Docker Hub's, for who signed in by a browser.
pub(crate) fn belongs_to(other: &str, key: &str) -> bool {
    same_registry(other, key) || (same_registry(key, HUB) && is_token_of_hub(other))
}

/// Whether such a token is kept under this key.
pub(crate) fn is_token_of_hub(key: &str) -> bool {
    ["/access-token", "/refresh-token"]
        .into_iter()
        .filter_map(|end| key.strip_suffix(end))
        .any(|rest| same_registry(rest, HUB))
}

fn without_scheme(address: &str) -> &str {
    address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_names_of_docker_hub_are_one() {
        for name in [
            "",
            "docker.io",
            "https://index.docker.io/v1/",
            "registry-1.docker.io",
            "https://hub.docker.com",
            "Docker.IO",
        ] {
            assert_eq!(key_of_address(name).as_deref(), Ok(HUB), "{name}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_maybe_a_port() {
        for (typed, key) in [
            ("ghcr.io", "ghcr.io"),
            ("GHCR.io", "ghcr.io"),
            ("http://localhost:5000/", "localhost:5000"),
            ("registry.example.com/team", "registry.example.com"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(key_of_address(typed).as_deref(), Ok(key));
        }
        for typed in ["--config", "a b", "user@host", "/", "https://", "a\nb", "$(id)"] {
            assert_eq!(key_of_address(typed), Err(AddressError(typed.to_owned())));
        }
    }

    #[test]
    fn images_belong_to_the_registry_that_the_engine_takes_them_from() {
        for (image, key) in [
            ("alpine", HUB),
            ("alpine:3.23", HUB),
            ("shop/api", HUB),
            ("docker.io/library/alpine", HUB),
            ("index.docker.io/library/alpine", HUB),
            ("registry-1.docker.io/library/alpine", HUB),
            ("ghcr.io/shop/api@sha256:00", "ghcr.io"),
            ("localhost/a", "localhost"),
            ("localhost:5000/a:1", "localhost:5000"),
            ("Burrow/a", "Burrow"),
        ] {
            assert_eq!(key_of_image(image), key, "{image}");
        }
    }

    #[test]
    fn spellings_of_a_key_are_one_registry_and_tokens_beside_it_are_not() {
        assert!(same_registry("https://r.example/v1/", "r.example"));
        assert!(same_registry("http://r.example/", "r.example/v2/"));
        assert!(same_registry(HUB, "index.docker.io"));
        assert!(!same_registry(HUB, "https://index.docker.io/v1/access-token"));
        assert!(!same_registry("r.example", "r.example:5000"));
        for token in ["access-token", "refresh-token"] {
            let token = format!("{HUB}{token}");
            assert!(belongs_to(&token, HUB) && is_token_of_hub(&token));
            assert!(!belongs_to(&token, "r.example"));
        }
        assert!(!belongs_to("https://r.example/v1/access-token", HUB));
        assert!(!belongs_to("https://r.example/v1/access-token", "r.example"));
    }

    proptest! {
        #[test]
        fn a_key_is_its_own_key(typed in "\\PC{0,40}") {
            if let Ok(key) = key_of_address(&typed) {
                prop_assert_eq!(key_of_address(&key), Ok(key.clone()));
                prop_assert!(!key.starts_with('-') && !key.contains(char::is_whitespace));
            }
            // Whatever an image is called, it belongs to some registry.
            prop_assert!(!key_of_image(&typed).is_empty());
        }
    }
}
