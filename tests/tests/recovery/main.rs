//! Whatever dies, the next command finds its way back, and the engine's data is there. What the guest gives up, the
//! host has back.
//!
//! The tests break the machine in turn, so they run one at a time, and each begins by making sure that it runs.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use cove_tests::{
    harness::{self, Cove, Pace, Wire, eventually, within},
    tests,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, process::ExitCode, thread, time::Duration};

mod recovery {
    pub(crate) use super::*;
}

fn main() -> ExitCode {
    let usual: &[harness::Test] = &tests![
        recovery::a_crashed_engine_comes_back_by_itself,
        recovery::containers_survive_the_end_of_containerd,
        recovery::a_killed_daemon_is_started_again_and_adopts_the_machine,
        recovery::a_terminated_daemon_leaves_the_machine_running,
        recovery::two_commands_that_start_the_daemon_at_once_find_one_daemon,
        recovery::killing_daemon_and_machine_together_leaves_a_clean_slate,
        recovery::data_survives_an_orderly_restart,
        recovery::a_stop_during_a_start_stops,
        recovery::a_request_during_a_pause_is_answered_after_it,
        recovery::a_killed_hypervisor_is_a_failure_that_says_so_and_the_next_start_works,
        recovery::a_killed_machine_process_leaves_no_hypervisor_and_the_next_start_works,
        recovery::a_request_to_a_stopped_machine_says_how_to_start_it,
    ];
    let slow: &[harness::Test] = &tests![
        recovery::requests_that_arrive_while_the_machine_starts_wait_for_it,
        recovery::a_daemon_whose_sockets_are_taken_away_stops_its_machine_and_ends,
        recovery::a_daemon_killed_during_a_stop_is_followed_by_one_that_sees_it_through,
        recovery::a_session_that_ends_has_the_containers_stopped_first,
        recovery::containers_whose_engine_has_crashed_are_asked_before_the_machine_stops,
        recovery::memory_that_the_guest_frees_is_the_hosts_again,
        recovery::a_start_goes_on_without_its_command_and_without_its_daemon,
        recovery::a_terminal_shows_how_far_a_restart_is,
        recovery::a_file_system_with_an_error_is_checked_before_it_is_used,
    ];
    harness::run(
        "recovery",
        Pace::InTurn,
        Cove::start,
        &[usual, harness::if_all(slow)].concat(),
    )
}

/// Runs a container that keeps a volume; the word that it wrote is found again by [`kept`].
fn keep(cove: &Cove, word: &str) {
    let write = format!("echo {word} > /v/word && sync");
    cove.docker(["run", "--rm", "-v", "kept:/v", "alpine", "sh", "-c", &write])
        .ok();
}

fn kept(cove: &Cove) -> String {
    cove.docker(["run", "--rm", "-v", "kept:/v", "alpine", "cat", "/v/word"])
        .ok()
}

/// Starts a container that writes its last word where [`kept`] finds it, if it is asked to end and has the time.
fn witness(cove: &Cove) {
    let script = "trap 'sleep 1; echo last > /v/word; exit' TERM; echo ready; while :; do sleep 0.2; done";
    cove.docker([
        "run", "-d", "--name", "witness", "-v", "kept:/v", "alpine", "sh", "-c", script,
    ])
    .ok();
    eventually("the witness to be ready", || {
        cove.docker(["logs", "witness"]).ok() == "ready"
    });
}

fn send(pid: i32, signal: Signal) -> Option<rustix::io::Result<()>> {
    Pid::from_raw(pid).map(|pid| kill_process(pid, signal))
}

/// Waits for a state, while a daemon that was just started looks for its machines.
#[track_caller]
fn becomes(cove: &Cove, state: &str) {
    becomes_within(Duration::from_secs(30), cove, state);
}

#[track_caller]
fn becomes_within(limit: Duration, cove: &Cove, state: &str) {
    within(limit, &format!("the state to be {state}"), || {
        (cove.state() == state).then_some(())
    });
}

