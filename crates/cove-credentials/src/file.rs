//! The Docker client's configuration file: read whole, changed member by member.
//!
//! ```text
//!         ┌──────────────────────────────────────────────┐ another program has written it meanwhile
//!         ▼                                              │
//!       read ──▶ edit members ──▶ write beside it ──▶ read again ──▶ rename
//! ```
//!
//! Nobody owns it: the Docker client takes no lock, so that there is none to share, and of Cove both the daemon and the
//! window change it. What another program writes while a change is made is therefore kept: the change is made again, to
//! what stands there then. Only what comes between the last look and the renaming is lost, as it is with the client.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{
    env, fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tempfile::NamedTempFile;

/// Largest file that is read, in bytes.
const LARGEST: u64 = 4 << 20;
/// How often a change is made anew before it is given up. Others write the file when a person asks them to.
const ATTEMPTS: usize = 8;

const CONTEXT: &str = "currentContext";

/// One change of the file at a time in this process.
static CHANGING: Mutex<()> = Mutex::new(());

/// Why the file cannot be used. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no home directory.
    #[error("neither HOME nor DOCKER_CONFIG says where the Docker client's configuration is")]
    NoHome,
    /// The file is not what the Docker client writes.
    #[error("{} is not a Docker client's configuration", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        source: serde_json::Error,
    },
    /// The file cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another program wrote the file each time before it could be replaced.
    #[error("another program keeps changing {}", path.display())]
    Contested {
        /// The file.
        path: PathBuf,
    },
}

/// The directory of the Docker client's configuration, whether or not it is there: `$DOCKER_CONFIG`, else `~/.docker`.
pub fn config_directory() -> Result<PathBuf, ConfigError> {
    let set = env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty());
    if let Some(directory) = set {
        return Ok(directory.into());
    }
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
    Ok(home.ok_or(ConfigError::NoHome)?.join(".docker"))
}

/// The context that the Docker client uses when it is told nothing, if the configuration in `directory` names one.
pub fn current_context(directory: &Path) -> Result<Option<String>, ConfigError> {
    read(&in_directory(directory), |members| context_of(&members))
}

/// Makes a context the current one in the configuration in `directory`. Whether there is such a context is not asked.
pub fn use_context(directory: &Path, name: &str) -> Result<(), ConfigError> {
    change(&in_directory(directory), |mut members| {
        if context_of(&members)?.as_deref() == Some(name) {
            return Ok(None);
        }
        members.set(CONTEXT, &quoted(name));
        Ok(Some(members))
    })
}

/// Makes the Docker client's default context the current one, if `name` is.
pub fn leave_context(directory: &Path, name: &str) -> Result<(), ConfigError> {
    change(&in_directory(directory), |mut members| {
        if context_of(&members)?.as_deref() != Some(name) {
            return Ok(None);
        }
        members.remove(CONTEXT);
        Ok(Some(members))
    })
}

fn context_of(members: &Members) -> Result<Option<String>, serde_json::Error> {
    let name: Option<String> = members.value(CONTEXT)?;
    Ok(name.filter(|name| !name.is_empty()))
}

/// The configuration file of such a directory.
pub(crate) fn in_directory(directory: &Path) -> PathBuf {
    directory.join("config.json")
}

/// What `of` makes of the file at `path`; what is not there has no members.
pub(crate) fn read<T>(
    path: &Path,
    of: impl FnOnce(Members) -> Result<T, serde_json::Error>,
) -> Result<T, ConfigError> {
    let text = contents(path)?.unwrap_or_default();
    Members::parse(&text).and_then(of).map_err(malformed(path))
}

/// Changes the file at `path` into what `edit` makes of its members, which is asked again when another program has
/// changed them meanwhile. Where it makes nothing of them, the file stays as it is.
pub(crate) fn change(
    path: &Path,
    mut edit: impl FnMut(Members) -> Result<Option<Members>, serde_json::Error>,
) -> Result<(), ConfigError> {
    let _one = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS {
        let found = contents(path)?;
        let edited = Members::parse(found.as_deref().unwrap_or_default()).and_then(&mut edit);
        let Some(members) = edited.map_err(malformed(path))? else {
            return Ok(());
        };
        if replace(path, found.as_deref(), &members.text(0))? {
            return Ok(());
        }
    }
    Err(ConfigError::Contested {
        path: path.to_owned(),
    })
}

/// Every byte of the file; none where it is not there.
fn contents(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    let cannot = failed("read", path);
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    if !found.is_file() {
        return Err(cannot(io::Error::other("it is not a file")));
    }
    if found.len() > LARGEST {
        return Err(cannot(io::Error::other(format!("it has {} bytes", found.len()))));
    }
    fs::read(path).map(Some).map_err(cannot)
}

/// Replaces the file in one step, through a link to it, with the mode that it has. Where it is no longer as it was
/// `found`, it stays, and this returns false.
fn replace(path: &Path, found: Option<&[u8]>, text: &str) -> Result<bool, ConfigError> {
    let (beside, target) = write_beside(path, text).map_err(failed("write", path))?;
    if contents(path)?.as_deref() != found {
        return Ok(false);
    }
    rename(beside, &target).map_err(failed("write", path))?;
    Ok(true)
}

/// Writes a file that can take the place of the one at `path`, which is returned, too, with all links followed.
fn write_beside(path: &Path, text: &str) -> io::Result<(NamedTempFile, PathBuf)> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        // A link to nothing is there, and would be written over.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            path.to_owned()
        }
        Err(error) => return Err(error),
    };
    let directory = target.parent().unwrap_or(Path::new("."));
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    // A new file is its owner's alone, as the Docker client makes it.
    let mut beside = tempfile::Builder::new()
        .prefix(".config.json.")
        .tempfile_in(directory)?;
    if let Ok(found) = fs::metadata(&target) {
        beside.as_file().set_permissions(found.permissions())?;
    }
    beside.write_all(text.as_bytes())?;
    beside.as_file().sync_all()?;
    Ok((beside, target))
}

