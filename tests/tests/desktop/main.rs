//! The desktop application, for real: its window under a display of its own, its web view driven by `WebDriver`, an
//! emulated machine behind it.

#![expect(clippy::expect_used, clippy::panic, reason = "how a test fails")]

mod webdriver;
mod window;

use cove_tests::{
    harness::{Cove, Pace, run},
    tests,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(_) = webdriver::program() else {
        eprintln!(
            "skipped: the desktop application was not built, since WebKit is not there to build it with"
        );
        return ExitCode::SUCCESS;
    };
    // The first test is the one that starts the machine, since that is what it is about.
    run(
        "desktop",
        Pace::InTurn,
        |_: &Cove| {},
        &tests![
            window::a1_first_run_starts_the_machine_and_shows_how_far_it_is,
            window::a2_a_container_that_is_run_in_the_form_shows_its_log,
            window::a3_a_terminal_in_a_container_answers,
            window::a4_what_another_client_does_is_seen_at_once,
            window::a5_a_second_start_ends_and_leaves_the_first_window,
            window::a6_the_page_can_call_nothing_but_what_is_listed,
            window::a7_containers_and_machine_are_stopped_in_the_window,
        ],
    )
}
