//! Accounts lent to a Docker client in a machine, which asks for those of the registries that it speaks with.
//!
//! ```text
//!  a client in the machine ──question──▶ cove-agent accounts ──frames──▶ answer ──▶ config.json, helper
//! ```
//!
//! The client's own credential helper, in the machine, does nothing but pass the question on, so that no password is in
//! a file, an environment or a command line there. What asks may be anything that runs as root in the machine while a
//! loan lasts, as anything may that runs as this person on this computer: it can have each account whose registry it
//! names, is told of no other, and changes none unless the person is signing in or out.

use crate::{
    address::{AddressError, is_token_of_hub, key_of_address},
    helper::NOT_FOUND,
    protocol::{Stored, told},
    registries::{CredentialsError, Registries},
    secret::Credentials,
};
use bytes::{Bytes, BytesMut};
use cove_wire::{
    ACCOUNTS_ARGUMENT, ACCOUNTS_VARIABLE, AGENT_PROGRAM, Codec, Exec, ExecCodec, ExecPacket, HelperAnswer,
    HelperCall, HelperVerb, Lending, MAX_EXEC_DATA, WireError, encode, with_causes,
};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::{
    codec::{Decoder as _, Framed},
    task::AbortOnDropHandle,
};

/// How long the machine may take until clients can ask. An emulated one that is busy starts a program in seconds.
const OPENING: Duration = Duration::from_secs(20);
/// Questions that one client may ask. A compose project of a hundred services asks a few hundred.
const MAX_QUESTIONS: usize = 1000;
/// Longest path of a socket that Linux takes, in bytes.
const LONGEST_PATH: usize = 107;

/// Why accounts are not lent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LendError {
    /// The machine is busy, or does not work.
    #[error("the machine did not say within {} s where its Docker client may ask", OPENING.as_secs())]
    Late,
    /// The program in the machine has ended: that of an older image knows of no accounts.
    #[error(
        "the machine's agent does not pass questions on; restart the machine if Cove was upgraded since it started"
    )]
    Ended,
    /// The machine said something that it cannot have meant.
    #[error("the machine's agent says what makes no sense")]
    Nonsense,
    /// The stream to the machine broke.
    #[error("the stream to the machine's agent broke")]
    Stream(#[from] WireError),
}

/// What a client may have done with accounts beside asking for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Nothing.
    Read,
    /// Keep one.
    SignIn,
    /// Forget one.
    SignOut,
}

/// Accounts are lent for as long as this lives.
#[derive(Debug)]
pub struct Loan {
    path: String,
    _answering: AbortOnDropHandle<()>,
}

impl Loan {
    /// The variable by which a Docker client in the machine finds whom to ask.
    pub fn variable(&self) -> (String, String) {
        (ACCOUNTS_VARIABLE.to_owned(), self.path.clone())
    }
}

/// The program that passes questions on, to be run in the machine beside the client.
pub fn lender() -> Exec {
    Exec {
        command: [AGENT_PROGRAM, ACCOUNTS_ARGUMENT].map(str::to_owned).to_vec(),
        environment: BTreeMap::new(),
        directory: None,
        terminal: None,
    }
}

/// Answers what comes by `stream`, that of [`lender`]'s program: returns when clients can ask. What stands in the way
/// of an account is told to `tell`, each once, and the client goes on as nobody: what anybody may have needs none.
///
/// To be called where tokio's runtime is.
pub(crate) async fn lend<S>(
    stream: S,
    registries: Registries,
    rights: Rights,
    tell: impl FnMut(String) + Send + 'static,
) -> Result<Loan, LendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut machine = Machine {
        packets: Framed::new(stream, ExecCodec),
        frames: Codec::default(),
        unread: BytesMut::new(),
    };
    let path = match timeout(OPENING, machine.next())
        .await
        .map_err(|_| LendError::Late)??
    {
        Lending::Listening(path) if is_socket(&path) => path,
        _ => return Err(LendError::Nonsense),
    };
    let answering = tokio::spawn(async move {
        // However it ends, the client learns of it: its questions lead nowhere then.
        let _ = answer_all(machine, &registries, rights, tell).await;
    });
    Ok(Loan {
        path,
        _answering: AbortOnDropHandle::new(answering),
    })
}

