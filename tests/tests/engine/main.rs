//! Everything that a Docker client and the command do with a machine that is well: one machine for all of it.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

mod builds;
mod checkout;
mod command;
mod containers;
mod images;
mod machine;
mod streams;

use cove_tests::{harness, tests};
use std::process::ExitCode;

fn main() -> ExitCode {
    let usual: &[harness::Test] = &tests![
        machine::status_says_what_runs_and_why,
        machine::timings_tell_every_stage_of_the_boot,
        machine::doctor_finds_nothing_broken,
        machine::programs_of_other_processors_cost_nothing_unless_asked_for,
        machine::the_guest_is_laid_out_for_containers,
        machine::containerd_loads_what_the_engine_needs_alone,
        machine::a_larger_disk_is_had_by_the_machine_that_runs,
        machine::sockets_are_for_their_owner_alone,
        containers::docker_host_of_cove_env_reaches_alpine,
        containers::the_docker_context_cove_reaches_alpine,
        containers::the_exit_code_of_a_container_is_passed_on,
        containers::a_container_can_be_stopped_killed_paused_and_removed,
        containers::exec_runs_beside_the_main_process,
        containers::a_volume_outlives_its_container,
        containers::containers_of_a_network_find_each_other_by_name,
        containers::binding_a_folder_that_is_not_shared_is_refused_with_the_command_that_shares_it,
        streams::run_passes_input_on_and_ends_with_it,
        streams::attach_delivers_output_after_the_input_was_half_closed,
        streams::exec_over_an_upgraded_connection_keeps_half_close,
        streams::logs_follow_line_by_line_and_end_with_the_container,
        streams::two_hundred_connections_are_served_at_once,
        streams::a_client_that_goes_away_leaves_the_others_alone,
        builds::a_multi_stage_dockerfile_builds_with_buildkit,
        builds::compose_brings_services_up_and_down,
        images::a_gibibyte_is_loaded_and_saved_whole,
        command::exec_keeps_streams_code_environment_and_directory_apart,
        command::exec_ends_with_its_input,
        command::exec_is_interrupted_though_its_input_is_not_read,
        command::two_hundred_programs_leave_nothing_behind,
        command::a_shell_has_a_terminal_of_our_size,
        command::cove_docker_is_the_guests_own_client,
        command::every_log_can_be_read,
        command::a_forwarded_port_reaches_a_container,
        command::a_setting_is_validated_and_kept,
        command::editing_the_settings_validates_before_it_replaces,
        command::a_machine_is_created_listed_and_deleted_only_when_confirmed,
    ];
    let slow: &[harness::Test] = &tests![
        images::images_packed_by_gzip_and_by_xz_are_loaded,
        checkout::run_shows_a_page_out_of_a_container_and_leads_a_shell_to_its_machine,
    ];
    harness::run(
        "engine",
        harness::Pace::Together,
        harness::Cove::start,
        &[usual, harness::if_all(slow)].concat(),
    )
}
