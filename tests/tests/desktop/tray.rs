//! Closing the window, with a session bus of the test's own: where something on it shows icons of a tray, the
//! application stays in the tray; where nothing does any more, it ends. What is chosen from the icon's menu, checked by
//! an unmodified Docker client or seen in the window. And a hidden start where no icon can be made.

use crate::{
    containers::known,
    watcher::{Watcher, address, bus},
};
use anyhow::{Context as _, Result, ensure};
use cove_tests::harness::{
    Cmd, Cove, Running, eventually,
    webdriver::{Display, SOON, Window, program},
    within,
};
use std::{ffi::OsStr, fs, path::Path, process::Stdio, thread::sleep, time::Duration};
use x11rb::{
    CURRENT_TIME,
    connection::Connection as _,
    protocol::xproto::{AtomEnum, ClientMessageEvent, ConnectionExt as _, EventMask, MapState},
};

pub(crate) fn closing_the_window_leaves_it_in_the_tray_while_something_shows_icons(cove: &Cove) {
    let place = tempfile::tempdir().expect("it can be made");
    let Some((_bus, socket)) = bus(place.path()) else {
        eprintln!("skipped: there is no dbus-daemon");
        return;
    };
    let mut watcher = Watcher::on(&socket).expect("the bus takes one more");
    let window = open(cove, place.path(), &socket);
    window.reads("default ·");
    watcher.icon().expect("the application shows an icon");
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

pub(crate) fn a_container_is_restarted_and_stopped_from_the_trays_menu_which_quits(cove: &Cove) {
    let place = tempfile::tempdir().expect("it can be made");
    let Some((_bus, socket)) = bus(place.path()) else {
        eprintln!("skipped: there is no dbus-daemon");
        return;
    };
    let mut watcher = Watcher::on(&socket).expect("the bus takes one more");
    // The machine runs, unless this test is the only one.
    cove.start();
    // Its first process passes on that it is to end.
    cove.docker([
        "run", "--detach", "--init", "--name", "trayed", "alpine", "sleep", "600",
    ])
    .ok();
    let becomes = |state: &str| {
        eventually(state, || known(cove, "trayed", "{{.State.Status}}") == state);
    };
    let started = known(cove, "trayed", "{{.State.StartedAt}}");
    let _window = open(cove, place.path(), &socket);
    let icon = watcher.icon().expect("the application shows an icon");
    icon.choose(&["trayed", "Restart"]);
    eventually("another life", || {
        known(cove, "trayed", "{{.State.StartedAt}}") != started
    });
    becomes("running");
    icon.choose(&["trayed", "Stop"]);
    becomes("exited");
    eventually("the menu to leave it out", || !icon.lists("trayed"));

    icon.choose(&["Quit (ends the window's tasks and shells; the machine goes on)"]);
    eventually("the application to end", || {
        cove.processes_named("cove-desktop").is_empty()
    });
    assert_eq!(cove.state(), "running");
    cove.docker(["rm", "trayed"]).ok();
}

pub(crate) fn a_start_chosen_from_the_trays_menu_is_a_task_of_the_window(cove: &Cove) {
    let place = tempfile::tempdir().expect("it can be made");
    let Some((_bus, socket)) = bus(place.path()) else {
        eprintln!("skipped: there is no dbus-daemon");
        return;
    };
    let mut watcher = Watcher::on(&socket).expect("the bus takes one more");
    let window = open(cove, place.path(), &socket);
    // What it begins to do is told from what it did before.
    window.reads("The machine is stopped");
    let icon = watcher.icon().expect("the application shows an icon");
    icon.choose(&["Start the machine"]);
    window.reads("The machine is starting");
    // Its shortcut, or how many there are, stands behind its name.
    window.click(&window.find("//nav//button[starts-with(normalize-space(), 'Tasks')]"));
    window.find("//li[contains(., 'Start machine default') and contains(., 'running')]");
    crate::window::cancel_the_start(cove, &window);
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
    // One that is about to end would take this start for a second one.
    eventually("the application before it to end", || {
        cove.processes_named("cove-desktop").is_empty()
    });
    let display = Display::open();
    let _application = Running(
        display
            .command(cove, program().expect("main looked for it"))
            .arg("--hidden")
            .env("DBUS_SESSION_BUS_ADDRESS", address(&socket))
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

/// Opens the window in the session of a bus whose files are in `place`.
fn open(cove: &Cove, place: &Path, socket: &Path) -> Window {
    let address = address(socket);
    let variables = [
        ("DBUS_SESSION_BUS_ADDRESS", OsStr::new(&address)),
        // The icon is a file in there; else it would be in a directory for all users, where another's may be.
        ("XDG_RUNTIME_DIR", place.as_os_str()),
    ];
    Window::open_with(cove, &variables)
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
