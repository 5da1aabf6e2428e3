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
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tauri::{AppHandle, State};
use tokio::io::AsyncReadExt as _;

/// Names that compose looks for, in its own order (compose-go's `DefaultFileNames`).
const COMPOSE: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// Names of the file that compose reads besides, whichever of the others there is (`DefaultOverrideFileNames`).
const OVERRIDE: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// The largest file of variables that is read, in bytes.
const LARGEST: u64 = 1 << 20;

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
async fn compose_file(folder: &Path) -> Option<String> {
    first_of(folder, COMPOSE).await.map(str::to_owned)
}

/// The files that compose reads in a folder of its own accord, as absolute paths; none if it finds none.
pub(super) async fn compose_files(folder: &Path) -> Answer<Vec<String>> {
    let text = variables(folder).await?.unwrap_or_default();
    let names = match (named_files(&text)?, first_of(folder, COMPOSE).await) {
        (Some(names), _) => names,
        (None, None) => Vec::new(),
        (None, Some(file)) => {
            let besides = first_of(folder, OVERRIDE).await;
            [file].into_iter().chain(besides).map(str::to_owned).collect()
        }
    };
    let paths = names.into_iter().map(|name| {
        folder.join(&name).into_os_string().into_string().map_err(|_| {
            Refusal::new(
                format!("the path of {name} is not UTF-8"),
                "Rename its folder, so that compose can be told of it.",
            )
        })
    });
    paths.collect()
}

/// The text of a folder's `.env`, where there is one.
async fn variables(folder: &Path) -> Answer<Option<String>> {
    let path = folder.join(".env");
    let cannot = |why: &dyn std::fmt::Display| {
        Refusal::new(
            format!("cannot read {}: {why}", path.display()),
            "It may name the files of the project. See that you may read it.",
        )
    };
    if !is_file(&path).await {
        return Ok(None);
    }
    let file = tokio::fs::File::open(&path)
        .await
        .map_err(|error| cannot(&error))?;
    let mut text = String::new();
    let mut limited = file.take(LARGEST + 1);
    limited
        .read_to_string(&mut text)
        .await
        .map_err(|error| cannot(&error))?;
    if text.len() as u64 > LARGEST {
        return Err(cannot(&"it is larger than 1 MiB"));
    }
    Ok(Some(text))
}

/// The files that `COMPOSE_FILE` names, in place of those that compose looks for. What it would have to be worked out for
/// is refused: the project shown is to be the one that is brought up.
fn named_files(variables: &str) -> Answer<Option<Vec<String>>> {
    let value = |wanted: &str| {
        variables.lines().rev().find_map(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (name, value) = line.split_once(['=', ':'])?;
            (name.trim() == wanted).then_some(value.trim())
        })
    };
    let Some(named) = value("COMPOSE_FILE").filter(|named| !named.is_empty()) else {
        return Ok(None);
    };
    let plain = ["\"", "'"]
        .iter()
        .find_map(|quote| named.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(named);
    if plain.contains(['"', '\'', '$', '\\', '#', '`']) || value("COMPOSE_PATH_SEPARATOR").is_some() {
        return Err(Refusal::new(
            format!(
                "the .env of this folder names the project's files in a way that Cove does not read: {named}"
            ),
            "Write COMPOSE_FILE as names with colons between them, or use docker compose.",
        ));
    }
    let names = plain.split(':').filter(|name| !name.is_empty());
    Ok(Some(names.map(str::to_owned).collect()))
}

async fn first_of(folder: &Path, names: [&'static str; 4]) -> Option<&'static str> {
    for name in names {
        if is_file(&folder.join(name)).await {
            return Some(name);
        }
    }
    None
}

/// Refuses a folder that the machine does not have.
pub(super) async fn in_machine(cove: &Cove, folder: &Path) -> Answer<()> {
    all_in_machine(cove, &[folder]).await
}

/// Refuses paths that do not lie in what is shared with the machine. Links are not followed here.
pub(super) async fn all_in_machine(cove: &Cove, paths: &[&Path]) -> Answer<()> {
    let shares = cove.daemon().await?.shares().await?;
    let machine = cove.machine();
    let ours: Vec<_> = shares
        .iter()
        .filter(|share| share.machines.contains(&machine))
        .map(|share| share.path.as_path())
        .collect();
    match paths.iter().find(|path| !lies_in(path, &ours)) {
        None => Ok(()),
        Some(path) => Err(Refusal::new(
            format!("{} is not shared with the machine", path.display()),
            "Choose the folder once more, which asks whether to share it, or use: cove share add",
        )),
    }
}

/// Whether a path lies in one of these folders. One that leads upwards lies in none: where it ends is not known.
fn lies_in(path: &Path, folders: &[&Path]) -> bool {
    !path.components().any(|part| part == Component::ParentDir)
        && folders.iter().any(|folder| path.starts_with(folder))
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
    let machine = cove.machine();
    match share.missing.iter().find(|missing| missing.machine == machine) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_upwards_lies_in_no_folder() {
        let shares = [Path::new("/home/u")];
        assert!(lies_in(Path::new("/home/u/shop"), &shares));
        for path in ["/home/u/../../var/lib/docker", "/home/u2", "/"] {
            assert!(!lies_in(Path::new(path), &shares), "{path}");
        }
    }

    #[tokio::test]
    async fn the_files_of_a_folder_are_those_that_compose_reads() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path();
        let files = || async { compose_files(folder).await.map_err(|refusal| refusal.0.message) };
        let paths = |names: &[&str]| {
            let paths = names.iter().map(|name| folder.join(name).display().to_string());
            Ok(paths.collect::<Vec<_>>())
        };
        assert_eq!(files().await, paths(&[]));
        for name in ["docker-compose.yml", "docker-compose.yaml"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(files().await, paths(&["docker-compose.yml"]));
        std::fs::write(folder.join("compose.override.yaml"), "").unwrap();
        std::fs::write(folder.join("docker-compose.override.yml"), "").unwrap();
        assert_eq!(
            files().await,
            paths(&["docker-compose.yml", "compose.override.yaml"])
        );
        std::fs::write(folder.join(".env"), "A=1\nexport COMPOSE_FILE=\"a.yml:b.yml\"\n").unwrap();
        assert_eq!(files().await, paths(&["a.yml", "b.yml"]));
        std::fs::write(folder.join(".env"), "COMPOSE_FILE: $BASE/a.yml\n").unwrap();
        assert!(files().await.is_err());
        std::fs::write(
            folder.join(".env"),
            "COMPOSE_FILE=a;b\nCOMPOSE_PATH_SEPARATOR=;\n",
        )
        .unwrap();
        assert!(files().await.is_err());
    }
}
