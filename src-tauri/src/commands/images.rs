//! Images: pulled, pushed, named, removed, written to files and read from them.

use super::registries;
use crate::{
    cove::Cove,
    drops::Drops,
    failure::{Answer, Refusal},
    local,
    task::{Report, Tasks},
};
use cove_engine::{Engine, Lines, Place};
use cove_view::{FailureKind, ImageDetails, Pruned, TaskStep, Transfer};
use hyper::Method;
use std::{path::PathBuf, sync::Arc};
use tauri::{AppHandle, State, ipc::Channel};

/// Pulls an image.
#[tauri::command]
pub(crate) async fn pull_image(
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    reference: String,
) -> Answer<()> {
    let engine = cove.engine();
    tasks
        .run(task, steps, |report| async move {
            pull(&engine, &reference, &report).await
        })
        .await
}

/// Pulls an image, and tells how far each layer is.
pub(crate) async fn pull(engine: &Engine, reference: &str, report: &Report) -> Answer<()> {
    let mut place = Place::of(&["images", "create"]).with("fromImage", reference);
    // Without a tag the engine would pull all of them.
    if !names_a_version(reference) {
        place = place.with("tag", "latest");
    }
    ask_registry(engine, &place, "pull", reference, report).await
}

/// Has the engine carry an image from or to its registry, as who is signed in there.
async fn ask_registry(
    engine: &Engine,
    place: &Place,
    verb: &str,
    reference: &str,
    report: &Report,
) -> Answer<()> {
    let header = registries::header_for(reference, report).await;
    let carried = match engine.lines_as(Method::POST, place, &header).await {
        Ok(lines) => carry(lines, report).await,
        Err(error) => Err(error.into()),
    };
    carried.map_err(|error| registries::refusal(verb, reference, &error))
}

/// Pushes an image to the registry that its name says.
#[tauri::command]
pub(crate) async fn push_image(
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    reference: String,
) -> Answer<()> {
    let engine = cove.engine();
    tasks
        .run(task, steps, |report| async move {
            let (name, tag) = divided(&reference);
            let place = Place::of(&["images", name, "push"]).with("tag", tag);
            ask_registry(&engine, &place, "push", &reference, &report).await
        })
        .await
}

/// Gives an image one more name.
#[tauri::command]
pub(crate) async fn tag_image(cove: State<'_, Arc<Cove>>, id: String, reference: String) -> Answer<()> {
    let (name, tag) = divided(&reference);
    let place = Place::of(&["images", &id, "tag"])
        .with("repo", name)
        .with("tag", tag);
    cove.engine().post(&place, None).await?;
    Ok(())
}

/// Removes a name of an image, and the image with its last one. By its digest it goes with all its names, if forced.
#[tauri::command]
pub(crate) async fn remove_image(cove: State<'_, Arc<Cove>>, reference: String, force: bool) -> Answer<()> {
    let mut place = Place::of(&["images", &reference]);
    if force {
        place = place.with("force", "true");
    }
    cove.engine().delete(&place).await?;
    Ok(())
}

/// Removes images that nothing names, or all that no container was made from.
#[tauri::command]
pub(crate) async fn prune_images(cove: State<'_, Arc<Cove>>, unused: bool) -> Answer<Pruned> {
    let filters = serde_json::json!({"dangling": [(!unused).to_string()]});
    let place = Place::of(&["images", "prune"]).with("filters", &filters.to_string());
    Ok(Pruned::read(&cove.engine().post(&place, None).await?))
}

/// What an image is made of.
#[tauri::command]
pub(crate) async fn image_details(cove: State<'_, Arc<Cove>>, id: String) -> Answer<ImageDetails> {
    let engine = cove.engine();
    let (image, history) = (
        Place::of(&["images", &id, "json"]),
        Place::of(&["images", &id, "history"]),
    );
    let (image, history) = tokio::try_join!(engine.get(&image), engine.get(&history))?;
    ImageDetails::read(&image, &history)
        .ok_or_else(|| Refusal::new(format!("the engine says nothing of {id}"), "Try again."))
}

