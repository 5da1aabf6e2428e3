//! Whether the desktop has a place for the tray's icon.
//!
//! ```text
//!            ┌──▶ NoBus
//!  Unasked ──┤                the watcher's name changes owner
//!            └──▶ Empty ◀────────────────────────────────────────▶ There
//! ```
//!
//! On Linux a program that shows icons owns a name on the session's bus. A thread asks for it at the start, and
//! listens: who wants to know, such as the window's thread while the window closes, waits for no bus.

use tokio::sync::watch;

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nobody has answered yet.
    Unasked,
    /// There is no session bus, on which icons are shown, or none any more.
    NoBus,
    /// Nothing shows icons.
    Empty,
    /// Something does.
    There,
}

/// What is known of the place, now and from now on.
#[derive(Debug)]
pub(crate) struct Places(watch::Receiver<Place>);

impl Places {
    /// Asks, and goes on listening for as long as the program runs.
    pub(crate) fn watch() -> Self {
        let (told, seen) = watch::channel(Place::Unasked);
        watch_into(told);
        Self(seen)
    }

    /// What was heard last. It waits for nothing.
    pub(crate) fn now(&self) -> Place {
        *self.0.borrow()
    }

    /// All that is heard from now on.
    pub(crate) fn heard(&self) -> watch::Receiver<Place> {
        self.0.clone()
    }
}

/// Every other desktop has one.
#[cfg(not(target_os = "linux"))]
fn watch_into(told: watch::Sender<Place>) {
    told.send_replace(Place::There);
}

#[cfg(target_os = "linux")]
fn watch_into(told: watch::Sender<Place>) {
    // A computer that has no thread to spare shows no icon.
    let refused = told.clone();
    let started = std::thread::Builder::new()
        .name("place".to_owned())
        .spawn(move || {
            if let Ok(bus) = dbus::blocking::Connection::new_session() {
                // Ends with the bus, which is the session's.
                let _ = bus::listen(&bus, &told);
            }
            told.send_replace(Place::NoBus);
        });
    if started.is_err() {
        refused.send_replace(Place::NoBus);
    }
}

#[cfg(target_os = "linux")]
mod bus {
    use super::Place;
    use dbus::{Error, blocking::Connection};
    use std::time::Duration;
    use tokio::sync::watch;

    const BUS: &str = "org.freedesktop.DBus";
    /// Who shows icons owns this name.
    pub(super) const WATCHER: &str = "org.kde.StatusNotifierWatcher";
    /// The changes of its owner, and no others.
    const CHANGES: &str = "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
                           member='NameOwnerChanged',arg0='org.kde.StatusNotifierWatcher'";
    /// How long the bus may take for an answer.
    const ANSWER: Duration = Duration::from_secs(5);
    /// How long is waited for a change at once; then it is waited for again.
    const LISTEN: Duration = Duration::from_hours(1);

    /// Tells who owns the name, and each change of that, until the bus has gone.
    pub(super) fn listen(bus: &Connection, told: &watch::Sender<Place>) -> Result<(), Error> {
        bus.add_match_no_cb(CHANGES)?;
        loop {
            let place = if is_owned(bus)? {
                Place::There
            } else {
                Place::Empty
            };
            told.send_if_modified(|last| std::mem::replace(last, place) != place);
            // Little else comes, such as the bus's word for the name of this connection: asking once more does no harm.
            while !bus.process(LISTEN)? {}
        }
    }

    fn is_owned(bus: &Connection) -> Result<bool, Error> {
        let broker = bus.with_proxy(BUS, "/org/freedesktop/DBus", ANSWER);
        let (owned,): (bool,) = broker.method_call(BUS, "NameHasOwner", (WATCHER,))?;
        Ok(owned)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::test_bus::Bus;
    use std::{thread, time::Duration};
    use tokio::time::timeout;

    async fn becomes(seen: &mut watch::Receiver<Place>, wanted: Place) {
        let heard = timeout(Duration::from_secs(20), seen.wait_for(|place| *place == wanted)).await;
        assert!(
            heard.is_ok_and(|heard| heard.is_ok()),
            "it does not become {wanted:?}"
        );
    }

    #[tokio::test]
    async fn there_is_a_place_for_as_long_as_somebody_shows_icons() {
        let Some(bus) = Bus::start() else { return };
        let (told, mut seen) = watch::channel(Place::Unasked);
        let connection = bus.connection();
        let listening = thread::spawn(move || bus::listen(&connection, &told).is_err());
        becomes(&mut seen, Place::Empty).await;
        let watcher = bus.connection();
        watcher.request_name(bus::WATCHER, false, false, true).unwrap();
        becomes(&mut seen, Place::There).await;
        drop(watcher);
        becomes(&mut seen, Place::Empty).await;
        drop(bus);
        assert!(listening.join().unwrap(), "it listens to a bus that has gone");
    }
}
