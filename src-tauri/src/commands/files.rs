//! Files of containers and volumes: looked at and renamed by the guest's agent, read and written as the engine's
//! archives.

use crate::{
    archives::Archives,
    cove::Cove,
    failure::{Answer, Refusal},
    guest,
    task::{Report, Tasks},
};
use cove_engine::{
    Engine, Place,
    archive::{self, ArchiveError, Head},
};
use cove_view::{
    Changes, FileText, FilesOf, FilesView, MountRow, Outside, Saved, TaskStep, files_root, volume_root,
};
use cove_wire::{
    AGENT_PROGRAM, FILES_ARGUMENT, FilesAnswer, FilesCall, FilesQuestion, FilesRoot, InMount, MAX_MOUNTS,
    MAX_MOUNTS_LENGTH,
};
use serde_json::Value;
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tauri::{State, ipc::Channel};

/// The largest text that is shown and edited, in bytes.
const LARGEST: u64 = 1 << 20;
/// What may stand before a file's content in its archive: blocks, and records with long names and attributes.
const PREFIX: u64 = 256 << 10;

/// What is at a path of a container or a volume.
#[tauri::command]
pub(crate) async fn files_at(cove: State<'_, Arc<Cove>>, of: FilesOf, path: String) -> Answer<FilesView> {
    let machine = cove.machine();
    let engine = cove.engine_of(&machine);
    let (root, mounts, changes) = match of {
        FilesOf::Container { id } => {
            let place = Place::of(&["containers", &id, "changes"]);
            let (inspected, changes) = tokio::join!(inspect(&engine, &id), engine.get(&place));
            let inspected = inspected?;
            // Without them files can be seen all the same.
            let changes = changes.map(|list| Changes::read(&list)).unwrap_or_default();
            (root_of(&inspected)?, MountRow::read_all(&inspected), changes)
        }
        FilesOf::Volume { name } => {
            let root = root_of_volume(&engine, &name).await?;
            (root, Vec::new(), Changes::default())
        }
    };
    let running = !matches!(root, FilesRoot::Layers(_));
    let call = FilesCall::Look {
        path,
        mounts: targets(&mounts),
    };
    match ask(&cove, &machine, root, call).await? {
        FilesAnswer::Folder {
            path,
            entries,
            cut,
            within,
        } => {
            let outside = outside(&cove, within, &mounts).await;
            Ok(FilesView::folder(path, entries, cut, running, outside, &changes))
        }
        FilesAnswer::Other { path, entry, within } => {
            let outside = outside(&cove, within, &mounts).await;
            Ok(FilesView::file(path, entry, outside, &changes))
        }
        FilesAnswer::Done | FilesAnswer::Refused(_) => Err(nonsense()),
    }
}

/// Where something is mounted, as far as a question can hold it.
fn targets(mounts: &[MountRow]) -> Vec<String> {
    let mut length = 0;
    let targets = mounts.iter().map(|mount| mount.target.clone());
    targets
        .take(MAX_MOUNTS)
        .take_while(|target| {
            length += target.len();
            length <= MAX_MOUNTS_LENGTH
        })
        .collect()
}

async fn outside(cove: &Cove, within: Option<InMount>, mounts: &[MountRow]) -> Option<Outside> {
    let within = within?;
    let shares = cove.client().shares().await.ok();
    Outside::of(&within, mounts, shares.as_deref())
}

/// A file's text.
#[tauri::command]
pub(crate) async fn read_file(cove: State<'_, Arc<Cove>>, of: FilesOf, path: String) -> Answer<FileText> {
    let archives = Archives::reading(&cove, of, &Report::default()).await?;
    let read = read(&archives, &path).await;
    archives.close().await;
    let (head, content) = read?;
    let revision = revision(&head, &content);
    match String::from_utf8(content) {
        Ok(text) if !text.contains('\0') => Ok(FileText { text, revision }),
        _ => Err(Refusal::new(
            "this file is no text",
            "Download it to open it elsewhere.",
        )),
    }
}