fn rename(beside: NamedTempFile, target: &Path) -> io::Result<()> {
    beside.persist(target).map_err(|error| error.error)?;
    #[cfg(unix)]
    fs::File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> ConfigError {
    move |source| ConfigError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn malformed(path: &Path) -> impl Fn(serde_json::Error) -> ConfigError {
    move |source| ConfigError::Malformed {
        path: path.to_owned(),
        source,
    }
}

/// An object's members in their order, each value as it is written.
#[derive(Default)]
pub(crate) struct Members(pub(crate) Vec<(String, Box<RawValue>)>);

impl Members {
    /// Those of a file. The Docker client takes an empty one for one that is not there.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(text)
    }

    /// The value of a member, null being none. The Docker client does not tell the letters' case, and takes the last
    /// one.
    pub(crate) fn value<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        let found = self.0.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name));
        match found {
            Some((_, value)) => serde_json::from_str(value.get()),
            None => Ok(None),
        }
    }

    /// Puts JSON where the member is, or behind the others. Others of the same name would contradict it.
    pub(crate) fn set(&mut self, name: &str, json: &str) {
        let same = |key: &str| key.eq_ignore_ascii_case(name);
        let Some(last) = self.0.iter().rposition(|(key, _)| same(key)) else {
            self.0.push((name.to_owned(), raw(json)));
            return;
        };
        let mut index = 0;
        self.0.retain_mut(|(key, value)| {
            let keep = index == last || !same(key);
            if index == last {
                *value = raw(json);
            }
            index += 1;
            keep
        });
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    /// As the Docker client writes it, `depth` tabs deep.
    pub(crate) fn text(&self, depth: usize) -> String {
        if self.0.is_empty() {
            return "{}".to_owned();
        }
        let tabs = "\t".repeat(depth);
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(key, value)| format!("{tabs}\t{}: {}", quoted(key), value.get()))
            .collect();
        format!("{{\n{}\n{tabs}}}", lines.join(",\n"))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// JSON that was made here or read before, which is why it cannot be refused.
pub(crate) fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = in_directory(directory.path());
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn switching_the_context_keeps_everything_else_as_it_was_written() {
        let before = "{\n\t\"credsStore\": \"pass\",\n\t\"auths\": {\"b\": {}, \"a\": {}},\n\t\"n\": 1.50\n}";
        let (directory, path) = file(before);
        let directory = directory.path();
        assert_eq!(current_context(directory).unwrap(), None);
        use_context(directory, "cove").unwrap();
        assert_eq!(current_context(directory).unwrap().as_deref(), Some("cove"));
        let with = before.replace("\n}", ",\n\t\"currentContext\": \"cove\"\n}");
        assert_eq!(fs::read_to_string(&path).unwrap(), with);
        use_context(directory, "dev").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), with.replace("cove", "dev"));
        leave_context(directory, "dev").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn leaving_a_context_leaves_no_other_one() {
        let text = r#"{"currentContext": "colima"}"#;
        let (directory, path) = file(text);
        leave_context(directory.path(), "cove").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);

        let nothing = tempfile::tempdir().unwrap();
        leave_context(nothing.path(), "cove").unwrap();
        assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
        use_context(nothing.path(), "cove").unwrap();
        assert_eq!(current_context(nothing.path()).unwrap().as_deref(), Some("cove"));
    }

    #[test]
    fn a_broken_file_is_not_overwritten() {
        for text in ["{ broken", "[]", r#"{"currentContext": 1}"#] {
            let (directory, path) = file(text);
            let refused = use_context(directory.path(), "cove");
            assert!(matches!(refused, Err(ConfigError::Malformed { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn what_another_program_writes_meanwhile_is_kept_and_changed() {
        let (directory, path) = file("{}");
        let mut asked = 0;
        change(&path, |mut members| {
            asked += 1;
            if asked == 1 {
                fs::write(&path, r#"{"theirs": 1}"#).unwrap();
            }
            members.set("ours", "2");
            Ok(Some(members))
        })
        .unwrap();
        assert_eq!(asked, 2);
        let both = "{\n\t\"theirs\": 1,\n\t\"ours\": 2\n}";
        assert_eq!(fs::read_to_string(&path).unwrap(), both);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_never_rests_is_given_up_and_left_to_who_writes_it() {
        let (directory, path) = file("{}");
        let mut asked = 0;
        let given_up = change(&path, |mut members| {
            asked += 1;
            fs::write(&path, format!("{{\"theirs\": {asked}}}")).unwrap();
            members.set("ours", "2");
            Ok(Some(members))
        });
        assert!(matches!(given_up, Err(ConfigError::Contested { .. })));
        assert_eq!(asked, ATTEMPTS);
        let theirs = format!("{{\"theirs\": {ATTEMPTS}}}");
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_the_mode_stays_the_mode() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let add = |path: &Path| {
            change(path, |mut members| {
                members.set("ours", "2");
                Ok(Some(members))
            })
        };
        let (directory, real) = file("{}");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link.json");
        std::os::unix::fs::symlink("config.json", &link).unwrap();
        add(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&real).unwrap(), "{\n\t\"ours\": 2\n}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);

        let nowhere = directory.path().join("nowhere.json");
        std::os::unix::fs::symlink("gone.json", &nowhere).unwrap();
        assert!(add(&nowhere).is_err());
        assert!(fs::symlink_metadata(&nowhere).unwrap().is_symlink());
    }
}
