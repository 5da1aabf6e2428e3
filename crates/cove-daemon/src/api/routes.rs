//! Which handler answers a request.

use super::{
    Server,
    body::{self, Answer, invalid},
    logs, machines, ports, settings, shares, trust,
    upgrade::{self, Protocol},
};
use crate::{doctor, machine::Command};
use cove_api::{ApiError, ErrorCode, Version, query};
use hyper::{Method, Request, body::Incoming};
use std::sync::Arc;

/// Answers a request; an error becomes an answer, too.
pub(super) async fn answer(server: &Server, mut request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let answer = match route(server, &mut request).await {
        Ok(answer) => answer,
        Err(error) => body::error(&error),
    };
    tracing::debug!(%method, path, status = answer.status().as_u16(), "answered");
    answer
}

async fn route(server: &Server, request: &mut Request<Incoming>) -> Result<Answer, ApiError> {
    let method = request.method().clone();
    let parts: Vec<String> = request
        .uri()
        .path()
        .trim_start_matches('/')
        .split('/')
        .map(query::decode)
        .collect::<Option<_>>()
        .ok_or_else(|| invalid("the request's path is not text"))?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let ["v1", path @ ..] = parts.as_slice() else {
        return Err(unknown(request));
    };
    match (&method, path) {
        (&Method::GET, ["version"]) => Ok(body::json(&Version {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: cove_wire::PROTOCOL_VERSION,
            pid: std::process::id(),
        })),
        (&Method::GET, ["doctor"]) => Ok(body::json(&doctor::examine(server).await)),
        (&Method::GET, ["events"]) => Ok(machines::events(server)),
        (&Method::POST, ["shutdown"]) => {
            let (machines, end) = (Arc::clone(&server.machines), server.end.clone());
            to_its_end(async move {
                machines.stop().await?;
                end.cancel();
                Ok(())
            })
            .await?;
            Ok(body::nothing())
        }
        (&Method::GET, ["shares"]) => Ok(shares::list(server)),
        (&Method::POST, ["shares"]) => shares::add(server, request).await,
        (&Method::DELETE, ["shares"]) => shares::remove(server, request).await,
        (&Method::GET, ["certificates"]) => Ok(trust::list(server)),
        (&Method::POST, ["certificates"]) => trust::add(server, request).await,
        (&Method::DELETE, ["certificates"]) => trust::remove(server, request).await,
        (&Method::GET, ["settings"]) => Ok(settings::list(server)),
        (&Method::POST, ["settings"]) => settings::change(server, request).await,
        (&Method::GET, ["settings-file"]) => settings::text(server),
        (&Method::PUT, ["settings-file"]) => settings::replace(server, request).await,
        (&Method::GET, ["settings", key]) => settings::get(server, key),
        (&Method::PUT, ["settings", key]) => settings::set(server, key, request).await,
        (&Method::DELETE, ["settings", key]) => settings::unset(server, key).await,
        (&Method::GET, ["machines"]) => Ok(machines::list(server)),
        (&Method::POST, ["machines"]) => machines::create(server, request).await,
        (&Method::GET, ["machines", name]) => Ok(body::json(&server.machines.get(name)?.status())),
        (&Method::DELETE, ["machines", name]) => machines::delete(server, name, request).await,
        (&Method::POST, ["machines", name, "start"]) => machines::begin(server, name, Command::Start).await,
        (&Method::POST, ["machines", name, "stop"]) => machines::begin(server, name, Command::Stop).await,
        (&Method::POST, ["machines", name, "restart"]) => {
            machines::begin(server, name, Command::Restart).await
        }
        (&Method::POST, ["machines", name, "kill"]) => machines::kill(server, name).await,
        (&Method::POST, ["machines", name, "pause"]) => machines::perform(server, name, Command::Pause).await,
        (&Method::POST, ["machines", name, "resume"]) => {
            machines::perform(server, name, Command::Resume).await
        }
        (&Method::GET, ["machines", name, "usage"]) => {
            Ok(body::json(&server.machines.get(name)?.usage().await?))
        }
        (&Method::POST, ["machines", name, "reclaim"]) => {
            Ok(body::json(&server.machines.get(name)?.reclaim().await?))
        }
        (&Method::GET, ["machines", name, "sites"]) => ports::sites(server, name).await,
        (&Method::GET, ["machines", name, "context"]) => machines::context(server, name),
        (&Method::POST, ["machines", name, "context"]) => machines::make_context(server, name, request),
        (&Method::DELETE, ["machines", name, "context"]) => machines::remove_context(server, name),
        (&Method::POST, ["machines", name, "exec"]) => {
            upgrade::open(server, name, request, &[Protocol::Exec]).await
        }
        (&Method::POST, ["machines", name, "dial"]) => {
            upgrade::open(server, name, request, &[Protocol::Connection, Protocol::Dial]).await
        }
        (&Method::GET, ["machines", name, "ports"]) => ports::list(server, name).await,
        (&Method::GET, ["machines", name, "explain"]) => ports::explain(server, name, request).await,
        (&Method::GET, ["machines", name, "logs"]) => logs::read(server, name, request).await,
        _ => Err(unknown(request)),
    }
}

/// Does what has been begun to its end, also when the client hangs up meanwhile, which drops its handler.
pub(super) async fn to_its_end(
    work: impl Future<Output = Result<(), ApiError>> + Send + 'static,
) -> Result<(), ApiError> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        Err(ApiError::new(
            ErrorCode::Internal,
            format!("the daemon failed in an unforeseen way: {error}"),
            "`cove logs` says more",
        ))
    })
}

fn unknown(request: &Request<Incoming>) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    ApiError::new(
        ErrorCode::NotFound,
        format!("the daemon does not know {method} {path}"),
        "its release may differ from the client's: `cove version` shows both",
    )
}
