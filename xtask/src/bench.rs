//! `cargo xtask bench`: builds what is measured, then has the bench program of the tests measure it. A goal that was
//! missed is a result: the exit code is 0, the last line counts them, and `met` in the JSON says it to a script.
//! `docs/measurements.md` is made of what was saved.

use crate::{
    build,
    layout::{Layout, Profile},
    process::{self, capture, cargo, step, try_capture},
    setup::{self, DockerClient},
};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

/// What can be measured, in the order in which `bench all` does it.
pub(crate) const ALL: [&str; 7] = ["boot", "events", "fs", "net", "ui", "vmm", "vsock"];

/// Measures everything, one after the other, and then writes the page. What fails keeps its last figures, and is an
/// error once all is done.
pub(crate) fn all(layout: &Layout) -> Result<ExitCode> {
    let failed = failed(&ALL, |what| run(layout, what).map(drop));
    let page = page(layout);
    if failed.is_empty() {
        return page;
    }
    if let Err(error) = page {
        eprintln!("error: {error:#}");
    }
    bail!(
        "not measured, so that the page has their last figures, if any: {}",
        failed.join(", ")
    );
}

/// Those that cannot be measured; why is told at once.
fn failed<'a>(benches: &[&'a str], measure: impl Fn(&str) -> Result<()>) -> Vec<&'a str> {
    let fails = |what: &&str| {
        let outcome = measure(what);
        outcome
            .inspect_err(|error| eprintln!("error: bench {what}: {error:#}"))
            .is_err()
    };
    benches.iter().copied().filter(fails).collect()
}

/// Writes the page of what was measured.
pub(crate) fn page(layout: &Layout) -> Result<ExitCode> {
    let mut command = program(layout);
    command.arg("page").arg(results(layout));
    command.arg(layout.root().join("docs/measurements.md"));
    step("Writing the page of measurements");
    process::run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(layout: &Layout, what: &str) -> Result<ExitCode> {
    let results = results(layout);
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
    let mut command = program(layout);
    command.arg(what).arg(results.join(format!("{what}.json")));
    command.env("COVE_BENCH_DATE", today()?);
    command.env("COVE_BENCH_COMMIT", commit(layout));
    if what != "vsock" {
        setup::machine_tools(layout)?;
        // What people use: a build for tests is slower where it moves bytes.
        let programs = build::programs(layout, Profile::Release, window)?;
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

/// The bench program, which is built first if need be.
fn program(layout: &Layout) -> Command {
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
    ]);
    command
}

/// Where figures are saved.
fn results(layout: &Layout) -> PathBuf {
    layout.target().join("bench")
}

/// The day in UTC, such as `2026-03-01`.
fn today() -> Result<String> {
    capture(Command::new("date").args(["-u", "+%Y-%m-%d"]))
}

/// The commit that is built, followed by `-dirty` where files differ from it; `unknown` outside of a repository.
fn commit(layout: &Layout) -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(layout.root());
    // By its hash, whatever tags there are.
    git.args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    try_capture(&mut git).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;
    use std::cell::RefCell;

    #[test]
    fn what_fails_is_named_and_keeps_nobody_from_being_measured() {
        let measured = RefCell::new(Vec::new());
        let failed = failed(&["boot", "fs", "net"], |what| {
            measured.borrow_mut().push(what.to_owned());
            ensure!(what != "fs", "no peer");
            Ok(())
        });
        assert_eq!(failed, ["fs"]);
        assert_eq!(measured.into_inner(), ["boot", "fs", "net"]);
    }
}
