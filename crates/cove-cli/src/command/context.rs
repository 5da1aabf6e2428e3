//! context: the machine's Docker context.

use super::Session;
use crate::{args, exit::Exit, failure::Failure, output};
use cove_api::{Client, ContextState, DockerContext, ErrorCode};
use std::process::ExitCode;

pub(super) async fn run(session: &Session, what: args::Context) -> anyhow::Result<ExitCode> {
    let client = session.daemon().await?;
    match what {
        args::Context::Show => {
            let context = client.context(&session.machine).await?;
            let good = context.state == ContextState::Good;
            if session.json {
                // One document, whatever it says: what is wrong with the context is part of it.
                output::json(&context)?;
                if !good {
                    return Ok(unusable(session, &context).tell(&session.machine));
                }
            } else if good {
                output::line(context.name)?;
            } else {
                return Err(unusable(session, &context).into());
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
        args::Context::Remove { all: true } => remove_all(session, &client).await?,
        args::Context::Remove { all: false } => {
            client.remove_context(&session.machine).await?;
            session.say(&format!(
                "removed the Docker context of machine `{}`",
                session.machine
            ));
        }
    }
    Ok(Exit::Done.into())
}

/// Removes those of every machine; one that is not ours to remove stays.
async fn remove_all(session: &Session, client: &Client) -> anyhow::Result<()> {
    for machine in client.machines().await? {
        if let Err(error) = client.remove_context(&machine.name).await {
            if error.code() != Some(ErrorCode::WrongState) {
                return Err(error.into());
            }
            session.say(&format!("note: {error}"));
        }
    }
    session.say("removed the Docker contexts of all machines");
    Ok(())
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
