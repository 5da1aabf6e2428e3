//! The front end: types, lints and tests that need no browser. The types that are made from `cove-view` are checked by
//! that crate's own test.

use crate::{
    layout::Layout,
    process::{self, find, note, try_capture},
};
use anyhow::Result;
use std::process::Command;

/// What the front end's tools run on.
const NODE_MAJOR: u32 = 20;

pub(super) fn check(layout: &Layout) -> Result<()> {
    let Some(npm) = find("npm").filter(|_| node_major().is_some_and(|major| major >= NODE_MAJOR)) else {
        note(&format!("skipped: it needs Node {NODE_MAJOR} or newer, with npm"));
        return Ok(());
    };
    let ui = layout.root().join("ui");
    let run = |arguments: &[&str]| {
        process::run_quietly(
            Command::new(&npm)
                .arg("--prefix")
                .arg(&ui)
                .args(arguments)
                .current_dir(&ui),
        )
    };
    if !ui.join("node_modules").is_dir() {
        run(&["ci", "--no-fund", "--no-audit"])?;
    }
    for script in ["types", "lint", "test", "build"] {
        run(&["run", script])?;
    }
    Ok(())
}

fn node_major() -> Option<u32> {
    let version = try_capture(Command::new("node").arg("--version"))?;
    version.trim_start_matches('v').split('.').next()?.parse().ok()
}
