//! What published ports make of connections that are reset, slow, short, many or of the other family, and of datagrams
//! of every size.

use super::peer::{LIMIT, PORT, Peer, ask, datagram_comes_back, receive, send, told};
use cove_tests::harness::{Cove, eventually, free_port, within};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    process::Child,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Much more than all the sockets on the way hold.
const MUCH: u64 = 32 << 20;
/// What the daemon may grow by while a reader does not read.
const GROWTH: u64 = 8 << 20;
/// What ten thousand connections may take of the usual tests' time; the long ones take as many minutes as they need.
const SOME_TIME: Duration = Duration::from_secs(10);
const ALL_THE_TIME: Duration = Duration::from_mins(10);
const CONNECTIONS: usize = 10_000;
/// Clients that make them.
const CLIENTS: usize = 32;
/// Connections that are open at once.
const AT_ONCE: usize = 1000;

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What publishes the peer on a port of the IPv4 loopback.
fn on_loopback(port: u16) -> String {
    format!("127.0.0.1:{port}:{PORT}")
}

pub(crate) fn a_reset_on_one_side_is_a_reset_on_the_other_and_an_end_an_end(cove: &Cove) {
    let port = free_port();
    let _peer = Peer::run(cove, "resetter", &["-p", &on_loopback(port)]);
    resets_and_ends_pass(loopback(port));

    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = cove.docker(["inspect", "--format", format, "resetter"]).ok();
    let forward = Forward::to(cove, &format!("{address}:{PORT}"));
    resets_and_ends_pass(forward.listen);
    // Nobody listens there, which is no empty answer.
    let nobody = Forward::to(cove, &format!("{address}:1"));
    let mut client = TcpStream::connect(nobody.listen).unwrap();
    let end = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}

/// A forwarded port, until this is dropped.
struct Forward {
    process: Child,
    listen: SocketAddr,
}

