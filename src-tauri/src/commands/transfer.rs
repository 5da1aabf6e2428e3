//! Files that are copied between this computer and a container or a volume. Which ones, a person says: by a dialog that
//! this program opens, or by dropping them on the window.

use super::files::divided;
use crate::{
    archives::Archives,
    cove::Cove,
    drops::Drops,
    failure::{Answer, Refusal},
    local::{self, Told, come},
    pieces::{self, Pieces},
    task::{Report, Tasks},
};
use cove_engine::{
    Bytes,
    archive::{self, ArchiveError, Sent},
};
use cove_view::{FilesOf, TaskStep, Upload};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    collections::HashSet,
    ffi::OsStr,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use tauri::{AppHandle, State, ipc::Channel};
use tokio::task::JoinError;
use tokio_util::io::SyncIoBridge;

/// Bytes of an archive that may be under way to the engine.
const AHEAD: usize = 256 << 10;
/// Bytes that are written together.
const CHUNK: usize = 64 << 10;
/// Questions that the engine is asked at once.
const QUESTIONS: usize = 8;
/// Names that are told of at once.
const SHOWN: usize = 20;

/// Copies a file, or a folder as a tar archive, to where a person says; where that is, or nothing if they said nothing.
#[tauri::command]
#[expect(clippy::too_many_arguments, reason = "a command's arguments are its message")]
pub(crate) async fn download_file(
    app: AppHandle,
    cove: State<'_, Arc<Cove>>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    of: FilesOf,
    path: String,
    folder: bool,
) -> Answer<Option<String>> {
    let (_, name) = divided(&path)?;
    let name = if folder {
        format!("{name}.tar")
    } else {
        name.to_owned()
    };
    tasks
        .run(task, steps, |report| async move {
            let Some(to) = local::place_for(&app, &name).await? else {
                return Ok(None);
            };
            let archives = Archives::reading(&cove, of, &report).await?;
            let bytes = archives.engine.bytes(&archives.at(&path)?).await?;
            if folder {
                local::save(bytes, &to, &report).await?;
            } else {
                save_file(bytes, to.clone(), &report).await?;
            }
            archives.close().await;
            Ok(Some(to.display().to_string()))
        })
        .await
}

/// Asks for files to copy into a container or a volume; none if a person chose none.
#[tauri::command]
pub(crate) async fn choose_files(app: AppHandle, drops: State<'_, Drops>) -> Answer<Vec<String>> {
    let paths = local::several(&app).await?;
    Drops::check_count(&paths)?;
    drops.add(&paths);
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| {
            Refusal::new(
                format!("the path {} is not UTF-8", path.display()),
                "Rename it, so that containers can be told of it.",
            )
        })
    };
    paths.into_iter().map(text).collect()
}

/// Copies what was chosen or dropped into a folder of a container or a volume, unless there are things of the same
/// names there which nobody said may be written over.
#[tauri::command]
#[expect(clippy::too_many_arguments, reason = "a command's arguments are its message")]
pub(crate) async fn send_files(
    cove: State<'_, Arc<Cove>>,
    drops: State<'_, Drops>,
    tasks: State<'_, Tasks>,
    task: u32,
    steps: Channel<Vec<TaskStep>>,
    of: FilesOf,
    folder: String,
    paths: Vec<PathBuf>,
    replace: HashSet<String>,
) -> Answer<Upload> {
    drops.check(&paths)?;
    let (agreed, wanted) = names(&paths)?
        .into_iter()
        .partition(|name| replace.contains(name));
    tasks
        .run(task, steps, |report| async move {
            let archives = Archives::writing(&cove, of, &report).await?;
            let names = taken(&archives, &folder, wanted).await?;
            if !names.is_empty() {
                archives.close().await;
                return Ok(Upload::Taken { names });
            }
            let mut replacing = Replacing {
                names: agreed,
                report: report.clone(),
            };
            let Sent {
                left_out,
                left_out_names,
                ..
            } = send(&archives, &folder, paths, &report).await?;
            replacing.names.clear();
            archives.close().await;
            Ok(Upload::Done {
                left_out,
                left_out_names,
            })
        })
        .await
}

/// What is being written over. The engine writes into the files themselves, so that what is cancelled leaves a part of
/// one; where this is dropped with names, it tells of them.
struct Replacing {
    names: Vec<String>,
    report: Report,
}

impl Drop for Replacing {
    fn drop(&mut self) {
        if self.names.is_empty() {
            return;
        }
        let shown = self.names[..self.names.len().min(SHOWN)].join(", ");
        let more = match self.names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.report.tell(TaskStep::Line {
            text: format!(
                "It broke off while these were written over, and they may not be whole: {shown}{more}"
            ),
        });
    }
}

