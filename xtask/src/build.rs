//! Building the programs and the guest image.

use crate::{
    check::DESKTOP,
    front_end,
    layout::Layout,
    process::{self, cargo, step},
};
use anyhow::Result;
use std::{path::PathBuf, process::Command};

/// What was built.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `cove`: command, daemon and machine process.
    pub(crate) cove: PathBuf,
    /// The guest agent.
    pub(crate) agent: PathBuf,
}

/// Builds `cove` and the guest agent.
pub(crate) fn programs(layout: &Layout) -> Result<Programs> {
    step("Building cove");
    process::run(cargo(layout).args(["build", "--quiet", "--locked", "-p", "cove-cli"]))?;
    step("Building the guest agent");
    process::run(cargo(layout).args([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "cove-agent",
        "--profile",
        "agent",
        "--target",
        "x86_64-unknown-linux-musl",
    ]))?;
    Ok(Programs {
        cove: layout.cove(),
        agent: layout.agent(),
    })
}

/// Builds the program that the suites run in containers.
pub(crate) fn container_program(layout: &Layout) -> Result<PathBuf> {
    step("Building what runs in containers");
    process::run(cargo(layout).args([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "cove-posix",
        "--target",
        "x86_64-unknown-linux-musl",
    ]))?;
    Ok(layout.container_program())
}

/// Builds the desktop application, with its front end within.
pub(crate) fn desktop(layout: &Layout) -> Result<PathBuf> {
    step("Building the window");
    front_end::build(layout)?;
    process::run(cargo(layout).args(["build", "--quiet", "--locked", "--package", DESKTOP]))?;
    Ok(layout.desktop())
}

/// Builds the guest image, by the command that users build it with.
pub(crate) fn image(layout: &Layout, programs: &Programs, refresh: bool) -> Result<()> {
    step("Building the guest image");
    let mut command = Command::new(&programs.cove);
    command.args(["image", "build"]);
    command.arg("--agent").arg(&programs.agent);
    command.arg("--output").arg(layout.image());
    if refresh {
        command.arg("--refresh");
    }
    command
        .env("XDG_CACHE_HOME", layout.cache())
        .env_remove("COVE_HOME");
    process::run(&mut command)
}