impl Forward {
    #[track_caller]
    fn to(cove: &Cove, target: &str) -> Self {
        let mut process = cove.cove(["forward", &format!("0:{target}")]).spawn();
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let listen = line
            .split_once(" -> ")
            .and_then(|(listen, _)| listen.parse().ok());
        Self {
            process,
            listen: listen.unwrap(),
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn resets_and_ends_pass(peer: SocketAddr) {
    const BEFORE: u64 = 100_000;
    let mut client = ask(peer, b'r', Some(BEFORE)).unwrap();
    receive(&mut client, BEFORE).unwrap();
    client.write_all(b".").unwrap();
    let end = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));

    for how in ["reset", "end"] {
        let mut client = ask(peer, b'w', None).unwrap();
        client.read_exact(&mut [0]).unwrap();
        if how == "reset" {
            rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        eventually("the container to see how its client left", || {
            told(peer, b'l').is_ok_and(|last| last == how)
        });
    }
}

pub(crate) fn slow_readers_hold_back_whoever_sends_and_get_every_byte(cove: &Cove) {
    let port = free_port();
    let _peer = Peer::run(cove, "slow", &["-p", &on_loopback(port)]);
    // Once, so that what is made for the first connection does not count.
    assert_eq!(told(loopback(port), b'l').unwrap(), "");
    let before = resident(cove.daemon_pid());

    let mut client = ask(loopback(port), b'g', Some(MUCH)).unwrap();
    thread::sleep(Duration::from_secs(3));
    let grown = resident(cove.daemon_pid()).saturating_sub(before);
    assert!(
        grown < GROWTH,
        "the daemon grew by {grown} bytes for one slow reader"
    );
    receive(&mut client, MUCH).unwrap();
    drop(client);

    let mut client = ask(loopback(port), b'T', Some(MUCH)).unwrap();
    send(&mut client, MUCH).unwrap();
    let grown = resident(cove.daemon_pid()).saturating_sub(before);
    assert!(
        grown < GROWTH,
        "the daemon grew by {grown} bytes for one slow container"
    );
}

/// The memory of a process, in bytes.
#[track_caller]
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = line
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    kibibytes << 10
}

pub(crate) fn ipv6_carries_streams_and_datagrams_and_clients_have_the_gateways_address(cove: &Cove) {
    const BULK: u64 = 4 << 20;
    let port = free_port();
    cove.docker(["network", "create", "--ipv6", "--subnet", "fd00:77:1::/64"])
        .args(["--subnet", "10.79.0.0/24", "six"])
        .ok();
    let both = [on_loopback(port), format!("[::1]:{port}:{PORT}")];
    let datagrams = both.clone().map(|published| format!("{published}/udp"));
    let mut options = vec!["--network", "six"];
    for published in both.iter().chain(&datagrams) {
        options.extend(["-p", published]);
    }
    let peer = Peer::run(cove, "sixth", &options);
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    receive(&mut ask(six, b'g', Some(BULK)).unwrap(), BULK).unwrap();
    send(&mut ask(six, b't', Some(BULK)).unwrap(), BULK).unwrap();
    for length in [1, 1452, 1453, 60_000] {
        assert!(
            datagram_comes_back(six, length).unwrap(),
            "{length} bytes over IPv6"
        );
    }
    // As README.md says.
    assert_eq!(told(six, b'p').unwrap(), "fd00:77:1::1");
    assert_eq!(told(loopback(port), b'p').unwrap(), "10.79.0.1");
    drop(peer);
    cove.docker(["network", "rm", "six"]).ok();
}

pub(crate) fn datagrams_of_every_size_come_back(cove: &Cove) {
    let (port, everywhere) = (free_port(), free_port());
    let published = format!("{}/udp", on_loopback(port));
    let published_everywhere = format!("{everywhere}:{PORT}/udp");
    let options = ["-p", &published, "-p", &published_everywhere];
    let _peer = Peer::run(cove, "sizes", &options);
    // The container's network takes 1500 bytes at a time: the larger ones go to it in pieces.
    for length in [1, 1472, 1473, 9000, 65_507] {
        assert!(
            datagram_comes_back(loopback(port), length).unwrap(),
            "{length} bytes"
        );
    }
    // By its route an answer to this client would come from 127.0.0.1, which it does not hear.
    let second = SocketAddr::from(([127, 0, 0, 2], everywhere));
    assert!(
        datagram_comes_back(second, 100).unwrap(),
        "no answer from {second}"
    );
}

pub(crate) fn datagrams_for_a_machine_that_stands_still_cost_the_daemon_little(cove: &Cove) {
    const LENGTH: usize = 60_000;
    let port = free_port();
    let published = format!("{}/udp", on_loopback(port));
    let _peer = Peer::run(cove, "still", &["-p", &published]);
    assert!(datagram_comes_back(loopback(port), LENGTH).unwrap());
    cove.cove(["pause"]).ok();
    let before = resident(cove.daemon_pid());
    let datagram = vec![7; LENGTH];
    let clients = [(); 16].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    for _ in 0..128 {
        for client in &clients {
            // One that finds no room is lost.
            let _ = client.send_to(&datagram, loopback(port));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let grown = resident(cove.daemon_pid()).saturating_sub(before);
    cove.cove(["resume"]).ok();
    // Of the hundred million bytes that were sent.
    assert!(
        grown < MUCH,
        "the daemon grew by {grown} bytes for datagrams that nobody takes"
    );
    assert!(datagram_comes_back(loopback(port), LENGTH).unwrap());
}

pub(crate) fn short_connections_are_answered_every_one(cove: &Cove) {
    let made = short_connections(cove, SOME_TIME);
    assert!(made > 100, "{made} connections are too few to show anything");
}

pub(crate) fn ten_thousand_short_connections_are_answered(cove: &Cove) {
    assert_eq!(short_connections(cove, ALL_THE_TIME), CONNECTIONS);
}

/// Has clients make connections, each good for one byte there and back, for some time at most. How many there were; no
/// one of them may fail.
#[track_caller]
fn short_connections(cove: &Cove, time: Duration) -> usize {
    let port = free_port();
    let _peer = Peer::run(cove, "busy", &["-p", &on_loopback(port)]);
    echoes(&mut ask(loopback(port), b'e', None).unwrap(), b'!').unwrap();
    let (next, answered, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < CONNECTIONS && began.elapsed() < time {
                    let once = ask(loopback(port), b'e', None);
                    match once.and_then(|mut stream| echoes(&mut stream, b'x')) {
                        Ok(()) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => failed.lock().unwrap().push(error),
                    }
                }
            });
        }
    });
    let (answered, failed) = (answered.into_inner(), failed.into_inner().unwrap());
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{answered} short connections in {seconds:.1} s, {} failed",
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    answered
}