/// Writes images to a tar file where a person says; where that is, or nothing if they said nothing.
#[tauri::command]
pub(crate) async fn save_images(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    references: Vec<String>,
) -> Answer<Option<String>> {
    let engine = cove.engine();
    tasks
        .run(task, steps, |report| async move {
            let first = references.first().map_or("images", String::as_str);
            let Some(to) = local::place_for(&app, &format!("{first}.tar")).await? else {
                return Ok(None);
            };
            let place = references
                .iter()
                .fold(Place::of(&["images", "get"]), |place, reference| {
                    place.with("names", reference)
                });
            local::save(engine.bytes(&place).await?, &to, &report).await?;
            Ok(Some(to.display().to_string()))
        })
        .await
}

/// Loads the images of a tar file: of one that was dropped on the window, or else of one that a person is asked for.
/// Says whether there was one.
#[tauri::command]
pub(crate) async fn load_images(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    drops: State<'_, Drops>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    dropped: Option<PathBuf>,
) -> Answer<bool> {
    let engine = cove.engine();
    if let Some(path) = &dropped {
        drops.check(std::slice::from_ref(path))?;
    }
    tasks
        .run(task, steps, |report| async move {
            let path = match dropped {
                Some(path) => Some(path),
                None => local::existing(&app).await?,
            };
            let Some(path) = path else {
                return Ok(false);
            };
            let archive = local::open(&path, &report).await?;
            let place = Place::of(&["images", "load"]).with("quiet", "false");
            let lines = engine.post_archive(&place, archive).await?;
            carry(lines, &report).await.map_err(|error| {
                Refusal::new(
                    format!("cannot load {}: {}", path.display(), error.0.message),
                    "Choose a file that docker save made. What docker export made is imported instead.",
                )
                .of(error.0.kind)
            })?;
            Ok(true)
        })
        .await
}

/// Makes an image of one layer from a tar file of a root file system; whether a person chose one.
#[tauri::command]
pub(crate) async fn import_image(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    reference: String,
) -> Answer<bool> {
    let engine = cove.engine();
    tasks
        .run(task, steps, |report| async move {
            let Some(path) = local::existing(&app).await? else {
                return Ok(false);
            };
            let (name, tag) = divided(&reference);
            let place = Place::of(&["images", "create"])
                .with("fromSrc", "-")
                .with("repo", name)
                .with("tag", tag);
            let archive = local::open(&path, &report).await?;
            carry(engine.post_archive(&place, archive).await?, &report).await?;
            Ok(true)
        })
        .await
}

/// Follows an image on its way until it is there.
async fn carry(mut lines: Lines, report: &Report) -> Answer<()> {
    let mut transfer = Transfer::default();
    while let Some(line) = lines.next().await? {
        if let Some(error) = line["error"].as_str() {
            return Err(Refusal::new(error, "").of(Some(FailureKind::EngineRefused)));
        }
        report.tell_all(transfer.take(&line));
    }
    Ok(())
}

/// Whether a reference says which version it means. A registry's port is not a version.
fn names_a_version(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    name.contains([':', '@'])
}

/// A reference as name and tag, `latest` where it has none. A colon before a slash is a registry's port.
pub(super) fn divided(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_port_is_not_a_version() {
        for (reference, names) in [
            ("alpine", false),
            ("alpine:3.23", true),
            ("localhost:5000/a", false),
            ("localhost:5000/a:1", true),
            ("a@sha256:00", true),
        ] {
            assert_eq!(names_a_version(reference), names, "{reference}");
        }
        assert_eq!(divided("localhost:5000/a"), ("localhost:5000/a", "latest"));
        assert_eq!(divided("localhost:5000/a:1"), ("localhost:5000/a", "1"));
    }
}
