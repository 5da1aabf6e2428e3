//! A window of another program, out of which a folder is dragged: the source's side of XDND, version 5.
//!
//! ```text
//!  pointer (XTEST)      this window                                  the window below the pointer
//!  press ─────────────▶ owns XdndSelection
//!  motion ────────────▶ looks who is below, XdndEnter, XdndPosition ─▶ asks for the list of files
//!                       gives it ────────────────────────────────────▶ XdndStatus: taken, or not
//!  release ───────────▶ XdndDrop ────────────────────────────────────▶ XdndFinished
//! ```
//!
//! The pointer is the display's own: the press grabs it, and what the window learns of its way it learns from the
//! display. No window manager has a part in it.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fmt::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};
use x11rb::{
    COPY_DEPTH_FROM_PARENT, COPY_FROM_PARENT, CURRENT_TIME, NONE,
    connection::Connection as _,
    protocol::{
        Event,
        xproto::{
            Atom, AtomEnum, BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT, ClientMessageEvent, ConnectionExt as _,
            CreateWindowAux, EventMask, MOTION_NOTIFY_EVENT, MapState, MotionNotifyEvent, PropMode,
            SELECTION_NOTIFY_EVENT, SelectionNotifyEvent, SelectionRequestEvent, Timestamp, Window,
            WindowClass,
        },
        xtest::ConnectionExt as _,
    },
    rust_connection::RustConnection,
    wrapper::ConnectionExt as _,
};

/// The version of XDND that is spoken, unless the other side knows an older one only.
const VERSION: u32 = 5;
/// How long something may take that another program or the display does.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the hand rests before it moves by a pixel. What is below answers in this time, or it does after the next.
const REST: Duration = Duration::from_millis(100);
/// The window's width and height in pixels. The application leaves more free at the display's lower edge.
const SIZE: u16 = 40;
/// How many motions the way to a place takes.
const STEPS: i32 = 20;

/// The names that both sides know each other's words by.
struct Atoms {
    selection: Atom,
    aware: Atom,
    enter: Atom,
    position: Atom,
    status: Atom,
    leave: Atom,
    drop: Atom,
    finished: Atom,
    copy: Atom,
    targets: Atom,
    uri_list: Atom,
}

impl Atoms {
    fn of(connection: &RustConnection) -> Result<Self> {
        let atom = |name: &str| -> Result<Atom> {
            Ok(connection.intern_atom(false, name.as_bytes())?.reply()?.atom)
        };
        Ok(Self {
            selection: atom("XdndSelection")?,
            aware: atom("XdndAware")?,
            enter: atom("XdndEnter")?,
            position: atom("XdndPosition")?,
            status: atom("XdndStatus")?,
            leave: atom("XdndLeave")?,
            drop: atom("XdndDrop")?,
            finished: atom("XdndFinished")?,
            copy: atom("XdndActionCopy")?,
            targets: atom("TARGETS")?,
            uri_list: atom("text/uri-list")?,
        })
    }
}

/// A window that takes drops and has the pointer above it.
struct Below {
    window: Window,
    /// It was told of a position and has not answered.
    asked: bool,
    /// What it answered last.
    takes: bool,
}

/// A drag that has begun: the button is down.
pub(crate) struct Drag {
    connection: RustConnection,
    atoms: Atoms,
    root: Window,
    /// Ours, which the drag began in.
    window: Window,
    /// What is dragged, as `text/uri-list`.
    list: String,
    /// Where the display says that the pointer is.
    at: (i16, i16),
    /// When it said something of it last.
    time: Timestamp,
    held: bool,
    below: Option<Below>,
    /// Whether what was dropped was taken, once that is known.
    finished: Option<bool>,
}

impl Drag {
    /// Opens a window in the lower right corner of a display, above all others, and takes hold of `path` there.
    pub(crate) fn begin(display: &str, path: &Path) -> Result<Self> {
        let (connection, screen) = x11rb::connect(Some(display))?;
        let screen = connection
            .setup()
            .roots
            .get(screen)
            .context("the display has no screen")?;
        let (root, white) = (screen.root, screen.white_pixel);
        let corner = |extent: u16| i16::try_from(extent.saturating_sub(SIZE));
        let place = (corner(screen.width_in_pixels)?, corner(screen.height_in_pixels)?);
        let atoms = Atoms::of(&connection)?;
        let window = connection.generate_id()?;
        let look = CreateWindowAux::new()
            .background_pixel(white)
            .override_redirect(1)
            .event_mask(EventMask::BUTTON_PRESS | EventMask::BUTTON_RELEASE | EventMask::POINTER_MOTION);
        connection.create_window(
            COPY_DEPTH_FROM_PARENT,
            window,
            root,
            place.0,
            place.1,
            SIZE,
            SIZE,
            0,
            WindowClass::INPUT_OUTPUT,
            COPY_FROM_PARENT,
            &look,
        )?;
        connection.map_window(window)?;
        let mut drag = Self {
            connection,
            atoms,
            root,
            window,
            list: uri_list(path)?,
            at: (0, 0),
            time: CURRENT_TIME,
            held: false,
            below: None,
            finished: None,
        };
        let middle = i16::try_from(SIZE / 2)?;
        drag.move_to((place.0 + middle, place.1 + middle))?;
        drag.point(BUTTON_PRESS_EVENT, 1, (0, 0))?;
        drag.until("the press to reach the window", |drag| drag.held)?;
        drag.connection
            .set_selection_owner(window, drag.atoms.selection, drag.time)?;
        let owner = drag
            .connection
            .get_selection_owner(drag.atoms.selection)?
            .reply()?
            .owner;
        ensure!(owner == window, "another program drags something as well");
        Ok(drag)
    }

