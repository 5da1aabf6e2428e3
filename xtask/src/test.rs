//! `cargo xtask test`: check, build, and every test as an ordinary user.

use crate::{
    build, check, deb, front_end,
    layout::{Layout, Profile},
    process::{note, step, steps},
    setup::{self, DockerClient},
    space,
    suites::{self, How, Outcome, Suite, Tally},
    unprivileged::Runner,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    env, fs,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Suites that boot machines, one after the other in each lane; the others need nothing but their executable, and go
/// before those of the second lane. Two machines at a time are what two processors bear: those of the first lane keep
/// more than one busy.
const LANES: [&[&str]; 2] = [
    &["compatibility", "engine", "recovery", "folders"],
    &["nested", "refusals", "package", "desktop", "network"],
];
/// Suites of the file server that mount it in this computer's own kernel.
const MOUNTING: [&str; 3] = ["conformance", "events", "stress"];
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

    /// Those whose names contain `filter`, and all of the suite that is called so.
    pub(crate) fn only(filter: &str) -> Self {
        Self {
            machine: true,
            check: false,
            long: false,
            filter: Some(filter.to_owned()),
        }
    }

    /// What chooses among the tests of a suite: nothing where the suite itself was asked for.
    fn filter_within(&self, suite: &Suite) -> &[String] {
        match self.filter.as_slice() {
            [filter] if *filter == suite.name => &[],
            filter => filter,
        }
    }

    /// The same among those that take minutes as well.
    pub(crate) fn only_with_what_takes_long(filter: &str) -> Self {
        Self {
            long: true,
            ..Self::only(filter)
        }
    }
}

