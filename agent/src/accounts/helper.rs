//! `docker-credential-cove` of the guest: passes the Docker client's question on to who lends accounts, and its answer
//! back. Where nobody lends any, nobody has an account.

use super::read_body;
use cove_wire::{
    ACCOUNTS_HELPER, ACCOUNTS_VARIABLE, HelperAnswer, HelperCall, HelperVerb, MAX_HELPER_INPUT, WireError,
    decode, encode,
};
use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Read, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
};

/// What a helper says that knows no account: a part of the protocol.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Why nobody was asked.
#[derive(Debug, thiserror::Error)]
enum HelperError {
    #[error("{ACCOUNTS_HELPER} takes one word: get, store, erase or list")]
    Verb,
    #[error("the question is longer than it may be")]
    Long,
    #[error("cannot read the question: {0}")]
    Input(io::Error),
    #[error("cannot ask this machine's host: {0}")]
    Wire(#[from] WireError),
}

/// Whether this process was started as the helper.
pub(crate) fn is_helper() -> bool {
    crate::is_called(ACCOUNTS_HELPER)
}

/// Answers the one question that this process was started for.
pub(crate) fn help() -> ExitCode {
    let verb = env::args_os().nth(1).unwrap_or_default();
    let lender = env::var_os(ACCOUNTS_VARIABLE).filter(|path| !path.is_empty());
    let answer = answer(&verb, io::stdin().lock(), lender).unwrap_or_else(|error| HelperAnswer {
        done: false,
        output: error.to_string(),
    });
    // Errors are told there as well: the Docker client reads nothing else.
    let told = writeln!(io::stdout().lock(), "{}", answer.output);
    if answer.done && told.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn answer(verb: &OsStr, input: impl Read, lender: Option<OsString>) -> Result<HelperAnswer, HelperError> {
    let verb = verb.to_str().and_then(HelperVerb::of).ok_or(HelperError::Verb)?;
    let Some(lender) = lender else {
        return Ok(alone(verb));
    };
    let mut text = String::new();
    let mut bounded = input.take(MAX_HELPER_INPUT as u64 + 1);
    bounded.read_to_string(&mut text).map_err(HelperError::Input)?;
    if text.len() > MAX_HELPER_INPUT {
        return Err(HelperError::Long);
    }
    Ok(ask(Path::new(&lender), verb, text)?)
}

/// The host may take long for it: somebody may have to unlock a keyring. Its program's end is the end of the socket.
fn ask(lender: &Path, verb: HelperVerb, input: String) -> Result<HelperAnswer, WireError> {
    let mut socket = UnixStream::connect(lender)?;
    socket.write_all(&encode(&HelperCall { verb, input })?)?;
    decode(&read_body(&mut socket)?)
}

/// What is answered where nobody lends accounts.
fn alone(verb: HelperVerb) -> HelperAnswer {
    let (done, output) = match verb {
        HelperVerb::Get | HelperVerb::Erase => (false, NOT_FOUND),
        HelperVerb::List => (true, "{}"),
        HelperVerb::Store => (
            false,
            "nobody keeps passwords in this machine; sign in with a Docker client of the computer that it runs on",
        ),
    };
    HelperAnswer {
        done,
        output: output.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(verb: &str, input: &str) -> Result<HelperAnswer, HelperError> {
        answer(OsStr::new(verb), input.as_bytes(), None)
    }

    #[test]
    fn where_nobody_lends_accounts_nobody_has_one() {
        let none = asked("get", "r.example").unwrap();
        assert_eq!((none.done, none.output.as_str()), (false, NOT_FOUND));
        let none = asked("list", "").unwrap();
        assert_eq!((none.done, none.output.as_str()), (true, "{}"));
        assert!(!asked("store", "{}").unwrap().done);
        assert!(matches!(asked("version", ""), Err(HelperError::Verb)));
    }

    #[test]
    fn a_lender_that_has_gone_is_said_and_a_question_of_any_length_is_not_read() {
        let lender = || Some(OsString::from("/nowhere/socket"));
        let gone = answer(OsStr::new("get"), &b"r.example"[..], lender());
        assert!(matches!(gone, Err(HelperError::Wire(_))), "{gone:?}");
        let long = answer(OsStr::new("get"), io::repeat(b'a'), lender());
        assert!(matches!(long, Err(HelperError::Long)), "{long:?}");
    }
}
