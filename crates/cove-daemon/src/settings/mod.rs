//! The settings: one TOML file that a person and the API both change.
//!
//! [`SettingsFile`] owns the file and is its only writer on Cove's side. It reads the file again whenever it has
//! changed since (an editor may change it at any time), remembers the last good values, and replaces it whole:
//! temporary file, fsync, rename, the old permissions kept. A file with a mistake stops nothing that runs; the
//! mistake is reported by line and key, and a machine does not start with it. A daemon that has only ever seen the
//! mistake does not know what is wanted ([`SettingsFile::known`]), and then takes nothing from a machine that runs
//! and gives it nothing.

mod edit;
mod keys;
mod proxy;
mod read;
mod template;
mod time;
mod values;

pub(crate) use keys::{Field, Key};
pub(crate) use proxy::Proxy;
pub(crate) use read::{Problem, check_share};
pub(crate) use values::{Backend, HostSize, MachineSettings, Share, Values};

use crate::file;
use cove_api::{ApiError, ErrorCode, Setting, Settings};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// How often an edit is tried anew when somebody else changes the file meanwhile.
const ATTEMPTS: usize = 5;

/// Why the settings could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file, or the change, is not valid.
    #[error("{}{}: {}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default(), what)]
    Invalid {
        file: PathBuf,
        line: Option<usize>,
        what: String,
    },
    /// A change would make the file invalid; it was not made.
    #[error("{0}")]
    Refused(String),
    /// A folder is not shared that was to be shared no longer.
    #[error("`{}` is not shared", .0.display())]
    NotShared(PathBuf),
    /// There is no such key.
    #[error("there is no setting `{0}`")]
    UnknownKey(String),
    /// The file cannot be read or written.
    #[error("cannot {operation} the settings file {}: {source}", file.display())]
    Io {
        operation: &'static str,
        file: PathBuf,
        source: io::Error,
    },
    /// Another program keeps changing the file.
    #[error("the settings file {} is being changed by another program", .0.display())]
    Contended(PathBuf),
    /// The text that was to be replaced is not the file's any more.
    #[error("the settings file {} was changed meanwhile; it was left as it is", .0.display())]
    Outdated(PathBuf),
}

impl From<SettingsError> for ApiError {
    fn from(error: SettingsError) -> Self {
        let (code, hint) = match &error {
            SettingsError::Invalid { .. } => (
                ErrorCode::InvalidSetting,
                "correct it with `cove config edit`, or see `cove config get`",
            ),
            SettingsError::Refused(_) => (
                ErrorCode::InvalidSetting,
                "nothing was changed; `cove config get` shows what is in force",
            ),
            SettingsError::NotShared(_) => (ErrorCode::NotFound, "`cove share list` shows what is"),
            SettingsError::UnknownKey(_) => (ErrorCode::NotFound, "`cove config get` lists the settings"),
            SettingsError::Io { source, .. } if file::is_full(source) => (
                ErrorCode::DiskFull,
                "free some space; the old settings are still in force",
            ),
            SettingsError::Io { .. } => (ErrorCode::Internal, "check the file's owner and permissions"),
            SettingsError::Contended(_) => (ErrorCode::WrongState, "try again"),
            SettingsError::Outdated(_) => (
                ErrorCode::WrongState,
                "read the file as it is now, and make the change to that",
            ),
        };
        Self::new(code, error.to_string(), hint)
    }
}

/// What tells one version of a file from another: when it was modified, its length, and what the system knows besides,
/// since a program may keep both of these. Nothing where there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(Option<(SystemTime, u64, Beside)>);

/// The device, the inode, and when that changed, in seconds and nanoseconds.
type Beside = (u64, u64, i64, i64);

#[cfg(unix)]
fn beside(found: &fs::Metadata) -> Beside {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino(), found.ctime(), found.ctime_nsec())
}

#[cfg(not(unix))]
fn beside(_: &fs::Metadata) -> Beside {
    Beside::default()
}

