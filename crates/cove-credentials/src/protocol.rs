//! Docker's credential helpers, from the side of who is asked: what `docker-credential-cove` says to whom.

use crate::{
    helper::NOT_FOUND,
    secret::{Credentials, Secret},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

/// Longest request, in bytes.
const LONGEST: u64 = 1 << 20;

/// Why a keychain does not answer, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeychainError(pub String);

/// Where passwords are kept, by registry. Each call is the only one while it lasts.
pub trait Keychain {
    /// Who somebody is at a registry, if that is known.
    fn get(&self, key: &str) -> Result<Option<Credentials>, KeychainError>;
    /// Keeps who somebody is, instead of whoever was kept before for the registry.
    fn store(&self, key: &str, credentials: &Credentials) -> Result<(), KeychainError>;
    /// Forgets a registry; whether it was known.
    fn erase(&self, key: &str) -> Result<bool, KeychainError>;
    /// The users by registry. No password is read for that.
    fn list(&self) -> Result<BTreeMap<String, String>, KeychainError>;
}

/// What a helper is given to keep.
#[derive(Deserialize)]
pub(crate) struct Stored {
    #[serde(rename = "ServerURL", default)]
    pub(crate) key: String,
    #[serde(rename = "Username", default)]
    pub(crate) user: String,
    #[serde(rename = "Secret")]
    pub(crate) secret: Secret,
}

/// What a helper answers who is asked for the account of a registry.
pub(crate) fn told(key: &str, found: &Credentials) -> String {
    let answer = serde_json::json!({
        "ServerURL": key,
        "Username": found.user,
        "Secret": found.secret.expose(),
    });
    answer.to_string()
}

/// Does what one call of a helper asks for, with a keychain that is opened if it is needed. What is written is the
/// protocol's whole answer, errors included: the Docker client reads those on standard output, and knows some of them
/// by their words. Whether it was done, which is the program's exit code.
pub fn serve<'a>(
    verb: &str,
    input: impl Read,
    mut output: impl Write,
    open: impl FnOnce() -> Result<Box<dyn Keychain + 'a>, KeychainError>,
) -> bool {
    let (done, answer) = match answer(verb, input, open) {
        Ok(answer) => (true, answer),
        Err(KeychainError(why)) => (false, why),
    };
    let told = answer.is_empty() || writeln!(output, "{answer}").and_then(|()| output.flush()).is_ok();
    done && told
}

fn answer<'a>(
    verb: &str,
    input: impl Read,
    open: impl FnOnce() -> Result<Box<dyn Keychain + 'a>, KeychainError>,
) -> Result<String, KeychainError> {
    let error = |text: &str| KeychainError(text.to_owned());
    let key = |text: String| match text.trim() {
        "" => Err(error("no credentials server URL")),
        key => Ok(key.to_owned()),
    };
    match verb {
        "get" => {
            let key = key(text(input)?)?;
            let found = open()?.get(&key)?.ok_or_else(|| error(NOT_FOUND))?;
            Ok(told(&key, &found))
        }
        "store" => {
            // What is wrong with it is not told: it holds a password.
            let stored: Stored =
                serde_json::from_str(&text(input)?).map_err(|_| error("what is to be stored is no JSON"))?;
            let key = key(stored.key)?;
            if stored.user.is_empty() {
                return Err(error("no credentials username"));
            }
            let credentials = Credentials {
                user: stored.user,
                secret: stored.secret,
            };
            open()?.store(&key, &credentials)?;
            Ok(String::new())
        }
        "erase" => {
            let key = key(text(input)?)?;
            if open()?.erase(&key)? {
                Ok(String::new())
            } else {
                Err(error(NOT_FOUND))
            }
        }
        "list" => {
            let users = open()?.list()?;
            Ok(serde_json::json!(users).to_string())
        }
        "version" => Ok(format!("docker-credential-cove {}", env!("CARGO_PKG_VERSION"))),
        _ => Err(error(
            "docker-credential-cove takes one word: get, store, erase, list or version",
        )),
    }
}

