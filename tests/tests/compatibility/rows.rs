//! The rows of the table: what Docker can do, by area, and what proves it.

use crate::{
    builds, client, compose, containers, developers, images, limits, networks, plugins, processors,
    registries, services, settings, storage,
    table::{Area, elsewhere, extended, row, unproven},
};
use cove_tests::tests;

const CLI: &str = "docker";
const API: &str = "docker, HTTP on the socket";
const COMPOSE: &str = "docker compose";

/// All of them, in the page's order.
pub(crate) fn areas() -> Vec<Area> {
    vec![
        of_client_and_daemon(),
        of_images(),
        of_builds(),
        of_registries(),
        of_containers(),
        of_storage(),
        of_networks(),
        of_services(),
        of_compose(),
        of_developer_tools(),
        of_other_processors(),
        of_the_engines_settings(),
    ]
}

fn of_client_and_daemon() -> Area {
    Area {
        title: "Client and daemon",
        rows: vec![
            row(
                "version negotiation, old and future clients",
                API,
                tests![client::client_and_engine_agree_on_a_version],
            ),
            row(
                "ping with its headers",
                "curl",
                tests![client::ping_says_what_the_engine_is],
            ),
            row(
                "errors passed through unchanged",
                API,
                tests![client::errors_of_the_engine_arrive_unchanged],
            ),
            row("info", CLI, tests![client::info_describes_a_whole_engine]),
            row(
                "events of containers, images, volumes, networks",
                CLI,
                tests![client::events_are_told_as_they_happen],
            ),
            row(
                "system df and prune",
                CLI,
                tests![client::disk_use_is_told_and_reclaimed],
            ),
            row(
                "the API from end to end, without a Docker client",
                "curl",
                tests![client::curl_does_the_whole_round],
            ),
            row(
                "attach by websocket",
                "a client of the suite's own (RFC 6455)",
                tests![client::a_websocket_attaches_to_a_container],
            ),
            elsewhere(
                "contexts, `DOCKER_HOST`",
                CLI,
                "engine",
                &[
                    "containers::docker_host_of_cove_env_reaches_alpine",
                    "containers::the_docker_context_cove_reaches_alpine",
                ],
            ),
            elsewhere(
                "hijacked streams with half-close, 200 connections at once",
                API,
                "engine",
                &[
                    "streams::run_passes_input_on_and_ends_with_it",
                    "streams::attach_delivers_output_after_the_input_was_half_closed",
                    "streams::exec_over_an_upgraded_connection_keeps_half_close",
                    "streams::logs_follow_line_by_line_and_end_with_the_container",
                    "streams::two_hundred_connections_are_served_at_once",
                ],
            ),
        ],
    }
}

fn of_images() -> Area {
    Area {
        title: "Images",
        rows: vec![
            row(
                "a change is copied, the layer below stays",
                CLI,
                tests![containers::a_change_is_copied_and_the_layer_below_stays],
            ),
            extended(
                "layers are shared between images",
                CLI,
                tests![images::layers_are_shared_between_images],
            ),
            row(
                "history, inspect, filters",
                CLI,
                tests![images::history_and_inspect_tell_how_an_image_was_made],
            ),
            extended(
                "tag and remove",
                CLI,
                tests![images::tags_name_an_image_and_the_last_one_takes_it_along],
            ),
            row("commit", CLI, tests![images::a_container_becomes_an_image]),
            extended(
                "save and load",
                CLI,
                tests![images::save_and_load_keep_every_layer_and_tag],
            ),
            extended(
                "export and import",
                CLI,
                tests![images::export_and_import_flatten_a_container],
            ),
            extended(
                "prune",
                CLI,
                tests![images::dangling_images_are_pruned_and_no_others],
            ),
            elsewhere(
                "an image larger than memory, in and out",
                CLI,
                "engine",
                &["images::a_gibibyte_is_loaded_and_saved_whole"],
            ),
        ],
    }
}

