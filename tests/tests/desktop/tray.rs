//! Closing the window, with a session bus of the test's own: where something on it shows icons of a tray, the
//! application stays in the tray; where nothing does any more, it ends. And a hidden start where no icon can be made.

use anyhow::{Context as _, Result, bail, ensure};
use cove_tests::harness::{
    Cmd, Cove, Running, eventually,
    webdriver::{Display, SOON, Window, program},
    within,
};
use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use x11rb::{
    CURRENT_TIME,
    connection::Connection as _,
    protocol::xproto::{AtomEnum, ClientMessageEvent, ConnectionExt as _, EventMask, MapState},
};

/// Who shows icons owns this name.
const WATCHER: &str = "org.kde.StatusNotifierWatcher";
/// The object that the application's icon asks of it first.
const ASKED: &[u8] = b"/StatusNotifierWatcher";

pub(crate) fn closing_the_window_leaves_it_in_the_tray_while_something_shows_icons(cove: &Cove) {
    let place = tempfile::tempdir().expect("it can be made");
    let Some((_bus, socket)) = bus(place.path()) else {
        eprintln!("skipped: there is no dbus-daemon");
        return;
    };
    let mut watcher = Watcher::on(&socket).expect("the bus takes one more");
    let address = format!("unix:path={}", socket.display());
    let variables = [
        ("DBUS_SESSION_BUS_ADDRESS", OsStr::new(&address)),
        // The icon is a file in there; else it would be in a directory for all users, where another's may be.
        ("XDG_RUNTIME_DIR", place.path().as_os_str()),
    ];
    let window = Window::open_with(cove, &variables);
    window.reads("default ·");
    watcher.hears(ASKED).expect("the application shows an icon");
    assert!(is_seen(window.display()));

    close(&window).expect("the window can be closed");
    eventually("the window to go", || !is_seen(window.display()));
    assert_eq!(
        cove.processes_named("cove-desktop").len(),
        1,
        "the application has ended"
    );
    // A second start shows the first one's window, and ends.
    Cmd::new(program().expect("main looked for it"))
        .env("DISPLAY", window.display())
        .env("COVE_HOME", cove.home())
        .env("HOME", cove.scratch())
        .without_env("XDG_RUNTIME_DIR")
        .limit(SOON)
        .ok();
    eventually("the window to be shown again", || is_seen(window.display()));

    drop(watcher);
    // The bus tells of it at once.
    sleep(Duration::from_secs(1));
    close(&window).expect("the window can be closed");
    eventually("the application to end", || {
        cove.processes_named("cove-desktop").is_empty()
    });
}

pub(crate) fn a_hidden_start_is_seen_where_no_icon_can_be_made_whoever_would_show_it(cove: &Cove) {
    let place = tempfile::tempdir().expect("it can be made");
    let Some((_bus, socket)) = bus(place.path()) else {
        eprintln!("skipped: there is no dbus-daemon");
        return;
    };
    let _watcher = Watcher::on(&socket).expect("the bus takes one more");
    // The icon's picture is to be written to a folder, where a file is in the way.
    let runtime = place.path().join("runtime");
    fs::create_dir(&runtime).expect("it can be made");
    fs::write(runtime.join("tray-icon"), "").expect("it can be written");
    let said = place.path().join("said");
    let display = Display::open();
    let _application = Running(
        display
            .command(cove, program().expect("main looked for it"))
            .arg("--hidden")
            .env(
                "DBUS_SESSION_BUS_ADDRESS",
                format!("unix:path={}", socket.display()),
            )
            .env("XDG_RUNTIME_DIR", &runtime)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said).expect("it can be written"))
            .spawn()
            .expect("the application can be started"),
    );
    eventually("the window to be seen", || is_seen(display.name()));
    // It is for want of the icon, and of no place for it.
    let said = fs::read_to_string(&said).expect("it can be read");
    assert!(said.contains("there is no icon in the tray"), "{said}");
}