/// Sends a byte and wants it back.
fn echoes(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
    let mut back = [0];
    stream.write_all(&[byte])?;
    stream.read_exact(&mut back)?;
    if back == [byte] {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

pub(crate) fn an_engine_that_crashes_under_load_damages_nothing_and_serves_on(cove: &Cove) {
    /// What one client asks for at a time.
    const EACH: u64 = 256 << 10;
    /// Clients, and for how long they go on should the test fail.
    const CROWD: usize = 4;
    const LOADED: Duration = Duration::from_mins(6);
    let port = free_port();
    let _peer = Peer::run(cove, "loaded", &["--restart", "always", "-p", &on_loopback(port)]);
    assert_eq!(told(loopback(port), b'l').unwrap(), "");
    let begun = || {
        let format = "{{.State.Running}} {{.State.StartedAt}}";
        cove.docker(["inspect", "--format", format, "loaded"])
            .run()
            .text()
    };
    let before = begun();
    let (over, whole, damaged) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        Mutex::new(Vec::new()),
    );
    let began = Instant::now();
    let load = || {
        while !over.load(Ordering::Relaxed) && began.elapsed() < LOADED {
            let got = ask(loopback(port), b'g', Some(EACH));
            match got.and_then(|mut stream| receive(&mut stream, EACH)) {
                Ok(()) => {
                    whole.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    damaged.lock().unwrap().push(error);
                }
                // The port is away, or the container ended in the middle.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    };
    let more = |what: &str| {
        let enough = whole.load(Ordering::Relaxed) + 3 * CROWD;
        within(LIMIT, what, || {
            (whole.load(Ordering::Relaxed) >= enough).then_some(())
        });
    };
    thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(load);
        }
        more("clients to be served");
        cove.cove(["exec", "sh", "-c", "kill -9 $(pidof dockerd)"]).ok();
        within(Duration::from_mins(3), "the container to begin again", || {
            let now = begun();
            (now.starts_with("true ") && now != before).then_some(())
        });
        more("clients to be served again");
        over.store(true, Ordering::Relaxed);
    });
    let damaged = damaged.into_inner().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
}

pub(crate) fn a_thousand_connections_are_served_at_once(cove: &Cove) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let port = free_port();
    let _peer = Peer::run(cove, "crowded", &["-p", &on_loopback(port)]);
    let mut clients: Vec<TcpStream> = (0..AT_ONCE)
        .map(|_| ask(loopback(port), b'e', None).unwrap())
        .collect();
    // All are asked before any answer is read, and none leaves before all were answered twice.
    for round in [b'1', b'2'] {
        for client in &mut clients {
            client.write_all(&[round]).unwrap();
        }
        let began = Instant::now();
        for (number, client) in clients.iter_mut().enumerate() {
            let mut back = [0];
            client.read_exact(&mut back).unwrap();
            assert_eq!(back, [round], "client {number}");
        }
        println!(
            "{AT_ONCE} clients answered in {:.1} s",
            began.elapsed().as_secs_f64()
        );
        assert!(began.elapsed() < LIMIT);
    }
}