fn of_builds() -> Area {
    Area {
        title: "Builds",
        rows: vec![
            row(
                "classic builder, build arguments",
                CLI,
                tests![builds::the_classic_builder_builds],
            ),
            extended(
                "stages, targets, build arguments",
                CLI,
                tests![builds::only_the_stage_that_was_asked_for_is_built],
            ),
            extended(
                ".dockerignore, with either builder",
                CLI,
                tests![builds::what_dockerignore_names_is_not_sent],
            ),
            extended(
                "cache mounts",
                CLI,
                tests![builds::a_cache_mount_lasts_from_build_to_build],
            ),
            extended(
                "secrets",
                CLI,
                tests![builds::a_secret_is_seen_by_its_step_and_kept_in_no_layer],
            ),
            extended(
                "the host's ssh agent",
                CLI,
                tests![builds::the_hosts_ssh_agent_is_forwarded_into_a_step],
            ),
            extended(
                "context from standard input, as an archive and by HTTP, by either builder",
                CLI,
                tests![builds::a_context_comes_from_standard_input_or_an_archive],
            ),
            extended(
                "context from git, with submodules, by either builder",
                CLI,
                tests![builds::a_context_comes_from_a_git_repository],
            ),
            extended(
                "result as files on the host",
                CLI,
                tests![builds::the_result_may_be_files_on_this_computer],
            ),
            extended(
                "cache export with the image",
                CLI,
                tests![builds::a_cache_travels_with_its_image],
            ),
            extended(
                "cache export to a registry, inside the image (`type=inline`), and the cache from there when nothing \
                     of it is left in the machine",
                CLI,
                tests![builds::a_cache_comes_back_from_a_registry],
            ),
            extended(
                "cache export elsewhere (`type=registry`, `type=local`): refused with the engine's usual store of \
                     images, as buildx says; containerd's has it, below",
                CLI,
                tests![builds::a_cache_apart_from_its_image_takes_containerds_store],
            ),
            extended(
                "a context of 1 GiB, with either builder",
                CLI,
                tests![builds::a_context_of_a_gibibyte_is_sent],
            ),
            unproven(
                "a builder of buildx's own, in a container",
                "Its image, `moby/buildkit`, is to be had from a registry only; the rows above use the builders \
                     of the engine",
                "`docker buildx create --use` and a build where there is a way out",
            ),
        ],
    }
}

fn of_registries() -> Area {
    Area {
        title: "Registries: login, push and pull",
        rows: vec![
            extended(
                "a private one with TLS by an authority of one's own and a password; unknown authority, wrong password",
                CLI,
                tests![registries::a_private_registry_is_trusted_by_its_authority_and_wants_the_password],
            ),
            row(
                "a file that is no authority is not trusted",
                CLI,
                tests![registries::what_is_no_authority_is_not_trusted],
            ),
            extended(
                "what is trusted outlives the machine",
                CLI,
                tests![registries::what_is_trusted_is_trusted_after_a_restart],
            ),
            extended(
                "insecure registries and mirrors, by setting",
                CLI,
                tests![registries::an_insecure_registry_is_used_and_a_mirror_is_asked_first],
            ),
            row(
                "credential helpers, by one of the suite's own",
                CLI,
                tests![registries::passwords_are_left_to_a_credential_helper],
            ),
            extended(
                "a credential helper that people have: `docker-credential-pass`, with `pass` and GnuPG",
                CLI,
                tests![registries::passwords_are_left_to_pass],
            ),
            extended(
                "images for several processors under one name",
                "docker, docker buildx",
                tests![registries::one_name_has_an_image_for_each_processor],
            ),
            extended(
                "a registry in a container, by the name `localhost:PORT`",
                CLI,
                tests![registries::a_registry_in_a_container_is_localhost_to_the_engine],
            ),
            unproven(
                "Docker Hub",
                "The tests ask nobody outside the computer that they run on",
                "`docker pull` where there is a way out",
            ),
        ],
    }
}

