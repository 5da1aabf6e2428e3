//! `cove net explain`: each cause is arranged for real, and has to be found.

use cove_tests::harness::{Cove, free_port, within};
use cove_wire::network;
use serde_json::Value;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    time::Duration,
};

/// How long a container's programs may take to listen.
const STARTING: Duration = Duration::from_mins(1);

/// What the command says, and its exit code.
#[track_caller]
fn explain(cove: &Cove, arguments: &[&str]) -> (i32, Value) {
    let finished = cove.cove(["net", "explain", "--json"]).args(arguments).run();
    let told = serde_json::from_slice(&finished.stdout).unwrap();
    (finished.code.unwrap_or(-1), told)
}

/// Expects the way to stop at `station` for a reason that has this `code`, with `evidence`, and with what to do.
#[track_caller]
pub(crate) fn stops(cove: &Cove, arguments: &[&str], code: i32, station: &str, evidence: &str) {
    let (got, told) = explain(cove, arguments);
    let hops = told["hops"].as_array().unwrap();
    let last = hops.last().unwrap();
    assert!(
        got == code && last["station"] == station && last["passed"] == false,
        "{arguments:?}: {got}, {told:#}"
    );
    let said = last["evidence"].as_str().unwrap_or_default();
    assert!(
        said.contains(evidence),
        "{arguments:?}: nothing says `{evidence}`: {told:#}"
    );
    assert!(last["advice"].is_string(), "{arguments:?}: no advice: {told:#}");
    assert!(
        hops[..hops.len() - 1].iter().all(|hop| hop["passed"] == true),
        "{told:#}"
    );
}

#[track_caller]
fn reaches(cove: &Cove, arguments: &[&str], evidence: &str) {
    let (got, told) = explain(cove, arguments);
    assert!(
        got == 0 && told["verdict"] == "reachable",
        "{arguments:?}: {got}, {told:#}"
    );
    assert!(
        told.to_string().contains(evidence),
        "{arguments:?}: nothing says `{evidence}`: {told:#}"
    );
}

pub(crate) fn every_hop_at_which_a_way_can_stop_is_found(cove: &Cove) {
    let [open, shy, closed, unused] = [(); 4].map(|()| free_port());
    let publish = |port: u16, inner: u16| format!("127.0.0.1:{port}:{inner}");
    cove.docker(["run", "-d", "--name", "maze"])
        .args([
            "-p",
            &publish(open, 80),
            "-p",
            &publish(shy, 81),
            "-p",
            &publish(closed, 82),
        ])
        .args(["alpine", "sh", "-c"])
        .arg("nc -lk -s 127.0.0.1 -p 81 -e echo shy & exec nc -lk -p 80 -e echo open")
        .ok();
    let at = |port: u16| format!("localhost:{port}");
    within(STARTING, "the container's program to listen", || {
        (explain(cove, &[&at(open)]).0 == 0).then_some(())
    });

    // From this computer.
    reaches(
        cove,
        &[&format!("http://localhost:{open}/page")],
        "a program answers at",
    );
    reaches(cove, &["maze"], "Cove listens on");
    stops(cove, &[&at(shy)], 26, "server", "127.0.0.1:81");
    stops(cove, &[&at(closed)], 25, "server", "[::]:80");
    stops(
        cove,
        &[&at(unused)],
        23,
        "published",
        &format!("publishes port {unused}"),
    );
    stops(cove, &[&format!("[::1]:{open}")], 23, "published", "127.0.0.1");
    stops(cove, &["maze:7777"], 23, "published", "not port 7777");
    stops(cove, &["maze.cove.localhost"], 23, "web", "web.port");
    stops(
        cove,
        &["no-such-name.invalid:80"],
        20,
        "name",
        "no-such-name.invalid",
    );
    let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let own_port = own.local_addr().unwrap().port();
    reaches(cove, &[&at(own_port)], "another program");

    // From the container.
    let from = |target: String| [target, "--from".to_owned(), "maze".to_owned()];
    let stops_from = |target: String, code, station: &str, evidence: &str| {
        stops(
            cove,
            &from(target).each_ref().map(String::as_str),
            code,
            station,
            evidence,
        );
    };
    let host = |port: u16| format!("host.docker.internal:{port}");
    reaches(
        cove,
        &from(host(own_port)).each_ref().map(String::as_str),
        "a program of this computer answers",
    );
    stops_from(host(unused), 25, "host", "this computer");
    stops_from(
        "no-such-name.invalid:80".into(),
        20,
        "name",
        "no-such-name.invalid",
    );
    stops_from(at(unused), 25, "server", "`maze`");
    if let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        let port = other.local_addr().unwrap().port();
        stops_from(format!("192.168.127.1:{port}"), 26, "host", "[::1]");
    }

    let address = cove
        .docker(["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "maze"])
        .ok();
    // An address that the engine took, whoever else has it.
    let network: Vec<&str> = address.trim().split('.').take(2).collect();
    stops_from(
        format!("{}.255.254:80", network.join(".")),
        21,
        "route",
        "the engine's network `bridge`",
    );
    // The machine's own there, which elsewhere is the computer's.
    let gateway = cove
        .docker(["inspect", "-f", "{{.NetworkSettings.Gateway}}", "maze"])
        .ok();
    stops_from(
        format!("{}:{unused}", gateway.trim()),
        25,
        "server",
        "the machine itself",
    );
    // A rule in the machine that refuses what a program would take, or drops it, as firewalls do.
    let rule = |change: &str, target: &[&str]| {
        let words = ["OUTPUT", "-d", &address, "-p", "tcp", "--dport", "80", "-j"];
        cove.cove(["exec", "iptables", change])
            .args(words)
            .args(target)
            .ok();
    };
    for (target, code, evidence) in [
        (&["REJECT", "--reject-with", "tcp-reset"][..], 27, "are refused"),
        (&["DROP"], 28, "get no answer"),
    ] {
        rule("-I", target);
        stops(cove, &[&at(open)], code, "server", evidence);
        rule("-D", target);
    }

    cove.cove(["exec", "ip", "link", "set", "eth0", "down"]).ok();
    stops_from(host(own_port), 22, "nat", "network is down");
    cove.cove(["exec", "ip", "link", "set", "eth0", "up"]).ok();
    // The device has kept its addresses; the routes that the tests after this one need went with it, in both families.
    for (family, gateway) in [
        ("-4", IpAddr::from(network::GATEWAY_V4)),
        ("-6", IpAddr::from(network::GATEWAY_V6)),
    ] {
        cove.cove(["exec", "ip", family, "route", "add", "default"])
            .args(["via", &gateway.to_string(), "dev", network::INTERFACE])
            .ok();
    }
    cove.docker(["exec", "--privileged", "maze", "ip", "route", "del", "default"])
        .ok();
    stops_from("192.0.2.7:80".into(), 21, "route", "no route");
    cove.docker(["pause", "maze"]).ok();
    stops(cove, &[&at(open)], 24, "container", "paused");
    cove.docker(["rm", "-f", "maze"]).ok();
    let missing = cove.cove(["net", "explain", "x:80", "--from", "maze"]).run();
    missing.fails_with(4).says(&["no container `maze`", "hint: "]);
    let odd = cove.cove(["net", "explain", "web:http"]).run();
    odd.fails_with(2).says(&["`http` is not a port"]);
}
