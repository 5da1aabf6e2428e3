//! Handlers of `/v1/machines/{name}/ports`, `/v1/machines/{name}/sites` and `/v1/machines/{name}/explain`.

use super::{
    Server,
    body::{self, Answer, invalid},
    machines::parameter,
    upgrade::running,
};
use crate::{
    explain::{self, Surroundings},
    machine::{names_by_address, running_containers},
    web,
};
use cove_api::{ApiError, DEFAULT_MACHINE, PublishedPort, Site};
use hyper::{Request, body::Incoming};
use std::collections::HashMap;

pub(super) async fn list(server: &Server, name: &str) -> Result<Answer, ApiError> {
    let snapshot = server.machines.get(name)?.snapshot();
    let held = snapshot.ports.list().into_iter().map(|port| (port, None));
    let refused = snapshot.ports.refused().into_iter();
    let published: Vec<_> = held.chain(refused.map(|(port, why)| (port, Some(why)))).collect();
    let names = match &snapshot.machine {
        Some(machine) if !published.is_empty() => names_by_address(&**machine).await,
        _ => HashMap::new(),
    };
    let ports: Vec<PublishedPort> = published
        .into_iter()
        .map(|(port, refused)| PublishedPort {
            protocol: port.protocol.to_string(),
            host: port.host,
            container: port.container,
            name: names.get(&port.container.ip()).cloned(),
            refused,
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
        DEFAULT_MACHINE => String::new(),
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

pub(super) async fn explain(
    server: &Server,
    name: &str,
    request: &Request<Incoming>,
) -> Result<Answer, ApiError> {
    let target =
        parameter(request, "target").ok_or_else(|| invalid("it has to be said which `target` is meant"))?;
    let machine = running(server, name).await?;
    let snapshot = server.machines.get(name)?.snapshot();
    let context = &server.context;
    let surroundings = Surroundings {
        name: name.to_owned(),
        outbound: context.platform.backend(machine.kind()).outbound(),
        machine,
        published: snapshot.ports.list(),
        refused: snapshot.ports.refused(),
        web_wanted: context.settings.in_force().0.web_port(),
        web_port: *server.web_port.borrow(),
    };
    let from = parameter(request, "from");
    let explanation = explain::explain(surroundings, &target, from.as_deref()).await?;
    Ok(body::json(&explanation))
}
