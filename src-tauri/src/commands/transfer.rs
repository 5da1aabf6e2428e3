//! Files that are copied between this computer and a container. Which ones, a person says: by a dialog that this
//! program opens, or by dropping them on the window.

use super::files::{archive_of, divided};
use crate::{
    cove::Cove,
    drops::Drops,
    failure::{Answer, Refusal},
    local,
};
use cove_engine::{Bytes, Engine, archive};
use std::{
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use tauri::{AppHandle, State};
use tokio::{sync::mpsc, task::JoinError};
use tokio_util::io::SyncIoBridge;

/// Bytes of an archive that may be under way to the engine.
const AHEAD: usize = 256 << 10;
/// Pieces of an answer that may be under way to the disk.
const PIECES: usize = 16;

/// Copies a file, or a folder as a tar archive, to where a person says; where that is, or nothing if they said nothing.
#[tauri::command]
pub(crate) async fn download_file(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    id: String,
    path: String,
    folder: bool,
) -> Answer<Option<String>> {
    let (_, name) = divided(&path)?;
    let name = if folder {
        format!("{name}.tar")
    } else {
        name.to_owned()
    };
    let Some(to) = local::place_for(&app, &name).await? else {
        return Ok(None);
    };
    let bytes = cove.engine().bytes(&archive_of(&id, &path)).await?;
    save(bytes, to.clone(), folder).await?;
    Ok(Some(to.display().to_string()))
}

/// Asks for files and copies them into a folder of a container; how many things were copied.
#[tauri::command]
pub(crate) async fn send_chosen(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    id: String,
    folder: String,
) -> Answer<u64> {
    let paths = local::several(&app).await?;
    if paths.is_empty() {
        return Ok(0);
    }
    send(&cove.engine(), &id, &folder, paths).await
}

/// Copies what was dropped on the window into a folder of a container; how many things were copied.
#[tauri::command]
pub(crate) async fn send_dropped(
    cove: State<'_, Arc<Cove>>,
    drops: State<'_, Drops>,
    id: String,
    folder: String,
    paths: Vec<PathBuf>,
) -> Answer<u64> {
    drops.check(&paths)?;
    send(&cove.engine(), &id, &folder, paths).await
}

async fn send(engine: &Engine, id: &str, folder: &str, paths: Vec<PathBuf>) -> Answer<u64> {
    let (near, far) = tokio::io::duplex(AHEAD);
    let making = tokio::task::spawn_blocking(move || archive::send(&paths, SyncIoBridge::new(far)));
    let place = archive_of(id, folder).with("noOverwriteDirNonDir", "true");
    let taken = engine.put_archive(&place, near).await;
    match making.await.map_err(|error| unfinished(&error))? {
        Ok(sent) => taken.map(|()| sent.entries).map_err(Refusal::from),
        // What the engine refused is not read to its end, which is not what went wrong.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(taken.map_or_else(Refusal::from, |()| Refusal::because(&error, "Try again.")))
        }
        Err(error) => Err(Refusal::new(
            format!("cannot read what is to be copied: {error}"),
            "What was read before may have been copied.",
        )),
    }
}

/// Writes an answer beside its place and then into it, so that a download that breaks off leaves nothing.
async fn save(mut bytes: Bytes, to: PathBuf, whole: bool) -> Answer<()> {
    let (pieces, received) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking(move || write(Pieces::new(received), &to, whole));
    let mut broken = None;
    loop {
        match bytes.next().await {
            Ok(Some(data)) => {
                if pieces.send(Ok(data)).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                let _ = pieces.send(Err(io::ErrorKind::BrokenPipe.into())).await;
                broken = Some(error);
                break;
            }
        }
    }
    drop(pieces);
    let written = writing.await.map_err(|error| unfinished(&error))?;
    match broken {
        Some(error) => Err(error.into()),
        None => written,
    }
}

fn write(mut from: Pieces, to: &Path, whole: bool) -> Answer<()> {
    let cannot = |error| local::cannot_write(to, &error);
    let mut beside = local::new_file_beside(to).map_err(cannot)?;
    if whole {
        io::copy(&mut from, &mut beside).map_err(cannot)?;
    } else {
        archive::with_file(from, |head, content| {
            let count = io::copy(content, &mut beside).map_err(archive::ArchiveError::Broken)?;
            if count == head.size {
                Ok(())
            } else {
                Err(archive::ArchiveError::Broken(io::ErrorKind::UnexpectedEof.into()))
            }
        })?;
    }
    beside.flush().map_err(cannot)?;
    beside.persist(to).map_err(|error| cannot(error.error))?;
    Ok(())
}

/// Pieces of an answer, read as one.
struct Pieces {
    received: mpsc::Receiver<io::Result<bytes::Bytes>>,
    rest: bytes::Bytes,
}

impl Pieces {
    fn new(received: mpsc::Receiver<io::Result<bytes::Bytes>>) -> Self {
        Self {
            received,
            rest: bytes::Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.received.blocking_recv() {
                Some(next) => self.rest = next?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

fn unfinished(error: &JoinError) -> Refusal {
    Refusal::because(error, "")
}
