//! The project's own commands: `cargo xtask run · test · bench · check · deb · docs · image`.
//!
//! Each does all its own set-up, says what it installs, and does nothing twice: a second run finds everything in place.
//!
//! ```text
//!  setup ──▶ build (cove, agent) ──▶ image ──▶ run:   start, welcome page
//!    │                                   └───▶ test:  suites, as an ordinary user
//!    └─────▶ check: fmt, clippy, other targets, fuzz programs, licences, spelling, unused dependencies
//! ```

mod bench;
mod build;
mod check;
mod deb;
mod front_end;
mod layout;
mod process;
mod run;
mod setup;
mod space;
mod suites;
mod test;
mod unprivileged;

use anyhow::{Result, bail};
use layout::{Layout, Profile};
use std::process::ExitCode;

const HELP: &str = "\
The project's own commands

Usage: cargo xtask COMMAND [OPTIONS]

  run [--once] [--built]   install what is missing, build, boot the machine, serve a page from a container,
                           open the window where there is a display
                           --once: open no window · --built: install and build nothing, run what an earlier
                           run or test has built
  test [--fast|--all] [FILTER]
                           check, build, then every test as an ordinary user
                           --fast: no machine is booted · --all: what takes minutes as well, and every
                           screen in a browser
                           FILTER: only tests whose names contain it, and all of the suite of that name,
                           without check
  bench boot|events|fs|net|ui|vmm|vsock
                           measure; a table here, JSON below target/bench
  bench all                measure all of these, one after the other, then `bench page`
  bench page               write docs/measurements.md from that JSON
  check                    formatting, lints, other targets, fuzz programs, licences, spelling, unused dependencies
  deb [--debug]            build the Debian package below target/deb
                           --debug: of the programs that the tests are run with, which is quicker
  docs                     write the pages below docs that are made from the tests
  image [--refresh]        build the guest image below target/image
                           --refresh: look for newer packages
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> Result<ExitCode> {
    let layout = Layout::find()?;
    match words {
        ["run", options @ ..] if options.iter().all(|option| run::OPTIONS.contains(option)) => {
            run::run(&layout, options)
        }
        ["test"] => test::run(&layout, &test::Selection::everything()),
        ["test", "--all"] => {
            let outcome = test::run(&layout, &test::Selection::with_what_takes_long())?;
            // The page says what was just proven.
            if outcome == ExitCode::SUCCESS {
                docs(&layout)?;
            }
            Ok(outcome)
        }
        ["test", "--fast"] => test::run(&layout, &test::Selection::without_machine()),
        ["test", "--all", filter] => test::run(&layout, &test::Selection::only_with_what_takes_long(filter)),
        ["test", filter] if !filter.starts_with('-') => test::run(&layout, &test::Selection::only(filter)),
        ["bench", "all"] => bench::all(&layout),
        ["bench", "page"] => bench::page(&layout),
        ["bench", what] if bench::ALL.contains(what) => bench::run(&layout, what),
        ["check"] => {
            check::prepare()?;
            let desktop = setup::desktop_tools(&layout, false)?;
            check::everything(&layout, desktop)?;
            println!("\neverything checked");
            Ok(ExitCode::SUCCESS)
        }
        ["deb"] => deb::run(&layout, Profile::Release),
        ["deb", "--debug"] => deb::run(&layout, Profile::Dev),
        ["docs"] => docs(&layout),
        ["image"] => image(&layout, false),
        ["image", "--refresh"] => image(&layout, true),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("`cargo xtask {}` is no command\n\n{HELP}", words.join(" ")),
    }
}

/// Has the suite that owns docs/compatibility.md write it.
fn docs(layout: &Layout) -> Result<ExitCode> {
    let suites = suites::build(layout, "cove-tests/e2e", false)?;
    let Some(suite) = suites.iter().find(|suite| suite.name == "compatibility") else {
        bail!("the suite `compatibility` is gone");
    };
    process::run(std::process::Command::new(&suite.executable).env("COVE_WRITE_DOCS", "1"))?;
    Ok(ExitCode::SUCCESS)
}

fn image(layout: &Layout, refresh: bool) -> Result<ExitCode> {
    setup::image_tools(layout)?;
    let programs = build::programs(layout, Profile::Dev, false)?;
    build::image(layout, &programs, refresh)?;
    println!("{}", layout.image().display());
    Ok(ExitCode::SUCCESS)
}
