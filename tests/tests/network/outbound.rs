//! What containers reach of this computer, by address and by name; servers are on its loopback.

use cove_tests::harness::{Cove, eventually, within};
use cove_wire::network;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// How long an answer from the hosts file may be kept, with much to spare.
const CHANGE: Duration = Duration::from_secs(45);
/// Lines of the large transfers, about seven megabytes.
const LINES: u32 = 1_000_000;
/// The usual network, whose packets have 1500 bytes, and the machine's own, whose packets have up to [`network::MTU`].
const NETWORKS: [[&str; 2]; 2] = [["--network", "bridge"], ["--network", "host"]];

/// Serves every client on a port of the loopback by `serve`, on threads that end with the tests.
fn server(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = std::sync::Arc::new(serve);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let serve = std::sync::Arc::clone(&serve);
            // A client that breaks off fails its own test.
            thread::spawn(move || serve(client));
        }
    });
    address
}

/// Answers the first line in upper case.
fn shouting() -> SocketAddr {
    server(|mut client| {
        let mut line = [0; 64];
        let count = client.read(&mut line)?;
        client.write_all(&line[..count].to_ascii_uppercase())
    })
}

/// `sh -c SCRIPT` in a container with `options`.
#[track_caller]
pub(crate) fn in_container(cove: &Cove, options: &[&str], script: &str) -> String {
    cove.docker(["run", "--rm"])
        .args(options)
        .args(["alpine", "sh", "-c", script])
        .ok()
}

/// Says a line and prints the answer. It leaves the end of the connection to the server, since the passt of Debian 12
/// repeats what it sends to somebody who has ended a connection's other direction.
pub(crate) fn say_to(name: &str, address: SocketAddr) -> String {
    converse(name, address, "echo hello; read answer; echo $answer >/answer")
}

/// Has `script` talk over a connection, then prints what it left in `/answer`.
fn converse(name: &str, address: SocketAddr, script: &str) -> String {
    format!(
        "nc -w 20 {name} {} -e sh -c '{script}' && cat /answer",
        address.port()
    )
}

/// What `seq` prints.
fn numbers() -> String {
    let mut text = String::new();
    for number in 1..=LINES {
        text.push_str(&number.to_string());
        text.push('\n');
    }
    text
}

pub(crate) fn a_container_reaches_the_hosts_loopback_by_name(cove: &Cove) {
    let address = shouting();
    for name in ["host.docker.internal", "gateway.docker.internal"] {
        assert_eq!(in_container(cove, &[], &say_to(name, address)), "HELLO");
    }
    let mtu = format!("/sys/class/net/{}/mtu", network::INTERFACE);
    let mtu = cove.cove(["exec", "cat", &mtu]).ok();
    assert_eq!(mtu, network::MTU.to_string());
    let named = ["--add-host", "my.host:host-gateway"];
    assert_eq!(in_container(cove, &named, &say_to("my.host", address)), "HELLO");
}

pub(crate) fn datagrams_of_a_container_reach_the_host_and_come_back(cove: &Cove) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..count].to_ascii_uppercase(), from);
        }
    });
    let script = format!(
        "echo datagram | nc -u -w 5 host.docker.internal {}",
        address.port()
    );
    assert_eq!(in_container(cove, &[], &script), "DATAGRAM");
}

pub(crate) fn large_transfers_arrive_whole_in_both_directions(cove: &Cove) {
    let source = server(|mut client| {
        client.write_all(numbers().as_bytes())?;
        // The container ends the connection: the passt of Debian 12 may break off what is under way when the host's end
        // of one is closed or half closed.
        client.read(&mut [0]).map(drop)
    });
    let all = format!("head -c {} | sha256sum >/answer", numbers().len());
    let script = converse("host.docker.internal", source, &all);
    for network in NETWORKS {
        let sums = in_container(cove, &network, &format!("{script}; seq 1 {LINES} | sha256sum"));
        let sums: Vec<&str> = sums.lines().collect();
        assert!(sums.len() == 2 && sums[0] == sums[1], "{network:?}: {sums:?}");
    }

    let sink = server(|mut client| {
        let expected = numbers();
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got)?;
        let verdict = if got == expected.as_bytes() {
            "whole"
        } else {
            "damaged"
        };
        writeln!(client, "{verdict}")
    });
    let script = format!("seq 1 {LINES}; read answer; echo $answer >/answer");
    let script = converse("host.docker.internal", sink, &script);
    for network in NETWORKS {
        assert_eq!(in_container(cove, &network, &script), "whole", "{network:?}");
    }
}

pub(crate) fn a_name_that_only_the_hosts_file_knows_is_known_to_containers(cove: &Cove) {
    let address = shouting();
    let write = |text: &str| fs::write(cove.hosts_file(), text).unwrap();
    write("127.0.0.1 localhost only-here.test\n");
    assert_eq!(
        in_container(cove, &[], &say_to("only-here.test", address)),
        "HELLO"
    );

    cove.docker(["network", "create", "own"]).ok();
    let own = ["--network", "own"];
    assert_eq!(
        in_container(cove, &own, &say_to("only-here.test", address)),
        "HELLO"
    );
    cove.docker(["network", "rm", "own"]).ok();

    write("192.0.2.77 only-here.test\n");
    within(CHANGE, "the change of a name to be seen", || {
        in_container(cove, &[], "nslookup -type=a only-here.test 2>&1 || true")
            .contains("192.0.2.77")
            .then_some(())
    });
}

pub(crate) fn containers_on_a_network_of_their_own_find_each_other_by_name(cove: &Cove) {
    cove.docker(["network", "create", "friends"]).ok();
    cove.docker([
        "run",
        "-d",
        "--rm",
        "--name",
        "friend",
        "--network",
        "friends",
        "alpine",
    ])
    .args(["nc", "-lk", "-p", "80", "-e", "echo", "here"])
    .ok();
    let script = "until nc -w 5 friend 80 </dev/null; do sleep 1; done";
    assert_eq!(in_container(cove, &["--network", "friends"], script), "here");
    cove.docker(["rm", "-f", "friend"]).ok();
    cove.docker(["network", "rm", "friends"]).ok();
}

pub(crate) fn the_way_out_comes_back_when_its_program_is_killed(cove: &Cove) {
    let address = shouting();
    let before = nat_programs(cove);
    assert_eq!(before.len(), 1, "one passt a machine: {before:?}");
    for pid in &before {
        // It confines itself, of which this is what others can see: a filter of system calls (proc_pid_status(5)).
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
        Cove::kill(*pid);
    }
    eventually("another passt to serve the machine", || {
        let now = nat_programs(cove);
        now.len() == 1 && now != before
    });
    let script = format!(
        "until {}; do sleep 1; done",
        say_to("host.docker.internal", address)
    );
    assert_eq!(in_container(cove, &[], &script), "HELLO");
}

/// The children of this Cove's machine process that are called passt, or as passt calls itself where the processor
/// allows for it (`passt.avx2`).
fn nat_programs(cove: &Cove) -> Vec<i32> {
    let parents = cove.processes_named("machine-process");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            // proc_pid_stat(5): the number, the name in parentheses, the state, the parent.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            let parent: i32 = rest.split(' ').nth(1)?.parse().ok()?;
            (name.starts_with("passt") && parents.contains(&parent)).then_some(pid)
        })
        .collect()
}
