//! The front end: types, lints, tests without a browser and in one, and the pages that the desktop application holds.
//! The types that are made from `cove-view` are checked by that crate's own test.

use crate::{
    layout::Layout,
    process::{self, find, note, step, try_capture},
    setup,
    suites::{self, Outcome, Tally},
};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What the front end's tools run on.
const NODE_MAJOR: u32 = 20;
/// The same in words.
pub(crate) const NEEDS: &str = "Node 20 or newer, with npm";

/// The page that is written last, below `ui`.
const PAGE: &str = "dist/index.html";
/// What the pages are made of, below `ui`.
const MADE_OF: [&str; 6] = [
    "src",
    "index.html",
    "package-lock.json",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
];

/// What the tests in a browser are called in what we print.
pub(crate) const IN_BROWSER: &str = "ui::e2e";
/// They are killed after this long; it is several times what they take.
const BROWSER_LIMIT: Duration = Duration::from_mins(30);

/// Whether this computer can build it.
pub(crate) fn is_possible() -> bool {
    find("npm").is_some() && node_major().is_some_and(|major| major >= NODE_MAJOR)
}

/// Everything that can be said of it without a browser.
pub(crate) fn check(layout: &Layout) -> Result<()> {
    if !is_possible() {
        note(&format!("skipped: it needs {NEEDS}"));
        return Ok(());
    }
    prepare(layout)?;
    for script in ["types", "lint", "test"] {
        npm(layout, &["run", script])?;
    }
    build(layout)
}

/// Makes the pages that the desktop application is built with, unless they are newer than what they are made of: cargo
/// compiles it anew with each new page.
pub(crate) fn build(layout: &Layout) -> Result<()> {
    prepare(layout)?;
    if are_made(&layout.root().join("ui"))? {
        return Ok(());
    }
    npm(layout, &["run", "build"])
}

/// Whether the pages are newer than all that they are made of.
fn are_made(ui: &Path) -> Result<bool> {
    let Ok(made) = ui.join(PAGE).metadata().and_then(|page| page.modified()) else {
        return Ok(false);
    };
    let mut left: Vec<PathBuf> = MADE_OF.map(|name| ui.join(name)).into();
    while let Some(path) = left.pop() {
        let told = || format!("cannot look at {}", path.display());
        let metadata = path.metadata().with_context(told)?;
        // A directory is changed by what goes from it.
        if metadata.modified().with_context(told)? >= made {
            return Ok(false);
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).with_context(told)? {
                left.push(entry.with_context(told)?.path());
            }
        }
    }
    Ok(true)
}

/// Walks through every screen in Chromium, on the host in memory, and makes `docs/screenshots`. The pages have to be there. This is done as whoever we are, since a page of ours in a browser
/// needs no test that it can do without root, and the screenshots belong to the checkout.
pub(crate) fn try_in_browser(layout: &Layout) -> Result<Outcome> {
    let chromium = setup::chromium(layout)?;
    step("Trying every screen in a browser");
    let ui = layout.root().join("ui");
    let report = layout.target().join("playwright.json");
    match fs::remove_file(&report) {
        // An older one would be counted if this one is not written.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", report.display()));
        }
        _ => {}
    }
    let mut playwright = Command::new(find("node").context("node has gone away")?);
    playwright
        .arg("node_modules/@playwright/test/cli.js")
        .args(["test", "--forbid-only", "--reporter=list,json"])
        .current_dir(&ui)
        .env("COVE_CHROMIUM", chromium)
        .env("PLAYWRIGHT_JSON_OUTPUT_FILE", &report)
        // What is kept for the end of the run is read without a terminal, too.
        .env("FORCE_COLOR", "0");
    let tally = |_: &str| tally_in(&fs::read_to_string(&report).ok()?);
    suites::run_command(playwright, IN_BROWSER, Some("browser"), BROWSER_LIMIT, tally)
}

/// What Playwright's report in JSON counts; nothing where it makes no sense.
fn tally_in(report: &str) -> Option<Tally> {
    let report: Value = serde_json::from_str(report).ok()?;
    let count = |what: &str| report["stats"][what].as_u64();
    Some(Tally {
        passed: count("expected")?,
        // One that came out well only when it was tried again is a fault as well.
        failed: count("unexpected")? + count("flaky")?,
        skipped: count("skipped")?,
    })
}

/// Installs what the lock file names, where that is not what is there.
fn prepare(layout: &Layout) -> Result<()> {
    let ui = layout.root().join("ui");
    let modified = |file: &str| ui.join(file).metadata().and_then(|file| file.modified());
    let installed = modified("node_modules/.package-lock.json").ok();
    let locked = modified("package-lock.json").context("the front end has no package-lock.json")?;
    if installed.is_none_or(|installed| installed < locked) {
        npm(layout, &["ci", "--no-fund", "--no-audit"])?;
    }
    Ok(())
}

fn npm(layout: &Layout, arguments: &[&str]) -> Result<()> {
    let ui = layout.root().join("ui");
    let npm = find("npm").context("npm has gone away")?;
    process::run_quietly(
        Command::new(npm)
            .arg("--prefix")
            .arg(&ui)
            .args(arguments)
            .current_dir(&ui),
    )
}

fn node_major() -> Option<u32> {
    let version = try_capture(Command::new("node").arg("--version"))?;
    version.trim_start_matches('v').split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playwrights_report_is_counted() {
        let report = r#"{"suites":[],"errors":[],"stats":{"startTime":"2026-01-01T00:00:00.000Z","duration":1.5,
            "expected":149,"skipped":2,"unexpected":1,"flaky":1}}"#;
        let expected = Tally {
            passed: 149,
            failed: 2,
            skipped: 2,
        };
        assert_eq!(tally_in(report), Some(expected));
        assert_eq!(tally_in("{}"), None);
        assert_eq!(tally_in(""), None);
    }
}
