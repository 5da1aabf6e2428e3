//! Running a container: pulled if need be, created, started.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
};
use cove_engine::{Engine, Place};
use cove_view::{PullProgress, RunSpec, Step};
use std::sync::Arc;
use tauri::{State, ipc::Channel};

/// Creates and starts a container and returns its id. An attempt that fails leaves no container behind.
#[tauri::command]
pub(crate) async fn run(cove: State<'_, Arc<Cove>>, spec: RunSpec, steps: Channel<Step>) -> Answer<String> {
    let engine = cove.engine();
    let mut place = Place::of(&["containers", "create"]);
    if !spec.name.is_empty() {
        place = place.with("name", &spec.name);
    }
    let body = spec.to_engine();
    let created = match engine.post(&place, Some(&body)).await {
        Err(error) if error.is_not_found() => {
            pull(&engine, &spec.image, &steps).await?;
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

/// Pulls an image, and tells how far that is.
async fn pull(engine: &Engine, image: &str, steps: &Channel<Step>) -> Answer<()> {
    let mut place = Place::of(&["images", "create"]).with("fromImage", image);
    // Without a tag the engine would pull all of them.
    let name = image.rsplit('/').next().unwrap_or(image);
    if !name.contains([':', '@']) {
        place = place.with("tag", "latest");
    }
    let mut lines = engine.lines(hyper::Method::POST, &place).await?;
    let mut progress = PullProgress::default();
    while let Some(line) = lines.next().await? {
        if let Some(error) = line["error"].as_str() {
            return Err(Refusal::new(
                format!("cannot pull {image}: {error}"),
                "Check the image's name, and that the machine reaches the registry.",
            ));
        }
        if let Some(fraction) = progress.take(&line) {
            // A page that went away needs no steps; the pull goes on.
            let _ = steps.send(Step {
                message: image.to_owned(),
                fraction: Some(fraction),
            });
        }
    }
    Ok(())
}
