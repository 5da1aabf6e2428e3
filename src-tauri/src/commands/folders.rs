//! Folders that were dropped on the window or chosen: what they are, and sharing them when a person agreed.

use crate::{
    cove::Cove,
    drops::Drops,
    failure::{Answer, Refusal},
    local,
};
use cove_api::NewShare;
use cove_view::{Dropped, Sharing};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tauri::{AppHandle, State};

/// Names that compose looks for, in its own order.
const COMPOSE: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// What a dropped path is. Symbolic links are followed, since a share is a real folder; where they lead is then given to
/// the window, too.
#[tauri::command]
pub(crate) async fn look_at(
    cove: State<'_, Arc<Cove>>,
    drops: State<'_, Drops>,
    path: PathBuf,
) -> Answer<Dropped> {
    drops.check(std::slice::from_ref(&path))?;
    look(&cove, &drops, &path).await
}

/// Asks for a folder; what it is, or nothing if the person said nothing.
#[tauri::command]
pub(crate) async fn choose_folder(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    drops: State<'_, Drops>,
) -> Answer<Option<Dropped>> {
    match local::folder(&app).await? {
        Some(path) => Ok(Some(look(&cove, &drops, &path).await?)),
        None => Ok(None),
    }
}

/// What a path is that a person named. From then on the page may name it as it is without links.
async fn look(cove: &Cove, drops: &Drops, path: &Path) -> Answer<Dropped> {
    let cannot = |error: std::io::Error| {
        Refusal::new(
            format!("cannot look at {}: {error}", path.display()),
            "Drop something that is on this computer and that you may read.",
        )
    };
    let found = tokio::fs::canonicalize(path).await.map_err(cannot)?;
    let kind = tokio::fs::metadata(&found).await.map_err(cannot)?;
    let Some(text) = found.to_str() else {
        return Err(Refusal::new(
            format!("the path {} is not UTF-8", found.display()),
            "Rename it, so that containers can be told of it.",
        ));
    };
    let shares = cove.daemon().await?.shares().await?;
    let compose = compose_file(&found).await;
    drops.admit(&found);
    Ok(Dropped {
        path: text.to_owned(),
        name: found
            .file_name()
            .map_or_else(|| text.to_owned(), |name| name.to_string_lossy().into_owned()),
        folder: kind.is_dir(),
        dockerfile: is_file(&found.join("Dockerfile")).await,
        compose,
        shared: Sharing::of(&found, &shares),
    })
}

/// The compose file of a folder, by the first of the names that compose looks for.
pub(super) async fn compose_file(folder: &Path) -> Option<String> {
    for name in COMPOSE {
        if is_file(&folder.join(name)).await {
            return Some(name.to_owned());
        }
    }
    None
}

/// The file that compose reads besides `file` of its own accord, as an absolute path.
pub(super) async fn override_of(folder: &Path, file: &str) -> Option<String> {
    let (stem, _) = file.rsplit_once('.')?;
    for end in ["yml", "yaml"] {
        let path = folder.join(format!("{stem}.override.{end}"));
        if is_file(&path).await {
            return path.to_str().map(str::to_owned);
        }
    }
    None
}

/// Refuses a folder that the machine does not have.
pub(super) async fn in_machine(cove: &Cove, folder: &Path) -> Answer<()> {
    let shares = cove.daemon().await?.shares().await?;
    let has =
        |share: &cove_api::Share| folder.starts_with(&share.path) && share.machines.contains(&cove.machine);
    if shares.iter().any(has) {
        return Ok(());
    }
    Err(Refusal::new(
        format!("{} is not shared with the machine", folder.display()),
        "Choose the folder once more, which asks whether to share it, or use: cove share add",
    ))
}

/// Shares a folder that a person dropped or chose with the machines. The page asks the person first.
#[tauri::command]
pub(crate) async fn share_folder(
    cove: State<'_, Arc<Cove>>,
    drops: State<'_, Drops>,
    path: PathBuf,
    read_only: bool,
) -> Answer<()> {
    drops.check(std::slice::from_ref(&path))?;
    let share = cove
        .daemon()
        .await?
        .add_share(&NewShare { path, read_only })
        .await?;
    match share
        .missing
        .iter()
        .find(|missing| missing.machine == cove.machine)
    {
        Some(missing) => Err(Refusal::new(
            format!("the machine did not take {}", share.path.display()),
            missing.why.as_str(),
        )),
        None => Ok(()),
    }
}

async fn is_file(path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_ok_and(|kind| kind.is_file())
}