pub(crate) fn run(layout: &Layout, selection: &Selection) -> Result<ExitCode> {
    let began = Instant::now();
    step("Looking for what is needed");
    if selection.long {
        // Besides the window: vite and the dev container command, which are tried with Cove.
        ensure!(
            front_end::is_possible(),
            "what takes long needs {}; without --all the rest is tested",
            front_end::NEEDS
        );
    }
    if selection.machine {
        setup::machine_tools(layout)?;
        setup::suite_tools(layout, selection.long)?;
    }
    let desktop = setup::desktop_tools(layout, selection.machine)?;
    let package = selection.machine && desktop && setup::package_tools(layout)?;
    if selection.check {
        check::prepare()?;
        check::everything(layout, desktop)?;
    }
    let in_browser = selection.long && selection.filter.is_none();
    // The browser needs its pages although nothing else here can make a window of them.
    if desktop || in_browser {
        step("Building the front end");
        front_end::build(layout)?;
    }
    let in_browser = in_browser
        .then(|| front_end::try_in_browser(layout))
        .transpose()?;
    step("Building the programs and their tests");
    let features = if selection.machine { "cove-tests/e2e" } else { "" };
    let suites = suites::build(layout, features, desktop)?;
    let environment = environment(layout, selection, desktop, package)?;

    step("Running the tests");
    let logs = layout.target().join("e2e-logs");
    let space = space::Watch::begin(layout.target());
    let mut report = Report::default();
    if let Some(outcome) = in_browser {
        report.add(front_end::IN_BROWSER.to_owned(), outcome);
    }
    for (title, outcome) in run_suites(layout, selection, suites, &environment, &logs)? {
        report.add(title, outcome?);
    }
    report.print(began.elapsed(), &space.end(), &logs);
    Ok(if report.sum.failed == 0 && report.sum.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Makes what the suites need besides their programs; the variables tell them where it is.
fn environment(
    layout: &Layout,
    selection: &Selection,
    desktop: bool,
    package: bool,
) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut environment = if selection.machine {
        prepare_machine(layout, desktop)?
    } else {
        Vec::new()
    };
    if package {
        let package = deb::pack(layout, Profile::Dev)?;
        let root = setup::clean_root(layout, &package, selection.long)?;
        environment.push(("COVE_TEST_CLEAN_ROOT", root));
        environment.push(("COVE_TEST_PACKAGE", package));
    }
    if selection.long {
        environment.push(("COVE_TEST_ALL", "1".into()));
        environment.push(("COVE_TEST_CREDENTIALS", setup::credential_helper(layout)?));
        environment.push(("COVE_TEST_FOREIGN", setup::foreign_programs(layout)?));
        environment.push(("COVE_TEST_PYTHON", setup::python_clients(layout)?));
        environment.push(("COVE_TEST_DEVCONTAINER", setup::devcontainer(layout)?));
        environment.push(("COVE_TEST_MARIADB", setup::mariadb(layout)?));
        environment.push(("COVE_TEST_NGINX", setup::nginx(layout)?));
        environment.push(("COVE_TEST_POSTGRES", setup::postgres(layout)?));
        environment.push(("COVE_TEST_REDIS", setup::redis(layout)?));
        environment.push(("COVE_TEST_VITE", setup::vite(layout)?));
    }
    Ok(environment)
}

/// Runs all suites to their ends, whatever becomes of each, as an ordinary user.
fn run_suites(
    layout: &Layout,
    selection: &Selection,
    suites: Vec<Suite>,
    environment: &[(&'static str, PathBuf)],
    logs: &Path,
) -> Result<Vec<(String, Result<Outcome>)>> {
    let runner = Runner::prepare(layout.root())?;
    // What is left of an earlier run would only mislead.
    let _ = fs::remove_dir_all(logs);
    runner.writable(logs)?;
    runner.writable(&layout.scratch())?;
    let run = |suite: &Suite| {
        suites::run(
            suite,
            &How {
                runner: &runner,
                environment,
                arguments: selection.filter_within(suite),
                live: machine_rank(suite).is_some(),
                limit: limit(suite, selection.long),
                mounts: selection.long && mounts(suite),
            },
        )
    };
    let run_all = |lane: Vec<Suite>| -> Vec<_> {
        lane.into_iter()
            .map(|suite| (suite.title(), run(&suite)))
            .collect()
    };
    let outcomes = thread::scope(|scope| {
        let lanes = in_lanes(suites).map(|lane| scope.spawn(|| run_all(lane)));
        lanes.map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    Ok(outcomes.into_iter().flatten().collect())
}

/// What the suites came to.
#[derive(Default)]
struct Report {
    sum: Tally,
    /// Those in which a test failed, by their titles, and what they say of it.
    failed: Vec<(String, String)>,
}

impl Report {
    fn add(&mut self, title: String, Outcome { tally, account }: Outcome) {
        if tally.failed > 0 {
            self.failed.push((title, account));
        }
        self.sum.add(tally);
    }

    /// Prints what took how long, what failed and why, the `space` that was left, and the sum.
    fn print(&self, took: Duration, space: &str, logs: &Path) {
        println!();
        note(&format!("took {} min, of which", took.as_secs().div_ceil(60)));
        for (step, spent) in steps() {
            note(&format!("{:>6} s  {step}", spent.as_secs()));
        }
        // Once more at the end, where it is found.
        for (title, account) in &self.failed {
            println!("\n{title} failed:\n{account}");
        }
        println!();
        note(&format!("the least that was free: {space}"));
        if !self.failed.is_empty() {
            let titles: Vec<&str> = self.failed.iter().map(|(title, _)| title.as_str()).collect();
            note(&format!(
                "failed: {}; logs of machines: {}",
                titles.join(", "),
                logs.display()
            ));
        }
        let Tally {
            passed,
            failed,
            skipped,
        } = self.sum;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
    }
}

/// A suite that takes longer is killed; with tests that take minutes it has four times as long.
fn limit(suite: &Suite, long: bool) -> Duration {
    let limit = match machine_rank(suite) {
        Some(_) if suite.name == "nested" => NESTED_LIMIT,
        Some(_) => MACHINE_LIMIT,
        None => UNIT_LIMIT,
    };
    if long { 4 * limit } else { limit }
}

/// Whether a suite mounts the file server here, and this computer can.
fn mounts(suite: &Suite) -> bool {
    suite.package == "cove-fs" && MOUNTING.contains(&suite.name.as_str()) && Path::new("/dev/fuse").exists()
}

/// The lane of a suite that boots machines, and its place in it.
fn machine_rank(suite: &Suite) -> Option<(usize, usize)> {
    LANES.iter().enumerate().find_map(|(lane, names)| {
        let place = names.iter().position(|name| *name == suite.name)?;
        Some((lane, place))
    })
}

/// The suites in the order in which they run.
fn in_lanes(mut suites: Vec<Suite>) -> [Vec<Suite>; LANES.len()] {
    suites.sort_by_key(|suite| machine_rank(suite).map(|(_, place)| place));
    let (first, second) = suites
        .into_iter()
        .partition(|suite| machine_rank(suite).is_some_and(|(lane, _)| lane == 0));
    [first, second]
}

/// Builds what a machine is made of; the variables tell the suites where it is.
fn prepare_machine(layout: &Layout, desktop: bool) -> Result<Vec<(&'static str, PathBuf)>> {
    let programs = build::Programs {
        cove: layout.cove(Profile::Dev),
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
        ("COVE_TEST_PEER", layout.container_program("cove-peer")),
        (
            "COVE_TEST_XTASK",
            env::current_exe().context("cannot tell where this program is")?,
        ),
        ("COVE_TEST_LOGS", layout.target().join("e2e-logs")),
    ];
    if desktop {
        environment.push(("COVE_TEST_DESKTOP", layout.desktop(Profile::Dev)));
    }
    if let Some(plugins) = docker.plugins {
        environment.push(("COVE_TEST_PLUGINS", plugins));
    }
    Ok(environment)
}
