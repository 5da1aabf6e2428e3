//! One request: to which container, and back.

use super::{
    DOMAIN, Front,
    sites::{self, Server},
};
use crate::{
    dialled::{Dialled, dial},
    machine::{chain, network_namespace, running_containers},
};
use bytes::Bytes;
use cove_api::DEFAULT_MACHINE;
use cove_machine::Machine;
use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri, Version,
    body::Incoming,
    client::conn::{http1, http2},
    header::{self, HeaderName, HeaderValue},
    http::uri::{Authority, PathAndQuery},
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};

/// How long a container may take to accept a connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that are about one connection and not about the request.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTOCOL: HeaderName = HeaderName::from_static("x-forwarded-proto");

pub(super) type Reply = Response<Either<Incoming, Full<Bytes>>>;

/// A request that cannot be forwarded: what the browser shows instead.
#[derive(Debug)]
struct Refusal(StatusCode, String);

/// What two connections become by an upgrade.
#[derive(Debug)]
pub(super) struct Tunnel {
    client: OnUpgrade,
    server: OnUpgrade,
}

impl Tunnel {
    /// Moves bytes both ways until both sides have finished.
    pub(super) async fn carry(self) {
        let (Ok(client), Ok(server)) = tokio::join!(self.client, self.server) else {
            return;
        };
        // A browser that closes its tab is everyday life.
        let _ = cove_api::carry(TokioIo::new(client), TokioIo::new(server)).await;
    }
}

/// Answers with what the container answers. After an upgrade the tunnel is sent, to be carried once the client's
/// connection has been handed over.
pub(super) async fn answer(
    front: &Front,
    request: Request<Incoming>,
    upgraded: &mpsc::Sender<Tunnel>,
) -> Reply {
    match forward(front, request, upgraded).await {
        Ok(response) => response.map(Either::Left),
        Err(Refusal(status, why)) => {
            let mut reply = Response::new(Either::Right(Full::from(format!("Cove: {why}\n"))));
            *reply.status_mut() = status;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            reply.headers_mut().insert(header::CONTENT_TYPE, plain);
            reply
        }
    }
}

async fn forward(
    front: &Front,
    request: Request<Incoming>,
    upgraded: &mpsc::Sender<Tunnel>,
) -> Result<Response<Incoming>, Refusal> {
    let host = host_of(&request).unwrap_or_default();
    let Some(name) = name_in(&host) else {
        // Other names could be pointed here by anybody who has a domain: what is not ours is not answered.
        let why = format!("`{}` is no name under {DOMAIN}", crate::machine::clean(&host));
        return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, why));
    };
    let (machine, server) = find(front, &name).await?;
    let address = server.address;
    let stream = connect(&*machine, &server).await.map_err(|why| {
        let why = format!(
            "nothing answers at {address} in the machine, where `{name}` should have its web server: {why}"
        );
        Refusal(StatusCode::BAD_GATEWAY, why)
    })?;
    exchange(stream, request, &host, upgraded).await.map_err(|error| {
        let why = format!("`{name}` did not answer at {address}: {}", chain(&error));
        Refusal(StatusCode::BAD_GATEWAY, why)
    })
}

/// The host that the client named, with its port.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    let named = request.uri().authority().map(Authority::as_str);
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    Some(named.or_else(header)?.to_ascii_lowercase())
}