/// What these would be called in a folder. Of two with one name, one would be lost.
fn names(paths: &[PathBuf]) -> Answer<Vec<String>> {
    let mut names = Vec::with_capacity(paths.len());
    let mut seen = HashSet::new();
    for path in paths {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let name = archive::checked(name)?;
        if !seen.insert(name) {
            return Err(Refusal::new(
                format!("two of them are called {name}"),
                "Copy them one after the other, into two folders.",
            ));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Which of these names there are in a folder.
async fn taken(archives: &Archives, folder: &str, names: Vec<String>) -> Answer<Vec<String>> {
    let asked = stream::iter(names).map(|name| async move {
        let taken = archives.has(folder, &name).await?;
        Ok::<_, Refusal>(taken.then_some(name))
    });
    let found: Vec<Option<String>> = asked.buffered(QUESTIONS).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn send(archives: &Archives, folder: &str, paths: Vec<PathBuf>, report: &Report) -> Answer<Sent> {
    let place = archives.at(folder)?.with("noOverwriteDirNonDir", "true");
    let (near, far) = tokio::io::duplex(AHEAD);
    let making = tokio::task::spawn_blocking(move || archive::send(&paths, SyncIoBridge::new(far)));
    let taken = archives
        .engine
        .put_archive(&place, Told::new(near, None, report))
        .await;
    match making.await.map_err(|error| unfinished(&error))? {
        Ok(sent) => Ok(taken.map(|()| sent)?),
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

/// Writes the file of an answer beside its place and then into it, so that a download that breaks off or is cancelled
/// leaves nothing.
async fn save_file(bytes: Bytes, to: PathBuf, report: &Report) -> Answer<()> {
    let report = report.clone();
    pieces::hand_over(bytes, move |from| write(from, &to, &report)).await
}

fn write(from: Pieces, to: &Path, report: &Report) -> Answer<()> {
    let cannot = |error| local::cannot_write(to, &error);
    let mut beside = local::new_file_beside(to).map_err(cannot)?;
    let mut failed = None;
    archive::with_file(from, |head, content| {
        let mut buffer = vec![0; CHUNK];
        let mut count = 0;
        loop {
            let more = content.read(&mut buffer).map_err(ArchiveError::Broken)?;
            if more == 0 {
                break;
            }
            if let Err(error) = beside.write_all(&buffer[..more]) {
                failed = Some(error);
                return Ok(());
            }
            count += more as u64;
            report.tell(come(count, Some(head.size)));
        }
        if count == head.size {
            Ok(())
        } else {
            Err(ArchiveError::Broken(io::ErrorKind::UnexpectedEof.into()))
        }
    })?;
    if let Some(error) = failed {
        return Err(cannot(error));
    }
    beside.flush().map_err(cannot)?;
    beside.as_file().sync_all().map_err(cannot)?;
    beside.persist(to).map_err(|error| cannot(error.error))?;
    Ok(())
}

fn unfinished(error: &JoinError) -> Refusal {
    Refusal::because(error, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pieces::Piece;
    use cove_engine::archive::Head;
    use tokio::sync::mpsc;

    #[test]
    fn two_things_of_one_name_are_not_copied_into_one() {
        let paths = ["/a/notes", "/b/site", "/c/notes"].map(PathBuf::from);
        assert_eq!(names(&paths[..2]).ok(), Some(vec!["notes".into(), "site".into()]));
        let refusal = names(&paths).err().map(|refusal| refusal.0.message);
        assert_eq!(refusal.as_deref(), Some("two of them are called notes"));
        assert!(names(&["/".into()]).is_err());
    }

    #[test]
    fn what_breaks_off_while_it_is_written_over_is_named() {
        let report = Report::default();
        let mut replacing = Replacing {
            names: vec!["notes".into(), "site".into()],
            report: report.clone(),
        };
        replacing.names.clear();
        drop(replacing);
        assert!(report.take().is_empty());
        drop(Replacing {
            names: vec!["notes".into(), "site".into()],
            report: report.clone(),
        });
        let told = report.take();
        assert!(matches!(&told[..], [TaskStep::Line { text }] if text.ends_with("whole: notes, site")));
    }

    /// Writes what comes of a file of five bytes, and says what is in the folder then.
    fn downloaded(pieces: impl IntoIterator<Item = Piece>) -> (bool, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let (sender, received) = mpsc::channel(pieces::AHEAD);
        for piece in pieces {
            assert!(sender.try_send(piece).is_ok());
        }
        drop(sender);
        let done = write(
            Pieces::new(received),
            &folder.path().join("file"),
            &Report::default(),
        );
        let left = std::fs::read_dir(folder.path()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        (done.is_ok(), left.collect())
    }

    #[test]
    fn a_download_that_is_cancelled_leaves_nothing() {
        let head = Head {
            size: 5,
            ..archive::new_folder(0)
        };
        let whole = bytes::Bytes::from(archive::of_file("file", &head, b"hello").unwrap());
        let data = |end: usize| Piece::Data(whole.slice(..end));
        assert_eq!(
            downloaded([data(whole.len()), Piece::End]),
            (true, vec!["file".into()])
        );
        assert_eq!(downloaded([data(514)]), (false, Vec::new()));
        assert_eq!(downloaded([data(514), Piece::End]), (false, Vec::new()));
        assert_eq!(downloaded([]), (false, Vec::new()));
    }
}
