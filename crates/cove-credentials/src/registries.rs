//! The registries that somebody is signed in to, and how they come to be.

use crate::{
    address::{HUB, is_token_of_hub, same_registry},
    config::{self, Config, Named},
    file::{self, ConfigError},
    helper::{self, Helper, HelperError},
    secret::Credentials,
};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a helper may take for one registry. It may ask a person to unlock a keyring.
const TIMEOUT: Duration = Duration::from_mins(2);
/// How long it may take to list what it keeps, for which nothing needs to be unlocked.
const LISTING: Duration = Duration::from_secs(20);

/// Helpers that are used where the configuration names none, the likeliest first; Cove's own is last.
const USUAL: &[&str] = if cfg!(target_os = "macos") {
    &["osxkeychain", "cove"]
} else if cfg!(windows) {
    &["wincred", "cove"]
} else {
    &["secretservice", "pass", "cove"]
};

/// Why something could not be done with an account.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The Docker client's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A helper did not do it.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// Nothing is there that could keep a password.
    #[error(
        "no program is there that keeps passwords: the PATH has none of {}",
        names(USUAL)
    )]
    NoHelper,
}

/// An account at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The registry, as the Docker client calls it.
    pub key: String,
    /// The user's name; empty where only the helper knows it and does not tell.
    pub user: String,
    /// The helper that keeps the password, if one does.
    pub helper: Option<String>,
    /// Whether a password lies in the configuration file, where anybody can read it who can read the file.
    pub plain: bool,
}

/// What is known of accounts.
#[derive(Debug, Default)]
pub struct Accounts {
    /// By registry.
    pub accounts: Vec<Account>,
    /// The helper that would keep the next one; none where there is no such program.
    pub helper: Option<String>,
    /// What helpers did not tell, and why.
    pub problems: Vec<HelperError>,
}

/// The Docker client's configuration of one person, and the programs that it can find.
#[derive(Debug, Clone)]
pub struct Registries {
    file: PathBuf,
    path: OsString,
}

impl Registries {
    /// Those of `$DOCKER_CONFIG`, else of `~/.docker`, with the programs on `$PATH`.
    pub fn from_env() -> Result<Self, ConfigError> {
        let directory = file::config_directory()?;
        Ok(Self::at(&directory, env::var_os("PATH").unwrap_or_default()))
    }

    /// Those of a configuration's directory, with the programs on `path`.
    pub fn at(directory: &Path, path: impl Into<OsString>) -> Self {
        Self {
            file: file::in_directory(directory),
            path: path.into(),
        }
    }

    /// The configuration file, whether or not it is there.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All accounts that the file or its helpers know of. A helper that fails hides nothing that others know.
    pub async fn list(&self) -> Result<Accounts, ConfigError> {
        let config = Config::read(&self.file)?;
        let names = config
            .helpers()
            .values()
            .map(String::as_str)
            .chain(config.store());
        let names: BTreeSet<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let asked = names.into_iter().map(|name| async move {
            let users = match self.helper(&name, LISTING) {
                Ok(helper) => helper.list().await,
                Err(error) => Err(error),
            };
            (name, users)
        });
        let answers = join_all(asked).await;
        let mut problems = Vec::new();
        let mut known = BTreeMap::new();
        for (name, users) in answers {
            match users {
                Ok(users) => {
                    known.insert(name, users);
                }
                Err(error) => problems.push(error),
            }
        }
        Ok(Accounts {
            accounts: accounts(&config, &known),
            helper: config.store().or_else(|| self.usual().next()).map(str::to_owned),
            problems,
        })
    }

    /// Whether anybody may be signed in anywhere: the file names a helper, or a registry.
    pub fn are_in_use(&self) -> Result<bool, ConfigError> {
        let config = Config::read(&self.file)?;
        Ok(config.store().is_some() || !config.helpers().is_empty() || config.entries().next().is_some())
    }

