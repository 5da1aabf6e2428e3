//! The client beside a keyring that is made here by the specification, on a bus of the test's own.

use super::*;
use crate::test_bus::Bus;
use dbus::channel::{MatchingReceiver as _, Sender as _};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// A secret as the specification has it: its session, parameters of an encryption, the value and the value's type.
type Given = (Path, Vec<u8>, Vec<u8>, String);

impl Bus {
    fn client(&self) -> Result<SecretService, KeychainError> {
        SecretService::over(self.connection())
    }
}

/// What the keyring has, and how the person at it behaves.
#[derive(Default)]
struct Kept {
    entries: BTreeMap<String, Entry>,
    made: u32,
    locked: bool,
    dismisses: bool,
    /// Whether it tells nothing of its entries while it is locked.
    hides: bool,
    /// How often the person was asked.
    asked: u32,
}

struct Entry {
    attributes: HashMap<String, String>,
    secret: Vec<u8>,
}

/// A keyring on a bus. Dropping it ends it.
struct Keyring {
    kept: Arc<Mutex<Kept>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keyring {
    fn on(bus: &Bus) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let ended = Arc::new(AtomicBool::new(false));
        let connection = bus.connection();
        connection.request_name(SERVICE, false, false, true).unwrap();
        let of_handler = Arc::clone(&kept);
        let handler = move |message: Message, connection: &Connection| {
            for told in answers(&message, &mut of_handler.lock().unwrap()) {
                connection.send(told).unwrap();
            }
            true
        };
        connection.start_receive(MatchRule::new_method_call(), Box::new(handler));
        let of_thread = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            while !of_thread.load(Ordering::Relaxed) {
                connection.process(Duration::from_millis(20)).unwrap();
            }
        });
        Self {
            kept,
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A keyring that panicked has failed the test already: its client got no answer.
            let _ = thread.join();
        }
    }
}

fn answers(message: &Message, kept: &mut Kept) -> Vec<Message> {
    let member = message.member().map(|member| (*member).to_owned()).unwrap();
    let object = message.path().map(|path| (*path).to_owned()).unwrap();
    let reply = message.method_return();
    let path = |path: &str| Path::new(path).unwrap();
    let told = match member.as_str() {
        "OpenSession" => reply.append2(Variant(""), path("/session")),
        "SearchItems" => {
            let wanted: HashMap<String, String> = message.read1().unwrap();
            let fits = |entry: &Entry| {
                wanted
                    .iter()
                    .all(|(name, value)| entry.attributes.get(name) == Some(value))
            };
            let hidden = kept.locked && kept.hides;
            let found = kept.entries.iter().filter(|(_, entry)| fits(entry) && !hidden);
            let found: Vec<Path> = found.map(|(name, _)| path(name)).collect();
            let none = Vec::<Path>::new();
            if kept.locked {
                reply.append2(none, found)
            } else {
                reply.append2(found, none)
            }
        }
        "Unlock" if kept.locked => reply.append2(Vec::<Path>::new(), path("/prompt")),
        "Unlock" => {
            let objects: Vec<Path> = message.read1().unwrap();
            reply.append2(objects, path(NONE))
        }
        "Prompt" => {
            kept.asked += 1;
            kept.locked = kept.dismisses;
            let completed = Message::signal(&path("/prompt"), &OF_PROMPT.into(), &"Completed".into());
            return vec![reply, completed.append2(kept.dismisses, Variant(""))];
        }
        "ReadAlias" => reply.append1(path("/collection")),
        "CreateItem" => {
            assert!(!kept.locked, "an entry is made while the keyring is locked");
            let (properties, secret): (PropMap, Given) = message.read2().unwrap();
            let attributes = texts(&*properties[format!("{OF_ITEM}.Attributes").as_str()].0);
            let same = kept
                .entries
                .iter()
                .find(|(_, entry)| entry.attributes == attributes);
            let name = same.map_or_else(|| format!("/entry/{}", kept.made), |(name, _)| name.clone());
            kept.made += 1;
            let made = path(&name);
            kept.entries.insert(
                name,
                Entry {
                    attributes,
                    secret: secret.2,
                },
            );
            reply.append2(made, path(NONE))
        }
        "GetSecret" => {
            let secret = kept.entries[&object].secret.clone();
            reply.append1((path("/session"), Vec::<u8>::new(), secret, "text/plain"))
        }
        "Get" => reply.append1(Variant(kept.entries[&object].attributes.clone())),
        "Delete" => {
            kept.entries.remove(&object).unwrap();
            reply.append1(path(NONE))
        }
        other => panic!("nobody should call {other}"),
    };
    vec![told]
}

