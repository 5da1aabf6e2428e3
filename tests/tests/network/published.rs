//! Published ports, with real clients on loopback.

use super::explain::stops;
use cove_tests::harness::{Cove, eventually, free_port, within};
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

const LIMIT: Duration = Duration::from_mins(1);

/// Starts a container that publishes `port` as told and runs `server` for each of its clients.
#[track_caller]
fn publish(cove: &Cove, name: &str, published: &str, server: &str) {
    cove.docker(["run", "-d", "--rm", "--name", name, "-p", published, "alpine"])
        .args(["nc", "-lk", "-p", "80", "-e", "sh", "-c", server])
        .ok();
}

fn remove(cove: &Cove, name: &str) {
    cove.docker(["rm", "-f", name]).ok();
}

/// Sends `input`, ends it, and gives back all that is answered.
fn exchange(address: SocketAddr, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut sender = stream.try_clone()?;
    let input = input.to_vec();
    let sending = std::thread::spawn(move || {
        sender.write_all(&input)?;
        sender.shutdown(Shutdown::Write)
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    sending.join().unwrap()?;
    Ok(answer)
}

#[track_caller]
fn answer(address: SocketAddr, input: &[u8]) -> String {
    String::from_utf8(exchange(address, input).unwrap()).unwrap()
}

pub(crate) fn a_published_port_answers_as_soon_as_run_returns(cove: &Cove) {
    let port = free_port();
    for round in 0..3 {
        publish(cove, "greeter", &format!("{port}:80"), "echo hello");
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let got = answer(SocketAddr::new(address, port), b"");
            assert_eq!(got, "hello\n", "round {round}, {address}");
        }
        remove(cove, "greeter");
    }
}

/// With an HTTP client that tries once. Removing one takes place beside running the next, since it takes as long.
pub(crate) fn a_hundred_containers_in_a_row_answer_at_once(cove: &Cove) {
    // It reads the request first: one that is left unread resets the connection, and a reset may overtake the answer.
    let page = "while read -r line && [ ${#line} -gt 1 ]; do :; done; \
                printf 'HTTP/1.0 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n'";
    let mut missed = Vec::new();
    std::thread::scope(|scope| {
        let mut removing = None::<std::thread::ScopedJoinHandle<'_, ()>>;
        for round in 1..=100 {
            let (port, name) = (free_port(), format!("prompt-{round}"));
            publish(cove, &name, &format!("{port}:80"), page);
            let got = cove
                .program("curl")
                .args(["-sS", "--max-time", "60", &format!("http://localhost:{port}/")])
                .run();
            if got.text() != "hello" {
                missed.push(format!("{round}: {got}"));
            }
            if let Some(removing) = removing.replace(scope.spawn(move || remove(cove, &name))) {
                removing.join().unwrap();
            }
        }
    });
    println!("a hundred containers, {} missed", missed.len());
    assert!(missed.is_empty(), "{missed:?}");
}

pub(crate) fn a_port_of_the_engines_choice_is_known_at_once(cove: &Cove) {
    publish(cove, "chosen", "127.0.0.1::80", "echo chosen");
    let shown = cove.docker(["port", "chosen", "80/tcp"]).ok();
    assert_eq!(answer(shown.trim().parse().unwrap(), b""), "chosen\n", "{shown}");
    let format = "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}";
    let inspected = cove.docker(["inspect", "--format", format, "chosen"]).ok();
    assert_eq!(shown, format!("127.0.0.1:{inspected}"));
    remove(cove, "chosen");
}

pub(crate) fn a_port_in_use_fails_run_in_the_engines_words(cove: &Cove) {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let published = format!("127.0.0.1:{port}:80");
    cove.docker(["run", "--rm", "-p", &published, "alpine", "true"])
        .run()
        .fails_with(125)
        .says(&[&format!("127.0.0.1:{port}: bind: address already in use")]);
}

pub(crate) fn a_port_vanishes_with_its_container(cove: &Cove) {
    let port = free_port();
    publish(cove, "brief", &format!("127.0.0.1:{port}:80"), "echo here");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(answer(address, b""), "here\n");
    remove(cove, "brief");
    eventually("the port is released", || TcpListener::bind(address).is_ok());
}

pub(crate) fn datagrams_reach_a_container_and_come_back(cove: &Cove) {
    let port = free_port();
    cove.docker(["run", "-d", "--rm", "--name", "datagrams", "-p"])
        .arg(format!("127.0.0.1:{port}:53/udp"))
        .args(["alpine", "nc", "-lu", "-p", "53", "-e", "cat"])
        .ok();
    let exchange = |length: usize| -> io::Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let sent: Vec<u8> = (0..length).map(|number| number.to_le_bytes()[0]).collect();
        let mut got = vec![0; 65_536];
        // The server may not listen yet, and a datagram may be lost.
        for _ in 0..20 {
            socket.send(&sent)?;
            if let Ok(count) = socket.recv(&mut got) {
                return Ok(got[..count] == sent);
            }
        }
        Ok(false)
    };
    // busybox's nc serves the first client only, and relays in pieces of 1 KiB.
    assert!(exchange(900).unwrap(), "no answer, or another than what was sent");
    remove(cove, "datagrams");
}

