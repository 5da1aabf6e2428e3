//! What is done to a container, and what is read of it.

use super::images::divided;
use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
};
use cove_engine::{EngineError, Place};
use cove_view::{ContainerRow, MountRow, ProcessTable, Removal, page_at};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::Value;
use std::{
    net::IpAddr,
    process::{Command, Stdio},
    sync::Arc,
};
use tauri::State;

/// So many containers the engine is asked about at a time.
const QUESTIONS: usize = 8;

/// What can be done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Start,
    Stop,
    Restart,
    Pause,
    Unpause,
    Kill,
    Remove,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Kill => "kill",
            Self::Remove => "remove",
        }
    }
}

/// Does it to a container. One that is removed is killed first if it runs, and volumes without a name go with it: the
/// page asks the person first, and says so ([`removals`]).
#[tauri::command]
pub(crate) async fn act(cove: State<'_, Arc<Cove>>, action: Action, id: String) -> Answer<()> {
    apply(&cove, action, &id).await
}

/// The same for the tray.
pub(crate) async fn apply(cove: &Cove, action: Action, id: &str) -> Answer<()> {
    let engine = cove.engine();
    if action == Action::Remove {
        engine
            .delete(
                &Place::of(&["containers", id])
                    .with("v", "true")
                    .with("force", "true"),
            )
            .await?;
    } else {
        engine
            .post(&Place::of(&["containers", id, action.word()]), None)
            .await?;
    }
    Ok(())
}

/// What would be lost with each of these containers; those that are gone already are left out.
#[tauri::command]
pub(crate) async fn removals(cove: State<'_, Arc<Cove>>, ids: Vec<String>) -> Answer<Vec<Removal>> {
    let engine = &cove.engine();
    let asked = stream::iter(ids).map(|id| async move {
        match engine.get(&Place::of(&["containers", &id, "json"])).await {
            Ok(inspected) => Ok(Removal::read(&inspected)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Refusal::from(error)),
        }
    });
    let found: Vec<Option<Removal>> = asked.buffered(QUESTIONS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Gives a container another name.
#[tauri::command]
pub(crate) async fn rename_container(cove: State<'_, Arc<Cove>>, id: String, name: String) -> Answer<()> {
    let place = Place::of(&["containers", &id, "rename"]).with("name", &name);
    cove.engine().post(&place, None).await?;
    Ok(())
}

/// Makes an image of what a container holds now; its volumes and mounts stay out. The container pauses for it.
#[tauri::command]
pub(crate) async fn commit_container(
    cove: State<'_, Arc<Cove>>,
    id: String,
    reference: String,
    comment: String,
) -> Answer<()> {
    let (name, tag) = divided(&reference);
    let place = Place::of(&["commit"])
        .with("container", &id)
        .with("repo", name)
        .with("tag", tag)
        .with("comment", &comment);
    cove.engine().post(&place, None).await?;
    Ok(())
}

/// The `docker run` that makes another container like this one.
#[tauri::command]
pub(crate) async fn run_line(cove: State<'_, Arc<Cove>>, id: String) -> Answer<String> {
    let engine = cove.engine();
    let container = engine.get(&Place::of(&["containers", &id, "json"])).await?;
    let image = container["Image"].as_str().unwrap_or_default();
    let image = match engine.get(&Place::of(&["images", image, "json"])).await {
        Ok(image) => image,
        // It was removed; then the line says all of what it said.
        Err(EngineError::Refused { .. }) => Value::Null,
        Err(error) => return Err(error.into()),
    };
    Ok(cove_view::run_line(&container, &image))
}

/// What the engine knows of a container.
#[tauri::command]
pub(crate) async fn inspect(cove: State<'_, Arc<Cove>>, id: String) -> Answer<Value> {
    Ok(cove
        .engine()
        .get(&Place::of(&["containers", &id, "json"]))
        .await?)
}

/// What is mounted in a container.
#[tauri::command]
pub(crate) async fn mounts(cove: State<'_, Arc<Cove>>, id: String) -> Answer<Vec<MountRow>> {
    let inspected = cove
        .engine()
        .get(&Place::of(&["containers", &id, "json"]))
        .await?;
    Ok(MountRow::read_all(&inspected))
}

/// The processes of a running container.
#[tauri::command]
pub(crate) async fn processes(cove: State<'_, Arc<Cove>>, id: String) -> Answer<ProcessTable> {
    let top = cove.engine().get(&Place::of(&["containers", &id, "top"])).await?;
    Ok(ProcessTable::read(&top))
}

/// Opens a published port's page in the browser. Of an address other than this computer's own name only those can be
/// opened that a container has, so that the page leads nowhere else.
#[tauri::command]
pub(crate) async fn open_port(cove: State<'_, Arc<Cove>>, port: u16, address: Option<IpAddr>) -> Answer<()> {
    let page = page_at(address, port);
    if !may_be_opened(cove.rows.borrow().as_deref(), port, address) {
        return Err(Refusal::new(
            format!("no container is published on {page}"),
            "It may have ended since it was shown.",
        ));
    }
    open(&page)
}

fn may_be_opened(rows: Option<&[ContainerRow]>, port: u16, address: Option<IpAddr>) -> bool {
    let mut ports = rows.unwrap_or_default().iter().flat_map(|row| &row.ports);
    address.is_none() || ports.any(|other| other.address == address && other.host == Some(port))
}

/// The same for the tray, which knows what a browser calls the page.
pub(crate) fn open(page: &str) -> Answer<()> {
    let address = format!("http://{page}/");
    let mut command = if cfg!(target_os = "macos") {
        Command::new("open")
    } else if cfg!(windows) {
        Command::new("explorer")
    } else {
        Command::new("xdg-open")
    };
    let started = command
        .arg(&address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(mut child) => {
            // It is waited for elsewhere, so that it does not stay as a zombie.
            tauri::async_runtime::spawn_blocking(move || child.wait());
            Ok(())
        }
        Err(error) => Err(Refusal::new(
            format!("no browser could be opened: {error}"),
            format!("Open {address} yourself."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_other_addresses_only_those_are_opened_that_a_container_is_published_on() {
        let ports = json!([{"IP": "192.168.1.5", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]);
        let row = ContainerRow::read(&json!({"Id": "4f6e", "Ports": ports})).unwrap();
        let opened = |port, address: &str| {
            let address = address.parse().ok();
            may_be_opened(Some(std::slice::from_ref(&row)), port, address)
        };
        assert!(opened(8080, "192.168.1.5"));
        assert!(!opened(8081, "192.168.1.5"));
        assert!(!opened(8080, "192.0.2.1"));
        assert!(opened(8081, ""), "this computer itself");
        assert!(!may_be_opened(None, 8080, "192.168.1.5".parse().ok()));
    }
}
