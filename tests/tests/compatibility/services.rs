//! Swarm mode on one machine: services, configs, secrets, stacks. Each test has a swarm of its own. Tasks are killed at
//! once where they end, and an update is watched for a moment only: ten and five seconds are Docker's defaults.

use crate::docker;
use cove_tests::harness::{Cove, within};
use std::{fs, time::Duration};

/// A swarm for as long as this lives.
struct Swarm<'a>(&'a Cove);

impl<'a> Swarm<'a> {
    fn begin(cove: &'a Cove) -> Self {
        docker(cove, "swarm init --advertise-addr 127.0.0.1").ok();
        Self(cove)
    }

    /// Waits until the service's containers that run have this output of `format`, one line each.
    #[track_caller]
    fn tasks(&self, service: &str, what: &str, expected: &[&str]) {
        within(Duration::from_mins(3), what, || {
            let tasks = docker(self.0, "service ps --filter desired-state=running --format")
                .args(["{{.Image}} {{.CurrentState}}", service])
                .ok();
            let mut running: Vec<&str> = tasks
                .lines()
                .filter_map(|line| line.split_once(" Running ").map(|(image, _)| image))
                .collect();
            running.sort_unstable();
            (running == expected).then_some(())
        });
    }
}

impl Drop for Swarm<'_> {
    fn drop(&mut self) {
        // What a failed test has left would fail the next one as well.
        docker(self.0, "swarm leave --force").run();
    }
}

pub(crate) fn a_service_is_scaled_updated_and_rolled_back(cove: &Cove) {
    docker(cove, "build -q -t alpine:next -")
        .input("FROM alpine\nRUN echo next > /release\n")
        .ok();
    docker(cove, "build -q -t alpine:broken -")
        .input("FROM alpine\nRUN rm /bin/sleep\n")
        .ok();
    let swarm = Swarm::begin(cove);
    docker(cove, "service create -q --no-resolve-image --name work --replicas 1 --stop-grace-period 0s --update-monitor 100ms --rollback-monitor 100ms alpine sleep 600").ok();
    swarm.tasks("work", "one task", &["alpine:latest"]);
    docker(cove, "service scale -d work=3").ok();
    swarm.tasks("work", "three tasks", &["alpine:latest"; 3]);
    docker(
        cove,
        "service update -d --no-resolve-image --update-order start-first --update-delay 2s --image alpine:next work",
    )
    .ok();
    swarm.tasks("work", "the new image", &["alpine:next"; 3]);
    // One after the other, with the delay between them.
    let tasks = docker(cove, "service ps -q --filter desired-state=running work").ok();
    let made = docker(cove, "inspect --type task --format {{.CreatedAt.UnixMilli}}")
        .args(tasks.lines())
        .ok();
    let mut made: Vec<u64> = made.lines().map(|made| made.parse().unwrap()).collect();
    made.sort_unstable();
    assert!(
        made.len() == 3 && made.windows(2).all(|two| two[1] - two[0] >= 2000),
        "{made:?}"
    );
    let ids = docker(cove, "ps -q --filter label=com.docker.swarm.service.name=work").ok();
    let newest = ids.lines().next().unwrap();
    assert_eq!(cove.docker(["exec", newest, "cat", "/release"]).ok(), "next");
    docker(cove, "service rollback -q work").ok();
    swarm.tasks("work", "the old image", &["alpine:latest"; 3]);
    // What does not start is taken back without being asked.
    docker(cove, "service update -d --no-resolve-image --update-delay 0s --update-failure-action rollback --image alpine:broken work").ok();
    within(Duration::from_mins(3), "the update to be taken back", || {
        let state = docker(cove, "service inspect --format {{.UpdateStatus.State}} work").ok();
        (state == "rollback_completed").then_some(())
    });
    swarm.tasks("work", "the image that works", &["alpine:latest"; 3]);
    docker(cove, "service rm work").ok();
    drop(swarm);
    docker(cove, "rmi alpine:next alpine:broken").ok();
}

