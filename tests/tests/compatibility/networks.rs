//! Networks, as containers see them.

use crate::{docker, output_of};
use cove_tests::harness::{Cove, Running, eventually};
use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

/// A server at port 80 that answers with its own name.
fn serve(cove: &Cove, name: &str, options: &str) {
    docker(
        cove,
        &format!("run -d --name {name} {options} alpine nc -lk -p 80 -e hostname"),
    )
    .ok();
    eventually("the server", || {
        docker(cove, &format!("exec {name} nc -z 127.0.0.1 80"))
            .run()
            .code
            == Some(0)
    });
}

fn address(cove: &Cove, container: &str, network: &str) -> String {
    cove.docker(["inspect", "--format"])
        .arg(format!(
            "{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"
        ))
        .arg(container)
        .ok()
}

pub(crate) fn the_default_bridge_connects_by_address(cove: &Cove) {
    serve(cove, "bridged", "--hostname bridged");
    let at = address(cove, "bridged", "bridge");
    assert_eq!(
        output_of(cove, "--network bridge", &format!("nc {at} 80 < /dev/null")),
        "bridged"
    );
    docker(cove, "rm -f bridged").ok();
}

pub(crate) fn a_network_of_ones_own_has_names_aliases_and_fixed_addresses(cove: &Cove) {
    docker(cove, "network create --subnet 172.30.5.0/24 own").ok();
    serve(
        cove,
        "named",
        "--hostname named --network own --network-alias other --ip 172.30.5.77",
    );
    for name in ["named", "other", "172.30.5.77"] {
        assert_eq!(
            output_of(cove, "--network own", &format!("nc {name} 80 < /dev/null")),
            "named",
            "{name}"
        );
    }
    // Another network does not know the name and does not reach the address.
    docker(cove, "network create other").ok();
    for (name, why) in [("named", "bad address"), ("172.30.5.77", "")] {
        let stranger = docker(cove, "run --rm --network other alpine nc -w 3")
            .args([name, "80"])
            .run();
        stranger.fails_with(1).says(&[why]);
    }
    docker(cove, "network rm other").ok();
    docker(cove, "rm -f named").ok();
    docker(cove, "network rm own").ok();
}

pub(crate) fn an_internal_network_leads_nowhere_else(cove: &Cove) {
    docker(cove, "network create --internal inner").ok();
    serve(cove, "insider", "--network inner --hostname insider");
    serve(cove, "outsider", "--hostname outsider");
    let ask = |who: &str| format!("nc -w 3 {who} 80 < /dev/null || echo no answer");
    assert_eq!(output_of(cove, "--network inner", &ask("insider")), "insider");
    // This computer and what is in another network: each answers, but not to those within.
    let outsider = address(cove, "outsider", "bridge");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ours = format!(
        "nc -z -w 3 host.docker.internal {} && echo host || echo no answer",
        listener.local_addr().unwrap().port()
    );
    assert_eq!(output_of(cove, "", &ask(&outsider)), "outsider");
    assert_eq!(output_of(cove, "", &ours), "host");
    assert_eq!(output_of(cove, "--network inner", &ask(&outsider)), "no answer");
    assert_eq!(output_of(cove, "--network inner", &ours), "no answer");
    docker(cove, "rm -f insider outsider").ok();
    docker(cove, "network rm inner").ok();
}

pub(crate) fn host_is_the_machines_own_network_and_none_is_none(cove: &Cove) {
    docker(
        cove,
        "run -d --name hosted --network host alpine nc -lk -p 4321 -e ls /sys/class/net",
    )
    .ok();
    let mut forward = cove.cove(["forward", "0:127.0.0.1:4321"]).spawn();
    let mut line = String::new();
    BufReader::new(forward.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let _forward = Running(forward);
    let (here, _) = line.split_once(" -> ").unwrap();
    // It listens on the machine's own loopback, in its own time, and sees the machine's own devices.
    eventually("the server", || {
        let mut devices = String::new();
        TcpStream::connect(here).is_ok_and(|mut stream| stream.read_to_string(&mut devices).is_ok())
            && devices.lines().any(|device| device == "docker0")
    });
    docker(cove, "rm -f hosted").ok();
    assert_eq!(output_of(cove, "--network none", "ls /sys/class/net"), "lo");
}

pub(crate) fn a_container_is_linked_the_old_way(cove: &Cove) {
    serve(cove, "server", "--hostname server --expose 80");
    let linked = output_of(
        cove,
        "--link server:backend",
        "nc backend 80 < /dev/null; env | grep BACKEND_PORT_80_TCP_PORT",
    );
    assert_eq!(linked, "server\nBACKEND_PORT_80_TCP_PORT=80");
    docker(cove, "rm -f server").ok();
}

pub(crate) fn a_running_container_is_connected_and_disconnected(cove: &Cove) {
    docker(cove, "network create late").ok();
    docker(cove, "run -d --name joiner alpine sleep 600").ok();
    let devices = || docker(cove, "exec joiner ls /sys/class/net").ok();
    docker(cove, "network connect --alias newcomer late joiner").ok();
    assert!(devices().contains("eth1"));
    output_of(cove, "--network late", "ping -c 1 -W 5 newcomer");
    docker(cove, "network disconnect late joiner").ok();
    assert!(!devices().contains("eth1"));
    docker(cove, "rm -f joiner").ok();
    docker(cove, "network rm late").ok();
}

pub(crate) fn ipv6_networks_carry_ipv6(cove: &Cove) {
    docker(cove, "network create --ipv6 --subnet fd00:beef::/64 six").ok();
    docker(
        cove,
        "run -d --name sixth --network six --ip6 fd00:beef::6 alpine sleep 600",
    )
    .ok();
    output_of(cove, "--network six", "ping -6 -c 1 -W 5 fd00:beef::6");
    docker(cove, "rm -f sixth").ok();
    docker(cove, "network rm six").ok();
}

pub(crate) fn networks_are_listed_inspected_and_pruned(cove: &Cove) {
    docker(cove, "network create --label mine=1 unused").ok();
    assert_eq!(
        docker(cove, "network ls -q --filter label=mine=1")
            .ok()
            .lines()
            .count(),
        1
    );
    assert_eq!(
        docker(cove, "network inspect --format {{.Driver}} unused").ok(),
        "bridge"
    );
    docker(cove, "network prune -f").ok();
    eventually("the prune", || {
        docker(cove, "network inspect unused").run().code == Some(1)
    });
    docker(cove, "network rm bridge")
        .run()
        .fails_with(1)
        .says(&["pre-defined network"]);
}