/// Whether it can be the path of a socket, and the value of a variable.
fn is_socket(path: &str) -> bool {
    path.starts_with('/') && path.len() <= LONGEST_PATH && !path.contains(char::is_control)
}

/// The program in the machine.
struct Machine<S> {
    packets: Framed<S, ExecCodec>,
    frames: Codec<Lending, HelperAnswer>,
    /// What it has written and does not make a frame yet: no more than the longest one and a packet.
    unread: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Machine<S> {
    async fn next(&mut self) -> Result<Lending, LendError> {
        loop {
            if let Some(said) = self.frames.decode(&mut self.unread)? {
                return Ok(said);
            }
            match self.packets.next().await.transpose()? {
                Some(ExecPacket::Stdout(data)) => self.unread.extend_from_slice(&data),
                // What it complains of, and what only our side sends.
                Some(
                    ExecPacket::Stderr(_)
                    | ExecPacket::Stdin(_)
                    | ExecPacket::StdinEnd
                    | ExecPacket::Resize { .. }
                    | ExecPacket::Signal(_),
                ) => {}
                Some(ExecPacket::Exit(_)) | None => return Err(LendError::Ended),
            }
        }
    }

    async fn send(&mut self, answer: &HelperAnswer) -> Result<(), LendError> {
        let frame = encode(answer)?;
        for piece in frame.chunks(MAX_EXEC_DATA) {
            let packet = ExecPacket::Stdin(Bytes::copy_from_slice(piece));
            self.packets.send(packet).await?;
        }
        Ok(())
    }
}

/// Answers until the machine asks no more, or more than any client does.
async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(
    mut machine: Machine<S>,
    registries: &Registries,
    rights: Rights,
    mut tell: impl FnMut(String),
) -> Result<(), LendError> {
    let mut told = BTreeSet::new();
    for _ in 0..MAX_QUESTIONS {
        let Lending::Asked(call) = machine.next().await? else {
            return Err(LendError::Nonsense);
        };
        let (answer, problem) = answer(registries, rights, &call).await;
        if let Some(problem) = problem
            && told.insert(problem.clone())
        {
            tell(problem);
        }
        machine.send(&answer).await?;
    }
    Ok(())
}

/// The answer to one question, and what a person has to know of it.
async fn answer(
    registries: &Registries,
    rights: Rights,
    call: &HelperCall,
) -> (HelperAnswer, Option<String>) {
    let nobody = || failed(NOT_FOUND);
    match (call.verb, rights) {
        (HelperVerb::Get, _) => {
            let asked = call.input.trim();
            let Ok(key) = key_of(asked) else {
                return (nobody(), None);
            };
            match registries.credentials(&key).await {
                Ok(Some(found)) => (done(told(asked, &found)), None),
                Ok(None) => (nobody(), None),
                Err(error) => (nobody(), Some(with_causes(&error))),
            }
        }
        (HelperVerb::Store, Rights::SignIn) => (stored(registries, &call.input).await, None),
        (HelperVerb::Erase, Rights::SignOut) => {
            let Ok(key) = key_of(call.input.trim()) else {
                return (nobody(), None);
            };
            (outcome(registries.forget(&key).await), None)
        }
        // Who asks for all of them wants the password of each: the builder before BuildKit did.
        (HelperVerb::List, _) => (done("{}".to_owned()), None),
        (HelperVerb::Store | HelperVerb::Erase, _) => {
            (failed("accounts are changed by `login` and `logout` alone"), None)
        }
    }
}

async fn stored(registries: &Registries, input: &str) -> HelperAnswer {
    // What is wrong with it is not told: it holds a password.
    let Ok(Stored { key, user, secret }) = serde_json::from_str(input) else {
        return failed("what is to be stored is no JSON");
    };
    match key_of(&key) {
        Ok(key) => outcome(registries.keep(&key, &Credentials { user, secret }).await),
        Err(error) => failed(&error.to_string()),
    }
}

/// The key of the registry at the address that a client asks for. The tokens that newer clients keep beside Docker
/// Hub's account have their own, so that none is told or kept in its place.
fn key_of(asked: &str) -> Result<String, AddressError> {
    if is_token_of_hub(asked) {
        Ok(asked.to_owned())
    } else {
        key_of_address(asked)
    }
}

fn outcome(result: Result<(), CredentialsError>) -> HelperAnswer {
    match result {
        Ok(()) => done(String::new()),
        Err(error) => failed(&with_causes(&error)),
    }
}

fn done(output: String) -> HelperAnswer {
    HelperAnswer { done: true, output }
}

fn failed(why: &str) -> HelperAnswer {
    HelperAnswer {
        done: false,
        output: why.to_owned(),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::{
        address::HUB,
        helper::tests::{keeping_one, script},
    };
    use cove_wire::{HEADER_LEN, decode};
    use proptest::prelude::*;
    use std::{
        fs,
        sync::{Arc, Mutex},
    };
    use tokio::io::DuplexStream;

    /// mole:sesame
    const PLAIN: &str = r#"{"auths": {"r.example": {"auth": "bW9sZTpzZXNhbWU="}}}"#;

    fn registries(config: &str) -> (tempfile::TempDir, Registries) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), config).unwrap();
        let registries = Registries::at(directory.path(), directory.path());
        (directory, registries)
    }

    fn call(verb: HelperVerb, input: &str) -> HelperCall {
        HelperCall {
            verb,
            input: input.to_owned(),
        }
    }

    /// The machine's side of a loan.
    struct Agent(Framed<DuplexStream, ExecCodec>);

    impl Agent {
        async fn say(&mut self, said: &Lending) {
            let frame = encode(said).unwrap();
            // As it comes from a pipe: in whatever pieces.
            let (one, other) = frame.split_at(frame.len() / 2);
            for piece in [one, other] {
                let packet = ExecPacket::Stdout(Bytes::copy_from_slice(piece));
                self.0.send(packet).await.unwrap();
            }
        }

        async fn ask(&mut self, verb: HelperVerb, input: &str) -> HelperAnswer {
            self.say(&Lending::Asked(call(verb, input))).await;
            match self.0.next().await {
                Some(Ok(ExecPacket::Stdin(frame))) => decode(&frame[HEADER_LEN..]).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn lent(registries: Registries, rights: Rights) -> (Agent, Loan, Arc<Mutex<Vec<String>>>) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut agent = Agent(Framed::new(theirs, ExecCodec));
        agent.say(&Lending::Listening("/run/socket".to_owned())).await;
        let problems = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&problems);
        let tell = move |problem| heard.lock().unwrap().push(problem);
        let loan = lend(ours, registries, rights, tell).await.unwrap();
        (agent, loan, problems)
    }

    #[tokio::test]
    async fn a_client_gets_the_account_that_it_asks_for_and_no_list_of_others() {
        let (_directory, registries) = registries(PLAIN);
        let (mut agent, loan, problems) = lent(registries, Rights::Read).await;
        assert_eq!(
            loan.variable(),
            (ACCOUNTS_VARIABLE.to_owned(), "/run/socket".to_owned())
        );
        let got = agent.ask(HelperVerb::Get, "https://r.example\n").await;
        let told: serde_json::Value = serde_json::from_str(&got.output).unwrap();
        assert_eq!(
            (got.done, &told["Username"], &told["Secret"]),
            (true, &"mole".into(), &"sesame".into())
        );
        for unknown in [HUB, "other.example", "--config"] {
            assert_eq!(agent.ask(HelperVerb::Get, unknown).await, failed(NOT_FOUND));
        }
        assert_eq!(agent.ask(HelperVerb::List, "").await, done("{}".to_owned()));
        assert!(problems.lock().unwrap().is_empty());
        // With the loan the machine's program ends.
        drop(loan);
        assert!(agent.0.next().await.is_none());
    }

    #[tokio::test]
    async fn a_token_beside_docker_hubs_account_is_not_that_account() {
        let (_directory, registries) = registries(&PLAIN.replace("r.example", HUB));
        let (mut agent, _loan, _) = lent(registries, Rights::Read).await;
        assert!(agent.ask(HelperVerb::Get, HUB).await.done);
        for token in ["access-token", "refresh-token"] {
            let asked = format!("{HUB}{token}");
            assert_eq!(agent.ask(HelperVerb::Get, &asked).await, failed(NOT_FOUND));
        }
    }

    #[tokio::test]
    async fn nothing_is_changed_but_by_signing_in_and_out() {
        let (directory, registries) = registries(PLAIN);
        keeping_one(directory.path(), "cove");
        let text = || fs::read_to_string(directory.path().join("config.json")).unwrap();
        let stored = r#"{"ServerURL": "other.example", "Username": "rat", "Secret": "river"}"#;
        let (mut agent, _loan, _) = lent(registries.clone(), Rights::Read).await;
        assert!(!agent.ask(HelperVerb::Store, stored).await.done);
        assert!(!agent.ask(HelperVerb::Erase, "r.example").await.done);
        assert_eq!(text(), PLAIN);

        let (mut agent, _loan, _) = lent(registries.clone(), Rights::SignIn).await;
        assert!(!agent.ask(HelperVerb::Erase, "r.example").await.done);
        assert!(!agent.ask(HelperVerb::Store, "{\"Secret\": 7}").await.done);
        assert_eq!(text(), PLAIN);
        assert_eq!(agent.ask(HelperVerb::Store, stored).await, done(String::new()));
        assert!(!text().contains("river"), "{}", text());
        let kept = registries.credentials("other.example").await.unwrap();
        assert_eq!(kept, Some(Credentials::of("rat", "river")));

        let (mut agent, _loan, _) = lent(registries.clone(), Rights::SignOut).await;
        assert!(!agent.ask(HelperVerb::Store, stored).await.done);
        assert_eq!(
            agent.ask(HelperVerb::Erase, "r.example").await,
            done(String::new())
        );
        assert_eq!(registries.credentials("r.example").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_helper_that_fails_is_told_of_once_and_leaves_the_client_nobody() {
        let (directory, registries) = registries(r#"{"credsStore": "locked"}"#);
        script(
            directory.path(),
            "locked",
            "cat >/dev/null; echo 'the keyring is locked'; exit 1",
        );
        let (mut agent, _loan, problems) = lent(registries, Rights::Read).await;
        for _ in 0..2 {
            assert_eq!(agent.ask(HelperVerb::Get, "r.example").await, failed(NOT_FOUND));
        }
        assert_eq!(
            *problems.lock().unwrap(),
            ["docker-credential-locked did not get: the keyring is locked"]
        );
    }

    #[tokio::test]
    async fn a_machine_that_says_something_else_is_lent_nothing() {
        for (said, expected) in [
            (
                Some(Lending::Listening("relative".to_owned())),
                "says what makes no sense",
            ),
            (
                Some(Lending::Listening("/run/a\nb".to_owned())),
                "says what makes no sense",
            ),
            (
                Some(Lending::Asked(call(HelperVerb::Get, "r.example"))),
                "says what makes no sense",
            ),
            (None, "does not pass questions on"),
        ] {
            let (_directory, registries) = registries(PLAIN);
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let mut agent = Agent(Framed::new(theirs, ExecCodec));
            match said {
                Some(said) => agent.say(&said).await,
                None => agent.0.send(ExecPacket::Exit(64)).await.unwrap(),
            }
            let refused = lend(ours, registries, Rights::Read, |_| {}).await.unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_asked_no_password_but_that_of_the_registry_is_told(
            verb in prop_oneof![
                Just(HelperVerb::Get), Just(HelperVerb::Store), Just(HelperVerb::Erase), Just(HelperVerb::List)
            ],
            input in "\\PC{0,40}",
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (_directory, registries) = registries(PLAIN);
            let (answer, problem) = runtime.block_on(answer(&registries, Rights::Read, &call(verb, &input)));
            prop_assert!(!answer.output.contains("sesame") || input.contains("r.example"));
            prop_assert!(problem.is_none());
        }
    }
}
