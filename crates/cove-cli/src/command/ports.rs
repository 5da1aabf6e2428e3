//! ports: what containers publish on this computer.

use super::Session;
use crate::{exit::Exit, output};
use std::process::ExitCode;

pub(super) async fn run(session: &Session) -> anyhow::Result<ExitCode> {
    let ports = session.daemon().await?.ports(&session.machine).await?;
    if session.json {
        output::json(&ports)?;
        return Ok(Exit::Done.into());
    }
    let rows: Vec<[String; 4]> = ports
        .iter()
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
    Ok(Exit::Done.into())
}
