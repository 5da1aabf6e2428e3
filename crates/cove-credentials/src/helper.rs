//! Docker's credential helpers, from the side of who asks: `docker-credential-NAME VERB`, with JSON or a registry's
//! key on standard input and JSON on standard output.
//!
//! A helper is a program that a person has installed, and may be anything: it has a time limit, what it says is
//! bounded, and no password is told on from its words.

use crate::secret::{Credentials, Secret};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

/// What a helper says where it keeps nothing of a registry: a part of the protocol.
pub(crate) const NOT_FOUND: &str = "credentials not found in native keychain";

/// Longest answer, in bytes. A thousand registries are a tenth of it.
const LONGEST: u64 = 1 << 20;
/// Of what a helper says of its failure, so many characters are told on.
const COMPLAINT: usize = 400;

/// Why a helper did not do it.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It cannot be the name of a program.
    #[error("`{0}` is not the name of a credential helper")]
    Name(String),
    /// There is no such program.
    #[error("there is no program docker-credential-{0} on the PATH")]
    Missing(String),
    /// The program cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long, maybe because nobody unlocked what it asks.
    #[error("docker-credential-{helper} did not {verb} within {seconds} s")]
    Late {
        /// The helper's name.
        helper: String,
        /// What it was asked to do.
        verb: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// It said no.
    #[error("docker-credential-{helper} did not {verb}: {words}")]
    Refused {
        /// The helper's name.
        helper: String,
        /// What it was asked to do.
        verb: &'static str,
        /// Its own words, on one line and without the password.
        words: String,
    },
    /// Its answer makes no sense.
    #[error("docker-credential-{helper} gave an answer to `{verb}` that cannot be read")]
    Unexpected {
        /// The helper's name.
        helper: String,
        /// What it was asked to do.
        verb: &'static str,
    },
}

/// A program that keeps passwords.
#[derive(Debug)]
pub(crate) struct Helper {
    name: String,
    program: PathBuf,
    patience: Duration,
}

/// What `get` answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret")]
    secret: Secret,
}

impl Helper {
    /// The helper of that name, on a path such as that of the shell.
    pub(crate) fn find(name: &str, path: &OsStr, patience: Duration) -> Result<Self, HelperError> {
        let known = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        if name.is_empty() || !name.chars().all(known) {
            return Err(HelperError::Name(name.to_owned()));
        }
        let program = program(&format!("docker-credential-{name}"), path);
        Ok(Self {
            program: program.ok_or_else(|| HelperError::Missing(name.to_owned()))?,
            name: name.to_owned(),
            patience,
        })
    }

    /// Who somebody is at a registry, if the helper knows.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Credentials>, HelperError> {
        let Some(answer) = self.ask("get", key.as_bytes(), None).await? else {
            return Ok(None);
        };
        let Answer { user, secret } = self.read("get", &answer)?;
        Ok(Some(Credentials { user, secret }))
    }

    /// Keeps who somebody is at a registry, instead of what was kept before.
    pub(crate) async fn store(&self, key: &str, credentials: &Credentials) -> Result<(), HelperError> {
        let secret = &credentials.secret;
        let message = serde_json::json!({
            "ServerURL": key,
            "Username": credentials.user,
            "Secret": secret.expose(),
        });
        self.ask("store", message.to_string().as_bytes(), Some(secret))
            .await?;
        Ok(())
    }

    /// Forgets a registry. One that it does not know is forgotten already.
    pub(crate) async fn erase(&self, key: &str) -> Result<(), HelperError> {
        self.ask("erase", key.as_bytes(), None).await?;
        Ok(())
    }

    /// The users that it keeps, by registry.
    pub(crate) async fn list(&self) -> Result<BTreeMap<String, String>, HelperError> {
        let Some(answer) = self.ask("list", &[], None).await? else {
            return Ok(BTreeMap::new());
        };
        let users: Option<BTreeMap<String, String>> = self.read("list", &answer)?;
        Ok(users.unwrap_or_default())
    }

    fn read<'a, T: Deserialize<'a>>(&self, verb: &'static str, answer: &'a [u8]) -> Result<T, HelperError> {
        // What is wrong with it is not told: it may hold a password.
        serde_json::from_slice(answer).map_err(|_| HelperError::Unexpected {
            helper: self.name.clone(),
            verb,
        })
    }

    /// What it answers; nothing where it says that it does not know the registry.
    async fn ask(
        &self,
        verb: &'static str,
        input: &[u8],
        secret: Option<&Secret>,
    ) -> Result<Option<Vec<u8>>, HelperError> {
        let late = || HelperError::Late {
            helper: self.name.clone(),
            verb,
            seconds: self.patience.as_secs(),
        };
        let run = |source| HelperError::Run {
            program: self.program.clone(),
            source,
        };
        let (status, out, complaint) = timeout(self.patience, run_program(&self.program, verb, input))
            .await
            .map_err(|_| late())?
            .map_err(run)?;
        if status.success() && out.len() as u64 <= LONGEST {
            return Ok(Some(out));
        }
        if status.success() {
            return Err(HelperError::Unexpected {
                helper: self.name.clone(),
                verb,
            });
        }
        if out.trim_ascii() == NOT_FOUND.as_bytes() {
            return Ok(None);
        }
        // By the protocol it says why on its standard output; not all do. Some end badly after a good answer.
        let may_be_told = |text: &&Vec<u8>| verb != "get" || !is_answer(text);
        let told = [&out, &complaint]
            .into_iter()
            .filter(may_be_told)
            .find(|text| !text.trim_ascii().is_empty());
        let words = told.map_or_else(|| status.to_string(), |text| words_of(text, secret));
        Err(HelperError::Refused {
            helper: self.name.clone(),
            verb,
            words,
        })
    }
}

