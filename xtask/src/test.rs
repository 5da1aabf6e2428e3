//! `cargo xtask test`: check, build, and every test as an ordinary user.

use crate::{
    build, check, front_end,
    layout::Layout,
    process::{note, step},
    setup::{self, DockerClient},
    suites::{self, How, Suite, Tally},
    unprivileged::Runner,
};
use anyhow::Result;
use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Suites that boot machines; the others need nothing but their executable.
const MACHINE_SUITES: [&str; 8] = [
    "nested",
    "refusals",
    "engine",
    "folders",
    "network",
    "compatibility",
    "desktop",
    "recovery",
];
const UNIT_LIMIT: Duration = Duration::from_mins(10);
const MACHINE_LIMIT: Duration = Duration::from_mins(25);
/// For the suite whose machines run within a machine.
const NESTED_LIMIT: Duration = Duration::from_mins(15);

/// Which tests to run.
#[derive(Debug)]
pub(crate) struct Selection {
    machine: bool,
    check: bool,
    long: bool,
    filter: Option<String>,
}

impl Selection {
    /// All there are.
    pub(crate) fn everything() -> Self {
        Self {
            machine: true,
            check: true,
            long: false,
            filter: None,
        }
    }

    /// All there are, and those that take minutes.
    pub(crate) fn with_what_takes_long() -> Self {
        Self {
            long: true,
            ..Self::everything()
        }
    }

    /// Those that boot nothing.
    pub(crate) fn without_machine() -> Self {
        Self {
            machine: false,
            ..Self::everything()
        }
    }

    /// Those whose names contain `filter`.
    pub(crate) fn only(filter: &str) -> Self {
        Self {
            machine: true,
            check: false,
            long: false,
            filter: Some(filter.to_owned()),
        }
    }
}

pub(crate) fn run(layout: &Layout, selection: &Selection) -> Result<ExitCode> {
    let began = Instant::now();
    step("Looking for what is needed");
    if selection.machine {
        setup::machine_tools(layout)?;
    }
    let desktop = setup::desktop_tools(layout, selection.machine)?;
    if selection.check {
        setup::rust_targets(&setup::CHECKED_TARGETS)?;
        check::everything(layout, desktop)?;
    }
    if desktop {
        step("Building the front end");
        front_end::build(layout)?;
    }
    step("Building the programs and their tests");
    let features = if selection.machine { "cove-tests/e2e" } else { "" };
    let mut suites = suites::build(layout, features, desktop)?;
    // The quick ones first, the machines last.
    suites.sort_by_key(|suite| machine_rank(suite).map_or(0, |rank| rank + 1));
    let mut environment = if selection.machine {
        prepare_machine(layout, desktop)?
    } else {
        Vec::new()
    };

    if selection.long {
        environment.push(("COVE_TEST_ALL", "1".into()));
        environment.push(("COVE_TEST_DEVCONTAINER", setup::devcontainer(layout)?));
    }

    step("Running the tests");
    let runner = Runner::prepare(layout.root())?;
    let logs = layout.target().join("e2e-logs");
    // What is left of an earlier run would only mislead.
    let _ = fs::remove_dir_all(&logs);
    runner.writable(&logs)?;
    // What cargo names to tests as CARGO_TARGET_TMPDIR.
    runner.writable(&layout.target().join("tmp"))?;
    let mut sum = Tally::default();
    let mut failed = Vec::new();
    for suite in &suites {
        let boots = machine_rank(suite).is_some();
        let tally = suites::run(
            suite,
            &How {
                runner: &runner,
                environment: &environment,
                arguments: selection.filter.as_slice(),
                live: boots,
                limit: limit(suite),
            },
        )?;
        if tally.failed > 0 {
            failed.push(suite.title());
        }
        sum.add(tally);
    }
    println!();
    note(&format!("took {} min", began.elapsed().as_secs().div_ceil(60)));
    if !failed.is_empty() {
        note(&format!(
            "failed: {}; logs of machines: {}",
            failed.join(", "),
            logs.display()
        ));
    }
    println!(
        "{} passed, {} failed, {} skipped",
        sum.passed, sum.failed, sum.skipped
    );
    Ok(if sum.failed == 0 && sum.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A suite that takes longer is killed.
fn limit(suite: &Suite) -> Duration {
    match machine_rank(suite) {
        Some(_) if suite.name == "nested" => NESTED_LIMIT,
        Some(_) => MACHINE_LIMIT,
        None => UNIT_LIMIT,
    }
}

fn machine_rank(suite: &Suite) -> Option<usize> {
    MACHINE_SUITES.iter().position(|name| *name == suite.name)
}

/// Builds what a machine is made of; the variables tell the suites where it is.
fn prepare_machine(layout: &Layout, desktop: bool) -> Result<Vec<(&'static str, PathBuf)>> {
    let programs = build::Programs {
        cove: layout.cove(),
        agent: build::agent(layout)?,
    };
    build::image(layout, &programs, false)?;
    build::container_programs(layout)?;
    let docker = DockerClient::with_plugins(layout)?;
    let mut environment = vec![
        ("COVE_TEST_PROGRAM", programs.cove),
        ("COVE_TEST_IMAGE", layout.image()),
        ("COVE_TEST_DOCKER", docker.program),
        ("COVE_TEST_REGISTRY", setup::registry(layout)?),
        ("COVE_TEST_POSIX", layout.container_program("cove-posix")),
        ("COVE_TEST_VOLUMES", layout.container_program("cove-volumes")),
        ("COVE_TEST_REAPER", layout.container_program("cove-reaper")),
        ("COVE_TEST_FOREIGN", setup::foreign_programs(layout)?),
        ("COVE_TEST_PYTHON", setup::python_clients(layout)?),
        ("COVE_TEST_LOGS", layout.target().join("e2e-logs")),
    ];
    if desktop {
        environment.push(("COVE_TEST_DESKTOP", layout.desktop()));
    }
    if let Some(plugins) = docker.plugins {
        environment.push(("COVE_TEST_PLUGINS", plugins));
    }
    Ok(environment)
}
