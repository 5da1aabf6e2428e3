//! The engine's network drivers that need more of the guest's kernel than a bridge.

use cove_tests::harness::Cove;

/// Two containers on a network of `driver` hear each other.
#[track_caller]
fn two_hear_each_other(cove: &Cove, driver: &str) {
    cove.docker([
        "network",
        "create",
        "-d",
        driver,
        "--subnet",
        "10.77.0.0/24",
        "flat",
    ])
    .ok();
    cove.docker(["run", "-d", "--rm", "--name", "listener", "--network", "flat"])
        .args([
            "--ip",
            "10.77.0.10",
            "alpine",
            "nc",
            "-lk",
            "-p",
            "80",
            "-e",
            "echo",
            "heard",
        ])
        .ok();
    let script = "until nc -w 5 10.77.0.10 80 </dev/null; do sleep 1; done";
    let heard = cove
        .docker(["run", "--rm", "--network", "flat", "alpine", "sh", "-c", script])
        .ok();
    assert_eq!(heard, "heard", "{driver}");
    cove.docker(["rm", "-f", "listener"]).ok();
    cove.docker(["network", "rm", "flat"]).ok();
}

pub(crate) fn containers_on_a_macvlan_network_hear_each_other(cove: &Cove) {
    two_hear_each_other(cove, "macvlan");
}

pub(crate) fn containers_on_an_ipvlan_network_hear_each_other(cove: &Cove) {
    two_hear_each_other(cove, "ipvlan");
}

/// From within its network. Ports that services publish end in the guest so far.
pub(crate) fn a_swarm_of_one_serves_from_an_overlay_network(cove: &Cove) {
    cove.docker(["swarm", "init", "--advertise-addr", "127.0.0.1"])
        .ok();
    cove.docker(["network", "create", "-d", "overlay", "--attachable", "over"])
        .ok();
    cove.docker([
        "service",
        "create",
        "--detach",
        "--name",
        "served",
        "--network",
        "over",
    ])
    .args(["--no-resolve-image", "alpine"])
    .args(["nc", "-lk", "-p", "80", "-e", "echo", "served"])
    .ok();
    // By the service's name on its network, from another container.
    let script = "until nc -w 5 served 80 </dev/null; do sleep 1; done";
    let served = cove
        .docker(["run", "--rm", "--network", "over", "alpine", "sh", "-c", script])
        .ok();
    assert_eq!(served, "served");
    cove.docker(["swarm", "leave", "--force"]).ok();
}