/// A program on a path such as that of the shell. Relative directories of it are passed over.
pub(crate) fn program(name: &str, path: &OsStr) -> Option<PathBuf> {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(&file))
        .find(|program| is_program(program))
}

/// Runs it to its end. A run that is dropped ends it.
async fn run_program(program: &Path, verb: &str, input: &[u8]) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut child = command(program, verb, io::stdin().is_terminal()).spawn()?;
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let telling = async move {
        if let Some(mut stdin) = stdin {
            // One that wants no input may have ended; what it says counts.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), out, complaint) = tokio::join!(telling, bounded(stdout), bounded(stderr));
    let status = child.wait().await?;
    Ok((status, out?, complaint?))
}

/// What runs it. Where this program has the terminal, maybe for a Docker client that reads it, gpg is not told of it: of
/// two that read, neither would get a whole line. Its pinentry then has a window, or says that it cannot ask.
fn command(program: &Path, verb: &str, has_terminal: bool) -> Command {
    let mut command = Command::new(program);
    command
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if has_terminal {
        command.env_remove("GPG_TTY");
    }
    command
}

/// What is written there, up to one byte more than is taken.
async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(stream) = stream {
        stream.take(LONGEST + 1).read_to_end(&mut text).await?;
    }
    Ok(text)
}

/// Whether a password may be in what a helper says of one: JSON with the member of it, or a part of that.
fn is_answer(text: &[u8]) -> bool {
    String::from_utf8_lossy(text)
        .to_ascii_lowercase()
        .contains("\"secret\"")
}

/// A program's words on one line, without the password that it was given.
fn words_of(text: &[u8], secret: Option<&Secret>) -> String {
    let mut words = String::from_utf8_lossy(text).into_owned();
    if let Some(secret) = secret.map(Secret::expose).filter(|secret| !secret.is_empty()) {
        // As it was told to the program, and as it is.
        let quoted = serde_json::Value::from(secret).to_string();
        words = words.replace(quoted.trim_matches('"'), "…").replace(secret, "…");
    }
    let plain = words
        .trim()
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter });
    plain.take(COMPLAINT).collect()
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
#[cfg(unix)]
pub(crate) mod tests {
    use super::*;
    use std::{fs, time::Instant};

    /// A shell script as the helper `name` in `directory`.
    pub(crate) fn script(directory: &Path, name: &str, text: &str) {
        program_of(directory, &format!("docker-credential-{name}"), text);
    }

    /// A shell script as the program `name` in `directory`.
    pub(crate) fn program_of(directory: &Path, name: &str, text: &str) {
        let draft = directory.join(format!("{name}.sh"));
        fs::write(&draft, format!("#!/bin/sh\n{text}")).unwrap();
        // Written by another process: one that this process forks meanwhile would hold the file open for writing, and a
        // file that somebody writes cannot be run.
        let copied = std::process::Command::new("install")
            .args(["-m", "755"])
            .arg(&draft)
            .arg(directory.join(name))
            .status();
        assert!(copied.unwrap().success());
    }

    /// A helper that keeps one registry in the file `kept` beside it.
    pub(crate) fn keeping_one(directory: &Path, name: &str) {
        let kept = directory.join(format!("{name}-kept"));
        let kept = kept.display();
        let text = format!(
            "case $1 in\n\
             store) cat >'{kept}' ;;\n\
             get) read -r key; grep -qsF \"\\\"$key\\\"\" '{kept}' && cat '{kept}' || {{ echo '{NOT_FOUND}'; exit 1; }} ;;\n\
             erase) rm '{kept}' 2>/dev/null || {{ echo '{NOT_FOUND}'; exit 1; }} ;;\n\
             list) test -f '{kept}' && sed 's/.*\"ServerURL\":\\(\"[^\"]*\"\\).*\"Username\":\\(\"[^\"]*\"\\).*/{{\\1:\\2}}/' '{kept}' || echo '{{}}' ;;\n\
             esac\n"
        );
        script(directory, name, &text);
    }