struct Cache {
    identity: Option<Identity>,
    /// The last good values, once there have been any; no file at all is a good one.
    good: Option<Arc<Values>>,
    problem: Option<Problem>,
}

/// The settings file.
pub(crate) struct SettingsFile {
    path: PathBuf,
    home: Option<PathBuf>,
    host: HostSize,
    cache: Mutex<Cache>,
    /// Held from the reading of the old text to the writing of the new one.
    changing: Mutex<()>,
}

impl SettingsFile {
    /// The settings in `path`, which need not exist, on a computer of this size.
    pub(crate) fn new(path: PathBuf, home: Option<PathBuf>, host: HostSize) -> Self {
        Self {
            path,
            home,
            host,
            cache: Mutex::new(Cache {
                identity: None,
                good: None,
                problem: None,
            }),
            changing: Mutex::default(),
        }
    }

    /// What the defaults depend on.
    pub(crate) fn host(&self) -> HostSize {
        self.host
    }

    /// The values in force; an error when the file cannot be used as it is now.
    pub(crate) fn current(&self) -> Result<Arc<Values>, SettingsError> {
        match self.in_force() {
            (values, None) => Ok(values),
            (_, Some(error)) => Err(error),
        }
    }

    /// The values in force (the last good ones, else the defaults) and what is wrong with the file, if anything.
    pub(crate) fn in_force(&self) -> (Arc<Values>, Option<SettingsError>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = self.identity();
        if cache.identity != Some(identity) {
            let text = match self.read_text() {
                Ok(text) => text.unwrap_or_default(),
                Err(error) => return (cache.good.clone().unwrap_or_default(), Some(error)),
            };
            cache.identity = Some(identity);
            match read::read(&text, self.home.as_deref()) {
                Ok(values) => {
                    cache.good = Some(Arc::new(values));
                    cache.problem = None;
                }
                Err(problem) => {
                    tracing::warn!(file = %self.path.display(), line = problem.line, "settings: {}", problem.what);
                    cache.problem = Some(problem);
                }
            }
        }
        let problem = cache.problem.clone().map(|problem| self.invalid(problem));
        (cache.good.clone().unwrap_or_default(), problem)
    }

    /// The last good values; nothing while this daemon has seen the file with a mistake only. The defaults are then no
    /// better than a guess, which must not change a machine that an earlier daemon started.
    pub(crate) fn known(&self) -> Option<Arc<Values>> {
        drop(self.in_force());
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.good.clone()
    }

    /// Everything, for the API.
    pub(crate) fn list(&self) -> Settings {
        let (values, problem) = self.in_force();
        let in_force = self.filled(&values);
        let nothing = self.filled(&Values::default());
        let defaults = MachineSettings::default_on(self.host);
        let overrides = values.machines.keys().flat_map(|name| {
            let of_machine = Field::ALL.map(|field| Key::Override(name.clone(), field));
            of_machine.into_iter().filter(|key| key.is_set(&values))
        });
        let setting = |key: &Key| Setting {
            key: key.to_string(),
            value: key.value(&in_force, defaults).unwrap_or_default(),
            default: key.value(&nothing, defaults).unwrap_or_default(),
            set: key.is_set(&values),
            description: key.description().into(),
            accepts: key.accepts(),
            choices: key.choices().into_iter().map(str::to_owned).collect(),
        };
        Settings {
            file: self.path.clone(),
            values: Key::fixed()
                .into_iter()
                .chain(overrides)
                .map(|key| setting(&key))
                .collect(),
            problem: problem.map(ApiError::from),
        }
    }

    /// One key's value in force.
    pub(crate) fn get(&self, name: &str) -> Result<Value, SettingsError> {
        let unknown = || SettingsError::UnknownKey(name.to_owned());
        let key = Key::parse(name).ok_or_else(unknown)?;
        let defaults = MachineSettings::default_on(self.host);
        let values = self.current()?;
        key.value(&self.filled(&values), defaults).ok_or_else(unknown)
    }