/// What stands before the domain.
fn name_in(host: &str) -> Option<String> {
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let name = host
        .trim_end_matches('.')
        .strip_suffix(DOMAIN)?
        .strip_suffix('.')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Looks through the machines that run, the default one first; `NAME.MACHINE` is looked for in that machine alone.
async fn find(front: &Front, name: &str) -> Result<(Arc<dyn Machine>, Server), Refusal> {
    let (mut last, mut silent) = (None, None);
    let mut handles = front.machines.all();
    handles.sort_by_key(|handle| handle.name().as_str() != DEFAULT_MACHINE);
    for handle in handles {
        let Some(machine) = handle.snapshot().machine.clone() else {
            continue;
        };
        let own = name
            .strip_suffix(handle.name().as_str())
            .and_then(|rest| rest.strip_suffix('.'));
        let Some(list) = running_containers(&*machine).await.filter(Value::is_array) else {
            silent = Some(handle.name().to_string());
            continue;
        };
        let found = sites::find(&list, name).or_else(|why| match own {
            Some(own) => sites::find(&list, own),
            None => Err(why),
        });
        match found {
            Ok(server) => return Ok((machine, server)),
            Err(sites::NoSite::Unknown(_)) if last.is_some() => {}
            Err(why) => last = Some(why),
        }
    }
    Err(nowhere(name, last, silent.as_deref()))
}

/// Why `name` was not found: what the lists of containers said, and a machine whose engine gave none.
fn nowhere(name: &str, said: Option<sites::NoSite>, silent: Option<&str>) -> Refusal {
    let unavailable = |why| Refusal(StatusCode::SERVICE_UNAVAILABLE, why);
    match (said, silent) {
        (None | Some(sites::NoSite::Unknown(_)), Some(machine)) => unavailable(format!(
            "the engine of the machine `{machine}` does not answer, so that nobody knows whether it has `{name}`; \
             `cove status` shows how it is"
        )),
        (Some(why), _) => Refusal(StatusCode::NOT_FOUND, why.to_string()),
        (None, None) => unavailable("no machine runs; start one with: cove start".to_owned()),
    }
}

/// Connects from within the server's own network. From the machine's the same address may lead to a stranger, who would
/// get what is meant for the container, cookies included.
async fn connect(machine: &dyn Machine, server: &Server) -> Result<Dialled, String> {
    let connecting = async {
        let namespace = match &server.network {
            Some(container) => {
                let namespace = network_namespace(machine, container).await;
                Some(namespace.ok_or("the engine does not say where its network is")?)
            }
            None => None,
        };
        let dialled = dial(machine, server.address, namespace).await;
        dialled.map_err(|error| chain(&error))
    };
    let connected = timeout(TIMEOUT, connecting).await;
    connected.unwrap_or_else(|_| Err(format!("no answer in {} s", TIMEOUT.as_secs())))
}

/// Sends the request on, and what follows an upgrade both ways.
async fn exchange(
    stream: Dialled,
    mut request: Request<Incoming>,
    host: &str,
    upgraded: &mpsc::Sender<Tunnel>,
) -> Result<Response<Incoming>, hyper::Error> {
    let upgrade = request
        .headers()
        .contains_key(header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let io = TokioIo::new(stream);
    // gRPC needs HTTP/2 all the way; everything else is understood by every web server as HTTP/1.1.
    if is_grpc(request.headers()) {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        prepare(&mut request, host, Version::HTTP_2, false);
        return sender.send_request(request).await;
    }
    let (mut sender, connection) = http1::handshake(io).await?;
    tokio::spawn(connection.with_upgrades());
    prepare(&mut request, host, Version::HTTP_11, upgrade.is_some());
    let mut response = sender.send_request(request).await?;
    match upgrade {
        Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let server = hyper::upgrade::on(&mut response);
            // There is room for the one that a connection can have; a second would be dropped, and end.
            let _ = upgraded.try_send(Tunnel { client, server });
        }
        _ => strip(response.headers_mut()),
    }
    Ok(response)
}

/// Whether the request is gRPC's by its media type, `application/grpc`, which may say how messages are encoded:
/// `application/grpc+proto`. What browsers send, `application/grpc-web`, servers take over HTTP/1.1.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest, [] | [b'+' | b';' | b' ', ..]))
}

/// Makes the client's request one to the server.
fn prepare(request: &mut Request<Incoming>, host: &str, version: Version, upgrade: bool) {
    let headers = request.headers_mut();
    let wanted = upgrade.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    strip(headers);
    if let Some(wanted) = wanted {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, wanted);
    }
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(header::HOST, host.clone());
        headers.insert(FORWARDED_HOST, host);
    }
    headers.insert(FORWARDED_PROTOCOL, HeaderValue::from_static("http"));
    if version == Version::HTTP_11 {
        join_cookies(headers);
    }
    *request.version_mut() = version;
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = hyper::http::uri::Parts::default();
    if version == Version::HTTP_2 {
        parts.scheme = Some(hyper::http::uri::Scheme::HTTP);
        parts.authority = host.parse().ok();
        request.headers_mut().remove(header::HOST);
    }
    parts.path_and_query = Some(path);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// HTTP/2 lets clients send cookies one by one, HTTP/1.1 only all together (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Takes away what was said to us and not to the other side.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named
        .iter()
        .chain(&HOP_BY_HOP)
        .chain(&[KEEP_ALIVE, PROXY_CONNECTION])
    {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_under_the_domain_are_ours() {
        assert_eq!(name_in("shop.cove.localhost:2683").as_deref(), Some("shop"));
        assert_eq!(name_in("web.shop.cove.localhost").as_deref(), Some("web.shop"));
        for other in [
            "",
            "cove.localhost",
            "evilcove.localhost",
            "shop.example",
            "127.0.0.1:2683",
            "[::1]:2683",
        ] {
            assert_eq!(name_in(other), None, "{other}");
        }
    }

    #[test]
    fn an_engine_that_does_not_answer_is_not_one_without_the_container() {
        let unknown = || Some(sites::NoSite::Unknown("shop".into()));
        let status = |said, silent| nowhere("shop", said, silent).0;
        assert_eq!(status(unknown(), None), StatusCode::NOT_FOUND);
        assert_eq!(status(unknown(), Some("work")), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(None, Some("work")), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(None, None), StatusCode::SERVICE_UNAVAILABLE);
        let no_port = Some(sites::NoSite::NoPort("shop".into()));
        assert_eq!(status(no_port, Some("work")), StatusCode::NOT_FOUND);
        let Refusal(_, why) = nowhere("shop", None, Some("work"));
        assert!(why.contains("`work`") && why.contains("`shop`"), "{why}");
    }

    #[test]
    fn grpc_is_told_from_what_browsers_make_of_it() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc ; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpc-web-text", false),
            ("application/json", false),
        ] {
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
            assert_eq!(is_grpc(&headers.into_iter().collect()), expected, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn cookies_that_came_one_by_one_are_one_header() {
        let mut headers = HeaderMap::new();
        for cookie in ["a=1", "b=2; c=3"] {
            headers.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut headers);
        let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Secret"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key(header::ACCEPT));
    }
}
