//! What containers and this computer can reach of each other.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

mod by_name;
mod drivers;
mod elsewhere;
mod explain;
mod outbound;
mod peer;
mod proxies;
mod published;
mod streams;

use cove_tests::{harness, tests};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(elsewhere::ROLE) {
        return elsewhere::serve(&role);
    }
    let usual: &[harness::Test] = &tests![
        published::a_published_port_answers_as_soon_as_run_returns,
        published::a_port_of_the_engines_choice_is_known_at_once,
        published::a_port_in_use_fails_run_in_the_engines_words,
        published::a_port_vanishes_with_its_container,
        published::datagrams_reach_a_container_and_come_back,
        published::half_close_and_much_data_pass_unharmed,
        published::a_container_reaches_anothers_port_by_its_own_networks_gateway,
        published::ports_survive_a_daemon_that_is_killed,
        published::published_ports_are_listed_with_their_containers,
        streams::a_reset_on_one_side_is_a_reset_on_the_other_and_an_end_an_end,
        streams::slow_readers_hold_back_whoever_sends_and_get_every_byte,
        streams::ipv6_carries_streams_and_datagrams_and_clients_have_the_gateways_address,
        streams::datagrams_of_every_size_come_back,
        streams::short_connections_are_answered_every_one,
        streams::a_thousand_connections_are_served_at_once,
        by_name::a_container_is_reached_by_its_name_without_a_published_port,
        outbound::a_container_reaches_the_hosts_loopback_by_name,
        outbound::the_way_out_comes_back_when_its_program_is_killed,
        elsewhere::a_computer_with_a_network_and_names_of_its_own_lends_them_to_containers,
    ];
    // The last of them restart the machine.
    let slow: &[harness::Test] = &tests![
        published::a_port_that_was_taken_while_the_daemon_was_away_is_listed_so_and_comes_back,
        explain::every_hop_at_which_a_way_can_stop_is_found,
        published::ports_go_and_come_with_an_engine_that_crashes,
        streams::an_engine_that_crashes_under_load_damages_nothing_and_serves_on,
        streams::datagrams_for_a_machine_that_stands_still_cost_the_daemon_little,
        outbound::large_transfers_arrive_whole_in_both_directions,
        outbound::containers_on_a_network_of_their_own_find_each_other_by_name,
        outbound::datagrams_of_a_container_reach_the_host_and_come_back,
        drivers::containers_on_a_macvlan_network_hear_each_other,
        drivers::containers_on_an_ipvlan_network_hear_each_other,
        drivers::a_swarm_of_one_serves_from_an_overlay_network,
        drivers::a_network_with_ipv6_has_a_way_out_and_an_internal_one_has_none,
        outbound::a_name_that_only_the_hosts_file_knows_is_known_to_containers,
        published::ranges_of_ports_and_all_that_are_exposed_are_published,
        proxies::containers_get_this_computers_proxies_where_that_is_wanted,
        elsewhere::a_computer_without_passt_lacks_the_way_out_alone_until_it_is_installed,
        published::a_hundred_containers_in_a_row_answer_at_once,
        drivers::a_service_is_updated_without_a_failed_request_through_its_port,
        streams::ten_thousand_short_connections_are_answered,
        published::ports_come_back_when_the_machine_restarts,
        drivers::a_swarm_keeps_its_node_and_its_overlay_network_when_the_machine_restarts,
        proxies::builds_get_this_computers_proxies_and_what_they_build_does_not,
        proxies::the_engine_reaches_registries_through_a_proxy_on_loopback,
    ];
    harness::run(
        "network",
        harness::Pace::InTurn,
        harness::Cove::start,
        &[usual, harness::if_all(slow)].concat(),
    )
}
