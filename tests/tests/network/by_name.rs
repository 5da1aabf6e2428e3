//! Containers reached by their names, with real clients on loopback.

use bytes::Bytes;
use cove_tests::harness::{Cove, eventually, free_port};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

const LIMIT: Duration = Duration::from_mins(1);

/// A web server that tells what it was asked, and whose connection is an echo if the client wants that.
const SERVER: &str = r#"
read -r first
upgrade=; host=
while read -r line; do
    line=$(printf %s "$line" | tr -d '\r')
    case "$line" in
        "") break;;
        [Hh]ost:*) host=${line#*: };;
        [Uu]pgrade:*) upgrade=${line#*: };;
    esac
done
if [ -n "$upgrade" ]; then
    printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %s\r\n\r\n' "$upgrade"
    exec cat
fi
body="$(printf %s "$first" | cut -d ' ' -f 2) of $host"
printf 'HTTP/1.1 200 OK\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' "${#body}" "$body"
"#;

/// Sends one request and gives back all that is answered.
#[track_caller]
fn ask(port: u16, host: &str, more: &str) -> String {
    let mut stream = connect(port);
    let head = format!("GET /page?q=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A connection that has become the server's echo.
#[track_caller]
fn upgraded(port: u16, host: &str) -> TcpStream {
    let mut stream = connect(port);
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(
        seen.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&seen)
    );
    stream
}

pub(crate) fn a_container_is_reached_by_its_name_without_a_published_port(cove: &Cove) {
    let port = free_port();
    cove.cove(["config", "set", "web.port", &port.to_string()]).ok();
    // As compose names and labels them.
    cove.docker(["run", "-d", "--rm", "--name", "shop-site-1", "--expose", "8080"])
        .args(["--label", "com.docker.compose.project=shop"])
        .args(["--label", "com.docker.compose.service=site", "alpine"])
        .args(["nc", "-lk", "-p", "8080", "-e", "sh", "-c", SERVER])
        .ok();
    let host = format!("site.cove.localhost:{port}");
    let listed = || cove.cove(["ports"]).ok().contains(&format!("http://{host}/"));
    eventually("the container to be listed", listed);
    eventually("its server to answer", || {
        ask(port, &host, "").starts_with("HTTP/1.1 200")
    });
    for name in ["site", "site.shop", "shop-site-1"] {
        let host = format!("{name}.cove.localhost:{port}");
        let answer = ask(port, &host, "");
        assert!(answer.ends_with(&format!("/page?q=1 of {host}")), "{answer}");
    }

    // What a browser's WebSocket does: bytes both ways, each end closed by itself.
    let mut stream = upgraded(port, &host);
    stream.write_all(b"there and back").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "there and back");

    let uri = format!("http://{host}/second");
    let (version, body) = over_http2(port, &uri);
    assert_eq!(version, hyper::Version::HTTP_2);
    assert_eq!(body, format!("/second of {host}"));

    not_by_the_machines_own_network(cove, port);

    let unknown = ask(port, "nobody.cove.localhost", "");
    assert!(
        unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("`nobody`"),
        "{unknown}"
    );
    // A name of somebody else's that leads here is not served.
    let foreign = ask(port, "site.example", "");
    assert!(foreign.starts_with("HTTP/1.1 421 "), "{foreign}");

    // What an upgrade has made of a connection ends with the port as others do.
    let mut lasting = upgraded(port, &host);
    lasting.write_all(b"x").unwrap();
    lasting.read_exact(&mut [0]).unwrap();

    cove.cove(["config", "set", "web.port", "0"]).ok();
    let end = lasting.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    cove.cove(["config", "set", "web.port", &port.to_string()]).ok();
    eventually("the port to be open again", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });

    cove.docker(["rm", "-f", "shop-site-1"]).ok();
    let gone = ask(port, &host, "");
    assert!(gone.starts_with("HTTP/1.1 404 "), "{gone}");
    cove.cove(["config", "set", "web.port", "0"]).ok();
    eventually("the port to be closed", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
    });
}

/// A container whose network the machine itself has no way into but the one that leads out of it, one that has the same
/// network, and one that has it from that one.
#[track_caller]
fn not_by_the_machines_own_network(cove: &Cove, port: u16) {
    cove.docker(["network", "create", "-d", "macvlan", "--subnet", "10.79.0.0/24"])
        .arg("level")
        .ok();
    // The engine lists no port of a container that has no other network.
    cove.docker(["run", "-d", "--rm", "--name", "flat", "--label", "cove.port=8080"])
        .args(["--network", "level", "--ip", "10.79.0.10", "alpine"])
        // By no other address, not even that of its loopback.
        .args(["nc", "-lk", "-s", "10.79.0.10", "-p", "8080"])
        .args(["-e", "sh", "-c", SERVER])
        .ok();
    for (name, lender, own) in [("lodger", "flat", "8081"), ("lodgers-lodger", "lodger", "8082")] {
        cove.docker(["run", "-d", "--rm", "--name", name])
            .args(["--label", &format!("cove.port={own}")])
            .args(["--network", &format!("container:{lender}"), "alpine"])
            .args(["nc", "-lk", "-p", own, "-e", "sh", "-c", SERVER])
            .ok();
    }
    for name in ["flat", "lodger", "lodgers-lodger"] {
        let host = format!("{name}.cove.localhost:{port}");
        eventually("a server on a macvlan network to answer", || {
            ask(port, &host, "").ends_with(&format!("/page?q=1 of {host}"))
        });
        cove.cove(["net", "explain", &host]).ok();
    }
    cove.docker(["rm", "-f", "lodgers-lodger", "lodger", "flat"]).ok();
    cove.docker(["network", "rm", "level"]).ok();
}

/// The version and body of an answer to a client that speaks HTTP/2 from the first byte.
fn over_http2(port: u16, uri: &str) -> (hyper::Version, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = tokio::time::timeout(LIMIT, sender.send_request(request))
            .await
            .unwrap()
            .unwrap();
        let version = response.version();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (version, String::from_utf8(body.to_vec()).unwrap())
    })
}