    fn helper(text: &str, patience: Duration) -> (tempfile::TempDir, Helper) {
        let directory = tempfile::tempdir().unwrap();
        script(directory.path(), "test", text);
        let helper = Helper::find("test", directory.path().as_os_str(), patience).unwrap();
        (directory, helper)
    }

    const PATIENT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_is_stored_is_got_listed_and_erased() {
        let directory = tempfile::tempdir().unwrap();
        keeping_one(directory.path(), "test");
        let helper = Helper::find("test", directory.path().as_os_str(), PATIENT).unwrap();
        assert_eq!(helper.get("r.example").await.unwrap(), None);
        assert!(helper.list().await.unwrap().is_empty());
        let mole = Credentials::of("mole", "open \"sesame\" ÿ");
        helper.store("r.example", &mole).await.unwrap();
        assert_eq!(helper.get("r.example").await.unwrap(), Some(mole));
        assert_eq!(helper.get("s.example").await.unwrap(), None);
        let listed = helper.list().await.unwrap();
        assert_eq!(listed.get("r.example").map(String::as_str), Some("mole"));
        helper.erase("r.example").await.unwrap();
        helper.erase("r.example").await.unwrap();
        assert_eq!(helper.get("r.example").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_helpers_words_without_the_password() {
        let (_directory, helper) = helper("echo 'locked: '; cat; exit 3", PATIENT);
        let refused = helper
            .store("r.example", &Credentials::of("mole", "sesame"))
            .await;
        let words = refused.unwrap_err().to_string();
        assert!(
            words.starts_with("docker-credential-test did not store: locked: "),
            "{words}"
        );
        assert!(!words.contains("sesame") && !words.contains('\n'), "{words}");
    }

    #[tokio::test]
    async fn an_answer_that_is_followed_by_a_failure_is_not_told() {
        for stream in ["", " >&2"] {
            for answer in [
                r#"{"Username":"mole","Secret":"sesame"}"#,
                r#"{"username":"mole", "SECRET" : "sesame"#,
            ] {
                let (_directory, helper) = helper(&format!("echo '{answer}'{stream}; exit 1"), PATIENT);
                let words = helper.get("r.example").await.unwrap_err().to_string();
                assert_eq!(words, "docker-credential-test did not get: exit status: 1");
            }
        }
        let (_directory, helper) = helper("echo 'the Secret Service is locked'; exit 1", PATIENT);
        let words = helper.get("r.example").await.unwrap_err().to_string();
        assert_eq!(
            words,
            "docker-credential-test did not get: the Secret Service is locked"
        );
    }

    #[tokio::test]
    async fn what_says_nothing_is_not_waited_for() {
        let (_directory, helper) = helper("exec sleep 600", Duration::from_millis(300));
        let began = Instant::now();
        assert!(matches!(helper.list().await, Err(HelperError::Late { .. })));
        assert!(began.elapsed() < Duration::from_mins(1));
    }

    #[test]
    fn gpg_is_not_told_of_a_terminal_that_has_a_reader() {
        for has_terminal in [false, true] {
            let command = command(Path::new("docker-credential-pass"), "get", has_terminal);
            let untold = command
                .as_std()
                .get_envs()
                .any(|told| told == (OsStr::new("GPG_TTY"), None));
            assert_eq!(untold, has_terminal);
        }
    }

    #[tokio::test]
    async fn what_says_too_much_or_no_json_is_refused() {
        for text in ["yes", "echo this is no JSON"] {
            let (_directory, helper) = helper(text, PATIENT);
            let refused = helper.list().await.unwrap_err();
            let sane = matches!(
                refused,
                HelperError::Unexpected { .. } | HelperError::Refused { .. }
            );
            assert!(sane, "{refused}");
            assert!(refused.to_string().len() < 1000);
        }
    }

    #[test]
    fn a_name_leads_to_no_other_directory_and_what_is_no_program_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        script(directory.path(), "there", "true");
        fs::write(directory.path().join("docker-credential-plain"), "").unwrap();
        let find = |name: &str| Helper::find(name, directory.path().as_os_str(), PATIENT);
        assert!(find("there").is_ok());
        assert!(matches!(find("plain"), Err(HelperError::Missing(_))));
        for name in ["", "../there", "a/b", "a b", "a;b"] {
            assert!(matches!(find(name), Err(HelperError::Name(_))), "{name}");
        }
        assert!(Helper::find("there", OsStr::new("relative:"), PATIENT).is_err());
    }
}
