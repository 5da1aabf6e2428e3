//! Builds that have ended, kept in files of Cove's, so that they are there after a restart.
//!
//! ```text
//!  builds/history.json   what is known of each, the newest first
//!  builds/ID.json        its steps and its log
//! ```
//!
//! Each file is replaced in one step. One that cannot be read is put aside and told of, and never stops the window.

use cove_view::{BuildDetails, BuildHistory, BuildRow};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Builds that are kept.
const KEPT: usize = 50;
/// Largest file that is read, in bytes; those that are written are far smaller.
const LARGEST: u64 = 64 << 20;
const LIST: &str = "history.json";

/// The history. Its methods wait for the disk.
#[derive(Debug)]
pub(crate) struct History {
    directory: PathBuf,
    /// Held while files change; what was put aside since the window was opened.
    damaged: Mutex<Option<PathBuf>>,
}

impl History {
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self {
            directory,
            damaged: Mutex::new(None),
        }
    }

    /// What is kept.
    pub(crate) fn read(&self) -> io::Result<BuildHistory> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let builds = self.list(&mut damaged)?;
        let damaged = damaged.as_ref().map(|place| place.display().to_string());
        Ok(BuildHistory { builds, damaged })
    }

    /// Whether a build that is kept read this folder.
    pub(crate) fn knows_folder(&self, folder: &Path) -> bool {
        self.read().is_ok_and(|history| {
            history
                .builds
                .iter()
                .any(|row| Path::new(&row.spec.folder) == folder)
        })
    }

    /// Steps and log of a build; nothing if it is not kept.
    pub(crate) fn details(&self, id: &str) -> io::Result<Option<BuildDetails>> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if self.list(&mut damaged)?.iter().all(|row| row.id != id) {
            return Ok(None);
        }
        read(&self.file_of(id), &mut damaged)
    }

    /// Keeps a build, and lets go of the oldest.
    pub(crate) fn add(&self, row: BuildRow, details: &BuildDetails) -> io::Result<()> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        cove_api::make_private(&self.directory)?;
        let mut rows = self.list(&mut damaged)?;
        rows.retain(|known| known.id != row.id);
        write(&self.file_of(&row.id), details)?;
        rows.insert(0, row);
        rows.truncate(KEPT);
        self.replace(&rows)
    }

    /// Lets go of builds; those that are not kept are no mistake.
    pub(crate) fn remove(&self, ids: &[String]) -> io::Result<()> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = self.list(&mut damaged)?;
        rows.retain(|row| !ids.contains(&row.id));
        self.replace(&rows)
    }

    /// Writes the list, and removes the files of builds that are not in it.
    fn replace(&self, rows: &[BuildRow]) -> io::Result<()> {
        write(&self.directory.join(LIST), rows)?;
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let id = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            let is_details = path.extension().is_some_and(|end| end == "json") && is_id(id);
            if is_details && rows.iter().all(|row| row.id != id) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// What may have been written into the list by somebody else names no file elsewhere.
    fn list(&self, damaged: &mut Option<PathBuf>) -> io::Result<Vec<BuildRow>> {
        let rows: Option<Vec<BuildRow>> = read(&self.directory.join(LIST), damaged)?;
        let rows = rows.into_iter().flatten().filter(|row| is_id(&row.id));
        Ok(rows.take(KEPT).collect())
    }

    fn file_of(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

/// Whether this may name a build: a UUID, which means nothing in a path.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == 36
        && id
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Reads a file; nothing if there is none, or if it was damaged and is put aside now.
fn read<T: DeserializeOwned>(path: &Path, damaged: &mut Option<PathBuf>) -> io::Result<Option<T>> {
    let mut text = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(LARGEST).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Ok(value) = serde_json::from_slice(&text) {
        return Ok(Some(value));
    }
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside)?;
    *damaged = Some(aside);
    Ok(None)
}

fn write<T: Serialize + ?Sized>(path: &Path, value: &T) -> io::Result<()> {
    // What is temporary is its owner's alone, and stays so: arguments of builds may be nobody else's business.
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_view::{BuildOutcome, BuildSpec};

    fn id(number: usize) -> String {
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    fn row(number: usize) -> BuildRow {
        BuildRow {
            id: id(number),
            spec: BuildSpec {
                folder: format!("/home/u/{number}"),
                dockerfile: String::new(),
                tag: String::new(),
                target: String::new(),
                platforms: Vec::new(),
                args: Vec::new(),
            },
            started_ms: 0,
            took_ms: 1,
            outcome: BuildOutcome::Done,
            failure: String::new(),
            steps: 0,
            cached: 0,
        }
    }

    fn details(line: &str) -> BuildDetails {
        BuildDetails {
            steps: Vec::new(),
            log: vec![line.to_owned()],
        }
    }

    fn history() -> (tempfile::TempDir, History) {
        let place = tempfile::tempdir().unwrap();
        let history = History::at(place.path().join("builds"));
        (place, history)
    }

    #[test]
    fn builds_are_there_after_a_restart_and_the_oldest_make_room() {
        let (place, history) = history();
        assert!(history.read().unwrap().builds.is_empty());
        for number in 0..KEPT + 3 {
            history.add(row(number), &details("log")).unwrap();
        }
        let again = History::at(place.path().join("builds"));
        let builds = again.read().unwrap().builds;
        assert_eq!(builds.len(), KEPT);
        assert_eq!(builds[0].id, id(KEPT + 2));
        assert!(again.knows_folder(Path::new("/home/u/7")));
        assert!(!again.knows_folder(Path::new("/home/u/0")));
        assert_eq!(again.details(&id(7)).unwrap(), Some(details("log")));
        assert_eq!(again.details(&id(0)).unwrap(), None);
        let files = || fs::read_dir(place.path().join("builds")).unwrap().count();
        assert_eq!(files(), KEPT + 1);
        again.remove(&[id(7), id(0)]).unwrap();
        assert_eq!((again.read().unwrap().builds.len(), files()), (KEPT - 1, KEPT));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_told_of() {
        let (place, history) = history();
        history.add(row(1), &details("log")).unwrap();
        let directory = place.path().join("builds");
        fs::write(directory.join(format!("{}.json", id(1))), "{\"log\": 7}").unwrap();
        assert_eq!(history.details(&id(1)).unwrap(), None);
        fs::write(directory.join(LIST), "[{\"id\":").unwrap();
        let read = history.read().unwrap();
        assert!(read.builds.is_empty());
        assert!(
            read.damaged
                .is_some_and(|place| place.ends_with("history.damaged"))
        );
        assert!(directory.join("history.damaged").exists());
        history.add(row(2), &details("log")).unwrap();
        assert_eq!(history.read().unwrap().builds.len(), 1);
    }

    #[test]
    fn a_list_that_somebody_wrote_names_no_file_elsewhere() {
        let (place, history) = history();
        let directory = place.path().join("builds");
        fs::create_dir(&directory).unwrap();
        fs::write(
            place.path().join("secret.json"),
            "{\"steps\":[],\"log\":[\"secret\"]}",
        )
        .unwrap();
        let wrong = BuildRow {
            id: "../secret".to_owned(),
            ..row(1)
        };
        fs::write(directory.join(LIST), serde_json::to_vec(&[wrong]).unwrap()).unwrap();
        assert!(history.read().unwrap().builds.is_empty());
        assert_eq!(history.details("../secret").unwrap(), None);
        assert!(!is_id("../../../../../../../../../../secret"));
    }
}
