//! Names: the resolver of the guest, of its engine, and of all containers.
//!
//! ```text
//!  container ─▶ engine's own DNS (user-defined networks) ─┐
//!  container ─────────────────────────────────────────────┼─▶ here ── the host's own names: answered
//!  engine, guest ─────────────────────────────────────────┘     ├── kept answers: answered
//!                                                               └── the rest ── vsock ─▶ daemon, host's resolver
//! ```
//!
//! Nothing here decides what a name means but for the two by which the host is known; all else the host is asked, so
//! that its hosts file, its VPN and its split DNS hold. Whoever asks gets an answer within [`PATIENCE`], if only that
//! there is none. Who asks what is being asked already waits for the same answer. Everything is bounded: questions
//! under way, connections, and what is kept. Of the first two each network has a share, and in it each source address
//! ([`Places`]).

mod arrival;
mod kept;
mod places;
mod under_way;
mod upstream;

use crate::report::Report;
use bytes::Bytes;
use cove_wire::{
    dns::{self, Code, Malformed, Query},
    network,
};
use futures_util::{SinkExt, StreamExt};
use kept::Kept;
use places::Places;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Instant, sleep, timeout},
};
use tokio_util::codec::LengthDelimitedCodec;
use under_way::UnderWay;
use upstream::Upstream;

