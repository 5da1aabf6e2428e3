//! The files in the layers of an image.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    layers::Layers,
    local,
    task::Tasks,
};
use cove_view::{LayerFiles, LayerRows, LayerView, TaskStep};
use std::sync::Arc;
use tauri::{State, ipc::Channel};

/// Reads which files the layers of an image hold, the lowest layer first. The engine sends the whole image for it,
/// unless that was read before.
#[tauri::command]
pub(crate) async fn read_layers(
    cove: State<'_, Arc<Cove>>,
    layers: State<'_, Layers>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    id: String,
) -> Answer<Vec<LayerView>> {
    let engine = cove.engine();
    tasks
        .run(task, steps, |report| async move {
            let files = layers.read(&engine, &id, &report).await?;
            Ok(files.iter().map(LayerFiles::view).collect())
        })
        .await
}

/// Files of one layer of an image that was read, by its number: what is in a folder, or the largest of all.
#[tauri::command]
pub(crate) async fn layer_files(
    layers: State<'_, Layers>,
    id: String,
    layer: usize,
    folder: Option<String>,
    search: String,
) -> Answer<LayerRows> {
    let known = layers.of(&id);
    let found = local::blocking(move || {
        let known = known?;
        let layer = known.get(layer)?;
        Some(match folder {
            Some(folder) => layer.folder(&folder, &search),
            None => layer.largest(&search),
        })
    });
    found.await?.ok_or_else(|| {
        Refusal::new(
            "the files of this layer are not known any more",
            "Read the layers again.",
        )
    })
}
