//! The desktop application, for real: its window under a display of its own, its web view driven by `WebDriver`, an
//! emulated machine behind it.

#![expect(clippy::expect_used, reason = "how a test fails")]

mod containers;
mod drag;
mod drops;
mod files;
mod lost;
mod projects;
mod registries;
#[path = "../registry/mod.rs"]
mod registry;
mod settings;
mod things;
mod tray;
mod watcher;
mod window;

use cove_tests::{
    harness::{Cove, Pace, Test, if_all, run, webdriver},
    tests,
};
use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(_) = webdriver::program() else {
        eprintln!(
            "skipped: the desktop application was not built, since WebKit is not there to build it with"
        );
        return libtest_mimic::run(&Arguments::from_args(), Vec::new()).exit_code();
    };
    // The first test is the one that starts the machine, since that is what it is about. The others make sure that it runs
    // where they need it, so that each can run by itself.
    let usual: &[Test] = &tests![
        window::first_run_starts_the_machine_and_shows_how_far_it_is,
        window::the_welcome_page_is_served_by_a_container_and_opened_in_the_browser,
        window::a_container_that_is_run_in_the_form_shows_its_log,
        window::a_terminal_in_a_container_answers,
        window::a_terminal_that_is_closed_ends_its_shell_and_what_runs_in_it,
        files::files_of_a_container_are_edited_made_and_renamed,
        files::files_of_a_container_that_never_ran_are_seen,
        window::what_another_client_does_is_seen_at_once,
        things::a_network_is_made_and_a_container_connected,
        drops::a_folder_dragged_from_another_window_is_mounted_and_read,
        settings::a_setting_is_reviewed_applied_and_put_back,
        settings::the_machines_logs_are_read,
        settings::a_shell_of_the_machine_answers,
        settings::another_machine_is_made_shown_and_deleted,
        settings::the_window_opens_with_the_session_when_asked_to,
    ];
    let slow: &[Test] = &tests![
        projects::a_compose_project_is_brought_up_edited_and_brought_down,
        things::a_volume_is_backed_up_and_restored_with_its_owners,
        things::an_image_is_named_saved_and_loaded_again,
        things::an_image_is_made_of_a_tar_file_and_those_without_a_name_are_cleared_away,
        projects::an_image_is_built_from_a_folder_and_its_build_outlives_the_window,
        window::a_container_without_a_shell_is_looked_into_from_one_beside_it,
        window::a_shell_ends_with_its_window,
        window::the_window_opens_where_and_as_large_as_it_was_when_it_was_closed,
        containers::a_container_goes_through_its_states_and_its_command_makes_another,
        containers::what_a_container_does_and_has_is_seen,
        files::files_are_copied_in_and_out_by_the_systems_dialogs,
        drops::a_folder_dragged_onto_the_window_leads_to_a_build_or_comes_up,
        drops::a_file_dragged_onto_a_containers_files_is_copied_into_the_folder_that_is_shown,
        drops::a_tar_file_dragged_onto_the_images_is_loaded,
        things::the_files_of_an_images_layers_are_seen,
        files::a_file_of_a_volume_is_edited_and_a_container_sees_it,
        registries::who_signs_in_pushes_and_pulls_and_the_docker_client_as_well,
        registries::the_machines_own_client_and_a_build_in_the_window_have_this_computers_accounts,
        settings::disk_space_of_a_deleted_volume_comes_back,
        lost::an_engine_that_stands_still_leaves_what_was_last_known_until_it_answers,
        lost::a_daemon_that_is_killed_is_told_of_until_there_is_another,
        tray::closing_the_window_leaves_it_in_the_tray_while_something_shows_icons,
        tray::a_container_is_restarted_and_stopped_from_the_trays_menu_which_quits,
        tray::a_hidden_start_is_seen_where_no_icon_can_be_made_whoever_would_show_it,
    ];
    // The last one of these stops the machine.
    let last: &[Test] = &tests![
        window::a_second_start_ends_and_leaves_the_first_window,
        window::the_page_can_call_nothing_but_what_is_listed,
        window::containers_and_machine_are_stopped_in_the_window,
    ];
    // They need a machine that is stopped, and leave it so.
    let slow_at_last: &[Test] = &tests![
        window::a_start_that_is_cancelled_leaves_the_machine_stopped,
        tray::a_start_chosen_from_the_trays_menu_is_a_task_of_the_window,
    ];
    run(
        "desktop",
        Pace::InTurn,
        |_: &Cove| {},
        &[usual, if_all(slow), last, if_all(slow_at_last)].concat(),
    )
}