fn of_containers() -> Area {
    Area {
        title: "Containers",
        rows: vec![
            extended(
                "created, running, paused, stopped, killed, removed, and every edge between",
                CLI,
                tests![containers::every_action_does_in_every_state_what_it_should],
            ),
            elsewhere(
                "the usual life: run, pause, stop, start, kill, remove",
                CLI,
                "engine",
                &["containers::a_container_can_be_stopped_killed_paused_and_removed"],
            ),
            extended(
                "restart policies: `no`, `on-failure`, `always`, `unless-stopped`",
                CLI,
                tests![containers::a_restart_policy_is_heeded_as_often_as_it_says],
            ),
            elsewhere(
                "restart policies and data over a restart of the machine",
                CLI,
                "recovery",
                &["recovery::data_survives_an_orderly_restart"],
            ),
            extended(
                "health checks",
                CLI,
                tests![containers::a_health_check_tells_well_from_unwell],
            ),
            extended(
                "init, signals, stop signals, exit codes",
                CLI,
                tests![
                    containers::init_reaps_and_passes_signals_on,
                    containers::signals_arrive_as_they_were_sent,
                    containers::exit_codes_say_whose_fault_it_was
                ],
            ),
            extended(
                "terminals, standard input, attach, wait",
                CLI,
                tests![
                    containers::a_terminal_is_one_and_a_pipe_is_none,
                    containers::attach_follows_and_wait_answers_with_the_code
                ],
            ),
            extended(
                "exec",
                CLI,
                tests![containers::exec_joins_a_container_as_it_is_told],
            ),
            row(
                "cp and diff",
                CLI,
                tests![
                    containers::files_are_copied_in_and_out,
                    containers::a_change_is_copied_and_the_layer_below_stays
                ],
            ),
            extended(
                "top, stats, rename, update",
                CLI,
                tests![containers::what_runs_can_be_looked_at],
            ),
            row(
                "logs",
                CLI,
                tests![containers::logs_are_kept_apart_by_stream_and_found_by_time],
            ),
            extended(
                "limits of memory, processors, processes, block I/O",
                CLI,
                tests![
                    limits::memory_beyond_the_limit_is_not_had,
                    limits::processor_time_is_rationed,
                    limits::processes_beyond_the_limit_do_not_start,
                    limits::block_io_is_limited_at_the_device
                ],
            ),
            extended(
                "capabilities, seccomp, privileged",
                CLI,
                tests![
                    limits::capabilities_are_what_was_asked_for,
                    limits::seccomp_filters_calls_by_profile,
                    limits::a_privileged_container_may_mount
                ],
            ),
            extended(
                "read-only root, users",
                CLI,
                tests![
                    limits::a_read_only_root_is_read_only,
                    limits::a_container_runs_as_the_user_that_it_is_told
                ],
            ),
            extended(
                "devices, sysctls, ulimits, shared memory, hosts, DNS",
                CLI,
                tests![limits::devices_sysctls_ulimits_and_shared_memory_are_set],
            ),
            extended(
                "the runtime: crun, and runc where it is asked for",
                CLI,
                tests![limits::another_runtime_runs_beside_the_usual_one],
            ),
            extended(
                "namespaces: shared ones, a container's own users",
                CLI,
                tests![
                    limits::namespaces_can_be_shared,
                    limits::a_user_namespace_can_be_made_where_the_profile_lets_it
                ],
            ),
        ],
    }
}

fn of_storage() -> Area {
    Area {
        title: "Storage",
        rows: vec![
            extended(
                "named volumes: filled from the image, shared, labelled",
                CLI,
                tests![
                    storage::an_empty_volume_is_filled_from_the_image,
                    storage::containers_share_a_volume_at_the_same_time,
                    storage::volumes_have_labels_and_are_found_by_them
                ],
            ),
            extended(
                "anonymous volumes",
                CLI,
                tests![storage::an_anonymous_volume_goes_with_its_container_if_asked],
            ),
            extended(
                "backup and restore of a volume",
                CLI,
                tests![storage::a_volume_is_backed_up_and_restored_by_tar],
            ),
            extended("tmpfs", CLI, tests![storage::a_tmpfs_has_its_size_and_forgets]),
            extended(
                "bind mounts, read-only",
                CLI,
                tests![storage::a_host_folder_is_bound_both_ways_and_read_only_if_asked],
            ),
            elsewhere(
                "bind mounts of single files, by links, of long paths",
                CLI,
                "folders",
                &[
                    "paths::odd_paths_are_mounted_or_refused_as_natively",
                    "paths::a_file_mounted_by_itself_follows_its_name",
                ],
            ),
            elsewhere(
                "owners and modes in bind mounts",
                CLI,
                "folders",
                &[
                    "promises::an_owner_that_a_container_sets_sticks_and_stays_off_the_host",
                    "habits::a_data_directory_that_is_given_away_is_accepted_by_its_new_owner",
                ],
            ),
            elsewhere(
                "databases in bind mounts: postgres, MariaDB",
                CLI,
                "folders",
                &[
                    "programs::postgres_keeps_what_it_committed_in_a_folder_through_restart_and_crash",
                    "programs::mariadb_keeps_what_it_committed_in_a_folder_when_its_container_is_killed",
                ],
            ),
            elsewhere(
                "file events in bind mounts",
                CLI,
                "folders",
                &["events::each_change_on_the_host_is_seen_by_inotify_in_a_container_once"],
            ),
            elsewhere(
                "vite in watch mode on a bind mount",
                CLI,
                "folders",
                &["programs::vite_rebuilds_when_files_are_edited_created_renamed_or_deleted_on_the_host"],
            ),
            extended(
                "propagation",
                CLI,
                tests![storage::a_mount_made_later_propagates_if_asked],
            ),
            extended(
                "volume drivers by plugin",
                CLI,
                tests![plugins::a_volume_plugin_serves_volumes_from_create_to_remove],
            ),
        ],
    }
}