    /// The middle of the largest window that takes drops, which is the application's: there is no other.
    pub(crate) fn middle_of_the_application(&self) -> Result<(i16, i16)> {
        let mut largest = None;
        for window in self.connection.query_tree(self.root)?.reply()?.children {
            let seen =
                self.connection.get_window_attributes(window)?.reply()?.map_state == MapState::VIEWABLE;
            if !seen || self.version_of(window)?.is_none() {
                continue;
            }
            let shape = self.connection.get_geometry(window)?.reply()?;
            let area = u32::from(shape.width) * u32::from(shape.height);
            if largest.is_none_or(|(known, _)| area > known) {
                let middle = (
                    shape.x + i16::try_from(shape.width / 2)?,
                    shape.y + i16::try_from(shape.height / 2)?,
                );
                largest = Some((area, middle));
            }
        }
        let (_, middle) = largest.context("no window on the display takes drops")?;
        Ok(middle)
    }

    /// Drags to a place, and waits until what is there says that it takes the drop. A hand is never quite still, and
    /// programs count on that: the answer to the first position is most often that they do not know yet.
    pub(crate) fn to(&mut self, place: (i16, i16)) -> Result<()> {
        let from = self.at;
        for step in 1..=STEPS {
            let part = |from: i16, to: i16| {
                let (from, to) = (i32::from(from), i32::from(to));
                i16::try_from(from + (to - from) * step / STEPS)
            };
            self.move_to((part(from.0, place.0)?, part(from.1, place.1)?))?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut aside = 1;
        while !self.below.as_ref().is_some_and(|below| below.takes) {
            ensure!(
                Instant::now() < deadline,
                "nothing at {place:?} takes what is dragged within {} s; below the pointer is {}",
                PATIENCE.as_secs(),
                if self.below.is_some() {
                    "a window that takes drops"
                } else {
                    "none that does"
                }
            );
            self.move_to((place.0 + aside, place.1))?;
            aside = 1 - aside;
            let rested = Instant::now() + REST;
            self.answer_until(|_| Instant::now() > rested, rested + REST)?;
        }
        Ok(())
    }

    /// Lets go, and waits until what was dropped is taken.
    pub(crate) fn let_go(mut self) -> Result<()> {
        self.point(BUTTON_RELEASE_EVENT, 1, (0, 0))?;
        self.until("the release to reach the window", |drag| !drag.held)?;
        let below = self.below.as_ref().context("nothing is below the pointer")?;
        ensure!(below.takes, "what is below the pointer takes nothing any more");
        self.tell(below.window, self.atoms.drop, [0, self.time, 0, 0])?;
        self.until("an end of the drop", |drag| drag.finished.is_some())?;
        ensure!(
            self.finished == Some(true),
            "what was dropped was refused in the end"
        );
        Ok(())
    }

    /// Has the display's pointer do something.
    fn point(&self, what: u8, button: u8, (x, y): (i16, i16)) -> Result<()> {
        self.connection
            .xtest_fake_input(what, button, CURRENT_TIME, self.root, x, y, 0)?;
        Ok(())
    }

    /// Moves the pointer, and waits until the display says that it is there.
    fn move_to(&mut self, place: (i16, i16)) -> Result<()> {
        self.point(MOTION_NOTIFY_EVENT, 0, place)?;
        self.until("the pointer to move", |drag| drag.at == place)
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let reached = self.answer_until(done, Instant::now() + PATIENCE)?;
        ensure!(reached, "waited {} s for {what}", PATIENCE.as_secs());
        Ok(())
    }

    /// Answers what comes until it is done, or until a moment; says which.
    fn answer_until(&mut self, done: impl Fn(&Self) -> bool, deadline: Instant) -> Result<bool> {
        loop {
            if done(self) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            self.connection.flush()?;
            match self.connection.poll_for_event()? {
                Some(event) => self.answer(&event)?,
                None => sleep(Duration::from_millis(2)),
            }
        }
    }

    fn answer(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::ButtonPress(press) => (self.held, self.time) = (true, press.time),
            Event::ButtonRelease(release) => (self.held, self.time) = (false, release.time),
            Event::MotionNotify(motion) => self.moved(motion)?,
            Event::SelectionRequest(request) => self.give(request)?,
            Event::ClientMessage(message) => {
                let [window, flags, ..] = message.data.as_data32();
                let yes = flags & 1 == 1;
                if message.type_ == self.atoms.finished {
                    self.finished = Some(yes);
                } else if message.type_ == self.atoms.status
                    && let Some(below) = self.below.as_mut().filter(|below| below.window == window)
                {
                    (below.asked, below.takes) = (false, yes);
                }
            }
            Event::Error(error) => bail!("the display refuses a request: {error:?}"),
            _ => {}
        }
        Ok(())
    }