pub(crate) fn a_crashed_engine_comes_back_by_itself(cove: &Cove) {
    cove.start();
    keep(cove, "engine");
    cove.cove(["exec", "sh", "-c", "kill -9 $(pidof dockerd)"]).ok();
    // The very next request is held until the engine is back.
    let mut wire = Wire::connect(&cove.docker_socket());
    wire.send("GET", "/version", "", "");
    let (status, head) = wire.head();
    assert_eq!(status, 200, "{head:?}");
    assert_eq!(kept(cove), "engine");
    assert_eq!(cove.state(), "running");
}

pub(crate) fn containers_survive_the_end_of_containerd(cove: &Cove) {
    cove.start();
    cove.docker(["run", "-d", "--name", "survivor", "alpine", "sleep", "600"])
        .ok();
    let started = [
        "inspect",
        "--format",
        "{{.State.StartedAt}} {{.State.Pid}}",
        "survivor",
    ];
    let first = cove.docker(started).ok();
    let killed = cove
        .cove([
            "exec",
            "sh",
            "-c",
            "pidof containerd && kill -9 $(pidof containerd)",
        ])
        .ok();
    // dockerd finds the next one by itself, and until then says that there is none.
    eventually("containers to be run by another containerd", || {
        cove.docker(["exec", "survivor", "true"]).run().code == Some(0)
    });
    let next = cove.cove(["exec", "pidof", "containerd"]).ok();
    assert_ne!(next, killed, "containerd was not killed");
    assert_eq!(cove.docker(started).ok(), first, "the container was restarted");
    cove.docker(["rm", "-f", "survivor"]).ok();
}

pub(crate) fn a_killed_daemon_is_started_again_and_adopts_the_machine(cove: &Cove) {
    cove.start();
    cove.docker([
        "run", "-d", "--rm", "--name", "survivor", "alpine", "sleep", "600",
    ])
    .ok();
    let started = cove
        .docker(["inspect", "--format", "{{.State.StartedAt}}", "survivor"])
        .ok();
    let first = cove.daemon_pid();
    Cove::kill(first);
    eventually("the daemon to be gone", || !cove.processes().contains_key(&first));
    // No daemon, but the machine runs: the next command sees that.
    becomes(cove, "running");
    assert_ne!(cove.daemon_pid(), first);
    let again = cove
        .docker(["inspect", "--format", "{{.State.StartedAt}}", "survivor"])
        .ok();
    assert_eq!(again, started, "the container was restarted");
    cove.docker(["rm", "-f", "survivor"]).ok();
}

pub(crate) fn a_terminated_daemon_leaves_the_machine_running(cove: &Cove) {
    cove.start();
    let machines = cove.machine_processes();
    assert_eq!(machines.len(), 1, "{:?}", cove.processes());
    let daemon = cove.daemon_pid();
    assert_eq!(send(daemon, Signal::TERM), Some(Ok(())));
    eventually("the daemon to end", || !cove.processes().contains_key(&daemon));
    assert_eq!(cove.machine_processes(), machines);
    becomes(cove, "running");
}

/// Nobody could reach it any more, nor the machine, and its successor could only cut the machine's power.
pub(crate) fn a_daemon_whose_sockets_are_taken_away_stops_its_machine_and_ends(cove: &Cove) {
    cove.start();
    keep(cove, "away");
    let daemon = cove.daemon_pid();
    // As systemd does with a user's runtime directory when the last session ends.
    let away = cove.home().join("away");
    fs::rename(cove.home().join("run"), &away).unwrap();
    within(Duration::from_mins(2), "the daemon to end", || {
        (!cove.processes().contains_key(&daemon)).then_some(())
    });
    assert!(cove.machine_processes().is_empty(), "{:?}", cove.processes());
    fs::remove_dir_all(away).unwrap();
    // What is not in order is told.
    let log = fs::read_to_string(cove.home().join("data/logs/daemon.log")).unwrap();
    let (_, last) = log.rsplit_once("the sockets were taken away").unwrap();
    assert!(
        !last.contains("killed") && !last.contains("stopping the machines failed"),
        "{last}"
    );
    cove.start();
    assert_eq!(kept(cove), "away");
}