    /// Whether somebody who signs in has a place for their password: one that the file names, or a usual helper that
    /// answers. One may be installed and have no keyring, as on a computer without a desktop.
    pub async fn have_a_place(&self) -> Result<bool, ConfigError> {
        if self.are_in_use()? {
            return Ok(true);
        }
        for name in self.usual() {
            if let Ok(helper) = self.helper(name, LISTING)
                && helper.list().await.is_ok()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Who somebody is at a registry, as the Docker client would find it.
    pub async fn credentials(&self, key: &str) -> Result<Option<Credentials>, CredentialsError> {
        let config = Config::read(&self.file)?;
        match config.helper(key) {
            Some(name) => Ok(self.helper(name, TIMEOUT)?.get(key).await?),
            None => Ok(config.credentials(key)),
        }
    }

    /// Has a helper keep who somebody is at a registry, and takes what the file had of it out. Where the file names no
    /// helper, it names one from then on: the first of the usual ones that does not refuse. Nothing is written unless
    /// the helper has it.
    pub async fn keep(&self, key: &str, credentials: &Credentials) -> Result<(), CredentialsError> {
        let config = Config::read(&self.file)?;
        if let Some(name) = config.helper(key) {
            self.helper(name, TIMEOUT)?.store(key, credentials).await?;
            return Ok(config::note_sign_in(&self.file, key, name, Named::Already)?);
        }
        let mut refused = None;
        for name in self.usual() {
            match self.helper(name, TIMEOUT)?.store(key, credentials).await {
                Ok(()) => return Ok(config::note_sign_in(&self.file, key, name, Named::Newly)?),
                // It may be there and not be set up, of which the next one knows nothing.
                Err(error @ HelperError::Refused { .. }) => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused.map_or(CredentialsError::NoHelper, CredentialsError::Helper))
    }

    /// Forgets who somebody is at a registry: in the helper's keeping, and in the file, also where the helper fails.
    pub async fn forget(&self, key: &str) -> Result<(), CredentialsError> {
        let config = Config::read(&self.file)?;
        let erased = match config.helper(key) {
            Some(name) => self.erase(name, key).await,
            None => Ok(()),
        };
        config::note_sign_out(&self.file, key)?;
        Ok(erased?)
    }

    /// Has a helper forget a registry, and for Docker Hub the tokens beside it. One that cannot be erased does not keep
    /// the others; the first refusal is what this returns.
    async fn erase(&self, name: &str, key: &str) -> Result<(), HelperError> {
        let helper = self.helper(name, TIMEOUT)?;
        let mut erased = helper.erase(key).await;
        if same_registry(key, HUB) {
            // Some helpers refuse to erase what they do not keep.
            match helper.list().await {
                Ok(kept) => {
                    for token in kept.keys().filter(|key| is_token_of_hub(key)) {
                        erased = erased.and(helper.erase(token).await);
                    }
                }
                Err(error) => erased = erased.and(Err(error)),
            }
        }
        erased
    }

    fn helper(&self, name: &str, patience: Duration) -> Result<Helper, HelperError> {
        Helper::find(name, &self.path, patience)
    }

    /// The helpers for those who have named none, the likeliest first.
    fn usual(&self) -> impl Iterator<Item = &'static str> {
        USUAL.iter().copied().filter(move |name| {
            // Some packages bring all helpers, that of `pass` also where there is no `pass`.
            let has_its_own = *name != "pass" || helper::program(name, &self.path).is_some();
            has_its_own && self.helper(name, TIMEOUT).is_ok()
        })
    }
}

/// What the file and the helpers' lists say together. A helper that is not in `known` did not answer.
fn accounts<'a>(config: &'a Config, known: &'a BTreeMap<String, BTreeMap<String, String>>) -> Vec<Account> {
    let mut accounts: BTreeMap<&'a str, Account> = BTreeMap::new();
    let mut note = |key: &'a str, user: &str, helper: Option<&str>, plain: bool| {
        let account = accounts.entry(key).or_insert_with(|| Account {
            key: key.to_owned(),
            user: String::new(),
            helper: None,
            plain: false,
        });
        if !user.is_empty() {
            user.clone_into(&mut account.user);
        }
        account.helper = helper.map(str::to_owned).or(account.helper.take());
        account.plain |= plain;
    };
    for (key, plain) in config.entries() {
        // A token is of the account that it stands beside, which may be gone.
        if is_token_of_hub(key) {
            if plain {
                note(HUB, "", None, true);
            }
            continue;
        }
        let helper = config.helper(key);
        let silent = helper.is_some_and(|name| !known.contains_key(name));
        if plain {
            let credentials = config.credentials(key).filter(|found| !found.is_token());
            note(
                key,
                credentials.as_ref().map_or("", |found| found.user.as_str()),
                None,
                true,
            );
        }
        if silent {
            note(key, "", helper, false);
        }
    }
    for (key, name) in config.helpers() {
        if name.is_empty() {
            continue;
        }
        match known.get(name) {
            Some(users) => {
                let user = users.iter().find(|(other, _)| same_registry(other, key));
                if let Some((_, user)) = user {
                    note(key.as_str(), shown(user), Some(name.as_str()), false);
                }
            }
            // It was named for this registry, so that there most likely is an account.
            None => note(key.as_str(), "", Some(name.as_str()), false),
        }
    }
    if let Some(name) = config.store()
        && let Some(users) = known.get(name)
    {
        for (key, user) in users {
            let key = if is_token_of_hub(key) { HUB } else { key.as_str() };
            if !config.helpers().contains_key(key) {
                note(key, shown(user), Some(name), false);
            }
        }
    }
    accounts.into_values().collect()
}

