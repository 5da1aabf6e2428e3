//! `cargo xtask bench`: builds what is measured, then has the bench program of the tests measure it.

use crate::{
    build,
    layout::Layout,
    process::{self, cargo, step},
    setup::{self, DockerClient},
};
use anyhow::{Context as _, Result};
use std::{fs, process::ExitCode};

pub(crate) fn run(layout: &Layout, what: &str) -> Result<ExitCode> {
    let results = layout.target().join("bench");
    fs::create_dir_all(&results).with_context(|| format!("cannot create {}", results.display()))?;
    let mut command = cargo(layout);
    command.args([
        "run",
        "--quiet",
        "--release",
        "-p",
        "cove-tests",
        "--bin",
        "bench",
        "--",
        what,
    ]);
    command.arg(results.join(format!("{what}.json")));
    if what == "boot" {
        setup::machine_tools(layout)?;
        let programs = build::programs(layout, false)?;
        build::image(layout, &programs, false)?;
        command.env("COVE_TEST_PROGRAM", programs.cove);
        command.env("COVE_TEST_IMAGE", layout.image());
        command.env("COVE_TEST_DOCKER", DockerClient::plain(layout)?.program);
    }
    step(&format!("Measuring: {what}"));
    process::run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}
