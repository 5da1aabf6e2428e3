//! ports: what containers publish on this computer, and what is reached by name.

use super::Session;
use crate::{exit::Exit, output};
use serde_json::json;
use std::process::ExitCode;

pub(super) async fn run(session: &Session) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    let ports = client.ports(&session.machine).await?;
    let sites = client.sites(&session.machine).await?;
    if session.json {
        output::json(&json!({ "published": ports, "sites": sites }))?;
        return Ok(Exit::Done.into());
    }
    let rows: Vec<[String; 4]> = ports
        .iter()
        .filter(|port| port.refused.is_none())
        .map(|port| {
            [
                port.host.to_string(),
                port.protocol.clone(),
                port.name
                    .clone()
                    .unwrap_or_else(|| port.container.ip().to_string()),
                port.container.port().to_string(),
            ]
        })
        .collect();
    output::table(["ADDRESS", "PROTOCOL", "CONTAINER", "PORT"], &rows)?;
    for port in &ports {
        if let Some(why) = &port.refused {
            let of = port.name.clone().unwrap_or_else(|| port.container.to_string());
            output::line(format!("{} of {of} is waited for: {why}", port.host))?;
        }
    }
    if !sites.is_empty() {
        output::line("")?;
        let rows: Vec<[String; 3]> = sites
            .into_iter()
            .map(|site| [site.url, site.name, site.server.port().to_string()])
            .collect();
        output::table(["URL", "CONTAINER", "PORT"], &rows)?;
    }
    Ok(Exit::Done.into())
}
