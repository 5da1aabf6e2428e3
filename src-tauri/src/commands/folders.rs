//! Folders that were dropped on the window: what they are, and sharing them when a person agreed.

use crate::{
    cove::Cove,
    drops::Drops,
    failure::{Answer, Refusal},
};
use cove_api::NewShare;
use cove_view::{Dropped, Sharing};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tauri::State;

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
    let cannot = |error: std::io::Error| {
        Refusal::new(
            format!("cannot look at {}: {error}", path.display()),
            "Drop something that is on this computer and that you may read.",
        )
    };
    let found = tokio::fs::canonicalize(&path).await.map_err(cannot)?;
    let kind = tokio::fs::metadata(&found).await.map_err(cannot)?;
    let Some(text) = found.to_str() else {
        return Err(Refusal::new(
            format!("the path {} is not UTF-8", found.display()),
            "Rename it, so that containers can be told of it.",
        ));
    };
    drops.add(std::slice::from_ref(&found));
    let shares = cove.daemon().await?.shares().await?;
    let mut compose = None;
    for name in COMPOSE {
        if compose.is_none() && is_file(&found.join(name)).await {
            compose = Some(name.to_owned());
        }
    }
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

/// Shares a folder that was dropped on the window with the machines. The page asks the person first.
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
