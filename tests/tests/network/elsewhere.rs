//! A computer whose network and names are not the tests' own: a Cove whose daemon and passt live in namespaces, with a
//! hosts file, a name server and a neighbour that there are nowhere else.
//!
//! ```text
//!                               ┌──── a network, and mounts ─────┐        ┌── a network ──┐
//!  the tests ── unix sockets ───┼▶ daemon, passt, name servers   │        │   a server    │
//!                               │  /etc/hosts, /etc/resolv.conf  10.66.0.1 ═ veth ═ 10.66.0.2
//!                               │                               fd00:66::1 ═══════ fd00:66::2
//!                               └────────────────────────────────┘        └───────────────┘
//! ```
//!
//! What serves there is this program itself, run with [`ROLE`] in its environment. And a computer that has no passt,
//! until somebody installs it.

use super::{
    explain::stops,
    outbound::{in_container, say_to},
};
use cove_tests::harness::{Cove, free_port, within};
use cove_wire::dns::{self, Code, Query};
use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Which server this program is to be.
pub(crate) const ROLE: &str = "COVE_TEST_ROLE";
/// They end by themselves should the tests be killed.
const LIFETIME: Duration = Duration::from_mins(20);

/// The computer's addresses on the neighbour's network, and the neighbour's, and its port.
const HERE: &str = "10.66.0.1";
const HERE_V6: &str = "fd00:66::1";
const THERE: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const THERE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, 2);
const PORT: u16 = 7777;
/// The name servers that there are, of which resolv.conf names one, and what each says of every name: the usual one,
/// and that of a VPN.
const USUAL: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 5)];
const VPN: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(192, 0, 2, 6)];
/// A name that the usual one says is none, for longer than anybody waits here.
const SECRET: &str = "secret.test";
const UNKNOWN_FOR: u32 = 300;
/// Kinds of records (RFC 1035, RFC 2782).
const CNAME: u16 = 5;
const SOA: u16 = 6;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const SRV: u16 = 33;
/// How long a container waits for an answer that does not come: the resolver's own patience, and an emulated machine.
const BOUND: Duration = Duration::from_secs(30);

/// In namespaces of its own, in which it may do everything: makes the neighbour and the way to it, and a network that
/// is forbidden, lets the user ping, as systems do, then starts Cove as the ordinary user that it is outside. Says
/// which processes serve.
const SCRIPT: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
mount --bind "$PLACE/hosts-elsewhere" /etc/hosts
mount --bind "$PLACE/resolv-elsewhere" /etc/resolv.conf
COVE_TEST_ROLE=names "$SELF" >/dev/null 2>&1 </dev/null &
names=$!
COVE_TEST_ROLE=neighbour unshare --net "$SELF" >/dev/null 2>&1 </dev/null &
neighbour=$!
COVE_TEST_ROLE=vpn "$SELF" >/dev/null 2>&1 </dev/null &
vpn=$!
trap 'kill $names $neighbour $vpn' EXIT
here=$(readlink /proc/$$/ns/net)
until [ "$(readlink /proc/$neighbour/ns/net)" != "$here" ]; do sleep 0.1; done
ip link add near type veth peer name far
ip link set far netns $neighbour
ip address add 10.66.0.1/24 dev near
ip address add fd00:66::1/64 dev near nodad
ip link set near up
nsenter --target $neighbour --net sh -ec '
    ip address add 10.66.0.2/24 dev far
    ip address add fd00:66::2/64 dev far nodad
    ip link set far up
'
ip route add default via 10.66.0.2
ip -6 route add default via fd00:66::2
ip route add prohibit 198.51.100.0/24
echo 0 0 >/proc/sys/net/ipv4/ping_group_range
unshare --user --map-user="$1" --map-group="$2" "$0" start >&2
trap - EXIT
echo $names $neighbour $vpn
"#;

/// In a mount namespace, in which it may do everything: puts the file `passt` in the place of each passt, then starts
/// Cove as the ordinary user that it is outside.
const HIDE: &str = r#"
set -e
IFS=:
places=$PATH:/usr/local/bin:/usr/bin:/usr/libexec:/usr/sbin
for place in $places; do
    if [ -e "$place/passt" ]; then mount --bind "$PLACE/passt" "$place/passt"; fi
done
export PATH="$PLACE/bin:$PATH"
exec unshare --user --map-user="$1" --map-group="$2" "$0" start
"#;