/// A session bus that starts no programs, and its socket; nothing where this computer has no such daemon.
fn bus(place: &Path) -> Option<(Running, PathBuf)> {
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

/// Somebody who owns the name and answers nothing, which an application that shows an icon has to bear with. It speaks
/// D-Bus by hand, since a library for it would have every computer that builds the tests have libdbus.
struct Watcher(UnixStream);

impl Watcher {
    fn on(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let user = fs::metadata(socket)?.uid().to_string();
        // In hexadecimal, of which a digit's character is a 3 and the digit.
        let user: String = user.chars().flat_map(|digit| ['3', digit]).collect();
        write!(stream, "\0AUTH EXTERNAL {user}\r\n")?;
        let mut watcher = Self(stream);
        watcher.hears(b"OK ")?;
        watcher.0.write_all(b"BEGIN\r\n")?;
        watcher.0.write_all(&call(1, "Hello", None)?)?;
        watcher.0.write_all(&call(2, "RequestName", Some(WATCHER))?)?;
        // The bus says that it is ours.
        watcher.hears(WATCHER.as_bytes())?;
        Ok(watcher)
    }

    /// Waits until these bytes come, in whatever message.
    fn hears(&mut self, wanted: &[u8]) -> Result<()> {
        let began = Instant::now();
        let (mut heard, mut some) = (Vec::new(), [0_u8; 4096]);
        while began.elapsed() < SOON {
            match self.0.read(&mut some) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(some.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if heard.windows(wanted.len()).any(|part| part == wanted) {
                return Ok(());
            }
        }
        let heard = String::from_utf8_lossy(&heard).into_owned();
        bail!("no `{}` comes: {heard:?}", String::from_utf8_lossy(wanted))
    }
}

/// A call of the bus itself, as the D-Bus Specification's "Message Format" has it, little-endian; with a name that is
/// asked for, which is not waited for where another has it.
fn call(serial: u32, member: &str, name: Option<&str>) -> Result<Vec<u8>> {
    const CALL: u8 = 1;
    const VERSION: u8 = 1;
    const DO_NOT_QUEUE: u32 = 4;
    let mut fields: Vec<u8> = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    for (code, kind, text) in [
        (1, b'o', "/org/freedesktop/DBus"),
        (2, b's', "org.freedesktop.DBus"),
        (3, b's', member),
        (6, b's', "org.freedesktop.DBus"),
    ] {
        align(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        string(&mut fields, text)?;
    }
    if let Some(name) = name {
        align(&mut fields, 8);
        // The types of what follows: a string and a number.
        fields.extend([8, 1, b'g', 0, 2, b's', b'u', 0]);
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

/// Whether the application's window is on the display.
fn is_seen(display: &str) -> bool {
    within(SOON, "the display to answer", || application(display).ok()).is_some()
}

/// The window that can be asked to close, of those that are seen: the application's, and there is no other.
pub(crate) fn application(display: &str) -> Result<Option<u32>> {
    let (connection, screen) = x11rb::connect(Some(display))?;
    let root = connection.setup().roots.get(screen).context("no screen")?.root;
    let protocols = connection.intern_atom(false, b"WM_PROTOCOLS")?.reply()?.atom;
    for child in connection.query_tree(root)?.reply()?.children {
        let seen = connection.get_window_attributes(child)?.reply()?.map_state == MapState::VIEWABLE;
        let listed = connection
            .get_property(false, child, protocols, AtomEnum::ATOM, 0, 1)?
            .reply()?;
        if seen && listed.value_len > 0 {
            return Ok(Some(child));
        }
    }
    Ok(None)
}

/// Where that window is on the display, x and y, and how wide and high it is; pixels.
pub(crate) fn geometry(display: &str) -> Result<[i32; 4]> {
    let target = application(display)?.context("no window is seen")?;
    let (connection, _) = x11rb::connect(Some(display))?;
    // Nothing puts it into a frame here, so that its place is one on the display.
    let found = connection.get_geometry(target)?.reply()?;
    Ok([
        found.x.into(),
        found.y.into(),
        found.width.into(),
        found.height.into(),
    ])
}

/// Asks it to close, as a window manager does for the cross in its frame.
pub(crate) fn close(window: &Window) -> Result<()> {
    let target = application(window.display())?.context("no window is seen")?;
    let (connection, _) = x11rb::connect(Some(window.display()))?;
    let protocols = connection.intern_atom(false, b"WM_PROTOCOLS")?.reply()?.atom;
    let delete = connection.intern_atom(false, b"WM_DELETE_WINDOW")?.reply()?.atom;
    let message = ClientMessageEvent::new(32, target, protocols, [delete, CURRENT_TIME, 0, 0, 0]);
    connection.send_event(false, target, EventMask::NO_EVENT, message)?;
    // What was sent has arrived once the display has answered something after it.
    let focus = connection.get_input_focus()?.reply();
    ensure!(focus.is_ok(), "the display does not answer");
    Ok(())
}