/// Writes a file's text anew, with mode, owner and attributes kept, unless it changed since it was read at `revision`.
/// Without one it is written whatever happened to it.
#[tauri::command]
pub(crate) async fn write_file(
    cove: State<'_, Arc<Cove>>,
    of: FilesOf,
    path: String,
    text: String,
    revision: Option<String>,
) -> Answer<Saved> {
    let archives = Archives::writing(&cove, of, &Report::default()).await?;
    let saved = save(&archives, &path, &text, revision).await;
    archives.close().await;
    saved
}

async fn save(archives: &Archives, path: &str, text: &str, revision: Option<String>) -> Answer<Saved> {
    let (folder, name) = divided(path)?;
    let (found, content) = read(archives, path).await?;
    if revision.is_some_and(|known| known != self::revision(&found, &content)) {
        return Ok(Saved::Conflict);
    }
    let head = Head {
        modified_s: now_s(),
        size: text.len() as u64,
        ..found
    };
    put(archives, folder, archive::of_file(name, &head, text.as_bytes())?).await?;
    // A program may have been quicker than we: what is there now counts.
    let (head, content) = read(archives, path).await?;
    if content != text.as_bytes() {
        return Ok(Saved::Conflict);
    }
    Ok(Saved::Done {
        revision: self::revision(&head, &content),
    })
}

/// Makes a folder in a folder.
#[tauri::command]
pub(crate) async fn make_folder(
    cove: State<'_, Arc<Cove>>,
    of: FilesOf,
    path: String,
    name: String,
) -> Answer<()> {
    let made = archive::of_folder(&name, &archive::new_folder(now_s()))?;
    let archives = Archives::writing(&cove, of, &Report::default()).await?;
    let done = put_new(&archives, &path, &name, made).await;
    archives.close().await;
    done
}

/// Puts what has this name into a folder that has nothing of it: an archive would change what is there already.
async fn put_new(archives: &Archives, folder: &str, name: &str, archive: Vec<u8>) -> Answer<()> {
    if archives.has(folder, name).await? {
        return Err(Refusal::new(
            format!("`{name}` is there already"),
            "Choose another name.",
        ));
    }
    put(archives, folder, archive).await
}

/// Gives a file or folder of a running container or a volume another name.
#[tauri::command]
pub(crate) async fn rename_file(
    cove: State<'_, Arc<Cove>>,
    of: FilesOf,
    path: String,
    name: String,
) -> Answer<()> {
    let machine = cove.machine();
    let root = root_to_change(&cove.engine_of(&machine), of).await?;
    done(&ask(&cove, &machine, root, FilesCall::Rename { path, name }).await?)
}

/// Removes a file, or a folder with all that is in it, of a running container or a volume. The page asks the
/// person first. What was removed before it is cancelled is gone.
#[tauri::command]
pub(crate) async fn remove_file(
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    of: FilesOf,
    path: String,
) -> Answer<()> {
    tasks
        .run(task, steps, |_| async move {
            let machine = cove.machine();
            let root = root_to_change(&cove.engine_of(&machine), of).await?;
            let question = question(root, FilesCall::Remove { path })?;
            let command = [AGENT_PROGRAM, FILES_ARGUMENT, &question];
            done(&read_answer(
                &guest::output_of_work(&cove, &machine, &command).await?,
            )?)
        })
        .await
}

fn done(answer: &FilesAnswer) -> Answer<()> {
    match answer {
        FilesAnswer::Done => Ok(()),
        FilesAnswer::Folder { .. } | FilesAnswer::Other { .. } | FilesAnswer::Refused(_) => Err(nonsense()),
    }
}

async fn inspect(engine: &Engine, id: &str) -> Answer<Value> {
    Ok(engine.get(&Place::of(&["containers", id, "json"])).await?)
}

