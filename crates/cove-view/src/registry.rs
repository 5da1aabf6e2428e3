//! Registries that somebody is signed in to.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The registries that the Docker client of this computer is signed in to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RegistriesView {
    /// The Docker client's configuration file.
    pub file: String,
    /// Each of them.
    pub rows: Vec<RegistryRow>,
    /// The credential helper that keeps the next password; none where there is no such program.
    pub helper: Option<String>,
    /// What helpers did not tell, and why.
    pub problems: Vec<String>,
}

/// A registry that somebody is signed in to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RegistryRow {
    /// What the Docker client calls it.
    pub address: String,
    /// What a person calls it: `Docker Hub`, `ghcr.io`.
    pub name: String,
    /// The user; empty where nobody tells.
    pub user: String,
    /// The credential helper that keeps the password, if one does.
    pub helper: Option<String>,
    /// Whether that helper is the system's or session's keyring.
    pub keyring: bool,
    /// Whether a password lies in the configuration file as plain text.
    pub plain: bool,
}

/// Helpers that are known to keep passwords in the system's or session's keyring.
const KEYRINGS: [&str; 4] = ["cove", "secretservice", "osxkeychain", "wincred"];

impl RegistryRow {
    /// A row of an account, `name` being what a person calls the registry.
    pub fn new(address: String, name: String, user: String, helper: Option<String>, plain: bool) -> Self {
        Self {
            keyring: helper.as_deref().is_some_and(|helper| KEYRINGS.contains(&helper)),
            address,
            name,
            user,
            helper,
            plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_is_told_from_other_helpers_and_from_none() {
        let keyring = |helper: Option<&str>| {
            let helper = helper.map(str::to_owned);
            RegistryRow::new(String::new(), String::new(), String::new(), helper, false).keyring
        };
        assert!(keyring(Some("secretservice")) && keyring(Some("cove")));
        assert!(!keyring(Some("pass")) && !keyring(None));
    }
}
