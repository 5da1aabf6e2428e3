//! context: the machine's Docker context.

use super::Session;
use crate::{args, exit::Exit, failure::Failure, output};
use cove_api::{ContextState, DockerContext};
use std::process::ExitCode;

pub(super) async fn run(session: &Session, what: args::Context) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    match what {
        args::Context::Show => {
            let context = client.context(&session.machine).await?;
            if session.json {
                output::json(&context)?;
            }
            if context.state != ContextState::Good {
                return Err(unusable(session, &context).into());
            }
            if !session.json {
                output::line(context.name)?;
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

/// Why Docker clients do not reach the machine by this context.
fn unusable(session: &Session, context: &DockerContext) -> Failure {
    let name = &context.name;
    let what = match &context.state {
        ContextState::Absent => format!("there is no Docker context `{name}`"),
        ContextState::Elsewhere { host } => {
            format!("the Docker context `{name}` leads to another machine, at {host}")
        }
        ContextState::Foreign => format!("the Docker context `{name}` was not made by Cove"),
        ContextState::Good | ContextState::Stale => {
            format!("the Docker context `{name}` leads to where nothing is any more")
        }
    };
    let hint = match context.state {
        ContextState::Elsewhere { .. } | ContextState::Foreign => {
            format!(
                "use the socket instead: eval \"$(cove env --machine {})\"",
                session.machine
            )
        }
        _ => format!("`cove start --machine {0}` makes it", session.machine),
    };
    Failure::new(Exit::NotFound, what, hint)
}
