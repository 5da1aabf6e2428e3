//! Containers: every state and every edge between, and all that is done with them meanwhile.

use crate::docker;
use cove_tests::harness::{Cove, eventually};
use std::{fs, time::Duration};

fn inspect(cove: &Cove, container: &str, format: &str) -> String {
    cove.docker(["inspect", "--format", format, container]).ok()
}

fn state(cove: &Cove, container: &str) -> String {
    inspect(cove, container, "{{.State.Status}}")
}

pub(crate) fn a_container_goes_through_every_state(cove: &Cove) {
    docker(cove, "create --name states alpine sleep 600").ok();
    assert_eq!(state(cove, "states"), "created");
    for (action, then) in [
        ("start", "running"),
        ("pause", "paused"),
        ("unpause", "running"),
        ("restart -t 0", "running"),
        ("stop -t 0", "exited"),
        ("start", "running"),
        ("kill", "exited"),
    ] {
        docker(cove, &format!("{action} states")).ok();
        eventually(then, || state(cove, "states") == then);
    }
    docker(cove, "start states").ok();
    cove.docker(["rm", "states"])
        .run()
        .fails_with(1)
        .says(&["container is running"]);
    docker(cove, "rm -f states").ok();
}

pub(crate) fn edges_that_do_not_exist_are_refused(cove: &Cove) {
    docker(cove, "create --name edges alpine true").ok();
    for (action, why) in [
        ("pause", "is not running"),
        ("unpause", "is not"),
        ("kill", "is not running"),
    ] {
        cove.docker([action, "edges"]).run().fails_with(1).says(&[why]);
    }
    docker(cove, "rm edges").ok();
}

pub(crate) fn a_restart_policy_is_heeded_as_often_as_it_says(cove: &Cove) {
    docker(cove, "run -d --name stubborn --restart on-failure:2 alpine false").ok();
    eventually("the engine to give up", || {
        inspect(cove, "stubborn", "{{.RestartCount}} {{.State.Status}}") == "2 exited"
    });
    docker(cove, "rm stubborn").ok();
    docker(cove, "run -d --name content --restart on-failure alpine true").ok();
    eventually("an orderly end", || state(cove, "content") == "exited");
    assert_eq!(inspect(cove, "content", "{{.RestartCount}}"), "0");
    docker(cove, "rm content").ok();
}

pub(crate) fn a_health_check_tells_well_from_unwell(cove: &Cove) {
    docker(
        cove,
        "run -d --name patient --health-interval 500ms --health-retries 2 --health-cmd",
    )
    .args([
        "test -e /tmp/well",
        "alpine",
        "sh",
        "-c",
        "touch /tmp/well; sleep 600",
    ])
    .ok();
    let health = || inspect(cove, "patient", "{{.State.Health.Status}}");
    eventually("health", || health() == "healthy");
    docker(cove, "exec patient rm /tmp/well").ok();
    eventually("illness", || health() == "unhealthy");
    docker(cove, "rm -f patient").ok();
}

pub(crate) fn init_reaps_and_passes_signals_on(cove: &Cove) {
    let first = docker(cove, "run --rm --init alpine cat /proc/1/cmdline")
        .ok()
        .replace('\0', " ");
    assert!(first.contains("docker-init"), "{first}");
    docker(cove, "run -d --init --name reaper alpine sh -c")
        .arg("trap 'exit 33' TERM; while :; do sleep 0.2; done")
        .ok();
    docker(cove, "stop reaper").ok();
    assert_eq!(inspect(cove, "reaper", "{{.State.ExitCode}}"), "33");
    docker(cove, "rm reaper").ok();
}

pub(crate) fn signals_arrive_as_they_were_sent(cove: &Cove) {
    docker(cove, "run -d --name listener alpine sh -c")
        .arg("trap 'echo got usr1' USR1; trap 'exit 5' HUP; echo ready; while :; do sleep 0.2; done")
        .ok();
    let logs = || docker(cove, "logs listener").ok();
    eventually("its handlers", || logs().contains("ready"));
    docker(cove, "kill -s USR1 listener").ok();
    eventually("the first signal", || logs().contains("got usr1"));
    docker(cove, "kill -s HUP listener").ok();
    assert_eq!(docker(cove, "wait listener").ok(), "5");
    docker(cove, "rm listener").ok();
}

pub(crate) fn exit_codes_say_whose_fault_it_was(cove: &Cove) {
    for (line, code) in [
        ("run --rm --no-such-option alpine true", 125),
        ("run --rm alpine /etc", 126),
        ("run --rm alpine no-such-program", 127),
        ("run --rm alpine false", 1),
    ] {
        docker(cove, line).run().fails_with(code);
    }
    docker(cove, "run --rm --init alpine sh -c")
        .arg("kill -9 $$")
        .run()
        .fails_with(137);
}

