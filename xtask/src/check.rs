//! `cargo xtask check`: what can be said of the sources without running them.

mod dependencies;
mod spelling;

use crate::{
    front_end,
    layout::Layout,
    process::{self, cargo, step},
    setup,
};
use anyhow::Result;
use std::{panic::resume_unwind, thread};

/// The desktop application's package, which `WebKit` is needed for.
pub(crate) const DESKTOP: &str = "cove-desktop";
/// The programs for cargo fuzz, which are a workspace of their own.
const FUZZ: &str = "fuzz/Cargo.toml";
/// The crates that compile for every platform.
const PORTABLE: &[&str] = &[
    "cove-cli",
    "cove-credentials",
    "cove-daemon",
    "cove-api",
    "cove-wire",
    "cove-machine",
];
/// What is type-checked for other computers: a target, and the crates. System calls have other numbers on ARM, and some
/// are not there.
const ELSEWHERE: [(&str, &[&str]); 3] = [
    ("aarch64-apple-darwin", PORTABLE),
    ("x86_64-pc-windows-msvc", PORTABLE),
    ("aarch64-unknown-linux-gnu", &["cove-confine"]),
];

/// Has rustup add the targets that are checked.
pub(crate) fn prepare() -> Result<()> {
    setup::rust_targets(&ELSEWHERE.map(|(target, _)| target))
}

/// Everything, the desktop application included if `desktop`; ends at the first thing that is wrong.
pub(crate) fn everything(layout: &Layout, desktop: bool) -> Result<()> {
    step("Checking the formatting");
    process::run(cargo(layout).args(["fmt", "--all", "--check"]))?;
    process::run(cargo(layout).args(["fmt", "--check", "--manifest-path", FUZZ]))?;
    step("Checking licences, sources and unused dependencies");
    dependencies::check(layout)?;
    step("Checking the spelling");
    spelling::check(layout)?;
    step("Checking the front end, and linting");
    // Beside each other, since the front end's tools keep one processor busy at most.
    thread::scope(|scope| {
        let front_end = scope.spawn(|| front_end::check(layout));
        lint(layout, desktop)?;
        front_end.join().unwrap_or_else(|panic| resume_unwind(panic))
    })?;
    for (target, packages) in ELSEWHERE {
        step(&format!("Checking for {target}: {}", packages.join(", ")));
        let mut command = cargo(layout);
        command.args(["check", "--quiet", "--target", target]);
        for package in packages {
            command.args(["-p", *package]);
        }
        process::run(&mut command)?;
    }
    step("Checking the programs for cargo fuzz");
    // Nothing is linked, and so nothing of libFuzzer needs to be built, for which it would take a C++ compiler.
    process::run(
        cargo(layout)
            .args([
                "check",
                "--quiet",
                "--locked",
                "--manifest-path",
                FUZZ,
                "--target-dir",
            ])
            .arg(layout.target())
            .env("CUSTOM_LIBFUZZER_PATH", layout.target().join("libfuzzer.a")),
    )
}

fn lint(layout: &Layout, desktop: bool) -> Result<()> {
    let mut command = cargo(layout);
    command.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
    ]);
    if !desktop {
        command.args(["--exclude", DESKTOP]);
    }
    process::run(command.args(["--", "-D", "warnings"]))
}