/// Processes that serve, until this is dropped.
struct Servers(Vec<i32>);

impl Drop for Servers {
    fn drop(&mut self) {
        for pid in &self.0 {
            Cove::kill(*pid);
        }
    }
}

pub(crate) fn a_computer_with_a_network_and_names_of_its_own_lends_them_to_containers(_: &Cove) {
    let cove = Cove::new("network-elsewhere");
    let write = |name: &str, text: &str| fs::write(cove.scratch().join(name), text).unwrap();
    write(
        "hosts-elsewhere",
        &format!("127.0.0.1 localhost\n{THERE} only-there.test\n"),
    );
    let ask = |server: Ipv4Addr| write("resolv-elsewhere", &format!("nameserver {server}\n"));
    ask(USUAL[0]);
    let pids = cove
        .program("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "sh",
            "-c",
            SCRIPT,
        ])
        .arg(&cove.kit().program)
        .arg(rustix::process::getuid().as_raw().to_string())
        .arg(rustix::process::getgid().as_raw().to_string())
        .env("PLACE", cove.scratch())
        .env("SELF", env::current_exe().unwrap())
        // The system's own file, which is another one there.
        .without_env("COVE_HOSTS")
        .limit(Duration::from_mins(5))
        .ok();
    let servers = Servers(pids.split(' ').map(|pid| pid.parse().unwrap()).collect());

    // The neighbour says who it was that came: this computer, on the network that the two have.
    let neighbour = SocketAddr::from((THERE, PORT));
    let said = in_container(&cove, &[], &say_to("only-there.test", neighbour));
    assert_eq!(said, format!("hello of {HERE}"));
    // Neither TCP nor UDP: the neighbour's kernel answers, in both families. Then both over IPv6, once that is there.
    cove.docker(["network", "create", "--ipv6", "--subnet", "fd00:79::/64", "both"])
        .ok();
    let pings = [IpAddr::from(THERE), IpAddr::from(THERE_V6)]
        .map(|there| format!("for try in 1 2 3; do ping -c 1 -W 10 {there} && break; sleep 1; done; "));
    let datagram = format!("echo; echo datagram | nc -u -w 5 {THERE_V6} {PORT}; ");
    let script = pings.concat() + &datagram + &say_to(&THERE_V6.to_string(), (THERE_V6, PORT).into());
    let pinged = in_container(&cove, &["--network", "both"], &script);
    assert!(pinged.contains(&format!("\ndatagram of {HERE_V6}\n")), "{pinged}");
    for answer in [format!("bytes from {THERE}:"), format!("bytes from {THERE_V6}:")] {
        assert!(pinged.contains(&answer), "{pinged}");
    }
    assert!(pinged.ends_with(&format!("hello of {HERE_V6}")), "{pinged}");
    cove.docker(["network", "rm", "both"]).ok();

    // What this computer forbids itself it forbids its containers, which is told.
    let forbidden = "198.51.100.7:80";
    cove.docker(["run", "-d", "--name", "held", "alpine", "sleep", "600"])
        .ok();
    let (here, there) = ([forbidden], [forbidden, "--from", "held"]);
    for arguments in [&here[..], &there[..]] {
        let evidence = format!("this computer forbids connections to {forbidden}");
        stops(&cove, arguments, 27, "host", &evidence);
    }
    // Ports below 1024 need a privilege here, whatever they need on the computer that the tests run on. What is said of
    // permissions the client takes for the container's command, which could not be executed.
    cove.docker(["run", "--rm", "-p", "80:80", "alpine", "true"])
        .run()
        .fails_with(126)
        .says(&[
            "0.0.0.0:80: bind: permission denied",
            "sudo sysctl net.ipv4.ip_unprivileged_port_start=80",
        ]);
    cove.cove(["config", "set", "web.port", "80"]).ok();
    stops(&cove, &["held.cove.localhost"], 23, "web", "ports below 1024");

    let records = [
        ("a", "a.test", "192.0.2.5"),
        ("aaaa", "a.test", "2001:db8::5"),
        ("txt", "a.test", "\"one two\""),
        ("mx", "a.test", "10 mail.test"),
        ("srv", "_http._tcp.a.test", "1 2 8080 web.test"),
        ("cname", "alias.test", "= a.test"),
        ("ptr", "5.2.0.192.in-addr.arpa", "= a.test"),
        // This one the hosts file knows, and the name server would say what it says of every address.
        ("ptr", "2.0.66.10.in-addr.arpa", "= only-there.test"),
    ];
    let script = records.map(|(kind, name, _)| format!("nslookup -type={kind} {name} 2>&1; echo ====; "));
    let answers = in_container(&cove, &[], &script.concat());
    let answers: Vec<&str> = answers.split("====").collect();
    for ((kind, name, expected), answer) in records.iter().zip(answers) {
        assert!(answer.contains(expected), "{kind} of {name}: {answer}");
    }

    // A name that the VPN alone knows is known once it is there, although it was asked for before.
    let secret = || in_container(&cove, &[], &format!("nslookup -type=a {SECRET} 2>&1 || true"));
    let unknown = secret();
    assert!(unknown.contains("NXDOMAIN"), "{unknown}");
    ask(VPN[0]);
    within(BOUND, "a name of the VPN's to be known", || {
        secret().contains(&VPN[1].to_string()).then_some(())
    });
    ask(USUAL[0]);

    // A name server that takes questions and says nothing, which systems behind a broken VPN have.
    let names = rustix::process::Pid::from_raw(servers.0[0]).unwrap();
    rustix::process::kill_process(names, rustix::process::Signal::STOP).unwrap();
    let began = Instant::now();
    // The program waits for five seconds, as C libraries do, and asks anew twice before it believes a failure.
    let dead = in_container(&cove, &[], "nslookup -type=a unasked.test 2>&1 || true");
    assert!(began.elapsed() < BOUND, "{dead}");
    assert!(dead.contains("SERVFAIL"), "{dead}");
    // Names that need no server are there all the while.
    let said = in_container(&cove, &[], &say_to("only-there.test", neighbour));
    assert_eq!(said, format!("hello of {HERE}"));
    // Until the VPN is there, and with it a name server of its own.
    ask(VPN[0]);
    within(BOUND, "names to be those of the VPN", || {
        in_container(&cove, &[], "nslookup -type=a again.test 2>&1 || true")
            .contains(&VPN[1].to_string())
            .then_some(())
    });
}