fn of_networks() -> Area {
    Area {
        title: "Networks",
        rows: vec![
            row(
                "bridge, host, none",
                CLI,
                tests![
                    networks::the_default_bridge_connects_by_address,
                    networks::host_is_the_machines_own_network_and_none_is_none
                ],
            ),
            extended(
                "user-defined: names, aliases, fixed addresses",
                CLI,
                tests![networks::a_network_of_ones_own_has_names_aliases_and_fixed_addresses],
            ),
            extended(
                "internal networks",
                CLI,
                tests![networks::an_internal_network_leads_nowhere_else],
            ),
            extended("links", CLI, tests![networks::a_container_is_linked_the_old_way]),
            extended(
                "connect and disconnect",
                CLI,
                tests![networks::a_running_container_is_connected_and_disconnected],
            ),
            extended("IPv6", CLI, tests![networks::ipv6_networks_carry_ipv6]),
            extended(
                "list, inspect, prune",
                CLI,
                tests![networks::networks_are_listed_inspected_and_pruned],
            ),
            elsewhere(
                "published ports: TCP, UDP, IPv4, IPv6, ranges, a port in use, from another container",
                CLI,
                "network",
                &[
                    "published::a_published_port_answers_as_soon_as_run_returns",
                    "published::a_port_of_the_engines_choice_is_known_at_once",
                    "published::a_port_in_use_fails_run_in_the_engines_words",
                    "published::a_port_vanishes_with_its_container",
                    "published::ranges_of_ports_and_all_that_are_exposed_are_published",
                    "published::datagrams_reach_a_container_and_come_back",
                    "published::a_container_reaches_anothers_port_by_its_own_networks_gateway",
                ],
            ),
            elsewhere(
                "the way out, this computer's loopback and names",
                CLI,
                "network",
                &[
                    "outbound::a_container_reaches_the_hosts_loopback_by_name",
                    "outbound::datagrams_of_a_container_reach_the_host_and_come_back",
                    "outbound::a_name_that_only_the_hosts_file_knows_is_known_to_containers",
                    "elsewhere::a_computer_with_a_network_and_names_of_its_own_lends_them_to_containers",
                ],
            ),
            elsewhere(
                "macvlan, ipvlan, overlay, with a service's UDP port; `--opt encrypted` is accepted, and on one node \
                     nothing is encrypted",
                CLI,
                "network",
                &[
                    "drivers::containers_on_a_macvlan_network_hear_each_other",
                    "drivers::containers_on_an_ipvlan_network_hear_each_other",
                    "drivers::a_swarm_of_one_serves_from_an_overlay_network",
                ],
            ),
        ],
    }
}

fn of_services() -> Area {
    Area {
        title: "Services",
        rows: vec![
            extended(
                "replicas, rolling update, rollback, by hand and by itself",
                CLI,
                tests![
                    services::a_service_is_scaled_updated_and_rolled_back,
                    services::a_task_that_dies_is_replaced
                ],
            ),
            extended(
                "configs and secrets",
                CLI,
                tests![services::configs_and_secrets_reach_the_tasks_that_have_them],
            ),
            extended(
                "stacks, with their network, configs and secrets",
                CLI,
                tests![services::a_stack_comes_up_and_goes_as_one],
            ),
            elsewhere(
                "an update without a failed request through the published port",
                CLI,
                "network",
                &["drivers::a_service_is_updated_without_a_failed_request_through_its_port"],
            ),
            unproven(
                "several nodes, an overlay network between them, its encryption",
                "A machine is one node, and no switch leads from machine to machine yet",
                "two machines that join one swarm, and what is seen of their traffic between them",
            ),
        ],
    }
}