/// The names by which containers know the host.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];
/// How long the host's addresses hold, in seconds. They never change.
const HOST_TTL: u32 = 60;
/// The port of the DNS.
const PORT: u16 = 53;
/// How long the host may take, which allows itself less. Of those who ask, the engine's own DNS waits for 4 s, and C
/// libraries for 5 s: what comes later nobody hears.
const PATIENCE: Duration = Duration::from_millis(3500);
/// Connections over TCP at once, each with one question under way, and how long one may be silent.
const MOST_CONNECTIONS: usize = 64;
const SILENCE: Duration = Duration::from_secs(10);
/// Questions over UDP that may be under way; a client asks a lost one again. With those over TCP they are as many as
/// the host takes, so that none waits there for those of others.
const MOST_DATAGRAMS: usize = dns::MOST_QUESTIONS - MOST_CONNECTIONS;
/// The pause after an operation on a listening socket failed, as for lack of memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers questions at the resolver's address, for ever.
pub(crate) async fn serve(report: Report) {
    let address = SocketAddr::from((network::RESOLVER, PORT));
    let bound =
        async { Ok::<_, io::Error>((arrival::bind(address).await?, TcpListener::bind(address).await?)) };
    match bound.await {
        Ok((datagrams, streams)) => {
            let names = Arc::new(Names {
                upstream: Upstream::new(),
                under_way: Mutex::default(),
                kept: Mutex::default(),
            });
            tokio::join!(
                serve_datagrams(Arc::new(datagrams), Arc::clone(&names)),
                serve_streams(&streams, &names),
            );
        }
        Err(error) => report.warn(format!(
            "names cannot be resolved: listening on {address} failed: {error}"
        )),
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, names: Arc<Names>) {
    let places = Places::new(MOST_DATAGRAMS);
    let mut buffer = vec![0; dns::MAX_MESSAGE];
    loop {
        let (length, from, network) = match arrival::receive(&socket, &mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!("receiving a question failed: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.take(network, from.ip()) else {
            continue;
        };
        let message = buffer[..length].to_vec();
        let (socket, names) = (Arc::clone(&socket), Arc::clone(&names));
        tokio::spawn(async move {
            if let Some(answer) = names.answer(&message, Carrier::Datagram).await {
                // One that cannot be sent is lost, and asked for again.
                let _ = socket.send_to(&answer, from).await;
            }
            drop(place);
        });
    }
}

async fn serve_streams(listener: &TcpListener, names: &Arc<Names>) {
    let places = Places::new(MOST_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // One too many is hung up on: in the backlog it would stand before those of others.
                let network = arrival::network_of(from.ip()).ok();
                let Some(place) = network.and_then(|network| places.take(network, from.ip())) else {
                    continue;
                };
                let names = Arc::clone(names);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &names).await {
                        tracing::debug!("a connection with questions ended: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("accepting a connection with questions failed: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, names: &Names) -> io::Result<()> {
    let mut messages = framing().new_framed(stream);
    while let Ok(Some(message)) = timeout(SILENCE, messages.next()).await {
        if let Some(answer) = names.answer(&message?, Carrier::Stream).await {
            timeout(SILENCE, messages.send(Bytes::from(answer))).await??;
        }
    }
    Ok(())
}

/// Each message after its length.
fn framing() -> tokio_util::codec::length_delimited::Builder {
    let mut builder = LengthDelimitedCodec::builder();
    builder.length_field_length(2).max_frame_length(dns::MAX_MESSAGE);
    builder
}

/// What a question came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Datagram,
    Stream,
}

struct Names {
    upstream: Upstream,
    under_way: Mutex<UnderWay>,
    kept: Mutex<Kept>,
}

impl Names {
    /// Answers a request; what is none gets no answer.
    async fn answer(&self, message: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Malformed::NoRequest) => return None,
            Err(Malformed::Bad(code)) => return Some(dns::refuse(message, code)),
        };
        let answer = match own(&query) {
            Some(answer) => answer,
            None => self.resolve(&query).await,
        };
        Some(match carrier {
            Carrier::Datagram => query.fit_datagram(answer),
            Carrier::Stream => answer,
        })
    }

    async fn resolve(&self, query: &Query<'_>) -> Vec<u8> {
        let key = query.key();
        let kept = self.kept().get(&key, Instant::now());
        if let Some(mut answer) = kept {
            query.adopt(&mut answer);
            return answer;
        }
        let asking = self
            .under_way()
            .join(&key, ask(self.upstream.clone(), query.anew(query.id())));
        let Some(mut answer) = asking.await else {
            return query.failure(Code::ServerFailure);
        };
        dns::set_id(&mut answer, query.id());
        if query.is_answered_by(&answer) {
            self.kept().put(key, &answer, Instant::now());
            query.adopt(&mut answer);
        }
        answer
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's answer, if it has one in time.
async fn ask(upstream: Upstream, message: Vec<u8>) -> Option<Vec<u8>> {
    match timeout(PATIENCE, upstream.ask(&message)).await {
        // A header is the least of an answer.
        Ok(Ok(answer)) => (answer.len() >= 12).then_some(answer),
        Ok(Err(error)) => {
            tracing::debug!("the host was not asked: {error}");
            None
        }
        Err(_) => None,
    }
}

/// The answer to a question for the host itself. It has no IPv6 address by its names: programs try such an address
/// first, and only what listens on the IPv6 loopback as well would be found there.
fn own(query: &Query<'_>) -> Option<Vec<u8>> {
    if let Some(address) = query.asks_for_name() {
        let host = [IpAddr::from(network::GATEWAY_V4), network::GATEWAY_V6.into()];
        return host
            .contains(&address)
            .then(|| query.answer_name(HOST_NAMES[0], HOST_TTL))
            .flatten();
    }
    // Whoever asks is meant (RFC 6761, section 6.3); the host would take it for itself.
    if query.name == "localhost" && query.asks_for_address() {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        return Some(query.answer(&loopback, HOST_TTL));
    }
    let host = [IpAddr::from(network::GATEWAY_V4)];
    HOST_NAMES
        .contains(&&*query.name)
        .then(|| query.answer(&host, HOST_TTL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            upstream: Upstream::new(),
            under_way: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    fn question(name: &str, kind: u8) -> Vec<u8> {
        let mut message = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.bytes());
        }
        message.extend([0, 0, kind, 0, 1]);
        message
    }

    #[tokio::test]
    async fn the_host_is_known_by_its_names_without_being_asked() {
        let message = question("Host.docker.internal", 1);
        let answer = names().answer(&message, Carrier::Datagram).await.unwrap();
        assert!(answer.ends_with(&network::GATEWAY_V4.octets()));
        let message = question("gateway.docker.internal", 28);
        let answer = names().answer(&message, Carrier::Datagram).await.unwrap();
        assert_eq!(
            (answer[3] & 15, answer[7]),
            (0, 0),
            "no such record, but such a name"
        );
    }

    #[tokio::test]
    async fn localhost_is_whoever_asks_and_not_the_host() {
        for (kind, address) in [(1, &[127, 0, 0, 1][..]), (28, &Ipv6Addr::LOCALHOST.octets()[..])] {
            let message = question("localhost", kind);
            let answer = names().answer(&message, Carrier::Datagram).await.unwrap();
            assert!(answer.ends_with(address), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn the_hosts_address_has_its_name() {
        let message = question("1.127.168.192.in-addr.arpa", 12);
        let answer = names().answer(&message, Carrier::Datagram).await.unwrap();
        assert!(answer.ends_with(b"\x04host\x06docker\x08internal\0"));
    }

    #[tokio::test]
    async fn one_that_asks_for_too_much_keeps_nobody_else_from_asking() {
        let (upstream, _unanswered) = Upstream::silent();
        let names = Arc::new(Names {
            upstream,
            under_way: Mutex::default(),
            kept: Mutex::default(),
        });
        let socket = Arc::new(arrival::bind(([127, 0, 0, 1], 0).into()).await.unwrap());
        let address = socket.local_addr().unwrap();
        tokio::spawn(serve_datagrams(socket, names));
        let greedy = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        for number in 0..2 * MOST_DATAGRAMS {
            let message = question(&format!("x{number}.test"), 1);
            greedy.send_to(&message, address).await.unwrap();
            // Lest they be lost in the socket, and never ask for a place.
            tokio::task::yield_now().await;
        }
        let other = UdpSocket::bind("127.0.0.3:0").await.unwrap();
        let message = question("host.docker.internal", 1);
        other.send_to(&message, address).await.unwrap();
        let mut buffer = [0; 512];
        let answered = timeout(PATIENCE / 2, other.recv_from(&mut buffer)).await;
        let (length, _) = answered.unwrap().unwrap();
        assert!(buffer[..length].ends_with(&network::GATEWAY_V4.octets()));
    }

    #[tokio::test]
    async fn questions_come_over_streams_as_well_and_nobody_has_all_of_these() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = Arc::new(names());
        tokio::spawn(async move { serve_streams(&listener, &names).await });
        let connect = |source: [u8; 4]| async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((source, 0).into()).unwrap();
            framing().new_framed(socket.connect(address).await.unwrap())
        };
        let mut greedy = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            greedy.push(connect([127, 0, 0, 2]).await);
        }
        let mut other = connect([127, 0, 0, 3]).await;
        for name in ["host.docker.internal", "gateway.docker.internal"] {
            let asking = async {
                other.send(Bytes::from(question(name, 1))).await.unwrap();
                other.next().await.unwrap().unwrap()
            };
            let answer = timeout(SILENCE / 2, asking).await.unwrap();
            assert!(answer.ends_with(&network::GATEWAY_V4.octets()));
        }
        let ended = timeout(SILENCE / 2, greedy[MOST_CONNECTIONS - 1].next()).await;
        assert!(
            matches!(ended, Ok(None | Some(Err(_)))),
            "one too many is hung up on"
        );
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_asked_is_a_failure_and_not_silence() {
        let message = question("example.test", 1);
        let answer = names().answer(&message, Carrier::Stream).await.unwrap();
        assert_eq!(answer[3] & 15, Code::ServerFailure as u8);
    }

    #[tokio::test]
    async fn what_is_no_question_gets_no_answer() {
        let names = names();
        assert_eq!(names.answer(b"short", Carrier::Datagram).await, None);
        let mut answer = question("a.test", 1);
        answer[2] |= 0x80;
        assert_eq!(names.answer(&answer, Carrier::Datagram).await, None);
        let mut notify = question("a.test", 1);
        notify[2] = 0x20;
        let refused = names.answer(&notify, Carrier::Datagram).await.unwrap();
        assert_eq!(refused[3] & 15, Code::NotImplemented as u8);
    }
}