/// A user's name, where it is one.
fn shown(user: &str) -> &str {
    if user == "<token>" { "" } else { user }
}

/// The programs of these helpers, as a person reads them.
fn names(helpers: &[&str]) -> String {
    let programs: Vec<String> = helpers
        .iter()
        .map(|name| format!("docker-credential-{name}"))
        .collect();
    programs.join(", ")
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::helper::tests::{keeping_one, program_of, script};
    use std::fs;

    /// A configuration, and a directory that is all of the path but for what scripts need.
    fn registries(config: &str) -> (tempfile::TempDir, Registries) {
        let directory = tempfile::tempdir().unwrap();
        if !config.is_empty() {
            fs::write(directory.path().join("config.json"), config).unwrap();
        }
        let registries = Registries::at(directory.path(), directory.path());
        (directory, registries)
    }

    fn account(key: &str, user: &str, helper: Option<&str>, plain: bool) -> Account {
        Account {
            key: key.to_owned(),
            user: user.to_owned(),
            helper: helper.map(str::to_owned),
            plain,
        }
    }

    #[tokio::test]
    async fn who_signs_in_is_kept_by_a_helper_and_found_until_they_sign_out() {
        let (directory, registries) = registries("");
        keeping_one(directory.path(), "cove");
        let mole = Credentials::of("mole", "sesame");
        registries.keep(HUB, &mole).await.unwrap();
        let text = fs::read_to_string(registries.file()).unwrap();
        assert!(text.contains("\"credsStore\": \"cove\""), "{text}");
        assert!(!text.contains("sesame") && !text.contains("\"auth\""), "{text}");
        assert_eq!(registries.credentials(HUB).await.unwrap(), Some(mole));
        let listed = registries.list().await.unwrap();
        assert_eq!(listed.accounts, [account(HUB, "mole", Some("cove"), false)]);
        registries.forget(HUB).await.unwrap();
        assert_eq!(registries.credentials(HUB).await.unwrap(), None);
        assert!(registries.list().await.unwrap().accounts.is_empty());
    }

    #[tokio::test]
    async fn the_usual_helper_comes_before_coves_own_and_the_named_one_before_both() {
        let (directory, registries) = registries("");
        assert!(registries.list().await.unwrap().helper.is_none());
        let refused = registries.keep("r.example", &Credentials::of("mole", "x")).await;
        assert!(matches!(refused, Err(CredentialsError::NoHelper)));
        assert!(!registries.file().exists());
        keeping_one(directory.path(), "cove");
        assert_eq!(registries.list().await.unwrap().helper.as_deref(), Some("cove"));
        keeping_one(directory.path(), "pass");
        // It can do nothing without what it is named after.
        assert_eq!(registries.list().await.unwrap().helper.as_deref(), Some("cove"));
        program_of(directory.path(), "pass", "exit 1");
        assert_eq!(registries.list().await.unwrap().helper.as_deref(), Some("pass"));
        fs::write(
            registries.file(),
            r#"{"credHelpers": {"r.example": "cove"}, "credsStore": "pass"}"#,
        )
        .unwrap();
        registries
            .keep("r.example", &Credentials::of("mole", "x"))
            .await
            .unwrap();
        assert!(directory.path().join("cove-kept").exists());
        assert!(!directory.path().join("pass-kept").exists());
    }

    #[tokio::test]
    async fn a_password_in_the_file_is_used_told_of_and_taken_out_by_signing_in_again() {
        // mole:sesame
        let (directory, registries) = registries(r#"{"auths": {"r.example": {"auth": "bW9sZTpzZXNhbWU="}}}"#);
        assert_eq!(
            registries.credentials("r.example").await.unwrap(),
            Some(Credentials::of("mole", "sesame"))
        );
        let listed = registries.list().await.unwrap();
        assert_eq!(listed.accounts, [account("r.example", "mole", None, true)]);
        keeping_one(directory.path(), "cove");
        registries
            .keep("r.example", &Credentials::of("mole", "sesame"))
            .await
            .unwrap();
        let listed = registries.list().await.unwrap();
        assert_eq!(
            listed.accounts,
            [account("r.example", "mole", Some("cove"), false)]
        );
    }

    #[tokio::test]
    async fn a_usual_helper_that_was_never_set_up_leaves_it_to_the_next_and_a_named_one_does_not() {
        let (directory, registries) = registries("");
        program_of(directory.path(), "pass", "exit 1");
        script(
            directory.path(),
            "pass",
            "cat >/dev/null; echo 'pass not initialized'; exit 1",
        );
        let mole = Credentials::of("mole", "sesame");
        let refused = registries.keep(HUB, &mole).await.unwrap_err().to_string();
        assert_eq!(
            refused,
            "docker-credential-pass did not store: pass not initialized"
        );
        assert!(!registries.file().exists());
        keeping_one(directory.path(), "cove");
        registries.keep(HUB, &mole).await.unwrap();
        let listed = registries.list().await.unwrap();
        assert_eq!(listed.accounts, [account(HUB, "mole", Some("cove"), false)]);
        fs::write(registries.file(), r#"{"credsStore": "pass"}"#).unwrap();
        let refused = registries.keep(HUB, &mole).await.unwrap_err().to_string();
        assert_eq!(
            refused,
            "docker-credential-pass did not store: pass not initialized"
        );
    }

    #[tokio::test]
    async fn where_no_helper_works_and_none_is_named_nobody_can_sign_in() {
        let (directory, registries) = registries("{\"currentContext\": \"cove\"}");
        assert!(!registries.have_a_place().await.unwrap());
        script(directory.path(), "cove", "echo 'there is no session bus'; exit 1");
        assert!(!registries.have_a_place().await.unwrap());
        keeping_one(directory.path(), "cove");
        assert!(registries.have_a_place().await.unwrap() && !registries.are_in_use().unwrap());
        for config in [
            r#"{"credsStore": "away"}"#,
            r#"{"credHelpers": {"r.example": "away"}}"#,
            r#"{"auths": {"r.example": {}}}"#,
        ] {
            fs::write(registries.file(), config).unwrap();
            assert!(registries.are_in_use().unwrap() && registries.have_a_place().await.unwrap());
        }
        fs::write(registries.file(), "no JSON").unwrap();
        assert!(registries.are_in_use().is_err() && registries.have_a_place().await.is_err());
    }

    #[tokio::test]
    async fn a_registry_whose_helper_has_no_name_is_the_files() {
        // mole:sesame
        let (directory, registries) = registries(
            r#"{"auths": {"r.example": {"auth": "bW9sZTpzZXNhbWU="}}, "credHelpers": {"r.example": ""}}"#,
        );
        let mole = Credentials::of("mole", "sesame");
        assert_eq!(
            registries.credentials("r.example").await.unwrap(),
            Some(mole.clone())
        );
        let listed = registries.list().await.unwrap();
        assert_eq!(listed.accounts, [account("r.example", "mole", None, true)]);
        assert!(listed.problems.is_empty());
        keeping_one(directory.path(), "cove");
        registries.keep("r.example", &mole).await.unwrap();
        let listed = registries.list().await.unwrap();
        assert_eq!(
            listed.accounts,
            [account("r.example", "mole", Some("cove"), false)]
        );
    }

    #[tokio::test]
    async fn a_helper_that_refuses_leaves_the_file_alone() {
        let (directory, registries) = registries("");
        script(directory.path(), "cove", "cat >/dev/null; echo locked; exit 1");
        let refused = registries.keep(HUB, &Credentials::of("mole", "sesame")).await;
        let words = refused.unwrap_err().to_string();
        assert_eq!(words, "docker-credential-cove did not store: locked");
        assert!(!registries.file().exists());
    }

    /// A helper that keeps so much of Docker Hub and of others, and writes down what it is to erase.
    const OF_HUB: &str = r#"case $1 in
        list) echo '{"https://index.docker.io/v1/access-token": "mole",
                     "https://index.docker.io/v1/refresh-token": "mole",
                     "https://r.example/v1/access-token": "vole"}' ;;
        erase) cat >>"${0%/*}/erased"; echo >>"${0%/*}/erased" ;;
        esac"#;

    #[tokio::test]
    async fn tokens_of_docker_hub_are_its_account_and_go_with_it() {
        let (directory, registries) = registries(
            r#"{"auths": {"https://index.docker.io/v1/refresh-token": {"auth": "bW9sZTpzZXNhbWU="}},
                "credsStore": "hub"}"#,
        );
        script(directory.path(), "hub", OF_HUB);
        let listed = registries.list().await.unwrap();
        assert_eq!(
            listed.accounts,
            [
                account(HUB, "mole", Some("hub"), true),
                account("https://r.example/v1/access-token", "vole", Some("hub"), false),
            ]
        );
        registries.forget(HUB).await.unwrap();
        let erased = fs::read_to_string(directory.path().join("erased")).unwrap();
        let wanted = ["", "access-token", "refresh-token"].map(|end| format!("{HUB}{end}"));
        assert_eq!(erased.lines().collect::<Vec<_>>(), wanted);
        let text = fs::read_to_string(registries.file()).unwrap();
        assert!(!text.contains("refresh-token"), "{text}");
    }

    #[tokio::test]
    async fn a_helper_that_fails_keeps_no_password_in_the_file() {
        let (_directory, registries) = registries(
            r#"{"auths": {"r.example": {"auth": "bW9sZTpzZXNhbWU="}, "s.example": {}}, "credsStore": "missing"}"#,
        );
        let refused = registries.forget("r.example").await;
        assert!(matches!(
            refused,
            Err(CredentialsError::Helper(HelperError::Missing(_)))
        ));
        let text = fs::read_to_string(registries.file()).unwrap();
        assert!(
            !text.contains("r.example") && text.contains("s.example"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_helper_that_fails_hides_nothing_that_others_know() {
        let (directory, registries) = registries(
            r#"{"auths": {"p.example": {"auth": "bW9sZTpzZXNhbWU="}},
                "credHelpers": {"g.example": "broken", "h.example": "missing"}, "credsStore": "list"}"#,
        );
        script(directory.path(), "broken", "echo no network; exit 1");
        script(directory.path(), "list", r#"echo '{"s.example": "vole"}'"#);
        let listed = registries.list().await.unwrap();
        assert_eq!(
            listed.accounts,
            [
                account("g.example", "", Some("broken"), false),
                account("h.example", "", Some("missing"), false),
                account("p.example", "mole", None, true),
                account("s.example", "vole", Some("list"), false),
            ]
        );
        let problems: Vec<String> = listed.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "docker-credential-broken did not list: no network",
                "there is no program docker-credential-missing on the PATH"
            ]
        );
    }
}
