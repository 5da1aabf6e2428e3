//! The keyring of a Linux session: the Secret Service of freedesktop.org, a program on the session's message bus such
//! as gnome-keyring, `KWallet` or `KeePassXC`.
//!
//! Entries have the attributes that docker-credential-secretservice gives its own, so that either helper finds what the
//! other has kept. Passwords cross the bus unencrypted (the specification's algorithm `plain`): who can read this
//! person's bus can ask the keyring as well.

use cove_credentials::{Credentials, Keychain, KeychainError};
use dbus::{
    Message,
    arg::{AppendAll, PropMap, ReadAll, RefArg, Variant},
    blocking::Connection,
    message::MatchRule,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::mpsc,
    time::{Duration, Instant},
};

const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
const OF_SERVICE: &str = "org.freedesktop.Secret.Service";
const OF_COLLECTION: &str = "org.freedesktop.Secret.Collection";
const OF_ITEM: &str = "org.freedesktop.Secret.Item";
const OF_PROMPT: &str = "org.freedesktop.Secret.Prompt";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The path that stands for none.
const NONE: &str = "/";
/// What tells our entries from others.
const MARKS: [(&str, &str); 2] = [("xdg:schema", "io.docker.Credentials"), ("docker_cli", "1")];

/// How long the keyring may take for an answer that needs nobody.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a person may take for everything that the keyring asks: less than who started this helper waits.
const UNLOCKING: Duration = Duration::from_secs(110);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(200);

type Path = dbus::Path<'static>;

/// A session with the keyring.
pub(crate) struct SecretService {
    bus: Connection,
    session: Path,
    /// When a person has had [`UNLOCKING`].
    until: Instant,
}

impl SecretService {
    /// Finds the keyring on the session's bus.
    pub(crate) fn connect() -> Result<Self, KeychainError> {
        let bus = Connection::new_session().map_err(|error| {
            KeychainError(format!(
                "there is no session bus to find a keyring on ({}). Sign in from a desktop session, or name another \
                 credential helper as `credsStore` in Docker's config.json",
                error.message().unwrap_or("no reason given")
            ))
        })?;
        Self::over(bus)
    }

    /// Opens a session with the keyring on this bus.
    fn over(bus: Connection) -> Result<Self, KeychainError> {
        let mut service = Self {
            bus,
            session: Path::from(NONE),
            until: Instant::now() + UNLOCKING,
        };
        let (_, session): (Variant<Box<dyn RefArg>>, Path) = service.call(
            &Path::from(ROOT),
            OF_SERVICE,
            "OpenSession",
            ("plain", Variant("")),
        )?;
        service.session = session;
        Ok(service)
    }

    fn call<R: ReadAll>(
        &self,
        object: &Path,
        interface: &'static str,
        member: &'static str,
        arguments: impl AppendAll,
    ) -> Result<R, KeychainError> {
        let object = self.bus.with_proxy(SERVICE, object.clone(), ANSWER);
        object
            .method_call(interface, member, arguments)
            .map_err(|error| told(&error))
    }

    /// Our entries, of one registry or of all: those that can be read, and those that are locked.
    fn search(&self, key: Option<&str>) -> Result<(Vec<Path>, Vec<Path>), KeychainError> {
        let mut attributes = HashMap::from(MARKS);
        attributes.extend(key.map(|key| ("server", key)));
        self.call(&Path::from(ROOT), OF_SERVICE, "SearchItems", (attributes,))
    }

    /// Our entries of one registry, unlocked.
    fn entries(&self, key: &str) -> Result<Vec<Path>, KeychainError> {
        let (mut entries, locked) = self.search(Some(key))?;
        self.unlock(&locked)?;
        entries.extend(locked);
        Ok(entries)
    }

    fn unlock(&self, objects: &[Path]) -> Result<(), KeychainError> {
        if objects.is_empty() {
            return Ok(());
        }
        let (_, prompt): (Vec<Path>, Path) =
            self.call(&Path::from(ROOT), OF_SERVICE, "Unlock", (objects.to_vec(),))?;
        self.ask(&prompt)?;
        Ok(())
    }

    /// Has the keyring ask the person, where it wants to, and waits for their answer; the object that came of it.
    fn ask(&self, prompt: &Path) -> Result<Option<Path>, KeychainError> {
        if &**prompt == NONE {
            return Ok(None);
        }
        let (sender, answers) = mpsc::channel();
        let completed = MatchRule::new_signal(OF_PROMPT, "Completed").with_path(prompt.clone());
        let answered =
            move |(dismissed, came): (bool, Variant<Box<dyn RefArg>>), _: &Connection, _: &Message| {
                let object = came.0.as_str().and_then(|path| Path::new(path).ok());
                // Who waited may have given up.
                let _ = sender.send((dismissed, object));
                false
            };
        self.bus
            .add_match(completed, answered)
            .map_err(|error| told(&error))?;
        self.call::<()>(prompt, OF_PROMPT, "Prompt", ("",))?;
        while Instant::now() < self.until {
            self.bus.process(LOOK).map_err(|error| told(&error))?;
            match answers.try_recv() {
                Ok((true, _)) => return Err(KeychainError("the keyring was not unlocked".to_owned())),
                Ok((false, object)) => return Ok(object),
                Err(_) => {}
            }
        }
        Err(KeychainError(format!(
            "nobody unlocked the keyring within {} s",
            UNLOCKING.as_secs()
        )))
    }

