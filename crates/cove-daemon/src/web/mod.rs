//! Containers by name: `http://NAME.cove.localhost:2683/` leads to the container or compose service `NAME`.
//!
//! ```text
//!  browser ── Host: shop.cove.localhost ──▶ one listener on loopback
//!                                              │  which container, which port?   (sites, from the engine's list)
//!                                              ▼
//!                                   a stream through the machine ──▶ the container's web server
//! ```
//!
//! The stream's end in the machine is a connection from within the container's own network namespace, so that it leads
//! to the container whichever driver its network has, or nowhere; a web server sees its own address as the client's.
//!
//! Nothing has to be published for it, and no two projects fight over a port. Browsers resolve every name under
//! `localhost` to this computer by themselves. One task, [`keep`], owns the listener and all connections through it;
//! it listens anew when the setting `web.port` changes.

mod forward;
mod sites;

pub(crate) use sites::{find, sites};

use crate::{machine::Context, machines::Machines};
use cove_api::Event;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, broadcast, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// The domain that names stand in.
pub(crate) const DOMAIN: &str = "cove.localhost";

/// Clients at once; further ones wait in the listener's backlog.
const MAX_CLIENTS: usize = 1024;
/// The pause after an accept or a bind that failed.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a client may take to say what it wants, at first and between two requests, and how often one that speaks
/// HTTP/2 is asked for a sign of life.
const HEAD: Duration = Duration::from_secs(30);

/// What requests are answered with.
struct Front {
    context: Arc<Context>,
    machines: Arc<Machines>,
}

/// Begins to serve containers by name. The receiver tells the port, while there is a listener. Dropping the set ends
/// everything.
pub(crate) fn begin(
    context: Arc<Context>,
    machines: Arc<Machines>,
) -> (JoinSet<()>, watch::Receiver<Option<u16>>) {
    let (port, listening) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(keep(Arc::new(Front { context, machines }), port));
    (tasks, listening)
}

/// Listens where the settings say, for ever.
async fn keep(front: Arc<Front>, told: watch::Sender<Option<u16>>) {
    let mut events = front.context.events.subscribe();
    let wanted = || front.context.settings.in_force().0.web_port();
    let mut complained = false;
    loop {
        let port = wanted();
        if port == 0 {
            changed(&mut events, &wanted, port).await;
            continue;
        }
        match listen(port).await {
            Ok(listeners) => {
                complained = false;
                told.send_replace(Some(port));
                tokio::select! {
                    () = serve(&front, listeners) => {}
                    () = changed(&mut events, &wanted, port) => {}
                }
                told.send_replace(None);
            }
            Err(error) => {
                if !complained {
                    tracing::warn!(
                        port,
                        "containers cannot be reached by name: {error}; `web.port` sets another port"
                    );
                }
                complained = true;
                // Another program may give the port back.
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = changed(&mut events, &wanted, port) => complained = false,
                }
            }
        }
    }
}

