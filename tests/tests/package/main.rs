//! The Debian package, in clean roots: a Debian on which nothing is installed but what apt itself needs, in namespaces
//! that an ordinary user makes. Skipped, with the reason shown, where no package could be made or users may make no
//! namespaces.
//!
//! `usual` installs it without the libraries of the window, which fill half a gigabyte, and looks at everything that
//! does without them. `whole` has apt install all of it, boots a machine there and opens the window; it takes minutes.

#![expect(clippy::expect_used, clippy::panic, reason = "how a test fails")]

mod root;
mod usual;
mod whole;

use cove_tests::{
    harness::{self, Times, words_of},
    tests,
};
use libtest_mimic::{Arguments, Trial};
use root::{Kit, Root};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Arc, OnceLock},
};

type Test = (&'static str, fn(&Root));

/// In this order, each on what the one before it left.
const USUAL: &[Test] = &tests![Root =>
    usual::apt_finds_everything_that_it_needs,
    usual::it_installs_files_of_root_alone,
    usual::menu_shells_and_manual_know_it,
    usual::a_session_that_ends_leaves_machines_the_time_to_stop,
    usual::a_person_has_the_installed_image,
    usual::an_upgrade_leaves_the_daemon_alone,
    usual::removal_ends_the_daemon_and_leaves_only_the_persons_files,
];

const WHOLE: &[Test] = &tests![Root =>
    whole::apt_installs_it_with_everything,
    whole::a_person_runs_a_container,
    whole::an_upgrade_leaves_the_machine_running,
    whole::the_window_opens,
    whole::removal_stops_a_machine_without_a_daemon_and_keeps_its_disk,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let Some(kit) = Kit::from_env() else {
        eprintln!("skipped: no package was made, since this is no Debian or WebKit is not there");
        return libtest_mimic::run(&arguments, Vec::new()).exit_code();
    };
    let times = Arc::new(Times::default());
    let mut trials = of_a_root(&kit, USUAL, &times);
    if harness::all() {
        trials.extend(of_a_root(&kit, WHOLE, &times));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    times.print_slowest();
    conclusion.exit_code()
}

/// Tests that share a root, which is made for the first that runs.
fn of_a_root(kit: &Kit, tests: &[Test], times: &Arc<Times>) -> Vec<Trial> {
    let unfit = Root::unfit();
    if let Some(why) = &unfit {
        eprintln!("skipped: {why}");
    }
    let root = Arc::new(OnceLock::new());
    let trials = tests.iter().map(|&(name, body)| {
        let (kit, root, times) = (kit.clone(), Arc::clone(&root), Arc::clone(times));
        Trial::test(name, move || {
            let made =
                || catch_unwind(AssertUnwindSafe(|| Root::new(&kit))).map_err(|panic| words_of(&*panic));
            let root = root.get_or_init(made).as_ref().map_err(String::as_str)?;
            let outcome = times.measure(name, || catch_unwind(AssertUnwindSafe(|| body(root))));
            Ok(outcome.map_err(|panic| words_of(&*panic))?)
        })
        .with_ignored_flag(unfit.is_some())
    });
    trials.collect()
}