pub(crate) fn a_daemon_killed_during_a_stop_is_followed_by_one_that_sees_it_through(cove: &Cove) {
    cove.start();
    keep(cove, "stop");
    // It ignores the request to end, so that the stop takes the whole grace of its container.
    let stubborn = "trap '' TERM; while :; do sleep 1; done";
    cove.docker(["run", "-d", "--rm", "alpine", "sh", "-c", stubborn])
        .ok();
    let mut stop = cove.cove(["stop"]).spawn();
    eventually("the machine to be stopping", || cove.state() == "stopping");
    Cove::kill(cove.daemon_pid());
    assert!(
        stop.wait().is_ok_and(|status| !status.success()),
        "the stop claims to have succeeded"
    );
    becomes_within(Duration::from_mins(2), cove, "stopped");
    eventually("its processes to end", || {
        cove.processes_named("machine-process").is_empty()
    });
    cove.start();
    assert_eq!(kept(cove), "stop");
}

/// As when the computer shuts down: everybody is told, the daemon as well as QEMU and the process of the devices.
pub(crate) fn a_session_that_ends_has_the_containers_stopped_first(cove: &Cove) {
    cove.start();
    keep(cove, "session");
    witness(cove);
    let told = cove.processes();
    for &pid in told.keys() {
        // One may have ended with another that was told before.
        let _ = (send(pid, Signal::TERM), send(pid, Signal::HUP));
    }
    within(Duration::from_mins(2), "all processes to end", || {
        cove.processes().is_empty().then_some(())
    });
    let exit = fs::read_to_string(cove.machine_directory("default").join("exit.json")).unwrap();
    assert!(exit.contains("powered_off"), "{exit}\n{told:?}");
    cove.start();
    assert_eq!(kept(cove), "last");
    cove.docker(["rm", "-f", "witness"]).ok();
    let logs = cove.cove(["logs", "kernel"]).ok();
    assert!(
        !logs.contains("recovery complete"),
        "the data disk was not unmounted in order"
    );
}

/// It is not there to ask them, and they go on without it.
pub(crate) fn containers_whose_engine_has_crashed_are_asked_before_the_machine_stops(cove: &Cove) {
    cove.start();
    keep(cove, "crash");
    witness(cove);
    // It does not start with this configuration, again and again.
    let crash = "echo broken > /run/cove/daemon.json; kill -9 $(pidof dockerd)";
    cove.cove(["exec", "sh", "-c", crash]).ok();
    cove.cove(["stop"]).limit(Duration::from_mins(2)).ok();
    cove.start();
    assert_eq!(kept(cove), "last");
    cove.docker(["rm", "-f", "witness"]).ok();
}

pub(crate) fn two_commands_that_start_the_daemon_at_once_find_one_daemon(cove: &Cove) {
    cove.start();
    let daemon = cove.daemon_pid();
    Cove::kill(daemon);
    eventually("the daemon to be gone", || {
        !cove.processes().contains_key(&daemon)
    });
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| cove.cove(["machine", "list"]).ok());
        }
    });
    let daemon = cove.daemon_pid();
    // Those that came too late find that out in their own time.
    eventually("the others to end", || {
        cove.processes_named("daemon-process") == [daemon]
    });
}

pub(crate) fn a_killed_hypervisor_is_a_failure_that_says_so_and_the_next_start_works(cove: &Cove) {
    cove.start();
    keep(cove, "hypervisor");
    for pid in cove.processes_named("qemu-system") {
        Cove::kill(pid);
    }
    becomes(cove, "failed");
    let finished = cove.cove(["status"]).run();
    finished.fails_with(3);
    assert!(finished.text().contains("failed: "), "{finished}");
    assert!(
        finished.stderr.contains("hint: "),
        "no word of what to do: {finished}"
    );
    cove.start();
    assert_eq!(kept(cove), "hypervisor");
}

