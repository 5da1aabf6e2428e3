//! Running a container: pulled if need be, created, started.

use crate::{
    commands::images,
    cove::Cove,
    failure::{Answer, Refusal},
    task::{Report, Tasks},
};
use cove_engine::{Engine, Place};
use cove_view::{RunSpec, TaskStep};
use std::sync::Arc;
use tauri::{State, ipc::Channel};

/// Creates and starts a container and returns its id. An attempt that fails leaves no container behind.
#[tauri::command]
pub(crate) async fn run(
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    spec: RunSpec,
) -> Answer<String> {
    let engine = cove.engine();
    tasks
        .run(task, steps, |report| async move {
            create_and_start(&engine, &spec, &report).await
        })
        .await
}

async fn create_and_start(engine: &Engine, spec: &RunSpec, report: &Report) -> Answer<String> {
    let mut place = Place::of(&["containers", "create"]);
    if !spec.name.is_empty() {
        place = place.with("name", &spec.name);
    }
    let body = spec.to_engine();
    let created = match engine.post(&place, Some(&body)).await {
        Err(error) if error.is_not_found() => {
            images::pull(engine, &spec.image, report).await?;
            engine.post(&place, Some(&body)).await?
        }
        created => created?,
    };
    let Some(id) = created["Id"].as_str() else {
        return Err(Refusal::new(
            "the engine created a container and did not name it",
            "",
        ));
    };
    if let Err(error) = engine.post(&Place::of(&["containers", id, "start"]), None).await {
        // What failed is told; that it could not be cleared away as well would only hide it.
        let _ = engine
            .delete(
                &Place::of(&["containers", id])
                    .with("v", "true")
                    .with("force", "true"),
            )
            .await;
        return Err(error.into());
    }
    Ok(id.to_owned())
}
