//! The Docker client's configuration file: which helper keeps whose passwords, and what lies in the file itself.

use crate::{
    address::{belongs_to, same_registry},
    file::{self, ConfigError, Members, quoted, raw},
    secret::{Credentials, Secret},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, path::Path};

/// What says who somebody is, in the file's entry of a registry.
const SECRETS: [&str; 5] = ["auth", "username", "password", "identitytoken", "registrytoken"];

const AUTHS: &str = "auths";
const STORE: &str = "credsStore";
const HELPERS: &str = "credHelpers";

/// What the file says of accounts, and everything else in it as it is written.
pub(crate) struct Config {
    members: Members,
    auths: Members,
    /// What each entry of `auths` says, in their order.
    entries: Vec<(String, Entry)>,
    store: Option<String>,
    helpers: BTreeMap<String, String>,
}

/// A registry's entry in the file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `user:password` in base64.
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl Entry {
    fn read((key, value): &(String, Box<RawValue>)) -> Result<(String, Self), serde_json::Error> {
        let entry: Option<Self> = serde_json::from_str(value.get())?;
        Ok((key.clone(), entry.unwrap_or_default()))
    }

    /// Who somebody is by this entry, as the Docker client reads it.
    fn credentials(&self) -> Option<Credentials> {
        let some = |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.expose().is_empty());
        if let Some(token) = some(&self.identitytoken) {
            return Some(Credentials::of_token(token.expose()));
        }
        if let Some(auth) = some(&self.auth) {
            let bytes = BASE64_STANDARD.decode(auth.expose()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (user, password) = text.split_once(':')?;
            return Some(Credentials::of(user, password.trim_matches('\0')));
        }
        let user = self.username.as_deref().filter(|user| !user.is_empty())?;
        Some(Credentials::of(user, some(&self.password)?.expose()))
    }

    /// Whether a secret lies in it, readable or not.
    fn has_secret(&self) -> bool {
        let all = [
            &self.auth,
            &self.password,
            &self.identitytoken,
            &self.registrytoken,
        ];
        all.into_iter()
            .flatten()
            .any(|secret| !secret.expose().is_empty())
    }
}

/// Where a person's decision to use a helper is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// The file names it already.
    Already,
    /// For all registries, where nobody else's password would be passed over by that; else for this one.
    Newly,
}

impl Config {
    /// Reads the file at `path`; what is not there says nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        file::read(path, Self::of)
    }

    fn of(members: Members) -> Result<Self, serde_json::Error> {
        let auths: Members = members.value(AUTHS)?.unwrap_or_default();
        let entries: Result<Vec<_>, _> = auths.0.iter().map(Entry::read).collect();
        let store: Option<String> = members.value(STORE)?;
        Ok(Self {
            entries: entries?,
            auths,
            store: store.filter(|name| !name.is_empty()),
            helpers: members.value(HELPERS)?.unwrap_or_default(),
            members,
        })
    }

    /// The helper that keeps everything that no other one keeps.
    pub(crate) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// Registries with a helper of their own, or an empty name for those that have none.
    pub(crate) fn helpers(&self) -> &BTreeMap<String, String> {
        &self.helpers
    }

    /// The helper that the Docker client asks for this registry. One without a name is none, also where there is one
    /// for all others: the file keeps this registry's password.
    pub(crate) fn helper(&self, key: &str) -> Option<&str> {
        match self.helpers.get(key) {
            Some(name) => Some(name.as_str()).filter(|name| !name.is_empty()),
            None => self.store(),
        }
    }

    /// Registries that the file has an entry of, and whether a secret lies in it.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, bool)> {
        self.entries
            .iter()
            .map(|(key, entry)| (key.as_str(), entry.has_secret()))
    }

    /// Who somebody is at a registry by the file alone.
    pub(crate) fn credentials(&self, key: &str) -> Option<Credentials> {
        let exact = self.entries.iter().find(|(other, _)| other == key);
        let similar = || self.entries.iter().find(|(other, _)| same_registry(other, key));
        exact.or_else(similar)?.1.credentials()
    }

    /// Notes that a helper keeps a registry's password, and takes what the file has of it out.
    fn sign_in(&mut self, key: &str, helper: &str, named: Named) {
        let others = self
            .entries()
            .any(|(other, secret)| secret && !belongs_to(other, key));
        if named == Named::Newly && self.helper(key).is_none() {
            if others || self.helpers.contains_key(key) {
                self.helpers.insert(key.to_owned(), helper.to_owned());
            } else {
                self.store = Some(helper.to_owned());
            }
        }
        // Passwords of another spelling of the key would be left in the file for nobody.
        for (other, value) in &mut self.auths.0 {
            if belongs_to(other, key) {
                *value = without_secrets(value);
            }
        }
        if !self.auths.0.iter().any(|(other, _)| other == key) {
            self.auths.0.push((key.to_owned(), raw("{}")));
        }
    }

    /// Takes a registry out of the file; whether it was there.
    fn sign_out(&mut self, key: &str) -> bool {
        let before = self.auths.0.len();
        self.auths.0.retain(|(other, _)| !belongs_to(other, key));
        self.auths.0.len() < before
    }

    /// The file's members, with those of accounts as they are now.
    fn into_members(self) -> Members {
        let Self {
            mut members,
            auths,
            store,
            helpers,
            ..
        } = self;
        let helpers = helpers.into_iter();
        let helpers = Members(helpers.map(|(key, name)| (key, raw(&quoted(&name)))).collect());
        members.set(AUTHS, &auths.text(1));
        if let Some(store) = &store {
            members.set(STORE, &quoted(store));
        }
        if !helpers.0.is_empty() {
            members.set(HELPERS, &helpers.text(1));
        }
        members
    }
}