pub(crate) fn a_killed_machine_process_leaves_no_hypervisor_and_the_next_start_works(cove: &Cove) {
    cove.start();
    keep(cove, "process");
    for pid in cove.machine_processes() {
        Cove::kill(pid);
    }
    becomes(cove, "failed");
    // At once: the start waits for what is left of the machine before it.
    cove.start();
    assert_eq!(kept(cove), "process");
    assert_eq!(
        cove.processes_named("qemu-system").len(),
        1,
        "{:?}",
        cove.processes()
    );
}

pub(crate) fn killing_daemon_and_machine_together_leaves_a_clean_slate(cove: &Cove) {
    cove.start();
    keep(cove, "both");
    let all: Vec<i32> = cove.processes().into_keys().collect();
    for &pid in &all {
        Cove::kill(pid);
    }
    // At once: whoever asks for a start gets one, whatever is left of the machine before.
    cove.start();
    assert_eq!(kept(cove), "both");
}

pub(crate) fn data_survives_an_orderly_restart(cove: &Cove) {
    cove.start();
    keep(cove, "restart");
    cove.docker([
        "run",
        "-d",
        "--restart",
        "unless-stopped",
        "--name",
        "faithful",
        "alpine",
        "sleep",
        "9999",
    ])
    .ok();
    let restarted = cove.cove(["restart"]).limit(Duration::from_mins(6)).run();
    // What a person sees of it: its stages, and on what the machine runs.
    restarted.fails_with(0).says(&[
        "Stopping the machine\n",
        "Preparing the data disk\n",
        "Starting the machine\n",
        "restarted machine `default` in ",
        "emulated (QEMU",
    ]);
    assert_eq!(kept(cove), "restart");
    eventually("the container with a restart policy to run again", || {
        cove.docker(["inspect", "--format", "{{.State.Running}}", "faithful"])
            .ok()
            == "true"
    });
    cove.docker(["rm", "-f", "faithful"]).ok();
    let logs = cove.cove(["logs", "kernel"]).ok();
    assert!(
        !logs.contains("recovery complete"),
        "the data disk was not unmounted in order"
    );
}

/// A file in memory takes the host's memory while it is there, and not afterwards, though the machine has had it.
pub(crate) fn memory_that_the_guest_frees_is_the_hosts_again(cove: &Cove) {
    const TAKEN: u64 = 256 << 20;
    cove.start();
    let on_host = || {
        let status: serde_json::Value = serde_json::from_str(&cove.cove(["status", "--json"]).ok()).unwrap();
        status["memory_on_host"].as_u64().unwrap()
    };
    let before = on_host();
    let take = format!("head -c {TAKEN} /dev/zero > /dev/shm/taken");
    cove.cove(["exec", "sh", "-c", &take]).ok();
    let with_it = on_host();
    assert!(
        with_it > before + TAKEN / 2,
        "{before} bytes, and {with_it} with the file"
    );
    cove.cove(["exec", "rm", "/dev/shm/taken"]).ok();
    // The kernel reports what is free in large pieces, some seconds later; small ones stay.
    within(Duration::from_mins(1), "the host to have its memory back", || {
        (on_host() < with_it - TAKEN / 2).then_some(())
    });
}

pub(crate) fn a_stop_during_a_start_stops(cove: &Cove) {
    cove.cove(["stop"]).ok();
    let mut start = cove.cove(["start"]).spawn();
    eventually("the machine to be starting", || cove.state() == "starting");
    cove.cove(["stop"]).ok();
    assert_eq!(cove.state(), "stopped");
    let started = start.wait();
    assert!(
        started.is_ok_and(|status| !status.success()),
        "the start claims to have succeeded"
    );
    eventually("its processes to end", || {
        cove.processes_named("qemu-system").is_empty()
    });
}

