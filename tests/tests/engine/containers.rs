//! What people do with containers, through an unmodified Docker client.

use cove_tests::harness::{Cove, eventually};

fn state_of(cove: &Cove, container: &str) -> String {
    cove.docker(["inspect", "--format", "{{.State.Status}}", container])
        .ok()
}

pub(crate) fn docker_host_of_cove_env_reaches_alpine(cove: &Cove) {
    let docker_host = cove.cove(["env", "--socket"]).ok();
    let release = cove
        .bare_docker(["run", "--rm", "alpine", "cat", "/etc/os-release"])
        .env("DOCKER_HOST", docker_host)
        .ok();
    assert!(release.contains("Alpine Linux"), "{release}");
}

pub(crate) fn the_docker_context_cove_reaches_alpine(cove: &Cove) {
    let release = cove
        .bare_docker([
            "--context",
            "cove",
            "run",
            "--rm",
            "alpine",
            "cat",
            "/etc/os-release",
        ])
        .ok();
    assert!(release.contains("Alpine Linux"), "{release}");
    let current = cove.bare_docker(["context", "show"]).ok();
    assert_eq!(current, "default", "the user's current context was switched");
}

pub(crate) fn the_exit_code_of_a_container_is_passed_on(cove: &Cove) {
    cove.docker([
        "run",
        "--rm",
        "alpine",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 42",
    ])
    .run()
    .fails_with(42)
    .says(&["err"]);
}

pub(crate) fn a_container_can_be_stopped_killed_paused_and_removed(cove: &Cove) {
    let name = "lifecycle";
    let script = "trap 'echo asked to stop; exit 7' TERM; echo ready; while :; do sleep 0.2; done";
    cove.docker(["run", "-d", "--name", name, "alpine", "sh", "-c", script])
        .ok();
    assert_eq!(state_of(cove, name), "running");
    eventually("its handler", || cove.docker(["logs", name]).ok() == "ready");
    cove.docker(["pause", name]).ok();
    assert_eq!(state_of(cove, name), "paused");
    cove.docker(["unpause", name]).ok();
    assert_eq!(state_of(cove, name), "running");
    cove.docker(["stop", name]).ok();
    let code = cove
        .docker(["inspect", "--format", "{{.State.ExitCode}}", name])
        .ok();
    assert_eq!(code, "7", "its handler of SIGTERM did not run");
    cove.docker(["start", name]).ok();
    cove.docker(["kill", name]).ok();
    eventually("the killed container to have exited", || {
        state_of(cove, name) == "exited"
    });
    cove.docker(["rm", name]).ok();
    cove.docker(["inspect", name]).run().fails_with(1);
}

pub(crate) fn exec_runs_beside_the_main_process(cove: &Cove) {
    cove.docker(["run", "-d", "--rm", "--name", "host", "alpine", "sleep", "600"])
        .ok();
    let seen = cove
        .docker([
            "exec",
            "-e",
            "WHO=guest",
            "-w",
            "/tmp",
            "host",
            "sh",
            "-c",
            "echo $WHO $PWD",
        ])
        .ok();
    assert_eq!(seen, "guest /tmp");
    cove.docker(["exec", "host", "sh", "-c", "exit 9"])
        .run()
        .fails_with(9);
    let echoed = cove
        .docker(["exec", "-i", "host", "cat"])
        .input("through exec")
        .ok();
    assert_eq!(echoed, "through exec");
    cove.docker(["rm", "-f", "host"]).ok();
}

pub(crate) fn a_volume_outlives_its_container(cove: &Cove) {
    cove.docker(["volume", "create", "kept"]).ok();
    cove.docker([
        "run",
        "--rm",
        "-v",
        "kept:/v",
        "alpine",
        "sh",
        "-c",
        "echo treasure > /v/chest",
    ])
    .ok();
    let found = cove
        .docker(["run", "--rm", "-v", "kept:/v", "alpine", "cat", "/v/chest"])
        .ok();
    assert_eq!(found, "treasure");
    cove.docker(["volume", "rm", "kept"]).ok();
}

pub(crate) fn containers_of_a_network_find_each_other_by_name(cove: &Cove) {
    cove.docker(["network", "create", "pair"]).ok();
    let serve = "while :; do echo hello from the server | nc -l -p 7000; done";
    cove.docker([
        "run",
        "-d",
        "--rm",
        "--network",
        "pair",
        "--name",
        "server",
        "alpine",
        "sh",
        "-c",
        serve,
    ])
    .ok();
    let ask = "for i in $(seq 100); do nc server 7000 </dev/null && exit; sleep 0.2; done; exit 1";
    let heard = cove
        .docker(["run", "--rm", "--network", "pair", "alpine", "sh", "-c", ask])
        .ok();
    assert!(heard.contains("hello from the server"), "{heard}");
    cove.docker(["rm", "-f", "server"]).ok();
    cove.docker(["network", "rm", "pair"]).ok();
}

pub(crate) fn binding_a_folder_that_is_not_shared_is_refused_with_the_command_that_shares_it(cove: &Cove) {
    let bind = "/home/nobody/project:/app";
    cove.docker(["run", "--rm", "-v", bind, "alpine", "true"])
        .run()
        .fails_with(125)
        .says(&[
            "`/home/nobody/project` is not shared",
            "there is nothing of that name",
            "cove share add /home/nobody/project",
        ]);
    let mount = "type=bind,source=/home/nobody/project,target=/app";
    cove.docker(["create", "--mount", mount, "alpine"])
        .run()
        .fails_with(1)
        .says(&["not shared"]);
}