pub(crate) fn a_task_that_dies_is_replaced(cove: &Cove) {
    let swarm = Swarm::begin(cove);
    docker(
        cove,
        "service create -q --no-resolve-image --name mortal --restart-delay 0s --stop-grace-period 0s alpine sleep 600",
    )
    .ok();
    swarm.tasks("mortal", "the first task", &["alpine:latest"]);
    let task = || docker(cove, "ps -q --filter label=com.docker.swarm.service.name=mortal").ok();
    let first = task();
    docker(cove, "kill").arg(&first).ok();
    within(Duration::from_mins(2), "another task", || {
        let now = task();
        (!now.is_empty() && now != first).then_some(())
    });
}

pub(crate) fn configs_and_secrets_reach_the_tasks_that_have_them(cove: &Cove) {
    let swarm = Swarm::begin(cove);
    docker(cove, "secret create password -").input("open sesame").ok();
    docker(cove, "config create motto -").input("keep calm").ok();
    docker(cove, "service create -q --no-resolve-image --name holder --secret password --config source=motto,target=/motto --stop-grace-period 0s alpine sleep 600").ok();
    swarm.tasks("holder", "the task", &["alpine:latest"]);
    let task = docker(cove, "ps -q --filter label=com.docker.swarm.service.name=holder").ok();
    let seen = cove
        .docker(["exec", &task, "cat", "/run/secrets/password", "/motto"])
        .ok();
    assert_eq!(seen, "open sesamekeep calm");
    let shown = docker(cove, "secret inspect password").ok();
    assert!(!shown.contains("sesame"), "{shown}");
    docker(cove, "secret rm password")
        .run()
        .fails_with(1)
        .says(&["in use by"]);
}

/// One service asks the other by its name, on the network that the stack has of itself.
const STACK: &str = "
services:
  a:
    image: alpine
    command: nc -lk -p 80 -e cat /motto /run/secrets/password
    stop_grace_period: 0s
    deploy: {replicas: 2}
    configs: [{source: motto, target: /motto}]
    secrets: [password]
  b:
    image: alpine
    command: sh -c 'until nc -w 5 a 80 < /dev/null > /heard && test -s /heard; do sleep 1; done; sleep 600'
    stop_grace_period: 0s
configs: {motto: {file: ./motto}}
secrets: {password: {file: ./password}}
";

pub(crate) fn a_stack_comes_up_and_goes_as_one(cove: &Cove) {
    let swarm = Swarm::begin(cove);
    let place = cove.scratch().join("pile");
    fs::create_dir_all(&place).unwrap();
    let file = place.join("stack.yaml");
    fs::write(&file, STACK).unwrap();
    fs::write(place.join("motto"), "keep calm, ").unwrap();
    fs::write(place.join("password"), "open sesame").unwrap();
    docker(cove, "stack deploy --resolve-image never -c")
        .arg(&file)
        .arg("pile")
        .ok();
    swarm.tasks("pile_a", "two tasks", &["alpine:latest"; 2]);
    swarm.tasks("pile_b", "one task", &["alpine:latest"]);
    let services = docker(cove, "stack services --format {{.Name}} pile").ok();
    assert_eq!(services, "pile_a\npile_b");
    let asker = docker(cove, "ps -q --filter label=com.docker.swarm.service.name=pile_b").ok();
    within(Duration::from_mins(2), "one service to hear the other", || {
        let heard = docker(cove, "exec").args([&asker, "cat", "/heard"]).run();
        (heard.text() == "keep calm, open sesame").then_some(())
    });
    docker(cove, "stack rm pile").ok();
    for kind in ["ps", "network ls", "config ls", "secret ls"] {
        within(Duration::from_mins(2), kind, || {
            docker(
                cove,
                &format!("{kind} -q --filter label=com.docker.stack.namespace=pile"),
            )
            .ok()
            .is_empty()
            .then_some(())
        });
    }
}
