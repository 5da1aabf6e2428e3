//! Builds, kept in files of Cove's from when they begin, so that they are there after a restart.
//!
//! ```text
//!  builds/history.json   what is known of each, the newest first
//!  builds/ID.json        its steps and its log
//!  builds/*.damaged      files that could not be read
//!
//!                            its window
//!  (none) ──begin──▶ running ──────────▶ done, failed or cancelled
//!                       └── its window has ended: cancelled
//! ```
//!
//! Each file is replaced in one step. One that cannot be read is put aside and told of, and never stops the window.

use crate::alive;
use cove_api::Dirs;
use cove_view::{BuildDetails, BuildHistory, BuildOutcome, BuildRow};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
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
/// What the name of a file ends with that could not be read.
const DAMAGED: &str = "damaged";
/// Damaged files of one name that are kept.
const ASIDE: usize = 9;
/// Bytes of a UUID as text.
const ID: usize = 36;

/// A build in the list's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    row: BuildRow,
    /// The window in which it runs; absent once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<String>,
}

/// The history. Its methods wait for the disk.
#[derive(Debug)]
pub(crate) struct History {
    dirs: Dirs,
    directory: PathBuf,
    /// Held while files change; what was put aside since the window was opened.
    damaged: Mutex<Option<PathBuf>>,
}

impl History {
    pub(crate) fn of(dirs: Dirs) -> Self {
        Self {
            directory: dirs.builds(),
            dirs,
            damaged: Mutex::new(None),
        }
    }

