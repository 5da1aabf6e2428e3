//! A password, which nothing prints.

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use serde::Deserialize;
use std::fmt;

/// The user name that stands for: what follows is no password but a token of the registry's.
const TOKEN: &str = "<token>";

/// A password or token. It can be read from JSON and is never written by itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The password itself, for those who need it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Who somebody is at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// Their password, or what stands for it.
    pub secret: Secret,
}

impl Credentials {
    /// A user and their password.
    pub fn of(user: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            secret: Secret(secret.into()),
        }
    }

    /// What a registry gave in exchange for a password, as the Docker client keeps it.
    pub fn of_token(token: impl Into<String>) -> Self {
        Self::of(TOKEN, token)
    }

    /// Whether the secret is a token that the registry knows its user by.
    pub fn is_token(&self) -> bool {
        self.user == TOKEN
    }

    /// The value of the engine's header `X-Registry-Auth` for the registry of this key: JSON in the alphabet of
    /// base64 for URLs, with padding.
    pub fn header(&self, key: &str) -> String {
        let secret = self.secret.expose();
        let auth = if self.is_token() {
            serde_json::json!({"identitytoken": secret, "serveraddress": key})
        } else {
            serde_json::json!({"username": self.user, "password": secret, "serveraddress": key})
        };
        BASE64_URL_SAFE.encode(auth.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let printed = format!("{:?}", Credentials::of("mole", "open sesame"));
        assert_eq!(printed, "Credentials { user: \"mole\", secret: Secret }");
    }

    #[test]
    fn the_engine_is_told_user_and_password_or_the_token() {
        let read = |credentials: Credentials| {
            let header = credentials.header("r.example");
            let text = BASE64_URL_SAFE.decode(header).unwrap();
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()
        };
        let told = read(Credentials::of("mole", "a?b>c ÿ"));
        assert_eq!(told["username"], "mole");
        assert_eq!(told["password"], "a?b>c ÿ");
        assert_eq!(told["serveraddress"], "r.example");
        let told = read(Credentials::of_token("t0k3n"));
        assert_eq!(told["identitytoken"], "t0k3n");
        assert!(told.get("username").is_none(), "{told}");
    }
}
