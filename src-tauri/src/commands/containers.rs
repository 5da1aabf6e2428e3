//! What is done to a container, and what is read of it.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
};
use cove_engine::Place;
use cove_view::{MountRow, ProcessTable};
use serde::Deserialize;
use serde_json::Value;
use std::{
    process::{Command, Stdio},
    sync::Arc,
};
use tauri::State;

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

/// Does it to a container. Volumes without a name go with the container that they were made for.
#[tauri::command]
pub(crate) async fn act(cove: State<'_, Arc<Cove>>, action: Action, id: String) -> Answer<()> {
    apply(&cove, action, &id).await
}

/// The same for the tray.
pub(crate) async fn apply(cove: &Cove, action: Action, id: &str) -> Answer<()> {
    let engine = cove.engine();
    if action == Action::Remove {
        engine
            .delete(&Place::of(&["containers", id]).with("v", "true"))
            .await?;
    } else {
        engine
            .post(&Place::of(&["containers", id, action.word()]), None)
            .await?;
    }
    Ok(())
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

/// Opens a published port's page in the browser. Only a number comes from the page, so that it can open nothing else.
#[tauri::command]
pub(crate) async fn open_port(port: u16) -> Answer<()> {
    open(port)
}

/// The same for the tray.
pub(crate) fn open(port: u16) -> Answer<()> {
    let address = format!("http://localhost:{port}/");
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
