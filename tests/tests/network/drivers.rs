//! The engine's network drivers that need more of the guest's kernel than a bridge.

use super::peer;
use cove_tests::harness::{Cove, eventually, free_port, within};
use cove_wire::network::GATEWAY_V6;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_mins(2);
/// How long a swarm may take to be whole again after its machine's restart.
const RESTARTING: Duration = Duration::from_mins(3);

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

/// This computer's IPv6 loopback is beyond the bridge, and beyond the machine. The containers have a route there in any
/// case, as one that may do so could make itself.
pub(crate) fn a_network_with_ipv6_has_a_way_out_and_an_internal_one_has_none(cove: &Cove) {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // One that breaks off fails its own test.
            let _ = client.write_all(b"reached\n");
        }
    });
    for (number, internal) in [(1, false), (2, true)] {
        if !internal && !has_default_route_of_ipv6() {
            println!("this computer has no default route of IPv6, without which passt may carry none");
            continue;
        }
        let subnet = format!("fd00:78:{number}::/64");
        let gateway = format!("fd00:78:{number}::1");
        cove.docker(["network", "create", "--ipv6", "--subnet", &subnet])
            .args(["--gateway", &gateway, "--subnet", &format!("10.78.{number}.0/24")])
            .args(internal.then_some("--internal"))
            .arg("ways")
            .ok();
        // On a computer that has much to do, the way out takes its time; that there is none is seen soon enough.
        let patience = if internal { 10 } else { 60 };
        let script = format!(
            "until ping -6 -c 1 -W 5 {gateway} >&2; do sleep 1; done; ip -6 route replace default via {gateway} && \
             nc -w {patience} {GATEWAY_V6} {port} -e sh -c 'read answer; echo $answer >/answer'; cat /answer"
        );
        let run = [
            "run",
            "--rm",
            "--network",
            "ways",
            "--cap-add",
            "NET_ADMIN",
            "alpine",
        ];
        let got = cove.docker(run).args(["sh", "-c", &script]).run();
        let expected = if internal { "" } else { "reached" };
        assert_eq!(got.text(), expected, "{got}");
        // What it tried, it could try.
        assert!(got.stderr.contains("1 packets received"), "{got}");
        cove.docker(["network", "rm", "ways"]).ok();
    }
}

/// Whether this computer has one: the second field of a line is how many bits of the first the route is for, the last
/// one its device. What has no route is refused by one of the loopback device.
fn has_default_route_of_ipv6() -> bool {
    let routes = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    routes.lines().any(|route| {
        let fields: Vec<&str> = route.split_whitespace().collect();
        fields.get(1) == Some(&"00") && fields.last() != Some(&"lo")
    })
}

/// From within its network, by its name; by datagrams through a port of this computer.
pub(crate) fn a_swarm_of_one_serves_from_an_overlay_network(cove: &Cove) {
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    swarm_with_overlay(cove);
    serve(cove, &["--replicas", "1"], "served");
    cove.docker(["service", "create", "--detach", "--name", "echoing", "--publish"])
        .arg(format!("{port}:{}/udp", peer::PORT))
        .args(["--no-resolve-image", "--stop-grace-period", "2s", "--mount"])
        .arg(format!(
            "type=bind,source={},target=/peer,readonly",
            peer::folder(cove).display()
        ))
        .args(["alpine", "/peer/cove-peer", &peer::PORT.to_string()])
        .ok();
    assert_eq!(heard(cove, "over", "served"), "served");
    // What came before there was a rule for it would keep its flow from the service.
    within(LIMIT, "the task to run", || {
        let running = cove
            .docker(["service", "ls", "--filter", "name=echoing", "--format"])
            .arg("{{.Replicas}}")
            .ok();
        (running == "1/1").then_some(())
    });
    within(LIMIT, "a datagram to come back", || {
        peer::datagram_comes_back(address, 900)
            .is_ok_and(|whole| whole)
            .then_some(())
    });
    cove.docker(["service", "rm", "served", "echoing"]).ok();
    eventually("the service's port is released", || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
    });

    // On one node nothing travels that would be encrypted; the engine sets up the rules for it all the same.
    cove.docker(["network", "create", "-d", "overlay", "--attachable"])
        .args(["--opt", "encrypted", "sealed"])
        .ok();
    cove.docker(["run", "-d", "--rm", "--name", "keeper", "--network", "sealed"])
        .args(["alpine", "nc", "-lk", "-p", "80", "-e", "echo", "kept"])
        .ok();
    assert_eq!(heard(cove, "sealed", "keeper"), "kept");
    cove.docker(["rm", "-f", "keeper"]).ok();
    cove.docker(["swarm", "leave", "--force"]).ok();
}