    /// Tells what is below the pointer that it is, and what was below it before that it is no more.
    fn moved(&mut self, motion: &MotionNotifyEvent) -> Result<()> {
        self.at = (motion.root_x, motion.root_y);
        self.time = motion.time;
        if !self.held {
            return Ok(());
        }
        let found = self.aware_at(self.at)?;
        if found.map(|(window, _)| window) != self.below.as_ref().map(|below| below.window) {
            if let Some(left) = self.below.take() {
                self.tell(left.window, self.atoms.leave, [0; 4])?;
            }
            if let Some((window, version)) = found {
                self.tell(
                    window,
                    self.atoms.enter,
                    [version << 24, self.atoms.uri_list, NONE, NONE],
                )?;
                self.below = Some(Below {
                    window,
                    asked: false,
                    takes: false,
                });
            }
        }
        // One position at a time: the next goes out when the one before is answered.
        if let Some(below) = self.below.as_mut().filter(|below| !below.asked) {
            below.asked = true;
            let window = below.window;
            let (x, y) = (self.at.0.cast_unsigned(), self.at.1.cast_unsigned());
            let place = (u32::from(x) << 16) | u32::from(y);
            self.tell(
                window,
                self.atoms.position,
                [0, place, motion.time, self.atoms.copy],
            )?;
        }
        Ok(())
    }

    /// Sends one of XDND's messages, whose first word is always who sends it.
    fn tell(&self, window: Window, message: Atom, [a, b, c, d]: [u32; 4]) -> Result<()> {
        let message = ClientMessageEvent::new(32, window, message, [self.window, a, b, c, d]);
        self.connection
            .send_event(false, window, EventMask::NO_EVENT, message)?;
        Ok(())
    }

    /// Gives what is dragged to whoever asks.
    fn give(&self, request: &SelectionRequestEvent) -> Result<()> {
        let (requestor, property) = (request.requestor, request.property);
        let given = if request.target == self.atoms.uri_list {
            let (kind, list) = (self.atoms.uri_list, self.list.as_bytes());
            self.connection
                .change_property8(PropMode::REPLACE, requestor, property, kind, list)?;
            true
        } else if request.target == self.atoms.targets {
            let targets = [self.atoms.targets, self.atoms.uri_list];
            self.connection.change_property32(
                PropMode::REPLACE,
                requestor,
                property,
                AtomEnum::ATOM,
                &targets,
            )?;
            true
        } else {
            false
        };
        let answer = SelectionNotifyEvent {
            response_type: SELECTION_NOTIFY_EVENT,
            sequence: 0,
            time: request.time,
            requestor,
            selection: request.selection,
            target: request.target,
            property: if given { property } else { NONE },
        };
        self.connection
            .send_event(false, requestor, EventMask::NO_EVENT, answer)?;
        Ok(())
    }

    /// The window at a place that takes drops, and the version that both sides know.
    fn aware_at(&self, (x, y): (i16, i16)) -> Result<Option<(Window, u32)>> {
        let mut window = self.root;
        loop {
            let found = self.connection.translate_coordinates(self.root, window, x, y)?;
            window = found.reply()?.child;
            if window == NONE {
                return Ok(None);
            }
            if let Some(version) = self.version_of(window)? {
                return Ok(Some((window, version.min(VERSION))));
            }
        }
    }

    /// The newest version of XDND that a window takes drops by.
    fn version_of(&self, window: Window) -> Result<Option<u32>> {
        let (aware, any) = (self.atoms.aware, AtomEnum::ANY);
        let property = self
            .connection
            .get_property(false, window, aware, any, 0, 1)?
            .reply()?;
        Ok(property.value32().and_then(|mut values| values.next()))
    }
}

/// A path as a list of one address, as RFC 2483 and RFC 8089 have it.
fn uri_list(path: &Path) -> Result<String> {
    ensure!(path.is_absolute(), "{} is not absolute", path.display());
    let mut list = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            list.push(char::from(*byte));
        } else {
            write!(list, "%{byte:02X}")?;
        }
    }
    list.push_str("\r\n");
    Ok(list)
}
