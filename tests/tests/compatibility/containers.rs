//! Containers: every state and every edge between, and all that is done with them meanwhile.

use crate::{docker, docker_on_a_terminal};
use cove_tests::harness::{Cove, Running, Wire, eventually, within};
use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    time::Duration,
};

fn inspect(cove: &Cove, container: &str, format: &str) -> String {
    cove.docker(["inspect", "--format", format, container]).ok()
}

fn state(cove: &Cove, container: &str) -> String {
    inspect(cove, container, "{{.State.Status}}")
}

/// What every action does in every state: the state after it, or how it is refused.
const EDGES: [(&str, Actions); 4] = [
    (
        "created",
        [
            ("start", Ok("running")),
            ("restart -t 0", Ok("running")),
            ("stop -t 0", Ok("created")),
            ("pause", Err("is not running")),
            ("unpause", Err("is not paused")),
            ("kill", Err("is not running")),
            ("exec % true", Err("is not running")),
            ("rm", Ok(GONE)),
        ],
    ),
    (
        "running",
        [
            ("start", Ok("running")),
            ("restart -t 0", Ok("running")),
            ("stop -t 0", Ok("exited")),
            ("pause", Ok("paused")),
            ("unpause", Err("is not paused")),
            ("kill", Ok("exited")),
            ("exec % true", Ok("running")),
            ("rm", Err("container is running")),
        ],
    ),
    (
        "paused",
        [
            ("start", Err("cannot start a paused container")),
            ("restart -t 0", Ok("running")),
            ("stop -t 0", Ok("exited")),
            ("pause", Err("is already paused")),
            ("unpause", Ok("running")),
            ("kill", Ok("exited")),
            ("exec % true", Err("is paused")),
            ("rm", Err("container is paused")),
        ],
    ),
    (
        "exited",
        [
            ("start", Ok("running")),
            ("restart -t 0", Ok("running")),
            ("stop -t 0", Ok("exited")),
            ("pause", Err("is not running")),
            ("unpause", Err("is not paused")),
            ("kill", Err("is not running")),
            ("exec % true", Err("is not running")),
            ("rm", Ok(GONE)),
        ],
    ),
];
type Actions = [(&'static str, Result<&'static str, &'static str>); 8];
const GONE: &str = "gone";

/// Brings a new container into a state.
fn bring(cove: &Cove, container: &str, into: &str) {
    docker(cove, &format!("create --name {container} alpine sleep 600")).ok();
    let actions: &[&str] = match into {
        "created" => &[],
        "running" => &["start"],
        "paused" => &["start", "pause"],
        _ => &["start", "kill"],
    };
    for action in actions {
        docker(cove, &format!("{action} {container}")).ok();
    }
    eventually(into, || state(cove, container) == into);
}

pub(crate) fn every_action_does_in_every_state_what_it_should(cove: &Cove) {
    const NAME: &str = "edges";
    for (before, actions) in EDGES {
        for (action, after) in actions {
            bring(cove, NAME, before);
            let line = match action.split_once('%') {
                Some((first, rest)) => format!("{first}{NAME}{rest}"),
                None => format!("{action} {NAME}"),
            };
            let started = || inspect(cove, NAME, "{{.State.StartedAt}}");
            let since = started();
            let done = docker(cove, &line).run();
            match after {
                Ok(after) => {
                    assert_eq!(done.code, Some(0), "{before}, {action}: {done}");
                    eventually(after, || {
                        let now = cove
                            .docker(["inspect", "--format", "{{.State.Status}}", NAME])
                            .run();
                        if after == GONE {
                            now.code == Some(1)
                        } else {
                            now.text() == after
                        }
                    });
                    if after != GONE {
                        // Another life has a start of its own; what goes on, or has ended, keeps the one that it had.
                        let again =
                            action.starts_with("restart") || (action == "start" && before != "running");
                        let now = started();
                        assert_eq!(now != since, again, "{before}, {action}: {since}, {now}");
                    }
                }
                Err(why) => {
                    done.fails_with(1).says(&[why]);
                    assert_eq!(state(cove, NAME), before, "{action} was refused");
                }
            }
            // By force it goes from wherever it is.
            docker(cove, &format!("rm -f {NAME}")).run();
            docker(cove, &format!("inspect {NAME}")).run().fails_with(1);
        }
    }
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
    // From try to try the engine waits longer, and may be told to stop meanwhile.
    docker(cove, "run -d --name hopeless --restart always alpine false").ok();
    eventually("the wait for another try", || {
        state(cove, "hopeless") == "restarting"
    });
    // Like what runs, it is removed by force alone.
    docker(cove, "rm hopeless").run().fails_with(1);
    docker(cove, "stop hopeless").ok();
    eventually("the end of all tries", || state(cove, "hopeless") == "exited");
    docker(cove, "rm hopeless").ok();
    // Whatever its end was, but not when somebody has stopped it.
    docker(cove, "run -d --name always --restart always alpine sleep 600").ok();
    docker(cove, "run -d --name never --restart no alpine sleep 600").ok();
    // From within the machine, since the engine does not restart what was killed through it.
    for container in ["always", "never"] {
        let process = inspect(cove, container, "{{.State.Pid}}");
        cove.cove(["exec", "kill", "-9", &process]).ok();
    }
    eventually("another life", || {
        inspect(cove, "always", "{{.RestartCount}} {{.State.Status}}") == "1 running"
    });
    eventually("the end without one", || state(cove, "never") == "exited");
    docker(
        cove,
        "run -d --name unless --restart unless-stopped alpine sleep 600",
    )
    .ok();
    docker(cove, "stop -t 0 always unless").ok();
    for container in ["always", "unless"] {
        assert_eq!(state(cove, container), "exited", "{container}");
    }
    // Another engine starts what somebody has stopped, unless the policy is not to.
    cove.cove(["exec", "sh", "-c", "kill -9 $(pidof dockerd)"]).ok();
    within(Duration::from_mins(3), "the next engine to start it", || {
        let now = cove
            .docker(["inspect", "--format", "{{.State.Status}}", "always"])
            .run();
        (now.text() == "running").then_some(())
    });
    assert_eq!(state(cove, "unless"), "exited");
    docker(cove, "rm -f always unless never").ok();
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
    // A child whose parent has ended is the first process's, whether that asks for it or not: what is left of it a
    // second after its end?
    const ORPHAN: &str = "pid=$( (sleep 0.1 > /dev/null & echo $!) ); \
                          while grep -q ') [RSD] ' /proc/$pid/stat; do sleep 0.1; done 2> /dev/null; sleep 1; \
                          test -e /proc/$pid && echo left || echo reaped";
    docker(cove, "run -d --init --name reaper alpine sh -c")
        .arg("trap 'exit 33' TERM; echo ready; while :; do sleep 0.2; done")
        .ok();
    docker(cove, "run -d --name careless alpine sleep 600").ok();
    let first = docker(cove, "exec reaper cat /proc/1/cmdline")
        .ok()
        .replace('\0', " ");
    assert!(first.contains("docker-init"), "{first}");
    for (name, fate) in [("reaper", "reaped"), ("careless", "left")] {
        let orphan = docker(cove, "exec").args([name, "sh", "-c", ORPHAN]).ok();
        assert_eq!(orphan, fate, "{name}");
    }
    eventually("its handler", || docker(cove, "logs reaper").ok() == "ready");
    docker(cove, "stop reaper").ok();
    assert_eq!(inspect(cove, "reaper", "{{.State.ExitCode}}"), "33");
    docker(cove, "rm -f reaper careless").ok();
}

pub(crate) fn signals_arrive_as_they_were_sent(cove: &Cove) {
    docker(cove, "run -d --stop-signal HUP --name listener alpine sh -c")
        .arg("trap 'echo got usr1' USR1; trap 'exit 5' HUP; echo ready; while :; do sleep 0.2; done")
        .ok();
    let logs = || docker(cove, "logs listener").ok();
    eventually("its handlers", || logs().contains("ready"));
    let mut waiting = Running(docker(cove, "wait listener").spawn());
    docker(cove, "kill -s USR1 listener").ok();
    eventually("the first signal", || logs().contains("got usr1"));
    assert!(waiting.0.try_wait().unwrap().is_none(), "nobody waits any more");
    docker(cove, "stop listener").ok();
    eventually("the waiting to end", || waiting.0.try_wait().unwrap().is_some());
    let mut code = String::new();
    waiting
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut code)
        .unwrap();
    assert_eq!(code, "5\n");
    docker(cove, "rm listener").ok();
}

pub(crate) fn exit_codes_say_whose_fault_it_was(cove: &Cove) {
    for (line, code) in [
        ("run --rm --no-such-option alpine true", 125),
        ("run --rm alpine /etc", 126),
        ("run --rm alpine /etc/passwd", 126),
        ("run --rm alpine no-such-program", 127),
        ("run --rm alpine /no/such/program", 127),
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
    // A terminal on this side has its size on the other, too.
    docker(cove, "run -d --name sized alpine sleep 600").ok();
    for command in ["run --rm -it alpine stty size", "exec -it sized stty size"] {
        let screen = docker_on_a_terminal(cove, command).run();
        assert!(screen.text().contains("31 97"), "{command}: {screen}");
    }
    docker(cove, "rm -f sized").ok();
}

pub(crate) fn exec_joins_a_container_as_it_is_told(cove: &Cove) {
    docker(
        cove,
        "run -d --name busy -e BASE=1 --oom-score-adj 100 alpine sleep 600",
    )
    .ok();
    // The score of the container and not of what starts it there: with that it would outlive all containers when memory
    // is short.
    let seen = docker(cove, "exec -u nobody -w /var -e MORE=2 busy sh -c")
        .arg("id -un; pwd; echo $BASE$MORE $HOME; cat /proc/1/oom_score_adj /proc/self/oom_score_adj")
        .ok();
    assert_eq!(seen, "nobody\n/var\n12 /\n100\n100");
    // This engine tells exec nothing else, with any runtime.
    for program in ["/etc", "no-such-program"] {
        docker(cove, &format!("exec busy {program}"))
            .run()
            .fails_with(126);
    }
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
    let unchanged = docker(cove, "run --rm alpine sh -c")
        .arg("test -e /etc/issue && cat /etc/motd")
        .ok();
    assert!(!unchanged.contains("more"), "{unchanged}");
    docker(cove, "rm changed").ok();
}

pub(crate) fn what_runs_can_be_looked_at(cove: &Cove) {
    docker(cove, "run -d --name watched alpine sleep 600").ok();
    assert!(docker(cove, "top watched").ok().contains("sleep 600"));
    let stats = docker(cove, "stats --no-stream --format {{.Name}}/{{.PIDs}} watched").ok();
    assert_eq!(stats, "watched/1");
    // A stream of them, each of which knows how much the processor has done since the one before.
    docker(cove, "exec -d watched sh -c")
        .arg("while :; do :; done")
        .ok();
    let mut wire = Wire::connect(&cove.docker_socket());
    wire.send("GET", "/containers/watched/stats", "Connection: close\r\n", "");
    assert_eq!(wire.head().0, 200);
    let mut stream = Vec::new();
    within(Duration::from_mins(1), "a reading of a busy processor", || {
        stream.extend(wire.some());
        let lines = stream.split(|byte| *byte == b'\n');
        let mut readings = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let is_busy = |reading: &Value| {
            let number = |path: &str| reading.pointer(path).and_then(Value::as_u64).unwrap_or(0);
            let before = number("/precpu_stats/cpu_usage/total_usage");
            before > 0
                && number("/cpu_stats/cpu_usage/total_usage") > before
                && number("/memory_stats/usage") > 0
        };
        readings.any(|reading| is_busy(&reading)).then_some(())
    });
    drop(wire);
    docker(cove, "rename watched seen").ok();
    docker(cove, "inspect watched").run().fails_with(1);
    // What is read at once is in memory all at once.
    let greedy = || docker(cove, "exec seen dd if=/dev/zero of=/dev/null bs=96M count=1");
    let limit = || docker(cove, "exec seen cat /sys/fs/cgroup/memory.max").ok();
    assert_eq!(limit(), "max");
    greedy().ok();
    docker(cove, "update --memory 64m --memory-swap 64m seen").ok();
    assert_eq!(limit(), "67108864");
    greedy().run().fails_with(137);
    docker(cove, "rm -f seen").ok();
}

pub(crate) fn logs_are_kept_apart_by_stream_and_found_by_time(cove: &Cove) {
    docker(cove, "run --name talker alpine sh -c")
        .arg("for i in 1 2 3 4; do echo out $i; done; echo problem >&2")
        .run();
    let all = cove.docker(["logs", "talker"]).run();
    assert_eq!(all.text(), "out 1\nout 2\nout 3\nout 4");
    assert_eq!(all.stderr, "problem\n");
    let last = docker(cove, "logs --tail 1 talker").run();
    assert_eq!((last.text() + &last.stderr).lines().count(), 1, "{last}");
    // By one stream alone: lines of two are stamped side by side, and the engine, which stops reading
    // at the first that is too late, may have written a later one first.
    docker(cove, "run --name clock alpine sh -c")
        .arg("for i in 1 2 3 4; do echo out $i; done")
        .run();
    let stamped = docker(cove, "logs -t clock").ok();
    let stamps: Vec<&str> = stamped
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(stamp, _)| stamp)
        .collect();
    let between = docker(cove, "logs --since")
        .args([stamps[1], "--until", stamps[2], "clock"])
        .ok();
    assert_eq!(between, "out 2\nout 3");
    docker(cove, "rm talker clock").ok();
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
    // Into what runs already, and out of it again by the keys for that, while it goes on.
    docker(cove, "run -dit --name joined alpine cat").ok();
    let mut client = docker_on_a_terminal(cove, "attach joined").spawn();
    let mut keyboard = client.stdin.take().unwrap();
    let mut client = Running(client);
    keyboard.write_all(b"hello\n").unwrap();
    eventually("what was typed", || {
        docker(cove, "logs joined").ok().contains("hello")
    });
    // Only now is the terminal the container's, and these keys are not for this computer's end of it.
    keyboard.write_all(b"\x10\x11").unwrap();
    eventually("the client to let go", || client.0.try_wait().unwrap().is_some());
    assert_eq!(state(cove, "joined"), "running");
    docker(cove, "rm -f joined").ok();
}
