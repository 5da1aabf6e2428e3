//! The front end: types, lints and tests that need no browser, and the pages that the desktop application holds. The
//! types that are made from `cove-view` are checked by that crate's own test.

use crate::{
    layout::Layout,
    process::{self, find, note, try_capture},
};
use anyhow::{Context as _, Result};
use std::process::Command;

/// What the front end's tools run on.
const NODE_MAJOR: u32 = 20;
/// The same in words.
pub(crate) const NEEDS: &str = "Node 20 or newer, with npm";

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
    for script in ["types", "lint", "test", "build"] {
        npm(layout, &["run", script])?;
    }
    Ok(())
}

/// Makes the pages that the desktop application is built with.
pub(crate) fn build(layout: &Layout) -> Result<()> {
    prepare(layout)?;
    npm(layout, &["run", "build"])
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
