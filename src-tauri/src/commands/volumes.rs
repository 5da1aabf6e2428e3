//! Volumes: made, emptied, copied, written to files and read from them, removed.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    helper::Helper,
    local::{self, Told},
    task::{Report, Tasks},
};
use cove_engine::{
    Engine, Place,
    archive::{self, Head},
};
use cove_view::{Label, TaskStep};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tauri::{AppHandle, State, ipc::Channel};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// Makes a volume.
#[tauri::command]
pub(crate) async fn create_volume(
    cove: State<'_, Arc<Cove>>,
    name: String,
    labels: Vec<Label>,
) -> Answer<()> {
    create(&cove.engine(), &name, labels).await
}

/// The engine itself hands out an existing one without a word, and this would then write into somebody's data.
async fn create(engine: &Engine, name: &str, labels: Vec<Label>) -> Answer<()> {
    if !name.is_empty() {
        match engine.get(&Place::of(&["volumes", name])).await {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                return Err(Refusal::new(
                    format!("there is a volume {name} already"),
                    "Choose another name.",
                ));
            }
        }
    }
    let labels: Map<_, _> = labels
        .into_iter()
        .map(|label| (label.name, Value::from(label.value)))
        .collect();
    let body = json!({"Name": name, "Labels": labels});
    engine
        .post(&Place::of(&["volumes", "create"]), Some(&body))
        .await?;
    Ok(())
}

/// Bytes of each volume. The engine has to count them, which takes its time.
#[tauri::command]
pub(crate) async fn volume_sizes(cove: State<'_, Arc<Cove>>) -> Answer<HashMap<String, u64>> {
    let place = Place::of(&["system", "df"]).with("type", "volume");
    let used = cove.engine().get(&place).await?;
    let volumes = used["Volumes"].as_array().into_iter().flatten();
    let sizes = volumes.filter_map(|volume| {
        Some((
            volume["Name"].as_str()?.to_owned(),
            volume["UsageData"]["Size"].as_u64()?,
        ))
    });
    Ok(sizes.collect())
}

/// Removes a volume and everything in it.
#[tauri::command]
pub(crate) async fn remove_volume(cove: State<'_, Arc<Cove>>, name: String) -> Answer<()> {
    cove.engine().delete(&Place::of(&["volumes", &name])).await?;
    Ok(())
}

/// Deletes everything in a volume and keeps the volume.
#[tauri::command]
pub(crate) async fn empty_volume(
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    name: String,
) -> Answer<()> {
    tasks
        .run(task, steps, |report| async move {
            let helper = Helper::writing(&cove, &cove.engine(), &name, None, &report).await?;
            helper.empty().await?;
            Ok(helper.remove().await?)
        })
        .await
}

/// Writes a volume to a tar file where a person says; where that is, or nothing if they said nothing.
#[tauri::command]
pub(crate) async fn back_up_volume(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    name: String,
) -> Answer<Option<String>> {
    tasks
        .run(task, steps, |report| async move {
            let engine = cove.engine();
            let Some(to) = local::place_for(&app, &format!("{name}.tar")).await? else {
                return Ok(None);
            };
            let helper = Helper::reading(&cove, &engine, &name, &report).await?;
            local::save(helper.read().await?, &to, &report).await?;
            helper.remove().await?;
            Ok(Some(to.display().to_string()))
        })
        .await
}

/// Makes a volume of what a tar file holds; whether a person chose one. What exists is never written over.
#[tauri::command]
pub(crate) async fn restore_volume(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    name: String,
) -> Answer<bool> {
    tasks
        .run(task, steps, |report| async move {
            let engine = cove.engine();
            let Some(path) = local::existing(&app).await? else {
                return Ok(false);
            };
            let archive = local::open(&path, &report).await?;
            let root = local::blocking(move || root_of(&path)).await?;
            let kind = Archive::Content(root);
            fill(&cove, &engine, &name, kind, archive, &report).await?;
            Ok(true)
        })
        .await
}

/// Makes a volume with the content of another.
#[tauri::command]
pub(crate) async fn clone_volume(
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    name: String,
    to: String,
) -> Answer<()> {
    tasks
        .run(task, steps, |report| async move {
            let engine = cove.engine();
            let helper = Helper::reading(&cove, &engine, &name, &report).await?;
            let content = StreamReader::new(Box::pin(local::again(helper.read_whole().await?)));
            let content = Told::new(content, None, &report);
            fill(&cove, &engine, &to, Archive::Whole, content, &report).await?;
            Ok(helper.remove().await?)
        })
        .await
}

/// The owner and mode of the volume itself, where a tar file tells them. One that is compressed does not here, nor does
/// one that is broken, which the engine will say.
fn root_of(path: &Path) -> Option<Head> {
    archive::read_root(File::open(path).ok()?).ok().flatten()
}

/// What an archive is of.
#[derive(Debug)]
enum Archive {
    /// What is in a volume, as anybody may have packed it, and what is known of the volume itself.
    Content(Option<Head>),
    /// A volume with its own owner and mode.
    Whole,
}

/// A new volume of this engine's with this content, or none.
async fn fill(
    cove: &Cove,
    engine: &Engine,
    name: &str,
    kind: Archive,
    archive: impl AsyncRead + Send + 'static,
    report: &Report,
) -> Answer<()> {
    let half = Arc::new(Unfinished::create(engine.clone(), name.to_owned()).await?);
    // A volume that was removed before its helper is made would be made again by that.
    let helper = Helper::writing(cove, engine, name, Some(half.clone()), report).await?;
    let written = match kind {
        Archive::Content(None) => helper.write(archive).await.map_err(Refusal::from),
        // The engine passes over the folder itself that it puts an archive into.
        Archive::Content(Some(root)) => match helper.write(archive).await {
            Ok(()) => helper.write_root(&root).await,
            Err(error) => Err(error.into()),
        },
        Archive::Whole => helper.write_whole(archive).await.map_err(Refusal::from),
    };
    // A volume in use cannot be removed, and the helper uses it.
    helper.remove().await?;
    written?;
    half.keep();
    Ok(())
}

/// A volume that is not whole yet. It goes when its task breaks off.
struct Unfinished {
    engine: Engine,
    name: String,
    kept: AtomicBool,
}

impl Unfinished {
    /// Makes an empty one. That goes on to its end whatever becomes of who asked: the engine may have made a volume that
    /// nobody would remove otherwise.
    async fn create(engine: Engine, name: String) -> Answer<Self> {
        let creating = tauri::async_runtime::spawn(async move {
            create(&engine, &name, Vec::new()).await?;
            Ok(Self {
                engine,
                name,
                kept: AtomicBool::new(false),
            })
        });
        // Where nobody waits any more, what it came to is dropped when it is there, and the volume with it.
        creating
            .await
            .map_err(|error| Refusal::because(&error, "Try again."))?
    }

    fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Acquire) {
            return;
        }
        let (engine, name) = (self.engine.clone(), std::mem::take(&mut self.name));
        tauri::async_runtime::spawn(async move {
            // Its helper may still be about to go. What stays after that is seen in the list.
            for _ in 0..20 {
                match engine.delete(&Place::of(&["volumes", &name])).await {
                    Err(error) if error.is_conflict() => {
                        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
                    }
                    _ => return,
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_nothing_of_the_volume_itself_is_content_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.tar");
        assert_eq!(root_of(&path), None);
        std::fs::write(&path, "this is no archive").unwrap();
        assert_eq!(root_of(&path), None);
        let other = archive::of_folder("inner", &archive::new_folder(0)).unwrap();
        std::fs::write(&path, other).unwrap();
        assert_eq!(root_of(&path), None);
    }
}
