//! Docker's other clients, for the suites: those in Python and the dev container command, from their registries into
//! the target directory.

use crate::{
    layout::Layout,
    process::{self, find, step},
};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PYTHON: [&str; 2] = ["docker==7.1.0", "testcontainers==4.15.0"];
const DEVCONTAINER: &str = "@devcontainers/cli@0.89.0";

/// A directory for `PYTHONPATH` with docker-py and testcontainers.
pub(crate) fn python_clients(layout: &Layout) -> Result<PathBuf> {
    let place = layout.tools().join("python");
    let wanted = PYTHON.join(" ");
    once(&place, &wanted, || {
        // The system's own, which the user who runs the tests has as well.
        let system = Path::new("/usr/bin/python3");
        let python = if system.exists() {
            system.to_owned()
        } else {
            find("python3").context("python3 is missing, which the tests use Docker's Python clients with")?
        };
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--root-user-action", "ignore", "--target"]);
        process::run_quietly(pip.arg(&place).args(PYTHON))
    })?;
    Ok(place)
}

/// The dev container command, a program for node.
pub(crate) fn devcontainer(layout: &Layout) -> Result<PathBuf> {
    let place = layout.tools().join("devcontainer");
    once(&place, DEVCONTAINER, || {
        let npm = find("npm").context("npm is missing, which the dev container command is fetched with")?;
        let mut npm = Command::new(npm);
        npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"]);
        process::run_quietly(npm.arg(&place).arg(DEVCONTAINER))
    })?;
    Ok(place.join("node_modules/@devcontainers/cli/devcontainer.js"))
}

/// Fills `place` with `fill`, unless it holds `wanted` already.
pub(super) fn once(place: &Path, wanted: &str, fill: impl FnOnce() -> Result<()>) -> Result<()> {
    let mark = place.join("complete");
    if fs::read_to_string(&mark).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    step(&format!("Fetching {wanted} into {}", place.display()));
    // What an earlier attempt or version left would be mixed with this one.
    let _ = fs::remove_dir_all(place);
    fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
    fill()?;
    fs::write(&mark, wanted).with_context(|| format!("cannot write {}", mark.display()))
}
