//! Somebody who shows icons of a tray: a session bus, who is asked on it to show one, and what is chosen from its menu.
//!
//! ```text
//!  the application                          Watcher, which owns the name
//!  RegisterStatusNotifierItem(object) ────▶ and does not answer
//!                                           Icon, by gdbus
//!  the object's Menu ◀───────────────────── Get
//!  its entries ◀─────────────────────────── GetLayout (com.canonical.dbusmenu)
//!  does it ◀─────────────────────────────── Event: clicked
//! ```
//!
//! What has to stay on the bus speaks D-Bus by hand, since a library for it would have every computer that builds the
//! tests have libdbus. What only calls is gdbus, which comes with the headers that the application is built with.

use anyhow::{Context as _, Result, ensure};
use cove_tests::harness::{Cmd, Finished, Running, eventually, webdriver::SOON, within_telling};
use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Who shows icons owns this name.
const WATCHER: &str = "org.kde.StatusNotifierWatcher";
/// The codes of a header's fields, as the D-Bus Specification's "Header Fields" has them.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;
/// Nothing that comes here is nearly as long as this.
const LONGEST: usize = 1 << 20;

/// A session bus that starts no programs, and its socket; nothing where this computer has no such daemon.
pub(crate) fn bus(place: &Path) -> Option<(Running, PathBuf)> {
    let (config, socket) = (place.join("bus.conf"), place.join("bus"));
    let text = format!(
        "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
         <policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
         <allow own=\"*\"/></policy></busconfig>",
        socket.display()
    );
    fs::write(&config, text).expect("it can be written");
    let daemon = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", config.display()))
        .arg("--nofork")
        .stdout(Stdio::null())
        .spawn();
    let daemon = match daemon {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        started => Running(started.expect("dbus-daemon can be started")),
    };
    eventually("the bus to listen", || UnixStream::connect(&socket).is_ok());
    Some((daemon, socket))
}

/// A bus's address, as `DBUS_SESSION_BUS_ADDRESS` has it.
pub(crate) fn address(socket: &Path) -> String {
    format!("unix:path={}", socket.display())
}

/// Somebody who owns the name and answers nothing, which an application that shows an icon has to bear with.
pub(crate) struct Watcher {
    stream: UnixStream,
    address: String,
}

impl Watcher {
    pub(crate) fn on(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SOON))?;
        let user = fs::metadata(socket)?.uid().to_string();
        // In hexadecimal, of which a digit's character is a 3 and the digit.
        let user: String = user.chars().flat_map(|digit| ['3', digit]).collect();
        write!(stream, "\0AUTH EXTERNAL {user}\r\n")?;
        let answer = line(&mut stream)?;
        ensure!(answer.starts_with("OK "), "the bus does not know us: {answer:?}");
        stream.write_all(b"BEGIN\r\n")?;
        stream.write_all(&call(1, "Hello", None)?)?;
        stream.write_all(&call(2, "RequestName", Some(WATCHER))?)?;
        let mut watcher = Self {
            stream,
            address: address(socket),
        };
        loop {
            let message = watcher
                .message()
                .context("the bus does not say that the name is ours")?;
            if message.is("NameAcquired") && text(&message.body)? == WATCHER {
                return Ok(watcher);
            }
        }
    }

    /// Waits until an application asks for its icon to be shown.
    pub(crate) fn icon(&mut self) -> Result<Icon> {
        loop {
            let message = self.message().context("nobody asks for an icon to be shown")?;
            if message.is("RegisterStatusNotifierItem") {
                let owner = message
                    .fields
                    .get(&SENDER)
                    .context("the bus does not say who asks")?;
                return Icon::of(&self.address, owner, &text(&message.body)?);
            }
        }
    }

    fn message(&mut self) -> Result<Message> {
        Message::read(&mut self.stream)
    }
}

/// An application's icon, as it is seen from the bus.
pub(crate) struct Icon {
    address: String,
    /// The application's name on the bus.
    owner: String,
    /// The object that is its menu.
    menu: String,
}

impl Icon {
    fn of(address: &str, owner: &str, object: &str) -> Result<Self> {
        let mut icon = Self {
            address: address.to_owned(),
            owner: owner.to_owned(),
            menu: String::new(),
        };
        let get = "org.freedesktop.DBus.Properties.Get";
        let asked = icon.call(object, get, &["org.kde.StatusNotifierItem", "Menu"]);
        let answer = asked.text();
        // Such as `(<objectpath '/org/ayatana/NotificationItem/one/Menu'>,)`.
        let menu = answer.split('\'').nth(1);
        menu.with_context(|| format!("it has no menu: {asked}"))?
            .clone_into(&mut icon.menu);
        Ok(icon)
    }

    /// Whether its menu has an entry of this label.
    pub(crate) fn lists(&self, label: &str) -> bool {
        entry(&self.layout(), &[label]).is_some()
    }

    /// Chooses an entry of its menu as soon as it is there, by the labels that lead to it.
    #[track_caller]
    pub(crate) fn choose(&self, way: &[&str]) {
        within_telling(SOON, || {
            let layout = self.layout();
            let number = entry(&layout, way).ok_or_else(|| format!("{way:?} in the menu {layout}"))?;
            let clicked = [number, "'clicked'", "<''>", "uint32 0"];
            let told = self.call(&self.menu, "com.canonical.dbusmenu.Event", &clicked);
            // A menu that was made anew in between knows nothing of the number.
            if told.code == Some(0) {
                Ok(())
            } else {
                Err(format!("{way:?} to be chosen: {told}"))
            }
        });
    }