/// A dictionary of texts.
fn texts(dictionary: &dyn RefArg) -> HashMap<String, String> {
    let texts = dictionary.as_iter().unwrap();
    let texts: Vec<String> = texts.map(|text| text.as_str().unwrap().to_owned()).collect();
    texts
        .chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

#[test]
fn what_is_stored_is_got_listed_and_erased_and_a_registry_has_one_user() {
    let Some(bus) = Bus::start() else { return };
    let keyring = Keyring::on(&bus);
    let service = bus.client().unwrap();
    assert_eq!(service.get("r.example"), Ok(None));
    let mole = Credentials::of("mole", "open \"sesame\" ÿ");
    service.store("r.example", &mole).unwrap();
    assert_eq!(service.get("r.example"), Ok(Some(mole)));
    let vole = Credentials::of("vole", "x");
    service.store("r.example", &vole).unwrap();
    service.store("s.example", &vole).unwrap();
    assert_eq!(service.get("r.example"), Ok(Some(vole)));
    assert_eq!(keyring.kept.lock().unwrap().entries.len(), 2);
    let listed = service.list().unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|(key, user)| (key.as_str(), user.as_str()))
        .collect();
    assert_eq!(listed, [("r.example", "vole"), ("s.example", "vole")]);
    assert_eq!(service.erase("r.example"), Ok(true));
    assert_eq!(service.erase("r.example"), Ok(false));
    assert_eq!(service.get("r.example"), Ok(None));
    assert_eq!(keyring.kept.lock().unwrap().asked, 0);
}

#[test]
fn entries_have_the_attributes_of_the_other_helpers_entries() {
    let Some(bus) = Bus::start() else { return };
    let keyring = Keyring::on(&bus);
    let service = bus.client().unwrap();
    service.store("r.example", &Credentials::of("mole", "x")).unwrap();
    let kept = keyring.kept.lock().unwrap();
    // As the schema in secretservice.c of docker-credential-helpers.
    let wanted = [
        ("xdg:schema", "io.docker.Credentials"),
        ("label", "Docker Credentials"),
        ("server", "r.example"),
        ("username", "mole"),
        ("docker_cli", "1"),
    ];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let found = kept.entries.values().map(|entry| entry.attributes.clone());
    assert_eq!(found.collect::<Vec<_>>(), [HashMap::from(wanted)]);
}

#[test]
fn a_locked_keyring_asks_its_person_for_a_password_and_for_no_list() {
    let Some(bus) = Bus::start() else { return };
    let keyring = Keyring::on(&bus);
    let service = bus.client().unwrap();
    let mole = Credentials::of("mole", "sesame");
    service.store("r.example", &mole).unwrap();
    keyring.kept.lock().unwrap().locked = true;
    assert_eq!(service.list().unwrap().len(), 1);
    assert_eq!(keyring.kept.lock().unwrap().asked, 0);
    assert_eq!(service.get("r.example"), Ok(Some(mole)));
    assert_eq!(keyring.kept.lock().unwrap().asked, 1);
    {
        let mut kept = keyring.kept.lock().unwrap();
        (kept.locked, kept.dismisses) = (true, true);
    }
    let refused = KeychainError("the keyring was not unlocked".to_owned());
    assert_eq!(service.get("r.example"), Err(refused.clone()));
    assert_eq!(
        service.store("r.example", &Credentials::of("mole", "x")),
        Err(refused)
    );
}

#[test]
fn what_a_locked_keyring_hides_is_replaced_and_erased_all_the_same() {
    let Some(bus) = Bus::start() else { return };
    let keyring = Keyring::on(&bus);
    let service = bus.client().unwrap();
    let lock = || {
        let mut kept = keyring.kept.lock().unwrap();
        (kept.locked, kept.hides, kept.asked) = (true, true, 0);
    };
    service.store("r.example", &Credentials::of("mole", "x")).unwrap();
    lock();
    let vole = Credentials::of("vole", "y");
    service.store("r.example", &vole).unwrap();
    assert_eq!(keyring.kept.lock().unwrap().asked, 1);
    assert_eq!(keyring.kept.lock().unwrap().entries.len(), 1);
    assert_eq!(service.get("r.example"), Ok(Some(vole)));
    lock();
    assert_eq!(service.erase("r.example"), Ok(true));
    assert_eq!(keyring.kept.lock().unwrap().asked, 1);
    assert!(keyring.kept.lock().unwrap().entries.is_empty());
}

#[test]
fn a_bus_without_a_keyring_is_said_with_what_to_do() {
    let Some(bus) = Bus::start() else { return };
    let KeychainError(words) = bus.client().err().unwrap();
    assert!(
        words.contains("no program on this session's bus keeps passwords") && words.contains("gnome-keyring"),
        "{words}"
    );
}

#[test]
fn a_keyring_that_refuses_is_told_from_none() {
    let refused = dbus::Error::new_custom("org.freedesktop.Secret.Error.IsLocked", "locked");
    assert_eq!(told(&refused).0, "the keyring refuses: locked");
}