pub(crate) fn a_start_goes_on_without_its_command_and_without_its_daemon(cove: &Cove) {
    cove.cove(["stop"]).ok();
    let mut start = cove.cove(["start"]).spawn();
    let machine = within(Duration::from_mins(1), "the machine to be starting", || {
        let machine = cove.machine_processes();
        (cove.state() == "starting" && machine.len() == 1).then_some(machine)
    });
    interrupt(&start);
    let code = start.wait().ok().and_then(|status| status.code());
    assert_eq!(code, Some(130), "the interrupted command");
    Cove::kill(cove.daemon_pid());
    becomes_within(Duration::from_mins(2), cove, "running");
    assert_eq!(cove.machine_processes(), machine);
    cove.docker(["run", "--rm", "alpine", "true"]).ok();
}

/// The kernel takes an error that it is told of for one that it has found: it notes it on the disk, and writes no more.
pub(crate) fn a_file_system_with_an_error_is_checked_before_it_is_used(cove: &Cove) {
    cove.start();
    keep(cove, "checked");
    let find = "echo tried > /sys/fs/ext4/vdb/trigger_fs_error && sleep 1 && ! touch /var/lib/docker/tried";
    cove.cove(["exec", "sh", "-c", find]).ok();
    cove.cove(["stop", "--force"]).limit(Duration::from_mins(2)).ok();
    cove.start();
    assert_eq!(kept(cove), "checked");
    let log = cove.cove(["logs", "agent"]).ok();
    assert!(log.contains("checking the data file system"), "{log}");
}

/// Under `script`, whose terminal has no size.
pub(crate) fn a_terminal_shows_how_far_a_restart_is(cove: &Cove) {
    cove.start();
    let restart = format!("{} restart", cove.kit().program.display());
    let finished = cove
        .program("script")
        .args(["-qec", &restart, "/dev/null"])
        .env("TERM", "xterm")
        .limit(Duration::from_mins(6))
        .run();
    finished.fails_with(0);
    let screen = finished.text();
    // One line, drawn anew while a stage goes on, with how far the whole is; another stays.
    for shown in [
        "\r\x1b[K",
        " Starting the machine  [#",
        " %  ",
        "\r\x1b[Krestarted machine `default` in ",
    ] {
        assert!(screen.contains(shown), "{shown:?} is not in {screen:?}");
    }
}

/// Presses Ctrl-C.
fn interrupt(command: &std::process::Child) {
    assert_eq!(kill_process(Pid::from_child(command), Signal::INT), Ok(()));
}

pub(crate) fn requests_that_arrive_while_the_machine_starts_wait_for_it(cove: &Cove) {
    cove.cove(["stop"]).ok();
    let mut start = cove.cove(["start"]).spawn();
    eventually("the machine to be starting", || cove.state() == "starting");
    let version = cove
        .docker(["version", "--format", "{{.Server.Version}}"])
        .limit(Duration::from_mins(4))
        .ok();
    assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    assert!(start.wait().is_ok_and(|status| status.success()));
}

pub(crate) fn a_request_during_a_pause_is_answered_after_it(cove: &Cove) {
    cove.start();
    let mut before = Wire::connect(&cove.docker_socket());
    before.send("GET", "/_ping", "", "");
    assert_eq!(before.response().body, "OK");
    cove.cove(["pause"]).ok();
    assert_eq!(cove.state(), "paused");
    // A connection that is there waits; a new one is told what to do, at once.
    cove.docker(["ps"])
        .run()
        .fails_with(1)
        .says(&["paused", "cove start"]);
    before.send("GET", "/version", "", "");
    thread::sleep(Duration::from_millis(500));
    cove.cove(["resume"]).ok();
    let answer = before.response();
    assert_eq!(answer.status, 200, "{}", answer.body);
    becomes(cove, "running");
}

pub(crate) fn a_request_to_a_stopped_machine_says_how_to_start_it(cove: &Cove) {
    cove.cove(["stop"]).ok();
    cove.docker(["ps"]).run().fails_with(1).says(&["cove start"]);
    cove.cove(["exec", "true"])
        .run()
        .fails_with(125)
        .says(&["hint: ", "cove start"]);
    cove.cove(["status"]).run().fails_with(3);
}
