//! Accounts at registries that the host lends to a Docker client in the guest.
//!
//! ```text
//!  docker ──starts──▶ docker-credential-cove ──unix socket──▶ cove-agent accounts ──its output──▶ host
//!                                             ◀──────────────                      ◀─its input───
//! ```
//!
//! The host runs `cove-agent accounts` in the guest ([`Exec`](crate::Exec)), and a Docker client beside it. From the
//! agent's standard output it reads frames of [`Lending`], the first of which says where the client may ask. Each
//! question is answered by one [`HelperAnswer`] on the agent's standard input before the next one comes. So a password
//! is in memory alone, and only that of a registry that the client wants to speak with.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The agent's first argument when it is to lend accounts.
pub const ACCOUNTS_ARGUMENT: &str = "accounts";
/// The name under which the agent is the credential helper of the guest's Docker clients.
pub const ACCOUNTS_HELPER: &str = "docker-credential-cove";
/// The variable that tells such a helper the path of the socket to ask at.
pub const ACCOUNTS_VARIABLE: &str = "COVE_ACCOUNTS";
/// `DOCKER_CONFIG` of the clients that run for the host: the image has a configuration there that names the helper.
pub const CLIENTS_CONFIG: &str = "/root/.cove-docker";
/// Longest input of a helper that is passed on, in bytes; tokens of some registries are a kilobyte or two.
pub const MAX_HELPER_INPUT: usize = 64 << 10;

/// What the agent says that lends accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lending {
    /// Clients may ask at the socket with this path.
    Listening(String),
    /// One asks.
    Asked(HelperCall),
}

/// One call of a credential helper, in the terms of Docker's protocol.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperCall {
    /// What is asked for.
    pub verb: HelperVerb,
    /// The helper's standard input: a registry's key, or JSON with a password.
    pub input: String,
}

/// The words that a credential helper is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HelperVerb {
    /// Who somebody is at a registry.
    Get,
    /// Keep who they are.
    Store,
    /// Forget them.
    Erase,
    /// The registries that are known.
    List,
}

/// How such a call came out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperAnswer {
    /// Whether it was done, which is the helper's exit code.
    pub done: bool,
    /// The helper's standard output: JSON with a password, or why it was not done.
    pub output: String,
}

impl HelperVerb {
    /// The verb of that name.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "get" => Some(Self::Get),
            "store" => Some(Self::Store),
            "erase" => Some(Self::Erase),
            "list" => Some(Self::List),
            _ => None,
        }
    }
}

impl fmt::Debug for HelperCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HelperCall");
        shown.field("verb", &self.verb).finish_non_exhaustive()
    }
}

impl fmt::Debug for HelperAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HelperAnswer");
        shown.field("done", &self.done).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HEADER_LEN, MAX_FRAME, decode, encode};
    use proptest::prelude::*;

    #[test]
    fn no_password_is_printed() {
        let input = "{\"Secret\": \"sesame\"}".to_owned();
        let call = HelperCall {
            verb: HelperVerb::Store,
            input: input.clone(),
        };
        assert_eq!(
            format!("{:?}", Lending::Asked(call)),
            "Asked(HelperCall { verb: Store, .. })"
        );
        let answer = HelperAnswer {
            done: true,
            output: input,
        };
        assert_eq!(format!("{answer:?}"), "HelperAnswer { done: true, .. }");
    }

    #[test]
    fn the_longest_input_fits_into_a_frame_whatever_it_holds() {
        let call = HelperCall {
            verb: HelperVerb::Get,
            input: "\u{1}".repeat(MAX_HELPER_INPUT),
        };
        let frame = encode(&Lending::Asked(call)).unwrap();
        assert!(frame.len() <= HEADER_LEN + MAX_FRAME);
    }

    proptest! {
        #[test]
        fn what_is_asked_and_answered_reads_back(word in "get|store|erase|list|[a-z]{0,4}", text in "\\PC{0,60}") {
            if let Some(verb) = HelperVerb::of(&word) {
                let asked = Lending::Asked(HelperCall { verb, input: text.clone() });
                let frame = encode(&asked).unwrap();
                prop_assert_eq!(decode::<Lending>(&frame[HEADER_LEN..]).unwrap(), asked);
            }
            let answer = HelperAnswer { done: word.is_empty(), output: text };
            let frame = encode(&answer).unwrap();
            prop_assert_eq!(decode::<HelperAnswer>(&frame[HEADER_LEN..]).unwrap(), answer);
        }
    }
}