    /// What is kept.
    pub(crate) fn read(&self) -> io::Result<BuildHistory> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.list(&mut damaged)?;
        let builds = kept.into_iter().map(|kept| kept.row).collect();
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
        if self.list(&mut damaged)?.iter().all(|kept| kept.row.id != id) {
            return Ok(None);
        }
        read(&self.file_of(id), &mut damaged)
    }

    /// Keeps a build that runs in a window, which is named as [`alive`] knows it. One that has ended meanwhile stays so.
    pub(crate) fn begin(&self, row: BuildRow, window: String) -> io::Result<()> {
        let details = BuildDetails {
            steps: Vec::new(),
            log: Vec::new(),
        };
        let window = Some(window);
        self.keep(Kept { row, window }, &details)
    }

    /// Keeps a build that has ended, and lets go of the oldest.
    pub(crate) fn add(&self, row: BuildRow, details: &BuildDetails) -> io::Result<()> {
        self.keep(Kept { row, window: None }, details)
    }

    fn keep(&self, kept: Kept, details: &BuildDetails) -> io::Result<()> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        cove_api::make_private(&self.directory)?;
        let mut rows = self.list(&mut damaged)?;
        let id = &kept.row.id;
        let place = rows.iter().position(|known| known.row.id == *id);
        if kept.row.outcome == BuildOutcome::Running && place.is_some() {
            return Ok(());
        }
        rows.retain(|known| known.row.id != *id);
        write(&self.file_of(id), details)?;
        // Where it began, so that one that ends does not change the order.
        rows.insert(place.unwrap_or(0), kept);
        rows.truncate(KEPT);
        self.replace(&rows)
    }

    /// Lets go of builds; those that are not kept are no mistake.
    pub(crate) fn remove(&self, ids: &[String]) -> io::Result<()> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = self.list(&mut damaged)?;
        rows.retain(|kept| !ids.contains(&kept.row.id));
        self.replace(&rows)
    }

    /// Writes the list, and removes the files of builds that are not in it.
    fn replace(&self, rows: &[Kept]) -> io::Result<()> {
        write(&self.directory.join(LIST), rows)?;
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Some((id, end)) = name.split_at_checked(ID).filter(|(id, _)| is_id(id)) else {
                continue;
            };
            let is_ours = end == ".json" || end.ends_with(&format!(".{DAMAGED}"));
            if is_ours && rows.iter().all(|kept| kept.row.id != id) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// What may have been written into the list by somebody else names no file elsewhere. What ran in a window that has
    /// ended ended with it.
    fn list(&self, damaged: &mut Option<PathBuf>) -> io::Result<Vec<Kept>> {
        let rows: Option<Vec<Kept>> = read(&self.directory.join(LIST), damaged)?;
        let rows = rows.into_iter().flatten().filter(|kept| is_id(&kept.row.id));
        let rows = rows.take(KEPT).map(|mut kept| {
            let window = kept.window.as_deref().unwrap_or_default();
            // Whose life is not known may live.
            if kept.row.outcome == BuildOutcome::Running
                && matches!(alive::lives(&self.dirs, window), Ok(false))
            {
                kept.row.outcome = BuildOutcome::Cancelled;
                kept.window = None;
            }
            kept
        });
        Ok(rows.collect())
    }

    fn file_of(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

/// Whether this may name a build: a UUID, which means nothing in a path.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == ID
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
    // What was put aside before stays, until there is too much of it.
    let names = (2..=ASIDE).map(|number| path.with_extension(format!("{number}.{DAMAGED}")));
    let last = path.with_extension(format!("{ASIDE}.{DAMAGED}"));
    let aside = std::iter::once(path.with_extension(DAMAGED))
        .chain(names)
        .find(|place| !place.exists())
        .unwrap_or(last);
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
        let history = History::of(Dirs::below(place.path()));
        (place, history)
    }

    #[test]
    fn builds_are_there_after_a_restart_and_the_oldest_make_room() {
        let (place, history) = history();
        assert!(history.read().unwrap().builds.is_empty());
        for number in 0..KEPT + 3 {
            history.add(row(number), &details("log")).unwrap();
        }
        let again = History::of(Dirs::below(place.path()));
        let builds = again.read().unwrap().builds;
        assert_eq!(builds.len(), KEPT);
        assert_eq!(builds[0].id, id(KEPT + 2));
        assert!(again.knows_folder(Path::new("/home/u/7")));
        assert!(!again.knows_folder(Path::new("/home/u/0")));
        assert_eq!(again.details(&id(7)).unwrap(), Some(details("log")));
        assert_eq!(again.details(&id(0)).unwrap(), None);
        let files = || fs::read_dir(&history.directory).unwrap().count();
        assert_eq!(files(), KEPT + 1);
        again.remove(&[id(7), id(0)]).unwrap();
        assert_eq!((again.read().unwrap().builds.len(), files()), (KEPT - 1, KEPT));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_told_of() {
        let (_place, history) = history();
        history.add(row(1), &details("log")).unwrap();
        let directory = history.directory.clone();
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
    fn a_second_damage_keeps_the_first_and_damaged_details_go_with_their_build() {
        let (_place, history) = history();
        history.add(row(1), &details("log")).unwrap();
        for number in 1..ASIDE + 3 {
            fs::write(history.directory.join(LIST), format!("[{number}")).unwrap();
            assert!(history.read().unwrap().builds.is_empty());
        }
        let text = |name: &str| fs::read_to_string(history.directory.join(name)).unwrap();
        assert_eq!(text("history.damaged"), "[1");
        assert_eq!(text("history.2.damaged"), "[2");
        history.add(row(2), &details("log")).unwrap();
        fs::write(history.file_of(&id(2)), "[").unwrap();
        assert_eq!(history.details(&id(2)).unwrap(), None);
        let aside = history.file_of(&id(2)).with_extension(DAMAGED);
        assert!(aside.exists());
        history.remove(&[id(2)]).unwrap();
        assert!(!aside.exists());
    }

    #[test]
    fn a_build_whose_window_has_ended_was_cancelled_and_one_whose_window_lives_runs() {
        let (_place, history) = history();
        let alive = alive::Alive::claim(&history.dirs).unwrap();
        let running = |number| BuildRow {
            outcome: BuildOutcome::Running,
            ..row(number)
        };
        history.begin(running(1), alive.name().to_owned()).unwrap();
        history.begin(running(2), "gone1234".to_owned()).unwrap();
        let outcomes = || {
            let builds = history.read().unwrap().builds;
            builds
                .iter()
                .map(|row| (row.id.clone(), row.outcome))
                .collect::<Vec<_>>()
        };
        let expected = [(id(2), BuildOutcome::Cancelled), (id(1), BuildOutcome::Running)];
        assert_eq!(outcomes(), expected);
        history.add(row(1), &details("log")).unwrap();
        let expected = [(id(2), BuildOutcome::Cancelled), (id(1), BuildOutcome::Done)];
        assert_eq!(outcomes(), expected);
    }

    #[test]
    fn a_list_that_somebody_wrote_names_no_file_elsewhere() {
        let (_place, history) = history();
        let directory = history.directory.clone();
        fs::create_dir_all(&directory).unwrap();
        fs::write(
            directory.with_file_name("secret.json"),
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
