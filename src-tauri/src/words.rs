//! The words that are said outside of the page, in the tray's menu: in the session's language, as far as it is one of
//! the page's own.

mod de;

use de::GERMAN;
use std::env;

/// The menu's words. What is said of the machine follows its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) looking: &'static str,
    pub(crate) away: &'static str,
    pub(crate) stopped: &'static str,
    pub(crate) failed: &'static str,
    pub(crate) starting: &'static str,
    pub(crate) running: &'static str,
    pub(crate) paused: &'static str,
    pub(crate) stopping: &'static str,
    pub(crate) start: &'static str,
    pub(crate) stop: &'static str,
    /// How many there are stands behind it.
    pub(crate) stops_with_it: &'static str,
    pub(crate) resume: &'static str,
    /// Of the engine of a machine that runs.
    pub(crate) lost: &'static str,
    /// Of an engine that answers, but does not say what it has.
    pub(crate) refused: &'static str,
    /// A page of a container, whose address follows.
    pub(crate) open: &'static str,
    pub(crate) logs: &'static str,
    pub(crate) restart: &'static str,
    pub(crate) halt: &'static str,
    /// How many more there are stands before it.
    pub(crate) more: &'static str,
    pub(crate) window: &'static str,
    /// What quitting ends, and what it does not, has to be said where it is chosen.
    pub(crate) quit: &'static str,
}

pub(crate) static ENGLISH: Words = Words {
    looking: "Looking for the machine",
    away: "The daemon does not run",
    stopped: "is stopped",
    failed: "failed",
    starting: "is starting",
    running: "is running",
    paused: "is paused",
    stopping: "is stopping",
    start: "Start the machine",
    stop: "Stop the machine",
    stops_with_it: "running containers",
    resume: "Resume the machine",
    lost: "The engine does not answer",
    refused: "The engine does not list its containers",
    open: "Open",
    logs: "Logs",
    restart: "Restart",
    halt: "Stop",
    more: "more…",
    window: "Show the window",
    quit: "Quit (ends the window's tasks and shells; the machine goes on)",
};

/// The words of this session.
pub(crate) fn words() -> &'static Words {
    of(|name| env::var(name).ok())
}

/// The words of the locale that these variables name, as for other programs' messages (gettext).
fn of(variable: impl Fn(&str) -> Option<String>) -> &'static Words {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(set);
    let locale = locale.filter(|name| !["C", "POSIX"].contains(&name.as_str()) && !name.starts_with("C."));
    // Languages are only preferred to one another where there is a locale.
    let language = locale.map(|locale| set("LANGUAGE").unwrap_or(locale));
    if language.is_some_and(|name| name.starts_with("de")) {
        &GERMAN
    } else {
        &ENGLISH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_that_of_other_programs() {
        let cases: [(&[(&str, &str)], bool); 7] = [
            (&[], false),
            (&[("LANG", "de_AT.UTF-8")], true),
            (&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "en_GB.UTF-8")], false),
            (&[("LANG", "en_US.UTF-8"), ("LC_MESSAGES", "de_DE")], true),
            (&[("LANG", "en_US.UTF-8"), ("LANGUAGE", "de:en")], true),
            (&[("LANG", "C.UTF-8"), ("LANGUAGE", "de")], false),
            (&[("LC_ALL", ""), ("LANG", "de")], true),
        ];
        for (variables, german) in cases {
            let found = of(|name| {
                let set = variables.iter().find(|(of, _)| *of == name);
                set.map(|(_, value)| (*value).to_owned())
            });
            assert_eq!(found == &GERMAN, german, "{variables:?}");
        }
    }
}