    /// The collection that new entries go to, unlocked, where a person has one.
    fn default_collection(&self) -> Result<Option<Path>, KeychainError> {
        let (found,): (Path,) = self.call(&Path::from(ROOT), OF_SERVICE, "ReadAlias", ("default",))?;
        if &*found == NONE {
            return Ok(None);
        }
        self.unlock(std::slice::from_ref(&found))?;
        Ok(Some(found))
    }

    /// The same; it is made where a person has none.
    fn collection(&self) -> Result<Path, KeychainError> {
        if let Some(found) = self.default_collection()? {
            return Ok(found);
        }
        let root = Path::from(ROOT);
        let mut properties = PropMap::new();
        properties.insert(
            format!("{OF_COLLECTION}.Label"),
            Variant(Box::new("Default keyring".to_owned())),
        );
        let (made, prompt): (Path, Path) =
            self.call(&root, OF_SERVICE, "CreateCollection", (properties, "default"))?;
        let made = self.ask(&prompt)?.unwrap_or(made);
        if &*made == NONE {
            return Err(KeychainError(
                "the keyring has no collection and made none".to_owned(),
            ));
        }
        Ok(made)
    }

    fn user(&self, entry: &Path) -> Result<(String, String), KeychainError> {
        let (Variant(mut attributes),): (Variant<HashMap<String, String>>,) =
            self.call(entry, PROPERTIES, "Get", (OF_ITEM, "Attributes"))?;
        let mut take = |name: &str| attributes.remove(name).unwrap_or_default();
        Ok((take("server"), take("username")))
    }

    fn delete(&self, entry: &Path) -> Result<(), KeychainError> {
        let (prompt,): (Path,) = self.call(entry, OF_ITEM, "Delete", ())?;
        self.ask(&prompt)?;
        Ok(())
    }
}

impl Keychain for SecretService {
    fn get(&self, key: &str) -> Result<Option<Credentials>, KeychainError> {
        let entries = self.entries(key)?;
        let Some(entry) = entries.first() else {
            return Ok(None);
        };
        let ((_, _, secret, _),): ((Path, Vec<u8>, Vec<u8>, String),) =
            self.call(entry, OF_ITEM, "GetSecret", (self.session.clone(),))?;
        let secret = String::from_utf8(secret)
            .map_err(|_| KeychainError(format!("what the keyring has of {key} is no text")))?;
        let (_, user) = self.user(entry)?;
        Ok(Some(Credentials::of(user, secret)))
    }

    fn store(&self, key: &str, credentials: &Credentials) -> Result<(), KeychainError> {
        if key.contains('\0') || credentials.user.contains('\0') {
            return Err(KeychainError(
                "a registry or user with a zero byte cannot be kept".to_owned(),
            ));
        }
        // Some keyrings, such as KeePassXC, tell nothing of what they keep while they are locked.
        let collection = self.collection()?;
        let before = self.entries(key)?;
        let own = [
            ("label", "Docker Credentials"),
            ("server", key),
            ("username", credentials.user.as_str()),
        ];
        let attributes: HashMap<String, String> = MARKS
            .into_iter()
            .chain(own)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut properties = PropMap::new();
        properties.insert(format!("{OF_ITEM}.Label"), Variant(Box::new(key.to_owned())));
        properties.insert(format!("{OF_ITEM}.Attributes"), Variant(Box::new(attributes)));
        let secret = (
            self.session.clone(),
            Vec::<u8>::new(),
            credentials.secret.expose().as_bytes().to_vec(),
            "text/plain",
        );
        let (made, prompt): (Path, Path) = self.call(
            &collection,
            OF_COLLECTION,
            "CreateItem",
            (properties, secret, true),
        )?;
        let made = self.ask(&prompt)?.unwrap_or(made);
        // The keyring replaces an entry of the same user by itself. Of two users, `get` would find either.
        for entry in before.iter().filter(|entry| **entry != made) {
            self.delete(entry)?;
        }
        Ok(())
    }

    fn erase(&self, key: &str) -> Result<bool, KeychainError> {
        let mut entries = self.entries(key)?;
        // See `store`. A password that somebody signs out of must not come back once the keyring is unlocked.
        if entries.is_empty() && self.default_collection()?.is_some() {
            entries = self.entries(key)?;
        }
        for entry in &entries {
            self.delete(entry)?;
        }
        Ok(!entries.is_empty())
    }

    fn list(&self) -> Result<BTreeMap<String, String>, KeychainError> {
        let (open, locked) = self.search(None)?;
        // Who an entry is of can be read while it is locked.
        open.iter().chain(&locked).map(|entry| self.user(entry)).collect()
    }
}

/// What the bus or the keyring said, and what to do where nobody is there.
fn told(error: &dbus::Error) -> KeychainError {
    let reason = error.message().unwrap_or("no reason given");
    let absent = error.name().is_some_and(|name| {
        name.ends_with(".ServiceUnknown") || name.ends_with(".NameHasNoOwner") || name.contains(".Spawn.")
    });
    KeychainError(if absent {
        format!(
            "no program on this session's bus keeps passwords ({SERVICE}: {reason}). Start one, such as gnome-keyring, \
             KWallet or KeePassXC, and sign in again; nothing was written to a file"
        )
    } else {
        format!("the keyring refuses: {reason}")
    })
}

#[cfg(test)]
mod tests;
