//! What the daemon asks a machine's engine itself: for lists that people read, for names that lead to containers, and
//! for events. Over a stream of its own, bounded, and as JSON values, since the engine is the guest's.

use super::agent::{OpenError, open_stream};
use bytes::Bytes;
use cove_machine::Machine;
use cove_wire::Open;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{collections::HashMap, net::IpAddr, time::Duration};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 8 << 20;
/// How long the engine may take. It answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The names of the running containers, by their addresses; none if the engine does not answer.
pub(crate) async fn names_by_address(machine: &dyn Machine) -> HashMap<IpAddr, String> {
    running_containers(machine)
        .await
        .map(|list| by_address(&list))
        .unwrap_or_default()
}

/// The engine's list of the running containers, if it answers.
pub(crate) async fn running_containers(machine: &dyn Machine) -> Option<Value> {
    ask_engine(machine, "/containers/json").await
}

/// The file of the network namespace that a running container has, its path in the guest, if the engine tells it.
pub(crate) async fn network_namespace(machine: &dyn Machine, container: &str) -> Option<String> {
    let path = format!("/containers/{}/json", cove_api::query::encode(container));
    let inspected = ask_engine(machine, &path).await?;
    let key = inspected["NetworkSettings"]["SandboxKey"].as_str()?;
    (!key.is_empty()).then(|| key.to_owned())
}

/// How far it is followed that a container has the network of another one, which has that of a third. Nobody goes so
/// far, but what the engine says is the guest's to make up, a circle included.
pub(crate) const MOST_LENDERS: usize = 16;

/// The container, by id or name, whose network a container has instead of one of its own (`--network container:OTHER`),
/// by what the engine's list or an inspection says of it.
pub(crate) fn lender(container: &Value) -> Option<&str> {
    let mode = container["HostConfig"]["NetworkMode"].as_str()?;
    mode.strip_prefix("container:")
}

/// What the engine answers to `GET` of `path`, an error included, if it answers.
pub(crate) async fn ask_engine(machine: &dyn Machine, path: &str) -> Option<Value> {
    timeout(TIMEOUT, ask(machine, path)).await.ok()?
}

async fn ask(machine: &dyn Machine, path: &str) -> Option<Value> {
    let answer = send(machine, path).await.ok()?;
    let body = Limited::new(answer.body, MAX_ANSWER);
    let body = body.collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok()
}

/// Why the engine was not heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineSilent {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the engine's answer broke off")]
    Http(#[from] hyper::Error),
    #[error("the request is no HTTP")]
    Request(#[from] hyper::http::Error),
}

/// Begins to hear of events; waits for an engine that is starting.
pub(crate) async fn engine_events(machine: &dyn Machine, path: &str) -> Result<EngineEvents, EngineSilent> {
    Ok(EngineEvents(send(machine, path).await?))
}

/// Events of the engine's, as they come.
#[derive(Debug)]
pub(crate) struct EngineEvents(Answer);

impl EngineEvents {
    /// Waits for the next one or several. Their content is left alone: whoever wants to know how things are asks for
    /// that. `false` when there will be no more.
    pub(crate) async fn next(&mut self) -> bool {
        matches!(self.0.body.frame().await, Some(Ok(_)))
    }
}

/// An answer of the engine's, on a connection of its own that ends with it.
#[derive(Debug)]
struct Answer {
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

async fn send(machine: &dyn Machine, path: &str) -> Result<Answer, EngineSilent> {
    let connection = open_stream(machine, &Open::Engine).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
    let connection = tokio::spawn(async move {
        // Its error reaches the reader as well.
        let _ = connection.await;
    });
    let connection = AbortOnDropHandle::new(connection);
    let request = Request::get(path)
        .header(header::HOST, "docker")
        .body(Empty::<Bytes>::new())?;
    Ok(Answer {
        body: sender.send_request(request).await?.into_body(),
        _connection: connection,
    })
}

/// From the engine's list of containers.
fn by_address(list: &Value) -> HashMap<IpAddr, String> {
    let mut names = HashMap::new();
    for container in list.as_array().into_iter().flatten() {
        let Some(name) = container["Names"][0].as_str() else {
            continue;
        };
        let name = super::words::clean(name.trim_start_matches('/'));
        let networks = container["NetworkSettings"]["Networks"].as_object();
        for network in networks.into_iter().flat_map(|networks| networks.values()) {
            for key in ["IPAddress", "GlobalIPv6Address"] {
                if let Some(Ok(address)) = network[key].as_str().map(str::parse) {
                    names.insert(address, name.clone());
                }
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_known_by_each_of_its_addresses() {
        let networks = json!({
            "bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": ""},
            "own": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd00::2"},
        });
        let list = json!([
            {"Names": ["/web"], "NetworkSettings": {"Networks": networks}},
            {"Names": []},
            7,
        ]);
        let names = by_address(&list);
        assert_eq!(names.len(), 3);
        assert_eq!(names[&"fd00::2".parse::<IpAddr>().unwrap()], "web");
        assert!(by_address(&json!({"message": "not a list"})).is_empty());
    }
}
