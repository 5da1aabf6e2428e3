//! Handlers of `/v1/settings`.

use super::{
    Server,
    body::{self, Answer, invalid},
};
use crate::settings::{self, Values};
use cove_api::{ApiError, Applied, Event, SettingsChange, SettingsOutcome};
use hyper::{
    Request,
    body::Incoming,
    header::{self, HeaderValue},
};

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
    let mark = HeaderValue::from_str(&format!("\"{}\"", settings::mark(&text)))
        .map_err(|error| invalid(error.to_string()))?;
    let mut answer = body::whole("text/plain; charset=utf-8", text);
    answer.headers_mut().insert(header::ETAG, mark);
    Ok(answer)
}

pub(super) async fn replace(server: &Server, request: &mut Request<Incoming>) -> Result<Answer, ApiError> {
    let bytes = body::read(request).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid("the settings file is not UTF-8 text"))?;
    let instead_of = match request.headers().get(header::IF_MATCH) {
        Some(mark) => {
            let mark = mark.to_str().map_err(|_| invalid("`If-Match` is not text"))?;
            Some(mark.trim_matches('"'))
        }
        None => None,
    };
    server.context.settings.replace(text, instead_of)?;
    applied(server).await
}

pub(super) async fn change(server: &Server, request: &mut Request<Incoming>) -> Result<Answer, ApiError> {
    let change: SettingsChange = body::read_json(request).await?;
    let file = &server.context.settings;
    let pairs = change
        .values
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_ref()));
    let (before, after, values) = file.changed(pairs)?;
    let mark = settings::mark(&before);
    if change.apply {
        // What is written is made of `before`, whatever was asked for; and that is what was shown, if it has the mark.
        if let Some(shown) = &change.instead_of {
            file.check_is(&before, shown)?;
        }
        file.replace(&after, Some(&mark))?;
        server.machines.reconsider().await;
        server.context.emit(Event::Settings);
    }
    Ok(body::json(&SettingsOutcome {
        before,
        mark,
        after,
        restart_needed: stale(server, &values),
    }))
}

/// What became of a change.
async fn applied(server: &Server) -> Result<Answer, ApiError> {
    server.machines.reconsider().await;
    server.context.emit(Event::Settings);
    let values = server.context.settings.current()?;
    Ok(body::json(&Applied {
        restart_needed: stale(server, &values),
    }))
}

/// Running machines that would only heed these values after a restart.
fn stale(server: &Server, values: &Values) -> Vec<String> {
    let all = server.machines.all();
    let stale = all.iter().filter(|handle| handle.needs_restart(values));
    stale.map(|handle| handle.name().to_string()).collect()
}
