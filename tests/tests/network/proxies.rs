//! The proxies of this computer, for the engine, for builds and for containers: a real one on its loopback, which knows
//! hosts that nobody else does, so that what arrives there came through it.

use cove_tests::harness::{Cmd, Cove, free_port, within};
use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// The host that only the proxy knows, and what it serves.
const WORLD: &str = "world.test";
const HELLO: &str = "hello from beyond the proxy";
/// How long a registry may take to listen.
const STARTING: Duration = Duration::from_secs(20);

/// A proxy on loopback, for as long as the tests run.
struct Proxy {
    address: SocketAddr,
    plain: AtomicUsize,
    tunnels: AtomicUsize,
    socks: AtomicUsize,
}

impl Proxy {
    fn begin() -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            plain: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
            socks: AtomicUsize::new(0),
        });
        let served = Arc::clone(&proxy);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let proxy = Arc::clone(&served);
                // What breaks off fails the test that asked for it.
                thread::spawn(move || proxy.serve(client));
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    fn plain(&self) -> usize {
        self.plain.load(Ordering::Relaxed)
    }

    fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::Relaxed)
    }

    fn socks(&self) -> usize {
        self.socks.load(Ordering::Relaxed)
    }

    /// One connection by either protocol, which its first byte tells apart.
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let is_socks = reader.fill_buf()?.first() == Some(&5);
        if is_socks {
            self.serve_socks(reader, client)
        } else {
            self.serve_http(reader, client)
        }
    }

    /// To a host by its name and without a password, as RFC 1928 has it.
    fn serve_socks(&self, mut reader: BufReader<TcpStream>, mut client: TcpStream) -> io::Result<()> {
        let [_, methods] = taken(&mut reader)?;
        reader.read_exact(&mut vec![0; methods.into()])?;
        client.write_all(&[5, 0])?;
        let [_, connect, _, by_name, length] = taken(&mut reader)?;
        if (connect, by_name) != (1, 3) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        reader.read_exact(&mut vec![0; length.into()])?;
        let port = u16::from_be_bytes(taken(&mut reader)?);
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        self.socks.fetch_add(1, Ordering::Relaxed);
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        splice(reader, client, server)
    }

    /// One request, as RFC 9110 has it: `CONNECT HOST:PORT`, or another method with the whole URL.
    fn serve_http(&self, mut reader: BufReader<TcpStream>, client: TcpStream) -> io::Result<()> {
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut headers = String::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let hop = line.to_ascii_lowercase();
            if !hop.starts_with("connection:") && !hop.starts_with("proxy-") {
                headers.push_str(&line);
            }
        }
        let mut words = first.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut client = client;
        if method == "CONNECT" {
            self.tunnels.fetch_add(1, Ordering::Relaxed);
            let server = TcpStream::connect(place(target))?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            return splice(reader, client, server);
        }
        self.plain.fetch_add(1, Ordering::Relaxed);
        let rest = target.strip_prefix("http://").unwrap_or_default();
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host == WORLD {
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{HELLO}",
                HELLO.len()
            );
            return client.write_all(answer.as_bytes());
        }
        let mut server = TcpStream::connect(place(host))?;
        server.write_all(
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").as_bytes(),
        )?;
        splice(reader, client, server)
    }
}

/// So many bytes.
fn taken<const COUNT: usize>(reader: &mut impl Read) -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Every host is this computer to this proxy.
fn place(host: &str) -> SocketAddr {
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    (Ipv4Addr::LOCALHOST, port.unwrap_or(80)).into()
}