/// The node's certificates and the network's addresses are on the data disk.
pub(crate) fn a_swarm_keeps_its_node_and_its_overlay_network_when_the_machine_restarts(cove: &Cove) {
    let port = free_port();
    swarm_with_overlay(cove);
    serve(
        cove,
        &["--replicas", "1", "--publish", &format!("{port}:80")],
        "lasting",
    );
    let answers = || {
        within(RESTARTING, "the service to answer on this computer", || {
            ask(port).is_ok_and(|answer| answer == "lasting").then_some(())
        });
    };
    answers();
    let nodes = || {
        cove.docker(["node", "ls", "--format", "{{.ID}} {{.Status}} {{.ManagerStatus}}"])
            .run()
            .text()
    };
    // Signed by what it signed before, or it would be another swarm.
    let authority = || cove.docker(["swarm", "ca"]).run().text();
    let before = (nodes(), authority());
    assert!(before.0.ends_with(" Ready Leader"), "{}", before.0);
    assert!(before.1.contains("BEGIN CERTIFICATE"), "{}", before.1);

    cove.cove(["restart"]).limit(Duration::from_mins(5)).ok();
    within(RESTARTING, "the node to lead the same swarm again", || {
        ((nodes(), authority()) == before).then_some(())
    });
    answers();
    assert_eq!(heard(cove, "over", "served"), "lasting");
    cove.docker(["service", "rm", "served"]).ok();
    eventually("the service's port is released", || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
    });
    cove.docker(["swarm", "leave", "--force"]).ok();
}

/// A swarm of this one node, with the overlay network `over`, which containers can join.
#[track_caller]
fn swarm_with_overlay(cove: &Cove) {
    cove.docker(["swarm", "init", "--advertise-addr", "127.0.0.1"])
        .ok();
    cove.docker(["network", "create", "-d", "overlay", "--attachable", "over"])
        .ok();
}

/// What a container on the network hears from the service or container `name`.
#[track_caller]
fn heard(cove: &Cove, network: &str, name: &str) -> String {
    let script = format!("until nc -w 5 {name} 80 </dev/null; do sleep 1; done");
    cove.docker(["run", "--rm", "--network", network, "alpine", "sh", "-c", &script])
        .ok()
}

/// A service on the overlay network that answers `answer`.
#[track_caller]
fn serve(cove: &Cove, options: &[&str], answer: &str) {
    cove.docker([
        "service",
        "create",
        "--detach",
        "--name",
        "served",
        "--network",
        "over",
    ])
    .args(options)
    .args(["--no-resolve-image", "--stop-grace-period", "2s", "--env"])
    .arg(format!("ANSWER={answer}"))
    .args(["alpine", "sh", "-c", "exec nc -lk -p 80 -e sh -c 'echo $ANSWER'"])
    .ok();
}

/// What the service answers through its port on this computer.
fn ask(port: u16) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer.trim_end().to_owned())
}

pub(crate) fn a_service_is_updated_without_a_failed_request_through_its_port(cove: &Cove) {
    let port = free_port();
    swarm_with_overlay(cove);
    serve(
        cove,
        &["--replicas", "2", "--publish", &format!("{port}:80")],
        "before",
    );
    within(LIMIT, "the service to answer on this computer", || {
        ask(port).is_ok_and(|answer| answer == "before").then_some(())
    });
    within(LIMIT, "both tasks to run", || {
        let running = cove.docker(["service", "ls", "--format", "{{.Replicas}}"]).ok();
        (running == "2/2").then_some(())
    });
    let updated = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = Vec::new();
            while !updated.load(Ordering::Relaxed) {
                answers.push(ask(port));
            }
            // A task of before may answer until it has stopped.
            let stopped = Instant::now() + LIMIT;
            loop {
                answers.push(ask(port));
                let is_after = answers
                    .last()
                    .is_some_and(|answer| answer.as_ref().is_ok_and(|answer| answer == "after"));
                if is_after || Instant::now() > stopped {
                    break answers;
                }
            }
        });
        cove.docker(["service", "update", "--quiet", "--update-order", "start-first"])
            .args(["--update-monitor", "1s", "--env-add", "ANSWER=after", "served"])
            .ok();
        updated.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    let failed: Vec<&io::Error> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} requests failed: {failed:?}",
        failed.len(),
        answers.len()
    );
    assert!(
        answers.len() > 10,
        "{} requests are too few to show anything",
        answers.len()
    );
    assert_eq!(answers.last().unwrap().as_deref().ok(), Some("after"));
    println!("{} requests during the update, none failed", answers.len());
    cove.docker(["service", "rm", "served"]).ok();
    eventually("the service's port is released", || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
    });
    cove.docker(["swarm", "leave", "--force"]).ok();
}
