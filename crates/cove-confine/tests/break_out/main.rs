//! Tries to get out of each layer, from inside.
//!
//! ```text
//!  trial ── copies this program, starts it as an ordinary user ──▶ porter ── namespaces ──▶ cell: confines itself,
//!    ▲                                                               │ shares a folder        tries one thing
//!    └──────────────── the cell's one line: what came of it ─────────┴─────────────────────────┘
//! ```
//!
//! A trial may leave out seccomp, which would be first to refuse, to see what the layers beneath do by themselves.

#[cfg(target_os = "linux")]
mod attempts;
#[cfg(target_os = "linux")]
mod prison;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [_, "porter", place, layers, attempt] => prison::porter(place.as_ref(), layers, attempt),
        [_, "cell", place, layers, attempt] => prison::cell(place.as_ref(), layers, attempt),
        _ => trials(),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}

/// What is tried, with which layers, and what has to come of it.
#[cfg(target_os = "linux")]
const TRIALS: &[(&str, &str, &str, &str)] = &[
    // What a machine needs works.
    ("files_that_it_is_made_of_can_be_read", "all", "read_item", "ok"),
    ("its_disk_can_be_written", "all", "write_disk", "ok"),
    (
        "sockets_in_its_directory_can_be_made_and_reached",
        "all",
        "socket",
        "ok",
    ),
    (
        "a_folder_that_is_shared_while_it_runs_can_be_used",
        "all",
        "use_folder",
        "ok",
    ),
    ("a_folder_is_reached_through_a_descriptor", "all", "reopen", "ok"),
    ("a_thread_may_be_started", "all", "thread", "ok"),
    (
        "without_namespaces_folders_work_as_well",
        "bare",
        "use_folder",
        "ok",
    ),
    (
        "a_connection_may_ask_how_much_there_is_to_read",
        "all",
        "connections_ask",
        "ok",
    ),
    // Files.
    ("other_files_are_not_there", "all", "read_passwd", "ENOENT"),
    (
        "the_home_directory_is_not_there",
        "no-seccomp",
        "read_secret",
        "ENOENT",
    ),
    (
        "a_file_for_reading_cannot_be_written",
        "all",
        "write_item",
        "EROFS",
    ),
    (
        "a_file_that_it_is_made_of_cannot_be_removed",
        "no-seccomp",
        "unlink_item",
        "EROFS",
    ),
    (
        "the_socket_that_commands_it_cannot_be_reached",
        "no-seccomp",
        "command",
        "EACCES",
    ),
    (
        "the_socket_that_commands_it_cannot_be_replaced",
        "no-seccomp",
        "remove_command",
        "EBUSY",
    ),
    (
        "the_way_up_from_a_folder_ends_at_its_root",
        "all",
        "climb",
        "ENOENT",
    ),
    (
        "a_link_out_of_a_folder_leads_nowhere",
        "all",
        "follow_link",
        "ENOENT",
    ),
    (
        "a_read_only_folder_cannot_be_written",
        "no-seccomp",
        "write_read_only",
        "EROFS",
    ),
    (
        "nothing_can_be_made_beside_the_folders",
        "no-seccomp",
        "make_beside",
        "EROFS",
    ),
    ("a_device_cannot_be_made", "no-seccomp", "device", "EACCES"),
    (
        "a_program_in_a_folder_cannot_be_executed",
        "no-seccomp",
        "execute",
        "EACCES",
    ),
    // Processes.
    ("executing_a_program_kills", "all", "execute", "SIGSYS"),
    ("tracing_kills", "all", "trace", "SIGSYS"),
    ("mounting_kills", "all", "mount", "SIGSYS"),
    ("making_a_namespace_kills", "all", "namespace", "SIGSYS"),
    ("opening_by_handle_kills", "all", "by_handle", "SIGSYS"),
    ("a_process_cannot_be_made", "all", "fork", "EPERM"),
    ("signals_cannot_be_sent", "all", "signal", "EPERM"),
    (
        "nobody_else_is_there_to_be_signalled",
        "no-seccomp",
        "signal",
        "ESRCH",
    ),
    ("mounting_needs_a_capability", "no-seccomp", "mount", "EPERM"),
    (
        "the_hosts_name_cannot_be_changed",
        "no-seccomp",
        "rename_host",
        "EPERM",
    ),
    ("nobody_else_can_be_become", "no-seccomp", "become_root", "EINVAL"),
    (
        "memory_cannot_become_a_program",
        "all",
        "executable_memory",
        "EPERM",
    ),
    ("no_control_but_of_kvm_can_be_called", "all", "control", "EPERM"),
    (
        "the_limit_of_core_dumps_cannot_be_raised",
        "no-seccomp",
        "core",
        "EPERM",
    ),
    ("memory_cannot_be_locked", "no-seccomp", "lock_memory", "EPERM"),
    ("a_message_queue_cannot_be_made", "no-seccomp", "queue", "EMFILE"),
    ("it_cannot_be_traced_from_outside", "no-seccomp", "dumpable", "ok"),
    ("new_privileges_are_renounced", "no-seccomp", "renounced", "ok"),
    (
        "shared_memory_of_the_host_is_not_there",
        "no-seccomp",
        "segment",
        "ENOENT",
    ),
    (
        "the_hosts_control_groups_are_not_those_that_it_names",
        "no-seccomp",
        "cgroups",
        "others",
    ),
    // Network.
    (
        "no_socket_of_the_internet_can_be_made",
        "all",
        "internet",
        "EPERM",
    ),
    ("no_network_can_be_reached", "no-seccomp", "internet", "EACCES"),
    // What no layer but the namespace forbids.
    ("no_datagram_leaves", "no-seccomp", "datagram", "ENETUNREACH"),
    (
        "an_abstract_socket_of_the_host_cannot_be_reached",
        "no-seccomp",
        "abstract",
        "refused",
    ),
    // Threads.
    ("a_vcpu_cannot_open_a_file", "all", "vcpu_opens", "EPERM"),
    ("a_vcpu_cannot_start_a_thread", "all", "vcpu_starts", "EPERM"),
    ("a_vcpu_cannot_make_a_socket", "all", "vcpu_connects", "EPERM"),
    ("a_vcpu_may_enter_the_guest", "all", "vcpu_enters", "ENOTTY"),
    ("a_vcpu_cannot_give_the_guest_memory", "all", "vcpu_maps", "EPERM"),
    ("a_disk_cannot_open_a_file", "all", "disk_opens", "EPERM"),
    ("a_disk_may_start_a_thread", "all", "disk_starts", "ok"),
    (
        "a_thread_that_a_disk_starts_cannot_open_a_file",
        "all",
        "disk_starts_one_that_opens",
        "EPERM",
    ),
    // Rings, where the kernel has them.
    ("a_ring_reads_its_file", "all", "ring_reads", "ok"),
    (
        "a_ring_reads_no_other_descriptor",
        "all",
        "ring_reads_another",
        "EACCES",
    ),
    ("a_ring_opens_no_file", "all", "ring_opens", "EACCES"),
    ("a_ring_makes_no_socket", "all", "ring_connects", "EACCES"),
    ("a_vcpu_cannot_enter_a_ring", "all", "ring_of_a_vcpu", "EPERM"),
    (
        "giving_a_ring_another_file_kills",
        "all",
        "ring_gets_a_file",
        "SIGSYS",
    ),
    (
        "a_ring_takes_no_other_file_by_itself",
        "no-seccomp",
        "ring_gets_a_file",
        "EACCES",
    ),
    ("making_a_ring_kills", "all", "make_ring", "SIGSYS"),
    (
        "a_connection_cannot_open_a_file",
        "all",
        "connections_open",
        "EPERM",
    ),
    ("entropy_cannot_open_a_file", "all", "entropy_opens", "EPERM"),
    ("a_balloon_cannot_open_a_file", "all", "balloon_opens", "EPERM"),
    ("a_folder_can_be_used_by_its_thread", "all", "files_use", "ok"),
    ("a_folder_cannot_make_a_socket", "all", "files_connect", "EPERM"),
    // SIGABRT does nothing to the first process of a namespace, which then ends by a fault.
    (
        "an_abort_of_a_disk_ends_the_process",
        "all",
        "disk_aborts",
        "signal 11",
    ),
    // Without namespaces.
    (
        "without_namespaces_nothing_is_executed",
        "bare",
        "execute_true",
        "EACCES",
    ),
    (
        "without_namespaces_no_network_can_be_reached",
        "bare",
        "internet",
        "EACCES",
    ),
    (
        "without_namespaces_no_device_can_be_made",
        "bare",
        "device",
        "EACCES",
    ),
    // What is lost with them, so that the same attempts above say something.
    ("without_namespaces_datagrams_leave", "bare", "datagram", "ok"),
    (
        "without_namespaces_shared_memory_of_the_host_is_there",
        "bare",
        "segment",
        "ok",
    ),
    (
        "without_namespaces_the_hosts_control_groups_are_named",
        "bare",
        "cgroups",
        "ok",
    ),
];

#[cfg(target_os = "linux")]
fn trials() -> std::process::ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    let (_place, program) = match prison::copy_program() {
        Ok(copied) => copied,
        Err(error) => {
            eprintln!("cannot copy the program: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let has_rings = prison::has_rings();
    let has_ordinary_user = prison::has_ordinary_user();
    if !has_ordinary_user {
        eprintln!("skipped: everybody is root here, as whom nothing can be tried");
    }
    let trials = TRIALS
        .iter()
        .map(|&(name, layers, attempt, expected)| {
            let program = program.clone();
            let needs_ring = attempt.starts_with("ring_");
            let trial = libtest_mimic::Trial::test(name, move || {
                let outcome = prison::run(&program, layers, attempt).map_err(|error| error.to_string())?;
                if outcome == expected {
                    Ok(())
                } else {
                    Err(format!("expected {expected}, and it was {outcome}").into())
                }
            });
            trial.with_ignored_flag(!has_ordinary_user || (needs_ring && !has_rings))
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