pub(crate) fn a_computer_without_passt_lacks_the_way_out_alone_until_it_is_installed(_: &Cove) {
    let cove = Cove::new("network-without-passt");
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = env::split_paths(&path)
        .chain(["/usr/local/bin".into(), "/usr/bin".into()])
        .map(|directory| directory.join("passt"))
        .find(|program| program.is_file());
    let installed = installed.unwrap();
    // What nobody may execute is no program.
    let hidden = cove.scratch().join("passt");
    fs::write(&hidden, "").unwrap();
    // Where programs are looked for there, too, and where this one comes to be.
    let programs = cove.scratch().join("bin");
    fs::create_dir(&programs).unwrap();
    let started = cove
        .program("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", HIDE])
        .arg(&cove.kit().program)
        .arg(rustix::process::getuid().as_raw().to_string())
        .arg(rustix::process::getgid().as_raw().to_string())
        .env("PLACE", cove.scratch())
        .limit(Duration::from_mins(5))
        .run();
    assert_eq!(started.code, Some(0), "{started}");
    started.says(&["passt is missing", "install"]);
    let doctor = cove.cove(["doctor"]).run().text();
    assert!(doctor.contains("network: passt is missing"), "{doctor}");

    // Ports, names and networks need none.
    let port = free_port();
    cove.docker([
        "run",
        "-d",
        "--name",
        "inside",
        "-p",
        &format!("127.0.0.1:{port}:80"),
    ])
    .args(["alpine", "nc", "-lk", "-p", "80", "-e", "echo", "inside"])
    .ok();
    let heard = within(BOUND, "the published port to answer", || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_read_timeout(Some(BOUND)).ok()?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).ok()?;
        (!heard.is_empty()).then_some(heard)
    });
    assert_eq!(heard, "inside\n");
    let known = in_container(&cove, &[], "nslookup -type=a host.docker.internal 2>&1");
    assert!(known.contains("192.168.127.1"), "{known}");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = format!("host.docker.internal:{}", listener.local_addr().unwrap().port());
    let out = [&*target, "--from", "inside"];
    stops(&cove, &out, 22, "nat", "passt is missing");
    // As it comes with a package: under another name first.
    let coming = programs.join("passt.new");
    fs::copy(&installed, &coming).unwrap();
    fs::rename(&coming, programs.join("passt")).unwrap();
    within(BOUND, "the way out to be there", || {
        let walked = cove.cove(["net", "explain"]).args(out).run();
        (walked.code == Some(0)).then_some(())
    });
}