fn of_compose() -> Area {
    Area {
        title: "Compose",
        rows: vec![
            extended(
                "web, database and cache, by stand-ins",
                COMPOSE,
                tests![compose::a_web_application_with_its_database_and_cache],
            ),
            extended(
                "web, database and cache: PostgreSQL, migrated once it is well, and Redis, behind a page",
                COMPOSE,
                tests![compose::visits_are_counted_in_postgresql_and_cached_in_redis],
            ),
            extended(
                "profiles and health dependencies",
                COMPOSE,
                tests![compose::profiles_select_services_and_health_orders_them],
            ),
            extended(
                "build, volumes, environment files",
                COMPOSE,
                tests![compose::services_are_built_with_their_volumes],
            ),
            extended(
                "a scaled service behind a proxy, both of them nginx",
                COMPOSE,
                tests![compose::a_scaled_service_is_reached_through_a_proxy],
            ),
            extended(
                "watch mode: sync, sync and restart, rebuild",
                COMPOSE,
                tests![compose::watch_mode_carries_edits_into_the_container],
            ),
        ],
    }
}

fn of_developer_tools() -> Area {
    Area {
        title: "Developer tools",
        rows: vec![
            extended(
                "docker-py",
                "docker-py",
                tests![developers::docker_py_does_what_its_users_do],
            ),
            row(
                "bollard",
                "bollard",
                tests![developers::bollard_does_what_its_users_do],
            ),
            extended(
                "testcontainers, with a reaper",
                "testcontainers",
                tests![developers::testcontainers_start_wait_and_are_reaped],
            ),
            unproven(
                "testcontainers' own reaper, Ryuk",
                "Its image is to be had from a registry only; the reaper of the row above speaks its protocol",
                "the same test with Ryuk's own image in place of ours",
            ),
            extended(
                "Docker inside a container, through the socket",
                "docker, in a container",
                tests![developers::a_job_in_a_container_uses_docker_through_the_socket],
            ),
            extended(
                "a dev container with a feature, as editors open one",
                "devcontainer",
                tests![developers::a_dev_container_is_built_with_its_feature_and_entered],
            ),
            unproven(
                "a dev container in VS Code itself",
                "It cannot be installed where the tests run; the row above uses the command that it is made of, but \
                     for the front end of Dockerfiles, which VS Code has from a registry",
                "a folder that is opened in it",
            ),
        ],
    }
}

fn of_other_processors() -> Area {
    Area {
        title: "Other processors",
        rows: vec![
            extended(
                "images for linux/arm64 and linux/arm run and are built, by setting",
                CLI,
                tests![processors::programs_of_other_processors_run_and_are_built],
            ),
            extended(
                "switched off again: a container for linux/arm64 ends with `Exec format error`, and nothing of it is \
                     left in the machine",
                "docker, cove",
                tests![settings::containers_have_users_of_their_own_and_no_foreign_programs_by_setting],
            ),
            elsewhere(
                "no cost when it is off",
                "cove",
                "engine",
                &["machine::programs_of_other_processors_cost_nothing_unless_asked_for"],
            ),
        ],
    }
}

fn of_the_engines_settings() -> Area {
    Area {
        title: "The engine's own settings",
        rows: vec![
            extended(
                "users of containers are others outside of them (`userns-remap`)",
                CLI,
                tests![settings::containers_have_users_of_their_own_and_no_foreign_programs_by_setting],
            ),
            extended(
                "containerd's store of images: cache export to a directory and to a registry (`type=registry`, \
                     `mode=max`), from where it comes when nothing of it is left in the machine; one build for several \
                     processors",
                "docker buildx",
                tests![settings::a_cache_is_exported_and_one_build_serves_several_processors_by_setting],
            ),
        ],
    }
}
