//! What a person sees while something takes its time: one live line on a terminal, plain lines elsewhere.
//!
//! ```text
//! ⠹ starting containerd  [########------------]  40 %  4.1 s
//! ```
//!
//! The line appears after half a second, so that what is quick stays quiet. A thread redraws it, because the spinner
//! has to turn while nobody reports anything; [`Shown`] is shared with it and belongs to whoever holds the lock.

use crate::time;
use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

const QUIET_FOR: Duration = Duration::from_millis(500);
const REDRAW_EVERY: Duration = Duration::from_millis(100);
const BAR_WIDTH: usize = 20;
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// The same where letters beyond ASCII may come out as something else.
const PLAIN_SPINNER: [char; 4] = ['|', '/', '-', '\\'];

/// A running operation. Dropping it takes its line away.
#[derive(Debug)]
pub(crate) struct Progress {
    mode: Mode,
    shown: Arc<Mutex<Shown>>,
    painter: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Quiet,
    Lines,
    Live,
}

#[derive(Debug)]
struct Shown {
    since: Instant,
    message: String,
    fraction: Option<f32>,
    on_screen: bool,
    finished: bool,
}

impl Progress {
    /// Begins to show an operation; `quiet` shows nothing at all.
    pub(crate) fn new(quiet: bool) -> Self {
        Self::in_mode(match (quiet, can_redraw()) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Live,
            (false, false) => Mode::Lines,
        })
    }

    /// Begins to show something that is mostly quick and has no stages, `what`: on a terminal alone, where its line
    /// goes again.
    pub(crate) fn brief(quiet: bool, what: &str) -> Self {
        let live = !quiet && can_redraw();
        let progress = Self::in_mode(if live { Mode::Live } else { Mode::Quiet });
        progress.stage(what, None);
        progress
    }

    fn in_mode(mode: Mode) -> Self {
        let shown = Arc::new(Mutex::new(Shown {
            since: Instant::now(),
            message: String::new(),
            fraction: None,
            on_screen: false,
            finished: false,
        }));
        let painter = (mode == Mode::Live).then(|| {
            let shown = Arc::clone(&shown);
            thread::spawn(move || paint_until_finished(&shown))
        });
        Self { mode, shown, painter }
    }

    /// A stage began; `fraction` says how far the whole is, from 0 to 1, where that is known.
    pub(crate) fn stage(&self, message: &str, fraction: Option<f32>) {
        let mut shown = lock(&self.shown);
        if self.mode == Mode::Lines && shown.message != message {
            // Standard error that is gone is no reason to stop the operation.
            let _ = writeln!(io::stderr(), "{message}");
        }
        message.clone_into(&mut shown.message);
        shown.fraction = fraction;
    }

    /// A line that stays: something that a person should know.
    pub(crate) fn note(&self, message: &str) {
        if self.mode != Mode::Quiet {
            self.line_above(&format!("note: {message}"));
        }
    }

    /// Ends the operation with a line that stays, followed by the time that it took.
    pub(crate) fn done(self, message: &str) {
        let took = time::words(lock(&self.shown).since.elapsed());
        let mode = self.mode;
        drop(self);
        if mode != Mode::Quiet {
            let _ = writeln!(io::stderr(), "{message} in {took}");
        }
    }

    fn line_above(&self, text: &str) {
        let mut shown = lock(&self.shown);
        shown.clear();
        let _ = writeln!(io::stderr(), "{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        {
            let mut shown = lock(&self.shown);
            shown.finished = true;
            shown.clear();
        }
        if let Some(painter) = self.painter.take() {
            painter.thread().unpark();
            let _ = painter.join();
        }
    }
}

impl Shown {
    fn clear(&mut self) {
        if self.on_screen {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.on_screen = false;
        }
    }

    fn line(&self, columns: usize) -> String {
        let elapsed = self.since.elapsed();
        let turn = usize::try_from(elapsed.as_millis() / REDRAW_EVERY.as_millis()).unwrap_or(0);
        let spinner = spinner(|name| env::var(name).ok());
        let mut text = format!("{} {}", spinner[turn % spinner.len()], self.message);
        if let Some(fraction) = self.fraction {
            text.push_str(&bar(fraction));
        }
        text.push_str("  ");
        text.push_str(&time::words(elapsed));
        // A line that wraps could not be taken back.
        text.chars().take(columns.saturating_sub(1)).collect()
    }
}

/// Whether a line can be taken back: on a terminal that can do more than print.
fn can_redraw() -> bool {
    io::stderr().is_terminal() && env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// What turns, by the locale that the variables name as they do for C libraries.
fn spinner(variable: impl Fn(&str) -> Option<String>) -> &'static [char] {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    if cfg!(not(unix)) || locale.contains("utf-8") || locale.contains("utf8") {
        &SPINNER
    } else {
        &PLAIN_SPINNER
    }
}

fn bar(fraction: f32) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction within 0 and 1 makes a percentage within 0 and 100"
    )]
    let percent = (fraction.clamp(0.0, 1.0) * 100.0) as usize;
    let filled = percent * BAR_WIDTH / 100;
    format!(
        "  [{}{}] {percent:>3} %",
        "#".repeat(filled),
        "-".repeat(BAR_WIDTH - filled)
    )
}

fn paint_until_finished(shown: &Mutex<Shown>) {
    loop {
        thread::park_timeout(REDRAW_EVERY);
        let mut shown = lock(shown);
        if shown.finished {
            return;
        }
        if shown.since.elapsed() < QUIET_FOR || shown.message.is_empty() {
            continue;
        }
        let line = shown.line(columns(crossterm::terminal::size().ok()));
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[K{line}");
        let _ = stderr.flush();
        shown.on_screen = true;
    }
}

/// How wide a line may be on a terminal of a size. One that nobody told its size, as a serial line's, says nought.
fn columns(size: Option<(u16, u16)>) -> usize {
    match size {
        Some((0, _)) | None => 80,
        Some((columns, _)) => columns.into(),
    }
}

/// Nothing that holds this lock can leave it half-changed, so a panic elsewhere does not matter to it.
fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_at_one_and_never_overflows() {
        assert_eq!(bar(0.0), format!("  [{}]   0 %", "-".repeat(20)));
        assert_eq!(bar(1.0), format!("  [{}] 100 %", "#".repeat(20)));
        assert_eq!(bar(7.5), bar(1.0));
        assert_eq!(bar(f32::NAN), bar(0.0));
    }

    #[test]
    #[cfg(unix)]
    fn a_locale_without_unicode_gets_none() {
        let of = |set: &[(&str, &str)]| {
            spinner(|name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[("LANG", "de_DE.UTF-8")]), SPINNER);
        assert_eq!(
            of(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]),
            SPINNER
        );
        assert_eq!(of(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]), PLAIN_SPINNER);
        assert_eq!(of(&[]), PLAIN_SPINNER);
    }

    #[test]
    fn a_terminal_without_a_size_is_a_usual_one() {
        assert_eq!(columns(Some((97, 31))), 97);
        assert_eq!(columns(Some((0, 0))), 80);
        assert_eq!(columns(None), 80);
    }

    #[test]
    fn a_line_never_reaches_the_terminals_edge() {
        let shown = Shown {
            since: Instant::now(),
            message: "x".repeat(500),
            fraction: Some(0.5),
            on_screen: false,
            finished: false,
        };
        assert_eq!(shown.line(80).chars().count(), 79);
        assert_eq!(shown.line(0), "");
    }
}
