//! Handlers of `/v1/shares`.

use super::{
    Server,
    body::{self, Answer, invalid},
    machines::parameter,
};
use crate::settings;
use cove_api::{ApiError, ErrorCode, Event, MachineState, NewShare, Share};
use hyper::{Request, body::Incoming};
use std::path::Path;

pub(super) fn list(server: &Server) -> Answer {
    let shares = server.context.settings.shares();
    let all: Vec<Share> = shares.iter().map(|share| report(server, share)).collect();
    body::json(&all)
}

pub(super) async fn add(server: &Server, request: &mut Request<Incoming>) -> Result<Answer, ApiError> {
    let NewShare { path, read_only } = body::read_json(request).await?;
    check_folder(&path).await?;
    let share = settings::Share { path, read_only };
    server.context.settings.add_share(&share)?;
    applied(server).await;
    Ok(body::json(&report(server, &share)))
}

pub(super) async fn remove(server: &Server, request: &Request<Incoming>) -> Result<Answer, ApiError> {
    let path = parameter(request, "path").ok_or_else(|| invalid("it has to be said which `path`"))?;
    server.context.settings.remove_share(Path::new(&path))?;
    applied(server).await;
    Ok(body::nothing())
}

/// A folder that is not there now is more likely a mistake than a plan.
async fn check_folder(path: &Path) -> Result<(), ApiError> {
    let shown = path.display();
    let refused = |what: String| {
        ApiError::new(
            ErrorCode::InvalidRequest,
            what,
            "only folders that are there can be shared",
        )
    };
    match tokio::fs::metadata(path).await {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(refused(format!("`{shown}` is no folder"))),
        Err(error) => Err(refused(format!("`{shown}` cannot be looked at: {error}"))),
    }
}

async fn applied(server: &Server) {
    server.machines.reconsider().await;
    server.context.emit(Event::Settings);
}

fn report(server: &Server, share: &settings::Share) -> Share {
    let (mut machines, mut missing) = (Vec::new(), Vec::new());
    for handle in server.machines.all() {
        let snapshot = handle.snapshot();
        if matches!(snapshot.state, MachineState::Running | MachineState::Paused) {
            let list = if snapshot.shares.contains(share) {
                &mut machines
            } else {
                &mut missing
            };
            list.push(handle.name().to_string());
        }
    }
    Share {
        path: share.path.clone(),
        read_only: share.read_only,
        machines,
        missing,
    }
}
