//! `cargo xtask bench`: builds what is measured, then has the bench program of the tests measure it. A goal that was
//! missed is a result: the exit code is 0, the last line counts them, and `met` in the JSON says it to a script.

use crate::{
    build,
    layout::{Layout, Profile},
    process::{self, cargo, step},
    setup::{self, DockerClient},
};
use anyhow::{Context as _, Result, bail};
use std::{fs, process::ExitCode};

pub(crate) fn run(layout: &Layout, what: &str) -> Result<ExitCode> {
    let results = layout.target().join("bench");
    fs::create_dir_all(&results).with_context(|| format!("cannot create {}", results.display()))?;
    if what == "fs" {
        setup::virtiofsd_libraries(layout)?;
    }
    if what == "net" {
        setup::ssh_client(layout)?;
    }
    let window = what == "ui";
    if window && !setup::desktop_tools(layout, true)? {
        bail!("there is no window to measure: the desktop application cannot be built here");
    }
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
    if what != "vsock" {
        setup::machine_tools(layout)?;
        // A window's time is mostly its own, and what a monitor takes is a matter of how it was compiled; another
        // machine's time is mostly the guest's.
        let profile = if window || what == "vmm" {
            Profile::Release
        } else {
            Profile::Dev
        };
        let programs = build::programs(layout, profile, window)?;
        build::image(layout, &programs, false)?;
        build::container_programs(layout)?;
        command.env("COVE_TEST_PROGRAM", programs.cove);
        command.env("COVE_TEST_IMAGE", layout.image());
        command.env("COVE_TEST_DOCKER", DockerClient::plain(layout)?.program);
        for (variable, program) in [
            ("COVE_TEST_POSIX", "cove-posix"),
            ("COVE_BENCH_EXERCISE", "cove-exercise"),
            ("COVE_BENCH_FILES", "cove-files"),
            ("COVE_BENCH_METER", "cove-meter"),
        ] {
            command.env(variable, layout.container_program(program));
        }
    }
    if window {
        command.env("COVE_TEST_DESKTOP", layout.desktop(Profile::Release));
        command.env("COVE_BENCH_PAGES", layout.root().join("ui/dist"));
    }
    if what == "net" {
        command.env("COVE_BENCH_DROPBEAR", setup::ssh_server(layout)?);
    }
    step(&format!("Measuring: {what}"));
    process::run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}
