//! How evenly long lists scroll.
//!
//! The application's page in the application's engine, with a host in memory that has as many containers and lines as
//! it is told: an emulated machine has not. The wheel is that of the display's pointer, one notch a frame, and the page
//! notes when each of its frames begins.

use super::pages;
use crate::harness::{
    Cove,
    webdriver::{SOON, Window},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

/// The size that the window asks for, in pixels; a browser's bar takes some of it.
const SIZE: (u16, u16) = (1180, 760);
/// Notches of the wheel in each direction, about five seconds of them.
const NOTCHES: &str = "300";
/// Between two of them, in milliseconds: about a frame's time.
const PACE: &str = "16";
/// The wheel as buttons of an X11 pointer.
const UP: &str = "4";
const DOWN: &str = "5";
/// The page's clock shows whole milliseconds, so that a frame in time may seem to be later by one.
const CLOCK_STEP_MS: f64 = 1.0;
/// How far the wheel must have led in one direction, in pixels, for the figures to be of scrolling.
const LEAST_WAY: f64 = 2000.0;

/// A list, and how to get it.
struct List {
    what: &'static str,
    /// What follows the page's address.
    query: &'static str,
    /// What scrolls, as a CSS selector.
    pane: &'static str,
    /// It is all there when this is that high, in pixels.
    height: f64,
    /// It shows its end at first.
    from_its_end: bool,
}

const LISTS: [List; 2] = [
    List {
        what: "1,000 containers",
        query: "?containers=1000",
        pane: ".rows",
        height: 1000.0 * 46.0,
        from_its_end: false,
    },
    List {
        what: "100,000 log lines",
        query: "?lines=100000#/containers/0001000100010001000100010001000100010001000100010001000100010001/logs",
        pane: "[role=log]",
        height: 100_000.0 * 19.0,
        from_its_end: true,
    },
];

/// What scrolling a list came to.
pub(super) struct Scroll {
    pub(super) what: &'static str,
    /// From the beginning of each frame to that of the next, in milliseconds.
    pub(super) frames: Vec<f64>,
    /// How far it was scrolled in one direction, in pixels.
    way: f64,
    /// The page's width and height in pixels.
    size: Value,
}

impl Scroll {
    /// The share of frames that took longer than so many milliseconds.
    pub(super) fn later_than(&self, limit: f64) -> f64 {
        let late = self.frames.iter().filter(|took| **took > limit + CLOCK_STEP_MS);
        #[expect(clippy::cast_precision_loss, reason = "some hundreds of frames")]
        let share = late.count() as f64 / self.frames.len().max(1) as f64;
        share
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "what": self.what, "frames_ms": self.frames, "way_px": self.way, "page_px": self.size })
    }
}

/// Scrolls each list there and back.
pub(super) fn measure(cove: &Cove, folder: &Path) -> Result<Vec<Scroll>> {
    let address = pages::serve(folder)?;
    LISTS
        .iter()
        .map(|list| {
            let window = Window::browse(cove, &format!("http://{address}/{}", list.query));
            window.place((0, 0), SIZE);
            scroll(&window, list).with_context(|| {
                let picture = window.picture("bench");
                format!("{} do not scroll; picture: {picture}", list.what)
            })
        })
        .collect()
}

fn scroll(window: &Window, list: &List) -> Result<Scroll> {
    let height = "return document.querySelector(arguments[0])?.scrollHeight ?? 0";
    number(window, height, list.pane, "the list", |height| {
        height >= list.height
    })?;
    point_at(window, list.pane)?;
    let top = "return document.querySelector(arguments[0]).scrollTop";
    let top = || number(window, top, list.pane, "its place", |_| true);
    let before = top()?;
    window.script(
        "window.coveFrames = [];\
         let last = null;\
         const frame = (now) => {\
           if (window.coveFrames === null) return;\
           if (last !== null) window.coveFrames.push(now - last);\
           last = now;\
           requestAnimationFrame(frame);\
         };\
         requestAnimationFrame(frame);",
        &[],
    );
    let turn = |button: &str| window.xdotool(&["click", "--repeat", NOTCHES, "--delay", PACE, button]);
    let (there, back) = if list.from_its_end { (UP, DOWN) } else { (DOWN, UP) };
    turn(there);
    let way = (top()? - before).abs();
    turn(back);
    let frames = window.script(
        "const frames = window.coveFrames; window.coveFrames = null; return frames;",
        &[],
    );
    let frames: Vec<f64> = serde_json::from_value(frames).context("the page noted no frames")?;
    ensure!(!frames.is_empty(), "the page draws nothing");
    ensure!(way >= LEAST_WAY, "the wheel led {way} pixels far");
    let size = window.script("return [window.innerWidth, window.innerHeight]", &[]);
    Ok(Scroll {
        what: list.what,
        frames,
        way,
        size,
    })
}

/// Puts the display's pointer above the middle of an element. Where the page lies on the display, a motion tells.
fn point_at(window: &Window, element: &str) -> Result<()> {
    window.script(
        "window.coveAt = [];\
         addEventListener('mousemove', (event) => { window.coveAt = [event.clientX, event.clientY]; });",
        &[],
    );
    let probe = (400.0, 400.0);
    move_to(window, (probe.0 - 10.0, probe.1 - 10.0));
    move_to(window, probe);
    let at = |axis: usize| {
        let script = format!("return window.coveAt[{axis}] ?? -1");
        number(window, &script, element, "the pointer", |at| at >= 0.0)
    };
    let middle = |low: &str, extent: &str| {
        let script = format!(
            "const place = document.querySelector(arguments[0]).getBoundingClientRect();\
             return place.{low} + place.{extent} / 2"
        );
        number(window, &script, element, "its middle", |_| true)
    };
    let (x, y) = (probe.0 - at(0)?, probe.1 - at(1)?);
    move_to(
        window,
        (x + middle("left", "width")?, y + middle("top", "height")?),
    );
    Ok(())
}

fn move_to(window: &Window, (x, y): (f64, f64)) {
    window.xdotool(&["mousemove", "--sync", &format!("{x:.0}"), &format!("{y:.0}")]);
}

/// Asks the page for a number about an element until it is as wanted.
fn number(
    window: &Window,
    script: &str,
    element: &str,
    what: &str,
    wanted: impl Fn(f64) -> bool,
) -> Result<f64> {
    let began = Instant::now();
    loop {
        // There is no page at first.
        let found = window.try_script(script, &[element.into()]);
        if let Some(found) = found.ok().and_then(|found| found.as_f64())
            && wanted(found)
        {
            return Ok(found);
        }
        ensure!(began.elapsed() < SOON, "{what} does not come");
        sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_late_by_more_than_the_clocks_step() {
        let scroll = Scroll {
            what: "a list",
            frames: vec![16.0, 17.0, 18.0, 34.0],
            way: 0.0,
            size: Value::Null,
        };
        assert!((scroll.later_than(1000.0 / 60.0) - 0.5).abs() < 1e-9);
        assert!(scroll.later_than(1000.0 / 30.0).abs() < 1e-9);
    }
}