/// Serves as `role`, until it is killed.
pub(crate) fn serve(role: &str) -> ExitCode {
    thread::spawn(|| {
        thread::sleep(LIFETIME);
        std::process::exit(1);
    });
    let ended = match role {
        "names" => answer_questions(USUAL),
        "vpn" => answer_questions(VPN),
        "neighbour" => greet(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match ended {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("serving as {role} failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Repeats a line to whoever says it, and says who that was: over TCP and by datagrams, in both families.
fn greet() -> io::Result<std::convert::Infallible> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
    thread::spawn(move || {
        let mut line = [0; 64];
        while let Ok((count, from)) = socket.recv_from(&mut line) {
            // Nobody may be there any more.
            let _ = socket.send_to(greeting(&line[..count], from).as_bytes(), from);
        }
    });
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
    loop {
        let (mut client, from) = listener.accept()?;
        let mut line = [0; 64];
        // A client that breaks off fails its own test.
        if let Ok(count) = client.read(&mut line) {
            let _ = client.write_all(greeting(&line[..count], from).as_bytes());
        }
    }
}

fn greeting(line: &[u8], from: SocketAddr) -> String {
    let said = String::from_utf8_lossy(line);
    format!("{} of {}\n", said.trim_end(), from.ip().to_canonical())
}

/// A name server at an address that has a record of every kind, and for every name the other address, but for the one
/// that only the VPN's knows.
fn answer_questions([here, known]: [Ipv4Addr; 2]) -> io::Result<std::convert::Infallible> {
    let socket = UdpSocket::bind((here, 53))?;
    let mut question = [0; 512];
    loop {
        let (count, from) = socket.recv_from(&mut question)?;
        if let Some(answer) = answer(&question[..count], known) {
            socket.send_to(&answer, from)?;
        }
    }
}

/// The answer to a question: its own bytes, and a record of the kind that it asks for.
fn answer(question: &[u8], known: Ipv4Addr) -> Option<Vec<u8>> {
    let query = Query::parse(question).ok()?;
    if query.name == SECRET && known == USUAL[1] {
        return Some(no_such_name(&query));
    }
    let kind = query.kind;
    let record = match kind {
        dns::A => known.octets().to_vec(),
        dns::AAAA => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5).octets().to_vec(),
        CNAME | PTR => name("a.test"),
        MX => [&[0, 10][..], &name("mail.test")[..]].concat(),
        TXT => text("one two"),
        SRV => [&[0, 1, 0, 2, 0x1f, 0x90][..], &name("web.test")[..]].concat(),
        _ => return None,
    };
    // Header, question, and nothing that the client put behind it.
    let mut message = question.get(..end_of_name(question)? + 4)?.to_vec();
    message[2] = 0x84 | (message[2] & 1);
    message[3] = 0x80;
    message[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
    // The name is the question's, at its place in the message; the record holds for a second.
    message.extend([0xc0, 12]);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1, 0, 0, 0, 1]);
    message.extend(u16::try_from(record.len()).ok()?.to_be_bytes());
    message.extend(record);
    Some(message)
}

/// The answer that there is no such name, with how long that holds (RFC 2308, section 5).
fn no_such_name(query: &Query<'_>) -> Vec<u8> {
    let mut message = query.failure(Code::NoSuchName);
    // One record of the authority's, of the zone that has the question's name.
    message[9] = 1;
    message.extend([0xc0, 12]);
    message.extend(SOA.to_be_bytes());
    message.extend([0, 1]);
    message.extend(UNKNOWN_FOR.to_be_bytes());
    // Two names, which are the root, and five numbers, of which the last counts.
    message.extend([0, 22, 0, 0]);
    message.extend([0; 16]);
    message.extend(UNKNOWN_FOR.to_be_bytes());
    message
}

/// Where the question's name ends, behind the header.
fn end_of_name(question: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match *question.get(at)? {
            0 => return Some(at + 1),
            length => at += usize::from(length) + 1,
        }
    }
}

/// A name as records have it.
fn name(dotted: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in dotted.split('.') {
        bytes.extend(text(label));
    }
    bytes.push(0);
    bytes
}

/// A text of a record, after its length.
fn text(text: &str) -> Vec<u8> {
    // None here is longer.
    let mut bytes = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
    bytes.extend(text.bytes());
    bytes
}