pub(crate) fn half_close_and_much_data_pass_unharmed(cove: &Cove) {
    let port = free_port();
    let published = format!("127.0.0.1:{port}:80");
    publish(cove, "counter", &published, "sha256sum; echo and then some");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let zeroes = vec![0; 8 << 20];
    // Known from elsewhere: `head -c 8M /dev/zero | sha256sum`.
    let digest = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74";
    assert_eq!(answer(address, &zeroes), format!("{digest}  -\nand then some\n"));
    remove(cove, "counter");
}

/// As a program in a container finds what it has started by the engine's socket. It comes from a bridge, whose packets
/// the engine's own rules pass over.
pub(crate) fn a_container_reaches_anothers_port_by_its_own_networks_gateway(cove: &Cove) {
    let (everywhere, here) = (free_port(), free_port());
    publish(cove, "sibling", &format!("{everywhere}:80"), "echo found");
    publish(cove, "shy", &format!("127.0.0.1:{here}:80"), "echo found, too");
    // Both servers may still be starting.
    let script = format!(
        "set -- $(ip route | grep ^default); for try in $(seq 20); do nc -w 20 $3 {everywhere} </dev/null | grep . && \
         break; sleep 1; done; nc -w 5 $3 {here} </dev/null | grep . || echo nothing"
    );
    cove.docker(["network", "create", "apart"]).ok();
    for network in ["bridge", "apart"] {
        let heard = cove
            .docker(["run", "--rm", "--network", network, "alpine", "sh", "-c", &script])
            .run();
        assert_eq!(heard.text(), "found\nnothing", "{network}: {heard}");
    }
    cove.docker(["network", "rm", "apart"]).ok();
    remove(cove, "sibling");
    remove(cove, "shy");
}

pub(crate) fn ports_survive_a_daemon_that_is_killed(cove: &Cove) {
    let port = free_port();
    publish(
        cove,
        "survivor",
        &format!("127.0.0.1:{port}:80"),
        "echo still here",
    );
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(answer(address, b""), "still here\n");
    Cove::kill(cove.daemon_pid());
    cove.start();
    eventually("the port is published again", || {
        exchange(address, b"").is_ok_and(|answer| answer == b"still here\n")
    });
    remove(cove, "survivor");
}

pub(crate) fn a_port_that_was_taken_while_the_daemon_was_away_is_listed_so_and_comes_back(cove: &Cove) {
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    publish(cove, "robbed", &format!("{address}:80"), "echo robbed");
    assert_eq!(answer(address, b""), "robbed\n");
    Cove::kill(cove.daemon_pid());
    let taken = within(LIMIT, "the port to be free", || TcpListener::bind(address).ok());
    cove.start();
    eventually("the port to be listed as waited for", || {
        let listed = cove.cove(["ports"]).ok();
        listed.contains(&format!("{address} of robbed is waited for: "))
            && listed.contains("bind: address already in use")
    });
    // Who answers there is not the container.
    stops(
        cove,
        &[&address.to_string()],
        23,
        "published",
        "should lead to `robbed`, port 80, but Cove cannot have it: listen tcp4",
    );
    drop(taken);
    eventually("the port to be published again", || {
        exchange(address, b"").is_ok_and(|answer| answer == b"robbed\n")
    });
    assert!(!cove.cove(["ports"]).ok().contains("is waited for"));
    remove(cove, "robbed");
}