    /// The whole menu, with all that is known of its entries, as gdbus writes it.
    #[track_caller]
    fn layout(&self) -> String {
        let whole = ["int32 0", "int32 -1", "@as []"];
        let asked = self.call(&self.menu, "com.canonical.dbusmenu.GetLayout", &whole);
        assert_eq!(asked.code, Some(0), "{asked}");
        asked.text()
    }

    #[track_caller]
    fn call(&self, object: &str, method: &str, arguments: &[&str]) -> Finished {
        Cmd::new("gdbus")
            .args(["call", "--session", "--timeout", "60"])
            .args(["--dest", self.owner.as_str(), "--object-path", object])
            .args(["--method", method])
            .args(arguments)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .run()
    }
}

/// The number of an entry in a layout. An entry begins with its number, has a label, and is followed by those of its
/// submenu: `<(7, {'label': <'web'>, 'children-display': <'submenu'>}, [<(8, {'label': <'Logs'>}, @av [])>])>`.
fn entry<'a>(layout: &'a str, way: &[&str]) -> Option<&'a str> {
    let mut entries = layout.split("<(").skip(1);
    let mut found = None;
    for label in way {
        // In double quotes where there is an apostrophe in it.
        let labels = ['\'', '"'].map(|quote| format!("'label': <{quote}{label}{quote}>"));
        let next = entries.find(|entry| labels.iter().any(|label| entry.contains(label)))?;
        found = next.split_once(',').map(|(number, _)| number);
    }
    found
}

/// A message, as far as it is read here.
struct Message {
    /// The texts of its header, by their codes.
    fields: HashMap<u8, String>,
    body: Vec<u8>,
}

impl Message {
    /// Reads the next one, as the D-Bus Specification's "Message Format" has it. This bus is of this computer, and
    /// writes numbers as it does.
    fn read(stream: &mut UnixStream) -> Result<Self> {
        let mut start = [0_u8; 16];
        stream.read_exact(&mut start)?;
        ensure!(start[0] == b'l', "the message is not little-endian");
        let (body, fields) = (number(&start[4..])?, number(&start[12..])?);
        ensure!(body.max(fields) < LONGEST, "the message is too long");
        let mut header = vec![0; fields.next_multiple_of(8)];
        stream.read_exact(&mut header)?;
        header.truncate(fields);
        let mut message = Self {
            fields: HashMap::new(),
            body: vec![0; body],
        };
        stream.read_exact(&mut message.body)?;
        let mut rest = header.as_slice();
        while let Some((&[code, _, kind, _], value)) = rest.split_first_chunk::<4>() {
            let length = match kind {
                b's' | b'o' => {
                    let text = text(value)?;
                    let length = 4 + text.len() + 1;
                    message.fields.insert(code, text);
                    length
                }
                b'g' => 1 + usize::from(*value.first().context("a signature is cut off")?) + 1,
                // All others are numbers.
                _ => 4,
            };
            // Each field begins at a multiple of eight.
            rest = rest.get((4 + length).next_multiple_of(8)..).unwrap_or_default();
        }
        Ok(message)
    }

    /// Whether it calls or tells of a member of this name.
    fn is(&self, member: &str) -> bool {
        self.fields.get(&MEMBER).is_some_and(|name| name == member)
    }
}

fn number(bytes: &[u8]) -> Result<usize> {
    let number = bytes.first_chunk::<4>().context("a number is cut off")?;
    Ok(usize::try_from(u32::from_le_bytes(*number))?)
}

/// A string, which stands behind its length.
fn text(bytes: &[u8]) -> Result<String> {
    let text = bytes.get(4..4 + number(bytes)?).context("a string is cut off")?;
    Ok(String::from_utf8(text.to_vec())?)
}

/// What the bus says before messages begin, a byte at a time, so that none of a message is read with it.
fn line(stream: &mut UnixStream) -> Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0_u8]);
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(String::from_utf8(line)?)
}

/// A call of the bus itself, little-endian; with a name that is asked for, which is not waited for where another has
/// it.
fn call(serial: u32, member: &str, name: Option<&str>) -> Result<Vec<u8>> {
    const CALL: u8 = 1;
    const VERSION: u8 = 1;
    const DO_NOT_QUEUE: u32 = 4;
    let mut fields: Vec<u8> = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    for (code, kind, text) in [
        (PATH, b'o', "/org/freedesktop/DBus"),
        (INTERFACE, b's', "org.freedesktop.DBus"),
        (MEMBER, b's', member),
        (DESTINATION, b's', "org.freedesktop.DBus"),
    ] {
        align(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        string(&mut fields, text)?;
    }
    if let Some(name) = name {
        align(&mut fields, 8);
        // The types of what follows: a string and a number.
        fields.extend([SIGNATURE, 1, b'g', 0, 2, b's', b'u', 0]);
        string(&mut body, name)?;
        align(&mut body, 4);
        body.extend(DO_NOT_QUEUE.to_le_bytes());
    }
    let mut message = vec![b'l', CALL, 0, VERSION];
    message.extend(u32::try_from(body.len())?.to_le_bytes());
    message.extend(serial.to_le_bytes());
    message.extend(u32::try_from(fields.len())?.to_le_bytes());
    message.extend(fields);
    align(&mut message, 8);
    message.extend(body);
    Ok(message)
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn string(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    bytes.extend(u32::try_from(text.len())?.to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
    Ok(())
}