    /// Sets a key, or with nothing puts it back to its default. Writes nothing when the result would be invalid.
    pub(crate) fn set(&self, name: &str, value: Option<&Value>) -> Result<(), SettingsError> {
        let key = Key::parse(name).ok_or_else(|| SettingsError::UnknownKey(name.to_owned()))?;
        self.edit(|text| edit::edit(text, &key, value, self.home.as_deref()).map(|(text, _)| text))
    }

    /// What the file is, what it would be with all of these keys set or, with nothing, unset, and what it would then
    /// say. One that is not valid refuses them all.
    pub(crate) fn changed<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a str, Option<&'a Value>)>,
    ) -> Result<(String, String, Values), SettingsError> {
        let before = self.text()?;
        let home = self.home.as_deref();
        let said = |problem: Problem| match problem.line {
            None => SettingsError::Refused(problem.what),
            Some(_) => self.invalid(problem),
        };
        let mut values = read::read(&before, home).map_err(said)?;
        let mut after = before.clone();
        for (name, value) in changes {
            let key = Key::parse(name).ok_or_else(|| SettingsError::UnknownKey(name.to_owned()))?;
            (after, values) = edit::edit(&after, &key, value, home).map_err(said)?;
        }
        Ok((before, after, values))
    }

    /// Sets several keys, or none of them where the result would be invalid.
    pub(crate) fn set_all(&self, values: &[(Key, Value)]) -> Result<(), SettingsError> {
        if values.is_empty() {
            return Ok(());
        }
        let home = self.home.as_deref();
        self.edit(|text| {
            values.iter().try_fold(text.to_owned(), |text, (key, value)| {
                edit::edit(&text, key, Some(value), home).map(|(text, _)| text)
            })
        })
    }

    /// The folders to be shared: those that are set, else the home folder. Nothing where that is not
    /// [known](Self::known).
    pub(crate) fn shares(&self) -> Option<Vec<Share>> {
        let shares = self.known()?.shares.clone();
        Some(shares.unwrap_or_else(|| self.default_shares()))
    }

    /// Shares a folder, or changes how it is shared.
    pub(crate) fn add_share(&self, share: &Share) -> Result<(), SettingsError> {
        self.edit_shares(|shares| {
            match shares.iter_mut().find(|other| other.path == share.path) {
                Some(other) => other.clone_from(share),
                None => shares.push(share.clone()),
            }
            Ok(())
        })
    }

    /// Ceases to share a folder.
    pub(crate) fn remove_share(&self, path: &Path) -> Result<(), SettingsError> {
        let absent = || SettingsError::NotShared(path.to_owned());
        // What is refused is told apart by this, since a change says no more than why in words.
        let is_absent = Cell::new(false);
        let edited = self.edit_shares(|shares| {
            let before = shares.len();
            shares.retain(|share| share.path != path);
            is_absent.set(shares.len() == before);
            if is_absent.get() {
                return Err(absent().to_string());
            }
            Ok(())
        });
        match edited {
            Err(_) if is_absent.get() => Err(absent()),
            edited => edited,
        }
    }

    fn edit_shares(
        &self,
        change: impl Fn(&mut Vec<Share>) -> Result<(), String>,
    ) -> Result<(), SettingsError> {
        let home = self.home.as_deref();
        self.edit(|text| {
            let set = read::read(text, home)?.shares;
            let mut shares = set.unwrap_or_else(|| self.default_shares());
            change(&mut shares).map_err(|what| Problem { line: None, what })?;
            let value = values::shares_as_json(&shares);
            edit::edit(text, &Key::Shares, Some(&value), home).map(|(text, _)| text)
        })
    }

    /// The home folder, unless it is one that cannot be shared, such as that of a system's user.
    fn default_shares(&self) -> Vec<Share> {
        let home = self.home.iter();
        home.filter(|home| {
            home.to_str()
                .is_some_and(|text| read::check_share(home, text).is_ok())
        })
        .map(|home| Share {
            path: home.components().collect(),
            read_only: false,
        })
        .collect()
    }

    /// The values with the defaults that depend on this computer's user.
    fn filled(&self, values: &Values) -> Values {
        let mut values = values.clone();
        values.shares.get_or_insert_with(|| self.default_shares());
        values
    }

    /// Removes everything that is said of one machine alone.
    pub(crate) fn forget_machine(&self, name: &crate::name::MachineName) -> Result<(), SettingsError> {
        if !self.in_force().0.machines.contains_key(name) {
            return Ok(());
        }
        self.edit(|text| {
            let broken = |_| Problem {
                line: None,
                what: "this is not TOML".into(),
            };
            let mut document: toml_edit::DocumentMut = text.parse().map_err(broken)?;
            if let Some(machines) = document
                .get_mut("machines")
                .and_then(|item| item.as_table_like_mut())
            {
                machines.remove(name.as_str());
            }
            Ok(document.to_string())
        })
    }

    /// The file's text as it is, or its template.
    pub(crate) fn text(&self) -> Result<String, SettingsError> {
        Ok(self.read_text()?.unwrap_or_else(template::template))
    }

    /// Replaces the whole file if the text is valid, and, where `instead_of` is said, if the text that goes has this
    /// [mark].
    pub(crate) fn replace(&self, text: &str, instead_of: Option<&str>) -> Result<(), SettingsError> {
        read::read(text, self.home.as_deref()).map_err(|problem| self.invalid(problem))?;
        let _alone = self.alone();
        if let Some(expected) = instead_of {
            self.check_is(&self.text()?, expected)?;
        }
        self.write(text)
    }

    /// Refuses a text of the file that has another [mark].
    pub(crate) fn check_is(&self, text: &str, expected: &str) -> Result<(), SettingsError> {
        if mark(text) == expected {
            return Ok(());
        }
        Err(SettingsError::Outdated(self.path.clone()))
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit(&self, change: impl Fn(&str) -> Result<String, Problem>) -> Result<(), SettingsError> {
        let _alone = self.alone();
        for _ in 0..ATTEMPTS {
            let before = self.identity();
            let old = self.text()?;
            let new = change(&old).map_err(|problem| match problem.line {
                None => SettingsError::Refused(problem.what),
                Some(_) => self.invalid(problem),
            })?;
            if self.identity() != before {
                continue;
            }
            return self.write(&new);
        }
        Err(SettingsError::Contended(self.path.clone()))
    }

    fn write(&self, text: &str) -> Result<(), SettingsError> {
        file::replace(&self.path, text.as_bytes(), 0o600).map_err(|source| self.io("write", source))
    }

    fn read_text(&self) -> Result<Option<String>, SettingsError> {
        let too_long = |length: u64| length > read::MAX_FILE as u64;
        match fs::metadata(&self.path) {
            Ok(metadata) if too_long(metadata.len()) || !metadata.is_file() => Err(self.invalid(Problem {
                line: None,
                what: format!("this is no file of at most {} bytes", read::MAX_FILE),
            })),
            Ok(_) => match fs::read_to_string(&self.path) {
                Ok(text) => Ok(Some(text)),
                Err(source) => Err(self.io("read", source)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.io("read", source)),
        }
    }

    fn identity(&self) -> Identity {
        let metadata = fs::metadata(&self.path).ok();
        Identity(metadata.and_then(|found| Some((found.modified().ok()?, found.len(), beside(&found)))))
    }

    fn invalid(&self, problem: Problem) -> SettingsError {
        SettingsError::Invalid {
            file: self.path.clone(),
            line: problem.line,
            what: problem.what,
        }
    }

    fn io(&self, operation: &'static str, source: io::Error) -> SettingsError {
        SettingsError::Io {
            operation,
            file: self.path.clone(),
            source,
        }
    }
}

/// What tells one text of the file from another.
pub(crate) fn mark(text: &str) -> String {
    format!("{:x}", Sha256::digest(text))
}

/// The home directory, for `~` in the file.
pub(crate) fn home() -> Option<PathBuf> {
    let variable = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    let home = std::env::var_os(variable).map(PathBuf::from);
    home.filter(|path| Path::is_absolute(path))
}

#[cfg(test)]
mod tests;
