//! Handler of `/v1/machines/{name}/ports`.

use super::{
    Server,
    body::{self, Answer},
};
use crate::machine::names_by_address;
use cove_api::{ApiError, PublishedPort};
use std::collections::HashMap;

pub(super) async fn list(server: &Server, name: &str) -> Result<Answer, ApiError> {
    let snapshot = server.machines.get(name)?.snapshot();
    let published = snapshot.ports.list();
    let names = match &snapshot.machine {
        Some(machine) if !published.is_empty() => names_by_address(&**machine).await,
        _ => HashMap::new(),
    };
    let ports: Vec<PublishedPort> = published
        .into_iter()
        .map(|port| PublishedPort {
            protocol: port.protocol.to_string(),
            host: port.host,
            container: port.container,
            name: names.get(&port.container.ip()).cloned(),
        })
        .collect();
    Ok(body::json(&ports))
}
