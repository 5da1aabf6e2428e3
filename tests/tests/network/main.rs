//! What containers and this computer can reach of each other.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

mod published;

use cove_tests::{harness, tests};
use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run(
        "network",
        harness::Pace::InTurn,
        harness::Cove::start,
        &tests![
            published::a_published_port_answers_as_soon_as_run_returns,
            published::a_port_of_the_engines_choice_is_known_at_once,
            published::a_port_in_use_fails_run_in_the_engines_words,
            published::a_port_vanishes_with_its_container,
            published::datagrams_reach_a_container_and_come_back,
            published::half_close_and_much_data_pass_unharmed,
            published::ports_survive_a_daemon_that_is_killed,
        ],
    )
}
