//! Handlers of `/v1/machines/{name}/ports` and `/v1/machines/{name}/sites`.

use super::{
    Server,
    body::{self, Answer},
};
use crate::{
    machine::{names_by_address, running_containers},
    web,
};
use cove_api::{ApiError, PublishedPort, Site};
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

/// What can be reached by name; nothing without a listener, or while the engine cannot be asked.
pub(super) async fn sites(server: &Server, name: &str) -> Result<Answer, ApiError> {
    let handle = server.machines.get(name)?;
    let running = handle.snapshot().machine.clone();
    let (Some(port), Some(running)) = (*server.web_port.borrow(), running) else {
        return Ok(body::json(&Vec::<Site>::new()));
    };
    let list = running_containers(&*running).await;
    let machine = match handle.name().as_str() {
        "default" => String::new(),
        other => format!(".{other}"),
    };
    let sites: Vec<Site> = list
        .iter()
        .flat_map(web::sites)
        .map(|site| Site {
            url: format!("http://{}{machine}.{}:{port}/", site.name, web::DOMAIN),
            name: site.name,
            server: site.server,
        })
        .collect();
    Ok(body::json(&sites))
}