/// Writes down in the file that `helper` keeps the password of a registry.
pub(crate) fn note_sign_in(path: &Path, key: &str, helper: &str, named: Named) -> Result<(), ConfigError> {
    file::change(path, |members| {
        let mut config = Config::of(members)?;
        config.sign_in(key, helper, named);
        Ok(Some(config.into_members()))
    })
}

/// Takes a registry out of the file, if it is there.
pub(crate) fn note_sign_out(path: &Path, key: &str) -> Result<(), ConfigError> {
    file::change(path, |members| {
        let mut config = Config::of(members)?;
        let was_there = config.sign_out(key);
        Ok(was_there.then(|| config.into_members()))
    })
}

/// An entry without what says who somebody is. What else it has stays, such as an address for letters.
fn without_secrets(entry: &RawValue) -> Box<RawValue> {
    // It was read as an object before, or as null.
    let Members(mut members) = serde_json::from_str(entry.get()).unwrap_or_default();
    members.retain(|(key, _)| !SECRETS.iter().any(|secret| key.eq_ignore_ascii_case(secret)));
    raw(&Members(members).text(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::HUB;
    use proptest::prelude::*;
    use std::{fs, path::PathBuf};

    const FILE: &str = "{\n\t\"auths\": {\n\t\t\"r.example\": {\n\t\t\t\"auth\": \"bW9sZTpvcGVuOnNlc2FtZQ==\",\n\t\t\t\"email\": \"m@x\"\n\t\t}\n\t},\n\t\"HttpHeaders\": {\"A\":  1.50},\n\t\"currentContext\": \"cove\",\n\t\"plugins\": { \"z\": {}, \"a\": {} }\n}";

    fn parse(text: &[u8]) -> Result<Config, serde_json::Error> {
        Members::parse(text).and_then(Config::of)
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn what_lies_in_the_file_is_read_as_docker_reads_it() {
        let config = parse(FILE.as_bytes()).unwrap();
        assert_eq!(
            config.credentials("r.example"),
            Some(Credentials::of("mole", "open:sesame"))
        );
        assert_eq!(config.credentials("other.example"), None);
        let legacy = r#"{"auths": {"https://r.example/v1/": {"username": "mole", "password": "x"}, "t": {"identitytoken": "k"}}}"#;
        let config = parse(legacy.as_bytes()).unwrap();
        assert_eq!(
            config.credentials("r.example"),
            Some(Credentials::of("mole", "x"))
        );
        assert_eq!(config.credentials("t"), Some(Credentials::of_token("k")));
    }

    #[test]
    fn a_password_leaves_the_file_and_everything_else_stays_as_it_was_written() {
        let (_directory, path) = file(FILE);
        note_sign_in(&path, "r.example", "cove", Named::Newly).unwrap();
        let wanted = "{\n\t\"auths\": {\n\t\t\"r.example\": {\n\t\t\t\"email\": \"m@x\"\n\t\t}\n\t},\n\t\"HttpHeaders\": {\"A\":  1.50},\n\t\"currentContext\": \"cove\",\n\t\"plugins\": { \"z\": {}, \"a\": {} },\n\t\"credsStore\": \"cove\"\n}";
        assert_eq!(fs::read_to_string(&path).unwrap(), wanted);
    }

    #[test]
    fn a_helper_is_named_for_one_registry_where_others_passwords_lie_in_the_file() {
        let (_directory, path) = file(FILE);
        note_sign_in(&path, HUB, "cove", Named::Newly).unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!((config.store(), config.helper(HUB)), (None, Some("cove")));
        // With a store for all, the Docker client would look for this one there, and in vain.
        assert!(config.credentials("r.example").is_some());
        assert_eq!(config.helper("r.example"), None);
    }

    #[test]
    fn a_helper_that_is_named_already_is_not_named_again() {
        let text = r#"{"credsStore": "pass", "credHelpers": {"a": "x"}}"#;
        let (_directory, path) = file(text);
        note_sign_in(&path, "b", "pass", Named::Already).unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!((config.store(), config.helper("a")), (Some("pass"), Some("x")));
        assert_eq!(config.entries().collect::<Vec<_>>(), [("b", false)]);
    }

    #[test]
    fn a_helper_without_a_name_is_none_until_another_is_named_for_the_registry() {
        let text =
            r#"{"auths": {"a": {"auth": "bW9sZTp4"}}, "credHelpers": {"a": ""}, "credsStore": "pass"}"#;
        let (_directory, path) = file(text);
        let config = Config::read(&path).unwrap();
        assert_eq!((config.helper("a"), config.helper("b")), (None, Some("pass")));
        note_sign_in(&path, "a", "cove", Named::Newly).unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!((config.helper("a"), config.store()), (Some("cove"), Some("pass")));
        assert_eq!(config.entries().collect::<Vec<_>>(), [("a", false)]);
    }

    #[test]
    fn signing_out_takes_every_spelling_of_the_registry_and_no_other() {
        let text = r#"{"auths": {"https://r.example": {"auth": "YTpi"}, "r.example": {}, "s.example": {}}}"#;
        let (_directory, path) = file(text);
        note_sign_out(&path, "r.example").unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!(config.entries().collect::<Vec<_>>(), [("s.example", false)]);
        let before = fs::read(&path).unwrap();
        note_sign_out(&path, "r.example").unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn tokens_of_docker_hub_go_with_its_account() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YTpi"},
            "https://index.docker.io/v1/access-token": {"auth": "YTpi"},
            "https://index.docker.io/v1/refresh-token": {"auth": "YTpi", "email": "m@x"}}}"#;
        let (_directory, path) = file(text);
        note_sign_in(&path, HUB, "cove", Named::Newly).unwrap();
        let config = Config::read(&path).unwrap();
        assert!(config.entries().all(|(_, secret)| !secret));
        // They were nobody else's passwords.
        assert_eq!(config.store(), Some("cove"));

        let (_directory, path) = file(text);
        note_sign_out(&path, "r.example").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        note_sign_out(&path, HUB).unwrap();
        assert_eq!(Config::read(&path).unwrap().entries().count(), 0);
    }

    #[test]
    fn what_is_no_configuration_is_refused_and_left_alone() {
        for text in [
            "{",
            "[]",
            "{\"auths\": 1}",
            "{\"auths\": {\"a\": 1}}",
            "{\"credsStore\": {}}",
            "{} {}",
        ] {
            let (_directory, path) = file(text);
            let refused = note_sign_in(&path, "r.example", "cove", Named::Newly);
            assert!(matches!(refused, Err(ConfigError::Malformed { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_file_that_is_not_there_or_empty_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        note_sign_in(&path, HUB, "cove", Named::Newly).unwrap();
        assert_eq!(Config::read(&path).unwrap().store(), Some("cove"));
        let (_directory, path) = file("\n");
        note_sign_in(&path, HUB, "cove", Named::Newly).unwrap();
        assert_eq!(Config::read(&path).unwrap().store(), Some("cove"));
    }

    proptest! {
        #[test]
        fn any_file_is_refused_or_keeps_what_is_not_of_accounts(
            keys in proptest::collection::vec("[a-zA-Z \"\\\\é]{0,8}", 0..5),
            numbers in proptest::collection::vec(any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()), 5),
            key in "[a-z.]{1,9}",
        ) {
            let members: Vec<String> = keys
                .iter()
                .zip(&numbers)
                .map(|(key, number)| format!("{}: {number}", quoted(key)))
                .collect();
            let written = format!("{{{}}}", members.join(","));
            let mut config = parse(written.as_bytes()).unwrap();
            config.sign_in(&key, "cove", Named::Newly);
            let text = config.into_members().text(0);
            for member in &members {
                prop_assert!(text.contains(member.as_str()), "{member} is not in {text}");
            }
            let read = parse(text.as_bytes()).unwrap();
            prop_assert_eq!(read.store(), Some("cove"));
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }
    }
}