pub(crate) fn a_terminal_is_one_and_a_pipe_is_none(cove: &Cove) {
    assert_eq!(
        docker(cove, "run --rm -t alpine tty").ok().trim_end(),
        "/dev/pts/0"
    );
    cove.docker(["run", "--rm", "alpine", "tty"]).run().fails_with(1);
    let piped = docker(cove, "run --rm -i alpine cat")
        .input("through a pipe")
        .ok();
    assert_eq!(piped, "through a pipe");
}

pub(crate) fn exec_joins_a_container_as_it_is_told(cove: &Cove) {
    docker(cove, "run -d --name busy -e BASE=1 alpine sleep 600").ok();
    let seen = docker(cove, "exec -u nobody -w /var -e MORE=2 busy sh -c")
        .arg("id -un; pwd; echo $BASE$MORE")
        .ok();
    assert_eq!(seen, "nobody\n/var\n12");
    docker(cove, "exec busy sh -c")
        .arg("exit 17")
        .run()
        .fails_with(17);
    docker(cove, "exec -d busy touch /tmp/detached").ok();
    eventually("the detached command", || {
        docker(cove, "exec busy test -e /tmp/detached").run().code == Some(0)
    });
    docker(cove, "rm -f busy").ok();
}

pub(crate) fn files_are_copied_in_and_out(cove: &Cove) {
    let place = cove.scratch().join("copied");
    fs::create_dir_all(place.join("tree/below")).unwrap();
    fs::write(place.join("tree/below/leaf"), "green").unwrap();
    docker(cove, "create --name box alpine true").ok();
    let copy = |from: &str, to: &str| cove.docker(["cp", from, to]).directory(&place).ok();
    copy("tree", "box:/srv");
    copy("box:/srv/tree/below", "back");
    assert_eq!(fs::read_to_string(place.join("back/leaf")).unwrap(), "green");
    let archive = cove.docker(["cp", "box:/etc/alpine-release", "-"]).run();
    assert_eq!(archive.code, Some(0), "{archive}");
    assert!(archive.stdout.starts_with(b"alpine-release\0"));
    cove.docker(["cp", "box:/nowhere", "."]).run().fails_with(1);
    docker(cove, "rm box").ok();
}

pub(crate) fn a_change_is_copied_and_the_layer_below_stays(cove: &Cove) {
    docker(cove, "run --name changed alpine sh -c")
        .arg("echo more >> /etc/motd; rm /etc/issue; mkdir /new")
        .ok();
    let changes = docker(cove, "diff changed").ok();
    for change in ["C /etc", "C /etc/motd", "D /etc/issue", "A /new"] {
        assert!(changes.lines().any(|line| line == change), "{change}: {changes}");
    }
    // Another container of the same image sees nothing of it.
    docker(cove, "run --rm alpine test -e /etc/issue").ok();
    docker(cove, "rm changed").ok();
}

pub(crate) fn what_runs_can_be_looked_at(cove: &Cove) {
    docker(cove, "run -d --name watched alpine sleep 600").ok();
    assert!(docker(cove, "top watched").ok().contains("sleep 600"));
    let stats = docker(cove, "stats --no-stream --format {{.Name}}/{{.PIDs}} watched").ok();
    assert_eq!(stats, "watched/1");
    docker(cove, "rename watched seen").ok();
    docker(cove, "update --memory 64m --memory-swap 64m seen").ok();
    assert_eq!(
        docker(cove, "exec seen cat /sys/fs/cgroup/memory.max").ok(),
        "67108864"
    );
    docker(cove, "rm -f seen").ok();
}

pub(crate) fn logs_are_kept_apart_by_stream_and_found_by_time(cove: &Cove) {
    docker(cove, "run --name talker alpine sh -c")
        .arg("for i in 1 2 3 4; do echo out $i; done; echo problem >&2")
        .run();
    let all = cove.docker(["logs", "talker"]).run();
    assert_eq!(all.text(), "out 1\nout 2\nout 3\nout 4");
    assert_eq!(all.stderr, "problem\n");
    let stamped = docker(cove, "logs -t talker").ok();
    let stamps: Vec<&str> = stamped
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(stamp, _)| stamp)
        .collect();
    let between = docker(cove, "logs --since")
        .args([stamps[1], "--until", stamps[2], "talker"])
        .ok();
    assert_eq!(between, "out 2\nout 3");
    let last = docker(cove, "logs --tail 1 talker").run();
    assert_eq!((last.text() + &last.stderr).lines().count(), 1, "{last}");
    docker(cove, "rm talker").ok();
}

pub(crate) fn attach_follows_and_wait_answers_with_the_code(cove: &Cove) {
    docker(cove, "create -i --name attached alpine sh -c")
        .arg("read line; echo said $line; exit 3")
        .ok();
    let attached = docker(cove, "start -ai attached")
        .input("hello\n")
        .limit(Duration::from_mins(2))
        .run();
    assert_eq!(attached.code, Some(3), "{attached}");
    assert_eq!(attached.text(), "said hello");
    assert_eq!(docker(cove, "wait attached").ok(), "3");
    docker(cove, "rm attached").ok();
}