async fn root_to_change(engine: &Engine, of: FilesOf) -> Answer<FilesRoot> {
    let root = match of {
        FilesOf::Container { id } => root_of(&inspect(engine, &id).await?)?,
        FilesOf::Volume { name } => root_of_volume(engine, &name).await?,
    };
    match root {
        root @ (FilesRoot::Running { .. } | FilesRoot::Volume(_)) => Ok(root),
        FilesRoot::Layers(_) => Err(Refusal::new(
            "files of a container that does not run cannot be renamed or removed",
            "Start the container first.",
        )),
    }
}

fn root_of(inspected: &Value) -> Answer<FilesRoot> {
    files_root(inspected).ok_or_else(|| {
        Refusal::new(
            "the files of this container cannot be found while it does not run",
            "Start the container to see its files.",
        )
    })
}

async fn root_of_volume(engine: &Engine, name: &str) -> Answer<FilesRoot> {
    let inspected = engine.get(&Place::of(&["volumes", name])).await?;
    volume_root(&inspected).ok_or_else(|| {
        Refusal::new(
            "the files of this volume are not kept by the engine itself",
            "Look at them in a container that uses it, while it runs.",
        )
    })
}

/// Asks the agent of this machine, which is the one whose engine told of `root`.
async fn ask(cove: &Cove, machine: &str, root: FilesRoot, call: FilesCall) -> Answer<FilesAnswer> {
    let question = question(root, call)?;
    read_answer(&guest::output(cove, machine, &[AGENT_PROGRAM, FILES_ARGUMENT, &question]).await?)
}

fn question(root: FilesRoot, call: FilesCall) -> Answer<String> {
    serde_json::to_string(&FilesQuestion { root, call }).map_err(|_| nonsense())
}

fn read_answer(answer: &[u8]) -> Answer<FilesAnswer> {
    match serde_json::from_slice(answer).map_err(|_| nonsense())? {
        FilesAnswer::Refused(why) => Err(Refusal::new(why, "")),
        answer => Ok(answer),
    }
}

fn nonsense() -> Refusal {
    Refusal::new(
        "the machine's agent gave an answer that makes no sense",
        "If Cove was upgraded since the machine started, restart the machine.",
    )
}

async fn read(archives: &Archives, path: &str) -> Answer<(Head, Vec<u8>)> {
    let mut bytes = archives.engine.bytes(&archives.at(path)?).await?;
    let mut archive = Vec::new();
    while let Some(data) = bytes.next().await? {
        archive.extend_from_slice(&data);
        // More than a file that is small enough can be. What is there tells how large it is.
        if archive.len() as u64 > LARGEST + PREFIX {
            break;
        }
    }
    Ok(archive::read_file(&archive[..], LARGEST)?)
}

async fn put(archives: &Archives, folder: &str, archive: Vec<u8>) -> Answer<()> {
    let place = archives.at(folder)?.with("noOverwriteDirNonDir", "true");
    let archive = std::io::Cursor::new(archive);
    Ok(archives.engine.put_archive(&place, archive).await?)
}

/// A path's folder and its name in it.
pub(super) fn divided(path: &str) -> Answer<(&str, &str)> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let name = archive::checked(name)?;
    Ok((if folder.is_empty() { "/" } else { folder }, name))
}

/// Names a state of a file. Its time would not do: the engine tells it in seconds.
fn revision(head: &Head, content: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("{}-{:o}-{:016x}", head.size, head.mode, hasher.finish())
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl From<ArchiveError> for Refusal {
    fn from(error: ArchiveError) -> Self {
        let hint = match &error {
            ArchiveError::TooLarge { .. } => {
                "Files of up to 1 MiB are shown here; download it to open it elsewhere."
            }
            _ => "",
        };
        Self::because(&error, hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_divided_into_folder_and_name() {
        let parts = |path| divided(path).ok();
        assert_eq!(parts("/etc/motd"), Some(("/etc", "motd")));
        assert_eq!(parts("/motd"), Some(("/", "motd")));
        for path in ["/", "", "/etc/", "/etc/.."] {
            assert_eq!(parts(path), None, "{path}");
        }
    }
}
