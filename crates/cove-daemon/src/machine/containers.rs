//! The running containers, for lists that people read and for names that lead to them.

use super::agent::open_stream;
use bytes::Bytes;
use cove_machine::Machine;
use cove_wire::Open;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{collections::HashMap, net::IpAddr, time::Duration};
use tokio::time::timeout;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 8 << 20;
/// How long the engine may take. It answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// The names of the running containers, by their addresses; none if the engine does not answer.
pub(crate) async fn names_by_address(machine: &dyn Machine) -> HashMap<IpAddr, String> {
    running_containers(machine)
        .await
        .map(|list| by_address(&list))
        .unwrap_or_default()
}

/// The engine's list of the running containers, if it answers.
pub(crate) async fn running_containers(machine: &dyn Machine) -> Option<Value> {
    timeout(PATIENCE, list(machine)).await.ok()?
}

async fn list(machine: &dyn Machine) -> Option<Value> {
    let connection = open_stream(machine, &Open::Engine).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await.ok()?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let request = Request::get("/containers/json")
            .header(header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .ok()?;
        let response = sender.send_request(request).await.ok()?;
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    };
    let answered = answered.await;
    connection.abort();
    answered
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
