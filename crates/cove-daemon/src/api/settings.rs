//! Handlers of `/v1/settings`.

use super::{
    Server,
    body::{self, Answer, invalid},
};
use cove_api::{ApiError, Applied, Event};
use hyper::{Request, body::Incoming};

pub(super) fn list(server: &Server) -> Answer {
    body::json(&server.context.settings.list())
}

pub(super) fn get(server: &Server, key: &str) -> Result<Answer, ApiError> {
    Ok(body::json(&server.context.settings.get(key)?))
}

pub(super) async fn set(
    server: &Server,
    key: &str,
    request: &mut Request<Incoming>,
) -> Result<Answer, ApiError> {
    let value: serde_json::Value = body::read_json(request).await?;
    server.context.settings.set(key, Some(&value))?;
    applied(server).await
}

pub(super) async fn unset(server: &Server, key: &str) -> Result<Answer, ApiError> {
    server.context.settings.set(key, None)?;
    applied(server).await
}

pub(super) fn text(server: &Server) -> Result<Answer, ApiError> {
    let text = server.context.settings.text()?;
    Ok(body::whole("text/plain; charset=utf-8", text))
}

pub(super) async fn replace(server: &Server, request: &mut Request<Incoming>) -> Result<Answer, ApiError> {
    let bytes = body::read(request).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid("the settings file is not UTF-8 text"))?;
    server.context.settings.replace(text)?;
    applied(server).await
}

/// What became of a change.
async fn applied(server: &Server) -> Result<Answer, ApiError> {
    server.machines.reconsider().await;
    server.context.emit(Event::Settings);
    let values = server.context.settings.current()?;
    let stale = server
        .machines
        .all()
        .into_iter()
        .filter(|handle| handle.needs_restart(&values));
    Ok(body::json(&Applied {
        restart_needed: stale.map(|handle| handle.name().to_string()).collect(),
    }))
}
