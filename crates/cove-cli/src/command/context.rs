//! context: the machine's Docker context.

use super::Session;
use crate::{args, exit::Exit, output};
use serde_json::json;
use std::process::ExitCode;

pub(super) async fn run(session: &Session, what: args::Context) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    match what {
        args::Context::Show => {
            let status = client.machine(&session.machine).await?;
            if session.json {
                output::json(&json!({ "context": status.endpoint.context }))?;
            } else {
                output::line(status.endpoint.context)?;
            }
        }
        args::Context::Use => {
            client.create_context(&session.machine, true).await?;
            let status = client.machine(&session.machine).await?;
            session.say(&format!(
                "Docker clients now use context `{}`; back with: docker context use default",
                status.endpoint.context
            ));
        }
        args::Context::Remove => {
            client.remove_context(&session.machine).await?;
            session.say(&format!(
                "removed the Docker context of machine `{}`",
                session.machine
            ));
        }
    }
    Ok(Exit::Done.into())
}
