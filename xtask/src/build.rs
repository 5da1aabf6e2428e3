//! Building the programs and the guest image.

use crate::{
    check::DESKTOP,
    front_end,
    layout::{Layout, Profile},
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

/// Builds `cove` and the guest agent, and the desktop application with its front end if `desktop`.
pub(crate) fn programs(layout: &Layout, profile: Profile, desktop: bool) -> Result<Programs> {
    let mut command = cargo(layout);
    command.args(["build", "--quiet", "--locked", "--package", "cove-cli"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    if desktop {
        step("Building the front end");
        front_end::build(layout)?;
        command.args(["--package", DESKTOP]);
    }
    step(if desktop {
        "Building cove and its window"
    } else {
        "Building cove"
    });
    process::run(&mut command)?;
    Ok(Programs {
        cove: layout.cove(profile),
        agent: agent(layout)?,
    })
}

/// Builds the guest agent.
pub(crate) fn agent(layout: &Layout) -> Result<PathBuf> {
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
    Ok(layout.agent())
}

/// Builds the programs that the suites run in containers.
pub(crate) fn container_programs(layout: &Layout) -> Result<()> {
    step("Building what runs in containers");
    process::run(cargo(layout).args([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "cove-posix",
        "-p",
        "cove-guests",
        "--target",
        "x86_64-unknown-linux-musl",
    ]))
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