/// Waits until the settings say another port than `port`.
async fn changed(events: &mut broadcast::Receiver<Event>, wanted: &impl Fn() -> u16, port: u16) {
    loop {
        match events.recv().await {
            // What was missed may have been it.
            Ok(Event::Settings) | Err(broadcast::error::RecvError::Lagged(_)) if wanted() != port => return,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            // The daemon ends, and this task with it.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// On loopback alone, in both families where there are both.
async fn listen(port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?];
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
        Ok(listener) => listeners.push(listener),
        // Browsers try this address first, and would be another program's clients.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        // A computer without IPv6 has no such address.
        Err(_) => {}
    }
    Ok(listeners)
}

async fn serve(front: &Arc<Front>, listeners: Vec<TcpListener>) {
    let mut loops: JoinSet<()> = listeners
        .into_iter()
        .map(|listener| accept(Arc::clone(front), listener))
        .collect();
    // Neither ends by itself.
    loops.join_next().await;
}

async fn accept(front: Arc<Front>, listener: TcpListener) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                Ok((client, _)) => {
                    clients.spawn(converse(Arc::clone(&front), client, HEAD));
                }
                Err(error) => {
                    tracing::warn!("accepting a client of a container's name failed: {error}");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Serves one client, HTTP/1.1 or HTTP/2, as it begins, and what its connection becomes by an upgrade. `head` is how
/// long it may take to say what it wants, see [`HEAD`].
async fn converse(front: Arc<Front>, client: TcpStream, head: Duration) {
    // Only speed depends on it.
    let _ = client.set_nodelay(true);
    // HTTP/1.1 alone has upgrades, and a connection has one.
    let (upgraded, mut tunnels) = mpsc::channel(1);
    let begun = Arc::new(Notify::new());
    let service = service_fn({
        let begun = Arc::clone(&begun);
        move |request: Request<Incoming>| {
            begun.notify_one();
            let (front, upgraded) = (Arc::clone(&front), upgraded.clone());
            async move { Ok::<_, Infallible>(forward::answer(&front, request, &upgraded).await) }
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(head);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(client), service);
    // The builder's own clock starts when it knows which of the two is spoken.
    let silent = async {
        if timeout(head, begun.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = silent => return tracing::debug!("a client of a container's name asked for nothing"),
    };
    if let Err(error) = ended {
        tracing::debug!("a client of a container's name left: {error}");
    }
    if let Ok(tunnel) = tunnels.try_recv() {
        tunnel.carry().await;
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::{
        instance::Instance,
        machine::{
            Command,
            fake::{Fixture, Script},
        },
    };
    use cove_wire::Dial;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Longer than anything here takes.
    const LONG: Duration = Duration::from_secs(30);

    fn front(fixture: &Fixture) -> Arc<Front> {
        let context = Arc::clone(&fixture.context);
        let instance = Instance::claim(&context.dirs).unwrap();
        let machines = Arc::new(Machines::open(Arc::clone(&context), instance).unwrap());
        Arc::new(Front { context, machines })
    }

    /// A client, whose conversation is under way, and which may take so long to say what it wants. That is real time: a
    /// clock that jumps whenever nothing can run would not wait for what is on its way through the kernel.
    async fn client(fixture: &Fixture, head: Duration) -> TcpStream {
        client_of(front(fixture), head).await
    }

    async fn client_of(front: Arc<Front>, head: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        tokio::spawn(converse(front, accepted, head));
        client
    }

    /// Regression: addresses of macvlan, ipvlan and overlay networks were connected to from the machine's own network,
    /// whose default route leads to whoever has them beyond it.
    #[tokio::test]
    async fn a_container_is_connected_to_from_within_its_own_network_or_not_at_all() {
        let fixture = Fixture::new(Script::default());
        let front = front(&fixture);
        let handle = front.machines.get("default").unwrap();
        let mut starting = handle.begin(Command::Start).await.unwrap();
        while starting.next().await.is_some() {}
        let guest = fixture.host.guest();
        let listed = |name: &str, network: &str, address: &str| {
            let networks = json!({network: {"IPAddress": address}});
            json!({"Id": format!("id-{name}"), "Names": [format!("/{name}")],
                "Ports": [{"PrivatePort": 80, "Type": "tcp"}], "NetworkSettings": {"Networks": networks}})
        };
        let list = json!([
            listed("flat", "macvlan", "10.77.0.10"),
            listed("bare", "host", ""),
            listed("untold", "macvlan", "10.77.0.11"),
        ]);
        guest.engine_says("/containers/json", &list);
        let namespace = "/var/run/docker/netns/flat";
        let inspected = json!({"NetworkSettings": {"SandboxKey": namespace}});
        guest.engine_says("/containers/id-flat/json", &inspected);
        for name in ["flat", "bare", "untold"] {
            let mut client = client_of(Arc::clone(&front), LONG).await;
            let request =
                format!("GET / HTTP/1.1\r\nHost: {name}.cove.localhost\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let left = timeout(LONG, client.read_to_end(&mut answer)).await;
            assert!(left.is_ok(), "{name}");
            // Whatever is sent into this guest comes back, which is no answer.
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 502 "), "{name}: {answer}");
            assert_eq!(
                answer.contains("does not say where"),
                name == "untold",
                "{name}: {answer}"
            );
        }
        let dial = |address: &str, namespace: Option<&str>| Dial {
            address: address.parse().unwrap(),
            namespace: namespace.map(str::to_owned),
        };
        assert_eq!(
            *guest.dials.lock().unwrap(),
            [dial("10.77.0.10:80", Some(namespace)), dial("127.0.0.1:80", None)]
        );
    }

    #[tokio::test]
    async fn a_client_that_asks_for_nothing_is_let_go() {
        // Nothing at all, half of a request, and half of what HTTP/2 begins with.
        for said in ["", "GET / HTTP/1.1\r\nHost: x", "PRI * HT"] {
            let fixture = Fixture::new(Script::default());
            let mut client = client(&fixture, Duration::from_millis(200)).await;
            client.write_all(said.as_bytes()).await.unwrap();
            let left = timeout(LONG, client.read_to_end(&mut Vec::new())).await;
            assert!(left.is_ok(), "{said:?}");
        }
    }

    #[tokio::test]
    async fn a_port_that_another_program_has_in_either_family_is_not_taken_in_the_other() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A computer without IPv6 has nobody there.
            let Ok(taken) = std::net::TcpListener::bind(address) else {
                continue;
            };
            let refused = listen(taken.local_addr().unwrap().port()).await;
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{address}");
        }
    }

    #[tokio::test]
    async fn hosts_of_others_and_heads_without_end_are_refused() {
        let many = format!("Host: shop.cove.localhost\r\n{}", "X-More: 1\r\n".repeat(200));
        for (headers, status) in [
            // What a page of another domain makes of its own name, once that is this computer's address.
            ("Host: rebound.example:2683\r\n", 421),
            ("Host: shop.cove.localhost.example\r\n", 421),
            ("Host: shop.cove.localhost@rebound.example\r\n", 421),
            ("Host: 127.0.0.1:2683\r\n", 421),
            ("Host: \u{e9}.cove.localhost\r\n", 421),
            ("", 421),
            (many.as_str(), 431),
        ] {
            let fixture = Fixture::new(Script::default());
            let mut client = client(&fixture, LONG).await;
            let request = format!("GET / HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let left = timeout(LONG, client.read_to_end(&mut answer)).await;
            assert!(left.is_ok(), "{headers:?}");
            let expected = format!("HTTP/1.1 {status} ");
            assert!(
                answer.starts_with(expected.as_bytes()),
                "{headers:?}: {}",
                answer.escape_ascii()
            );
        }
    }

    #[tokio::test]
    async fn a_client_that_has_been_answered_is_let_go_when_it_asks_for_nothing_more() {
        let fixture = Fixture::new(Script::default());
        let mut client = client(&fixture, Duration::from_secs(3)).await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.cove.localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let left = timeout(LONG, client.read_to_end(&mut answer)).await;
        assert!(left.is_ok());
        assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", answer.escape_ascii());
    }
}
