//! The table of what works: its rows, the tests that prove them, and the page that is made of both.

use crate::{
    builds, client, compose, containers, developers, images, limits, networks, plugins, processors,
    registries, services, storage,
};
use cove_tests::{harness::Test, tests};
use std::{env, fmt::Write as _, fs, path::Path, process::ExitCode};

/// Set to have the page written instead of compared.
const WRITE: &str = "COVE_WRITE_DOCS";
/// Set to run the rows that take minutes as well.
const ALL: &str = "COVE_TEST_ALL";

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");

/// A part of Docker.
struct Area {
    title: &'static str,
    rows: Vec<Row>,
}

/// What a person would look for.
struct Row {
    what: &'static str,
    /// The client that the tests use.
    client: &'static str,
    proof: Proof,
}

enum Proof {
    /// On every run.
    Core(Vec<Test>),
    /// With `cargo xtask test --all`.
    Extended(Vec<Test>),
    /// Not shown by this suite: why, or where else.
    None(&'static str),
}

fn row(what: &'static str, client: &'static str, tests: impl Into<Vec<Test>>) -> Row {
    Row {
        what,
        client,
        proof: Proof::Core(tests.into()),
    }
}

fn extended(what: &'static str, client: &'static str, tests: impl Into<Vec<Test>>) -> Row {
    Row {
        what,
        client,
        proof: Proof::Extended(tests.into()),
    }
}

fn missing(what: &'static str, why: &'static str) -> Row {
    Row {
        what,
        client: "",
        proof: Proof::None(why),
    }
}

const CLI: &str = "docker";
const API: &str = "HTTP on the socket";
const COMPOSE: &str = "docker compose";

fn areas() -> Vec<Area> {
    vec![
        Area {
            title: "Client and daemon",
            rows: vec![
                row(
                    "version negotiation, old and future clients",
                    "docker, HTTP on the socket",
                    tests![client::client_and_engine_agree_on_a_version],
                ),
                row(
                    "ping with its headers",
                    API,
                    tests![client::ping_says_what_the_engine_is],
                ),
                row(
                    "errors passed through unchanged",
                    "docker, HTTP on the socket",
                    tests![client::errors_of_the_engine_arrive_unchanged],
                ),
                row("info", CLI, tests![client::info_describes_a_whole_engine]),
                row("events", CLI, tests![client::events_are_told_as_they_happen]),
                row(
                    "system df and prune",
                    CLI,
                    tests![client::disk_use_is_told_and_reclaimed],
                ),
                missing(
                    "contexts, DOCKER_HOST, attach and exec streams, 200 connections at once",
                    "proven by the suite `engine`",
                ),
            ],
        },
        Area {
            title: "Images",
            rows: vec![
                row(
                    "layers are shared, a change is copied",
                    CLI,
                    tests![
                        images::layers_are_shared_between_images,
                        containers::a_change_is_copied_and_the_layer_below_stays
                    ],
                ),
                row(
                    "history, inspect, filters",
                    CLI,
                    tests![images::history_and_inspect_tell_how_an_image_was_made],
                ),
                row(
                    "tag and remove",
                    CLI,
                    tests![images::tags_name_an_image_and_the_last_one_takes_it_along],
                ),
                row("commit", CLI, tests![images::a_container_becomes_an_image]),
                row(
                    "save and load",
                    CLI,
                    tests![images::save_and_load_keep_every_layer_and_tag],
                ),
                extended(
                    "export and import",
                    CLI,
                    tests![images::export_and_import_flatten_a_container],
                ),
                row(
                    "prune",
                    CLI,
                    tests![images::dangling_images_are_pruned_and_no_others],
                ),
                missing(
                    "an image larger than memory, in and out",
                    "proven by the suite `engine`",
                ),
            ],
        },
        Area {
            title: "Builds",
            rows: vec![
                row("classic builder", CLI, tests![builds::the_classic_builder_builds]),
                row(
                    "stages and targets",
                    CLI,
                    tests![builds::only_the_stage_that_was_asked_for_is_built],
                ),
                row(
                    ".dockerignore",
                    CLI,
                    tests![builds::what_dockerignore_names_is_not_sent],
                ),
                row(
                    "cache mounts",
                    CLI,
                    tests![builds::a_cache_mount_lasts_from_build_to_build],
                ),
                row(
                    "secrets",
                    CLI,
                    tests![builds::a_secret_is_seen_by_its_step_and_kept_in_no_layer],
                ),
                row(
                    "the host's ssh agent",
                    CLI,
                    tests![builds::the_hosts_ssh_agent_is_forwarded_into_a_step],
                ),
                row(
                    "context from standard input and from an archive",
                    CLI,
                    tests![builds::a_context_comes_from_standard_input_or_an_archive],
                ),
                row(
                    "context from git",
                    CLI,
                    tests![builds::a_context_comes_from_a_git_repository],
                ),
                row(
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
                    "a context of 1 GiB",
                    CLI,
                    tests![builds::a_context_of_a_gibibyte_is_sent],
                ),
            ],
        },
        Area {
            title: "Registries",
            rows: vec![
                row(
                    "login, push and pull with TLS by a private authority and a password",
                    CLI,
                    tests![
                        registries::a_private_registry_is_trusted_by_its_authority_and_wants_the_password,
                        registries::what_is_no_authority_is_not_trusted
                    ],
                ),
                extended(
                    "what is trusted outlives the machine",
                    CLI,
                    tests![registries::what_is_trusted_is_trusted_after_a_restart],
                ),
                row(
                    "insecure registries and mirrors, by setting",
                    CLI,
                    tests![registries::an_insecure_registry_is_used_and_a_mirror_is_asked_first],
                ),
                row(
                    "credential helpers",
                    CLI,
                    tests![registries::passwords_are_left_to_a_credential_helper],
                ),
            ],
        },
        Area {
            title: "Containers",
            rows: vec![
                row(
                    "created, running, paused, stopped, killed, removed",
                    CLI,
                    tests![
                        containers::a_container_goes_through_every_state,
                        containers::edges_that_do_not_exist_are_refused
                    ],
                ),
                row(
                    "restart policies",
                    CLI,
                    tests![containers::a_restart_policy_is_heeded_as_often_as_it_says],
                ),
                row(
                    "health checks",
                    CLI,
                    tests![containers::a_health_check_tells_well_from_unwell],
                ),
                row(
                    "init, signals, exit codes",
                    CLI,
                    tests![
                        containers::init_reaps_and_passes_signals_on,
                        containers::signals_arrive_as_they_were_sent,
                        containers::exit_codes_say_whose_fault_it_was
                    ],
                ),
                row(
                    "terminals, standard input, attach, wait",
                    CLI,
                    tests![
                        containers::a_terminal_is_one_and_a_pipe_is_none,
                        containers::attach_follows_and_wait_answers_with_the_code
                    ],
                ),
                row(
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
                row(
                    "top, stats, rename, update",
                    CLI,
                    tests![containers::what_runs_can_be_looked_at],
                ),
                row(
                    "logs",
                    CLI,
                    tests![containers::logs_are_kept_apart_by_stream_and_found_by_time],
                ),
                row(
                    "limits of memory, processors, processes, block I/O",
                    CLI,
                    tests![
                        limits::memory_beyond_the_limit_is_not_had,
                        limits::processor_time_is_rationed,
                        limits::processes_beyond_the_limit_do_not_start,
                        limits::block_io_is_limited_at_the_device
                    ],
                ),
                row(
                    "capabilities, seccomp, privileged",
                    CLI,
                    tests![
                        limits::capabilities_are_what_was_asked_for,
                        limits::seccomp_filters_calls_by_profile,
                        limits::a_privileged_container_may_mount
                    ],
                ),
                row(
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
                extended("shared namespaces", CLI, tests![limits::namespaces_can_be_shared]),
            ],
        },
        Area {
            title: "Storage",
            rows: vec![
                row(
                    "named volumes: filled from the image, shared, labelled",
                    CLI,
                    tests![
                        storage::an_empty_volume_is_filled_from_the_image,
                        storage::containers_share_a_volume_at_the_same_time,
                        storage::volumes_have_labels_and_are_found_by_them
                    ],
                ),
                row(
                    "anonymous volumes",
                    CLI,
                    tests![storage::an_anonymous_volume_goes_with_its_container_if_asked],
                ),
                extended(
                    "backup and restore of a volume",
                    CLI,
                    tests![storage::a_volume_is_backed_up_and_restored_by_tar],
                ),
                row("tmpfs", CLI, tests![storage::a_tmpfs_has_its_size_and_forgets]),
                row(
                    "bind mounts, read-only",
                    CLI,
                    tests![storage::a_host_folder_is_bound_both_ways_and_read_only_if_asked],
                ),
                extended(
                    "propagation",
                    CLI,
                    tests![storage::a_mount_made_later_propagates_if_asked],
                ),
                row(
                    "volume drivers by plugin",
                    CLI,
                    tests![plugins::a_volume_plugin_serves_volumes_from_create_to_remove],
                ),
            ],
        },
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
                row(
                    "user-defined: names, aliases, fixed addresses, internal",
                    CLI,
                    tests![
                        networks::a_network_of_ones_own_has_names_aliases_and_fixed_addresses,
                        networks::an_internal_network_leads_nowhere_else
                    ],
                ),
                row("links", CLI, tests![networks::a_container_is_linked_the_old_way]),
                row(
                    "connect and disconnect",
                    CLI,
                    tests![networks::a_running_container_is_connected_and_disconnected],
                ),
                row("IPv6", CLI, tests![networks::ipv6_networks_carry_ipv6]),
                row(
                    "list, inspect, prune",
                    CLI,
                    tests![networks::networks_are_listed_inspected_and_pruned],
                ),
                missing("published ports, the way out", "proven by the suite `network`"),
            ],
        },
        Area {
            title: "Services",
            rows: vec![
                row(
                    "replicas, rolling update, rollback",
                    CLI,
                    tests![
                        services::a_service_is_scaled_updated_and_rolled_back,
                        services::a_task_that_dies_is_replaced
                    ],
                ),
                row(
                    "configs and secrets",
                    CLI,
                    tests![services::configs_and_secrets_reach_the_tasks_that_have_them],
                ),
                row("stacks", CLI, tests![services::a_stack_comes_up_and_goes_as_one]),
            ],
        },
        Area {
            title: "Compose",
            rows: vec![
                row(
                    "web, database and cache",
                    COMPOSE,
                    tests![compose::a_web_application_with_its_database_and_cache],
                ),
                row(
                    "profiles and health dependencies",
                    COMPOSE,
                    tests![compose::profiles_select_services_and_health_orders_them],
                ),
                row(
                    "build, volumes, environment files",
                    COMPOSE,
                    tests![compose::services_are_built_with_their_volumes],
                ),
                row(
                    "a scaled service behind a proxy",
                    COMPOSE,
                    tests![compose::a_scaled_service_is_reached_through_a_proxy],
                ),
                row(
                    "watch mode",
                    COMPOSE,
                    tests![compose::watch_mode_carries_edits_into_the_container],
                ),
            ],
        },
        Area {
            title: "Developer tools",
            rows: vec![
                row(
                    "docker-py",
                    "docker-py",
                    tests![developers::docker_py_does_what_its_users_do],
                ),
                extended(
                    "testcontainers, with a reaper",
                    "testcontainers",
                    tests![developers::testcontainers_start_wait_and_are_reaped],
                ),
                row(
                    "Docker inside a container, through the socket",
                    "docker, in a container",
                    tests![developers::a_job_in_a_container_uses_docker_through_the_socket],
                ),
                extended(
                    "a dev container with a feature, as editors open one",
                    "devcontainer",
                    tests![developers::a_dev_container_is_built_with_its_feature_and_entered],
                ),
            ],
        },
        Area {
            title: "Other processors",
            rows: vec![extended(
                "images for linux/arm64 and linux/arm run and are built, by setting",
                CLI,
                tests![processors::programs_of_other_processors_run_and_are_built],
            )],
        },
    ]
}

/// The tests of this run, each once.
pub(crate) fn tests() -> Vec<Test> {
    let all = env::var_os(ALL).is_some();
    let mut chosen: Vec<Test> = Vec::new();
    for row in areas().into_iter().flat_map(|area| area.rows) {
        let tests = match row.proof {
            Proof::Core(tests) => tests,
            Proof::Extended(tests) if all => tests,
            Proof::Extended(_) | Proof::None(_) => continue,
        };
        for test in tests {
            if !chosen.iter().any(|(name, _)| *name == test.0) {
                chosen.push(test);
            }
        }
    }
    chosen
}

/// Compares the page with the table, or writes it if that is wished for.
pub(crate) fn check() -> Result<(), ExitCode> {
    let path = Path::new(PAGE);
    let page = page();
    if env::var_os(WRITE).is_some() {
        fs::write(path, page).unwrap();
        return Err(ExitCode::SUCCESS);
    }
    if fs::read_to_string(path).is_ok_and(|there| there == page) {
        return Ok(());
    }
    eprintln!("docs/compatibility.md is not what the table says; write it anew: cargo xtask docs");
    Err(ExitCode::FAILURE)
}

fn page() -> String {
    let mut page = String::from(
        "# What works\n\n\
         <!-- Made from tests/tests/compatibility/table.rs by `cargo xtask docs`. -->\n\n\
         Each row is proven by tests that use an unmodified client against a machine. `cargo xtask test` runs them all and\n\
         lands nothing when one fails; rows marked *extended* take long, or hold what changes least, and run with\n\
         `cargo xtask test --all`.\n",
    );
    for area in areas() {
        // Writing to a string does not fail.
        let _ = write!(
            page,
            "\n## {}\n\n| what | client | proven by |\n| --- | --- | --- |\n",
            area.title
        );
        for row in area.rows {
            let (mark, tests) = match row.proof {
                Proof::Core(tests) => ("", tests),
                Proof::Extended(tests) => (" *(extended)*", tests),
                Proof::None(why) => {
                    let _ = writeln!(page, "| {} | | {why} |", row.what);
                    continue;
                }
            };
            let names: Vec<String> = tests.iter().map(|(name, _)| format!("`{name}`")).collect();
            let _ = writeln!(
                page,
                "| {}{mark} | {} | {} |",
                row.what,
                row.client,
                names.join("<br>")
            );
        }
    }
    page
}
