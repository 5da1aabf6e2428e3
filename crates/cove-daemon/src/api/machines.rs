//! Handlers of `/v1/machines` and of the events.

use super::{
    Server,
    body::{self, Answer, invalid},
    routes::to_its_end,
};
use crate::{
    context::{ContextError, DockerConfig},
    machine::{Command, Handle, Listening},
};
use cove_api::{ApiError, DockerContext, ErrorCode, Event, MachineStatus, NewMachine, Progress, query};
use cove_credentials::ConfigError;
use futures_util::{StreamExt, stream};
use hyper::{Request, body::Incoming};
use std::sync::Arc;
use tokio::sync::{broadcast, oneshot};

pub(super) fn list(server: &Server) -> Answer {
    let all: Vec<MachineStatus> = server.machines.all().iter().map(Handle::status).collect();
    body::json(&all)
}

pub(super) async fn create(server: &Server, request: &mut Request<Incoming>) -> Result<Answer, ApiError> {
    let wanted: NewMachine = body::read_json(request).await?;
    let handle = server.machines.create(&wanted)?;
    Ok(body::json(&handle.status()))
}

pub(super) async fn delete(
    server: &Server,
    name: &str,
    request: &Request<Incoming>,
) -> Result<Answer, ApiError> {
    let confirm = parameter(request, "confirm");
    let (machines, name) = (Arc::clone(&server.machines), name.to_owned());
    to_its_end(async move { machines.delete(&name, confirm.as_deref()).await }).await?;
    Ok(body::nothing())
}

/// Something long: its progress, line by line.
pub(super) async fn begin(
    server: &Server,
    name: &str,
    command: impl FnOnce(oneshot::Sender<Listening>) -> Command,
) -> Result<Answer, ApiError> {
    let listening = server.machines.get(name)?.begin(command).await?;
    let steps = stream::unfold(listening, |mut listening| async {
        listening.next().await.map(|progress| (progress, listening))
    });
    Ok(body::lines(steps))
}

/// Something short: the machine as it is then.
pub(super) async fn perform(
    server: &Server,
    name: &str,
    command: impl FnOnce(oneshot::Sender<Result<(), ApiError>>) -> Command,
) -> Result<Answer, ApiError> {
    let handle = server.machines.get(name)?;
    handle.perform(command).await?;
    Ok(body::json(&handle.status()))
}

pub(super) async fn kill(server: &Server, name: &str) -> Result<Answer, ApiError> {
    let handle = server.machines.get(name)?;
    let mut listening = handle.begin(Command::Kill).await?;
    while let Some(progress) = listening.next().await {
        match progress {
            Progress::Done { status } => return Ok(body::json(&*status)),
            Progress::Failed { error } => return Err(error),
            Progress::Stage { .. } | Progress::Notice { .. } => {}
        }
    }
    Err(ApiError::new(
        ErrorCode::Internal,
        "the daemon is ending",
        "try again",
    ))
}

pub(super) fn context(server: &Server, name: &str) -> Result<Answer, ApiError> {
    let handle = server.machines.get(name)?;
    let docker = docker(server)?;
    let name = handle.name().context();
    Ok(body::json(&DockerContext {
        state: docker.state(handle.name(), &server.context.docker_host(handle.name()))?,
        current: docker.current()?.as_ref() == Some(&name),
        name,
    }))
}

pub(super) fn make_context(
    server: &Server,
    name: &str,
    request: &Request<Incoming>,
) -> Result<Answer, ApiError> {
    let current = match parameter(request, "current").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(invalid(format!("`current` is true or false, not `{other}`"))),
    };
    let handle = server.machines.get(name)?;
    let docker = docker(server)?;
    let docker_host = server.context.docker_host(handle.name());
    docker.create(handle.name(), &docker_host)?;
    if current {
        docker.use_for(handle.name())?;
    }
    Ok(body::nothing())
}

pub(super) fn remove_context(server: &Server, name: &str) -> Result<Answer, ApiError> {
    let handle = server.machines.get(name)?;
    let docker_host = server.context.docker_host(handle.name());
    docker(server)?.remove(handle.name(), &docker_host)?;
    Ok(body::nothing())
}

fn docker(server: &Server) -> Result<&DockerConfig, ApiError> {
    server
        .context
        .docker
        .as_ref()
        .ok_or_else(|| ContextError::from(ConfigError::NoHome).into())
}

/// One event for each machine as it is, then what happens.
pub(super) fn events(server: &Server) -> Answer {
    // Subscribed first: a change between the two is told twice rather than not at all.
    let receiver = server.context.events.subscribe();
    let now: Vec<Event> = server
        .machines
        .all()
        .iter()
        .map(|handle| Event::Machine {
            status: Box::new(handle.status()),
        })
        .collect();
    let end = server.end.clone();
    let later = stream::unfold((receiver, end), |(mut receiver, end)| async {
        let event = tokio::select! {
            event = receiver.recv() => match event {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(_)) => Event::Missed,
                Err(broadcast::error::RecvError::Closed) => return None,
            },
            () = end.cancelled() => return None,
        };
        Some((event, (receiver, end)))
    });
    body::lines(stream::iter(now).chain(later))
}

pub(super) fn parameter(request: &Request<Incoming>, name: &str) -> Option<String> {
    let pairs = query::pairs(request.uri().query()?);
    pairs
        .into_iter()
        .find_map(|(key, value)| (key == name).then_some(value))
}