pub(crate) fn ranges_of_ports_and_all_that_are_exposed_are_published(cove: &Cove) {
    const SERVERS: &str =
        "for port in 81 82; do nc -lk -p $port -e echo $port & done; exec nc -lk -p 80 -e echo 80";
    let first = within(LIMIT, "three free ports in a row", || {
        let first = free_port();
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        (first..first + 3).all(free).then_some(first)
    });
    cove.docker(["run", "-d", "--rm", "--name", "range", "-p"])
        .arg(format!("127.0.0.1:{first}-{}:80-82", first + 2))
        .args(["alpine", "sh", "-c", SERVERS])
        .ok();
    for (port, inner) in (first..).zip(80..=82) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(answer(address, b""), format!("{inner}\n"));
    }
    remove(cove, "range");

    cove.docker(["run", "-d", "--rm", "--name", "exposed", "-P"])
        .args(["--expose", "80", "--expose", "82", "alpine", "sh", "-c", SERVERS])
        .ok();
    for inner in [80, 82] {
        let shown = cove.docker(["port", "exposed", &format!("{inner}/tcp")]).ok();
        let port: Option<u16> = shown
            .lines()
            .find_map(|line| line.strip_prefix("0.0.0.0:")?.parse().ok());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap()));
        assert_eq!(answer(address, b""), format!("{inner}\n"), "{shown}");
    }
    remove(cove, "exposed");
}

pub(crate) fn ports_go_and_come_with_an_engine_that_crashes(cove: &Cove) {
    let (stays, goes) = (free_port(), free_port());
    let stays = SocketAddr::from((Ipv4Addr::LOCALHOST, stays));
    let goes = SocketAddr::from((Ipv4Addr::LOCALHOST, goes));
    publish(cove, "goes", &format!("{goes}:80"), "echo gone");
    cove.docker(["run", "-d", "--restart", "always", "--name", "stays", "-p"])
        .arg(format!("{stays}:80"))
        .args(["alpine", "nc", "-lk", "-p", "80", "-e", "echo", "stays"])
        .ok();
    assert_eq!(answer(stays, b""), "stays\n");
    assert_eq!(answer(goes, b""), "gone\n");
    cove.cove(["exec", "sh", "-c", "kill -9 $(pidof dockerd)"]).ok();
    within(Duration::from_mins(3), "the port to be published again", || {
        exchange(stays, b"")
            .is_ok_and(|answer| answer == b"stays\n")
            .then_some(())
    });
    // Nobody restarts the other one's container.
    eventually("the port of a container that ended to be released", || {
        TcpListener::bind(goes).is_ok()
    });
    remove(cove, "stays");
    eventually("the port to be released", || TcpListener::bind(stays).is_ok());
}

pub(crate) fn ports_come_back_when_the_machine_restarts(cove: &Cove) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    cove.docker(["run", "-d", "--restart", "always", "--name", "lasting", "-p"])
        .arg(format!("{address}:80"))
        .args(["alpine", "nc", "-lk", "-p", "80", "-e", "echo", "lasting"])
        .ok();
    assert_eq!(answer(address, b""), "lasting\n");
    cove.cove(["stop"]).ok();
    assert!(TcpListener::bind(address).is_ok());
    cove.start();
    eventually("the port to be published again", || {
        exchange(address, b"").is_ok_and(|answer| answer == b"lasting\n")
    });
    remove(cove, "lasting");
}

pub(crate) fn published_ports_are_listed_with_their_containers(cove: &Cove) {
    let port = free_port();
    publish(cove, "listed", &format!("127.0.0.1:{port}:80"), "echo listed");
    let listed = cove.cove(["ports", "--json"]).ok();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
    let found = listed["published"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|listed| listed["host"] == format!("127.0.0.1:{port}"));
    let listed = found.map(|found| (found["name"].as_str(), found["protocol"].as_str()));
    assert_eq!(listed, Some((Some("listed"), Some("tcp"))));
    remove(cove, "listed");
    eventually("the port to be listed no more", || {
        !cove.cove(["ports"]).ok().contains(&format!("127.0.0.1:{port}"))
    });
}