fn text(input: impl Read) -> Result<String, KeychainError> {
    let mut text = String::new();
    match input.take(LONGEST + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= LONGEST => Ok(text),
        Ok(_) => Err(KeychainError("the request is longer than it may be".to_owned())),
        Err(error) => Err(KeychainError(format!("cannot read the request: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Memory(RefCell<BTreeMap<String, Credentials>>);

    impl Keychain for &Memory {
        fn get(&self, key: &str) -> Result<Option<Credentials>, KeychainError> {
            Ok(self.0.borrow().get(key).cloned())
        }

        fn store(&self, key: &str, credentials: &Credentials) -> Result<(), KeychainError> {
            self.0.borrow_mut().insert(key.to_owned(), credentials.clone());
            Ok(())
        }

        fn erase(&self, key: &str) -> Result<bool, KeychainError> {
            Ok(self.0.borrow_mut().remove(key).is_some())
        }

        fn list(&self) -> Result<BTreeMap<String, String>, KeychainError> {
            let kept = self.0.borrow();
            Ok(kept
                .iter()
                .map(|(key, one)| (key.clone(), one.user.clone()))
                .collect())
        }
    }

    fn ask(memory: &Memory, verb: &str, input: &str) -> (bool, String) {
        let mut output = Vec::new();
        let done = serve(verb, input.as_bytes(), &mut output, || Ok(Box::new(memory)));
        (done, String::from_utf8(output).unwrap())
    }

    #[test]
    fn it_speaks_as_the_docker_client_expects() {
        let memory = Memory::default();
        let missing = (false, "credentials not found in native keychain\n".to_owned());
        assert_eq!(ask(&memory, "get", "r.example\n"), missing);
        assert_eq!(ask(&memory, "erase", "r.example"), missing);
        assert_eq!(ask(&memory, "list", ""), (true, "{}\n".to_owned()));
        let stored = r#"{"ServerURL":"r.example","Username":"mole","Secret":"open \"sesame\""}"#;
        assert_eq!(ask(&memory, "store", stored), (true, String::new()));
        let (done, got) = ask(&memory, "get", "r.example\n");
        let got: serde_json::Value = serde_json::from_str(&got).unwrap();
        assert!(done);
        assert_eq!(got, serde_json::from_str::<serde_json::Value>(stored).unwrap());
        assert_eq!(
            ask(&memory, "list", ""),
            (true, "{\"r.example\":\"mole\"}\n".to_owned())
        );
        assert_eq!(ask(&memory, "erase", "r.example"), (true, String::new()));
        assert_eq!(ask(&memory, "get", "r.example"), missing);
    }

    #[test]
    fn what_is_missing_is_said_in_the_protocols_words() {
        let memory = Memory::default();
        for (verb, input, words) in [
            ("get", " \n", "no credentials server URL\n"),
            ("erase", "", "no credentials server URL\n"),
            (
                "store",
                r#"{"Username":"a","Secret":"b"}"#,
                "no credentials server URL\n",
            ),
            (
                "store",
                r#"{"ServerURL":"a","Secret":"b"}"#,
                "no credentials username\n",
            ),
        ] {
            assert_eq!(
                ask(&memory, verb, input),
                (false, words.to_owned()),
                "{verb} {input}"
            );
        }
        assert!(!ask(&memory, "steal", "").0);
    }

    #[test]
    fn a_keychain_that_cannot_be_opened_is_said_and_opened_for_nothing_that_needs_none() {
        let closed = || Err::<Box<dyn Keychain>, _>(KeychainError("nobody keeps passwords here".to_owned()));
        let mut output = Vec::new();
        assert!(!serve("list", &b""[..], &mut output, closed));
        assert_eq!(output, b"nobody keeps passwords here\n");
        assert!(serve("version", &b""[..], &mut Vec::new(), closed));
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic_or_prints_its_password(
            verb in "get|store|erase|list|[a-z]{0,4}",
            input in "\\PC{0,60}",
        ) {
            let memory = Memory::default();
            ask(&memory, &verb, &input);
            let (_, told) = ask(&memory, "store", &format!("{{\"Secret\":\"sesame\",\"Username\":{input}}}"));
            prop_assert!(!told.contains("sesame"));
        }
    }
}
