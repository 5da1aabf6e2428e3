//! Client and daemon: versions, pings, errors, events.

use crate::docker;
use cove_tests::harness::{Cove, Wire, within};
use serde_json::Value;
use std::time::Duration;

fn get(cove: &Cove, path: &str) -> (u16, Value) {
    let mut wire = Wire::connect(&cove.docker_socket());
    wire.send("GET", path, "", "");
    let answer = wire.response();
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

pub(crate) fn client_and_engine_agree_on_a_version(cove: &Cove) {
    let versions = cove
        .docker([
            "version",
            "--format",
            "{{.Client.APIVersion}} {{.Server.APIVersion}}",
        ])
        .ok();
    let (client, server) = versions.split_once(' ').unwrap();
    assert!(client <= server, "{versions}");
    // An old client speaks its own version, and one from the future is told what there is.
    let (status, old) = get(cove, "/v1.24/version");
    assert_eq!((status, old["ApiVersion"].as_str()), (200, Some(server)));
    let (status, refusal) = get(cove, "/v9.99/version");
    assert_eq!(status, 400);
    assert!(
        refusal["message"].as_str().unwrap().contains("is too new"),
        "{refusal}"
    );
}

pub(crate) fn ping_says_what_the_engine_is(cove: &Cove) {
    for method in ["GET", "HEAD"] {
        let mut wire = Wire::connect(&cove.docker_socket());
        wire.send(method, "/_ping", "", "");
        let (status, headers) = wire.head();
        assert_eq!(status, 200);
        for header in ["api-version: ", "builder-version: 2", "ostype: linux"] {
            assert!(headers.iter().any(|line| line.starts_with(header)), "{headers:?}");
        }
    }
}

pub(crate) fn errors_of_the_engine_arrive_unchanged(cove: &Cove) {
    let (status, error) = get(cove, "/containers/nobody/json");
    assert_eq!(status, 404);
    assert_eq!(error["message"], "No such container: nobody");
    cove.docker(["inspect", "nobody"])
        .run()
        .fails_with(1)
        .says(&["No such object: nobody"]);
    cove.docker(["run", "--rm", "--memory", "1b", "alpine", "true"])
        .run()
        .fails_with(125)
        .says(&["Minimum memory limit allowed is"]);
}

pub(crate) fn info_describes_a_whole_engine(cove: &Cove) {
    let info: Value = serde_json::from_str(&cove.docker(["info", "--format", "json"]).ok()).unwrap();
    assert_eq!(info["Driver"], "overlay2");
    assert_eq!(info["CgroupVersion"], "2");
    assert_eq!(info["OSType"], "linux");
    assert_eq!(info["Warnings"], Value::Null, "the engine lacks something");
    for limit in [
        "MemoryLimit",
        "SwapLimit",
        "CpuCfsQuota",
        "CPUShares",
        "CPUSet",
        "PidsLimit",
        "OomKillDisable",
    ] {
        // With cgroup v2 the kernel has no switch for the OOM killer.
        assert_eq!(info[limit], limit != "OomKillDisable", "{limit}");
    }
}

pub(crate) fn events_are_told_as_they_happen(cove: &Cove) {
    let mut watching = docker(cove, "events --filter container=eventful --format {{.Action}}").spawn();
    // The client subscribes in its own time; what it misses is in the engine's memory.
    docker(cove, "run --rm --name eventful alpine true").ok();
    let told = within(Duration::from_mins(1), "the events of a short life", || {
        let told = docker(
            cove,
            "events --since 5m --until 0s --filter container=eventful --format {{.Action}}",
        )
        .ok();
        told.contains("destroy").then_some(told)
    });
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told, ["create", "attach", "start", "die", "destroy"]);
    watching.kill().unwrap();
    watching.wait().unwrap();
}

pub(crate) fn disk_use_is_told_and_reclaimed(cove: &Cove) {
    docker(cove, "run --name spent alpine sh -c")
        .arg("dd if=/dev/zero of=/waste bs=1M count=3 2>&1")
        .ok();
    let used = cove
        .docker(["system", "df", "--format", "{{.Type}} {{.Size}}"])
        .ok();
    assert!(used.contains("Containers 3.1"), "{used}");
    let pruned = cove.docker(["system", "prune", "--force"]).ok();
    assert!(pruned.contains("Total reclaimed space: 3.1"), "{pruned}");
    cove.docker(["inspect", "spent"]).run().fails_with(1);
}