fn splice(mut reader: BufReader<TcpStream>, mut client: TcpStream, server: TcpStream) -> io::Result<()> {
    let mut to_server = server.try_clone()?;
    thread::spawn(move || {
        let _ = io::copy(&mut reader, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let mut from_server = server;
    io::copy(&mut from_server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

fn set(cove: &Cove, key: &str, value: &str) {
    cove.cove(["config", "set", key, value]).ok();
}

fn unset(cove: &Cove) {
    for key in ["proxy.http", "proxy.https", "proxy.containers"] {
        cove.cove(["config", "set", "--unset", key]).ok();
    }
}

pub(crate) fn containers_get_this_computers_proxies_where_that_is_wanted(cove: &Cove) {
    let proxy = Proxy::begin();
    set(cove, "proxy.http", &proxy.url());
    let ask = format!("wget -qO- http://{WORLD}/ || echo nothing");
    let run = || cove.docker(["run", "--rm", "alpine", "sh", "-c", &ask]).ok();
    assert_eq!(run(), "nothing", "nobody asked for it");
    assert_eq!(proxy.plain(), 0);
    set(cove, "proxy.containers", "true");
    assert_eq!(run(), HELLO);
    assert_eq!(proxy.plain(), 1);
    unset(cove);
}

pub(crate) fn builds_get_this_computers_proxies_and_what_they_build_does_not(cove: &Cove) {
    let proxy = Proxy::begin();
    set(cove, "proxy.http", &proxy.url());
    let context = cove.scratch().join("through-proxy");
    fs::create_dir_all(&context).unwrap();
    let dockerfile = format!("FROM alpine\nRUN wget -qO- http://{WORLD}/ >/hello\n");
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    for (number, buildkit) in ["0", "1"].into_iter().enumerate() {
        cove.docker(["build", "--no-cache", "-t", "proxied"])
            .arg(&context)
            .env("DOCKER_BUILDKIT", buildkit)
            .ok();
        assert_eq!(proxy.plain(), number + 1, "with DOCKER_BUILDKIT={buildkit}");
        let shown = "cat /hello; echo; echo proxy: $http_proxy";
        let hello = cove.docker(["run", "--rm", "proxied", "sh", "-c", shown]).ok();
        assert_eq!(
            hello,
            format!("{HELLO}\nproxy:"),
            "containers were not to be told"
        );
        let told = cove
            .docker(["image", "inspect", "-f", "{{.Config.Env}}", "proxied"])
            .ok();
        assert!(
            !told.to_ascii_uppercase().contains("HTTP_PROXY"),
            "the image keeps it: {told}"
        );
    }
    unset(cove);
}

/// A push and a pull, plain and within TLS, by the settings; a pull by SOCKS, and one past the proxy, by the environment
/// that the daemon is started in.
pub(crate) fn the_engine_reaches_registries_through_a_proxy_on_loopback(cove: &Cove) {
    let registry = cove.kit().registry.clone().unwrap();
    let port = free_port();
    let config = cove.scratch().join("proxied-registry.yml");
    let data = cove.scratch().join("proxied-registry");
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        data.display()
    );
    fs::write(&config, text).unwrap();
    let mut serving = std::process::Command::new(registry)
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    within(STARTING, "the registry to listen", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop)
    });
    let proxy = Proxy::begin();
    set(cove, "proxy.http", &proxy.url());
    set(cove, "proxy.https", &proxy.url());
    set(
        cove,
        "engine.insecure-registries",
        &format!("[\"registry.test:{port}\"]"),
    );
    cove.cove(["restart"]).limit(Duration::from_mins(5)).ok();

    let image = format!("registry.test:{port}/alpine");
    cove.docker(["tag", "alpine", &image]).ok();
    cove.docker(["push", "-q", &image]).ok();
    let pushed = (proxy.plain(), proxy.tunnels());
    assert!(pushed.0 > 0, "nothing passed through: {pushed:?}");
    cove.docker(["rmi", &image]).ok();
    cove.docker(["pull", "-q", &image]).ok();
    assert!(proxy.plain() > pushed.0, "the pull did not pass through");
    // What is not allowed to be plain is tried within TLS, which this registry does not speak.
    let tunnels = proxy.tunnels();
    let other = cove.docker(["pull", &format!("secure.test:{port}/alpine")]).run();
    assert_ne!(other.code, Some(0), "{other}");
    assert!(proxy.tunnels() > tunnels, "no tunnel was asked for: {other}");

    unset(cove);
    restart_in(cove, |start| {
        start
            .env(
                "ALL_PROXY",
                format!("socks5h://localhost:{}", proxy.address.port()),
            )
            .env("NO_PROXY", "direct.test")
    });
    cove.docker(["rmi", &image]).ok();
    cove.docker(["pull", "-q", &image]).ok();
    assert!(proxy.socks() > 0, "the pull did not pass through SOCKS");
    // Nobody knows this host, and the proxy, which would, must not be asked.
    let asked = || (proxy.plain(), proxy.tunnels(), proxy.socks());
    let before = asked();
    let direct = cove.docker(["pull", &format!("direct.test:{port}/alpine")]).run();
    assert_ne!(direct.code, Some(0), "{direct}");
    direct.says(&["direct.test"]);
    assert_eq!(asked(), before, "{direct}");

    cove.cove(["config", "set", "--unset", "engine.insecure-registries"])
        .ok();
    restart_in(cove, |start| start);
    // It may have ended by itself, which the tests above would have shown.
    let _ = serving.kill();
    let _ = serving.wait();
}

/// Ends the daemon and its machine, and starts both in surroundings that know no proxies but those that `around` names.
#[track_caller]
fn restart_in(cove: &Cove, around: impl FnOnce(Cmd) -> Cmd) {
    cove.cove(["daemon", "stop"]).limit(Duration::from_mins(5)).ok();
    let mut start = cove.cove(["start"]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        start = start.without_env(name).without_env(&name.to_uppercase());
    }
    around(start).limit(Duration::from_mins(5)).ok();
}
